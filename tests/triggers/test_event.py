"""The trigger of an asset watcher: which events it fires, what it stores, and what it survives.

Airflow's runner and its store are faked here, with Airflow's own messages; ``tests/deployment`` uses real ones.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from airflow.jobs import triggerer_job_runner
from airflow.sdk import Asset, AssetWatcher
from airflow.triggers.base import TriggerEvent

from airflow_provider_astrobpm.client.backoff import Backoff
from airflow_provider_astrobpm.client.tokens import TOKENS
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.triggers import event
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmEventTrigger
from airflow_provider_astrobpm.triggers.watch_state import WatchState
from airflow_provider_astrobpm.waiting import lookup
from airflow_provider_astrobpm.watching import state_codec
from airflow_provider_astrobpm.watching.targets import WatchTargets, instance_digest
from tests.support.stores import AssetStateStore

# Before Airflow 3.3 there is no store, so nothing has to be written after the event.
HAS_STORE = hasattr(triggerer_job_runner, "TriggerEventEntry")
has_store = pytest.mark.skipif(not HAS_STORE, reason="Airflow has no state store before 3.3")

PROCESS = "SupplierOnboarding"
DELIVERY_TIMEOUT_SECONDS = 20.0


class Runner:
    """Runs a trigger like a triggerer: events go into a queue, and are taken from it from time to time."""

    def __init__(self, trigger: AstroZeroBpmEventTrigger) -> None:
        self._trigger = trigger
        self._queue: list[TriggerEvent] = []
        self.persisted: list[dict[str, Any]] = []

    async def run(self) -> None:
        async for fired in self._trigger.run():
            self._queue.append(fired)

    async def until(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not condition():  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.01)

        await asyncio.wait_for(wait(), DELIVERY_TIMEOUT_SECONDS)

    async def until_queued(self, count: int) -> None:
        await self.until(lambda: len(self._queue) >= count)

    def take(self) -> None:
        """Send the events in the queue to the process that writes them."""
        taken, self._queue = self._queue, []
        if not HAS_STORE:
            self.persisted += [fired.payload for fired in taken]
            return
        entry = triggerer_job_runner.TriggerEventEntry
        entries = [entry(trigger_id=1, event=fired, persist_seq=None) for fired in taken]
        sent = triggerer_job_runner.messages.TriggerStateChanges(events=entries).model_dump()
        self.persisted += [json.loads(json.dumps(fired["payload"])) for _, fired, _ in sent["events"] or ()]

    @property
    def ids(self) -> list[str]:
        return [one["id"] for one in self.persisted]


@asynccontextmanager
async def running(store: AssetStateStore | None = None, **arguments: Any) -> AsyncIterator[Runner]:
    """Recreate a trigger from its serialized form, run it during the block, and kill it at the end."""
    made = AstroZeroBpmEventTrigger(**{"bpm_name": PROCESS, "poll_interval": 1, **arguments})
    path, serialised = made.serialize()
    assert path == "airflow_provider_astrobpm.triggers.event.AstroZeroBpmEventTrigger"
    trigger = AstroZeroBpmEventTrigger(**json.loads(json.dumps(serialised)))
    if HAS_STORE:
        trigger.asset_state_store = store  # type: ignore[assignment]
    trigger._log = logging.getLogger(__name__)  # type: ignore[assignment]
    runner = Runner(trigger)
    task = asyncio.create_task(runner.run())
    try:
        yield runner
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture(autouse=True)
def _all_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, __name__)


def watching(caplog: pytest.LogCaptureFixture) -> Callable[[], bool]:
    return lambda: "Watching instances of" in caplog.text


def end(emulator: EmulatorControl, instance_id: str) -> str:
    emulator.move(instance_id, state="Completed OK")
    return instance_id


def start(emulator: EmulatorControl, count: int = 1) -> list[str]:
    return [emulator.start(PROCESS)["id"] for _ in range(count)]


def test_fires_for_instances_that_end_while_it_watches(
    emulator: EmulatorControl, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> list[dict[str, Any]]:
        async with running(AssetStateStore()) as runner:
            await runner.until(watching(caplog))
            end(emulator, third)
            await runner.until_queued(1)
            runner.take()
            return runner.persisted

    first, _second, third = start(emulator, 3)
    end(emulator, first)
    (payload,) = asyncio.run(main())
    assert (payload["id"], payload["name"], payload["state"]) == (third, PROCESS, "Completed OK")
    assert set(payload) == {
        *("id", "name", "version", "state", "bp_status", "task_outcome", "suspended", "is_closed"),
        *("business_key", "start_time", "end_time", "start_time_utc", "end_time_utc", "url"),
    }
    assert "1 are already there and are not reported" in caplog.text


@has_store
def test_a_restart_neither_repeats_nor_misses_events(
    emulator: EmulatorControl, caplog: pytest.LogCaptureFixture
) -> None:
    store = AssetStateStore()
    ids = start(emulator, 4)

    async def main() -> list[str]:
        async with running(store) as runner:
            await runner.until(watching(caplog))
            await runner.until(lambda: bool(store.values))
            before = dict(store.values)
            end(emulator, ids[0])
            await runner.until_queued(1)
            assert store.values == before  # an event that Airflow has not taken is not stored
            runner.take()
            await runner.until(lambda: store.values != before)
            persisted = runner.ids
        end(emulator, ids[1])  # while no trigger runs
        async with running(store) as runner:
            end(emulator, ids[2])
            await runner.until_queued(2)
            runner.take()
            kept = dict(store.values)
            await runner.until(lambda: store.values != kept)
            persisted += runner.ids
        async with running(store) as runner:
            end(emulator, ids[3])
            await runner.until_queued(1)
            runner.take()
            return persisted + runner.ids

    reported = asyncio.run(main())
    assert reported[0] == ids[0]
    assert sorted(reported) == sorted(ids)


@has_store
def test_fires_again_what_airflow_had_not_taken_before_a_kill(
    emulator: EmulatorControl, caplog: pytest.LogCaptureFixture
) -> None:
    store = AssetStateStore()
    (one,) = start(emulator)

    async def main() -> list[str]:
        async with running(store) as runner:
            await runner.until(lambda: bool(store.values))
            end(emulator, one)
            await runner.until_queued(1)
        async with running(store) as runner:
            await runner.until_queued(1)
            runner.take()
            return runner.ids

    assert asyncio.run(main()) == [one]


@has_store
def test_does_not_repeat_what_another_triggerer_reported(
    emulator: EmulatorControl, caplog: pytest.LogCaptureFixture
) -> None:
    """It considered this one dead, but this one still runs."""
    store = AssetStateStore()
    others, own = start(emulator, 2)
    places = WatchTargets.of(PROCESS, None, None)
    completed = places.states.index("Completed OK")

    async def main() -> list[str]:
        async with running(store) as runner:
            await runner.until(lambda: bool(store.values))
            memory = WatchState(state_codec.state_name("astro_zero_default", places), store)
            await memory.read()
            await memory.write({f"{completed:02x}{instance_digest(others)}"})
            end(emulator, others)
            end(emulator, own)
            await runner.until_queued(1)
            runner.take()
            await runner.until(lambda: instance_digest(own) in str(store.values))
            return runner.ids

    assert asyncio.run(main()) == [own]
    assert instance_digest(others) in str(store.values)


@has_store
def test_fires_again_for_an_instance_that_left_while_another_one_entered(emulator: EmulatorControl) -> None:
    store = AssetStateStore()
    returning, other = start(emulator, 2)
    waiting = "Waiting for user interaction"
    for one in (returning, other):
        emulator.move(one, state="Running")

    async def main() -> list[str]:
        async with running(store, states=[waiting]) as runner:

            async def reported(instance_id: str) -> None:
                await runner.until_queued(1)
                runner.take()
                await runner.until(lambda: instance_digest(instance_id) in str(store.values))

            await runner.until(lambda: bool(store.values))
            emulator.move(returning, state=waiting)
            await reported(returning)
            emulator.move(returning, state="Running")
            emulator.move(other, state=waiting)
            await reported(other)
            emulator.move(returning, state=waiting)
            await reported(returning)
            return runner.ids

    assert asyncio.run(main()) == [returning, other, returning]


def test_include_existing_reports_existing_instances(emulator: EmulatorControl) -> None:
    ids = [end(emulator, one) for one in start(emulator, 3)]

    async def main() -> list[str]:
        async with running(AssetStateStore(), include_existing=True) as runner:
            await runner.until_queued(3)
            runner.take()
            return runner.ids

    assert asyncio.run(main()) == ids


def test_reports_many_entries_a_few_at_a_time(
    emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand at once would keep Airflow busy for minutes, and it would be considered dead."""
    monkeypatch.setattr(event, "MAX_EVENTS_AT_ONCE", 10)
    monkeypatch.setattr(event, "DELIVERY_INTERVAL_SECONDS", 0.2)
    ids = [end(emulator, one) for one in start(emulator, 25)]

    async def main() -> tuple[list[int], list[str]]:
        sizes = []
        async with running(AssetStateStore(), include_existing=True) as runner:
            while len(runner.ids) < len(ids):
                await runner.until_queued(min(10, len(ids) - len(runner.ids)))
                sizes.append(len(runner._queue))
                runner.take()
            return sizes, runner.ids

    sizes, reported = asyncio.run(main())
    assert sizes == [10, 10, 5]
    assert reported == ids


