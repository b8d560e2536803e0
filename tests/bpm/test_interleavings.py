"""Random interleavings of a poller: ``INTERLEAVINGS`` says how many are run (``make test-interleavings``)."""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test

from tests.bpm.interleaving import Interleaving

INTERLEAVINGS = int(os.environ.get("INTERLEAVINGS", "500"))
A_RUN = 250  # of them; each run begins anew, so that what hypothesis remembers of the earlier ones is let go
STEPS = 20


RUNS = [min(A_RUN, INTERLEAVINGS - first) for first in range(0, INTERLEAVINGS, A_RUN)]
"""What is to be run, cut into runs, which may share the processor's cores."""


@pytest.mark.parametrize("examples", RUNS)
def test_in_every_order(examples: int, request: pytest.FixtureRequest) -> None:
    began, before = time.monotonic(), Counter(Interleaving.tally)
    run_state_machine_as_test(
        Interleaving,
        settings=hypothesis_settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],  # to explain a failure takes longer than to find it
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    # For the summary in conftest.py, also where this runs in another process.
    done = Interleaving.tally - before
    request.node.user_properties += [*done.items(), ("seconds", time.monotonic() - began)]
