"""When the next poll is due, what a poll asks for, and what it passes on to the waits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_astrobpm.client import search
from airflow_provider_astrobpm.client.drivers import drive
from airflow_provider_astrobpm.client.errors import CallError, ServerError, ThrottledError
from airflow_provider_astrobpm.client.log_note import LogNote
from airflow_provider_astrobpm.client.metrics import POLL_ERRORS, POLLS, BufferedMeter
from airflow_provider_astrobpm.client.moment import Moment
from airflow_provider_astrobpm.client.operations import Operation, Sleep
from airflow_provider_astrobpm.client.settings import InstanceLookup, Settings, StaticToken
from airflow_provider_astrobpm.waiting import polling
from airflow_provider_astrobpm.waiting.condition import WaitCondition
from airflow_provider_astrobpm.waiting.polling import PollFailures, WorkerPolling
from airflow_provider_astrobpm.waiting.wait import InstanceWait
from tests.support.memory_server import instance

SETTINGS = Settings(
    "my_conn", "http://polling.test", StaticToken("t"), instance_lookup="list", start_grace=300
)
NOW = Moment(wall=1000.0, steady=50.0)


def throttled(retry_after: str) -> ThrottledError:
    error = ThrottledError("slow down")
    error.retry_after = retry_after
    return error


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (None, None),
        (ServerError("down"), None),
        (throttled("120"), 120),
        (throttled("0"), 0),
        (throttled("99999"), 600),
        (throttled("soon"), None),
        (throttled("Thu, 01 Jan 1970 00:16:50 GMT"), 10),
    ],
)
def test_obeys_the_server_for_ten_minutes_at_most(error: CallError | None, seconds: float | None) -> None:
    assert polling.retry_after_delay(error, NOW.wall) == seconds


def failures_of(*outcomes: CallError | None) -> PollFailures:
    failures = PollFailures()
    for outcome in outcomes:
        failures.record(outcome)
    return failures


def test_counts_polls_for_which_the_server_was_down() -> None:
    failures, down = PollFailures(), ServerError("down")
    assert (failures.in_a_row, failures.last) == (0, None)
    for outcome, in_a_row in ((down, 1), (down, 2), (None, 0), (down, 1)):
        failures.record(outcome)
        assert (failures.in_a_row, failures.last) == (in_a_row, outcome)


@pytest.mark.parametrize(
    ("failures", "jitter", "seconds"),
    [
        (failures_of(), 0.0, 20),
        (failures_of(), 0.5, 19),
        (failures_of(), 1.0, 18),
        (failures_of(ServerError("x")), 0.0, 40),
        (failures_of(ServerError("x")), 1.0, 36),
        (failures_of(ServerError("x"), ServerError("x")), 0.0, 60),
        (failures_of(throttled("Thu, 01 Jan 1970 00:18:20 GMT")), 0.0, 100),
        (failures_of(throttled("100")), 1.0, 102),
    ],
)
def test_pauses_between_polls(failures: PollFailures, jitter: float, seconds: float) -> None:
    assert polling.poll_delay(20, failures, NOW.wall, jitter) == seconds


THROTTLED_UNTIL_1100 = failures_of(throttled("Thu, 01 Jan 1970 00:18:20 GMT"))


@pytest.mark.parametrize(
    ("failures", "deadline", "seconds"),
    [
        (failures_of(), None, 20),
        (failures_of(), 1100.0, 20),
        (failures_of(), 1019.0, 19),
        (failures_of(), 1000.0, 0),
        (failures_of(), 900.0, 0),
        (THROTTLED_UNTIL_1100, None, 100),
        (THROTTLED_UNTIL_1100, 1050.0, 50),
    ],
)
def test_polls_once_more_at_the_deadline(
    failures: PollFailures, deadline: float | None, seconds: float
) -> None:
    awaited = InstanceWait(WaitCondition(), instance_id="1", deadline=deadline)
    assert polling.next_delay(awaited, 20, failures, NOW, 0.0) == seconds


class Scene:
    """A worker that polls a server which answers each request with a function."""

    def __init__(self, answer: Any, settings: Settings = SETTINGS) -> None:
        self.answer, self.notes, self.pauses = answer, list[LogNote](), list[float]()
        self.asked: list[str] = []
        self.meter = BufferedMeter()
        self.polling = WorkerPolling(
            settings=settings, log=self.notes.append, clock=lambda: NOW, jitter=lambda: 1.0, meter=self.meter
        )

    def run(self, flow: Any) -> Any:
        return drive(flow, self.reply)

    def reply(self, step: Operation[Any] | Sleep) -> Any:
        if isinstance(step, Sleep):
            self.pauses.append(step.seconds)
            return None
        self.asked.append(step.kind)
        found = self.answer(step)
        if isinstance(found, Exception):
            raise found
        return found


def running(operation: Operation[Any]) -> Any:
    if operation.kind == "get":
        return instance("1")
    return [instance("1")] if dict(operation.query)["states"] == "Running" else []


def test_a_poll_passes_on_what_the_connection_says_and_logs_what_changed() -> None:
    scene = Scene(running)
    waits = [InstanceWait(WaitCondition(), instance_id="1") for _ in range(2)]
    assert scene.run(scene.polling.poll_once(*waits)) is None
    for each in waits:
        assert (each.grace, each.seen, each.notes) == (300, instance("1"), [])
    assert [note.text for note in scene.notes] == [f"Found {instance('1')}"] * 2
    assert scene.meter.take()[0] == {(POLLS, ()): 1}


def test_a_failed_poll_is_counted_and_names_the_connection() -> None:
    down = ServerError("down")
    down.connection = "another_conn"
    scene = Scene(lambda _: down)
    awaited = InstanceWait(WaitCondition(), instance_id="1")
    assert scene.run(scene.polling.poll_once(awaited)) is down
    assert awaited.failure is not None
    assert awaited.failure.connection == "my_conn"
    assert scene.meter.take()[0] == {(POLLS, ()): 1, (POLL_ERRORS, ()): 1}


@pytest.mark.parametrize(("lookup", "asked"), [("list", "query"), ("by_id", "get")])
def test_a_poll_reads_as_the_connection_says(lookup: InstanceLookup, asked: str) -> None:
    scene = Scene(running, replace(SETTINGS, instance_lookup=lookup))
    scene.run(scene.polling.poll_once(InstanceWait(WaitCondition(), instance_id="1")))
    assert set(scene.asked) == {asked}


@pytest.mark.parametrize(
    ("known", "asked", "learned"),
    [
        (None, "get", True),
        (True, "get", True),
        (False, "query", False),
    ],
)
def test_a_poll_uses_and_adds_to_what_is_known_of_the_endpoint(
    known: bool | None, asked: str, learned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, instance_lookup="auto", base_url="http://known.test")
    traits = search.traits_of_endpoint("http://known.test")
    monkeypatch.setattr(traits, "reads_by_id", known)
    scene = Scene(running, settings)
    scene.run(scene.polling.poll_once(InstanceWait(WaitCondition(), instance_id="1")))
    assert set(scene.asked) == {asked}
    assert traits.reads_by_id is learned


def test_a_wait_polls_less_often_while_the_server_is_down() -> None:
    left: list[Any] = [ServerError("down")] * 2

    def answer(operation: Operation[Any]) -> Any:
        if len(scene.pauses) <= len(left):
            return ServerError("down")
        return [instance("1", "Completed OK")] if dict(operation.query)["states"] == "Completed OK" else []

    scene = Scene(answer)
    awaited = InstanceWait(WaitCondition(), instance_id="1")
    scene.run(scene.polling.run_wait(awaited, 20))
    assert awaited.result().state == "Completed OK"
    assert scene.pauses == [18, 36, 54]


def test_a_poll_that_shows_nothing_is_repeated_at_its_own_interval() -> None:
    def answer(operation: Operation[Any]) -> Any:
        return running(operation) if len(scene.pauses) == 2 else []

    scene = Scene(answer)
    awaited = InstanceWait(WaitCondition(), instance_id="1")
    scene.run(scene.polling.poll_until_conclusive(awaited, 10))
    assert (scene.pauses, awaited.seen, awaited.ending) == ([9, 9], instance("1"), None)
