"""Provoke errors: the emulator, connections to it, and tasks that run without Airflow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_astrobpm.__main__ import main
from airflow_provider_astrobpm.client.sync_client import BpmClient
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
)
from airflow_provider_astrobpm.sensors.bpm import AstroZeroBpmInstanceSensor
from tests.support.stores import HAS_TASK_STATE_STORE, TaskStateStore
from tests.support.task_instance import FakeTaskInstance

CONN_ID = "astro_zero_default"
BPM = "SupplierOnboarding"
START_GRACE_SECONDS = 0.2
RETRIES = 9


class Tries(FakeTaskInstance):
    """The tries of one task, as far as an operator sees them.

    :param remembers: whether Airflow has a task state store.
    """

    dag_id = "orders"

    def __init__(self, *, remembers: bool = HAS_TASK_STATE_STORE) -> None:
        self.store = TaskStateStore()
        super().__init__("gate", retries=RETRIES, store=self.store if remembers else None)

    def again(self) -> None:
        """Begin the next try."""
        self.begin_try()

    def clear(self, *, keep_task_state: bool = True) -> None:
        """Clear the task, and begin the next try."""
        super().clear(keep_task_state=keep_task_state)
        self.again()


class Scene:
    """The emulator, and the calls, tasks and commands of a user of this provider.

    :param emulator: the emulator's controls.
    :param server: the emulator.
    :param folder: a scratch folder.
    :param free_port: a port without a listener.
    :param keep_time: makes a client advance the emulator's clock instead of sleeping.
    :param environment: sets environment variables, for one test.
    """

    def __init__(
        self,
        emulator: EmulatorControl,
        server: EmulatorServer,
        folder: Path,
        free_port: int,
        keep_time: Callable[[BpmClient, EmulatorControl], None],
        environment: pytest.MonkeyPatch,
    ) -> None:
        self.emulator, self.server, self.folder, self.free_port = emulator, server, folder, free_port
        self.environment = environment
        self._keep_time = keep_time
        self._clients: list[BpmClient] = []
        self.while_waiting: Callable[[Any], None] | None = None
        """Called with the operator when it is about to wait."""
        self.operator: Any = None
        """The operator that ran last."""
        environment.setattr("airflow_provider_astrobpm.client.sync_client.BpmClient", self._client)
        self.connect()

    def connect(self, extra: Any = None, **fields: Any) -> None:
        """Make the connection; without arguments it has the fields that the emulator gives.

        :param extra: its extras; by default one attempt and a short ``start_grace``.
        :param fields: its other fields.
        """
        quick = {"start_grace": START_GRACE_SECONDS, "max_attempts": 1, "max_wait": 0.1}
        extras = {**quick, **(extra or {})} if extra is None or isinstance(extra, dict) else extra
        connection = {**json.loads(self.server.connection_json()), "extra": extras, **fields}
        self.environment.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(connection))

    def hook(self, extra: Any = None, **fields: Any) -> AstroZeroHook:
        """Make the connection again with these extras and fields, and return a hook on it."""
        self.connect(extra, **fields)
        return AstroZeroHook(CONN_ID)

    def address(self, url: str) -> AstroZeroHook:
        """Return a hook on another address."""
        return self.hook(host=url, port=None, schema=None)

    def started(self, name: str = BPM, **options: Any) -> str:
        """Start an instance as another user does, and return its id."""
        instance_id: str = self.emulator.start(name, **options)["id"]
        return instance_id

    # Tasks.

    def start(self, tries: Tries | None = None, **arguments: Any) -> Any:
        """Run a try of the start operator."""
        made = {"bpm_name": BPM, **self._limits(arguments), "retries": RETRIES, **arguments}
        return self._run(AstroZeroStartBpmInstanceOperator(task_id="gate", **made), tries)

    def sense(
        self,
        tries: Tries | None = None,
        *,
        before: Callable[[AstroZeroBpmInstanceSensor], None] = lambda _: None,
        **arguments: Any,
    ) -> Any:
        """Run the sensor.

        :param before: called with the sensor before it runs.
        """
        made = AstroZeroBpmInstanceSensor(task_id="gate", **{"poke_interval": 1, "timeout": 0, **arguments})
        before(made)
        return self._run(made, tries)

    def batch(self, launches: Any, tries: Tries | None = None, **arguments: Any) -> Any:
        """Run a try of the batch operator."""
        made = {"bpm_name": BPM, **self._limits(arguments), "retries": RETRIES, **arguments}
        if launches is not None:
            made["launches"] = launches
        return self._run(AstroZeroStartBpmBatchOperator(task_id="gate", **made), tries)

    def resume(
        self,
        event: Callable[[str], Any] | None = None,
        *,
        failure: str | None = None,
        ti_id: str | None = None,
    ) -> Any:
        """Defer a start operator, and resume it.

        :param event: returns the trigger's event for an instance's id.
        :param failure: Airflow's text for a trigger that ended without an event.
        :param ti_id: the id of the task instance.
        """
        tries = Tries()
        operator = AstroZeroStartBpmInstanceOperator(
            task_id="gate", bpm_name=BPM, deferrable=True, poll_interval=1, timeout=3600
        )
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(tries.context)
        if ti_id is not None:
            vars(tries)["id"] = ti_id
        method, arguments = deferred.value.method_name, dict(deferred.value.kwargs or {})
        if event is not None:
            arguments["event"] = event(tries.xcoms["instance_id"])
        else:
            method, arguments["error"] = "__fail__", failure
        return operator.resume_execution(method, arguments, tries.context)

    def written(self, name: str, content: str | bytes) -> str:
        """Return the path of a file with this content."""
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def command(self, *arguments: str) -> None:
        """Run a command of the command line; any exit code but 0 is fine."""
        try:
            main(list(arguments))
        except SystemExit as end:
            assert end.code  # noqa: PT017 - an exit is no error here

    def close(self) -> None:
        """Close the clients."""
        for client in self._clients:
            client.close()

    @staticmethod
    def _limits(arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the limits of a task's wait, if it waits."""
        return (
            {"poll_interval": 1, "timeout": 5} if arguments.get("wait_for_completion", True) is True else {}
        )

    def _run(self, operator: Any, tries: Tries | None) -> Any:
        self.operator = operator
        return operator.execute((tries or Tries()).context)

    def _client(self, *arguments: Any, **options: Any) -> BpmClient:
        """Return a client that advances the emulator's clock instead of sleeping."""
        made = BpmClient(*arguments, **options)
        self._keep_time(made, self.emulator)
        if (happens := self.while_waiting) is not None:
            made._sleep = lambda _: happens(self.operator)
        self._clients.append(made)
        return made
