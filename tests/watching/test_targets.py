"""Watch targets: valid arguments, the entry keys of an instance, and when it has left."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_astrobpm.client import states
from airflow_provider_astrobpm.watching.targets import (
    DIGEST_LENGTH,
    ENTRY_KEY_LENGTH,
    MAX_BP_STATUSES,
    WatchTargets,
    instance_digest,
)
from tests.support.memory_server import instance

WAITING, RUNNING, COMPLETED = "Waiting for user interaction", "Running", "Completed OK"
ENDS = ("Broken", "Completed OK", "Terminated", "User Terminated")


@pytest.mark.parametrize(
    ("entered", "statuses", "lists"),
    [
        (None, None, ENDS),
        ([WAITING], None, {WAITING}),
        ([WAITING, RUNNING], None, {RUNNING, WAITING}),
        (
            ["Suspended"],
            None,
            set(states.OPEN_STATES),
        ),  # where a suspended instance is listed is undocumented
        (["Suspended", COMPLETED], None, {*states.OPEN_STATES, COMPLETED}),
        (None, ["Approved"], {*states.OPEN_STATES, COMPLETED}),
        ([RUNNING], ["Approved"], {RUNNING}),
    ],
)
def test_lists_that_show_the_targets(entered: Any, statuses: Any, lists: Any) -> None:
    assert set(WatchTargets.of("Order", entered, statuses).lists) == set(lists)


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
        ("Order", None, list(map(str, range(MAX_BP_STATUSES + 1))), "must be 256 at most, not 257"),
    ],
)
def test_bad_arguments(name: Any, entered: Any, statuses: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        WatchTargets.of(name, entered, statuses)


@pytest.mark.parametrize(
    ("entered", "statuses", "state", "status", "numbers"),
    [
        ([RUNNING, "New"], None, RUNNING, None, ["01"]),
        ([RUNNING, "New"], None, RUNNING, "Approved", ["01"]),
        ([RUNNING, "New"], None, WAITING, RUNNING, []),
        (None, ["Rejected", "Approved"], RUNNING, "Approved", ["00"]),
        (None, ["Rejected", "Approved"], COMPLETED, "Rejected", ["01"]),
        (None, ["Rejected", "Approved"], COMPLETED, None, []),
        # A status from before a failure does not meet a wait condition, so it is not an entry either.
        (None, ["Approved"], "Broken", "Approved", []),
        (None, ["Approved"], "Terminated", "Approved", []),
        (None, ["Approved"], "Unheard Of", "Approved", []),
        (["Broken"], ["Approved"], "Broken", "Approved", ["00"]),
        # Both have to hold, as in a wait condition.
        ([COMPLETED], ["Approved"], COMPLETED, "Approved", ["00"]),
        ([COMPLETED], ["Approved"], COMPLETED, "Rejected", []),
        ([COMPLETED], ["Approved"], RUNNING, "Approved", []),
    ],
)
def test_entry_keys_of_an_instance(
    entered: Any, statuses: Any, state: str, status: str | None, numbers: list[str]
) -> None:
    targets = WatchTargets.of("Order", entered, statuses)
    entry_keys = targets.entry_keys_of(instance("1", state, bp_status=status), instance_digest("1"))
    assert entry_keys == [f"{number}{instance_digest('1')}" for number in numbers]
    assert {len(key) for key in entry_keys} <= {ENTRY_KEY_LENGTH}


@pytest.mark.parametrize("state", ["Suspended", WAITING])
def test_a_suspended_instance_counts_in_either_form(state: str) -> None:
    held = instance("1", state, suspended=True)
    assert WatchTargets.of("Order", ["Suspended"], None).entry_keys_of(held, "d") == ["00d"]


@pytest.mark.parametrize(
    ("entered", "statuses", "number", "is_seen", "left"),
    [
        ([COMPLETED, RUNNING], None, "01", False, True),  # Running is not an end
        ([COMPLETED, RUNNING], None, "01", True, True),
        ([COMPLETED, RUNNING], None, "00", False, False),  # Completed OK is an end
        ([COMPLETED, RUNNING], None, "00", True, True),
        (None, ["Approved"], "00", False, False),  # a status may be kept at the end
        (None, ["Approved"], "00", True, True),
        ([RUNNING], ["Approved"], "00", False, True),
        ([COMPLETED], ["Approved"], "00", False, False),
    ],
)
def test_when_an_instance_has_left_a_target(
    entered: Any, statuses: Any, number: str, is_seen: bool, left: bool
) -> None:
    targets = WatchTargets.of("Order", entered, statuses)
    seen = {instance_digest("1")} if is_seen else set()
    assert targets.has_left(f"{number}{instance_digest('1')}", seen) is left


def test_digests_are_short_and_distinct() -> None:
    digests = {instance_digest(str(number)) for number in range(20_000)}
    assert len(digests) == 20_000
    assert {len(digest) for digest in digests} == {DIGEST_LENGTH}


@pytest.mark.parametrize(
    ("entered", "statuses", "words"),
    [
        (["Running"], None, "enter state 'Running'"),
        (None, ["b", "a"], "reach business status 'a' or 'b'"),
        (["Running", "New"], ["a"], "reach business status 'a' in state 'New' or state 'Running'"),
    ],
)
def test_text_form(entered: Any, statuses: Any, words: str) -> None:
    assert str(WatchTargets.of("Order", entered, statuses)) == f"instances of 'Order' that {words}"
