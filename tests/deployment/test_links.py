"""The link to the instance, and the variables that a function returned, in Airflow's REST API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.deployment.conftest import Airflow, Wait

pytestmark = [pytest.mark.deployment, pytest.mark.together]

NAME = "Open in Astro Zero"
VARIABLES = {"dataset": "{{ 7 * 6 }}", "row_count": 3}


def links(wait: Wait) -> dict[str, str | None]:
    path = f"/api/v2/dags/{wait.dag_id}/dagRuns/{wait.run_id}/taskInstances/wait/links"
    found: dict[str, str | None] = wait.airflow.call("GET", path)["extra_links"]
    return found


def shown_variables(wait: Wait) -> object:
    return wait.task["rendered_fields"]["variables"]


def address(instance_id: str) -> str:
    return f"https://astro-zero.example/instances/{instance_id}"


@pytest.mark.parametrize("dag_id", ["link_of_operator", "link_of_sensor", "link_of_decorated"])
def test_link_exists_while_the_task_waits_and_after_its_end(airflow: Airflow, dag_id: str) -> None:
    wait = airflow.run(dag_id)
    if dag_id == "link_of_sensor":
        airflow.control.start("PublishApproval", business_key=wait.run_id)
    wait.until_deferred()
    (instance,) = wait.instances
    if dag_id == "link_of_decorated":
        assert instance["variables"]["dataset"] == VARIABLES["dataset"]
        assert shown_variables(wait) == VARIABLES
    # The sensor may have polled before there was an instance; then the trigger finds it.
    assert links(wait) in ([{NAME: address(instance["id"])}] if dag_id != "link_of_sensor" else [
        {NAME: address(instance["id"])}, {NAME: None}
    ])  # fmt: skip
    wait.approve()
    wait.until_state("success")
    assert links(wait) == {NAME: address(instance["id"])}
    if dag_id == "link_of_decorated":
        # A resumed task starts without them. Airflow stores the rendered fields again only after it has reported the success.
        wait.until("the page shows the variables", lambda: shown_variables(wait) == VARIABLES or None)


def test_link_exists_after_a_failure(airflow: Airflow) -> None:
    wait = airflow.run("link_of_operator")
    wait.until_deferred()
    instance = wait.instance
    airflow.control.move(instance["id"], state="Broken")
    wait.until_state("failed")
    assert links(wait) == {NAME: address(instance["id"])}


def test_no_link_without_a_template(airflow: Airflow) -> None:
    wait = airflow.run("wait_for_person")
    wait.until_deferred()
    assert links(wait) == {NAME: None}
    wait.assert_approval_succeeds()
    assert links(wait) == {NAME: None}
