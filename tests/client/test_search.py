"""Finding instances with the documented query alone: the requests, their order, and the conclusions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.client import search, states
from airflow_provider_astrobpm.client.errors import (
    AuthenticationError,
    InstanceNotFoundError,
    InterruptedCallError,
    NotSentError,
    RefusedError,
    ServerError,
    SeveralInstancesError,
    ThrottledError,
    UnexpectedAnswerError,
)
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.operations import Operation

ALL = list(states.STATES)
Make = Callable[..., BpmInstance]


def listing(*instances: BpmInstance) -> Callable[[Operation[Any]], Any]:
    """Answer queries from these instances, and refuse to read by id."""

    def answer(operation: Operation[Any]) -> Any:
        if operation.kind != "query":
            return RefusedError("the server refused", status=404)
        state = dict(operation.query)["states"]
        return [instance for instance in instances if instance.state == state]

    return answer


@pytest.mark.parametrize("state", ALL)
def test_last_seen_state_takes_one_query(state: str, make: Make, stage: Any) -> None:
    scene = stage(listing(make(state=state)))
    found = scene.run(search.find_by_id("002N1", last_state=state, lookup="list"))
    assert (found.id, scene.asked) == ("002N1", [state])


def test_moved_instance_is_searched_once_in_each_other_state(make: Make, stage: Any) -> None:
    scene = stage(listing(make(state=ALL[-1])))
    scene.run(search.find_by_id("002N1", last_state="Running", lookup="list"))
    assert scene.asked == ["Running", *(state for state in ALL if state != "Running")]


def test_not_found_needs_two_rounds(make: Make, stage: Any) -> None:
    scene = stage(listing(*[make(f"other-{number}") for number in range(150)]))
    with pytest.raises(
        InstanceNotFoundError, match="'002N1' is in none of the states; the longest list had 150 rows"
    ):
        scene.run(search.find_by_id("002N1", lookup="list"))
    assert scene.asked == ALL * 2


def test_instance_that_moves_against_the_search_is_found_in_the_second_round(make: Make, stage: Any) -> None:
    asked: list[str] = []

    def answer(operation: Operation[Any]) -> Any:
        asked.append(dict(operation.query)["states"])
        # It moves to the state that was listed first, just after that was listed.
        return [make(state=ALL[0])] if len(asked) > 1 and asked[-1] == ALL[0] else []

    assert stage(answer).run(search.find_by_id("002N1", lookup="list")).state == ALL[0]
    assert len(asked) == 13


def test_many_instances_in_two_states_take_two_queries(make: Make, stage: Any) -> None:
    waiting = [make(f"w{number}", "Waiting for user interaction") for number in range(500)]
    running = [make(f"r{number}", "Running") for number in range(500)]
    scene = stage(listing(*waiting, *running))
    search_result = scene.run(search.find({one.id: one.state for one in waiting + running}))
    assert len(search_result.instances) == 1000
    assert sorted(scene.asked) == ["Running", "Waiting for user interaction"]


@given(
    where=st.lists(st.sampled_from([*ALL, None]), max_size=6),
    hints=st.lists(st.sampled_from([*ALL, "Unheard Of", None]), min_size=6, max_size=6),
)
def test_result_does_not_depend_on_the_last_seen_states(
    where: list[str | None], hints: list[str | None], make: Make, stage: Any
) -> None:
    instances = [make(str(number), state) for number, state in enumerate(where) if state]
    scene = stage(listing(*instances))
    search_result = scene.run(search.find({str(number): hints[number] for number in range(len(where))}))
    assert search_result.instances == {instance.id: instance for instance in instances}
    for round_of_states in (scene.asked[:12], scene.asked[12:]):
        assert len(round_of_states) == len(set(round_of_states)) <= 12


class TestReadingById:
    def test_auto_tries_once_and_remembers_that_it_works(self, make: Make, stage: Any) -> None:
        endpoint = search.EndpointTraits()
        scene = stage(lambda _operation: make())
        for _ in range(2):
            scene.run(search.find_by_id("002N1", endpoint=endpoint))
        assert scene.asked == ["get", "get"]
        assert endpoint.reads_by_id is True

    @pytest.mark.parametrize(
        "failure",
        [
            RefusedError("x", status=404),
            ServerError("x", status=500),
            UnexpectedAnswerError("x", status=200),
            AuthenticationError("x", status=401),
            InterruptedCallError("x"),
        ],
    )
    def test_auto_remembers_that_it_does_not_work(self, failure: Exception, make: Make, stage: Any) -> None:
        endpoint = search.EndpointTraits()
        rows = listing(make(state=ALL[0]))
        scene = stage(lambda operation: failure if operation.kind == "get" else rows(operation))
        for _ in range(2):
            assert scene.run(search.find_by_id("002N1", endpoint=endpoint)).id == "002N1"
        assert scene.asked == ["get", ALL[0], ALL[0]]
        assert endpoint.reads_by_id is False

    def test_auto_refuses_an_answer_with_another_id(self, make: Make, stage: Any) -> None:
        rows = listing(make(state=ALL[0]))
        scene = stage(lambda operation: make("another") if operation.kind == "get" else rows(operation))
        assert scene.run(search.find_by_id("002N1")).id == "002N1"

    def test_auto_learns_nothing_from_a_missing_instance(self, stage: Any) -> None:
        endpoint = search.EndpointTraits()
        scene = stage(listing())
        with pytest.raises(InstanceNotFoundError, match="HTTP 404"):
            scene.run(search.find_by_id("002N1", endpoint=endpoint))
        assert endpoint.reads_by_id is None

    def test_auto_confirms_not_found_with_the_lists(self, make: Make, stage: Any) -> None:
        endpoint = search.EndpointTraits()
        endpoint.reads_by_id = True
        scene = stage(listing(make(state=ALL[0])))
        assert scene.run(search.find_by_id("002N1", endpoint=endpoint)).id == "002N1"
        assert endpoint.reads_by_id is True

    @pytest.mark.parametrize("failure", [ThrottledError("x"), NotSentError("x")])
    def test_fatal_errors_are_raised_at_once(self, failure: Exception, stage: Any) -> None:
        scene = stage(lambda _operation: failure)
        with pytest.raises(type(failure)):
            scene.run(search.find_by_id("002N1"))
        assert scene.asked == ["get"]

    def test_by_id_sends_nothing_else(self, make: Make, stage: Any) -> None:
        scene = stage(lambda _operation: make())
        assert scene.run(search.find_by_id("002N1", lookup="by_id")).id == "002N1"
        scene = stage(listing(make()))
        with pytest.raises(InstanceNotFoundError, match="could not be read by its id.*instance_lookup"):
            scene.run(search.find_by_id("002N1", lookup="by_id"))
        assert scene.asked == ["get"]

    def test_by_id_refuses_an_answer_with_another_id(self, make: Make, stage: Any) -> None:
        with pytest.raises(InstanceNotFoundError):
            stage(lambda _operation: make("another")).run(search.find_by_id("002N1", lookup="by_id"))

    def test_by_id_raises_other_errors_than_refusals(self, stage: Any) -> None:
        with pytest.raises(ServerError):
            stage(lambda _operation: ServerError("x")).run(search.find_by_id("002N1", lookup="by_id"))

    def test_list_never_reads_by_id(self, make: Make, stage: Any) -> None:
        scene = stage(listing(make(state=ALL[0])))
        scene.run(search.find_by_id("002N1", lookup="list"))
        assert scene.asked == [ALL[0]]


class TestFindByKey:
    def find(self, stage: Any, *instances: BpmInstance, name: str | None = None) -> BpmInstance:
        found: BpmInstance = stage(listing(*instances)).run(search.find_by_key("k", name=name))
        return found

    def test_lists_every_state_once(self, make: Make, stage: Any) -> None:
        scene = stage(listing(make(business_key="k", state=ALL[0])))
        scene.run(search.find_by_key("k"))
        assert scene.asked == ALL

    def test_one_match(self, make: Make, stage: Any) -> None:
        assert self.find(stage, make("1", business_key="k"), make("2", business_key="other")).id == "1"

    def test_one_open_match_among_ended_ones(self, make: Make, stage: Any) -> None:
        ended = [make("1", "Completed OK", business_key="k"), make("2", "Broken", business_key="k")]
        assert self.find(stage, *ended, make("3", business_key="k")).id == "3"

    @pytest.mark.parametrize("state", ["Running", "Completed OK"])
    def test_ambiguous_matches_raise(self, state: str, make: Make, stage: Any) -> None:
        with pytest.raises(
            SeveralInstancesError, match=r"2 instances have business key 'k': 1 \(Approval, .*2 \(Approval"
        ):
            self.find(stage, make("1", state, business_key="k"), make("2", state, business_key="k"))

    def test_instances_of_other_bpms_do_not_match(self, make: Make, stage: Any) -> None:
        both = make("1", business_key="k"), make("2", business_key="k", name="Other")
        assert self.find(stage, *both, name="Other").id == "2"
        with pytest.raises(InstanceNotFoundError, match="business key 'k' of BPM 'Third'"):
            self.find(stage, *both, name="Third")

    def test_moving_match_counts_once_as_last_seen(self, make: Make, stage: Any) -> None:
        asked: list[str] = []

        def answer(operation: Operation[Any]) -> Any:
            asked.append(dict(operation.query)["states"])
            here = "Running" if "Completed OK" not in asked else "Completed OK"
            return [make(state=here, business_key="k")] if asked[-1] == here else []

        assert stage(answer).run(search.find_by_key("k")).state == "Completed OK"

    def test_open_match_that_moves_against_the_search_is_preferred(self, make: Make, stage: Any) -> None:
        asked: list[str] = []

        def answer(operation: Operation[Any]) -> Any:
            asked.append(dict(operation.query)["states"])
            new_is = "Dispatched" if "Completed OK" not in asked else "Running"
            rows = [make("old", "Completed OK", business_key="k"), make("new", new_is, business_key="k")]
            return [row for row in rows if row.state == asked[-1]]

        assert stage(answer).run(search.find_by_key("k")).id == "new"


def test_lists_are_shared_with_waits(make: Make, stage: Any) -> None:
    rows = {state: [make(str(number), state)] for number, state in enumerate(states.STATES)}
    server = stage(lambda operation: rows[dict(operation.query)["states"]])
    number = [*rows].index("Running")
    search_result = server.run(
        search.find({str(number): "Running"}, (), {"Completed OK", "Broken", "Running"})
    )
    assert sorted(server.asked) == sorted(["Running", "Completed OK", "Broken"])
    assert search_result.instance(str(number)).state == "Running"
    assert search_result.lists == {state: rows[state] for state in ("Running", "Completed OK", "Broken")}


@pytest.mark.parametrize("lookup", ["list", "auto", "by_id"])
def test_every_requested_list_is_read_regardless_of_the_rest_of_the_query(
    lookup: Any, make: Make, stage: Any
) -> None:
    server = stage(lambda operation: [] if operation.kind == "query" else make("1", "Running"))
    search_result = server.run(
        search.find(
            {"1": "Running"},
            (),
            {"Completed OK", "Waiting for user interaction"},
            lookup=lookup,
            endpoint=search.EndpointTraits(),
        )
    )
    assert set(search_result.lists) == {"Completed OK", "Waiting for user interaction"}
