"""Random interleavings of a poller: ``INTERLEAVINGS`` says how many are run (``make test-interleavings``)."""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test

from tests.waiting.interleaving import Interleaving

INTERLEAVINGS = int(os.environ.get("INTERLEAVINGS", "500"))
MAX_EXAMPLES_PER_RUN = 250  # a new run frees the memory that hypothesis used for the earlier ones
STEPS = 20


RUNS = [
    min(MAX_EXAMPLES_PER_RUN, INTERLEAVINGS - first)
    for first in range(0, INTERLEAVINGS, MAX_EXAMPLES_PER_RUN)
]
"""The number of examples of each run. Runs may share the processor's cores."""


@pytest.mark.parametrize("examples", RUNS)
def test_no_wait_ends_wrongly_in_any_order(examples: int, request: pytest.FixtureRequest) -> None:
    began, before = time.monotonic(), Counter(Interleaving.tally)
    run_state_machine_as_test(
        Interleaving,
        settings=hypothesis_settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],  # explaining a failure takes longer than finding it
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    # For the summary in conftest.py, even if this runs in another process.
    done = Interleaving.tally - before
    request.node.user_properties += [*done.items(), ("seconds", time.monotonic() - began)]
