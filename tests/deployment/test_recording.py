"""A failure in a deployment is recorded by its workers and its triggerer, and replays to the same error."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_astrobpm.client.errors import WaitFailedError
from airflow_provider_astrobpm.emulator.replay import Replay
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator
from tests.support.echoing import shown_in
from tests.triggers.conftest import Runner
from tests.triggers.test_recording import VALUE

if TYPE_CHECKING:
    from tests.deployment.conftest import Airflow

pytestmark = [pytest.mark.deployment, pytest.mark.together]


def requests_in(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the entries of each transcript."""
    return {
        file.name: [json.loads(line) for line in file.read_text().splitlines()[1:]]
        for file in sorted(folder.glob("*.jsonl"))
    }


def test_a_failure_is_recorded_and_replays(airflow: Airflow, transcripts: Path) -> None:
    folder = transcripts / airflow.connection
    airflow.connection += "_recorded"
    wait = airflow.run("wait_for_person")
    wait.until_deferred()
    instance = wait.instance
    airflow.control.move(instance["id"], state="Broken")
    wait.until_state("failed")

    recorded = requests_in(folder)
    senders = [{each["request"]["method"] for each in entries} for entries in recorded.values()]
    assert len(senders) >= 2, f"the worker and the triggerer, but {senders}"
    text = "".join(file.read_text() for file in folder.glob("*.jsonl"))
    for value in (wait.run_id, instance["id"], "PublishApproval", "emulator-only-secret"):
        assert not shown_in(text, value)

    errors = (wait.log_folder / "attempt=1.log").read_text()
    said = re.search(r"WaitFailedError.*?(The wait for instance [^\"\\]+)", errors)
    assert said, errors
    with EmulatorServer() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_REPLAYED", server.connection_json())
        replay: Replay = server.replay(folder)
        error = Runner().end_of(
            lambda: AstroZeroStartBpmInstanceOperator(
                task_id="wait",
                astro_zero_conn_id="replayed",
                bpm_name="PublishApproval",
                business_key="a key",
                poll_interval=1,
                deferrable=True,
            )
        )
    assert replay.differences == []
    assert isinstance(error, WaitFailedError)
    assert VALUE.sub("…", str(error)).endswith(VALUE.sub("…", said[1]))
    assert "'Broken'" in str(error)
