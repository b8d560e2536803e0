"""A watch, poll by poll: it reports each entry once, across restarts, and nothing that was there before."""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.client import errors, states
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.moment import Moment
from airflow_provider_astrobpm.client.search import SearchRequest
from airflow_provider_astrobpm.client.search_result import SearchResult
from airflow_provider_astrobpm.client.wire import Rows, UnreadableRow
from airflow_provider_astrobpm.watching import state_codec
from airflow_provider_astrobpm.watching.targets import WatchTargets
from airflow_provider_astrobpm.watching.watch import MISSING_GRACE_SECONDS, Watch
from tests.support.memory_server import instance

WAITING, RUNNING, COMPLETED, BROKEN = "Waiting for user interaction", "Running", "Completed OK", "Broken"
NAME = "Order"
MANY = 2000


def order(number: int, state: str, status: str | None = None, name: str = NAME) -> BpmInstance:
    return instance(str(number), state, bp_status=status, name=name)


def ends(entry_keys: Collection[str] | None = None, **options: Any) -> Watch:
    return Watch(WatchTargets.of(NAME, None, None), entry_keys, **options)


def poll(watch: Watch, *rows: BpmInstance, now: float = 0.0) -> list[str]:
    """Record a poll with these rows, newest last, and return what the watch reports: ids and their targets."""
    watch.record_poll(result_of(watch, *rows), at(now))
    entries = dict(watch.entries)
    watch.acknowledge()
    watch.mark_reported(entries)
    assert not watch.entries
    return [entry.id for entry in entries.values()]


def result_of(watch: Watch, *rows: BpmInstance) -> SearchResult:
    """Return the result of a poll with these rows, newest last."""
    sought = SearchRequest()
    watch.add_to_query(sought)
    assert not sought.ids
    assert not sought.keys
    search_result = SearchResult({}, (), sought.lists)
    for state in sought.lists:
        search_result.add_list(state, [row for row in reversed(rows) if row.state == state])
    return search_result


def at(now: float) -> Moment:
    return Moment(now, now)


def said(watch: Watch) -> list[str]:
    notes, watch.notes = watch.notes, []
    return [note.text for note in notes]


def test_the_first_poll_reports_nothing() -> None:
    watch = ends()
    assert poll(watch, order(1, COMPLETED), order(2, RUNNING)) == []
    assert said(watch) == [
        f"Watching {WatchTargets.of(NAME, None, None)}; 1 are already there and are not reported"
    ]
    assert poll(watch, order(1, COMPLETED), order(2, COMPLETED)) == ["2"]
    assert poll(watch, order(1, COMPLETED), order(2, COMPLETED)) == []
    assert said(watch) == []


def test_the_first_poll_reports_with_include_existing() -> None:
    watch = ends(include_existing=True)
    assert poll(watch, order(1, COMPLETED), order(2, BROKEN), order(3, RUNNING)) == ["1", "2"]
    assert poll(watch, order(1, COMPLETED), order(2, BROKEN), order(3, COMPLETED)) == ["3"]


def test_has_no_news_before_the_first_poll() -> None:
    watch = ends([])
    assert watch.has_news() is False
    watch.mark_reported({"01x"})  # has to be stored, after the next poll
    assert watch.has_news() is False
    poll(watch, order(1, RUNNING))
    assert watch.has_news() is False
    watch.record_poll(result_of(watch), at(1))
    assert watch.has_news() is True


@pytest.mark.parametrize("numbers", [(1, 2, 3), (3, 2, 1), (2, 1, 3)])
def test_other_processes_hide_none_of_its_own(numbers: tuple[int, ...]) -> None:
    watch = ends([])
    rows = [order(number, COMPLETED, name="Other" if number == 1 else NAME) for number in numbers]
    assert sorted(poll(watch, *rows)) == ["2", "3"]


def test_ignores_other_processes() -> None:
    watch = ends([])
    assert poll(watch, order(1, COMPLETED, name="Other"), order(2, RUNNING)) == []


def test_reports_entries_from_before_a_restart() -> None:
    first = ends()
    poll(first, order(1, COMPLETED))
    second = ends(first.entry_keys, include_existing=True)  # matters only for a new watch
    assert poll(second, order(1, COMPLETED), order(2, COMPLETED)) == ["2"]


def test_reports_each_target() -> None:
    watch = Watch(WatchTargets.of(NAME, [WAITING, COMPLETED], None), [])
    assert poll(watch, order(1, WAITING)) == ["1"]
    assert poll(watch, order(1, RUNNING)) == []
    assert poll(watch, order(1, COMPLETED)) == ["1"]


