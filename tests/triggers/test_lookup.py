"""A triggerer restarts, and Airflow cannot yet provide what its triggers need. No wait fails because of that."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from datetime import datetime, timezone
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException

from airflow_provider_astrobpm._airflow import user_action
from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.backoff import Backoff
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator
from airflow_provider_astrobpm.sensors.bpm import AstroZeroBpmInstanceSensor
from airflow_provider_astrobpm.triggers.base import WaitingTrigger
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmBatchTrigger, AstroZeroBpmInstanceTrigger
from airflow_provider_astrobpm.waiting import event_payload, lookup

CONNECTION = "AIRFLOW_CONN_ASTRO_ZERO_DEFAULT"
BPM = "PublishApproval"
STARTS_TO_FAIL = "Polls are failing; still waiting. On connection 'astro_zero_default'"
TASK = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": -1}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "READS", Backoff(first=0.05, longest=0.1))


@pytest.fixture(params=["missing", "broken"])
def hiccup(
    request: pytest.FixtureRequest, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """Make the connection missing or useless, and return a function that restores it."""
    good = os.environ[CONNECTION]
    if request.param == "missing":
        monkeypatch.delenv(CONNECTION)
    else:
        monkeypatch.setenv(CONNECTION, json.dumps({**json.loads(good), "host": ""}))
    return lambda: monkeypatch.setenv(CONNECTION, good)


def trigger(instance_id: str, **arguments: Any) -> AstroZeroBpmInstanceTrigger:
    return AstroZeroBpmInstanceTrigger(
        astro_zero_conn_id="astro_zero_default",
        instance_id=instance_id,
        **{"bp_statuses": ["Approved"], "poll_interval": 1, **arguments},
    )


async def end_of(waiting: WaitingTrigger) -> Any:
    async with aclosing(waiting.run()) as events:  # type: ignore[type-var]
        return (await events.__anext__()).payload


async def until(condition: Callable[[], object]) -> None:
    async def wait() -> None:
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), 20)


class Reads:
    """Counts how often the connection was read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        read = AstroZeroHook.async_settings

        async def counted(hook: AstroZeroHook) -> Any:
            self.count += 1
            return await read(hook)

        monkeypatch.setattr(AstroZeroHook, "async_settings", counted)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


