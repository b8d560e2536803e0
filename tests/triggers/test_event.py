"""The trigger of a watcher: which events it fires, what it keeps of them, and what it survives.

Airflow's runner and its store are played here, with Airflow's own messages; real ones are in ``tests/deployment``.
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

from airflow_provider_astrobpm.bpm import cursor, lookup
from airflow_provider_astrobpm.bpm.places import Places, digest_of
from airflow_provider_astrobpm.bpm.token import TOKENS
from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.triggers import event
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmEventTrigger
from airflow_provider_astrobpm.triggers.memory import WatchMemory
from tests.support.stores import AssetStateStore

# Before Airflow 3.3 there is no store, so nothing to be written after the event.
HAS_STORE = hasattr(triggerer_job_runner, "TriggerEventEntry")
has_store = pytest.mark.skipif(not HAS_STORE, reason="Airflow has no state store before 3.3")

PROCESS = "SupplierOnboarding"
WITHIN = 20.0


class Runner:
    """Runs a trigger as a triggerer does: events go into a queue, and are taken from there now and then."""

    def __init__(self, trigger: AstroZeroBpmEventTrigger) -> None:
        self._trigger = trigger
        self._queue: list[TriggerEvent] = []
        self.persisted: list[dict[str, Any]] = []

    async def run(self) -> None:
        async for fired in self._trigger.run():
            self._queue.append(fired)

    async def until(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not condition():  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)

        await asyncio.wait_for(wait(), WITHIN)

    async def until_queued(self, count: int) -> None:
        await self.until(lambda: len(self._queue) >= count)

    def take(self) -> None:
        """Send what is in the queue to where it is written down."""
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
    """Run a trigger, made anew from what it serialises to, until the end of the block; that is a kill."""
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


def test_it_fires_for_what_ends_while_it_watches(
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
    assert "1 are there already and do not count" in caplog.text


@has_store
def test_a_restart_neither_repeats_nor_omits(
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
            assert store.values == before  # nothing is kept of what Airflow has not taken
            runner.take()
            await runner.until(lambda: store.values != before)
            persisted = runner.ids
        end(emulator, ids[1])  # while nobody watches
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

    told = asyncio.run(main())
    assert told[0] == ids[0]
    assert sorted(told) == sorted(ids)


@has_store
def test_what_was_not_taken_before_a_kill_is_fired_again(
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
def test_what_another_triggerer_has_told_is_not_told_again(
    emulator: EmulatorControl, caplog: pytest.LogCaptureFixture
) -> None:
    """It took this one for dead, and this one goes on."""
    store = AssetStateStore()
    others, own = start(emulator, 2)
    places = Places.of(PROCESS, None, None)
    completed = places.states.index("Completed OK")

    async def main() -> list[str]:
        async with running(store) as runner:
            await runner.until(lambda: bool(store.values))
            memory = WatchMemory(cursor.name_of("astro_zero_default", places), store)
            await memory.read()
            await memory.write({f"{completed:02x}{digest_of(others)}"})
            end(emulator, others)
            end(emulator, own)
            await runner.until_queued(1)
            runner.take()
            await runner.until(lambda: digest_of(own) in str(store.values))
            return runner.ids

    assert asyncio.run(main()) == [own]
    assert digest_of(others) in str(store.values)


def test_existing_ones_count_if_that_is_wanted(emulator: EmulatorControl) -> None:
    ids = [end(emulator, one) for one in start(emulator, 3)]

    async def main() -> list[str]:
        async with running(AssetStateStore(), include_existing=True) as runner:
            await runner.until_queued(3)
            runner.take()
            return runner.ids

    assert asyncio.run(main()) == ids


def test_many_are_told_a_few_at_a_time(emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow would be busy with ten thousand of them for minutes, and be taken for dead."""
    monkeypatch.setattr(event, "AT_A_TIME", 10)
    monkeypatch.setattr(event, "TAKEN_EVERY", 0.2)
    ids = [end(emulator, one) for one in start(emulator, 25)]

    async def main() -> tuple[list[int], list[str]]:
        sizes = []
        async with running(AssetStateStore(), include_existing=True) as runner:
            while len(runner.ids) < len(ids):
                await runner.until_queued(min(10, len(ids) - len(runner.ids)))
                sizes.append(len(runner._queue))
                runner.take()
            return sizes, runner.ids

    sizes, told = asyncio.run(main())
    assert sizes == [10, 10, 5]
    assert told == ids