def test_reports_a_status_kept_to_the_end_once() -> None:
    watch = Watch(WatchTargets.of(NAME, None, ["Approved"]), [])
    assert poll(watch, order(1, WAITING)) == []
    assert poll(watch, order(1, WAITING, "Approved")) == ["1"]
    assert poll(watch, order(1, RUNNING, "Approved")) == []
    assert poll(watch, order(1, COMPLETED, "Approved")) == []


def test_state_and_status_must_hold_together() -> None:
    watch = Watch(WatchTargets.of(NAME, [COMPLETED], ["Approved"]), [])
    assert poll(watch, order(1, RUNNING, "Approved"), order(2, COMPLETED, "Rejected")) == []
    assert poll(watch, order(1, COMPLETED, "Approved"), order(2, COMPLETED, "Rejected")) == ["1"]


def test_reports_an_open_state_entered_again() -> None:
    watch = Watch(WatchTargets.of(NAME, [WAITING], None), [])
    assert poll(watch, order(1, WAITING)) == ["1"]
    assert poll(watch, order(1, RUNNING)) == []
    assert poll(watch, order(1, WAITING)) == ["1"]


def test_reports_an_entry_although_its_instance_has_left_meanwhile() -> None:
    watch = Watch(WatchTargets.of(NAME, [WAITING], None), [])
    watch.record_poll(result_of(watch, order(1, WAITING)), at(0))
    assert poll(watch, order(2, WAITING)) == ["1", "2"]
    assert poll(watch, order(2, WAITING)) == []
    assert poll(watch, order(1, WAITING), order(2, WAITING)) == ["1"]


def test_reports_a_status_reached_again() -> None:
    watch = Watch(WatchTargets.of(NAME, None, ["Rework"]), [])
    assert poll(watch, order(1, RUNNING, "Rework")) == ["1"]
    assert poll(watch) == []  # in no list: it may be moving between two
    assert poll(watch, order(1, WAITING, "Rework")) == []
    assert poll(watch, order(1, RUNNING, "Checked")) == []
    assert poll(watch, order(1, RUNNING, "Rework")) == ["1"]


def test_reports_an_end_once_even_if_a_list_omits_it_for_a_while() -> None:
    watch = ends([])
    assert poll(watch, order(1, COMPLETED)) == ["1"]
    assert poll(watch, now=10) == []
    assert poll(watch, order(1, COMPLETED), now=MISSING_GRACE_SECONDS + 9) == []
    assert poll(watch, now=MISSING_GRACE_SECONDS + 10) == []
    assert poll(watch, now=2 * MISSING_GRACE_SECONDS + 9) == []
    assert len(watch.entry_keys) == 1
    assert poll(watch, now=2 * MISSING_GRACE_SECONDS + 10) == []
    assert watch.entry_keys == set()


def test_unreported_entries_are_news_again_after_the_next_poll() -> None:
    watch = ends([])
    watch.record_poll(result_of(watch, order(1, COMPLETED)), at(0))
    assert watch.has_news()
    watch.acknowledge()
    assert not watch.has_news()  # not news again before the next poll
    watch.record_poll(result_of(watch, order(1, COMPLETED)), at(1))
    assert watch.has_news()
    watch.mark_reported({*watch.entries})
    assert watch.has_news()  # it has to be stored
    watch.is_saved = True
    assert not watch.has_news()


def test_ends_after_long_failures_and_at_once_on_refused_credentials() -> None:
    watch = ends()
    for minute in range(11):
        assert watch.ending is None
        watch.record_failed_poll(errors.ServerError("down"), at(60.0 * minute))
    assert isinstance(watch.ending, errors.ServerError)
    assert said(watch) == [
        "Polls are failing; still waiting. down. If this persists, check the server's own logs."
    ]
    watch.resume()
    assert watch.ending is None
    refused = errors.AuthenticationError("no")
    watch.record_failed_poll(refused, at(1))
    assert watch.ending is refused
    assert watch.is_saved  # a watch that has not started has nothing to store
    watch.resume()
    assert poll(watch) == []
    assert poll(watch, order(1, COMPLETED)) == ["1"]


def part(watch: Watch, *rows: BpmInstance, failing: str, now: float = 0.0) -> list[str]:
    """Record a poll in which one list fails, and return what the watch reports."""
    sought = SearchRequest()
    watch.add_to_query(sought)
    search_result = SearchResult({}, (), sought.lists)
    for state in sought.lists:
        if state == failing:
            search_result.add_failed_list(state, errors.ServerError("down"))
        else:
            search_result.add_list(state, [row for row in rows if row.state == state])
    watch.record_poll(search_result, at(now))
    entries = dict(watch.entries)
    watch.acknowledge()
    watch.mark_reported(entries)
    return [entry.id for entry in entries.values()]


