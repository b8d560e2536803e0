"""Airflow calls the notifier for tasks, runs and deadlines, and a failure that is reported twice starts one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import airflow as installed
import pytest
from packaging.version import Version

from airflow_provider_astrobpm.starting.incident import IncidentKey

if TYPE_CHECKING:
    from tests.deployment.conftest import Airflow, Wait

pytestmark = [pytest.mark.deployment, pytest.mark.together]

VERSION = Version(Version(installed.__version__).base_version)


def incidents(wait: Wait) -> list[dict[str, Any]]:
    """Return the incident processes of a run, oldest first."""
    everything = wait.airflow.control.instances(name="SupplierOnboarding")
    return [each for each in everything if each["variables"]["supplier"] == wait.run_id]


def until_reported_again(wait: Wait, incident: dict[str, Any]) -> None:
    """Wait until a log says that the process had been started before."""
    words = f"Nothing was started: this was already reported to instance '{incident['id']}'"
    wait.until("it was reported again", lambda: wait.airflow.files_with(words) or None)


def until_incidents(wait: Wait, number: int) -> list[dict[str, Any]]:
    def there() -> list[dict[str, Any]] | None:
        found = incidents(wait)
        return found if len(found) >= number else None

    found = wait.until(f"{number} processes were started", there)
    for incident in found:
        until_reported_again(wait, incident)
    assert len(incidents(wait)) == number
    return found


def test_failed_run(deployed: Airflow) -> None:
    wait = deployed.run("report_run")
    (first,) = until_incidents(wait, 1)
    assert first["business_key"] == IncidentKey(dag_id=wait.dag_id, run_id=wait.run_id).key()
    assert first["variables"]["country"] == "wait"
    wait.clear()
    second = until_incidents(wait, 2)[-1]
    assert second["business_key"] == IncidentKey(dag_id=wait.dag_id, run_id=wait.run_id, number=1).key()


def test_failed_task(deployed: Airflow) -> None:
    wait = deployed.run("report_task")
    found = until_incidents(wait, 4)
    keys = {
        IncidentKey(
            dag_id=wait.dag_id, run_id=wait.run_id, task_id="wait", map_index=index, number=number
        ).key()
        for index in (0, 1)
        for number in (1, 2)
    }
    assert {each["business_key"] for each in found} == keys


@pytest.mark.skipif(Version("3.3") > VERSION, reason="there are no deadlines, or none of both kinds")
def test_missed_deadline(deployed: Airflow) -> None:
    wait = deployed.run("report_deadline")
    wait.until_deferred()

    def there() -> list[dict[str, Any]] | None:
        found = incidents(wait)
        return found if len(found) >= 2 else None

    found = wait.until("both alerts have started a process", there)
    assert {each["title"] for each in found} == {"AsyncCallback", "SyncCallback"}
    for each in found:
        deadline_id = each["variables"]["country"]
        key = IncidentKey(dag_id=wait.dag_id, run_id=wait.run_id, deadline_id=deadline_id).key()
        assert each["business_key"] == key
    wait.approve()
    wait.until_state("success")
    assert len(incidents(wait)) == 2
