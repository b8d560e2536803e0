"""Clearing a batch task: a failed batch is resumed, any other one starts again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from tests.operators.batch.batch_task import (
    ENDS,
    Died,
    complete,
    instance_of,
    launches,
    numbers,
    stop_after,
)
from tests.support.stores import (
    needs_task_state_store,
)


class TestClear:
    @needs_task_state_store
    def test_resumes_a_failed_batch(self, make_task: Any, emulator: EmulatorControl) -> None:
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
        assert one.try_it()["succeeded"] == 10, "clearing a batch that has succeeded starts a new one"
        assert numbers(emulator) == Counter({n: 3 if n == 3 else 2 for n in range(1, 11)})

    @needs_task_state_store
    def test_keeps_waiting_after_a_deadline(self, make_task: Any, emulator: EmulatorControl) -> None:
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
    def test_resumes_a_batch_whose_retry_could_not_read_its_input(
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
    def test_resumes_after_a_crash_between_the_starts(
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

    def test_without_validate_first_terminates_the_old_batch_first(
        self, task: Any, emulator: EmulatorControl
    ) -> None:
        one = task(launches=launches(4), wait_for_completion=False, validate_first=False)
        one.try_it()
        one.clear()
        emulator.fault("start", "status", status=403, times=4)
        with pytest.raises(errors.BatchFailedError):
            one.try_it()
        assert {each["state"] for each in emulator.instances()} == {"Terminated"}

    def test_of_a_waiting_task_starts_a_new_batch(self, task: Any, emulator: EmulatorControl) -> None:
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

    def test_adopts_open_instances_without_terminate_on_kill(
        self, task: Any, emulator: EmulatorControl
    ) -> None:
        one = task(launches=launches(4), wait_for_completion=False, terminate_on_kill=False)
        one.try_it()
        one.clear()
        one.try_it()
        assert numbers(emulator, closed=False) == Counter(range(1, 5))
        assert emulator.counts()["start"] == 4
