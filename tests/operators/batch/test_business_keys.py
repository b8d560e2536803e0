"""Business keys that the author gives to the launches of a batch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from tests.operators.batch.batch_task import (
    ENDS,
    WAITS,
    complete_all,
)
from tests.support.stores import (
    needs_task_state_store,
)


class TestGivenBusinessKeys:
    def given(self) -> list[dict[str, Any]]:
        return [{"bpm_name": WAITS, "business_key": f"own-{number}"} for number in range(1, 6)]

    def keys(self, emulator: EmulatorControl) -> Counter[str]:
        return Counter(each["business_key"] for each in emulator.instances())

    def test_are_sent_even_if_another_instance_has_one(self, task: Any, emulator: EmulatorControl) -> None:
        emulator.start(WAITS, business_key="own-2")
        one = task(launches=self.given(), wait_for_completion=False)
        assert one.try_it()["started"] == 5
        assert self.keys(emulator) == Counter({f"own-{n}": 2 if n == 2 else 1 for n in range(1, 6)})

    def test_identify_own_instances_in_a_retry_with_a_store(
        self, task: Any, emulator: EmulatorControl
    ) -> None:
        preexisting_id = emulator.start(WAITS, business_key="own-2")["id"]
        one = task(launches=self.given(), wait_for_completion=False)
        one.try_it()
        if "task_state_store" in one.context:
            result = one.try_it()
            assert result["started"] == 5
            assert preexisting_id not in {row["instance_id"] for row in result["launches"]}
        else:
            with pytest.raises(errors.AmbiguousStartError, match="others may use their key"):
                one.try_it()
        assert len(emulator.instances()) == 6

    @needs_task_state_store
    def test_success_of_a_preexisting_instance_does_not_count(
        self, make_task: Any, emulator: EmulatorControl
    ) -> None:
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
        preexisting_id = emulator.start(ENDS, business_key="own-2")["id"]
        other = emulator.start(WAITS, business_key="own-2")["id"]
        emulator.act(other, "complete")
        emulator.advance(5)
        one.meanwhile = lambda: complete_all(emulator)
        result = one.try_it()
        assert result["succeeded"] == 5
        assert not {preexisting_id, other} & {row["instance_id"] for row in result["launches"]}
        assert emulator.counts()["start"] == 6

    def test_clear_does_not_terminate_a_preexisting_instance(
        self, task: Any, emulator: EmulatorControl
    ) -> None:
        one = task(launches=self.given(), wait_for_completion=False)
        one.try_it()
        preexisting_id = emulator.start(WAITS, business_key="own-2")["id"]
        one.clear()
        one.try_it()
        assert emulator.instance(preexisting_id)["closed"] is False
        closed = [each for each in emulator.instances() if each["closed"]]
        assert len(closed) == (5 if "task_state_store" in one.context else 0)

    def test_duplicate_key_is_refused(self, task: Any, emulator: EmulatorControl) -> None:
        with pytest.raises(ValueError, match="launch 6: its business_key 'own-1' is also that of launch 1"):
            task(launches=[*self.given(), self.given()[0]]).try_it()
        assert not any(emulator.counts().values())

    @pytest.mark.parametrize("before", [0, 1])
    def test_need_validate_first(self, before: int, task: Any, emulator: EmulatorControl) -> None:
        given = [{"bpm_name": WAITS}] * before + self.given()
        words = f"launch {before + 1} has a business_key of its own, which needs validate_first=True"
        with pytest.raises(ValueError, match=words):
            task(launches=given, validate_first=False).try_it()
        assert emulator.counts()["start"] == before
