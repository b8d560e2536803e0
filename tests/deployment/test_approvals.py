"""The example DAG that asks twice: an engineer in Airflow, then the owner of the data in Astro Zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.deployment.conftest import ASKS_PEOPLE

if TYPE_CHECKING:
    from tests.deployment.conftest import Airflow

DAG = "/api/v2/dags/two_approvals"
QUESTION = "look_at_the_numbers"

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.together,
    pytest.mark.skipif(not ASKS_PEOPLE, reason="Airflow asks no questions before 3.1"),
]


class Run:
    """One run of the DAG.

    :param airflow: the deployment.
    :param run_id: its id.
    """

    def __init__(self, airflow: Airflow, run_id: str) -> None:
        self.airflow = airflow
        self.path = f"{DAG}/dagRuns/{run_id}"
        airflow.call("PATCH", DAG, {"is_paused": False})
        airflow.call("POST", f"{DAG}/dagRuns", {"logical_date": None, "dag_run_id": run_id})
        self.run_id = run_id

    def states(self) -> dict[str, str]:
        found = self.airflow.call("GET", f"{self.path}/taskInstances")["task_instances"]
        return {each["task_id"]: each["state"] for each in found}

    def until_states(self, **expected: str) -> None:
        what = f"{self.run_id} has {expected}"
        self.airflow.until(what, lambda: (expected.items() <= self.states().items()) or None)

    def instances(self) -> list[dict[str, Any]]:
        return [one for one in self.airflow.control.instances() if self.run_id in one["title"]]

    def respond(self, option: str) -> dict[str, Any]:
        """Answer Airflow's question, as its page does, and return the question."""

        def waits() -> bool | None:
            # An answer that comes while the task's process ends may not wake the task. No person is so fast.
            asks = self.states().get(QUESTION) in {"awaiting_input", "deferred"}
            return (asks and self.airflow.has_reported_end("two_approvals", self.run_id, QUESTION)) or None

        self.airflow.until("Airflow asks", waits)
        question: dict[str, Any]
        (question,) = self.airflow.call("GET", f"{self.path}/hitlDetails")["hitl_details"]
        path = f"{self.path}/taskInstances/{QUESTION}/-1/hitlDetails"
        self.airflow.call("PATCH", path, {"chosen_options": [option], "params_input": {}})
        return question


@pytest.mark.parametrize(("decision", "published"), [("approve", "success"), ("reject", "upstream_failed")])
def test_nothing_is_published_unless_both_approve(deployed: Airflow, decision: str, published: str) -> None:
    run = Run(deployed, f"both-{decision}")
    question = run.respond("Approve")
    assert question["body"] == "Rows: 18204"
    run.until_states(request_approval="deferred")
    (instance,) = run.instances()
    assert instance["variables"]["row_count"] == 18204
    deployed.control.act(instance["id"], decision)
    run.until_states(publish=published)


def test_starts_no_instance_if_the_engineer_rejects(deployed: Airflow) -> None:
    run = Run(deployed, "rejected-in-airflow")
    run.respond("Reject")
    run.until_states(look_at_the_numbers="success", request_approval="skipped", publish="skipped")
    assert run.instances() == []
