"""One run whose task waits for a batch."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.deployment.conftest import Wait

if TYPE_CHECKING:
    from tests.deployment.conftest import Airflow

LAUNCHES = 200


@dataclass(frozen=True)
class Batch(Wait):
    """One run whose task waits for a batch."""

    @property
    def instances(self) -> list[dict[str, Any]]:
        return [one for one in self.airflow.control.instances() if one["title"] == self.run_id]

    @property
    def states(self) -> Counter[str]:
        return Counter(one["state"] for one in self.instances)

    def approve_all(self) -> None:
        for one in self.instances:
            if one["outcomes"]:
                self.airflow.control.act(one["id"], "approve")

    def until_terminated(self, *, at_least: int = LAUNCHES) -> float:
        """Wait until none of the started instances is open, and return how long that took."""
        began = time.time()
        control = self.airflow.control
        before = [one["id"] for one in self.instances]
        assert len(before) >= at_least
        self.until(
            "all instances are closed",
            lambda: all(control.instance(one)["closed"] for one in before) or None,
        )
        assert {control.instance(one)["state"] for one in before} == {"Terminated"}
        return time.time() - began

    def assert_succeeds(self) -> None:
        self.approve_all()
        self.until_state("success")
        result = self.returned
        assert (result["total"], result["succeeded"]) == (LAUNCHES, LAUNCHES)
        newest = {one["id"] for one in self.instances[-LAUNCHES:]}
        assert {row["instance_id"] for row in result["launches"]} == newest


def run_batch(airflow: Airflow, dag_id: str) -> Batch:
    """Start a run."""
    return Batch(airflow, dag_id, airflow.run(dag_id).run_id)
