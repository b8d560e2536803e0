"""The result of a batch is the one that ``docs/batch.md`` shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm.testing.emulator_fixture import AstroZeroEmulator
from tests.docs.blocks import Block, blocks_of
from tests.docs.pages import ROOT
from tests.docs.python_blocks import loaded

PAGE = "docs/batch.md"

# The batch of the page's result: a launch that ends well, one that breaks, and one that is refused.
BATCH = """
from airflow.sdk import DAG

from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmBatchOperator

with DAG("orders", schedule=None):
    AstroZeroStartBpmBatchOperator(
        task_id="reconcile",
        bpm_name="NightlyReconciliation",
        launches=[
            {"id": "EU-16"},
            {"id": "EU-17", "title": "EU on 2026-11-24", "bpm_name": "AlwaysBroken"},
            {"id": "EU-18", "bpm_name": "NoSuchProcess"},
        ],
        max_failures=2,
    )
"""


@pytest.mark.usefixtures("airflow_database")
@pytest.mark.filterwarnings("ignore")  # warnings of Airflow and its dependencies
def test_the_result_is_the_one_on_the_page(
    emulator: AstroZeroEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = (
        each for each in blocks_of(PAGE, (ROOT / PAGE).read_text(encoding="utf-8")) if each.language == "json"
    )
    with loaded(Block(PAGE, 2, "python", BATCH), tmp_path, monkeypatch) as (_, dags):
        ended = emulator.run(dags[0])
    assert ended.state == "success"
    result = ended.dag_run.get_task_instance("reconcile").xcom_pull()
    shown = json.loads(block.text)
    first, shown_first = result.pop("launches")[0], shown.pop("launches")[0]
    assert result == shown
    assert list(first) == list(shown_first)
    constant = ("number", "id", "title", "outcome", "reason", "state", "bp_status", "url")
    assert of(first, constant) == of(shown_first, constant)


def of(launch: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {field: launch[field] for field in fields}
