"""Targets that read what Airflow hands back: trigger events, records of earlier tries, and XComs."""

from __future__ import annotations

import asyncio
import json
from functools import lru_cache
from typing import Any

import msgspec

from airflow_provider_astrobpm._airflow import xcom_keys
from airflow_provider_astrobpm.batches.batch_record import BatchRecord, BatchRequest, is_recorded_instance
from airflow_provider_astrobpm.client.errors import AstroZeroError, UnknownEventError
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.moment import utc
from airflow_provider_astrobpm.client.operations import start
from airflow_provider_astrobpm.client.timestamps import Placement
from airflow_provider_astrobpm.sensors.bpm import AstroZeroBpmInstanceSensor
from airflow_provider_astrobpm.starting.business_keys import TaskIdentity
from airflow_provider_astrobpm.starting.decision import StartRecord, StartRequest
from airflow_provider_astrobpm.starting.try_request import TaskTry, choose_lookup, lookup_delay
from airflow_provider_astrobpm.task_base.batch_xcoms import published
from airflow_provider_astrobpm.task_base.task_state_record import STORE_KEYS, TaskStateRecord
from airflow_provider_astrobpm.triggers.watch_state import WatchState
from airflow_provider_astrobpm.waiting import event_payload
from airflow_provider_astrobpm.watching.targets import ENTRY_KEY_LENGTH
from tests.fuzz.inputs import Input, check_error, raises_only
from tests.support.stores import AssetStateStore, TaskStateStore
from tests.support.task_instance import FakeTaskInstance

NOW = 1_795_000_000.0
IDS = ("002N1", "002N2", "002N3")
IDENTITY = TaskIdentity("orders", "manual__1", "approve")
LATEST_TIME = 253_402_300_799.0  # the end of the year 9999, which Python's dates reach


@lru_cache(maxsize=1)
def _sensor() -> AstroZeroBpmInstanceSensor:
    return AstroZeroBpmInstanceSensor(task_id="gate", instance_id=IDS[0])


def event(data: bytes) -> None:
    """Resume with an event.

    Anything but the event of a success is an ``AstroZeroError``, and so is the success of another instance or of one that does
    not meet the condition. A batch has as many successes as the event shows. What was understood makes the same event again.
    """
    given = Input(data).json()
    event_payload.is_for_other_task_instance(given, "0199-waiter")
    with raises_only(AstroZeroError):
        ending = event_payload.load(given)
        again = json.loads(json.dumps(event_payload.dump(ending)))
        if isinstance(ending, BpmInstance):
            assert given["status"] == "success"
            assert event_payload.load(again) == ending
        else:
            check_error(ending)
            assert str(event_payload.load(again)) == str(ending)
    with raises_only(AstroZeroError):
        passed = _sensor()._instance_in_event(given, IDS[0])
        assert given["status"] == "success"
        assert given["instance"]["id"] == IDS[0]
        assert given["instance"]["state"] == passed.state == "Completed OK"
    with raises_only(UnknownEventError):
        _check_batch(given)


def _check_batch(given: Any) -> None:
    end, error = event_payload.load_batch(given, IDS)
    if end is None:
        assert error is not None
        return
    assert end.succeeded == given["outcomes"].count("+")
    assert end.succeeded + len(end.failed) + len(end.open) == len(given["outcomes"]) == len(IDS)
    again = json.loads(json.dumps(event_payload.dump_batch(end, IDS, error)))
    end_again, error_again = event_payload.load_batch(again, IDS)
    assert end_again == end
    assert str(error_again) == str(error)


