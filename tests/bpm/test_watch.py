"""A watch, look by look: what enters is told once, whatever restarts; what was there before is not."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.bpm import cursor, errors, search, states
from airflow_provider_astrobpm.bpm.findings import Findings
from airflow_provider_astrobpm.bpm.instance import BpmInstance
from airflow_provider_astrobpm.bpm.moment import Moment
from airflow_provider_astrobpm.bpm.places import WHILE, Places
from airflow_provider_astrobpm.bpm.search import Sought
from airflow_provider_astrobpm.bpm.watch import Watch
from airflow_provider_astrobpm.bpm.wire import Rows, Unreadable
from tests.bpm.virtual_time import instance

WAITING, RUNNING, COMPLETED, BROKEN = "Waiting for user interaction", "Running", "Completed OK", "Broken"
NAME = "Order"


def order(number: int, state: str, status: str | None = None, name: str = NAME) -> BpmInstance:
    return instance(str(number), state, bp_status=status, name=name)


def ends(marks: Collection[str] | None = None, **options: Any) -> Watch:
    return Watch(Places.of(NAME, None, None), marks, **options)


def look(watch: Watch, *rows: BpmInstance, now: float = 0.0) -> list[str]:
    """Show the watch what there is, newest last, and return what it reports now: ids and what they have entered."""
    sought = Sought()
    watch.seek(sought)
    assert not sought.ids
    assert not sought.keys
    findings = Findings({}, (), sought.lists)
    for state in sought.lists:
        findings.take(state, [row for row in reversed(rows) if row.state == state])
    watch.look_found(findings, now, at(now))
    entries = list(watch.entries)
    watch.noticed()
    watch.reported({entry.mark for entry in entries})
    assert not watch.entries
    return [entry.instance.id for entry in entries]


def at(now: float) -> Moment:
    return Moment(now, now)


def said(watch: Watch) -> list[str]:
    notes, watch.notes = watch.notes, []
    return [note.text for note in notes]


def test_the_first_look_only_begins() -> None:
    watch = ends()
    assert look(watch, order(1, COMPLETED), order(2, RUNNING)) == []
    assert said(watch) == [f"Watching {Places.of(NAME, None, None)}; 1 are there already and do not count"]
    assert look(watch, order(1, COMPLETED), order(2, COMPLETED)) == ["2"]
    assert look(watch, order(1, COMPLETED), order(2, COMPLETED)) == []
    assert said(watch) == []


def test_the_first_look_counts_if_that_is_wanted() -> None:
    watch = ends(include_existing=True)
    assert look(watch, order(1, COMPLETED), order(2, BROKEN), order(3, RUNNING)) == ["1", "2"]
    assert look(watch, order(1, COMPLETED), order(2, BROKEN), order(3, COMPLETED)) == ["3"]


def test_others_do_not_count() -> None:
    watch = ends([])
    assert look(watch, order(1, COMPLETED, name="Other"), order(2, RUNNING)) == []


def test_what_has_entered_while_nobody_watched_is_told() -> None:
    first = ends()
    look(first, order(1, COMPLETED))
    second = ends(first.marks, include_existing=True)  # that is for a watch that knows nothing
    assert look(second, order(1, COMPLETED), order(2, COMPLETED)) == ["2"]


def test_each_place_tells_of_its_own() -> None:
    watch = Watch(Places.of(NAME, [WAITING, COMPLETED], None), [])
    assert look(watch, order(1, WAITING)) == ["1"]
    assert look(watch, order(1, RUNNING)) == []
    assert look(watch, order(1, COMPLETED)) == ["1"]


def test_a_status_that_is_kept_to_the_end_is_told_once() -> None:
    watch = Watch(Places.of(NAME, None, ["Approved"]), [])
    assert look(watch, order(1, WAITING)) == []
    assert look(watch, order(1, WAITING, "Approved")) == ["1"]
    assert look(watch, order(1, RUNNING, "Approved")) == []
    assert look(watch, order(1, COMPLETED, "Approved")) == []


def test_a_state_and_a_status_have_to_hold_at_once() -> None:
    watch = Watch(Places.of(NAME, [COMPLETED], ["Approved"]), [])
    assert look(watch, order(1, RUNNING, "Approved"), order(2, COMPLETED, "Rejected")) == []
    assert look(watch, order(1, COMPLETED, "Approved"), order(2, COMPLETED, "Rejected")) == ["1"]


def test_an_open_state_may_be_entered_again() -> None:
    watch = Watch(Places.of(NAME, [WAITING], None), [])
    assert look(watch, order(1, WAITING)) == ["1"]
    assert look(watch, order(1, RUNNING)) == []
    assert look(watch, order(1, WAITING)) == ["1"]


def test_a_status_may_be_come_to_again() -> None:
    watch = Watch(Places.of(NAME, None, ["Rework"]), [])
    assert look(watch, order(1, RUNNING, "Rework")) == ["1"]
    assert look(watch) == []  # in no list: it may be between two
    assert look(watch, order(1, WAITING, "Rework")) == []
    assert look(watch, order(1, RUNNING, "Checked")) == []
    assert look(watch, order(1, RUNNING, "Rework")) == ["1"]


def test_an_end_that_a_list_leaves_out_for_a_while_is_told_once() -> None:
    watch = ends([])
    assert look(watch, order(1, COMPLETED)) == ["1"]
    assert look(watch, now=10) == []
    assert look(watch, order(1, COMPLETED), now=WHILE + 9) == []
    assert look(watch, now=WHILE + 10) == []
    assert len(watch.marks) == 1
    assert look(watch, now=2 * WHILE + 10) == []
    assert watch.marks == set()


def test_what_is_not_reported_counts_again_after_the_next_look() -> None:
    watch = ends([])
    sought = Sought()
    watch.seek(sought)
    findings = Findings({}, (), sought.lists)
    for state in sought.lists:
        findings.take(state, [order(1, COMPLETED)] if state == COMPLETED else [])
    watch.look_found(findings, 0, at(0))
    assert watch.has_news()
    watch.noticed()
    assert not watch.has_news()  # whoever could not report it is not asked again and again
    watch.look_found(findings, 1, at(1))
    assert watch.has_news()
    (entry,) = watch.entries
    watch.reported({entry.mark})
    assert watch.has_news()  # it is to be written down
    watch.is_written = True
    assert not watch.has_news()


def test_polls_that_fail_for_long_end_it_and_refused_credentials_do_at_once() -> None:
    watch = ends()
    for minute in range(10):
        assert watch.ending is None
        watch.look_failed(errors.ServerError("down"), 60.0 * minute, at(60.0 * minute + 60))
    assert isinstance(watch.ending, errors.ServerError)
    assert said(watch) == [
        "Polls fail from now on; the wait goes on. down. If this persists, check the server's own logs."
    ]
    watch.resume()
    assert watch.ending is None
    refused = errors.AuthenticationError("no")
    watch.look_failed(refused, 0, at(1))
    assert watch.ending is refused
    assert watch.is_written  # a watch that has not begun has nothing to write down
    watch.resume()
    assert look(watch) == []
    assert look(watch, order(1, COMPLETED)) == ["1"]


def part(watch: Watch, *rows: BpmInstance, failing: str, now: float = 0.0) -> list[str]:
    """Show the watch what there is, but for a list that fails, and return what it reports now."""
    sought = Sought()
    watch.seek(sought)
    findings = Findings({}, (), sought.lists)
    for state in sought.lists:
        if state == failing:
            findings.take_failed_list(state, errors.ServerError("down"))
        else:
            findings.take(state, [row for row in rows if row.state == state])
    watch.look_found(findings, now, at(now))
    entries = list(watch.entries)
    watch.noticed()
    watch.reported({entry.mark for entry in entries})
    return [entry.instance.id for entry in entries]


class TestListsThatFail:
    def test_the_others_are_judged_and_it_says_so_once(self) -> None:
        watch = ends([])
        assert part(watch, order(1, COMPLETED), failing=BROKEN) == ["1"]
        assert part(watch, order(1, COMPLETED), order(2, COMPLETED), failing=BROKEN) == ["2"]
        assert look(watch, order(1, COMPLETED), order(2, COMPLETED), order(3, BROKEN)) == ["3"]
        assert [words.split(".")[0] for words in said(watch)] == [
            "Polls fail from now on; the wait goes on",
            "Polls succeed again",
        ]

    def test_it_does_not_begin_before_all_were_listed(self) -> None:
        watch = ends()
        assert part(watch, order(1, COMPLETED), failing=BROKEN) == []
        assert look(watch, order(1, COMPLETED), order(2, BROKEN)) == []
        assert look(watch, order(1, COMPLETED), order(2, BROKEN), order(3, BROKEN)) == ["3"]

    @pytest.mark.parametrize(
        ("places", "state"),
        [
            (Places.of(NAME, [WAITING], None), WAITING),
            (Places.of(NAME, None, ["Approved"]), RUNNING),
            (Places.of(NAME, ["Suspended"], None), "Suspended"),
        ],
        ids=str,
    )
    def test_what_they_may_show_is_not_forgotten(self, places: Places, state: str) -> None:
        watch = Watch(places, [])
        one = order(1, state, "Approved")
        assert look(watch, one) == ["1"]
        assert part(watch, failing=state) == []
        assert part(watch, failing=state, now=2 * WHILE) == []
        assert look(watch, one, now=2 * WHILE) == []

    def test_what_they_would_not_show_is_forgotten(self) -> None:
        watch = Watch(Places.of(NAME, [WAITING, COMPLETED], None), [])
        assert look(watch, order(1, WAITING)) == ["1"]
        assert part(watch, failing=COMPLETED) == []
        assert look(watch, order(1, WAITING)) == ["1"]

    def test_contradictory_rows_neither_enter_nor_leave(self) -> None:
        watch = Watch(Places.of(NAME, [WAITING], None), [])
        assert look(watch, order(1, WAITING)) == ["1"]
        again = [order(1, WAITING), order(1, WAITING, "Other"), order(2, WAITING), order(2, WAITING, "Other")]
        assert look(watch, *again) == []
        assert look(watch, order(1, WAITING), order(2, WAITING)) == ["2"]


def test_a_list_that_looks_cut_off_is_warned_of_once() -> None:
    watch = ends([])
    rows = [order(number, COMPLETED) for number in range(100)]
    look(watch, *rows)
    look(watch, *rows)
    (words,) = said(watch)
    assert words.startswith("The list of state 'Completed OK' has exactly 100 rows and looks cut off")


def test_it_shares_the_lists_with_those_who_wait(stage: Any) -> None:
    rows = {state: [order(number, state)] for number, state in enumerate(states.STATES)}
    scene = stage(lambda operation: rows[dict(operation.query)["states"]])
    number = [*rows].index(RUNNING)
    findings = scene.run(search.find({str(number): RUNNING}, (), {COMPLETED, BROKEN, RUNNING}))
    assert sorted(scene.asked) == sorted([RUNNING, COMPLETED, BROKEN])
    assert findings.instance(str(number)).state == RUNNING
    assert findings.lists == {state: rows[state] for state in (RUNNING, COMPLETED, BROKEN)}


@pytest.mark.parametrize("lookup", ["list", "auto", "by_id"])
def test_every_list_that_is_wanted_is_there_whatever_else_is_sought(lookup: Any, stage: Any) -> None:
    scene = stage(lambda operation: [] if operation.kind == "query" else order(1, RUNNING))
    findings = scene.run(
        search.find({"1": RUNNING}, (), {COMPLETED, WAITING}, lookup=lookup, endpoint=search.Endpoint())
    )
    assert set(findings.lists) == {COMPLETED, WAITING}


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("move"), st.integers(1, 6), st.sampled_from([RUNNING, WAITING, COMPLETED, BROKEN])),
        st.tuples(st.just("look"), st.just(0), st.just("")),
        st.tuples(st.just("restart"), st.just(0), st.just("")),
    ),
    max_size=60,
)


@given(MOVES)
def test_any_history_tells_of_each_end_once(moves: list[tuple[str, int, str]]) -> None:
    """Ends are for ever; so each instance that has ended after the first look is told once, whatever restarts when."""
    where: dict[int, str] = {}
    store: dict[str, Any] = {}
    watch = ends()
    told = look(watch)

    def write() -> None:
        for key, value in [*cursor.changes("w", watch.marks, store)]:
            assert value is not None
            store[key] = value

    write()
    for what, number, state in moves:
        if what == "move" and not states.is_terminal(where.get(number, RUNNING)):
            where[number] = state
        elif what == "look":
            told += look(watch, *(order(one, at) for one, at in where.items()))
            write()
        elif what == "restart":
            keys = cursor.keys("w", store["w"])
            assert keys is not None
            watch = ends(cursor.marks_in(store[key] for key in keys))
    told += look(watch, *(order(one, at) for one, at in where.items()))
    assert sorted(told) == sorted(str(one) for one, at in where.items() if states.is_terminal(at))


@pytest.mark.parametrize(
    ("odd", "keeps"),
    [
        ({"id": "1", "name": NAME}, True),
        ({"id": "1", "unread": {"name"}}, True),
        ({"name": NAME, "unread": {"id"}}, True),
        ({"id": "2", "name": NAME}, False),
        ({"id": "1", "name": "Another process"}, False),
    ],
)
def test_a_row_that_cannot_be_read_makes_nothing_leave(odd: dict[str, Any], keeps: bool) -> None:
    watch = Watch(Places.of(NAME, [RUNNING], None), ())
    row = Unreadable(**{"reason": "its state is null", "unread": frozenset({"state"}), **odd})
    assert look_at(watch, [order(1, RUNNING)]) == ["1"]
    assert look_at(watch, Rows([], [row]), now=1) == []
    assert look_at(watch, [order(1, RUNNING)], now=2) == ([] if keeps else ["1"])
    look_at(watch, Rows([], [row]), now=3)
    look_at(watch, Rows([], [row]), now=3 + WHILE)
    assert watch.marks == set()


def look_at(watch: Watch, rows: list[BpmInstance], now: float = 0.0) -> list[str]:
    findings = Findings({}, (), {RUNNING})
    findings.take(RUNNING, rows)
    watch.look_found(findings, now, at(now))
    entered = [entry.instance.id for entry in watch.entries]
    watch.noticed()
    watch.reported({entry.mark for entry in watch.entries})
    return entered