class TestFailingLists:
    def test_other_lists_count_and_the_failure_is_logged_once(self) -> None:
        watch = ends([])
        assert part(watch, order(1, COMPLETED), failing=BROKEN) == ["1"]
        assert part(watch, order(1, COMPLETED), order(2, COMPLETED), failing=BROKEN) == ["2"]
        assert poll(watch, order(1, COMPLETED), order(2, COMPLETED), order(3, BROKEN)) == ["3"]
        assert [words.split(".")[0] for words in said(watch)] == [
            "Polls are failing; still waiting",
            "Polls succeed again",
        ]

    def test_does_not_start_before_all_lists_were_read(self) -> None:
        watch = ends()
        assert part(watch, order(1, COMPLETED), failing=BROKEN) == []
        assert poll(watch, order(1, COMPLETED), order(2, BROKEN)) == []
        assert poll(watch, order(1, COMPLETED), order(2, BROKEN), order(3, BROKEN)) == ["3"]

    @pytest.mark.parametrize(
        ("targets", "state"),
        [
            (WatchTargets.of(NAME, [WAITING], None), WAITING),
            (WatchTargets.of(NAME, None, ["Approved"]), RUNNING),
            (WatchTargets.of(NAME, ["Suspended"], None), "Suspended"),
        ],
        ids=str,
    )
    def test_instances_they_may_show_are_not_forgotten(self, targets: WatchTargets, state: str) -> None:
        watch = Watch(targets, [])
        one = order(1, state, "Approved")
        assert poll(watch, one) == ["1"]
        assert part(watch, failing=state) == []
        assert part(watch, failing=state, now=2 * MISSING_GRACE_SECONDS) == []
        assert poll(watch, one, now=2 * MISSING_GRACE_SECONDS) == []

    def test_instances_they_would_not_show_are_forgotten(self) -> None:
        watch = Watch(WatchTargets.of(NAME, [WAITING, COMPLETED], None), [])
        assert poll(watch, order(1, WAITING)) == ["1"]
        assert part(watch, failing=COMPLETED) == []
        assert poll(watch, order(1, WAITING)) == ["1"]

    def test_contradictory_rows_neither_enter_nor_leave(self) -> None:
        watch = Watch(WatchTargets.of(NAME, [WAITING], None), [])
        assert poll(watch, order(1, WAITING)) == ["1"]
        again = [order(1, WAITING), order(1, WAITING, "Other"), order(2, WAITING), order(2, WAITING, "Other")]
        assert poll(watch, *again) == []
        assert poll(watch, order(1, WAITING), order(2, WAITING)) == ["2"]
        again = [order(1, WAITING), order(1, WAITING, "Other")]
        assert poll(watch, order(3, WAITING), *again, order(4, WAITING)) == ["3", "4"]


class TestSortingAhead:
    """Long lists are sorted in another thread, before their poll is recorded."""

    def test_only_the_lists_of_its_targets_are_sorted(self) -> None:
        watch = ends([])
        search_result = result_of(watch, order(1, COMPLETED), order(2, BROKEN), order(3, BROKEN))
        assert watch.rows_to_sort(search_result) == 3
        assert watch.rows_to_sort(SearchResult({}, (), {RUNNING})) == 0
        assert watch.size == 0
        watch.sort_rows(search_result)
        assert watch.size == 0, "nothing else changes"
        watch.record_poll(search_result, at(0))
        assert [one.id for one in watch.entries.values()] == ["1", "2", "3"]
        assert watch.size == 3

    def test_what_was_sorted_counts_for_its_own_poll(self) -> None:
        watch = ends([])
        earlier, later = result_of(watch, order(1, COMPLETED)), result_of(watch, order(2, COMPLETED))
        watch.sort_rows(earlier)
        watch.record_poll(later, at(0))
        assert [one.id for one in watch.entries.values()] == ["2"]

    def test_is_used_as_it_was_sorted(self) -> None:
        watch = ends([])
        search_result = result_of(watch, order(1, COMPLETED))
        watch.sort_rows(search_result)
        search_result.lists[COMPLETED] = []  # is read once
        watch.record_poll(search_result, at(0))
        assert [one.id for one in watch.entries.values()] == ["1"]


def test_counts_only_polls_that_have_read_all_lists() -> None:
    watch = ends()
    for polls, row in enumerate((order(1, COMPLETED), order(2, COMPLETED))):
        assert watch.polls == polls
        poll(watch, row)
    part(watch, failing=BROKEN)
    assert watch.polls == 2


def test_what_is_stored_changes_with_each_report_and_each_leave() -> None:
    watch = Watch(WatchTargets.of(NAME, [WAITING], None), [])
    poll(watch, order(1, RUNNING))
    assert watch.is_saved
    watch.mark_reported(set())
    assert watch.is_saved
    poll(watch, order(1, WAITING))
    assert not watch.is_saved
    watch.is_saved = True
    poll(watch, order(1, WAITING))
    assert watch.is_saved
    poll(watch, order(1, RUNNING))
    assert watch.is_saved is False