def test_twenty_waits_resume_when_the_connection_is_back(
    emulator: EmulatorControl, hiccup: Callable[[], None], reads: Reads, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [emulator.start(BPM)["id"] for _ in range(20)]

    async def scenario() -> list[Any]:
        waits = [asyncio.ensure_future(end_of(trigger(each))) for each in ids]
        await until(lambda: reads.count >= 20 * 4)
        assert not any(each.done() for each in waits)
        hiccup()
        for each in ids:
            emulator.act(each, "approve")
        return [event_payload.load(payload) for payload in await asyncio.gather(*waits)]

    ends = asyncio.run(scenario())
    assert [end.id for end in ends if isinstance(end, BpmInstance)] == ids
    log = capsys.readouterr().out
    assert log.count(STARTS_TO_FAIL) == 20, "each wait says so once"
    assert log.count("Polls succeed again") == 20
    assert "could not continue" not in log


def test_a_lasting_failure_ends_the_wait_after_max_poll_failure_time(
    emulator: EmulatorControl, hiccup: Callable[[], None], reads: Reads
) -> None:
    waiting = trigger(emulator.start(BPM)["id"], max_poll_failure_time=0.5)
    ended = event_payload.load(asyncio.run(end_of(waiting)))
    assert type(ended) is errors.PreparationError
    assert "polls have failed for" in str(ended)
    assert "On connection 'astro_zero_default': the connection could not be read" in str(ended)
    assert reads.count > 4


def test_a_deadline_during_the_failure_is_a_timeout(
    emulator: EmulatorControl, hiccup: Callable[[], None], reads: Reads
) -> None:
    waiting = trigger(emulator.start(BPM)["id"], deadline=0.0)
    ended = event_payload.load(asyncio.run(end_of(waiting)))
    assert type(ended) is errors.WaitTimeoutError
    assert reads.count == 1


class TestBatch:
    @pytest.fixture
    def xcoms(self, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """The XComs of the task. The first ``fails`` reads fail."""
        published: dict[str, Any] = {
            "batch_key": "key-",
            "instance_ids": [emulator.start(BPM)["id"] for _ in range(3)],
            "fails": 0,
        }

        def read(_task: Any, key: str) -> Any:
            if published["fails"]:
                published["fails"] -= 1
                raise ConnectionError("the API server does not answer")
            return published.get(key)

        monkeypatch.setattr(user_action, "published_xcom", read)
        return published

    def batch(self, **arguments: Any) -> AstroZeroBpmBatchTrigger:
        return AstroZeroBpmBatchTrigger(
            astro_zero_conn_id="astro_zero_default",
            task_key=TASK,
            batch_key="key-",
            poll_interval=1,
            **arguments,
        )

    def test_survives_xcoms_that_cannot_be_read_for_a_moment(
        self, emulator: EmulatorControl, xcoms: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        xcoms["fails"] = 4
        for each in xcoms["instance_ids"]:
            emulator.act(each, "approve")
        end, error = event_payload.load_batch(asyncio.run(end_of(self.batch())), xcoms["instance_ids"])
        assert (end and end.succeeded, error) == (3, None)
        assert capsys.readouterr().out.count("the XComs of the task could not be read (ConnectionError)") == 1

    def test_fails_if_xcoms_cannot_be_read_for_max_poll_failure_time(
        self, emulator: EmulatorControl, xcoms: dict[str, Any]
    ) -> None:
        xcoms["fails"] = 10**6
        end, error = event_payload.load_batch(
            asyncio.run(end_of(self.batch(max_poll_failure_time=0.3))), xcoms["instance_ids"]
        )
        assert end is None
        assert type(error) is errors.PreparationError

    def test_fails_at_once_if_xcoms_are_gone(self, emulator: EmulatorControl, xcoms: dict[str, Any]) -> None:
        del xcoms["instance_ids"]
        _, error = event_payload.load_batch(asyncio.run(end_of(self.batch())), [])
        assert "does not say which instances it has started" in str(error)

    def test_survives_a_connection_that_is_missing_for_a_moment(
        self, emulator: EmulatorControl, xcoms: dict[str, Any], hiccup: Callable[[], None], reads: Reads
    ) -> None:
        async def scenario() -> Any:
            waiting = asyncio.ensure_future(end_of(self.batch()))
            await until(lambda: reads.count >= 4)
            hiccup()
            for each in xcoms["instance_ids"]:
                emulator.act(each, "approve")
            return await waiting

        end, error = event_payload.load_batch(asyncio.run(scenario()), xcoms["instance_ids"])
        assert (end and end.succeeded, error) == (3, None)


class TestWorker:
    """A resuming task, and each poke after the first, read the connection again."""

    @pytest.fixture
    def attempts(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The reads of the connection so far."""
        seen: list[str] = []
        get_connection = AstroZeroHook.get_connection.__func__  # type: ignore[attr-defined]

        def counted(cls: Any, conn_id: str) -> Any:
            seen.append(conn_id)
            return get_connection(cls, conn_id)

        monkeypatch.setattr(AstroZeroHook, "get_connection", classmethod(counted))
        return seen

    @pytest.fixture
    def passing(self, hiccup: Callable[[], None], attempts: list[str]) -> Iterator[None]:
        """Make the connection available again after some failed reads."""

        def bring_it_back() -> None:
            deadline = time.monotonic() + 20
            while len(attempts) < 4 and time.monotonic() < deadline:
                time.sleep(0.01)
            hiccup()

        with ThreadPoolExecutor(1) as pool:
            bringing = pool.submit(bring_it_back)
            yield
            bringing.result(30)
        assert len(attempts) >= 4

    def test_a_resuming_task_waits_for_the_connection(
        self, emulator: EmulatorControl, make_runner: Any, passing: None, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ended = emulator.start("Instant")["id"]
        ti = make_runner().ti
        ti.xcom_push("instance_id", ended)
        fired = event_payload.dump(
            BpmInstance(id=ended, name="Instant", state="Completed OK", is_closed=True)
        )
        task = AstroZeroStartBpmInstanceOperator(task_id="task", bpm_name="Instant")
        assert task.resume_execution("execute_complete", {"event": fired}, {"ti": ti})["id"] == ended
        assert capsys.readouterr().out.count(STARTS_TO_FAIL) == 1

    def test_a_later_poke_waits_for_the_connection(
        self, emulator: EmulatorControl, make_runner: Any, passing: None
    ) -> None:
        ended = emulator.start("Instant")["id"]
        runner = make_runner()
        runner.ti.rescheduled = datetime.now(timezone.utc)
        sensor = AstroZeroBpmInstanceSensor(task_id="task", instance_id=ended, mode="reschedule")
        assert runner.run(lambda: sensor)["id"] == ended

    def test_the_first_poke_fails_at_once(
        self, emulator: EmulatorControl, make_runner: Any, hiccup: Callable[[], None], attempts: list[str]
    ) -> None:
        sensor = AstroZeroBpmInstanceSensor(task_id="task", instance_id="1", mode="reschedule")
        end = make_runner().end_of(lambda: sensor)
        assert type(end).__name__ in {"AirflowNotFoundException", "SettingsError"}
        assert len(attempts) <= 2

    @pytest.mark.parametrize("soft_fail", [False, True])
    @pytest.mark.parametrize("on_timeout", ["leave", "terminate"])
    def test_a_deadline_during_the_failure_is_a_timeout(
        self,
        on_timeout: Any,
        soft_fail: bool,
        emulator: EmulatorControl,
        make_runner: Any,
        hiccup: Callable[[], None],
    ) -> None:
        runner = make_runner()
        runner.ti.rescheduled = datetime.now(timezone.utc)
        sensor = AstroZeroBpmInstanceSensor(
            task_id="task",
            instance_id="1",
            mode="reschedule",
            timeout=0.3,
            on_timeout=on_timeout,
            soft_fail=soft_fail,
        )
        end = runner.end_of(lambda: sensor)
        assert type(end) is (AirflowSkipException if soft_fail else AirflowSensorTimeout)
        assert "timed out at" in str(end)
        assert ("By 'on_timeout' 'terminate' was tried." in str(end)) is (on_timeout == "terminate")

    def test_a_lasting_failure_fails_the_poke_after_max_poll_failure_time(
        self, emulator: EmulatorControl, make_runner: Any, hiccup: Callable[[], None]
    ) -> None:
        runner = make_runner()
        runner.ti.rescheduled = datetime.now(timezone.utc)
        sensor = AstroZeroBpmInstanceSensor(
            task_id="task", instance_id="1", mode="reschedule", max_poll_failure_time=0.3, soft_fail=True
        )
        assert type(runner.end_of(lambda: sensor)) is errors.PreparationError
