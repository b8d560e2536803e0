"""The search by business keys, and when it is certain that nothing is missing."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from airflow_provider_astrobpm.client import key_search, states
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.key_search import KeyMatches
from airflow_provider_astrobpm.client.operations import Operation
from airflow_provider_astrobpm.client.wire import UNKNOWN_STATE, Rows, UnreadableRow

NAME, NOW = "Approval", 1767916800.0  # 2026-01-09 00:00:00 UTC
Answer = Callable[[dict[str, str]], Sequence[BpmInstance]]


def row(
    instance_id: str,
    start_time: str = "2026-01-08 23:59:00",
    *,
    key: str | None = "other",
    state: str = "Completed OK",
) -> BpmInstance:
    return BpmInstance(
        id=instance_id,
        name=NAME,
        state=state,
        business_key=key,
        start_time=start_time,
        is_closed=states.is_terminal(state),
    )


class Server:
    """A server whose lists are truncated, and ordered or not."""

    def __init__(self, rows: Sequence[BpmInstance], *, cap: int | None = None, ordered: bool = True) -> None:
        self.rows, self.cap, self.ordered = rows, cap, ordered
        self.queries: list[dict[str, str]] = []

    def __call__(self, query: dict[str, str]) -> list[BpmInstance]:
        self.queries.append(query)
        found = [one for one in self.rows if one.state == query["states"]]
        if self.ordered:
            field = "id" if query["orderField"] == "id" else "start_time"
            found.sort(key=lambda one: str(getattr(one, field)), reverse=query["orderType"] == "desc")
        return found[: self.cap]


def search(answer: Answer, wanted: str = "mine") -> KeyMatches:
    matches = KeyMatches(lambda one: one.business_key == wanted, clock=lambda: NOW)
    flow = key_search.find_matches(matches, shuffle=random.Random(7).shuffle)
    reply: Any = None
    try:
        while True:
            step = flow.send(reply)
            assert isinstance(step, Operation)
            reply = answer(dict(step.query))
    except StopIteration:
        return matches


def test_unreadable_row_may_match_if_no_list_shows_a_key() -> None:
    for shown, is_doubt in ((None, True), ("1", True), ("other", False)):
        odd = UnreadableRow(
            reason="it is odd", unread=frozenset(["state"]), id="1", name=NAME, business_key=shown
        )
        matches = KeyMatches(lambda one: one.business_key == "mine", clock=lambda: NOW)
        matches.add_list(Rows((), [odd]))
        assert (matches.doubt(NAME, NOW) is not None) is is_doubt


@pytest.mark.parametrize(
    ("shown", "bpm_name", "judged"),
    [
        ({"id": "1", "name": "A", "business_key": "k"}, "A", ("1", "A", "k")),
        ({"id": "1", "name": "A", "business_key": "k"}, None, ("1", "A", "k")),
        ({"business_key": "k", "unread": frozenset({"id", "name"})}, "A", ("", "A", "k")),
        ({"business_key": "k", "unread": frozenset({"id", "name"})}, None, ("", "", "k")),
    ],
)
@pytest.mark.parametrize("is_wanted", [True, False])
def test_an_unreadable_row_is_judged_by_what_it_shows(
    shown: dict[str, Any], bpm_name: str | None, judged: tuple[str, str, str], is_wanted: bool
) -> None:
    asked: list[BpmInstance] = []

    def wanted(one: BpmInstance) -> bool:
        asked.append(one)
        return is_wanted

    matches = KeyMatches(wanted)
    odd = UnreadableRow(**{"reason": "it is odd", "unread": frozenset({"state"}), **shown})
    matches.add_list(Rows([], [odd]))
    assert (matches.why_incomplete(None, bpm_name) is not None) is is_wanted
    instance_id, name, key = judged
    assert asked == [BpmInstance(id=instance_id, name=name, state=UNKNOWN_STATE, business_key=key)]


def test_an_unreadable_row_with_a_key_that_resembles_is_in_doubt() -> None:
    matches = KeyMatches(lambda _one: False, resembles=lambda key: key == "MINE")
    for key, is_doubt in (("other", False), ("MINE", True)):
        odd = UnreadableRow(
            reason="it is odd", unread=frozenset({"state"}), id="1", name=NAME, business_key=key
        )
        matches.add_list(Rows([], [odd]))
        assert (matches.why_incomplete(None, NAME) is not None) is is_doubt


@pytest.mark.parametrize("before", [[], [[]], [[row("2")]]], ids=["first", "after none", "after one"])
@pytest.mark.parametrize("after", [[], [[]], [[row("3")]]], ids=["last", "before none", "before one"])
def test_an_unreadable_row_of_any_list_is_in_doubt(
    before: list[list[BpmInstance]], after: list[list[BpmInstance]]
) -> None:
    odd = UnreadableRow(reason="it is odd", unread=frozenset({"businessKey"}), id="1", name=NAME)
    matches = KeyMatches(lambda _one: False, clock=lambda: NOW)
    for rows in (*before, Rows([], [odd]), *after):
        matches.add_list(rows)
    assert "because it is odd" in str(matches.why_incomplete(NOW, NAME))


def test_unreadable_row_counts_in_the_length_of_its_list() -> None:
    """A list with one readable and one unreadable row has two rows."""
    odd = UnreadableRow(
        reason="it is odd", unread=frozenset(["state"]), id="2", name="Other", business_key="x"
    )
    matches = search(lambda query: Rows([row("1")], [odd]) if query["states"] == "Completed OK" else [])
    assert "may be cut off at its 2 rows" in str(matches.doubt(NAME, NOW))


def test_any_open_instance_counts_if_asked_to() -> None:
    old = row("1", "2026-01-01 00:00:00", key="MINE", state="Running")
    recent = row("2", "2026-01-08 23:59:00")
    matches = KeyMatches(
        lambda one: one.business_key == "mine",
        resembles=lambda key: (key or "").lower() == "mine",
        clock=lambda: NOW,
    )
    matches.add_list([old, recent])
    assert matches.doubt(NAME, NOW) is None
    assert matches.doubt(NAME, NOW, any_open_counts=True) is not None


def times(count: int) -> list[str]:
    return [
        f"2026-01-08 {20 + number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}"
        for number in range(count)
    ]


@pytest.mark.parametrize("rows", [0, 1, 2, 37, 100, 500])
def test_complete_lists_leave_no_doubt(rows: int) -> None:
    """The length does not matter: a hundred rows alone do not indicate a row cap."""
    found = search(Server([row(str(number), stamp) for number, stamp in enumerate(times(rows))]))
    assert found.doubt(NAME, NOW) is None


def test_rows_of_the_same_second_are_compared_by_id() -> None:
    assert search(Server([row(str(number)) for number in range(50)])).doubt(NAME, NOW) is None


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("cap", [2, 37, 100])
def test_truncated_lists_of_any_length_are_in_doubt(cap: int, ordered: bool) -> None:
    rows = [row(str(number), stamp) for number, stamp in enumerate(times(120))]
    random.Random(1).shuffle(rows)
    server = Server(rows, cap=cap, ordered=ordered)
    doubt = search(server).doubt(NAME, NOW)
    assert doubt == f"the list of state 'Completed OK' may be cut off at its {cap} rows"


def test_unordered_lists_are_in_doubt_even_if_complete() -> None:
    """An unordered list cannot be distinguished from a truncated one."""
    rows = [row(str(number), stamp) for number, stamp in enumerate(times(12))]
    random.Random(1).shuffle(rows)
    assert "cut off at its 12 rows" in str(search(Server(rows, ordered=False)).doubt(NAME, NOW))


def test_list_that_reaches_back_beyond_the_start_leaves_no_doubt() -> None:
    rows = [row(str(number), f"2026-01-0{1 + number % 8} 00:00:{number % 60:02}") for number in range(200)]
    recent = [row(f"new {number}", stamp) for number, stamp in enumerate(times(10))]
    found = search(Server([*rows, *recent], cap=100))
    assert found.doubt(NAME, NOW) is None
    assert found.doubt(NAME, NOW - 5 * 86400) is not None
    assert found.doubt(NAME, None) is not None


def test_only_the_longest_lists_are_requested_in_the_other_order() -> None:
    """A server truncates all lists at the same length, so a shorter list is complete."""
    rows = [row(str(number), stamp) for number, stamp in enumerate(times(20))]
    server = Server([*rows, *(row(f"r{number}", state="Running") for number in range(19))])
    search(server)
    assert [query["states"] for query in server.queries if query["orderType"] == "asc"] == ["Completed OK"]


def test_instance_that_only_the_other_order_shows_is_found() -> None:
    rows = [
        row(str(number), stamp, key="mine" if number == 0 else "other")
        for number, stamp in enumerate(times(50))
    ]
    assert set(search(Server(rows, cap=30)).instances) == {"0"}


def test_open_match_ends_the_search() -> None:
    server = Server([row("1", key="mine", state="Running")])
    search(server)
    assert len(server.queries) == 12


def test_ended_match_does_not_end_the_search() -> None:
    """Several passes may miss an open match, because it moves."""
    ended, seen = row("1", key="mine"), 0

    def answer(query: dict[str, str]) -> list[BpmInstance]:
        nonlocal seen
        seen += 1
        found = [ended] if query["states"] == "Completed OK" else []
        return [*found, row("2", key="mine", state=query["states"])] if seen == 45 else found

    assert search(answer).has_open


def test_passes_that_keep_missing_instances_leave_doubt() -> None:
    passes: dict[str, int] = {}

    def answer(query: dict[str, str]) -> list[BpmInstance]:
        number = passes[query["states"]] = passes.get(query["states"], 0) + 1
        return [row("1", state="Running")] if query["states"] == "Running" and number % 2 else []

    assert "move from state to state" in str(search(answer).doubt(NAME, NOW))


@pytest.mark.parametrize("request_time", [0.01, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("dwell", [0.1, 0.3, 1.0])
def test_instance_that_moves_back_and_forth_is_rarely_missed(request_time: float, dwell: float) -> None:
    missed = 0
    for seed in range(300):
        rng = random.Random(seed)
        one, other = rng.sample(states.OPEN_STATES, 2)
        now = rng.random() * 1000

        def answer(
            query: dict[str, str], one: str = one, other: str = other, rng: Any = rng
        ) -> list[BpmInstance]:
            nonlocal now
            now += request_time * rng.uniform(0.5, 1.5)
            state = one if (now // dwell) % 2 else other
            return [row("1", key="mine", state=state)] if state == query["states"] else []

        missed += not search(answer).instances
    assert missed <= 2


def test_rows_without_keys_leave_doubt() -> None:
    assert search(Server([row("1", key=None)])).doubt(NAME, NOW) == "the lists show no business keys here"


def test_rows_of_other_bpms_without_keys_leave_no_doubt() -> None:
    matches = KeyMatches(lambda _one: False, clock=lambda: NOW)
    matches.add_list([BpmInstance(id="1", name="Other", state="Running")])
    assert matches.doubt(NAME, NOW) is None
    assert matches.doubt("Other", NOW) == "the lists show no business keys here"
    assert matches.why_keyless() == "the lists show no business keys here"


@pytest.mark.parametrize(
    ("state", "any_open_counts", "is_newest_first", "since", "is_doubt"),
    [
        ("Running", False, True, NOW, False),
        ("Running", True, True, NOW, True),
        ("Completed OK", True, True, NOW, False),
        ("Completed OK", False, True, NOW, False),
        ("Completed OK", False, False, NOW, True),
        ("Completed OK", False, True, NOW - 30 * 86_400, True),
        ("Completed OK", False, True, None, True),
    ],
)
def test_a_cut_off_list_is_in_doubt_unless_it_reaches_back(
    state: str, any_open_counts: bool, is_newest_first: bool, since: float | None, is_doubt: bool
) -> None:
    matches = KeyMatches(lambda _one: False, clock=lambda: NOW)
    rows = [row("2"), row("1", "2026-01-05 00:00:00")]
    matches.add_list(rows)
    matches.truncated_lists[state] = rows, is_newest_first
    words = f"the list of state {state!r} may be cut off at its 2 rows"
    for found in (
        matches.doubt(NAME, since, any_open_counts=any_open_counts),
        matches.why_incomplete(since, NAME, any_open_counts=any_open_counts),
    ):
        assert found == (words if is_doubt else None)
    if not any_open_counts:
        assert matches.why_incomplete(since) == (words if is_doubt else None)


@pytest.mark.parametrize(
    ("passes", "has_missed"),
    [
        ([], False),
        ([{"1"}, set(), {"1"}], True),
        ([{"1"}, {"1"}, set(), {"1"}], True),
        ([set(), set(), {"1"}], False),
        ([{"1"}, set(), set()], False),
        ([{"1"}, {"1"}, {"1"}], False),
    ],
)
def test_a_pass_misses_what_those_before_and_after_it_show(passes: list[set[str]], has_missed: bool) -> None:
    assert key_search._have_missed_any(passes) is has_missed


class TestPasses:
    """How often the open states are listed before an instance counts as missing."""

    def passes(self, shows: Callable[[int], bool]) -> int:
        """Search where one instance shows in some passes, by their number. Return how many there were."""
        count = 0

        def answer(query: dict[str, str]) -> list[BpmInstance]:
            nonlocal count
            if query["states"] != "Running":
                return []
            if query["orderType"] == "desc":
                count += 1
            return [row("1", state="Running")] if shows(count) else []

        search(answer)
        return count

    @pytest.mark.parametrize(
        ("shows", "passes"),
        [
            (lambda _number: True, key_search.FEWEST_PASSES),
            (lambda _number: False, key_search.FEWEST_PASSES),
            (lambda number: number != 3, key_search.FEWEST_PASSES),  # it has shown ever since
            (lambda number: number != 5, key_search.FEWEST_PASSES + 2),
            (lambda number: number % 2 == 1, key_search.FEWEST_PASSES + key_search.MAX_EXTRA_PASSES),
        ],
        ids=["shown", "not there", "missed early", "missed late", "missed again and again"],
    )
    def test_depend_on_whether_the_last_ones_have_missed_anything(
        self, shows: Callable[[int], bool], passes: int
    ) -> None:
        assert self.passes(shows) == passes


def test_rows_without_a_start_time_are_the_oldest() -> None:
    dated, undated = (
        row("1"),
        BpmInstance(id="2", name=NAME, state="Completed OK", business_key="x", is_closed=True),
    )

    def answer(query: dict[str, str]) -> list[BpmInstance]:
        if query["states"] != "Completed OK":
            return []
        return [dated, undated] if query["orderType"] == "desc" else [undated, dated]

    assert search(answer).truncated_lists == {}


def test_only_rows_of_the_same_second_are_requested_by_id() -> None:
    dated = [row(str(number), stamp) for number, stamp in enumerate(times(9))]
    same_second = [row(str(number)) for number in range(9)]
    for rows, ordered, is_asked in (
        (dated, True, False),
        (dated, False, False),
        (same_second, True, True),
        (same_second, False, True),
    ):
        server = Server(rows, cap=5, ordered=ordered)
        search(server)
        assert any(query["orderField"] == "id" for query in server.queries) is is_asked


def test_a_list_is_complete_only_if_its_unreadable_rows_are_the_same_too() -> None:
    rows = [row("1", "2026-01-08 23:59:00"), row("2", "2026-01-08 23:58:00")]
    for other, is_cut in (("3", False), ("4", True)):

        def answer(query: dict[str, str], other: str = other) -> Sequence[BpmInstance]:
            if query["states"] != "Completed OK":
                return []
            is_newest_first = query["orderType"] == "desc"
            odd = UnreadableRow(
                reason="it is odd",
                unread=frozenset({"state"}),
                id="3" if is_newest_first else other,
                name="Other",
                business_key="x",
            )
            return Rows(rows if is_newest_first else rows[::-1], [odd])

        assert (search(answer).truncated_lists != {}) is is_cut
