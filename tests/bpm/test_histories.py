"""Random histories of one start and of a batch: what must be true of every one stands in ``history_world``.

``make test-histories`` runs 100,000 of each kind; ``HISTORIES`` is another number. A history that fails is made smaller, and
printed as what it is made of.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random

import pytest

from tests.bpm.history import History, Subject, any_history, reduced
from tests.bpm.history_server import USED_FAULTS
from tests.bpm.history_world import World

HISTORIES = int(os.environ.get("HISTORIES", "4000"))
CHUNKS = 8


def history_of(seed: int, subject: Subject) -> History:
    """Return the history of a seed."""
    return any_history(Random(seed).choice, subject, USED_FAULTS)


def fault_of(history: History) -> str | None:
    """Run a history, and return what was not true of it."""
    try:
        World(history).run()
    except AssertionError as error:
        return str(error) or "an assertion failed"
    return None


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("subject", ["one", "batch"])
def test_every_history(subject: Subject, chunk: int, record_property: Callable[[str, object], None]) -> None:
    seeds = range(chunk, HISTORIES, CHUNKS)
    for seed in seeds:
        history = history_of(seed, subject)
        if fault_of(history):
            smallest = reduced(history, lambda one: fault_of(one) is not None)
            pytest.fail(f"seed {seed}: {fault_of(smallest)}\n{smallest}")
    record_property("histories", len(seeds))


def test_a_fault_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that forgets what it was about to send is found out, for one start and for a batch."""
    from airflow_provider_astrobpm.bpm import adoption, batch_record  # noqa: PLC0415 - what is broken here

    monkeypatch.setattr(adoption.Order, "may_have_sent", lambda _order, _record: False)
    monkeypatch.setattr(batch_record.BatchOrder, "may_have_sent", lambda _order, _record: False)
    subjects: tuple[Subject, ...] = ("one", "batch")
    for subject in subjects:
        assert any(fault_of(history_of(seed, subject)) for seed in range(500)), subject
