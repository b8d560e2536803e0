"""A worker applies the retry policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import airflow as installed
import pytest
from packaging.version import Version

if TYPE_CHECKING:
    from tests.deployment.conftest import Airflow

VERSION = Version(Version(installed.__version__).base_version)

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.together,
    pytest.mark.skipif(Version("3.3") > VERSION, reason="tasks have no retry_policy"),
]


def test_refused_start_is_not_retried(airflow: Airflow) -> None:
    wait = airflow.run("policy_refused")
    wait.until_state("failed")
    assert (wait.task["try_number"], wait.task["max_tries"]) == (1, 3)
    assert airflow.files_with("RefusedError: a retry would end in the same way")


def test_start_in_doubt_is_retried_soon_and_adopted(airflow: Airflow) -> None:
    airflow.control.fault("start", "drop_before")
    wait = airflow.run("policy_in_doubt")

    def ended() -> dict[str, Any] | None:
        task = wait.task
        return task if task["state"] == "success" else None

    task = wait.until("the retry has succeeded", ended)
    assert task["try_number"] == 2, "its own retry_delay is an hour"
    assert airflow.control.counts()["start"] == 2
