"""One gate with this provider: one task, which starts the instance and waits for its end."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator
from benchmarks.batch.process_cost import DAG_ID

with DAG(DAG_ID, schedule=None):
    AstroZeroStartBpmInstanceOperator(
        task_id="gate",
        bpm_name="PublishApproval",
        variables={"dataset": "sales.daily", "row_count": 1000, "comment": "as ordered"},
        bp_statuses=["Approved"],
        deferrable=True,
        poll_interval=1,
    )