def record(data: bytes) -> None:
    """Read the record of an earlier try, of one start or of a batch, and decide by it.

    It is understood, or an ``AstroZeroError`` says that it cannot be read. What was understood is written and read again as the
    same record. No decision by it fails.
    """
    source = Input(data)
    kind: Any = source.choose((StartRecord, BatchRecord))
    try_number, max_tries = source.choose((1, 2, 3, 7)), source.choose((0, 1, 3, 9))
    store = TaskStateStore({STORE_KEYS[kind]: source.json()})
    ti = FakeTaskInstance(store=store)
    with raises_only(AstroZeroError):
        found: Any = TaskStateRecord(ti.context, kind).read()
        if found is None:
            return
        written = json.loads(json.dumps(msgspec.json.decode(msgspec.json.encode(found))))
        store[STORE_KEYS[kind]] = written
        assert TaskStateRecord(ti.context, kind).read() == found
        this = TaskTry.of(
            IDENTITY, found, try_number=try_number, max_tries=max_tries, retries=2, now=NOW, due=NOW - 60
        )
        _decide(found, kind, this)


def _decide(found: Any, kind: Any, this: TaskTry) -> None:
    intent = this.intent(found, kind)
    assert msgspec.json.decode(msgspec.json.encode(intent), type=kind) == intent
    common: dict[str, Any] = {
        **{name: getattr(this, name) for name in TaskTry.__dataclass_fields__},
        "accepts": lambda one: one.state == "Completed OK",
    }
    request: Any
    if kind is StartRecord:
        request = StartRequest(**common, bpm_name="Approval", start=lambda key: start("A", business_key=key))
    else:
        request = BatchRequest(**common, own_keys={1: "order-1", 2: "order-2"})
    choose_lookup(request, found)
    assert 0 <= lookup_delay(request, found, NOW) <= request.grace
    if found.deadline is not None:
        utc(found.deadline)
    instance = BpmInstance(id="002N1", name="Approval", state="Running", start_time="2026-11-18 10:00:00")
    matches = request.new_matches(found.key_form, lambda: NOW)
    assert request.place(found, matches, instance, this.generation) in Placement
    asked = request.record_person_asked(found, kind)
    assert msgspec.json.decode(msgspec.json.encode(asked), type=kind) == asked
    if kind is BatchRecord:
        met = found.satisfied_launches()
        assert all(number >= 0 for number in met)
        assert found.failed(unfinished=True, met=met).satisfied_launches() in (met, frozenset())
        is_recorded_instance(found, 1, "order-1", instance)


def stored(data: bytes) -> None:
    """Read what a watch has stored, and what a batch has published.

    A state of a watch is whole or counts as none, so that nothing is taken for reported that was not. What is then written is
    read again as the same. XComs that are not what a batch publishes are an ``AstroZeroError``.
    """
    source = Input(data)
    if source.choose((True, False)):
        _check_watch(source)
    else:
        _check_published(source)


def _check_watch(source: Input) -> None:
    values = source.json()
    if not isinstance(values, dict):
        return
    store = AssetStateStore()
    store.values = {str(name): json.dumps(value) for name, value in values.items()}

    async def use() -> None:
        state = WatchState("watch", store)
        found = await state.read()
        assert found is None or all(len(key) == ENTRY_KEY_LENGTH for key in found)
        more = {"00abcdefgh", "01-_345678", *(found or ())}
        await state.write(more)
        assert await WatchState("watch", store).read() == more

    asyncio.run(use())


def _check_published(source: Input) -> None:
    ti = FakeTaskInstance()
    names = (
        xcom_keys.INSTANCE_IDS,
        xcom_keys.REFUSED_LAUNCHES,
        xcom_keys.SATISFIED_LAUNCHES,
        xcom_keys.BATCH_KEY,
        xcom_keys.BPM_NAMES,
        xcom_keys.LAUNCH_IDS,
        xcom_keys.LAUNCH_TITLES,
        xcom_keys.LAUNCH_VARIABLES,
    )
    values = source.json()
    if not isinstance(values, list):
        return
    ti.xcoms = dict(zip(names, values, strict=False))
    with raises_only(AstroZeroError):
        batch = published(ti.context)
        assert set(batch.awaited) <= {one for one in batch.ids if one is not None}
        assert all(isinstance(one, str) for one in batch.awaited)
        assert all(isinstance(reason, str) for reason in batch.refusals.values())
        assert len(batch.author_fields) in (0, len(batch.ids))
