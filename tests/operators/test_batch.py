"""The batch operator against the emulator: each launch once, whatever happens between its tries, and a true result."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_astrobpm.bpm import errors, group_change
from airflow_provider_astrobpm.bpm.aio import AsyncBpmClient
from airflow_provider_astrobpm.bpm.identity import TaskIdentity
from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from airflow_provider_astrobpm.emulator.running import EmulatorServer
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmBatchOperator
from airflow_provider_astrobpm.tasks import kill as task_kill
from airflow_provider_astrobpm.tasks.memory import Memory
from airflow_provider_astrobpm.testing.emulator import AstroZeroEmulator
from airflow_provider_astrobpm.triggers import kill
from tests.support.stores import (
    HAS_TASK_STATE_STORE,
    WITH_AND_WITHOUT_STORE,
    TaskStateStore,
    needs_task_state_store,
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
        if key == "refusals":  # the last one before it waits
            self.when_published()

    def operator(self, **arguments: Any) -> AstroZeroStartBpmBatchOperator:
        return AstroZeroStartBpmBatchOperator(
            task_id="batch", retries=RETRIES, poll_interval=1, **{**self.arguments, **arguments}
        )

    def try_it(self, **arguments: Any) -> dict[str, Any]:
        """Run the next try; where it defers, ``meanwhile`` happens, then its trigger runs."""
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
        """What the result says, also of a try that has failed, without what came to none."""
        counts = {key: value for key, value in self.xcoms["result"].items() if isinstance(value, int)}
        return {key: value for key, value in counts.items() if value and key != "total"}


@pytest.fixture(autouse=True)
def short_grace(
    emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    del emulator
    extra = {
        "start_grace": 0.3,
        "max_attempts": 3,
        "max_wait": 0.05,
        "instance_url": "https://{host}/x/{instance_id}",
    }
    connection = {**json.loads(emulator_server.connection_json()), "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))


@pytest.fixture(params=WITH_AND_WITHOUT_STORE)
def task(request: pytest.FixtureRequest, make_task: Callable[..., Task]) -> Callable[..., Task]:
    return lambda **arguments: make_task(has_store=request.param, **arguments)


@pytest.fixture
def make_task(fire: Fire, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Task]:
    def make(**arguments: Any) -> Task:
        made = Task(fire, **arguments)
        monkeypatch.setattr(kill, "published", lambda _task, key: made.xcoms.get(key))
        return made

    return make


def launches(count: int, bpm_name: str = WAITS, **more: Any) -> list[dict[str, Any]]:
    return [{"bpm_name": bpm_name, "variables": {"n": number}, **more} for number in range(1, count + 1)]


def numbers(emulator: EmulatorControl, **fields: Any) -> Counter[int]:
    """Return how many instances each launch has, by its number."""
    found = [
        each for each in emulator.instances() if all(each[key] == value for key, value in fields.items())
    ]
    keys = [KEYS.read_batch(each["business_key"]) for each in found]
    assert all(keys)
    return Counter(key.number for key in keys if key)


def complete(emulator: EmulatorControl, *but: int) -> None:
    """Let people complete everything that waits for them, but for some launches, and the time pass that it takes then."""
    for each in emulator.instances(name=WAITS):
        key = KEYS.read_batch(each["business_key"])
        if each["outcomes"] and not (key and key.number in but):
            emulator.act(each["id"], "complete")
    emulator.advance(5)


def complete_all(emulator: EmulatorControl) -> None:
    """Let people complete everything, whoever has started it."""
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
    """Let the process die when so many starts were answered: nothing it does then reaches anybody."""
    call_once = AsyncBpmClient.call_once

    async def dying(client: AsyncBpmClient, operation: Any) -> Any:
        if len(emulator.instances()) >= starts:
            monkeypatch.setattr(Memory, "write", lambda *_: None)
            raise error
        return await call_once(client, operation)

    monkeypatch.setattr(AsyncBpmClient, "call_once", dying)


@pytest.mark.parametrize("deferrable", [True, False])
class TestInEveryMode:
    def test_all_are_started_once_and_waited_for(
        self, deferrable: bool, task: Any, emulator: EmulatorControl
    ) -> None:
        one = task(launches=launches(30, ENDS), deferrable=deferrable)
        result = one.try_it()
        assert numbers(emulator) == Counter(range(1, 31))
        assert (result["total"], result["succeeded"], one.outcomes) == (30, 30, {"succeeded": 30})
        assert [row["number"] for row in result["launches"]] == list(range(1, 31))
        row, instance = result["launches"][6], instance_of(emulator, 7)
        assert (row["instance_id"], row["business_key"]) == (instance["id"], instance["business_key"])
        assert (row["state"], row["outcome"], row["url"]) == ("Completed OK", "succeeded", row["url"])
        assert row["url"].endswith(f"/x/{instance['id']}")
        assert emulator.counts()["start"] == 30
        assert one.xcoms["result"] == result

    def test_the_result_can_be_joined_to_the_input(
        self, deferrable: bool, task: Any, emulator: EmulatorControl, tmp_path: Path
    ) -> None:
        path, result_path = tmp_path / "launches.csv", tmp_path / "result.csv"
        path.write_text("id,bpm_name,title,note\nA17,Instant,Mine,x\nB4,NoSuchBpm,,y\n\n,Instant,,\n")
        given: dict[str, Any] = {"launches": None, "launches_path": str(path), "max_failures": 1}
        result = task(**given, deferrable=deferrable, result_variables=True).try_it()
        assert [
            (row["number"], row["id"], row["title"], row["outcome"], row["variables"])
            for row in result["launches"]
        ] == [
            (2, "B4", None, "refused", {"note": "y"}),
            (1, "A17", "Mine", "succeeded", {"note": "x"}),
            (3, 5, "dag.batch #3 (run run)", "succeeded", {}),
        ]
        started = {each["id"]: each["title"] for each in emulator.instances()}
        assert {
            row["instance_id"]: row["title"] for row in result["launches"] if row["instance_id"]
        } == started
        assert all("id" not in each["variables"] for each in emulator.instances())
        one = task(**given, deferrable=deferrable, result_path=str(result_path))
        one.try_it()
        with result_path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["id"] for row in rows] == ["B4", "A17", "5"]
        assert "variables" not in rows[0]
        assert "launch_variables" not in one.xcoms

    def test_every_failure_is_told_first_and_max_failures_decides(
        self, deferrable: bool, task: Any, emulator: EmulatorControl
    ) -> None:
        given = launches(100)
        given[49]["bpm_name"] = "NoSuchBpm"
        one = task(launches=given, deferrable=deferrable, timeout=60)

        def happens() -> None:
            emulator.break_instance(instance_of(emulator, 70)["id"])
            emulator.move(instance_of(emulator, 20)["id"], state="User Terminated")
            complete(emulator)

        if deferrable:
            one.meanwhile = happens
        else:
            one.when_published = happens
        with pytest.raises(errors.BatchFailedError, match="3 of 100 launches failed, and at most 0.02 may"):
            one.try_it(max_failures=0.02)
        assert one.outcomes == {"succeeded": 97, "failed": 2, "refused": 1}
        rows = one.xcoms["result"]["launches"]
        assert [(row["number"], row["outcome"]) for row in rows[:4]] == [
            (20, "failed"),
            (70, "failed"),
            (50, "refused"),
            (1, "succeeded"),
        ]
        reasons = [str(row["reason"]) for row in rows[:4]]
        assert "it ended in state 'User Terminated'" in reasons[0]
        assert "it ended in state 'Broken'" in reasons[1]
        assert "NoSuchBpm" in reasons[2]
        assert reasons[3] == "None"

    def test_the_deadline_fails_what_is_open(
        self, deferrable: bool, task: Any, emulator: EmulatorControl
    ) -> None:
        one = task(launches=launches(5), deferrable=deferrable, timeout=0.2, on_timeout="suspend")
        with pytest.raises(
            errors.BatchFailedError, match="still open at the deadline.*By 'on_timeout': suspend"
        ) as caught:
            one.try_it()
        assert isinstance(caught.value.__cause__, errors.WaitTimeoutError)
        assert one.outcomes == {"failed": 5}
        assert [each["suspended"] for each in emulator.instances()] == [True] * 5

    def test_a_deadline_while_lists_fail_ends_what_is_open(
        self, deferrable: bool, task: Any, emulator: EmulatorControl
    ) -> None:
        one = task(launches=launches(5), deferrable=deferrable, timeout=0.2, on_timeout="terminate")
        one.when_published = lambda: emulator.fault("query", "status", status=503, times=1000)
        with pytest.raises(errors.BatchFailedError, match="By 'on_timeout': terminate: 5 done"):
            one.try_it()
        assert numbers(emulator, closed=True) == Counter([1, 2, 3, 4, 5])
        assert one.outcomes == {"failed": 5}

    def test_fail_fast_waits_no_longer_and_ends_the_rest(
        self, deferrable: bool, task: Any, emulator: EmulatorControl
    ) -> None:
        given = launches(20)
        given[4]["bpm_name"] = "AlwaysBroken"
        one = task(launches=given, deferrable=deferrable, fail_fast=True, on_failure="terminate")
        with pytest.raises(errors.BatchFailedError, match="launch 5 .*'Broken'.*By 'on_failure': terminate"):
            one.try_it()
        assert one.outcomes == {"failed": 1, "open": 19}
        assert numbers(emulator, closed=False) == Counter()
        assert {row["state"] for row in one.xcoms["result"]["launches"][1:]} == {"Terminated"}

    def test_a_look_that_fails_is_no_failure(
        self, deferrable: bool, task: Any, emulator: EmulatorControl
    ) -> None:
        one = task(launches=launches(3, ENDS, title="T"), deferrable=deferrable)
        emulator.fault("query", "status", status=503, times=5)
        assert one.try_it()["succeeded"] == 3

    def test_looks_that_fail_for_too_long_leave_everything_as_it_is(
        self, deferrable: bool, task: Any, emulator: EmulatorControl
    ) -> None:
        one = task(launches=launches(3), deferrable=deferrable, max_poll_failure_time=0)
        emulator.fault("query", "status", status=503, times=1000)
        with pytest.raises(errors.ServerError, match="A retry starts only what is not open"):
            one.try_it()
        assert numbers(emulator, closed=False) == Counter([1, 2, 3])
        emulator.clear_faults()
        complete(emulator)
        assert one.try_it()["succeeded"] == 3
        assert emulator.counts()["start"] == 3


class TestTheNextTry:
    def test_starts_only_what_is_missing(self, task: Any, emulator: EmulatorControl) -> None:
        """The first one is cut off by an outage in the middle of its starts."""
        one = task(launches=launches(50, ENDS))
        emulator.fault("start", "status", status=429, times=1000, skip=20)
        with pytest.raises(errors.ThrottledError, match="A retry starts only"):
            one.try_it()
        started = numbers(emulator)
        assert 0 < len(started) < 50
        emulator.clear_faults()
        emulator.reset_counts()
        assert one.try_it()["succeeded"] == 50
        assert numbers(emulator) == Counter(range(1, 51))
        assert emulator.counts()["start"] == 50 - len(started)

    def test_searches_once_for_the_whole_batch(self, task: Any, emulator: EmulatorControl) -> None:
        one = task(launches=launches(50, ENDS), wait_for_completion=False)
        one.try_it()
        emulator.reset_counts()
        assert one.try_it()["started"] == 50
        assert emulator.counts()["start"] == 0
        assert emulator.counts()["query"] <= 24

    def test_starts_again_what_has_failed_and_nothing_else(
        self, task: Any, emulator: EmulatorControl
    ) -> None:
        given = launches(10)
        one = task(launches=given, deferrable=True)

        def happens() -> None:
            emulator.break_instance(instance_of(emulator, 3)["id"])
            complete(emulator)

        one.meanwhile = happens
        with pytest.raises(errors.BatchFailedError):
            one.try_it()
        one.meanwhile = lambda: complete(emulator)
        assert one.try_it()["succeeded"] == 10
        assert numbers(emulator) == Counter(range(1, 11)) + Counter([3])
        assert instance_of(emulator, 3)["business_key"].endswith(".2")

    def test_finds_what_was_started_though_nobody_heard_of_it(
        self, task: Any, emulator: EmulatorControl
    ) -> None:
        one = task(launches=launches(10, ENDS))
        emulator.fault("start", "drop_after", times=3)
        assert one.try_it()["succeeded"] == 10
        assert numbers(emulator) == Counter(range(1, 11))

    def test_does_not_start_what_may_be_there(self, task: Any, emulator: EmulatorControl) -> None:
        one = task(launches=launches(5), wait_for_completion=False)
        emulator.switch(business_keys_in_rows=False)
        emulator.fault("start", "drop_after")
        for _ in range(2):
            with pytest.raises(errors.AmbiguousStartError):
                one.try_it()
        assert emulator.counts()["start"] == 5
        one.clear()
        if "task_state_store" in one.context:
            assert one.try_it()["started"] == 5
        else:
            with pytest.raises(errors.AmbiguousStartError):
                one.try_it()

    def test_refuses_another_input(self, task: Any, emulator: EmulatorControl) -> None:
        one = task(wait_for_completion=False)
        one.try_it(launches=launches(5))
        for changed in (launches(4), [*launches(4), {"bpm_name": ENDS}]):
            with pytest.raises(errors.BatchChangedError, match="launch 5"):
                one.try_it(launches=changed)
        assert emulator.counts()["start"] == 5
        assert one.try_it(launches=launches(6))["started"] == 6

    @needs_task_state_store
    def test_does_not_start_again_what_has_met_a_condition_that_passed_by(
        self, make_task: Any, emulator: EmulatorControl
    ) -> None:
        one = make_task(
            has_store=True, launches=launches(5), states=["Waiting for user interaction"], deferrable=True
        )
        broken: list[int] = [3]

        def happens() -> None:
            for number in broken:
                emulator.move(instance_of(emulator, number)["id"], state="Broken")

        one.when_published = happens
        emulator.switch(start_lag=0)
        with pytest.raises(errors.BatchFailedError, match="1 of 5"):
            one.try_it(
                bpm_name=None,
                deferrable=False,
                launches=[*launches(2), {"bpm_name": "AlwaysBroken", "variables": {}}, *launches(5)[3:]],
            )
        complete(emulator)
        broken.clear()
        one.clear()
        result = one.try_it()
        assert result["succeeded"] == 5
        assert emulator.counts()["start"] == 6

    def test_says_that_it_is_no_success_where_members_are_open(
        self, task: Any, emulator: EmulatorControl
    ) -> None:
        one = task(launches=launches(2), deferrable=True)
        one.fire = lambda _trigger: {"status": "group", "outcomes": "oo", "reasons": []}
        with pytest.raises(errors.UnknownEventError, match="it tells of no end"):
            one.try_it()
        one.fire = lambda _trigger: {"status": "group", "outcomes": "++", "reasons": []}
        with pytest.raises(errors.UnknownEventError, match="it counts as a success"):
            one.try_it()
        assert len(emulator.instances()) == 2

    def test_does_not_count_what_a_kill_has_ended_as_started(
        self, task: Any, emulator: EmulatorControl
    ) -> None:
        one = task(launches=launches(4), wait_for_completion=False)
        one.try_it()
        emulator.move(instance_of(emulator, 2)["id"], state="Terminated")
        emulator.move(instance_of(emulator, 3)["id"], state="Broken")
        assert one.try_it()["started"] == 4
        assert numbers(emulator) == Counter([1, 2, 2, 3, 4])


class TestAClear:
    @needs_task_state_store
    def test_of_a_batch_that_has_failed_goes_on_with_it(
        self, make_task: Any, emulator: EmulatorControl
    ) -> None:
        one = make_task(has_store=True, launches=launches(10), deferrable=True)

        def happens() -> None:
            emulator.break_instance(instance_of(emulator, 3)["id"])
            complete(emulator)

        one.meanwhile = happens
        with pytest.raises(errors.BatchFailedError, match="so does clearing this task"):
            one.try_it()
        one.clear()
        one.meanwhile = lambda: complete(emulator)
        assert one.try_it()["succeeded"] == 10
        assert numbers(emulator) == Counter(range(1, 11)) + Counter([3])
        one.clear()
        assert one.try_it()["succeeded"] == 10, "and one that has succeeded is asked for anew"
        assert numbers(emulator) == Counter({n: 3 if n == 3 else 2 for n in range(1, 11)})

    @needs_task_state_store
    def test_after_a_deadline_goes_on_waiting(self, make_task: Any, emulator: EmulatorControl) -> None:
        one = make_task(has_store=True, launches=launches(4), timeout=0.1)
        with pytest.raises(errors.BatchFailedError):
            one.try_it()
        complete(emulator, 2)
        one.clear()
        with pytest.raises(errors.BatchFailedError, match="1 of 4"):
            one.try_it()
        complete(emulator)
        one.clear()
        assert one.try_it()["succeeded"] == 4
        assert numbers(emulator) == Counter(range(1, 5))

    @needs_task_state_store
    def test_goes_on_also_where_the_retry_could_not_even_read_its_input(
        self, make_task: Any, tmp_path: Path, emulator: EmulatorControl
    ) -> None:
        path = tmp_path / "launches.jsonl"
        path.write_text(f'{{"bpm_name": "{ENDS}"}}\n' * 3)
        one = make_task(has_store=True, launches_path=str(path))
        one.try_it()
        path.rename(tmp_path / "away")
        with pytest.raises(ValueError, match="there is no file"):
            one.try_it()
        (tmp_path / "away").rename(path)
        one.clear()
        assert one.try_it()["succeeded"] == 3
        assert emulator.counts()["start"] == 3

    @needs_task_state_store
    def test_after_a_death_in_the_middle_of_the_starts_goes_on(
        self, make_task: Any, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = make_task(has_store=True, launches=launches(40, ENDS))
        with monkeypatch.context() as patch:
            stop_after(patch, emulator, 20, Died())
            with pytest.raises(Died):
                one.try_it()
        started = len(emulator.instances())
        assert 20 <= started < 40
        one.clear()
        assert one.try_it()["succeeded"] == 40
        assert numbers(emulator) == Counter(range(1, 41))

    def test_of_an_input_that_is_not_checked_first_ends_the_old_one_first(
        self, task: Any, emulator: EmulatorControl
    ) -> None:
        one = task(launches=launches(4), wait_for_completion=False, validate_first=False)
        one.try_it()
        one.clear()
        emulator.fault("start", "status", status=403, times=4)
        with pytest.raises(errors.BatchFailedError):
            one.try_it()
        assert {each["state"] for each in emulator.instances()} == {"Terminated"}

    def test_while_it_waits_begins_anew(self, task: Any, emulator: EmulatorControl) -> None:
        one = task(launches=launches(4), deferrable=True)
        one.fire = lambda _trigger: pytest.skip("")  # the triggerer is gone
        with pytest.raises(pytest.skip.Exception):
            one.try_it()
        one.clear()
        assert one.try_it(wait_for_completion=False)["started"] == 4
        assert Counter(each["state"] for each in emulator.instances()) == {
            "Terminated": 4,
            "Waiting for user interaction": 4,
        }

    def test_keeps_what_no_kill_touches(self, task: Any, emulator: EmulatorControl) -> None:
        one = task(launches=launches(4), wait_for_completion=False, terminate_on_kill=False)
        one.try_it()
        one.clear()
        one.try_it()
        assert numbers(emulator, closed=False) == Counter(range(1, 5))
        assert emulator.counts()["start"] == 4


class TestTheAuthorsKeys:
    def given(self) -> list[dict[str, Any]]:
        return [{"bpm_name": WAITS, "business_key": f"own-{number}"} for number in range(1, 6)]

    def keys(self, emulator: EmulatorControl) -> Counter[str]:
        return Counter(each["business_key"] for each in emulator.instances())

    def test_are_used_and_others_may_have_them(self, task: Any, emulator: EmulatorControl) -> None:
        emulator.start(WAITS, business_key="own-2")
        one = task(launches=self.given(), wait_for_completion=False)
        assert one.try_it()["started"] == 5
        assert self.keys(emulator) == Counter({f"own-{n}": 2 if n == 2 else 1 for n in range(1, 6)})

    def test_tell_a_retry_what_is_its_own_where_it_can_remember(
        self, task: Any, emulator: EmulatorControl
    ) -> None:
        stranger = emulator.start(WAITS, business_key="own-2")["id"]
        one = task(launches=self.given(), wait_for_completion=False)
        one.try_it()
        if "task_state_store" in one.context:
            result = one.try_it()
            assert result["started"] == 5
            assert stranger not in {row["instance_id"] for row in result["launches"]}
        else:
            with pytest.raises(errors.AmbiguousStartError, match="others may use their key"):
                one.try_it()
        assert len(emulator.instances()) == 6

    @needs_task_state_store
    def test_never_let_a_strangers_good_end_count(self, make_task: Any, emulator: EmulatorControl) -> None:
        one = make_task(has_store=True, launches=self.given(), deferrable=True)

        def happens() -> None:
            for each in emulator.instances():
                if each["business_key"] == "own-2":
                    emulator.break_instance(each["id"])
                else:
                    emulator.act(each["id"], "complete")
            emulator.advance(5)

        one.meanwhile = happens
        with pytest.raises(errors.BatchFailedError, match="1 of 5"):
            one.try_it()
        stranger = emulator.start(ENDS, business_key="own-2")["id"]
        other = emulator.start(WAITS, business_key="own-2")["id"]
        emulator.act(other, "complete")
        emulator.advance(5)
        one.meanwhile = lambda: complete_all(emulator)
        result = one.try_it()
        assert result["succeeded"] == 5
        assert not {stranger, other} & {row["instance_id"] for row in result["launches"]}
        assert emulator.counts()["start"] == 6

    def test_never_let_a_clear_end_a_strangers_instance(self, task: Any, emulator: EmulatorControl) -> None:
        one = task(launches=self.given(), wait_for_completion=False)
        one.try_it()
        stranger = emulator.start(WAITS, business_key="own-2")["id"]
        one.clear()
        one.try_it()
        assert emulator.instance(stranger)["closed"] is False
        closed = [each for each in emulator.instances() if each["closed"]]
        assert len(closed) == (5 if "task_state_store" in one.context else 0)

    def test_may_not_occur_twice(self, task: Any, emulator: EmulatorControl) -> None:
        with pytest.raises(ValueError, match="launch 6: its business_key 'own-1' is that of launch 1 too"):
            task(launches=[*self.given(), self.given()[0]]).try_it()
        assert not any(emulator.counts().values())

    def test_need_to_be_known_before_the_first_start(self, task: Any) -> None:
        with pytest.raises(ValueError, match="launch 1 has a business_key of its own"):
            task(launches=self.given(), validate_first=False).try_it()


class TestTheInput:
    def test_an_empty_batch_succeeds_and_starts_nothing(
        self, task: Any, emulator: EmulatorControl, capfd: Any, caplog: Any
    ) -> None:
        caplog.set_level("INFO")
        for validate_first in (True, False):
            result = task(launches=[], validate_first=validate_first).try_it()
            assert (result["total"], result["launches"]) == (0, [])
        assert "The batch is empty: nothing is started" in capfd.readouterr().out + caplog.text
        assert emulator.counts()["start"] == 0

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ([{}, "x"], "launch 2: it must be a mapping with some of bpm_name"),
            (
                [{}, {"variables": {"a": object()}}],
                "launch 2: variables.'a'. cannot be sent: it is of type object",
            ),
            ("{{ launches }}", "launches must be a list of mappings, not str"),
            (
                [{}, {"business_key": "None"}],
                "launch 2: business_key must not be 'None': a template renders that",
            ),
            ([{}, {"business_key": ""}], "launch 2: business_key must be a text that is not blank, not ''"),
            ([{"title": "a\0b"}], "launch 1: title must be a text without NUL"),
            (
                [{"variables": {"note": ["\ud83d"]}}],
                r"launch 1: variables\['note'\]\[0\] cannot be sent: it is a text with a NUL or half",
            ),
        ],
    )
    def test_nothing_is_started_of_one_that_is_not_good(
        self, given: Any, said: str, task: Any, emulator: EmulatorControl
    ) -> None:
        with pytest.raises(ValueError, match=said):
            task(launches=given, bpm_name=WAITS).try_it()
        assert not any(emulator.counts().values())

    @pytest.mark.parametrize("argument", ["bpm_name", "version", "failed_bp_statuses"])
    def test_a_template_that_rendered_the_text_of_nothing(
        self, argument: str, task: Any, emulator: EmulatorControl
    ) -> None:
        value: Any = ["None"] if argument == "failed_bp_statuses" else "None"
        own = {"bpm_name": WAITS, "version": "1.0.0"}
        with pytest.raises(ValueError, match=f"{argument} must not be 'None': a template renders that"):
            task(launches=[own], **{"bpm_name": WAITS, argument: value}).try_it()
        assert not any(emulator.counts().values())

    def test_a_gate_by_what_fails_alone_says_so_once(
        self, task: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        task(launches=[{}, {}], bpm_name=ENDS, failed_bp_statuses=["No", "Nay"]).try_it()
        said = capfd.readouterr().out + caplog.text
        assert said.count("Any business status but 'Nay' and 'No' opens this gate") == 1

    def test_a_template_that_came_out_as_nothing_is_no_empty_batch(self, task: Any) -> None:
        operator = task(launches=[]).operator()
        operator.launches = None
        with pytest.raises(ValueError, match="launches was given, and came out as None"):
            operator.execute({"ti": Task(lambda _: None, has_store=False)})

    @pytest.mark.parametrize("suffix", ["jsonl", "csv"])
    def test_a_file(self, suffix: str, task: Any, tmp_path: Path, emulator: EmulatorControl) -> None:
        path = tmp_path / f"launches.{suffix}"
        lines = (
            ["note", "1", "2"] if suffix == "csv" else [f'{{"variables": {{"note": "{n}"}}}}' for n in "12"]
        )
        path.write_text("\n".join(lines))
        result = task(launches_path=str(path), bpm_name=ENDS).try_it()
        assert result["succeeded"] == 2
        assert [each["variables"]["note"] for each in emulator.instances()] == ["1", "2"]

    @pytest.mark.parametrize(("validate_first", "started"), [(True, 0), (False, 2)])
    def test_a_file_with_a_broken_line_is_named_by_it(
        self, validate_first: bool, started: int, task: Any, tmp_path: Path, emulator: EmulatorControl
    ) -> None:
        path = tmp_path / "launches.jsonl"
        path.write_text('{}\n{}\n{"title": \n{}\n')
        one = task(launches_path=str(path), bpm_name=ENDS, validate_first=validate_first)
        with pytest.raises(ValueError, match=rf"line 3 of {path}"):
            one.try_it()
        assert emulator.counts()["start"] == started
        path.write_text("{}\n{}\n{}\n{}\n")
        assert one.try_it()["succeeded"] == 4
        assert numbers(emulator) == Counter(range(1, 5))


class TestTheResult:
    @pytest.mark.parametrize("suffix", ["jsonl", "csv"])
    def test_is_written_where_the_author_says(self, suffix: str, task: Any, tmp_path: Path) -> None:
        path = tmp_path / f"result.{suffix}"
        one = task(launches=[*launches(2, ENDS), {"bpm_name": "NoSuchBpm"}], result_path=str(path))
        with pytest.raises(errors.BatchFailedError):
            one.try_it()
        lines = path.read_text().splitlines()
        rows = lines[1:] if suffix == "csv" else lines
        assert len(rows) == 3
        assert "refused" in rows[0]
        assert (one.xcoms["result"]["launches"], one.xcoms["result"]["result_path"]) == ([], str(path))

    def test_a_path_that_cannot_be_right_is_refused_before_anything_starts(
        self, task: Any, emulator: EmulatorControl
    ) -> None:
        with pytest.raises(ValueError, match="result.xml"):
            task(launches=launches(2), result_path="result.xml").try_it()
        assert not any(emulator.counts().values())

    def test_holds_so_many_launches_and_no_more(self, task: Any) -> None:
        given = [*launches(600, ENDS), {"bpm_name": "NoSuchBpm"}]
        result = task(launches=given, wait_for_completion=False, max_failures=1).try_it()
        assert (result["total"], result["started"], result["refused"]) == (601, 600, 1)
        assert len(result["launches"]) == 500
        assert result["launches"][0]["number"] == 601


class TestAKillOnTheWorker:
    """What Airflow says of the task is played; a real deployment says it in ``tests/deployment``."""

    def kill_while_it_starts(
        self, one: Task, operator: AstroZeroStartBpmBatchOperator, state: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(task_kill, "state_of", lambda _task: state)
        push = one.xcom_push

        def pushed(key: str, value: Any) -> None:
            push(key, value)
            if key == "refusals":  # all are started, and it begins to wait
                operator.on_kill()

        one.xcom_push = pushed  # type: ignore[method-assign]
        one.try_number = 1
        operator.execute(one.context)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("state", "arguments", "open_after"),
        [
            ("failed", {}, 0),
            ("success", {}, 0),
            ("running", {}, 20),
            ("failed", {"terminate_on_kill": False}, 20),
        ],
    )
    def test_ends_what_it_has_started_if_a_person_did_it(
        self,
        state: str,
        arguments: dict[str, Any],
        open_after: int,
        make_task: Any,
        emulator: EmulatorControl,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        one = make_task(has_store=HAS_TASK_STATE_STORE, launches=launches(20), timeout=0.1)
        with pytest.raises(errors.BatchFailedError):
            self.kill_while_it_starts(one, one.operator(**arguments), state, monkeypatch)
        assert len([each for each in emulator.instances() if not each["closed"]]) == open_after
        if HAS_TASK_STATE_STORE:
            record = one.context["task_state_store"]["astro_zero_batch"]
            assert record.get("unfinished", False) is (state == "running")

    def test_that_comes_before_anything_starts_lets_nothing_start(
        self, make_task: Any, emulator: EmulatorControl
    ) -> None:
        one = make_task(has_store=False, launches=launches(20))
        operator = one.operator()
        operator.on_kill()
        with pytest.raises(errors.AstroZeroError, match="This process is being ended"):
            operator.execute(one.context)
        assert emulator.counts()["start"] == 0


def test_an_instance_that_ends_well_just_before_it_would_be_ended_succeeds(
    task: Any, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = task(launches=launches(3), timeout=0.1, on_timeout="terminate")
    change_all = group_change.change_all

    async def late(*arguments: Any, **options: Any) -> Any:
        emulator.act(instance_of(emulator, 2)["id"], "complete")
        emulator.advance(5)
        return await change_all(*arguments, **options)

    monkeypatch.setattr(group_change, "change_all", late)
    with pytest.raises(errors.BatchFailedError, match="2 of 3"):
        one.try_it()
    assert one.outcomes == {"succeeded": 1, "failed": 2}


def test_a_launch_that_cannot_be_sent_is_found_by_the_check(task: Any, emulator: EmulatorControl) -> None:
    given = [*launches(3), {"bpm_name": WAITS, "variables": {"$Flow.BusinessKey": "k"}}]
    with pytest.raises(ValueError, match="launch 4: business_key is given twice"):
        task(launches=given).try_it()
    assert not any(emulator.counts().values())


@pytest.mark.parametrize("wait_for_completion", [True, False])
def test_a_result_that_cannot_be_written_is_found_before_anything_is_started(
    wait_for_completion: bool, task: Any, emulator: EmulatorControl, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    one = task(launches=launches(3, ENDS), wait_for_completion=wait_for_completion)
    with pytest.raises(OSError, match="^the result cannot be written to .*: NotADirectoryError"):
        one.try_it(result_path=str(tmp_path / "file" / "result.csv"))
    assert emulator.counts()["start"] == 0


@pytest.mark.parametrize("validate_first", [True, False])
def test_an_id_that_is_there_twice_is_refused_before_its_start(
    validate_first: bool, task: Any, emulator: EmulatorControl
) -> None:
    given = [{"bpm_name": ENDS, "id": one} for one in ("a", "b", "a")]
    with pytest.raises(ValueError, match="launch 3: its id 'a' is that of launch 1 too"):
        task(launches=given, validate_first=validate_first).try_it()
    assert emulator.counts()["start"] == (0 if validate_first else 2)


@pytest.mark.parametrize("deferrable", [True, False])
def test_what_a_test_orders_meets_each_of_many_that_end_at_once(
    deferrable: bool, make_task: Any, emulator: AstroZeroEmulator
) -> None:
    emulator.breaks(ENDS)
    with pytest.raises(errors.BatchFailedError, match="200 of 200 launches failed"):
        make_task(launches=launches(200, ENDS), has_store=False, deferrable=deferrable).try_it()
    emulator.assert_started(ENDS, times=200, state="Broken")


def test_a_retry_in_doubt_says_how_many_are(make_task: Any, emulator: EmulatorControl) -> None:
    emulator.switch(business_keys_in_rows=False)
    emulator.start(WAITS)
    one = make_task(launches=launches(3), has_store=False)
    one.try_number = 1
    with pytest.raises(
        errors.AmbiguousStartError,
        match="whether an earlier try started launch 1 cannot be told: the lists show no business keys here; "
        "of 3 launches: 0 started, 0 open, 3 in doubt, 0 not sent",
    ):
        one.try_it()
    assert emulator.counts()["start"] == 0


def test_a_try_that_was_begun_by_an_older_version_has_numbers_for_ids(
    task: Any, emulator: EmulatorControl
) -> None:
    def happens() -> None:
        del one.xcoms["launch_ids"]
        complete(emulator)

    one = task(launches=[{"bpm_name": WAITS, "id": each} for each in "ab"], deferrable=True)
    one.meanwhile = happens
    assert [row["id"] for row in one.try_it()["launches"]] == [1, 2]


def test_fail_fast_starts_no_more(task: Any, emulator: EmulatorControl) -> None:
    one = task(launches=launches(200, "NoSuchBpm"), fail_fast=True, max_concurrency=4, max_failures=2)
    with pytest.raises(errors.BatchFailedError):
        one.try_it()
    assert 3 <= emulator.counts()["start"] <= 3 + 4
    assert one.outcomes["not_started"] == 200 - emulator.counts()["start"]


def test_the_trigger_is_as_short_for_many_as_for_few(make_task: Any, emulator: EmulatorControl) -> None:
    sizes = []
    for count in (2, 200):
        emulator.reset()
        one = make_task(has_store=False, launches=launches(count), deferrable=True)
        fire = one.fire

        def noting(trigger: Any, fire: Fire = fire) -> Any:
            sizes.append(len(json.dumps(trigger.serialize())))
            return fire(trigger)

        one.fire = noting
        one.meanwhile = lambda: complete(emulator)
        one.try_it()
    assert sizes[0] == sizes[1] < 1000


def test_waiting_costs_a_request_a_state(make_task: Any, emulator: EmulatorControl) -> None:
    one = make_task(has_store=False, launches=launches(50), deferrable=True, timeout=4.5)

    def happens() -> None:
        emulator.advance(5)
        for number in range(1, 26):
            emulator.move(instance_of(emulator, number)["id"], state="Running")
        emulator.switch(get_by_id="absent")
        emulator.reset_counts()

    one.meanwhile = happens
    with pytest.raises(errors.BatchFailedError):
        one.try_it()
    looks = 4.5 / 0.9 + 2  # and one at the deadline, and one by the task that resumes
    assert emulator.counts()["query"] <= 2 * looks + 12, (
        "each is listed once before it is known where they are"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "exactly one of launches and launches_path"),
        ({"launches": [], "launches_path": "x.csv"}, "exactly one of launches and launches_path"),
        ({"launches": [], "max_failures": -1}, "max_failures must be a whole number, or a share"),
        ({"launches": [], "max_failures": 1.5}, "max_failures must be a whole number, or a share"),
        ({"launches": [], "max_failures": True}, "max_failures must be a whole number, or a share"),
        ({"launches": [], "max_concurrency": 0}, "max_concurrency must be a whole number, at least 1"),
        ({"launches": [], "rate_limit": 0}, "rate_limit must be a number a second"),
        ({"launches": [], "on_failure": "suspend"}, "on_failure must be one of"),
        (
            {"launches": [], "wait_for_completion": False, "states": ["Running"]},
            "means nothing with wait_for",
        ),
        ({"launches": [], "fail_fast": True, "max_failures": 0.1, "validate_first": False}, "give a number"),
    ],
)
def test_bad_arguments_are_refused_when_the_dag_is_parsed(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AstroZeroStartBpmBatchOperator(task_id="t", **arguments)
