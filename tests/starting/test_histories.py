"""Random histories of one start and of a batch. ``history_invariants`` has the invariants of all of them.

``HISTORIES`` sets how many of each are run (``make test-histories``), and ``FIRST_HISTORY`` the number of the first. A failing one
is reduced and printed; ``World(History(...)).run()`` runs it again.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_astrobpm.client import key_search, states, timestamps
from airflow_provider_astrobpm.client.errors import RefusedError
from airflow_provider_astrobpm.client.key_search import KeyMatches
from airflow_provider_astrobpm.client.timestamps import Placement, place
from airflow_provider_astrobpm.starting import business_keys, try_request
from airflow_provider_astrobpm.starting.generation import Generation, generation_of
from airflow_provider_astrobpm.starting.try_record import TryRecord
from airflow_provider_astrobpm.starting.try_request import TryRequest
from tests.starting import history_world
from tests.starting.found_histories import FOUND, SAME
from tests.starting.history import (
    DAY,
    GRACE,
    History,
    Iterate,
    Retries,
    Server,
    Subject,
    Try,
    any_history,
    reduced,
)
from tests.starting.history_server import FAULTS, USED_FAULTS
from tests.starting.history_subjects import identity_of
from tests.starting.history_world import World

HISTORIES = int(os.environ.get("HISTORIES", "2500"))
FIRST = int(os.environ.get("FIRST_HISTORY", "0"))
A_RUN = 1250  # histories in one test; tests may run in parallel
SUBJECTS: tuple[Subject, ...] = ("one", "batch")
RUNS = [
    (subject, first, min(first + A_RUN, FIRST + HISTORIES))
    for first in range(FIRST, FIRST + HISTORIES, A_RUN)
    for subject in SUBJECTS
]


def history_of(subject: Subject, number: int) -> History:
    """Return the history of this number."""
    return any_history(Random(number).choice, subject, USED_FAULTS)


def failure_of(history: History, tally: Counter[str] | None = None) -> str | None:
    """Run a history, and return its error."""
    world = World(history)
    try:
        world.run()
    except Exception as error:  # noqa: BLE001 - any exception is a failure of the history
        return f"{type(error).__name__}: {error}"
    if tally is not None:
        tally.update(histories=1, **world.tally)
    return None


@pytest.mark.parametrize(("subject", "first", "end"), RUNS)
@pytest.mark.long
def test_random_histories(subject: Subject, first: int, end: int, request: pytest.FixtureRequest) -> None:
    tally: Counter[str] = Counter()
    began = time.monotonic()
    for number in range(first, end):
        if failure_of(history_of(subject, number), tally):
            least = reduced(history_of(subject, number), lambda each: failure_of(each) is not None)
            pytest.fail(f"history {number}: {failure_of(least)}\nWorld({least!r}).run()")
    # For the summary in conftest.py, even if this runs in another process.
    request.node.user_properties += [*tally.items(), ("seconds", time.monotonic() - began)]


@st.composite
def histories(draw: st.DrawFn, subject: Subject) -> History:
    return any_history(lambda options: draw(st.sampled_from(options)), subject, USED_FAULTS)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_hypothesis_histories(subject: Subject) -> None:
    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(histories(subject))
    def holds(history: History) -> None:
        assert failure_of(history) is None

    holds()


@pytest.mark.parametrize("name", FOUND)
def test_found_histories(name: str) -> None:
    assert failure_of(FOUND[name]) is None


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("fault", ["429 after", "token refused after", "token refused, then after"])
def test_assumed_away_faults_are_detected(
    fault: str, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    any_time = dataclasses.replace(FAULTS[fault], needs_one_attempt=False)
    monkeypatch.setitem(FAULTS, fault, any_time)
    history = History(subject=subject, launches=1, steps=(Try(faults=(fault,)),))
    assert "started twice" in str(failure_of(history))


def _no_check(*_arguments: Any, **_more: Any) -> Any:
    yield from ()


def _one_pass(matches: KeyMatches, **_: Any) -> Any:
    yield from key_search.list_matches(states.STATES, matches)


def _old_if_unknown(*arguments: Any, **more: Any) -> Placement:
    placed = place(*arguments, **more)
    return Placement.BEFORE if placed is Placement.UNKNOWN else placed


def _by_numbers_alone(_record: Any, **numbers: int) -> Generation:
    return generation_of(None, **numbers)


LOST = Try(faults=("400 after",))
LATER = Try(later=3 * DAY)
CUT = Server(cap=2, order="oldest first")
ALWAYS = property(lambda _error: True, lambda _error, _value: None)


class Mutation(NamedTuple):
    """A fault in the code, and a history that reveals it.

    :param subjects: the subjects that reveal it; a batch has one launch.
    """

    where: Any
    attribute: str
    value: Any
    history: History
    subjects: tuple[Subject, ...] = SUBJECTS


MUTATIONS: dict[str, Mutation] = {
    "instances with an unusable time are old": Mutation(
        timestamps,
        "place",
        _old_if_unknown,
        History(server=Server(stamps="dash"), steps=(LOST, LATER)),
    ),
    "nothing was ever sent": Mutation(
        TryRequest,
        "may_have_sent",
        lambda *_: False,
        History(steps=(LOST, Try())),
    ),
    "lists are complete": Mutation(
        key_search,
        "check_longest_lists",
        _no_check,
        History(server=CUT, foreign=(SAME, SAME, SAME), steps=(LOST, Try())),
    ),
    "one pass is enough": Mutation(
        key_search,
        "find_matches",
        _one_pass,
        History(steps=(LOST, Try(moves=(2, 0, "Waiting for user interaction")))),
    ),
    "a key is never cut off": Mutation(
        business_keys,
        "_resembles",
        lambda *_: False,
        History(server=Server(keys="cut at 50"), steps=(LOST, Try())),
    ),
    "a refused start was not carried out": Mutation(
        RefusedError,
        "never_reached",
        ALWAYS,
        History(steps=(LOST, Try())),
    ),
    "a retry searches at once": Mutation(
        try_request,
        "lookup_delay",
        lambda *_: 0.0,
        History(steps=(Try(faults=("400 after",), lag=GRACE), Try())),
    ),
    "the generation follows from today's retries": Mutation(
        try_request,
        "generation_of",
        _by_numbers_alone,
        History(steps=(Try(), Retries(2), Try())),
    ),
    "iterations have the same keys": Mutation(
        history_world,
        "identity_of",
        lambda run_id, _iteration: identity_of(run_id, None),
        History(steps=(Try(), Iterate(), Try(dies_at=0), Try())),
    ),
    "that a person was asked is forgotten": Mutation(
        TryRecord,
        "told",
        property(lambda _record: False),
        History(server=Server(keys="hidden"), steps=(LOST, Try())),
    ),
}


@pytest.mark.parametrize(
    ("name", "subject"), [(name, subject) for name, each in MUTATIONS.items() for subject in each.subjects]
)
def test_mutations_of_the_code_are_detected(
    name: str, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation = MUTATIONS[name]
    history = dataclasses.replace(mutation.history, subject=subject, launches=1)
    assert failure_of(history) is None
    monkeypatch.setattr(mutation.where, mutation.attribute, mutation.value)
    assert failure_of(history) is not None
