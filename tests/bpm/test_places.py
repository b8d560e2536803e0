"""Places: what may be watched, which marks an instance has, and when it has left."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_astrobpm.bpm import states
from airflow_provider_astrobpm.bpm.places import DIGEST, MARK, MOST, WHILE, Places, digest_of
from tests.bpm.virtual_time import instance

WAITING, RUNNING, COMPLETED = "Waiting for user interaction", "Running", "Completed OK"
ENDS = ("Broken", "Completed OK", "Terminated", "User Terminated")


@pytest.mark.parametrize(
    ("entered", "statuses", "places", "lists"),
    [
        (None, None, ENDS, ENDS),
        ([WAITING], None, (WAITING,), (WAITING,)),
        ([WAITING, RUNNING], None, (RUNNING, WAITING), (RUNNING, WAITING)),
        (None, ["Approved"], ("Approved",), tuple(states.STATES)),
        ([RUNNING], ["Approved"], (RUNNING, "Approved"), tuple(states.STATES)),
    ],
)
def test_what_is_watched(entered: Any, statuses: Any, places: Any, lists: Any) -> None:
    watched = Places.of("Order", entered, statuses)
    assert (*watched.states, *watched.bp_statuses) == places
    assert watched.lists == lists


@pytest.mark.parametrize(
    ("name", "entered", "statuses", "words"),
    [
        (" ", None, None, "bpm_name must be a text"),
        (None, None, None, "bpm_name must be a text"),
        ("Order", ["running"], None, "states must be one of"),
        ("Order", "Running", None, "states must be a list of texts"),
        ("Order", [], None, "states must not be empty"),
        ("Order", None, [], "bp_statuses must not be empty"),
        ("Order", None, [""], "each of bp_statuses must be a text"),
        ("Order", None, list(map(str, range(MOST + 1))), "must be 256 at most, not 257"),
    ],
)
def test_bad_arguments(name: Any, entered: Any, statuses: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Places.of(name, entered, statuses)


@pytest.mark.parametrize(
    ("state", "status", "numbers"),
    [
        (RUNNING, None, ["01"]),
        (RUNNING, "Approved", ["01", "02"]),
        (WAITING, "Approved", ["02"]),
        (COMPLETED, "Rejected", ["03"]),
        # A status that is called as a state is, and the reverse, is not mistaken for it.
        ("Dispatched", RUNNING, []),
        ("Approved", None, []),
    ],
)
def test_the_marks_of_an_instance(state: str, status: str | None, numbers: list[str]) -> None:
    places = Places.of("Order", [RUNNING, "New"], ["Rejected", "Approved"])
    assert (places.states, places.bp_statuses) == (("New", RUNNING), ("Approved", "Rejected"))
    marks = places.marks_of(instance("1", state, bp_status=status), digest_of("1"))
    assert marks == [f"{number}{digest_of('1')}" for number in numbers]
    assert {len(mark) for mark in marks} <= {MARK}


@pytest.mark.parametrize(
    ("number", "absent", "is_seen", "left"),
    [
        ("01", 0, False, True),  # Running: an open state
        ("01", 0, True, True),
        ("00", 0, True, False),  # Completed OK: an end
        ("00", WHILE - 1, False, False),
        ("00", WHILE, False, True),
        ("02", 0, False, False),  # a business status, of an instance that no list shows
        ("02", 0, True, True),
        ("02", WHILE, False, True),
    ],
)
def test_when_an_instance_has_left(number: str, absent: float, is_seen: bool, left: bool) -> None:
    places = Places.of("Order", [COMPLETED, RUNNING], ["Approved"])
    seen = {digest_of("1")} if is_seen else set()
    assert places.has_left(f"{number}{digest_of('1')}", seen, absent) is left


def test_a_digest_is_short_and_of_its_own() -> None:
    digests = {digest_of(str(number)) for number in range(20_000)}
    assert len(digests) == 20_000
    assert {len(digest) for digest in digests} == {DIGEST}


def test_it_says_what_it_is() -> None:
    words = "instances of 'Order' that enter state 'Running' or business status 'Approved'"
    assert str(Places.of("Order", [RUNNING], ["Approved"])) == words
