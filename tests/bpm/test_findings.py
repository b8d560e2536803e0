"""What follows from a search of which some calls failed: nothing for those that were found, and nothing wrong for the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.bpm import search, states
from airflow_provider_astrobpm.bpm.api import Operation
from airflow_provider_astrobpm.bpm.errors import (
    AstroZeroError,
    AuthenticationError,
    CallError,
    InstanceNotFoundError,
    InterruptedCallError,
    NotSentError,
    RefusedError,
    ServerError,
    SeveralInstancesError,
    ThrottledError,
    UnexpectedAnswerError,
)
from airflow_provider_astrobpm.bpm.findings import MOST_IN_VAIN, Findings
from airflow_provider_astrobpm.bpm.instance import BpmInstance
from airflow_provider_astrobpm.bpm.search import BusinessKey
from airflow_provider_astrobpm.bpm.wire import Rows, Unreadable
from tests.support.memory_server import instance

ALL = list(states.STATES)
RUNS, DONE, WAITS, NEW = "Running", "Completed OK", "Waiting for user interaction", "New"
KEY = BusinessKey("k")
Answer = Callable[[Operation[Any]], Any]


def too_long() -> CallError:
    error = UnexpectedAnswerError("too long", status=200)
    error.unreadable = False
    return error


def server(*rows: BpmInstance, failing: dict[str, CallError] | None = None, times: int = 99) -> Answer:
    """List these instances, but for states whose lists fail so often; refuse to read by id."""
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


class TestByIds:
    def test_a_list_that_fails_costs_only_what_was_in_it(self, stage: Any) -> None:
        failure = ServerError("x")
        scene = stage(server(instance("1", RUNS), instance("2", WAITS), failing={RUNS: failure}))
        findings = scene.run(search.find({"1": RUNS, "2": WAITS}))
        assert findings.instance("2").state == WAITS
        with pytest.raises(ServerError):
            findings.instance("1")
        # Where it was last seen it is most likely still: no other list is asked for it.
        assert scene.asked == [WAITS, RUNS]
        assert findings.failure is None
        assert findings.has_gaps

    def test_one_that_has_moved_is_found_though_another_list_fails(self, stage: Any) -> None:
        scene = stage(server(instance("1", DONE), failing={WAITS: too_long()}))
        findings = scene.run(search.find({"1": RUNS, "2": RUNS}))
        assert findings.instance("1").state == DONE
        with pytest.raises(UnexpectedAnswerError, match="too long"):
            findings.instance("2")  # it may be in the list that failed
        assert scene.asked == [
            RUNS,
            *(state for state in ALL if state != RUNS),
        ]  # a second round would show no more

    def test_nothing_is_in_none_of_the_states_while_a_list_fails(self, stage: Any) -> None:
        for failing in ALL:
            findings = stage(server(failing={failing: too_long()})).run(search.find({"1": None}))
            assert isinstance(findings.instance_or_error("1"), UnexpectedAnswerError)
        assert isinstance(
            stage(server()).run(search.find({"1": None})).instance_or_error("1"), InstanceNotFoundError
        )

    def test_reading_by_id_makes_up_for_a_list_that_fails(self, stage: Any) -> None:
        endpoint = search.Endpoint()
        endpoint.reads_by_id = True
        lists = server(failing={RUNS: too_long(), WAITS: too_long()})
        scene = stage(lambda one: instance("1", DONE) if one.kind == "get" else lists(one))
        findings = scene.run(search.find({"1": RUNS, "2": WAITS}, lookup="auto", endpoint=endpoint))
        assert findings.instance("1").state == DONE

    def test_where_ids_alone_are_read_each_fails_for_itself(self, stage: Any) -> None:
        def answer(operation: Operation[Any]) -> Any:
            found = {"1": instance("1", DONE), "2": too_long(), "3": RefusedError("no"), "4": instance("x")}
            return found[operation.path.rsplit("/", 1)[1]]

        findings = stage(answer).run(search.find(dict.fromkeys("1234"), lookup="by_id"))
        kinds = [type(findings.instance_or_error(one)) for one in "1234"]
        assert kinds == [BpmInstance, UnexpectedAnswerError, InstanceNotFoundError, InstanceNotFoundError]
        assert findings.failure is None

    def test_an_unknown_way_to_read_is_not_tried_again_where_its_answer_makes_no_sense(
        self, stage: Any
    ) -> None:
        seen = []

        def answer(operation: Operation[Any]) -> Any:
            seen.append((operation.kind, operation.resend_if_unreadable))
            return instance("1")

        endpoint = search.Endpoint()
        for _ in range(2):
            stage(answer).run(search.find({"1": None}, lookup="auto", endpoint=endpoint))
        stage(answer).run(search.find({"1": None}, lookup="by_id"))
        # Only the first one is a question whether this works at all.
        assert [resend for kind, resend in seen if kind == "get"][-2:] == [True, True]


class TestWhenASearchStops:
    @pytest.mark.parametrize("kind", [NotSentError, ThrottledError, AuthenticationError])
    def test_with_the_first_call_that_every_other_would_follow(
        self, kind: type[CallError], stage: Any
    ) -> None:
        scene = stage(server(instance("1", WAITS), failing={RUNS: kind("x")}))
        findings = scene.run(search.find({"1": WAITS, "2": RUNS, "3": NEW}, [KEY]))
        assert scene.asked == [WAITS, RUNS]
        assert findings.instance("1").state == WAITS  # what it had got counts
        assert isinstance(findings.failure, kind)
        assert {type(findings.instance_or_error(one)) for one in "23"} == {kind}
        assert isinstance(findings.carrier_or_error(KEY), kind)

    def test_with_a_token_that_could_not_be_had(self, stage: Any) -> None:
        error = ServerError("x")
        error.came_before = True
        scene = stage(lambda _: error)
        assert scene.run(search.find({"1": None}, [KEY])).failure is error
        assert len(scene.asked) == 1

    @pytest.mark.parametrize("kind", [ServerError, InterruptedCallError, UnexpectedAnswerError])
    def test_after_a_few_calls_in_vain(self, kind: type[CallError], stage: Any) -> None:
        scene = stage(lambda _: kind("x"))
        findings = scene.run(search.find({"1": None}, [KEY], {DONE}))
        assert len(scene.asked) == MOST_IN_VAIN
        assert isinstance(findings.failure, kind)
        assert isinstance(findings.failure_of(DONE), kind)
        with pytest.raises(kind):
            findings.rows_of(DONE)

    @pytest.mark.parametrize("failure", [RefusedError("no"), too_long()])
    def test_never_for_answers_that_concern_one_list_alone(self, failure: CallError, stage: Any) -> None:
        scene = stage(
            server(
                instance("1", NEW), failing=dict.fromkeys([state for state in ALL if state != NEW], failure)
            )
        )
        findings = scene.run(search.find({"1": None}, [KEY]))
        assert findings.instance("1").state == NEW
        assert findings.failure is None
        assert isinstance(findings.carrier_or_error(KEY), type(failure))

    def test_nothing_at_all_counts_as_down(self, stage: Any) -> None:
        failure = RefusedError("no")
        assert stage(lambda _: failure).run(search.find({"1": RUNS})).failure is failure


class TestByAKey:
    def test_none_is_none_as_long_as_each_state_was_listed_once(self, stage: Any) -> None:
        findings = stage(server(failing={RUNS: ServerError("x")}, times=1)).run(search.find({}, [KEY]))
        assert isinstance(findings.carrier_or_error(KEY), InstanceNotFoundError)
        findings = stage(server(failing={RUNS: ServerError("x")})).run(search.find({}, [KEY]))
        assert isinstance(findings.carrier_or_error(KEY), ServerError)

    def test_an_ended_one_is_never_taken_while_an_open_one_may_be_hidden(self, stage: Any) -> None:
        ended, still_open = instance("1", DONE, business_key="k"), instance("2", RUNS, business_key="k")
        for times in (1, 99):
            findings = stage(server(ended, failing={RUNS: ServerError("x")}, times=times)).run(
                search.find({}, [KEY])
            )
            assert isinstance(findings.carrier_or_error(KEY), ServerError)
        findings = stage(server(ended, still_open, failing={RUNS: ServerError("x")}, times=1)).run(
            search.find({}, [KEY])
        )
        assert findings.carrier(KEY) is still_open
        findings = stage(server(ended, failing={"Terminated": ServerError("x")}, times=1)).run(
            search.find({}, [KEY])
        )
        assert isinstance(findings.carrier_or_error(KEY), ServerError)  # another ended one may be hidden

    def test_an_open_one_is_not_the_only_one_before_every_state_was_listed(self, stage: Any) -> None:
        rows = instance("1", WAITS, business_key="k"), instance("2", RUNS, business_key="k")
        findings = stage(server(*rows, failing={RUNS: ServerError("x")})).run(search.find({}, [KEY]))
        assert isinstance(findings.carrier_or_error(KEY), ServerError)
        findings = stage(server(*rows)).run(search.find({}, [KEY]))
        assert isinstance(findings.carrier_or_error(KEY), SeveralInstancesError)


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
    def test_two_rows_of_one_list_decide_nothing(self, other: dict[str, Any], order: int, stage: Any) -> None:
        fields = {"state": RUNS, "business_key": "k"}
        rows = [instance("1", **fields), instance("1", **{**fields, **other}), instance("2", RUNS)][::order]
        scene = stage(lambda one: rows if dict(one.query)["states"] == RUNS else [])
        findings = scene.run(search.find({"1": RUNS, "2": RUNS}, [KEY], {RUNS}))
        for result in (findings.instance_or_error("1"), findings.carrier_or_error(KEY)):
            assert isinstance(result, UnexpectedAnswerError)
            assert "shows instance '1' twice in the list of state 'Running', with" in str(result)
        assert findings.instance("2").id == "2"
        assert set(findings.doubts) == {"1"}
        assert findings.failure is None

    def test_two_equal_rows_are_no_contradiction(self, stage: Any) -> None:
        row = instance("1", DONE, end_time="2026-01-01 00:00:00")
        again = instance("1", DONE, end_time="2026-01-01 00:00:01")
        findings = stage(lambda one: [row, again]).run(search.find({"1": DONE}))
        assert findings.instance("1").state == DONE

    def test_one_that_moved_meanwhile_counts_as_the_later_list_has_it(self, stage: Any) -> None:
        findings = stage(server(instance("1", WAITS), instance("1", DONE))).run(
            search.find({"1": WAITS, "2": DONE}, lists={DONE})
        )
        assert findings.instance("1").state == DONE
        assert findings.doubts == {}

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
    def test_two_lists_that_no_move_explains_decide_nothing(
        self, rows: list[BpmInstance], stage: Any
    ) -> None:
        lists = {row.state for row in rows}
        findings = stage(server(*rows)).run(
            search.find({"1": rows[0].state, "2": rows[1].state}, lists=lists)
        )
        assert isinstance(findings.instance_or_error("1"), UnexpectedAnswerError)
        assert "in two lists" in str(findings.instance_or_error("1"))
        findings = stage(server(*rows)).run(search.find({}, lists=lists))
        assert set(findings.doubts) == {"1"}

    def test_a_list_may_show_no_keys_where_another_does(self, stage: Any) -> None:
        rows = instance("1", WAITS, business_key="1"), instance("1", RUNS, business_key="k")
        findings = stage(server(*rows)).run(search.find({"1": WAITS, "2": RUNS}))
        assert findings.instance("1").state == RUNS


class TestRowsThatCannotBeRead:
    @staticmethod
    def found(row: dict[str, Any], *rows: BpmInstance, stage: Any) -> Findings:
        odd = Unreadable(**{"reason": "its state is null", "unread": frozenset({"state"}), **row})

        def answer(operation: Operation[Any]) -> Any:
            state = dict(operation.query)["states"]
            return Rows([one for one in rows if one.state == state], [odd] if state == RUNS else ())

        findings: Findings = stage(answer).run(search.find({"1": RUNS, "2": RUNS}, [KEY]))
        return findings

    def test_they_make_their_own_instance_doubtful_and_no_other(self, stage: Any) -> None:
        findings = self.found({"id": "1"}, instance("2", RUNS, business_key="other"), stage=stage)
        assert findings.instance("2").state == RUNS
        with pytest.raises(
            UnexpectedAnswerError, match="the row of instance '1' in the list of state 'Running' cannot"
        ):
            findings.instance("1")
        assert isinstance(findings.carrier_or_error(KEY), InstanceNotFoundError)

    def test_without_an_id_one_may_be_any_that_was_not_found(self, stage: Any) -> None:
        findings = self.found({"unread": frozenset({"id"})}, instance("2", RUNS), stage=stage)
        assert findings.instance("2").state == RUNS
        assert isinstance(findings.instance_or_error("1"), UnexpectedAnswerError)

    @pytest.mark.parametrize(
        ("row", "states_of_carriers", "kind"),
        [
            ({"id": "1", "business_key": "k"}, [], UnexpectedAnswerError),
            ({"id": "1", "business_key": "k"}, [WAITS], UnexpectedAnswerError),
            ({"id": "1", "business_key": "another"}, [DONE], BpmInstance),
            ({"id": "1", "unread": frozenset({"businessKey"})}, [DONE], UnexpectedAnswerError),
            ({"id": "1", "unread": frozenset({"businessKey"})}, [WAITS], BpmInstance),
            ({"id": "1", "unread": frozenset({"businessKey"})}, [], InstanceNotFoundError),
        ],
    )
    def test_a_key_is_in_doubt_where_they_may_carry_it_and_that_would_decide(
        self, row: dict[str, Any], states_of_carriers: list[str], kind: type, stage: Any
    ) -> None:
        carriers = [
            instance(str(number), state, business_key="k")
            for number, state in enumerate(states_of_carriers, 5)
        ]
        assert isinstance(self.found(row, *carriers, stage=stage).carrier_or_error(KEY), kind)


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
def test_whatever_fails_nothing_false_follows(
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

    findings: Findings = stage(answer).run(
        search.find({str(number): hints[number] for number in range(len(where))}, [KEY] if keys else [])
    )
    there = {row.id: row for row in rows}
    for number in range(len(where)):
        result = findings.instance_or_error(str(number))
        if isinstance(result, BpmInstance):
            assert result is there[result.id]
        elif isinstance(result, InstanceNotFoundError):
            assert str(number) not in there
        else:
            assert isinstance(result, CallError)
            assert findings.has_gaps
    if not failing:
        assert not findings.has_gaps
        assert findings.instances == there
    if keys:
        check_carrier(findings.carrier_or_error(KEY), rows)


def check_carrier(carrier: BpmInstance | AstroZeroError, rows: list[BpmInstance]) -> None:
    """See that what follows for a key is true of all its carriers, or is an error of a call."""
    still_open = [row for row in rows if not row.is_closed]
    if isinstance(carrier, BpmInstance):
        assert [carrier] in (rows, still_open)
    elif isinstance(carrier, InstanceNotFoundError):
        assert not rows
    elif isinstance(carrier, SeveralInstancesError):
        assert len(rows) > 1
        assert len(still_open) != 1
    else:
        assert isinstance(carrier, CallError)
