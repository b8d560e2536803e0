"""Several tries of one start operator against the emulator: one instance, whatever happens between the tries."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator
from airflow_provider_astrobpm.starting.business_keys import TaskIdentity
from tests.support.stores import (
    HAS_TASK_STATE_STORE,
    WITH_AND_WITHOUT_STORE,
    TaskStateStore,
    needs_task_state_store,
)
from tests.support.task_instance import FakeTaskInstance

RETRIES = 5
KEYS = TaskIdentity("dag", "run", "start")
BPM = "SupplierOnboarding"


class Died(BaseException):
    """The worker was killed."""


class Task(FakeTaskInstance):
    """One task of a run, through all its tries."""

    def __init__(self, *, has_store: bool, **arguments: Any) -> None:
        store = TaskStateStore() if has_store else None
        super().__init__("start", try_number=0, retries=RETRIES, store=store)
        self.arguments = {"bpm_name": BPM, **arguments}
        self.dies_at: str | None = None

    def xcom_push(self, key: str, value: Any) -> None:
        super().xcom_push(key, value)
        if key == self.dies_at:
            self.dies_at = None
            raise Died

    def try_it(self, **arguments: Any) -> dict[str, Any]:
        """Run the next try, with a short timeout if it waits."""
        self.begin_try()
        given = {**self.arguments, **arguments}
        if given.get("wait_for_completion", True):
            given = {"timeout": 0.001, **given}
        operator = AstroZeroStartBpmInstanceOperator(
            task_id="start", retries=RETRIES, poll_interval=1, **given
        )
        return operator.execute(self.context)


@pytest.fixture(autouse=True)
def short_grace(
    emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"start_grace": 0.2, "instance_url": "https://{host}/x/{instance_id}"}
    connection = {**json.loads(emulator_server.connection_json()), "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))


@pytest.fixture(params=WITH_AND_WITHOUT_STORE)
def task(request: pytest.FixtureRequest) -> Callable[..., Task]:
    return lambda **arguments: Task(has_store=request.param, **arguments)


def only(emulator: EmulatorControl) -> dict[str, Any]:
    (instance,) = emulator.instances()
    return instance


def test_first_try_sends_one_post_and_publishes_the_instance(task: Any, emulator: EmulatorControl) -> None:
    one = task(wait_for_completion=False)
    result = one.try_it()
    counts = emulator.counts()
    assert (counts["start"], counts["query"], counts["get"]) == (1, 0, 0)
    assert one.xcoms == {
        "instance_id": result["id"],
        "business_key": KEYS.key(1),
        "instance_url": result["url"],
    }
    assert only(emulator)["business_key"] == KEYS.key(1)


def test_failed_wait_publishes_that_it_is_over(task: Any, emulator: EmulatorControl) -> None:
    one = task()
    with pytest.raises(errors.WaitTimeoutError):
        one.try_it()
    assert one.xcoms["wait_over"] == only(emulator)["id"]


@pytest.mark.parametrize("dies_at", ["instance_id", "business_key", "instance_url"])
def test_retry_adopts_the_instance_of_a_dead_worker(
    task: Any, dies_at: str, emulator: EmulatorControl
) -> None:
    one = task()
    one.dies_at = dies_at
    with pytest.raises(Died):
        one.try_it()
    with pytest.raises(errors.WaitTimeoutError, match="A retry keeps waiting"):
        one.try_it()
    instance_id = only(emulator)["id"]
    emulator.act(instance_id, "complete")
    emulator.advance(2)
    result = one.try_it()
    assert (result["id"], result["state"]) == (instance_id, "Completed OK")
    assert emulator.counts()["start"] == 1


@pytest.mark.parametrize("fault", ["drop_after", "not_json", "truncate"])
def test_lost_start_response_is_recovered_in_the_same_try(
    task: Any, fault: str, emulator: EmulatorControl
) -> None:
    emulator.fault("start", fault, **({"work_done": True} if fault == "not_json" else {}))
    result = task(wait_for_completion=False).try_it()
    assert result["id"] == only(emulator)["id"]


def test_retry_resolves_a_start_in_doubt_that_had_no_effect(task: Any, emulator: EmulatorControl) -> None:
    one = task(wait_for_completion=False)
    emulator.fault("start", "drop_before")
    with pytest.raises(errors.AmbiguousStartError, match=f"no instance shows.*{KEYS.key(1)}"):
        one.try_it()
    assert emulator.instances() == []
    assert one.try_it()["business_key"] == KEYS.key(1)
    assert one.try_it()["id"] == only(emulator)["id"]


def test_start_in_doubt_is_not_repeated_if_lists_show_no_keys(task: Any, emulator: EmulatorControl) -> None:
    one = task(wait_for_completion=False)
    emulator.switch(business_keys_in_rows=False)
    emulator.fault("start", "drop_after")
    for _ in range(2):
        with pytest.raises(errors.AmbiguousStartError, match="the lists show no business keys here"):
            one.try_it()
    one.clear()
    if "task_state_store" in one.context:
        one.try_it()
        assert len(emulator.instances()) == 2
    else:
        with pytest.raises(errors.AmbiguousStartError):
            one.try_it()
        only(emulator)


def test_start_in_doubt_is_not_repeated_if_the_search_is_refused(
    task: Any, emulator: EmulatorControl
) -> None:
    one = task(wait_for_completion=False)
    emulator.fault("start", "drop_after")
    emulator.fault("query", "status", status=403, times=100)
    for _ in range(2):
        with pytest.raises(errors.AmbiguousStartError):
            one.try_it()
    emulator.clear_faults()
    assert one.try_it()["id"] == only(emulator)["id"]


def test_retry_after_a_failed_instance_uses_a_new_key(task: Any, emulator: EmulatorControl) -> None:
    emulator.switch(duplicate_business_key="refuse")
    one = task()
    with pytest.raises(errors.WaitTimeoutError):
        one.try_it()
    emulator.break_instance(only(emulator)["id"])
    result = one.try_it(wait_for_completion=True, timeout=None, states=["Waiting for user interaction"])
    assert result["business_key"] == KEYS.key(1, 2)


def test_clear_of_a_waiting_task_terminates_the_old_instance_first(
    task: Any, emulator: EmulatorControl
) -> None:
    one = task(timeout=None)
    one.dies_at = "instance_url"
    with pytest.raises(Died):
        one.try_it()
    old = only(emulator)["id"]
    one.clear()
    result = one.try_it(wait_for_completion=False)
    assert (emulator.instance(old)["state"], result["business_key"]) == ("Terminated", KEYS.key(2))
    assert [each["id"] for each in emulator.instances() if not each["closed"]] == [result["id"]]


@needs_task_state_store
def test_clear_resumes_the_instance_that_a_failed_wait_left_open(emulator: EmulatorControl) -> None:
    one = Task(has_store=True)
    with pytest.raises(errors.WaitTimeoutError, match="keeps waiting for it, and so does clearing this task"):
        one.try_it()
    one.clear()
    assert one.try_it(wait_for_completion=False)["id"] == only(emulator)["id"]


def test_clear_adopts_the_open_instance_without_terminate_on_kill(
    task: Any, emulator: EmulatorControl
) -> None:
    one = task(terminate_on_kill=False)
    with pytest.raises(errors.WaitTimeoutError):
        one.try_it()
    one.clear()
    assert one.try_it(wait_for_completion=False)["id"] == only(emulator)["id"]


def test_clear_after_a_failed_instance_starts_a_new_one(task: Any, emulator: EmulatorControl) -> None:
    one = task(timeout=30, failed_bp_statuses=["Collecting"])
    with pytest.raises(errors.WaitFailedError, match="clearing this task terminates it and starts a new one"):
        one.try_it()
    one.clear()
    with pytest.raises(errors.WaitFailedError):
        one.try_it()
    assert sorted(each["closed"] for each in emulator.instances()) == [False, True]


@needs_task_state_store
def test_retry_after_a_crash_keeps_the_deadline(emulator: EmulatorControl) -> None:
    one = Task(has_store=True, timeout=3600)
    one.dies_at = "instance_id"
    with pytest.raises(Died):
        one.try_it()
    before = dict(one.context["task_state_store"])
    one.dies_at = "instance_id"
    with pytest.raises(Died):
        one.try_it()
    assert before["astro_zero_launch"]["deadline"] > 0
    assert one.context["task_state_store"] == before


@needs_task_state_store
@pytest.mark.parametrize("timeout", [None, 7200])
def test_retry_after_a_crash_keeps_the_deadline_of_execution_timeout(
    timeout: float | None, emulator: EmulatorControl
) -> None:
    one = Task(has_store=True, timeout=timeout, execution_timeout=timedelta(hours=1), deferrable=True)
    one.dies_at = "instance_id"
    with pytest.raises(Died):
        one.try_it()
    deadline = one.context["task_state_store"]["astro_zero_launch"]["deadline"]
    assert deadline - time.time() == pytest.approx(3600 - 5, abs=5)
    with pytest.raises(TaskDeferred) as deferred:
        one.try_it()
    assert deferred.value.trigger.deadline == deadline
    assert deferred.value.trigger.deadline_argument == "execution_timeout"
    assert one.context["task_state_store"]["astro_zero_launch"]["deadline"] == deadline


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"timeout": None}, 1),
        ({"timeout": 0.2}, 0),
        ({"timeout": None, "execution_timeout": timedelta(seconds=0.2)}, 0),
        ({"timeout": None, "wait_for_completion": False}, 0),
        ({"timeout": None, "bpm_name": "Instant"}, 0),
    ],
)
def test_warns_once_if_the_wait_has_no_limit(
    deferrable: bool,
    limits: dict[str, Any],
    says: int,
    emulator: EmulatorControl,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    one = Task(has_store=False, deferrable=deferrable, **limits)
    push = one.xcom_push

    def completed(key: str, value: Any) -> None:
        push(key, value)
        if key == "instance_id" and says:
            emulator.act(value, "complete")
            emulator.advance(2)

    one.xcom_push = completed  # type: ignore[method-assign]
    with suppress(TaskDeferred, errors.WaitTimeoutError):
        one.try_it()
    assert (capsys.readouterr().out + caplog.text).count("so this task may wait forever") == says


@needs_task_state_store
def test_second_clear_replaces_a_left_open_instance_that_is_not_found(
    emulator: EmulatorControl,
) -> None:
    one = Task(has_store=True)
    with pytest.raises(errors.WaitTimeoutError):
        one.try_it()
    emulator.vanish(only(emulator)["id"])
    one.clear()
    for _ in range(2):
        with pytest.raises(errors.AmbiguousStartError, match="which is now in none of the states"):
            one.try_it()
    assert emulator.counts()["start"] == 1
    one.clear()
    assert one.try_it(wait_for_completion=False)["id"]
    assert emulator.counts()["start"] == 2


@needs_task_state_store
def test_clear_resolves_a_retry_in_doubt_without_a_record(
    emulator: EmulatorControl,
) -> None:
    """Its first try died before it recorded anything."""
    one = Task(has_store=True, wait_for_completion=False)
    one.try_number = 1
    emulator.start("SupplierOnboarding")
    emulator.switch(business_keys_in_rows=False)
    for _ in range(2):
        with pytest.raises(errors.AmbiguousStartError, match="the lists show no business keys here"):
            one.try_it()
    one.clear()
    one.try_it()
    assert emulator.counts()["start"] == 1


def test_end_that_a_kill_may_have_caused_is_not_success(task: Any, emulator: EmulatorControl) -> None:
    one = task(states=["Terminated"], timeout=30)
    one.dies_at = "instance_id"
    with pytest.raises(Died):
        one.try_it()
    emulator.move(only(emulator)["id"], state="Terminated")
    with pytest.raises(errors.WaitTimeoutError):
        one.try_it(timeout=0.001)
    assert [each["closed"] for each in emulator.instances()] == [True, False]


@needs_task_state_store
def test_retry_does_not_replace_a_missing_instance(emulator: EmulatorControl) -> None:
    one = Task(has_store=True, wait_for_completion=False, timeout=None)
    instance_id = one.try_it()["id"]
    emulator.vanish(instance_id)
    with pytest.raises(
        errors.AmbiguousStartError, match=f"'{instance_id}', which is now in none of the states"
    ):
        one.try_it()
    one.clear()
    assert one.try_it()["id"] != instance_id


def test_clear_starts_nothing_until_the_termination_is_visible(task: Any, emulator: EmulatorControl) -> None:
    one = task(wait_for_completion=False)
    first = one.try_it()["id"]
    one.clear()
    emulator.switch(action_lag=30)
    with pytest.raises(errors.EffectNotShownError, match="accepted, but shows no effect after 0.2 s"):
        one.try_it()
    assert only(emulator)["id"] == first
    emulator.advance(30)
    assert one.try_it()["id"] != first
    assert [each["closed"] for each in emulator.instances()] == [True, False]


class TestIdOfAnotherInstance:
    OTHER: ClassVar[dict[str, str]] = {"businessKey": "another author's key"}

    @needs_task_state_store
    def test_retry_does_not_adopt_it(self, emulator: EmulatorControl) -> None:
        one = Task(has_store=True, wait_for_completion=False, timeout=None)
        instance_id = one.try_it()["id"]
        emulator.distort(instance_id, self.OTHER)
        emulator.reset_counts()
        with pytest.raises(errors.AmbiguousStartError, match="its id now shows a different one: instance"):
            one.try_it()
        assert (emulator.counts()["start"], emulator.counts()["action"]) == (0, 0)

    @needs_task_state_store
    @pytest.mark.parametrize(
        "other", [OTHER, {"businessKey": "another author's key", "name": "Another"}], ids=str
    )
    def test_clear_does_not_terminate_it(self, other: dict[str, str], emulator: EmulatorControl) -> None:
        one = Task(has_store=True, wait_for_completion=False, timeout=None)
        instance_id = one.try_it()["id"]
        emulator.distort(instance_id, other)
        one.clear()
        assert one.try_it()["id"] != instance_id
        assert not emulator.instance(instance_id)["closed"]
        assert emulator.counts()["action"] == 0

    def test_fails_the_wait_with_advice_for_retry_and_clear(self, emulator: EmulatorControl) -> None:
        emulator.fault("query", "other_fields", fields=self.OTHER, times=1000)
        one = Task(has_store=False, timeout=None)
        with pytest.raises(
            errors.AnotherInstanceError,
            match="may still be open. A retry does not resume the instance that has its id now; clearing this task starts a new one",
        ):
            one.try_it()


class TestGivenBusinessKey:
    @pytest.fixture
    def others(self, emulator: EmulatorControl) -> str:
        instance_id: str = emulator.start(BPM, business_key="k")["id"]
        return instance_id

    @pytest.mark.parametrize("mode", ["start", "adopt", "fail"])
    def test_open_instance_is_handled_by_if_open_instance_exists(
        self, mode: Any, task: Any, others: str, emulator: EmulatorControl
    ) -> None:
        one = task(business_key="k", if_open_instance_exists=mode, wait_for_completion=False)
        if mode == "fail":
            for _ in range(2):
                with pytest.raises(
                    errors.OpenInstanceExistsError,
                    match=f"an open instance already has business key .*: instance '{others}'",
                ):
                    one.try_it()
        else:
            assert (one.try_it()["id"] == others) is (mode == "adopt")
        assert len(emulator.instances()) == (2 if mode == "start" else 1)

    def test_retry_does_not_adopt_a_preexisting_instance(
        self, task: Any, others: str, emulator: EmulatorControl
    ) -> None:
        one = task(business_key="k", wait_for_completion=False)
        emulator.fault("start", "drop_after")
        for _ in range(2):
            with pytest.raises(
                errors.AmbiguousStartError, match="show its business key|others may use their key"
            ):
                one.try_it()
        assert len(emulator.instances()) == 2

    @pytest.mark.parametrize("mode", ["adopt", "fail"])
    def test_start_in_doubt_is_recognized_among_preexisting_instances(
        self, mode: Any, task: Any, others: str, emulator: EmulatorControl
    ) -> None:
        emulator.act(others, "complete")
        emulator.advance(2)
        emulator.fault("start", "drop_after")
        one = task(business_key="k", if_open_instance_exists=mode, wait_for_completion=False)
        assert one.try_it()["id"] != others
        assert len(emulator.instances()) == 2

    def test_if_open_instance_exists_needs_a_business_key(self) -> None:
        with pytest.raises(ValueError, match="if_open_instance_exists has no effect without a business_key"):
            AstroZeroStartBpmInstanceOperator(task_id="t", bpm_name=BPM, if_open_instance_exists="adopt")
        with pytest.raises(ValueError, match="if_open_instance_exists must be one of"):
            AstroZeroStartBpmInstanceOperator(
                task_id="t",
                bpm_name=BPM,
                business_key="k",
                if_open_instance_exists="maybe",  # type: ignore[arg-type]
            )


class TestOddResponses:
    """Odd fields that decide nothing are ignored. Odd fields that decide cause doubt only if the row may be its own instance."""

    @pytest.mark.parametrize(
        "fields",
        [
            {"interviewLabel": 7, "version": 2, "businessKey": None},
            {"suspended": "false", "isClosed": "no"},
            {"state": None},
            {"name": None},
            {"nextElem": {}, "taskOutcome": 1.5, "bpStatus": []},
        ],
    )
    def test_response_with_an_id_counts_as_started(
        self, fields: dict[str, Any], emulator: EmulatorControl
    ) -> None:
        emulator.fault("start", "other_fields", fields=fields)
        task = Task(has_store=HAS_TASK_STATE_STORE, bpm_name="NightlyReconciliation", timeout=60)
        result = task.try_it()
        (instance,) = emulator.instances()
        assert (result["id"], result["state"]) == (instance["id"], "Completed OK")
        assert emulator.counts()["start"] == 1

    @pytest.mark.parametrize(
        "fields",
        [{"name": None}, {"state": None}, {"title": "half \ud83d", "version": 7}, {"suspended": "perhaps"}],
    )
    def test_unreadable_row_of_another_instance_leaves_no_doubt(
        self, fields: dict[str, Any], emulator: EmulatorControl
    ) -> None:
        foreign = emulator.start(BPM, business_key="another author's key")["id"]
        emulator.distort(foreign, fields)
        emulator.fault("start", "drop_after")
        task = Task(has_store=HAS_TASK_STATE_STORE)
        with pytest.raises(errors.WaitTimeoutError):
            task.try_it()
        (own,) = (each for each in emulator.instances() if each["id"] != foreign)
        assert task.xcoms["instance_id"] == own["id"]
        assert emulator.counts()["start"] == 1

    def test_unreadable_row_that_may_be_its_own_leaves_doubt(self, emulator: EmulatorControl) -> None:
        emulator.fault("start", "drop_before")
        odd = emulator.start(BPM)["id"]
        emulator.distort(odd, {"businessKey": {}})
        task = Task(has_store=HAS_TASK_STATE_STORE)
        with pytest.raises(
            errors.AmbiguousStartError,
            match="because its businessKey is {}, and it may belong to this instance",
        ):
            task.try_it()
        with pytest.raises(errors.AmbiguousStartError):
            task.try_it()
        assert [each["id"] for each in emulator.instances()] == [odd]

    @pytest.mark.parametrize("position", ["null", "absent", "object", "text"])
    def test_accepts_every_form_of_an_empty_list(self, position: str, emulator: EmulatorControl) -> None:
        emulator.switch(empty_list=position)
        emulator.fault("start", "drop_after")
        with pytest.raises(errors.WaitTimeoutError):
            Task(has_store=HAS_TASK_STATE_STORE).try_it()
        assert len(emulator.instances()) == emulator.counts()["start"] == 1