def test_without_a_store_a_restart_sets_a_new_baseline(
    emulator: EmulatorControl, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow before 3.3 allows no more than this."""
    ids = start(emulator, 3)

    async def main() -> list[str]:
        async with running(None) as runner:
            await runner.until(watching(caplog))
            end(emulator, ids[0])
            await runner.until_queued(1)
            runner.take()
            reported = runner.ids
        end(emulator, ids[1])  # while no trigger runs: missed
        caplog.clear()
        async with running(None) as runner:
            await runner.until(watching(caplog))
            end(emulator, ids[2])
            await runner.until_queued(1)
            runner.take()
            return reported + runner.ids

    assert asyncio.run(main()) == [ids[0], ids[2]]


@pytest.mark.parametrize("suspend_state", ["unchanged", "Suspended", "state_only"])
def test_reports_suspended_instances(
    suspend_state: str, emulator: EmulatorControl, caplog: pytest.LogCaptureFixture
) -> None:
    emulator.switch(suspend_state=suspend_state)
    ids = start(emulator, 2)
    emulator.advance(2)

    async def main() -> list[str]:
        async with running(AssetStateStore(), states=["Suspended"]) as runner:
            await runner.until(watching(caplog))
            AstroZeroHook().suspend_instance(ids[1])
            await runner.until_queued(1)
            runner.take()
            return runner.ids

    assert asyncio.run(main()) == [ids[1]]


@has_store
def test_a_store_failure_between_events_repeats_none(
    emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event, "RETRY_DELAY_SECONDS", 0.05)
    store = AssetStateStore()
    ids = [end(emulator, one) for one in start(emulator, 10)]

    async def main() -> list[str]:
        async with running(store, include_existing=True) as runner:
            await runner.until_queued(10)
            rest = [runner._queue.pop() for _ in range(6)][::-1]
            store.fails = True
            runner.take()
            await runner.until(lambda: store.failures > 0)  # it could not store the four
            runner._queue = rest
            runner.take()
            store.fails = False
            await runner.until(lambda: all(instance_digest(one) in str(store.values) for one in ids))
            listed = emulator.counts()["query"]
            await runner.until(lambda: emulator.counts()["query"] >= listed + 12)
            runner.take()
            return runner.ids

    assert asyncio.run(main()) == ids


def test_watches_states_and_business_statuses_together(
    emulator: EmulatorControl, caplog: pytest.LogCaptureFixture
) -> None:
    ids = start(emulator, 2)

    async def main() -> list[tuple[str, str, str]]:
        async with running(AssetStateStore(), states=["Paused"], bp_statuses=["Checked"]) as runner:
            await runner.until(watching(caplog))
            emulator.move(ids[0], state="Paused")
            emulator.move(ids[1], state="Paused", bp_status="Checked")
            await runner.until_queued(1)
            runner.take()
            return [(one["id"], one["state"], one["bp_status"]) for one in runner.persisted]

    assert asyncio.run(main()) == [(ids[1], "Paused", "Checked")]


@has_store
def test_keeps_watching_after_any_failure(
    emulator: EmulatorControl, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event, "RETRY_DELAY_SECONDS", 0.05)
    store = AssetStateStore()
    store.fails = True
    (one,) = start(emulator)
    connection = json.loads(os.environ["AIRFLOW_CONN_ASTRO_ZERO_DEFAULT"])

    async def main() -> list[str]:
        async with running(store) as runner:
            await runner.until(lambda: "the API server failed" in caplog.text)
            wrong = json.dumps({**connection, "password": "not the secret"})
            monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", wrong)
            store.fails = False
            await runner.until(lambda: "Check the login (client id)" in caplog.text)
            monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))
            TOKENS.clear()
            await runner.until(lambda: bool(store.values))
            end(emulator, one)
            await runner.until_queued(1)
            store.fails = True
            runner.take()
            store.fails = False
            kept = dict(store.values)
            await runner.until(lambda: store.values != kept)
            return runner.ids

    assert asyncio.run(main()) == [one]
    assert "not the secret" not in caplog.text
    assert caplog.text.count("the API server failed") <= 4  # logged when it starts, not with every attempt


@pytest.mark.long
def test_logs_a_failure_once_and_again_after_it_returns(
    emulator: EmulatorControl, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event, "RETRY_DELAY_SECONDS", 0.05)
    reported = "Could not watch instances of"

    async def main() -> None:
        async with running(AssetStateStore()) as runner:
            await runner.until(watching(caplog))
            for times in (1, 2):
                emulator.fault("token", "status", status=401, times=1000)
                emulator.revoke_tokens()
                TOKENS.clear()
                await runner.until(lambda times=times: caplog.text.count(reported) == times)  # type: ignore[misc]
                asked = emulator.counts()["token"]
                await runner.until(lambda asked=asked: emulator.counts()["token"] > asked + 2)  # type: ignore[misc]
                assert caplog.text.count(reported) == times
                emulator.clear_faults()
                listed = emulator.counts()["query"]
                await runner.until(lambda listed=listed: emulator.counts()["query"] >= listed + 8)  # type: ignore[misc]

    asyncio.run(main())


@pytest.mark.parametrize("what", ["missing", "of no use"])
def test_retries_soon_if_the_connection_cannot_be_read(
    what: str, emulator: EmulatorControl, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "READS", Backoff(first=0.05, longest=60))
    name = "AIRFLOW_CONN_ASTRO_ZERO_DEFAULT"
    good = os.environ[name]
    if what == "missing":
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, json.dumps({**json.loads(good), "host": ""}))
    read, looked_up = AstroZeroHook.async_settings, []

    async def counted(hook: AstroZeroHook) -> Any:
        looked_up.append(hook)
        return await read(hook)

    monkeypatch.setattr(AstroZeroHook, "async_settings", counted)

    async def main() -> None:
        async with running(AssetStateStore()) as runner:
            await runner.until(lambda: len(looked_up) >= 3)
            monkeypatch.setenv(name, good)
            await runner.until(
                watching(caplog)
            )  # sooner than after the pause for failures that need a person

    asyncio.run(main())
    assert caplog.text.count("the connection could not be read") == 1
    assert caplog.text.count("Polls succeed again") == 1
    assert "Could not watch" not in caplog.text


@has_store
def test_advises_to_separate_assets_that_share_a_trigger(
    emulator: EmulatorControl, caplog: pytest.LogCaptureFixture
) -> None:
    class Several(AssetStateStore):
        async def aget(self, key: str) -> Any:
            raise ValueError("Task has 2 concrete inlets and outlets")

    async def main() -> None:
        async with running(Several()) as runner:
            await runner.until(lambda: "make the arguments differ" in caplog.text)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bpm_name": ""}, "bpm_name must be a text"),
        ({"bpm_name": "P", "states": ["Ended"]}, "states must be one of"),
        ({"bpm_name": "P", "bp_statuses": "Approved"}, "bp_statuses must be a list"),
        ({"bpm_name": "P", "poll_interval": 0}, "poll_interval must be"),
        ({"bpm_name": "P", "astro_zero_conn_id": ""}, "astro_zero_conn_id must be"),
        ({"bpm_name": "P", "queue": " "}, "queue must be a text that is not blank"),
    ],
)
def test_bad_arguments_are_refused_while_the_dag_is_parsed(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AstroZeroBpmEventTrigger(**arguments)


def test_before_airflow_3_4_a_queue_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow itself would raise a ``TypeError``. ``tests/next`` has a queue."""
    monkeypatch.setattr(event, "event_triggers_have_queue", lambda: False)
    with pytest.raises(ValueError, match="queue needs Airflow 3.4 or newer.*leave it out"):
        AstroZeroBpmEventTrigger(bpm_name="P", queue="people")
    assert "queue" not in AstroZeroBpmEventTrigger(bpm_name="P", queue=None).serialize()[1]


def test_an_asset_watcher_accepts_it() -> None:
    trigger = AstroZeroBpmEventTrigger(bpm_name=PROCESS, states=["Paused", "Broken"])
    asset = Asset("orders", watchers=[AssetWatcher(name="ended", trigger=trigger)])
    (watcher,) = asset.watchers
    assert watcher.trigger.serialize()[1]["states"] == ["Broken", "Paused"]


def test_an_event_contains_nothing_that_a_database_refuses(
    emulator: EmulatorControl, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with running(AssetStateStore() if HAS_STORE else None) as runner:
            await runner.until(watching(caplog))
            (odd,) = start(emulator)
            emulator.distort(odd, {"bpStatus": "Do\0ne", "version": "\ud83d", "startTime": "\0"})
            end(emulator, odd)
            await runner.until_queued(1)
            runner.take()
            (event,) = runner.persisted
            assert (event["id"], event["bp_status"], event["version"]) == (odd, "Do\ufffdne", "\ufffd")

    asyncio.run(main())
