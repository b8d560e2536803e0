"""Runs tasks like Airflow, but without it: execute, defer, run the trigger, resume."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:  # before Airflow 3.2
    from airflow.exceptions import AirflowRescheduleException

from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmInstanceTrigger
from tests.support.task_instance import FakeTaskInstance


class Runner:
    """Runs one task to its end, in any mode."""

    def __init__(self) -> None:
        self.ti = FakeTaskInstance()
        self.deferrals: list[TaskDeferred] = []
        self.event: Any = None
        self.while_deferred: Callable[[], None] = lambda: None

    def end_of(self, make_task: Callable[[], Any]) -> Any:
        """Return the result of a task, or the exception that ends it."""
        try:
            return self.run(make_task)
        except Exception as error:  # noqa: BLE001 - every one of them is an end
            return error

    def run(self, make_task: Callable[[], Any]) -> Any:
        """Run a task. After each reschedule it is created again, as in a new process."""
        while True:
            task = make_task()
            try:
                return task.execute({"ti": self.ti})
            except AirflowRescheduleException as again:
                self.ti.rescheduled = self.ti.rescheduled or again.reschedule_date
            except TaskDeferred as deferred:
                self.deferrals.append(deferred)
                self.while_deferred()
                self.event = fire(deferred.trigger)
                return make_task().resume_execution(
                    deferred.method_name, {"event": self.event, **(deferred.kwargs or {})}, {"ti": self.ti}
                )


def fire(trigger: AstroZeroBpmInstanceTrigger, seconds: float = 30) -> Any:
    """Recreate a trigger from its serialized form, run it, and return the payload of its event."""
    path, arguments = trigger.serialize()
    assert path == f"{type(trigger).__module__}.{type(trigger).__name__}"
    again = type(trigger)(**arguments)

    async def first_event() -> Any:
        events = again.run()
        try:
            return (await asyncio.wait_for(events.__anext__(), seconds)).payload
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    return asyncio.run(first_event())


@pytest.fixture(scope="session")
def make_runner() -> type[Runner]:
    return Runner
