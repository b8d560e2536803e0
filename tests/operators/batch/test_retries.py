"""Retries of the batch operator: each launch has one instance, whatever happens between the tries."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.waiting import event_payload
from airflow_provider_astrobpm.waiting.batch_wait import BatchWaitResult
from tests.operators.batch.batch_task import (
    ENDS,
    WAITS,
    complete,
    instance_of,
    launches,
    numbers,
)
from tests.support.stores import (
    needs_task_state_store,
)


class TestNextTry:
    def test_starts_only_missing_launches(self, task: Any, emulator: EmulatorControl) -> None:
        """An outage interrupts the starts of the first try."""
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

    def test_starts_only_failed_launches_again(self, task: Any, emulator: EmulatorControl) -> None:
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

    def test_adopts_instances_whose_start_response_was_lost(
        self, task: Any, emulator: EmulatorControl
    ) -> None:
        one = task(launches=launches(10, ENDS))
        emulator.fault("start", "drop_after", times=3)
        assert one.try_it()["succeeded"] == 10
        assert numbers(emulator) == Counter(range(1, 11))

    def test_does_not_start_launches_in_doubt(self, task: Any, emulator: EmulatorControl) -> None:
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

    def test_refuses_a_changed_input(self, task: Any, emulator: EmulatorControl) -> None:
        one = task(wait_for_completion=False)
        one.try_it(launches=launches(5))
        for changed in (launches(4), [*launches(4), {"bpm_name": ENDS}]):
            with pytest.raises(errors.BatchChangedError, match="launch 5"):
                one.try_it(launches=changed)
        assert emulator.counts()["start"] == 5
        assert one.try_it(launches=launches(6))["started"] == 6

    @needs_task_state_store
    def test_does_not_restart_launches_that_met_the_condition_earlier(
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

    def test_event_of_success_with_open_instances_is_refused(
        self, task: Any, emulator: EmulatorControl
    ) -> None:
        one = task(launches=launches(2), deferrable=True)

        def event(outcomes: str, _trigger: Any) -> dict[str, Any]:
            ids = one.xcoms["instance_ids"]
            return event_payload.dump_batch(BatchWaitResult(0, {}, ()), ids) | {"outcomes": outcomes}

        one.fire = partial(event, "oo")
        with pytest.raises(errors.UnknownEventError, match="it reports no outcome"):
            one.try_it()
        one.fire = partial(event, "++")
        with pytest.raises(errors.UnknownEventError, match="it counts as a success"):
            one.try_it()
        assert len(emulator.instances()) == 2

    def test_event_of_another_batch_opens_no_gate(self, task: Any, emulator: EmulatorControl) -> None:
        """Airflow may hand it over if its database is SQLite, and nothing but the ids differs if it names no task instance."""
        one = task(launches=launches(2), deferrable=True)
        one.fire = lambda _trigger: event_payload.dump_batch(BatchWaitResult(2, {}, ()), ["1", "2"])
        with pytest.raises(
            errors.UnknownEventError, match="reports other instances than those of this batch"
        ):
            one.try_it()
        assert not any(each["closed"] for each in emulator.instances())

    def test_event_for_another_task_does_not_end_a_batch(self, task: Any, emulator: EmulatorControl) -> None:
        one = task(launches=launches(2), deferrable=True)
        one.id = "this try"
        one.fire = lambda _trigger: event_payload.dump_batch(
            BatchWaitResult(2, {}, ()), one.xcoms["instance_ids"], None, "another"
        )
        with pytest.raises(TaskDeferred):
            one.try_it()
        assert not any(each["closed"] for each in emulator.instances())

    def test_restarts_launches_that_a_kill_terminated(self, task: Any, emulator: EmulatorControl) -> None:
        one = task(launches=launches(4), wait_for_completion=False)
        one.try_it()
        emulator.move(instance_of(emulator, 2)["id"], state="Terminated")
        emulator.move(instance_of(emulator, 3)["id"], state="Broken")
        assert one.try_it()["started"] == 4
        assert numbers(emulator) == Counter([1, 2, 2, 3, 4])


def test_retry_in_doubt_names_the_number_of_launches(make_task: Any, emulator: EmulatorControl) -> None:
    emulator.switch(business_keys_in_rows=False)
    emulator.start(WAITS)
    one = make_task(launches=launches(3), has_store=False)
    one.try_number = 1
    with pytest.raises(
        errors.AmbiguousStartError,
        match="it is unknown whether an earlier try started launch 1: the lists show no business keys here; "
        "of 3 launches: 0 started, 0 open, 3 in doubt, 0 not sent",
    ):
        one.try_it()
    assert emulator.counts()["start"] == 0


def test_try_of_an_older_version_uses_numbers_as_ids(task: Any, emulator: EmulatorControl) -> None:
    def happens() -> None:
        del one.xcoms["launch_ids"]
        complete(emulator)

    one = task(launches=[{"bpm_name": WAITS, "id": each} for each in "ab"], deferrable=True)
    one.meanwhile = happens
    assert [row["id"] for row in one.try_it()["launches"]] == [1, 2]
