"""Tests of incident reports and their business keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_astrobpm.client import operations, states
from airflow_provider_astrobpm.client.errors import (
    AmbiguousStartError,
    AuthenticationError,
    InterruptedCallError,
    RefusedError,
    ServerError,
)
from airflow_provider_astrobpm.client.metrics import Meter
from airflow_provider_astrobpm.starting.business_keys import (
    MAX_KEY_LENGTH,
    MAX_TITLE_LENGTH,
    Region,
    TaskIdentity,
)
from airflow_provider_astrobpm.starting.incident import IncidentKey, report_incident

EVENT = IncidentKey(dag_id="orders", run_id="scheduled__2026-11-24", task_id="load", number=2)
RUN = IncidentKey(dag_id="orders", run_id="scheduled__2026-11-24")
ITERATION = replace(EVENT, region=Region("01a22064-3a54-7e6c-8d88-3d22bab58d7d", 1))
DEADLINE = IncidentKey(dag_id="orders", run_id="scheduled__2026-11-24", deadline_id="019a-1")


@pytest.mark.parametrize(
    ("event", "title"),
    [
        (EVENT, "orders.load, try 2 (run scheduled__2026-11-24)"),
        (RUN, "orders ended (run scheduled__2026-11-24)"),
        (DEADLINE, "orders missed its deadline (run scheduled__2026-11-24)"),
        (ITERATION, "orders.load.loop1, try 2 (run scheduled__2026-11-24)"),
        (replace(EVENT, dag_id="d" * 250), f"{'d' * 90}..., try 2 (run scheduled__2026-11-24)"),
    ],
)
def test_title(event: IncidentKey, title: str) -> None:
    assert event.title() == title
    assert len(title) <= MAX_TITLE_LENGTH


class TestKey:
    @pytest.mark.parametrize(
        ("event", "begins", "ends"),
        [
            (EVENT, "incident.orders.load.scheduled__2026-11-", "-2"),
            (RUN, "incident.orders.scheduled__2026-11-24-", "-0"),
            (DEADLINE, "incident.orders.deadline.scheduled__2026", "-0"),
            (replace(EVENT, map_index=3), "incident.orders.load.3.scheduled__2026-1", "-2"),
            (ITERATION, "incident.orders.load.loop1.scheduled__20", "-2"),
            (IncidentKey(dag_id="业务 流程", run_id="r"), "incident._____.r-", "-0"),
        ],
    )
    def test_is_readable(self, event: IncidentKey, begins: str, ends: str) -> None:
        assert event.key().startswith(begins)
        assert event.key().endswith(ends)

    def test_never_changes(self) -> None:
        assert EVENT.key() == "incident.orders.load.scheduled__2026-11--rehlycpphplixkft-2"

    @pytest.mark.parametrize("number", [0, 1, 999_999, 10**9])
    def test_is_never_too_long(self, number: int) -> None:
        event = IncidentKey(
            dag_id="d" * 250, run_id="r" * 250, task_id="t" * 250, map_index=10**6, number=number
        )
        assert len(event.key()) <= MAX_KEY_LENGTH

    def test_differs_for_each_incident(self) -> None:
        events = [
            EVENT, RUN, DEADLINE,
            replace(EVENT, number=3), replace(RUN, number=2), replace(EVENT, map_index=0),
            replace(EVENT, task_id="loads"), replace(EVENT, dag_id="order"), replace(EVENT, run_id="x"),
            replace(DEADLINE, deadline_id="019a-2"), ITERATION, replace(ITERATION, region=Region("019a", 1)),
            replace(ITERATION, region=Region("01a22064-3a54-7e6c-8d88-3d22bab58d7d", 2)), replace(EVENT, number=10**6 + 2),
        ]  # fmt: skip
        assert len({event.key() for event in events}) == len(events)

    def test_is_no_key_of_the_task(self) -> None:
        task = TaskIdentity("orders", "scheduled__2026-11-24", "load")
        assert task.read(EVENT.key()) is None
        assert task.read_batch(EVENT.key()) is None

    def test_does_not_depend_on_the_time(self) -> None:
        assert replace(EVENT, since=5.0).key() == EVENT.key()

    @pytest.mark.parametrize(
        ("event", "words"),
        [
            (EVENT, "try 2 of task 'load' of DAG 'orders', run 'scheduled__2026-11-24'"),
            (
                replace(EVENT, map_index=3),
                "try 2 of task 'load[3]' of DAG 'orders', run 'scheduled__2026-11-24'",
            ),
            (
                ITERATION,
                "try 2 of task 'load' of iteration 1, DAG 'orders', run 'scheduled__2026-11-24'",
            ),
            (
                replace(ITERATION, map_index=1),
                "try 2 of task 'load[1]' of DAG 'orders', run 'scheduled__2026-11-24'",
            ),
            (RUN, "end of DAG 'orders', run 'scheduled__2026-11-24'"),
            (DEADLINE, "missed deadline of DAG 'orders', run 'scheduled__2026-11-24'"),
        ],
    )
    def test_incident_as_text(self, event: IncidentKey, words: str) -> None:
        assert str(event) == words


NOW = 1795514400.0  # 2026-11-24 10:00:00 UTC
KEY = EVENT.key()


class Noting(Meter):
    """A meter that notes the names of the counters."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def count(self, name: str, amount: int = 1, **tags: str) -> None:
        self.names.append(name)

    def gauge(self, name: str, change: int) -> None:
        pytest.fail(f"nothing is measured here, but {name}")

    def flush(self) -> None:
        pytest.fail("the client does that")


