"""The result of a search in which some calls failed: found instances are unaffected, and nothing false is concluded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.client import search, states
from airflow_provider_astrobpm.client.errors import (
    AstroZeroError,
    AuthenticationError,
    CallError,
    InstanceNotFoundError,
    InterruptedCallError,
    KeysNotShownError,
    NotSentError,
    RefusedError,
    ServerError,
    SeveralInstancesError,
    ThrottledError,
    UnexpectedAnswerError,
)
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.key_form import BusinessKey
from airflow_provider_astrobpm.client.operations import Operation
from airflow_provider_astrobpm.client.search_result import (
    MAX_CONSECUTIVE_FAILURES,
    UNREADABLE_ADVICE,
    SearchResult,
)
from airflow_provider_astrobpm.client.wire import Rows, UnreadableRow
from tests.support.memory_server import instance

ALL = list(states.STATES)
RUNS, DONE, WAITS, NEW = "Running", "Completed OK", "Waiting for user interaction", "New"
KEY = BusinessKey("k")
Answer = Callable[[Operation[Any]], Any]


def too_long() -> CallError:
    error = UnexpectedAnswerError("too long", status=200)
    error.is_malformed = False
    return error


def server(*rows: BpmInstance, failing: dict[str, CallError] | None = None, times: int = 99) -> Answer:
    """List these instances, let the lists of some states fail a number of times, and refuse to read by id."""
    left = dict.fromkeys(failing or {}, times)

    def answer(operation: Operation[Any]) -> Any:
        if operation.kind != "query":
            return RefusedError("no such thing", status=404)
        state = dict(operation.query)["states"]
        if failing and left.get(state, 0):
            left[state] -= 1
            return failing[state]
        return [row for row in rows if row.state == state]

    return answer


class TestSearchById:
    def test_failed_list_affects_only_the_instances_in_it(self, stage: Any) -> None:
        failure = ServerError("x")
        scene = stage(server(instance("1", RUNS), instance("2", WAITS), failing={RUNS: failure}))
        search_result = scene.run(search.find({"1": RUNS, "2": WAITS}))
        assert search_result.instance("2").state == WAITS
        with pytest.raises(ServerError):
            search_result.instance("1")
        # It is most likely still in its last seen state, so no other list is requested.
        assert scene.asked == [WAITS, RUNS]
        assert search_result.failure is None
        assert search_result.has_gaps

    def test_moved_instance_is_found_despite_another_failed_list(self, stage: Any) -> None:
        scene = stage(server(instance("1", DONE), failing={WAITS: too_long()}))
        search_result = scene.run(search.find({"1": RUNS, "2": RUNS}))
        assert search_result.instance("1").state == DONE
        with pytest.raises(UnexpectedAnswerError, match="too long"):
            search_result.instance("2")  # it may be in the failed list
        assert scene.asked == [
            RUNS,
            *(state for state in ALL if state != RUNS),
        ]  # a second round would show no more

    def test_no_instance_counts_as_missing_while_a_list_fails(self, stage: Any) -> None:
        for failing in ALL:
            search_result = stage(server(failing={failing: too_long()})).run(search.find({"1": None}))
            assert isinstance(search_result.instance_or_error("1"), UnexpectedAnswerError)
        assert isinstance(
            stage(server()).run(search.find({"1": None})).instance_or_error("1"), InstanceNotFoundError
        )

    def test_a_missing_instance_has_the_error_of_the_list_that_most_likely_shows_it(self) -> None:
        found = SearchResult({"1": RUNS, "2": WAITS, "3": NEW, "4": None})
        failures = {WAITS: too_long(), RUNS: too_long()}
        for state, error in failures.items():
            found.add_failed_list(state, error)
        assert found.stopped_by is None
        errors = [found.instance_or_error(one) for one in "1234"]
        # An instance that was last seen elsewhere, or not at all, may be in any list that failed.
        assert errors == [failures[RUNS], failures[WAITS], failures[WAITS], failures[WAITS]]

    def test_reading_by_id_replaces_a_failed_list(self, stage: Any) -> None:
        endpoint = search.EndpointTraits()
        endpoint.reads_by_id = True
        lists = server(failing={RUNS: too_long(), WAITS: too_long()})
        scene = stage(lambda one: instance("1", DONE) if one.kind == "get" else lists(one))
        search_result = scene.run(search.find({"1": RUNS, "2": WAITS}, lookup="auto", endpoint=endpoint))
        assert search_result.instance("1").state == DONE

    def test_with_by_id_each_instance_fails_separately(self, stage: Any) -> None:
        def answer(operation: Operation[Any]) -> Any:
            found = {"1": instance("1", DONE), "2": too_long(), "3": RefusedError("no"), "4": instance("x")}
            return found[operation.path.rsplit("/", 1)[1]]

        search_result = stage(answer).run(search.find(dict.fromkeys("1234"), lookup="by_id"))
        kinds = [type(search_result.instance_or_error(one)) for one in "1234"]
        assert kinds == [BpmInstance, UnexpectedAnswerError, InstanceNotFoundError, InstanceNotFoundError]
        assert search_result.failure is None

    def test_with_by_id_refused_credentials_count_for_every_missing_instance(self, stage: Any) -> None:
        found = {"1": instance("1", DONE), "2": too_long(), "3": AuthenticationError("no")}

        def answer(operation: Operation[Any]) -> Any:
            return found[operation.path.rsplit("/", 1)[1]]

        search_result = stage(answer).run(search.find(dict.fromkeys("1234"), lookup="by_id"))
        kinds = [type(search_result.instance_or_error(one)) for one in "1234"]
        assert kinds == [BpmInstance, AuthenticationError, AuthenticationError, AuthenticationError]

    def test_with_by_id_a_stopped_search_leaves_open_only_what_it_did_not_read(self) -> None:
        found = SearchResult(dict.fromkeys("1234"), reads_only=True)
        failures = [ServerError("x"), ServerError("y")]
        found.add_read("1", None)
        found.add_failed_read("2", failures[0])
        found.add_failed_read("3", failures[1])
        assert found.stopped_by is failures[1]
        assert isinstance(found.instance_or_error("1"), InstanceNotFoundError)
        assert [found.instance_or_error(one) for one in "234"] == [failures[0], failures[1], failures[1]]

    @pytest.mark.parametrize(
        ("lists_anything", "refusal", "problem", "advice"),
        [
            (True, None, "instance '1' is in none of the states", InstanceNotFoundError.advice),
            (
                True,
                RefusedError("no"),
                "instance '1' is in none of the states, and could not be read by its id either",
                InstanceNotFoundError.advice,
            ),
            (
                False,
                RefusedError("no"),
                "instance '1' could not be read by its id",
                (
                    "Either it does not exist, or this endpoint cannot read instances by id (undocumented). In that case set the "
                    "extra 'instance_lookup' to \"list\"."
                ),
            ),
        ],
    )
    def test_what_was_not_found_says_how_it_was_searched_for(
        self, lists_anything: bool, refusal: CallError | None, problem: str, advice: str
    ) -> None:
        found = SearchResult({"1": None})
        if lists_anything:
            found.add_list(RUNS, [])
        if refusal is not None:
            found.add_failed_read("1", refusal)
        missing = found.instance_or_error("1")
        assert isinstance(missing, InstanceNotFoundError)
        assert (missing.problem, missing.advice) == (problem, advice)

    def test_malformed_first_read_by_id_is_not_repeated(self, stage: Any) -> None:
        seen = []

        def answer(operation: Operation[Any]) -> Any:
            seen.append((operation.kind, operation.resend_if_malformed))
            return instance("1")

        endpoint = search.EndpointTraits()
        for _ in range(2):
            stage(answer).run(search.find({"1": None}, lookup="auto", endpoint=endpoint))
        stage(answer).run(search.find({"1": None}, lookup="by_id"))
        # Only the first one tests whether reading by id works at all.
        assert [resend for kind, resend in seen if kind == "get"][-2:] == [True, True]


class TestSearchStops:
    @pytest.mark.parametrize("kind", [NotSentError, ThrottledError, AuthenticationError])
    def test_after_a_fatal_error(self, kind: type[CallError], stage: Any) -> None:
        scene = stage(server(instance("1", WAITS), failing={RUNS: kind("x")}))
        search_result = scene.run(search.find({"1": WAITS, "2": RUNS, "3": NEW}, [KEY]))
        assert scene.asked == [WAITS, RUNS]
        assert search_result.instance("1").state == WAITS  # earlier results still count
        assert isinstance(search_result.failure, kind)
        assert {type(search_result.instance_or_error(one)) for one in "23"} == {kind}
        assert isinstance(search_result.match_or_error(KEY), kind)

    def test_if_fetching_the_token_failed(self, stage: Any) -> None:
        error = ServerError("x")
        error.failed_fetching_token = True
        scene = stage(lambda _: error)
        assert scene.run(search.find({"1": None}, [KEY])).failure is error
        assert len(scene.asked) == 1

    @pytest.mark.parametrize("kind", [ServerError, InterruptedCallError, UnexpectedAnswerError])
    def test_after_consecutive_failures(self, kind: type[CallError], stage: Any) -> None:
        scene = stage(lambda _: kind("x"))
        search_result = scene.run(search.find({"1": None}, [KEY], {DONE}))
        assert len(scene.asked) == MAX_CONSECUTIVE_FAILURES
        assert isinstance(search_result.failure, kind)
        assert isinstance(search_result.failure_of(DONE), kind)
        with pytest.raises(kind):
            search_result.rows_in(DONE)

    @pytest.mark.parametrize("failure", [RefusedError("no"), too_long()])
    def test_not_after_errors_of_single_lists(self, failure: CallError, stage: Any) -> None:
        scene = stage(
            server(
                instance("1", NEW), failing=dict.fromkeys([state for state in ALL if state != NEW], failure)
            )
        )
        search_result = scene.run(search.find({"1": None}, [KEY]))
        assert search_result.instance("1").state == NEW
        assert search_result.failure is None
        assert isinstance(search_result.match_or_error(KEY), type(failure))

    @pytest.mark.parametrize(
        ("outcomes", "stops"),
        [
            (["down"], False),
            (["down", "down"], True),
            (["down", "answer", "down"], False),
            (["down", "too long", "down"], False),
            (["too long", "down"], False),
            (["too long", "down", "down"], True),
            (["too long", "too long", "too long"], False),
        ],
        ids=str,
    )
    def test_only_failures_of_a_server_that_seems_down_add_up(self, outcomes: list[str], stops: bool) -> None:
        found = SearchResult({"1": None})
        for state, outcome in zip(ALL, outcomes, strict=False):
            if outcome == "answer":
                found.add_list(state, [])
            else:
                found.add_failed_list(state, ServerError("x") if outcome == "down" else too_long())
        assert (found.stopped_by is not None) is stops

    def test_a_server_that_has_answered_is_not_down(self) -> None:
        found = SearchResult({}, wanted_lists=[RUNS, WAITS, NEW])
        failures = [ServerError("x"), ServerError("y")]
        found.add_list(DONE, [])
        found.add_failed_list(RUNS, failures[0])
        found.add_failed_list(WAITS, failures[1])
        assert found.stopped_by is failures[1]
        assert found.failure is None
        assert [found.failure_of(state) for state in (RUNS, WAITS, NEW)] == [
            failures[0],
            failures[1],
            failures[1],
        ]

    def test_server_counts_as_down_if_every_call_failed(self, stage: Any) -> None:
        failure = RefusedError("no")
        assert stage(lambda _: failure).run(search.find({"1": RUNS})).failure is failure


class TestCompleteLists:
    """The lists of states whose instances are all requested."""

    def test_a_list_that_failed_is_an_error_for_who_needs_it(self) -> None:
        failure, row = ServerError("x"), instance("1", RUNS)
        found = SearchResult({}, wanted_lists=[RUNS, DONE])
        assert [found.wants_list(state) for state in (RUNS, DONE, WAITS)] == [True, True, False]
        found.add_list(RUNS, [row])
        found.add_failed_list(DONE, failure)
        assert [found.wants_list(state) for state in (RUNS, DONE, WAITS)] == [False, False, False]
        assert found.rows_in(RUNS) == [row]
        with pytest.raises(ServerError) as caught:
            found.rows_in(DONE)
        assert caught.value is failure
        assert found.rows == {"1": row}

    def test_a_failure_is_overcome_by_a_later_list(self) -> None:
        found = SearchResult({}, wanted_lists=[RUNS])
        found.add_failed_list(RUNS, ServerError("x"))
        found.add_list(RUNS, [])
        assert found.rows_in(RUNS) == []
        assert found.has_gaps

    @pytest.mark.parametrize("shown", [None, instance("2", RUNS)])
    def test_an_answer_about_another_instance_is_none(self, shown: BpmInstance | None) -> None:
        found = SearchResult({"1": RUNS})
        assert found.unread_ids() == ["1"]
        assert not found.add_read("1", shown)
        assert found.unread_ids() == []
        assert found.missing_ids() == ["1"]
        assert not found.found_an_id_that_was_read()
        assert found.add_read("1", instance("1", RUNS))
        assert found.found_an_id_that_was_read()
        assert found.missing_ids() == []


class TestSearchByKey:
    def test_no_match_is_certain_if_each_state_was_listed_once(self, stage: Any) -> None:
        search_result = stage(server(failing={RUNS: ServerError("x")}, times=1)).run(search.find({}, [KEY]))
        assert isinstance(search_result.match_or_error(KEY), InstanceNotFoundError)
        search_result = stage(server(failing={RUNS: ServerError("x")})).run(search.find({}, [KEY]))
        assert isinstance(search_result.match_or_error(KEY), ServerError)

    def test_ended_match_is_not_returned_while_an_open_one_may_be_hidden(self, stage: Any) -> None:
        ended, still_open = instance("1", DONE, business_key="k"), instance("2", RUNS, business_key="k")
        for times in (1, 99):
            search_result = stage(server(ended, failing={RUNS: ServerError("x")}, times=times)).run(
                search.find({}, [KEY])
            )
            assert isinstance(search_result.match_or_error(KEY), ServerError)
        search_result = stage(server(ended, still_open, failing={RUNS: ServerError("x")}, times=1)).run(
            search.find({}, [KEY])
        )
        assert search_result.match_or_error(KEY) is still_open
        search_result = stage(server(ended, failing={"Terminated": ServerError("x")}, times=1)).run(
            search.find({}, [KEY])
        )
        assert isinstance(search_result.match_or_error(KEY), ServerError)  # another ended match may be hidden

    @pytest.mark.parametrize(
        ("bpm_name", "rows", "found"),
        [
            (None, [], InstanceNotFoundError),
            (None, [instance("1", RUNS)], KeysNotShownError),
            (None, [instance("1", RUNS, business_key="1")], KeysNotShownError),
            (None, [instance("1", RUNS), instance("2", RUNS, business_key="j")], InstanceNotFoundError),
            ("Approval", [instance("1", RUNS)], KeysNotShownError),
            ("Approval", [instance("1", RUNS, name="Another")], InstanceNotFoundError),
        ],
    )
    def test_no_match_proves_nothing_where_no_row_shows_a_key(
        self, bpm_name: str | None, rows: list[BpmInstance], found: type[Exception], stage: Any
    ) -> None:
        key = BusinessKey("k", bpm_name)
        error = stage(server(*rows)).run(search.find({}, [key])).match_or_error(key)
        assert type(error) is found
        assert "business key 'k'" in str(error)

    @pytest.mark.parametrize(
        ("odd", "is_found"),
        [
            ({"id": "1", "business_key": "other"}, False),  # the match itself, in another list
            ({"id": "2", "business_key": "other"}, True),
            ({"id": "2", "business_key": "k"}, False),
            ({"id": "2", "business_key": "k", "name": "Approval"}, False),
            ({"id": "2", "business_key": "k", "name": "Another"}, True),
        ],
    )
    def test_an_unreadable_row_leaves_doubt_only_about_what_it_may_be(
        self, odd: dict[str, Any], is_found: bool
    ) -> None:
        key = BusinessKey("k", "Approval")
        found, match = SearchResult({}, [key]), instance("1", RUNS, business_key="k")
        row = UnreadableRow(
            **{"reason": "odd", "unread": frozenset({"state"} if "name" in odd else {"name"}), **odd}
        )
        for state in ALL:
            found.add_list(state, {RUNS: [match], WAITS: Rows([], [row])}.get(state, []))
        assert (found.match_or_error(key) is match) is is_found

    @pytest.mark.parametrize("rows", [0, 2])
    def test_what_was_not_found_names_the_longest_list(self, rows: int) -> None:
        found = SearchResult({"9": None}, [KEY])
        for state in ALL:
            found.add_list(
                state,
                [instance(str(n), RUNS, business_key="j") for n in range(rows)] if state == RUNS else [],
            )
        for missing in (found.match_or_error(KEY), found.instance_or_error("9")):
            assert isinstance(missing, InstanceNotFoundError)
            assert missing.most_rows == rows

    def test_open_match_counts_only_after_every_state_was_listed(self, stage: Any) -> None:
        rows = instance("1", WAITS, business_key="k"), instance("2", RUNS, business_key="k")
        search_result = stage(server(*rows, failing={RUNS: ServerError("x")})).run(search.find({}, [KEY]))
        assert isinstance(search_result.match_or_error(KEY), ServerError)
        search_result = stage(server(*rows)).run(search.find({}, [KEY]))
        assert isinstance(search_result.match_or_error(KEY), SeveralInstancesError)


CONTRADICTIONS: list[dict[str, Any]] = [
    {"state": "Terminated", "is_closed": True},
    {"name": "Another"},
    {"business_key": "another"},
    {"bp_status": "Approved"},
    {"suspended": True},
    {"is_closed": True},
]


class TestContradictions:
    @pytest.mark.parametrize("other", CONTRADICTIONS, ids=str)
    @pytest.mark.parametrize("order", [1, -1])
    def test_different_rows_in_one_list_are_a_contradiction(
        self, other: dict[str, Any], order: int, stage: Any
    ) -> None:
        fields = {"state": RUNS, "business_key": "k"}
        rows = [instance("1", **fields), instance("1", **{**fields, **other}), instance("2", RUNS)][::order]
        scene = stage(lambda one: rows if dict(one.query)["states"] == RUNS else [])
        search_result = scene.run(search.find({"1": RUNS, "2": RUNS}, [KEY], {RUNS}))
        for result in (search_result.instance_or_error("1"), search_result.match_or_error(KEY)):
            assert isinstance(result, UnexpectedAnswerError)
            assert "shows instance '1' twice in the list of state 'Running' with different values: " in str(
                result
            )
        assert search_result.instance("2").id == "2"
        assert set(search_result.contradictions) == {"1"}
        assert search_result.failure is None

    def test_equal_rows_are_no_contradiction(self, stage: Any) -> None:
        row = instance("1", DONE, end_time="2026-01-01 00:00:00")
        again = instance("1", DONE, end_time="2026-01-01 00:00:01")
        search_result = stage(lambda one: [row, again]).run(search.find({"1": DONE}))
        assert search_result.instance("1").state == DONE

    def test_later_row_of_a_moved_instance_counts(self, stage: Any) -> None:
        search_result = stage(server(instance("1", WAITS), instance("1", DONE))).run(
            search.find({"1": WAITS, "2": DONE}, lists={DONE})
        )
        assert search_result.instance("1").state == DONE
        assert search_result.contradictions == {}

    @pytest.mark.parametrize(
        "rows",
        [
            [instance("1", DONE), instance("1", "Terminated")],
            [instance("1", DONE, bp_status="Approved"), instance("1", "Broken", bp_status="Approved")],
            [instance("1", WAITS), instance("1", RUNS, name="Another")],
            [instance("1", WAITS, business_key="a"), instance("1", RUNS, business_key="b")],
        ],
        ids=["two ends", "two ends of one status", "two names", "two keys"],
    )
    def test_rows_that_a_move_cannot_explain_are_a_contradiction(
        self, rows: list[BpmInstance], stage: Any
    ) -> None:
        lists = {row.state for row in rows}
        search_result = stage(server(*rows)).run(
            search.find({"1": rows[0].state, "2": rows[1].state}, lists=lists)
        )
        assert isinstance(search_result.instance_or_error("1"), UnexpectedAnswerError)
        assert "in two lists" in str(search_result.instance_or_error("1"))
        search_result = stage(server(*rows)).run(search.find({}, lists=lists))
        assert set(search_result.contradictions) == {"1"}

    def test_contradictions_of_each_list_count(self) -> None:
        found = SearchResult(dict.fromkeys("123"))
        found.add_list(RUNS, [instance("1", RUNS), instance("1", RUNS, name="Another")])
        found.add_list(WAITS, [instance("3", WAITS)])
        found.add_list(NEW, [instance("2", NEW), instance("2", NEW, name="Another")])
        assert set(found.contradictions) == {"1", "2"}
        assert found.instance("3").state == WAITS

    def test_missing_key_in_one_list_is_no_contradiction(self, stage: Any) -> None:
        rows = instance("1", WAITS, business_key="1"), instance("1", RUNS, business_key="k")
        search_result = stage(server(*rows)).run(search.find({"1": WAITS, "2": RUNS}))
        assert search_result.instance("1").state == RUNS


class TestUnreadableRows:
    @staticmethod
    def found(row: dict[str, Any], *rows: BpmInstance, stage: Any) -> SearchResult:
        odd = UnreadableRow(**{"reason": "its state is null", "unread": frozenset({"state"}), **row})

        def answer(operation: Operation[Any]) -> Any:
            state = dict(operation.query)["states"]
            return Rows([one for one in rows if one.state == state], [odd] if state == RUNS else ())

        search_result: SearchResult = stage(answer).run(search.find({"1": RUNS, "2": RUNS}, [KEY]))
        return search_result

    def test_affect_only_their_own_instance(self, stage: Any) -> None:
        search_result = self.found({"id": "1"}, instance("2", RUNS, business_key="other"), stage=stage)
        assert search_result.instance("2").state == RUNS
        with pytest.raises(
            UnexpectedAnswerError, match="the row of instance '1' in the list of state 'Running' cannot"
        ) as caught:
            search_result.instance("1")
        assert caught.value.advice == UNREADABLE_ADVICE
        assert isinstance(search_result.match_or_error(KEY), InstanceNotFoundError)

    def test_row_without_an_id_may_be_any_missing_instance(self, stage: Any) -> None:
        search_result = self.found({"unread": frozenset({"id"})}, instance("2", RUNS), stage=stage)
        assert search_result.instance("2").state == RUNS
        assert isinstance(search_result.instance_or_error("1"), UnexpectedAnswerError)

    @pytest.mark.parametrize(
        ("row", "states_of_matches", "kind"),
        [
            ({"id": "1", "business_key": "k"}, [], UnexpectedAnswerError),
            ({"id": "1", "business_key": "k"}, [WAITS], UnexpectedAnswerError),
            ({"id": "1", "business_key": "another"}, [DONE], BpmInstance),
            ({"id": "1", "unread": frozenset({"businessKey"})}, [DONE], UnexpectedAnswerError),
            ({"id": "1", "unread": frozenset({"businessKey"})}, [WAITS], BpmInstance),
            ({"id": "1", "unread": frozenset({"businessKey"})}, [], InstanceNotFoundError),
        ],
    )
    def test_key_is_undecided_if_an_unreadable_row_may_be_the_deciding_match(
        self, row: dict[str, Any], states_of_matches: list[str], kind: type, stage: Any
    ) -> None:
        matches = [
            instance(str(number), state, business_key="k")
            for number, state in enumerate(states_of_matches, 5)
        ]
        assert isinstance(self.found(row, *matches, stage=stage).match_or_error(KEY), kind)


FAILURES = [
    ServerError,
    UnexpectedAnswerError,
    RefusedError,
    ThrottledError,
    NotSentError,
    AuthenticationError,
]


@given(
    where=st.lists(st.sampled_from([*ALL, None]), min_size=1, max_size=5),
    hints=st.lists(st.sampled_from([*ALL, "Unheard Of", None]), min_size=5, max_size=5),
    failing=st.dictionaries(
        st.sampled_from(ALL), st.tuples(st.sampled_from(FAILURES), st.integers(1, 2)), max_size=4
    ),
    keys=st.booleans(),
)
def test_any_failures_lead_to_no_false_result(
    where: list[str | None],
    hints: list[str | None],
    failing: dict[str, tuple[type[CallError], int]],
    keys: bool,
    stage: Any,
) -> None:
    rows = [instance(str(number), state, business_key="k") for number, state in enumerate(where) if state]
    left = {state: times for state, (_, times) in failing.items()}

    def answer(operation: Operation[Any]) -> Any:
        state = dict(operation.query)["states"]
        if left.get(state, 0):
            left[state] -= 1
            return failing[state][0]("x")
        return [row for row in rows if row.state == state]

    search_result: SearchResult = stage(answer).run(
        search.find({str(number): hints[number] for number in range(len(where))}, [KEY] if keys else [])
    )
    there = {row.id: row for row in rows}
    for number in range(len(where)):
        result = search_result.instance_or_error(str(number))
        if isinstance(result, BpmInstance):
            assert result is there[result.id]
        elif isinstance(result, InstanceNotFoundError):
            assert str(number) not in there
        else:
            assert isinstance(result, CallError)
            assert search_result.has_gaps
    if not failing:
        assert not search_result.has_gaps
        assert search_result.instances == there
    if keys:
        check_match(search_result.match_or_error(KEY), rows)


def check_match(match: BpmInstance | AstroZeroError, rows: list[BpmInstance]) -> None:
    """Check that the result for a key is true of all its matches, or is the error of a call."""
    still_open = [row for row in rows if not row.is_closed]
    if isinstance(match, BpmInstance):
        assert [match] in (rows, still_open)
    elif isinstance(match, InstanceNotFoundError):
        assert not rows
    elif isinstance(match, SeveralInstancesError):
        assert len(rows) > 1
        assert len(still_open) != 1
    else:
        assert isinstance(match, CallError)