def test_without_a_store_a_restart_begins_anew(
    emulator: EmulatorControl, caplog: pytest.LogCaptureFixture
) -> None:
    """This is what Airflow before 3.3 can promise."""
    ids = start(emulator, 3)

    async def main() -> list[str]:
        async with running(None) as runner:
            await runner.until(watching(caplog))
            end(emulator, ids[0])
            await runner.until_queued(1)
            runner.take()
            told = runner.ids
        end(emulator, ids[1])  # while nobody watches: lost
        caplog.clear()
        async with running(None) as runner:
            await runner.until(watching(caplog))
            end(emulator, ids[2])
            await runner.until_queued(1)
            runner.take()
            return told + runner.ids

    assert asyncio.run(main()) == [ids[0], ids[2]]


@pytest.mark.parametrize("suspend_state", ["unchanged", "Suspended", "state_only"])
def test_suspended_ones(
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
def test_a_store_that_fails_in_the_middle_of_many_doubles_none(
    emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event, "PAUSE", 0.05)
    store = AssetStateStore()
    ids = [end(emulator, one) for one in start(emulator, 10)]

    async def main() -> list[str]:
        async with running(store, include_existing=True) as runner:
            await runner.until_queued(10)
            rest = [runner._queue.pop() for _ in range(6)][::-1]
            store.fails = True
            runner.take()
            await runner.until(lambda: store.failures > 0)  # it could not write down the four
            runner._queue = rest
            runner.take()
            store.fails = False
            await runner.until(lambda: all(digest_of(one) in str(store.values) for one in ids))
            listed = emulator.counts()["query"]
            await runner.until(lambda: emulator.counts()["query"] >= listed + 12)
            runner.take()
            return runner.ids

    assert asyncio.run(main()) == ids


def test_states_and_business_statuses(emulator: EmulatorControl, caplog: pytest.LogCaptureFixture) -> None:
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
def test_it_goes_on_after_whatever_fails(
    emulator: EmulatorControl, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event, "PAUSE", 0.05)
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
            await runner.until(lambda: "Check login (client id)" in caplog.text)
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
    assert caplog.text.count("the API server failed") <= 4  # said when it begins, not with every attempt


def test_a_failure_is_told_once_and_once_more_when_it_comes_back(
    emulator: EmulatorControl, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event, "PAUSE", 0.05)
    told = "Could not watch instances of"

    async def main() -> None:
        async with running(AssetStateStore()) as runner:
            await runner.until(watching(caplog))
            for times in (1, 2):
                emulator.fault("token", "status", status=401, times=1000)
                emulator.revoke_tokens()
                TOKENS.clear()
                await runner.until(lambda times=times: caplog.text.count(told) == times)  # type: ignore[misc]
                asked = emulator.counts()["token"]
                await runner.until(lambda asked=asked: emulator.counts()["token"] > asked + 2)  # type: ignore[misc]
                assert caplog.text.count(told) == times
                emulator.clear_faults()
                listed = emulator.counts()["query"]
                await runner.until(lambda listed=listed: emulator.counts()["query"] >= listed + 8)  # type: ignore[misc]

    asyncio.run(main())


@pytest.mark.parametrize("what", ["missing", "of no use"])
def test_a_connection_that_cannot_be_looked_up_for_a_moment_costs_a_moment(
    what: str, emulator: EmulatorControl, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "FIRST_PAUSE", 0.05)
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
            await runner.until(watching(caplog))  # sooner than after the pause for what a person has to mend

    asyncio.run(main())
    assert caplog.text.count("the connection could not be read") == 1
    assert caplog.text.count("Polls succeed again") == 1
    assert "Could not watch" not in caplog.text


@has_store
def test_several_assets_with_one_trigger_are_told_what_to_do(
    emulator: EmulatorControl, caplog: pytest.LogCaptureFixture
) -> None:
    class Several(AssetStateStore):
        async def aget(self, key: str) -> Any:
            raise ValueError("Task has 2 concrete inlets and outlets")

    async def main() -> None:
        async with running(Several()) as runner:
            await runner.until(lambda: "let their arguments differ" in caplog.text)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bpm_name": ""}, "bpm_name must be a text"),
        ({"bpm_name": "P", "states": ["Ended"]}, "states must be one of"),
        ({"bpm_name": "P", "bp_statuses": "Approved"}, "bp_statuses must be a list"),
        ({"bpm_name": "P", "poll_interval": 0}, "poll_interval must be"),
        ({"bpm_name": "P", "astro_zero_conn_id": ""}, "astro_zero_conn_id must be"),
    ],
)
def test_bad_arguments_are_refused_while_the_dag_is_parsed(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AstroZeroBpmEventTrigger(**arguments)


def test_an_asset_takes_it() -> None:
    trigger = AstroZeroBpmEventTrigger(bpm_name=PROCESS, states=["Paused", "Broken"])
    asset = Asset("orders", watchers=[AssetWatcher(name="ended", trigger=trigger)])
    (watcher,) = asset.watchers
    assert watcher.trigger.serialize()[1]["states"] == ["Broken", "Paused"]


def test_what_a_database_refuses_is_in_no_event(
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