class TestReport:
    @pytest.fixture
    def counted(self) -> list[str]:
        """The counters of the last report."""
        return []

    @pytest.fixture
    def reported(self, counted: list[str], stage: Any, make: Any) -> Callable[..., Any]:
        """Return a function that reports an incident to a server with given answers to the lists and the start."""

        def reported(
            *lists: dict[str, list[Any]],
            start: Any = None,
            since: float | None = None,
            fails: dict[str, Exception] | None = None,
            list_takes: float = 0.0,
            ordered: bool = True,
        ) -> tuple[Any, Any, list[str]]:
            """Return the result, the stage, and the log.

            :param lists: what the lists hold by state: before the first pause, after it, and so on.
            :param fails: the lists that fail, and how.
            :param list_takes: seconds that each of them takes.
            :param ordered: whether the order that is asked for is heeded.
            """
            notes: list[str] = []
            now = NOW
            counted.clear()

            def answer(operation: Any) -> Any:
                nonlocal now
                if operation.kind == "start":
                    return make("new", business_key=KEY, name="Incident") if start is None else start
                now += list_takes
                state = dict(operation.query)["states"]
                if state in (fails or {}):
                    return (fails or {})[state]
                rows = lists[min(len(played.paused), len(lists) - 1)].get(state, []) if lists else []
                newest_first = dict(operation.query)["orderType"] == "desc"
                return (
                    sorted(rows, key=lambda one: one.start_time or "", reverse=newest_first)
                    if ordered
                    else rows
                )

            played = stage(answer)
            plan = report_incident(
                operations.start("Incident", business_key=KEY),
                bpm_name="Incident",
                business_key=KEY,
                since=since,
                grace=60,
                clock=lambda: now,
                log=lambda note: notes.append(note.text),
                meter=Noting(counted),
            )
            try:
                return played.run(plan), played, notes
            except (AmbiguousStartError, AuthenticationError, RefusedError) as error:
                return error, played, notes

        return reported

    def test_the_first_report_starts_a_process(self, reported: Any, counted: list[str]) -> None:
        came, played, notes = reported()
        assert (came.instance.id, came.is_new) == ("new", True)
        assert played.asked.count("start") == 1
        assert notes == []
        assert counted == ["starts"]

    @pytest.mark.parametrize("state", states.STATES)
    def test_a_second_report_starts_none(self, state: str, reported: Any, make: Any) -> None:
        known = make("known", state, business_key=KEY, name="Incident")
        came, played, _ = reported({state: [known]})
        assert (came.instance, came.is_new) == (known, False)
        assert "start" not in played.asked

    def test_returns_the_newest_of_several_instances(self, reported: Any, make: Any) -> None:
        several = [
            make(name, "Broken", business_key=KEY, name="Incident", start_time=f"2026-11-{day} 10:00:00")
            for name, day in [("old", "01"), ("new", "03"), ("middle", "02")]
        ]
        came, _, _ = reported({"Broken": several})
        assert (came.instance.id, came.is_new) == ("new", False)

    @pytest.mark.parametrize("other", [{"name": "Other"}, {"business_key": "other"}, {"business_key": None}])
    def test_ignores_other_instances(self, other: dict[str, Any], reported: Any, make: Any) -> None:
        row = make("other", **{"business_key": KEY, "name": "Incident", **other})
        came, _, _ = reported({"Running": [row, make("shows", business_key="keys")]})
        assert came.is_new

    @pytest.mark.parametrize("start", [RefusedError("the server refused"), AuthenticationError("refused")])
    def test_does_not_search_after_a_start_that_certainly_failed(
        self, start: Exception, reported: Any
    ) -> None:
        came, played, _ = reported(start=start)
        assert came is start
        assert played.paused == []

    @pytest.mark.parametrize("start", [ServerError("the server failed"), InterruptedCallError("no answer")])
    def test_finds_the_instance_of_a_start_in_doubt(
        self, start: Exception, reported: Any, counted: list[str], make: Any
    ) -> None:
        nothing: dict[str, Any] = {}
        there = {
            "Running": [make("new", business_key=KEY, name="Incident", start_time="2026-11-24 10:00:00")]
        }
        came, played, notes = reported(nothing, nothing, there, start=start)
        assert (came.instance.id, came.is_new) == ("new", True)
        assert played.asked.count("start") == 1
        assert played.paused == [3.0, 12.0]
        assert counted == ["ambiguous_starts", "starts"]
        assert len(notes) == 1
        assert notes[0].startswith("The answer to the start was lost; searching for the instance")

    def test_raises_if_a_start_in_doubt_shows_no_instance(self, reported: Any, counted: list[str]) -> None:
        came, played, _ = reported(start=ServerError("the server failed", status=503))
        assert isinstance(came, AmbiguousStartError)
        assert str(came) == (
            "the server failed; no instance shows its business key (HTTP 503). It was not started again. "
            f"Search for an instance of 'Incident' with business key {KEY!r}; if there is none, start it yourself."
        )
        assert played.asked.count("start") == 1
        assert sum(played.paused) == 60
        assert counted == ["ambiguous_starts"]

    @pytest.mark.parametrize(
        "failure", [RefusedError("not for you"), ServerError("down"), InterruptedCallError("cut")]
    )
    def test_reports_even_if_a_list_fails(self, failure: Exception, reported: Any) -> None:
        came, _, notes = reported(fails={"Broken": failure})
        assert came.is_new
        assert len(notes) == 1
        assert notes[0].startswith(
            "It is unknown whether this was reported before: state 'Broken' could not be listed"
        )

    def test_a_failing_list_does_not_hide_a_match_in_another(self, reported: Any, make: Any) -> None:
        known = make("known", "Terminated", business_key=KEY, name="Incident")
        came, _, _ = reported({"Terminated": [known]}, fails={"Running": ServerError("down")})
        assert (came.instance, came.is_new) == (known, False)

    def test_does_not_start_if_the_search_shows_that_it_would_fail(self, reported: Any) -> None:
        came, played, _ = reported(fails=dict.fromkeys(states.STATES, AuthenticationError("no")))
        assert isinstance(came, AuthenticationError)
        assert len(played.asked) == 1

    @pytest.mark.parametrize(("list_takes", "asked"), [(0.1, 20), (1.0, 8), (5.0, 2)])
    def test_stops_searching_in_time_for_airflow(self, list_takes: float, asked: int, reported: Any) -> None:
        came, played, notes = reported(list_takes=list_takes)
        assert came.is_new
        assert len(played.asked) == asked + 1
        assert bool(notes) is (asked < 20)

    def test_starts_if_the_lists_show_no_keys(self, reported: Any, make: Any) -> None:
        came, _, notes = reported({"Running": [make("x", name="Incident", business_key=None)]})
        assert came.is_new
        assert notes == [
            "It is unknown whether this was reported before: the lists show no business keys here. Reporting it"
        ]

    @pytest.mark.parametrize(("ordered", "doubts"), [(True, False), (False, True)])
    def test_starts_if_a_list_may_be_cut_off(
        self, ordered: bool, doubts: bool, reported: Any, make: Any
    ) -> None:
        rows = [
            make(f"{n}", name="Other", business_key=f"k{n}", start_time=f"2026-11-24 10:00:{n:02}")
            for n in range(37)
        ]
        came, _, notes = reported({"Running": rows}, ordered=ordered)
        assert came.is_new
        assert bool(notes) is doubts
