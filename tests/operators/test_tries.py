"""Several tries of one start operator against the emulator: one instance, whatever happens between them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.sdk.execution_time import context

from airflow_provider_astrobpm.bpm import errors
from airflow_provider_astrobpm.bpm.identity import TaskIdentity
from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from airflow_provider_astrobpm.emulator.running import EmulatorServer
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator

HAS_STORE = hasattr(context, "NEVER_EXPIRE")  # from Airflow 3.3 on
needs_a_store = pytest.mark.skipif(not HAS_STORE, reason="there is nothing to remember in before Airflow 3.3")
RETRIES = 5
KEYS = TaskIdentity("dag", "run", "start")
BPM = "SupplierOnboarding"


class Died(BaseException):
    """The worker was killed."""


class Store(dict[str, Any]):
    """A task state store; values take the way through JSON."""

    def set(self, key: str, value: Any, *, retention: Any) -> None:
        assert retention.days > 1e6, "a wait may take longer"
        self[key] = json.loads(json.dumps(value))


class Task:
    """One task of a run, through all its tries.

    :param remembers: whether Airflow has a task state store.
    """

    dag_id, run_id, task_id, map_index = "dag", "run", "start", -1

    def __init__(self, *, remembers: bool, **arguments: Any) -> None:
        self.arguments = {"bpm_name": BPM, **arguments}
        self.try_number, self.max_tries = 0, RETRIES
        self.context: dict[str, Any] = {"ti": self}
        if remembers:
            self.context["task_state_store"] = Store()
        self.xcoms: dict[str, Any] = {}
        self.dies_at: str | None = None

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value
        if key == self.dies_at:
            self.dies_at = None
            raise Died

    def xcom_pull(self, *, key: str, **_: Any) -> Any:
        return self.xcoms.get(key)

    def try_it(self, **arguments: Any) -> dict[str, Any]:
        """Run the next try; it does not wait long for an instance that is open."""
        self.try_number += 1
        self.xcoms = {}
        given = {**self.arguments, **arguments}
        if given.get("wait_for_completion", True):
            given = {"timeout": 0.001, **given}
        operator = AstroZeroStartBpmInstanceOperator(
            task_id="start", retries=RETRIES, poll_interval=1, **given
        )
        return operator.execute(self.context)  # type: ignore[arg-type]

    def clear(self) -> None:
        self.max_tries = self.try_number + RETRIES


@pytest.fixture(autouse=True)
def short_grace(
    emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"start_grace": 0.2, "instance_url": "https://{host}/x/{instance_id}"}
    connection = {**json.loads(emulator_server.connection_json()), "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))


@pytest.fixture(
    params=[True, False] if HAS_STORE else [False], ids=lambda has: "a store" if has else "no store"
)
def task(request: pytest.FixtureRequest) -> Callable[..., Task]:
    return lambda **arguments: Task(remembers=request.param, **arguments)


def only(emulator: EmulatorControl) -> dict[str, Any]:
    (instance,) = emulator.instances()
    return instance


def test_the_first_try_costs_one_post_and_shows_what_it_started(task: Any, emulator: EmulatorControl) -> None:
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


def test_a_failed_wait_says_that_it_is_over(task: Any, emulator: EmulatorControl) -> None:
    one = task()
    with pytest.raises(errors.WaitTimeoutError):
        one.try_it()
    assert one.xcoms["wait_over"] == only(emulator)["id"]


@pytest.mark.parametrize("dies_at", ["instance_id", "business_key", "instance_url"])
def test_a_retry_goes_on_with_what_a_dead_worker_started(
    task: Any, dies_at: str, emulator: EmulatorControl
) -> None:
    one = task()
    one.dies_at = dies_at
    with pytest.raises(Died):
        one.try_it()
    with pytest.raises(errors.WaitTimeoutError, match="A retry goes on"):
        one.try_it()
    instance_id = only(emulator)["id"]
    emulator.act(instance_id, "complete")
    emulator.advance(2)
    result = one.try_it()
    assert (result["id"], result["state"]) == (instance_id, "Completed OK")
    assert emulator.counts()["start"] == 1


@pytest.mark.parametrize("fault", ["drop_after", "not_json", "truncate"])
def test_an_answer_that_was_lost_is_found_in_the_same_try(
    task: Any, fault: str, emulator: EmulatorControl
) -> None:
    emulator.fault("start", fault, **({"work_done": True} if fault == "not_json" else {}))
    result = task(wait_for_completion=False).try_it()
    assert result["id"] == only(emulator)["id"]


def test_a_start_that_came_to_nothing_is_in_doubt_and_the_retry_resolves_it(
    task: Any, emulator: EmulatorControl
) -> None:
    one = task(wait_for_completion=False)
    emulator.fault("start", "drop_before")
    with pytest.raises(errors.AmbiguousStartError, match=f"no instance shows.*{KEYS.key(1)}"):
        one.try_it()
    assert emulator.instances() == []
    assert one.try_it()["business_key"] == KEYS.key(1)
    assert one.try_it()["id"] == only(emulator)["id"]


def test_where_keys_do_not_show_it_is_not_started_again_by_itself(
    task: Any, emulator: EmulatorControl
) -> None:
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


def test_where_the_look_up_is_refused_it_is_not_started_again(task: Any, emulator: EmulatorControl) -> None:
    one = task(wait_for_completion=False)
    emulator.fault("start", "drop_after")
    emulator.fault("query", "status", status=403, times=100)
    for _ in range(2):
        with pytest.raises(errors.AmbiguousStartError):
            one.try_it()
    emulator.clear_faults()
    assert one.try_it()["id"] == only(emulator)["id"]


def test_a_bad_end_is_started_again_under_another_key(task: Any, emulator: EmulatorControl) -> None:
    emulator.switch(duplicate_business_key="refuse")
    one = task()
    with pytest.raises(errors.WaitTimeoutError):
        one.try_it()
    emulator.break_instance(only(emulator)["id"])
    result = one.try_it(wait_for_completion=True, timeout=None, states=["Waiting for user interaction"])
    assert result["business_key"] == KEYS.key(1, 2)


def test_a_clear_while_waiting_terminates_the_old_one_first(task: Any, emulator: EmulatorControl) -> None:
    one = task(timeout=None)
    one.dies_at = "instance_url"
    with pytest.raises(Died):
        one.try_it()
    old = only(emulator)["id"]
    one.clear()
    result = one.try_it(wait_for_completion=False)
    assert (emulator.instance(old)["state"], result["business_key"]) == ("Terminated", KEYS.key(2))
    assert [each["id"] for each in emulator.instances() if not each["closed"]] == [result["id"]]


@needs_a_store
def test_a_clear_goes_on_with_what_a_failed_wait_left_open(emulator: EmulatorControl) -> None:
    one = Task(remembers=True)
    with pytest.raises(
        errors.WaitTimeoutError, match="goes on waiting for it, and so does clearing this task"
    ):
        one.try_it()
    one.clear()
    assert one.try_it(wait_for_completion=False)["id"] == only(emulator)["id"]


def test_a_clear_goes_on_with_what_no_kill_touches(task: Any, emulator: EmulatorControl) -> None:
    one = task(terminate_on_kill=False)
    with pytest.raises(errors.WaitTimeoutError):
        one.try_it()
    one.clear()
    assert one.try_it(wait_for_completion=False)["id"] == only(emulator)["id"]


def test_a_failure_over_the_instance_itself_starts_anew_after_a_clear(
    task: Any, emulator: EmulatorControl
) -> None:
    one = task(timeout=30, failed_bp_statuses=["Collecting"])
    with pytest.raises(errors.WaitFailedError, match="clearing this task terminates it and starts a new one"):
        one.try_it()
    one.clear()
    with pytest.raises(errors.WaitFailedError):
        one.try_it()
    assert sorted(each["closed"] for each in emulator.instances()) == [False, True]


@needs_a_store
def test_a_retry_after_a_crash_keeps_the_deadline(emulator: EmulatorControl) -> None:
    one = Task(remembers=True, timeout=3600)
    one.dies_at = "instance_id"
    with pytest.raises(Died):
        one.try_it()
    before = dict(one.context["task_state_store"])
    one.dies_at = "instance_id"
    with pytest.raises(Died):
        one.try_it()
    assert before["astro_zero_launch"]["deadline"] > 0
    assert one.context["task_state_store"] == before


@needs_a_store
@pytest.mark.parametrize("timeout", [None, 7200])
def test_a_retry_after_a_crash_keeps_the_deadline_of_execution_timeout(
    timeout: float | None, emulator: EmulatorControl
) -> None:
    one = Task(remembers=True, timeout=timeout, execution_timeout=timedelta(hours=1), deferrable=True)
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
def test_a_wait_without_an_end_says_so_once(
    deferrable: bool,
    limits: dict[str, Any],
    says: int,
    emulator: EmulatorControl,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    one = Task(remembers=False, deferrable=deferrable, **limits)
    push = one.xcom_push

    def completed(key: str, value: Any) -> None:
        push(key, value)
        if key == "instance_id" and says:
            emulator.act(value, "complete")
            emulator.advance(2)

    one.xcom_push = completed  # type: ignore[method-assign]
    with suppress(TaskDeferred, errors.WaitTimeoutError):
        one.try_it()
    assert (capsys.readouterr().out + caplog.text).count("so this task waits for ever") == says


@needs_a_store
def test_what_a_failed_wait_left_open_and_nothing_shows_is_replaced_only_when_a_person_insists(
    emulator: EmulatorControl,
) -> None:
    one = Task(remembers=True)
    with pytest.raises(errors.WaitTimeoutError):
        one.try_it()
    emulator.vanish(only(emulator)["id"])
    one.clear()
    for _ in range(2):
        with pytest.raises(errors.AmbiguousStartError, match="which is in none of the states"):
            one.try_it()
    assert emulator.counts()["start"] == 1
    one.clear()
    assert one.try_it(wait_for_completion=False)["id"]
    assert emulator.counts()["start"] == 2


@needs_a_store
def test_a_retry_that_cannot_tell_though_nothing_was_written_down_is_answered_by_a_clear(
    emulator: EmulatorControl,
) -> None:
    """Its first try has died before it wrote anything."""
    one = Task(remembers=True, wait_for_completion=False)
    one.try_number = 1
    emulator.start("SupplierOnboarding")
    emulator.switch(business_keys_in_rows=False)
    for _ in range(2):
        with pytest.raises(errors.AmbiguousStartError, match="the lists show no business keys here"):
            one.try_it()
    one.clear()
    one.try_it()
    assert emulator.counts()["start"] == 1


def test_an_end_that_a_kill_may_have_brought_about_is_no_success(
    task: Any, emulator: EmulatorControl
) -> None:
    one = task(states=["Terminated"], timeout=30)
    one.dies_at = "instance_id"
    with pytest.raises(Died):
        one.try_it()
    emulator.move(only(emulator)["id"], state="Terminated")
    with pytest.raises(errors.WaitTimeoutError):
        one.try_it(timeout=0.001)
    assert [each["closed"] for each in emulator.instances()] == [True, False]


@needs_a_store
def test_an_instance_that_is_gone_is_not_replaced_by_a_retry(emulator: EmulatorControl) -> None:
    one = Task(remembers=True, wait_for_completion=False, timeout=None)
    instance_id = one.try_it()["id"]
    emulator.vanish(instance_id)
    with pytest.raises(errors.AmbiguousStartError, match=f"'{instance_id}', which is in none of the states"):
        one.try_it()
    one.clear()
    assert one.try_it()["id"] != instance_id


def test_a_clear_starts_nothing_beside_what_was_told_to_end_and_does_not_show_it(
    task: Any, emulator: EmulatorControl
) -> None:
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


class TestAnIdThatShowsAnotherInstance:
    OTHER: ClassVar[dict[str, str]] = {"businessKey": "somebody else's"}

    @needs_a_store
    def test_is_not_gone_on_with_by_a_retry(self, emulator: EmulatorControl) -> None:
        one = Task(remembers=True, wait_for_completion=False, timeout=None)
        instance_id = one.try_it()["id"]
        emulator.distort(instance_id, self.OTHER)
        emulator.reset_counts()
        with pytest.raises(errors.AmbiguousStartError, match="its id shows another one now: instance"):
            one.try_it()
        assert (emulator.counts()["start"], emulator.counts()["action"]) == (0, 0)

    @needs_a_store
    @pytest.mark.parametrize("other", [OTHER, {"businessKey": "somebody else's", "name": "Another"}], ids=str)
    def test_is_not_terminated_by_a_clear(self, other: dict[str, str], emulator: EmulatorControl) -> None:
        one = Task(remembers=True, wait_for_completion=False, timeout=None)
        instance_id = one.try_it()["id"]
        emulator.distort(instance_id, other)
        one.clear()
        assert one.try_it()["id"] != instance_id
        assert not emulator.instance(instance_id)["closed"]
        assert emulator.counts()["action"] == 0

    def test_ends_the_wait_and_says_what_a_retry_and_a_clear_do(self, emulator: EmulatorControl) -> None:
        emulator.fault("query", "other_fields", fields=self.OTHER, times=1000)
        one = Task(remembers=False, timeout=None)
        with pytest.raises(
            errors.AnotherInstanceError,
            match="may still be open. A retry does not go on with what has its id now; clearing this task starts a new one",
        ):
            one.try_it()


class TestTheAuthorsKey:
    @pytest.fixture
    def others(self, emulator: EmulatorControl) -> str:
        instance_id: str = emulator.start(BPM, business_key="k")["id"]
        return instance_id

    @pytest.mark.parametrize("mode", ["start", "adopt", "fail"])
    def test_decides_what_an_open_instance_means(
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

    def test_never_lets_a_retry_adopt_a_stranger(
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
    def test_of_a_start_in_doubt_tells_what_is_new(
        self, mode: Any, task: Any, others: str, emulator: EmulatorControl
    ) -> None:
        emulator.act(others, "complete")
        emulator.advance(2)
        emulator.fault("start", "drop_after")
        one = task(business_key="k", if_open_instance_exists=mode, wait_for_completion=False)
        assert one.try_it()["id"] != others
        assert len(emulator.instances()) == 2

    def test_is_needed_for_the_choice(self) -> None:
        with pytest.raises(ValueError, match="if_open_instance_exists means nothing without a business_key"):
            AstroZeroStartBpmInstanceOperator(task_id="t", bpm_name=BPM, if_open_instance_exists="adopt")
        with pytest.raises(ValueError, match="if_open_instance_exists must be one of"):
            AstroZeroStartBpmInstanceOperator(
                task_id="t",
                bpm_name=BPM,
                business_key="k",
                if_open_instance_exists="maybe",  # type: ignore[arg-type]
            )


class TestOddAnswers:
    """What decides nothing about an instance is not insisted on; what does is doubted, and only where it may be its own."""

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
    def test_a_start_that_shows_an_id_was_started(
        self, fields: dict[str, Any], emulator: EmulatorControl
    ) -> None:
        emulator.fault("start", "other_fields", fields=fields)
        task = Task(remembers=HAS_STORE, bpm_name="NightlyReconciliation", timeout=60)
        result = task.try_it()
        (instance,) = emulator.instances()
        assert (result["id"], result["state"]) == (instance["id"], "Completed OK")
        assert emulator.counts()["start"] == 1

    @pytest.mark.parametrize(
        "fields",
        [{"name": None}, {"state": None}, {"title": "half \ud83d", "version": 7}, {"suspended": "perhaps"}],
    )
    def test_a_row_of_somebody_else_keeps_nobody_from_being_certain(
        self, fields: dict[str, Any], emulator: EmulatorControl
    ) -> None:
        foreign = emulator.start(BPM, business_key="somebody else's")["id"]
        emulator.distort(foreign, fields)
        emulator.fault("start", "drop_after")
        task = Task(remembers=HAS_STORE)
        with pytest.raises(errors.WaitTimeoutError):
            task.try_it()
        (own,) = (each for each in emulator.instances() if each["id"] != foreign)
        assert task.xcoms["instance_id"] == own["id"]
        assert emulator.counts()["start"] == 1

    def test_a_row_that_may_be_its_own_does(self, emulator: EmulatorControl) -> None:
        emulator.fault("start", "drop_before")
        odd = emulator.start(BPM)["id"]
        emulator.distort(odd, {"businessKey": {}})
        task = Task(remembers=HAS_STORE)
        with pytest.raises(
            errors.AmbiguousStartError,
            match="because its businessKey is {}, and it may belong to this instance",
        ):
            task.try_it()
        with pytest.raises(errors.AmbiguousStartError):
            task.try_it()
        assert [each["id"] for each in emulator.instances()] == [odd]

    @pytest.mark.parametrize("position", ["null", "absent", "object", "text"])
    def test_an_empty_list_in_another_form(self, position: str, emulator: EmulatorControl) -> None:
        emulator.switch(empty_list=position)
        emulator.fault("start", "drop_after")
        with pytest.raises(errors.WaitTimeoutError):
            Task(remembers=HAS_STORE).try_it()
        assert len(emulator.instances()) == emulator.counts()["start"] == 1
