"""A batch task through all its tries, and what people do with its instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmBatchOperator
from airflow_provider_astrobpm.starting.business_keys import TaskIdentity
from airflow_provider_astrobpm.task_base.task_state_record import TaskStateRecord
from tests.support.stores import (
    TaskStateStore,
)
from tests.support.task_instance import FakeTaskInstance

RETRIES = 9
KEYS = TaskIdentity("dag", "run", "batch")
WAITS, ENDS = "SupplierOnboarding", "Instant"
Fire = Callable[[Any], Any]


class Task(FakeTaskInstance):
    """One batch task of a run, through all its tries."""

    def __init__(self, fire: Fire, *, has_store: bool, **arguments: Any) -> None:
        store = TaskStateStore() if has_store else None
        super().__init__("batch", try_number=0, retries=RETRIES, store=store)
        self.fire = fire
        self.arguments = arguments
        self.meanwhile: Callable[[], None] = lambda: None
        self.when_published: Callable[[], None] = lambda: None
        self.event: Any = None

    def xcom_push(self, key: str, value: Any) -> None:
        super().xcom_push(key, value)
        if key == "refusals":  # the last push before the wait
            self.when_published()

    def operator(self, **arguments: Any) -> AstroZeroStartBpmBatchOperator:
        return AstroZeroStartBpmBatchOperator(
            task_id="batch", retries=RETRIES, poll_interval=1, **{**self.arguments, **arguments}
        )

    def try_it(self, **arguments: Any) -> dict[str, Any]:
        """Run the next try. If it defers, call ``meanwhile``, then run the trigger and resume."""
        self.begin_try()
        try:
            return self.operator(**arguments).execute(self.context)
        except TaskDeferred as deferred:
            self.meanwhile()
            self.event = self.fire(deferred.trigger)
            result: dict[str, Any] = self.operator(**arguments).resume_execution(
                deferred.method_name,
                {"event": self.event, **(deferred.kwargs or {})},
                self.context,
            )
            return result

    @property
    def outcomes(self) -> dict[str, int]:
        """The counts in the result that are not 0, also those of a failed try."""
        counts = {key: value for key, value in self.xcoms["result"].items() if isinstance(value, int)}
        return {key: value for key, value in counts.items() if value and key != "total"}


def launches(count: int, bpm_name: str = WAITS, **more: Any) -> list[dict[str, Any]]:
    return [{"bpm_name": bpm_name, "variables": {"n": number}, **more} for number in range(1, count + 1)]


def numbers(emulator: EmulatorControl, **fields: Any) -> Counter[int]:
    """Return the number of instances of each launch, by launch number."""
    found = [
        each for each in emulator.instances() if all(each[key] == value for key, value in fields.items())
    ]
    keys = [KEYS.read_batch(each["business_key"]) for each in found]
    assert all(keys)
    return Counter(key.number for key in keys if key)


def complete(emulator: EmulatorControl, *but: int) -> None:
    """Complete all instances of the batch that wait for people, except those of some launches, and let time pass."""
    for each in emulator.instances(name=WAITS):
        key = KEYS.read_batch(each["business_key"])
        if each["outcomes"] and not (key and key.number in but):
            emulator.act(each["id"], "complete")
    emulator.advance(5)


def complete_all(emulator: EmulatorControl) -> None:
    """Complete all instances that wait for people, including preexisting ones."""
    for each in emulator.instances():
        if each["outcomes"]:
            emulator.act(each["id"], "complete")
    emulator.advance(5)


def instance_of(emulator: EmulatorControl, number: int) -> dict[str, Any]:
    found = [
        each
        for each in emulator.instances()
        if (key := KEYS.read_batch(each["business_key"])) and key.number == number
    ]
    return found[-1]


class Died(BaseException):
    """The worker was killed."""


def stop_after(
    monkeypatch: pytest.MonkeyPatch, emulator: EmulatorControl, starts: int, error: BaseException
) -> None:
    """Make the process die after a number of starts. It writes no record from then on."""
    call_once = AsyncBpmClient.call_once

    async def dying(client: AsyncBpmClient, operation: Any) -> Any:
        if len(emulator.instances()) >= starts:
            monkeypatch.setattr(TaskStateRecord, "write", lambda *_: None)
            raise error
        return await call_once(client, operation)

    monkeypatch.setattr(AsyncBpmClient, "call_once", dying)
