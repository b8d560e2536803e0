"""The wait of the batch operator, in deferred tasks and on a worker."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm.batches import bulk_change
from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.testing.emulator_fixture import AstroZeroEmulator
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmBatchTrigger
from tests.operators.batch.batch_task import (
    ENDS,
    Fire,
    complete,
    instance_of,
    launches,
    numbers,
)


@pytest.mark.parametrize("deferrable", [True, False])
class TestInEveryMode:
    def test_starts_each_launch_once_and_waits_for_all(
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

    def test_result_can_be_joined_to_the_input(
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

    def test_failures_come_first_and_max_failures_decides(
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

    def test_deadline_fails_open_launches(
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

    def test_deadline_while_lists_fail_terminates_open_instances(
        self, deferrable: bool, task: Any, emulator: EmulatorControl
    ) -> None:
        one = task(launches=launches(5), deferrable=deferrable, timeout=0.2, on_timeout="terminate")
        one.when_published = lambda: emulator.fault("query", "status", status=503, times=1000)
        with pytest.raises(errors.BatchFailedError, match="By 'on_timeout': terminate: 5 done"):
            one.try_it()
        assert numbers(emulator, closed=True) == Counter([1, 2, 3, 4, 5])
        assert one.outcomes == {"failed": 5}

    def test_fail_fast_ends_the_wait_and_terminates_the_rest(
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

    def test_failed_poll_does_not_fail_the_wait(
        self, deferrable: bool, task: Any, emulator: EmulatorControl
    ) -> None:
        one = task(launches=launches(3, ENDS, title="T"), deferrable=deferrable)
        emulator.fault("query", "status", status=503, times=5)
        assert one.try_it()["succeeded"] == 3

    def test_polls_that_fail_for_too_long_leave_instances_open(
        self, deferrable: bool, task: Any, emulator: EmulatorControl
    ) -> None:
        one = task(launches=launches(3), deferrable=deferrable, max_poll_failure_time=0)
        emulator.fault("query", "status", status=503, times=1000)
        with pytest.raises(
            errors.ServerError, match="A retry starts only the launches of this batch that are not open"
        ):
            one.try_it()
        assert numbers(emulator, closed=False) == Counter([1, 2, 3])
        emulator.clear_faults()
        complete(emulator)
        assert one.try_it()["succeeded"] == 3
        assert emulator.counts()["start"] == 3


def test_instance_that_succeeds_just_before_its_termination_counts_as_succeeded(
    task: Any, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = task(launches=launches(3), timeout=0.1, on_timeout="terminate")
    change_all = bulk_change.change_all

    async def late(*arguments: Any, **options: Any) -> Any:
        emulator.act(instance_of(emulator, 2)["id"], "complete")
        emulator.advance(5)
        return await change_all(*arguments, **options)

    monkeypatch.setattr(bulk_change, "change_all", late)
    with pytest.raises(errors.BatchFailedError, match="2 of 3"):
        one.try_it()
    assert one.outcomes == {"succeeded": 1, "failed": 2}


@pytest.mark.parametrize("deferrable", [True, False])
def test_scripted_end_applies_to_each_of_many_instances(
    deferrable: bool, make_task: Any, emulator: AstroZeroEmulator
) -> None:
    emulator.breaks(ENDS)
    with pytest.raises(errors.BatchFailedError, match="200 of 200 launches failed"):
        make_task(launches=launches(200, ENDS), has_store=False, deferrable=deferrable).try_it()
    emulator.assert_started(ENDS, times=200, state="Broken")


def test_fail_fast_stops_starting(task: Any, emulator: EmulatorControl) -> None:
    one = task(launches=launches(200, "NoSuchBpm"), fail_fast=True, max_concurrency=4, max_failures=2)
    with pytest.raises(errors.BatchFailedError):
        one.try_it()
    assert 3 <= emulator.counts()["start"] <= 3 + 4
    assert one.outcomes["not_started"] == 200 - emulator.counts()["start"]


def test_trigger_size_does_not_depend_on_the_number_of_launches(
    make_task: Any, emulator: EmulatorControl
) -> None:
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


def test_builds_no_trigger_if_it_does_not_defer(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a trigger is built")

    monkeypatch.setattr(AstroZeroBpmBatchTrigger, "__init__", refuse)
    assert task(launches=launches(2), wait_for_completion=False).try_it()["total"] == 2


def test_each_poll_costs_one_request_per_state(make_task: Any, emulator: EmulatorControl) -> None:
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
    polls = 4.5 / 0.9 + 2  # and one at the deadline, and one by the task that resumes
    assert emulator.counts()["query"] <= 2 * polls + 12, (
        "each state is listed once before the states of the instances are known"
    )
