"""One instance for each task and each launch of a batch, on servers with odd keys, lists, clocks and refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors, states
from airflow_provider_astrobpm.client.tokens import TOKENS
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
)
from tests.support.stores import (
    HAS_TASK_STATE_STORE,
    WITH_AND_WITHOUT_STORE,
    TaskStateStore,
    needs_task_state_store,
)
from tests.support.task_instance import FakeTaskInstance

BPM = "SupplierOnboarding"
FAILURES = (errors.AmbiguousStartError, errors.CallError)


class Task(FakeTaskInstance):
    """A task that starts one instance, alone or as a batch of one, through all its tries."""

    dag_id, run_id = "a_dag_with_a_long_name", "scheduled__2026-11-24"

    def __init__(self, subject: str, *, has_store: bool, retries: int = 3) -> None:
        store = TaskStateStore() if has_store else None
        super().__init__("start", try_number=0, retries=retries, store=store)
        self.subject = subject

    def try_it(self) -> str | None:
        """Run the next try, and return the id of its instance; ``None`` if the start failed."""
        self.begin_try()
        arguments: dict[str, Any] = {
            "task_id": "start",
            "retries": self.retries,
            "wait_for_completion": False,
            "bpm_name": BPM,
        }
        try:
            if self.subject == "one":
                started = AstroZeroStartBpmInstanceOperator(**arguments).execute(self.context)
                return str(started["id"])
            batch = AstroZeroStartBpmBatchOperator(launches=[{}], **arguments)
            batch.execute(self.context)
        except (*FAILURES, errors.BatchFailedError):
            return None
        return "started"


@pytest.fixture(autouse=True)
def short_grace(
    emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    del emulator
    extra = {"start_grace": 0.1, "max_attempts": 2, "max_wait": 0.01}
    connection = {**json.loads(emulator_server.connection_json()), "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))


@pytest.fixture(params=["one", "batch"])
def subject(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=WITH_AND_WITHOUT_STORE)
def task(request: pytest.FixtureRequest, subject: str) -> Task:
    return Task(subject, has_store=request.param)


def live(emulator: EmulatorControl, task: Task) -> list[dict[str, Any]]:
    """Return the open instances that the task has started. The emulator keeps the keys as they were sent."""
    own = [one for one in emulator.instances() if task.dag_id in one["business_key"]]
    return [one for one in own if not states.is_terminal(one["state"])]


@pytest.mark.parametrize("status", [400, 404, 409, 499, 429])
def test_start_that_was_refused_after_its_effect_is_not_repeated(
    status: int, task: Task, emulator: EmulatorControl
) -> None:
    # Within a try a throttled start counts as not done, so here only the last attempt has an effect.
    skipped = 1 if status == 429 else 0
    if skipped:
        emulator.fault("start", "status", status=status)
    emulator.fault("start", "status", status=status, work_done=True)
    assert task.try_it() is None or task.subject == "batch"
    assert len(live(emulator, task)) == 1
    assert task.try_it() is not None
    assert len(live(emulator, task)) == 1


@pytest.mark.parametrize("fault", ["drop_after", "html"])
@pytest.mark.parametrize("form", ["cut_50", "cut_20", "upper", "padded", "prefixed"])
def test_keys_that_the_server_changes(form: str, fault: str, task: Task, emulator: EmulatorControl) -> None:
    emulator.switch(key_form=form)
    emulator.fault("start", fault, **({"status": 502, "work_done": True} if fault == "html" else {}))
    outcomes = [task.try_it() for _ in range(3)]
    assert len(live(emulator, task)) == 1
    if form == "padded":
        assert outcomes[0] is not None, "blanks around a key are ignored"


@pytest.mark.parametrize(
    "odd",
    [
        *(
            {"start_time_form": form}
            for form in ("zero", "epoch", "dash", "slashes", "millis", "leading_blank")
        ),
        *({"clock_skew": hours} for hours in (-100.0, -15.0, 15.0, 100.0)),
        *({"utc_offset": hours} for hours in (-12.0, 14.0)),
    ],
    ids=str,
)
def test_odd_clocks_and_timestamps(odd: dict[str, Any], task: Task, emulator: EmulatorControl) -> None:
    emulator.switch(**odd)
    emulator.fault("start", "drop_after")
    for _ in range(3):
        task.try_it()
    assert len(live(emulator, task)) == 1


@pytest.mark.parametrize("cap", [3, 37])
@pytest.mark.parametrize("ordered", [True, False])
def test_truncated_lists(cap: int, ordered: bool, task: Task, emulator: EmulatorControl) -> None:
    hook = AstroZeroHook()
    for number in range(cap + 5):
        hook.start_instance(BPM, business_key=f"another {number}")
    emulator.switch(row_cap=cap, order_honoured=ordered, row_order="newest" if ordered else "oldest")
    emulator.fault("start", "drop_after")
    for _ in range(2):
        task.try_it()
    assert len(live(emulator, task)) == 1


@needs_task_state_store
def test_retry_after_a_try_that_sent_nothing_starts_without_a_search(
    subject: str, emulator: EmulatorControl
) -> None:
    """Even if the lists could prove nothing."""
    emulator.switch(business_keys_in_rows=False)
    emulator.start(BPM)
    task = Task(subject, has_store=True)
    emulator.fault("token", "status", status=503, times=10)
    TOKENS.clear()
    assert task.try_it() is None
    emulator.clear_faults()
    emulator.reset_counts()
    assert task.try_it() is not None
    assert emulator.counts()["query"] == 0
    assert len(live(emulator, task)) == 1


@needs_task_state_store
def test_store_that_lost_its_record_proves_nothing(subject: str, emulator: EmulatorControl) -> None:
    task = Task(subject, has_store=True)
    assert task.try_it() is not None
    task.context["task_state_store"].clear()
    assert task.try_it() is not None
    assert len(live(emulator, task)) == 1
    task.context["task_state_store"].clear()
    emulator.switch(business_keys_in_rows=False)
    assert task.try_it() is None, "an operator is asked if no list shows it"
    assert len(live(emulator, task)) == 1


@pytest.mark.parametrize("retries", [1, 5, 0])
def test_change_of_retries_during_a_run_terminates_no_instance(
    retries: int, task: Task, emulator: EmulatorControl
) -> None:
    assert task.try_it() is not None
    (before,) = live(emulator, task)
    task.retries = retries
    # Without a store, a later retry may appear to be the first try after a clear.
    for _ in range(2 if "task_state_store" in task.context else 1):
        assert task.try_it() is not None
        assert [one["id"] for one in live(emulator, task)] == [before["id"]]


@needs_task_state_store
def test_clear_after_a_change_of_retries_is_recognized(subject: str, emulator: EmulatorControl) -> None:
    task = Task(subject, has_store=True)
    assert task.try_it() is not None
    (before,) = live(emulator, task)
    task.retries = 5
    task.clear()
    assert task.try_it() is not None
    (after,) = live(emulator, task)
    assert after["id"] != before["id"]


def test_changed_key_is_logged(
    emulator: EmulatorControl, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.switch(key_form="upper")
    assert Task("one", has_store=HAS_TASK_STATE_STORE).try_it() is not None
    assert "came back as" in capsys.readouterr().out + caplog.text
