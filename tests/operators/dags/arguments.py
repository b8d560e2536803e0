"""DAGs whose arguments are templates, outputs of tasks, or left to the provider."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
)

BPM = "Any"
HOSTILE = "{{ 7 * 6 }}"

with DAG("native", schedule=None, params={"v": "1.10"}, render_template_as_native_obj=True) as native:
    AstroZeroStartBpmInstanceOperator(
        task_id="gate",
        bpm_name=BPM,
        version="'{{ params.v }}'",
        business_key="{{ ds_nodash }}",
        title="{{ 42 }}",
        poll_interval=1,
    )

with DAG("as_text", schedule=None) as as_text:
    ALL: Any = "{{ dag_run.conf['vars'] }}"
    AstroZeroStartBpmInstanceOperator(task_id="gate", bpm_name=BPM, variables=ALL, poll_interval=1)

with DAG(
    "not_a_number",
    schedule=None,
    render_template_as_native_obj=True,
    user_defined_macros={"nan": float("nan")},
) as not_a_number:
    AstroZeroStartBpmInstanceOperator(
        task_id="gate", bpm_name=BPM, variables={"parts": [0, "{{ nan }}"]}, poll_interval=1
    )

with DAG("hostile", schedule=None) as hostile:

    @task
    def prepare() -> list[dict[str, Any]]:
        return [{"day": HOSTILE}]

    AstroZeroStartBpmInstanceOperator.partial(
        task_id="mapped", bpm_name=BPM, poll_interval=1, on_timeout="suspend", timeout=60
    ).expand(variables=prepare())

with DAG("titles", schedule=None) as titles:
    AstroZeroStartBpmInstanceOperator(task_id="gate", bpm_name=BPM, poll_interval=1)
    AstroZeroStartBpmBatchOperator(
        task_id="many", bpm_name=BPM, launches=[{}, {"title": "own"}], poll_interval=1
    )
    AstroZeroStartBpmInstanceOperator.partial(task_id="each", bpm_name=BPM, poll_interval=1).expand(
        variables=[{"$Flow.Title": "of the variables"}, {}]
    )