def test_a_baseline_has_to_be_stored() -> None:
    watch = ends()
    assert watch.is_saved
    poll(watch)
    assert not watch.is_saved
    said(watch)
    assert not watch.has_news(), "it was acknowledged"


def test_says_how_many_existing_instances_it_reports() -> None:
    watch = ends(include_existing=True)
    poll(watch, order(1, COMPLETED), order(2, BROKEN))
    assert said(watch) == [
        f"Watching {WatchTargets.of(NAME, None, None)}; 2 are already there and are reported"
    ]


def test_warns_once_about_a_truncated_list() -> None:
    watch = ends([])
    rows = [order(number, COMPLETED) for number in range(100)]
    poll(watch, *rows)
    poll(watch, *rows)
    (note,) = watch.notes
    assert note.warning
    (words,) = said(watch)
    assert words.startswith("The list of state 'Completed OK' has exactly 100 rows and may be truncated")


@pytest.mark.parametrize("include_existing", [False, True])
def test_many_instances_start_no_garbage_collection(include_existing: bool) -> None:
    """A full collection stops all threads, and with them the event loop of a triggerer."""
    watch = Watch(WatchTargets.of(NAME, [COMPLETED], None), include_existing=include_existing)
    search_result = SearchResult({}, (), [COMPLETED])
    search_result.add_list(COMPLETED, [order(number, COMPLETED) for number in range(MANY)])
    with few_objects_allowed() as collections:
        watch.sort_rows(search_result)
        watch.record_poll(search_result, at(0))
    assert len(watch.entries) == (MANY if include_existing else 0)
    assert not collections


@contextmanager
def few_objects_allowed() -> Iterator[list[str]]:
    """Let Python collect garbage when there are some more objects than now, and yield the list of the collections."""
    collections: list[str] = []
    thresholds = gc.get_threshold()
    gc.collect()
    gc.set_threshold(MANY // 10)
    gc.callbacks.append(note := lambda phase, _info: collections.append(phase))
    try:
        yield collections
    finally:
        gc.callbacks.remove(note)
        gc.set_threshold(*thresholds)


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("move"), st.integers(1, 6), st.sampled_from([RUNNING, WAITING, COMPLETED, BROKEN])),
        st.tuples(st.just("poll"), st.just(0), st.just("")),
        st.tuples(st.just("restart"), st.just(0), st.just("")),
    ),
    max_size=60,
)


@given(MOVES)
def test_reports_each_end_once_in_any_history(moves: list[tuple[str, int, str]]) -> None:
    """Ends are permanent, so each instance that ends after the first poll is reported once, across restarts."""
    where: dict[int, str] = {}
    store: dict[str, Any] = {}
    watch = ends()
    reported = poll(watch)

    def write() -> None:
        for key, value in [*state_codec.state_changes("w", watch.entry_keys, store)]:
            assert value is not None
            store[key] = value

    write()
    for what, number, state in moves:
        if what == "move" and not states.is_terminal(where.get(number, RUNNING)):
            where[number] = state
        elif what == "poll":
            reported += poll(watch, *(order(one, at) for one, at in where.items()))
            write()
        elif what == "restart":
            keys = state_codec.shard_keys("w", store["w"])
            assert keys is not None
            watch = ends(state_codec.decode_shards(store[key] for key in keys))
    reported += poll(watch, *(order(one, at) for one, at in where.items()))
    assert sorted(reported) == sorted(str(one) for one, at in where.items() if states.is_terminal(at))


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
def test_an_unreadable_row_makes_nothing_leave(odd: dict[str, Any], keeps: bool) -> None:
    watch = Watch(WatchTargets.of(NAME, [RUNNING], None), ())
    row = UnreadableRow(**{"reason": "its state is null", "unread": frozenset({"state"}), **odd})
    assert look_at(watch, [order(1, RUNNING)]) == ["1"]
    assert look_at(watch, Rows([], [row]), now=1) == []
    assert look_at(watch, [order(1, RUNNING)], now=2) == ([] if keeps else ["1"])
    look_at(watch, Rows([], [row]), now=3)
    look_at(watch, Rows([], [row]), now=3 + MISSING_GRACE_SECONDS)
    assert watch.entry_keys == set()


def look_at(watch: Watch, rows: list[BpmInstance], now: float = 0.0) -> list[str]:
    search_result = SearchResult({}, (), {RUNNING})
    search_result.add_list(RUNNING, rows)
    watch.record_poll(search_result, at(now))
    entered = [entry.id for entry in watch.entries.values()]
    watch.acknowledge()
    watch.mark_reported({*watch.entries})
    return entered
