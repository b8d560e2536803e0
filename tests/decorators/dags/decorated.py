"""DAGs with ``@task.astro_bpm`` that the tests run by ``dag.test()``."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

BPM = "NightlyReconciliation"
HOSTILE = "{{ 7 * 6 }} {% raise %} {{ var.value.secret }}"

DAGS: dict[str, DAG] = {}


def _named(dag_id: str, **options: Any) -> DAG:
    DAGS[dag_id] = globals()[dag_id] = DAG(dag_id, schedule=None, **options)
    return DAGS[dag_id]


for deferrable in (False, True):
    where = "deferred" if deferrable else "on_worker"

    with _named(f"gate_{where}"):

        @task
        def rows() -> int:
            return 7

        @task.astro_bpm(
            bpm_name=BPM,
            title="Of {{ run_id }}",
            bp_statuses=["Done"],
            poll_interval=1,
            deferrable=deferrable,
        )
        def ask(rows: Any, run_id: Any = None) -> dict[str, Any]:
            return {"ledger": HOSTILE, "business_date": rows, "run": run_id}

        @task
        def after(instance: Any) -> None:
            assert instance["bp_status"] == "Done"

        after(ask(rows()))

    with _named(f"mapped_{where}"):

        @task.astro_bpm(bpm_name="No", poll_interval=1, deferrable=deferrable)
        def reconcile(ledger: str, day: str) -> dict[str, Any]:
            return {"ledger": ledger, "business_date": day}

        @task
        def count(instances: Any) -> None:
            assert len(list(instances)) == 3

        some = reconcile.override(bpm_name=BPM, task_id="some").partial(day="today")
        count(some.expand(ledger=["EU", "US", "CN"]))

with _named("with_variables"):

    @task.astro_bpm(bpm_name=BPM, poll_interval=1)
    def with_variables(ledger: str) -> dict[str, Any]:
        return {"ledger": ledger}

    with_variables.override(variables={"a": 1}).expand(ledger=["EU"])

with _named("out_as_none", render_template_as_native_obj=True):

    @task.astro_bpm(bpm_name=BPM, title="{{ none }}")
    def out_as_none(ledger: str) -> dict[str, Any]:
        return {"ledger": ledger}

    out_as_none.expand(ledger=["EU"])
