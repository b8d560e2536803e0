"""The advice of errors where a clear discards the task state (Airflow 3.4), and the effect of such a clear.

The version of Airflow is played here; ``tests/next`` has a real one.
"""

from __future__ import annotations

import json
from typing import Any

import airflow
import pytest
from airflow.sdk.execution_time import context as airflow_context

from airflow_provider_astrobpm._airflow import version_compat
from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
)
from airflow_provider_astrobpm.task_base import termination
from tests.support.stores import TaskStateStore
from tests.support.task_instance import FakeTaskInstance

pytestmark = pytest.mark.skipif(
    not hasattr(airflow_context, "NEVER_EXPIRE"), reason="there is no state to discard before Airflow 3.3"
)

BPM, RETRIES = "SupplierOnboarding", 3
TICK = 'On this Airflow, tick "Keep task state and resume" when you clear it (REST API: keep_task_state=true)'
VERSIONS = ["3.0.6", "3.3.2", "3.4.0b2", "3.4.0", "3.10.1", "4.0.0"]


class Task(FakeTaskInstance):
    """One task of a run, through all its tries."""

    def __init__(self, kind: type[Any], **arguments: Any) -> None:
        super().__init__(try_number=0, retries=RETRIES, store=TaskStateStore())
        self.kind, self.arguments = kind, arguments

    def error(self) -> str:
        """Run the next try, and return its error."""
        self.begin_try()
        operator = self.kind(task_id="task", retries=RETRIES, poll_interval=1, **self.arguments)
        with pytest.raises(errors.AstroZeroError) as failed:
            operator.execute(self.context)
        return str(failed.value)


def limited(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with a short timeout, if the task waits."""
    return arguments if arguments.get("wait_for_completion") is False else {"timeout": 0.001, **arguments}


def one(**arguments: Any) -> Task:
    return Task(AstroZeroStartBpmInstanceOperator, bpm_name=BPM, **limited(arguments))


def batch(**arguments: Any) -> Task:
    return Task(AstroZeroStartBpmBatchOperator, launches=[{"bpm_name": BPM}], **limited(arguments))


@pytest.fixture(autouse=True)
def short_grace(
    emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    del emulator  # it sets its own connection first
    connection = {**json.loads(emulator_server.connection_json()), "extra": {"start_grace": 0.2}}
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))


@pytest.fixture
def on_3_4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow, "__version__", "3.4.0b2")


@pytest.fixture
def on_3_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow, "__version__", "3.3.2")


@pytest.mark.parametrize("version", VERSIONS)
def test_clear_discards_task_state_since_airflow_3_4(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow, "__version__", version)
    assert version_compat.clear_discards_task_state() is (version not in {"3.0.6", "3.3.2"})


@pytest.mark.parametrize("make", [one, batch])
@pytest.mark.usefixtures("on_3_3")
def test_no_advice_where_a_clear_discards_nothing(make: Any, emulator: EmulatorControl) -> None:
    assert "tick" not in make().error()
    emulator.switch(business_keys_in_rows=False)
    emulator.fault("start", "drop_after")
    ambiguous = make(wait_for_completion=False)
    ambiguous.run_id = "another"
    assert "tick" not in ambiguous.error()


@pytest.mark.usefixtures("on_3_4")
class TestAdvice:
    def test_of_a_failed_wait_that_a_clear_resumes(self) -> None:
        said = one().error()
        words = "so does clearing this task. {}; otherwise the task no longer knows this instance, and may start another one."
        assert said.endswith(words.format(TICK))

    @pytest.mark.parametrize(
        ("arguments", "is_said"),
        [
            ({"terminate_on_kill": False}, False),  # its key identifies the instance
            ({"terminate_on_kill": False, "business_key": "mine"}, True),
            ({"business_key": "mine"}, True),
            (
                {"failed_states": ["Waiting for user interaction"], "timeout": 60},
                False,
            ),  # a clear terminates the instance
        ],
    )
    def test_only_if_the_clear_depends_on_the_record(self, arguments: dict[str, Any], is_said: bool) -> None:
        assert (TICK in one(**arguments).error()) is is_said

    def test_of_a_failed_batch(self) -> None:
        assert batch().error().endswith(f"so does clearing this task. {TICK}; otherwise a new batch starts.")

    @pytest.mark.parametrize("make", [one, batch])
    def test_of_a_start_in_doubt_appears_once(self, make: Any, emulator: EmulatorControl) -> None:
        emulator.switch(business_keys_in_rows=False)
        emulator.fault("start", "drop_after")
        task = make(wait_for_completion=False)
        for _ in range(2):
            assert task.error().count(TICK) == 1

    def test_not_for_a_start_in_doubt_without_a_clear(self, emulator: EmulatorControl) -> None:
        task = one(wait_for_completion=False)
        emulator.switch(business_keys_in_rows=False)
        emulator.fault("start", "drop_after")
        task.error()
        emulator.fault("query", "status", status=403, times=100)
        said = task.error()
        assert "A retry searches again" in said
        assert "tick" not in said

    def test_of_a_killed_batch_without_time_to_terminate(
        self, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        notes: list[str] = []
        monkeypatch.setattr(termination, "BATCH_SENDING_SECONDS", 0.0)

        class Log:
            def __getattr__(self, _level: str) -> Any:
                return lambda words, *rest: notes.append(words % rest if rest else words)

        from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook  # noqa: PLC0415

        ids = {emulator.start(BPM)["id"]: None}
        termination.terminate_batch(AstroZeroHook().settings, ids, Log(), max_concurrency=1)
        end = f"clearing the task terminates the instances that are still open. {TICK}; otherwise it terminates only instances whose key was derived"
        assert end in notes[-1]


@pytest.mark.usefixtures("on_3_4")
class TestClearWithoutTaskState:
    @pytest.mark.parametrize("make", [one, batch])
    @pytest.mark.parametrize(("keep", "closed"), [(True, [False]), (False, [True, False])])
    def test_forgets_the_instance_that_a_failed_wait_left_open(
        self, make: Any, keep: bool, closed: list[bool], emulator: EmulatorControl
    ) -> None:
        task = make()
        task.error()
        task.clear(keep_task_state=keep)
        task.error()
        assert [each["closed"] for each in emulator.instances()] == closed

    @pytest.mark.parametrize("make", [one, batch])
    def test_keeps_a_start_in_doubt_in_doubt(self, make: Any, emulator: EmulatorControl) -> None:
        """It stays in doubt, and starts nothing."""
        emulator.switch(business_keys_in_rows=False)
        emulator.fault("start", "drop_after")
        task = make(wait_for_completion=False)
        task.error()
        for _ in range(2):
            task.clear(keep_task_state=False)
            assert TICK in task.error()
        assert emulator.counts()["start"] == 1
