"""Reads the incident from the context that Airflow passes to a callback. Its contents depend on the kind of callback.

| called for                         | ``dag_run``            | ``ti``             | ``reason`` | ``deadline`` |
|------------------------------------|------------------------|--------------------|------------|--------------|
| a task                             | the run                | the task's         |            |              |
| the end of a DAG run               | the run, usually       | the last, usually  | yes        |              |
| a missed deadline                  | the run, as plain JSON |                    |            | yes          |
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow_provider_astrobpm.starting.business_keys import region_of
from airflow_provider_astrobpm.starting.incident import IncidentKey

MAX_STAMP_CHARS = 64  # longer than any timestamp; an error shows it


def incident_key(context: Mapping[str, Any]) -> IncidentKey:
    """Return the incident of a callback.

    :raises ValueError: if the context does not name the DAG run.
    """
    run, ti, deadline = (context.get(name) for name in ("dag_run", "ti", "deadline"))
    dag_id = _first(_of(run, "dag_id"), _of(ti, "dag_id"), _of(context.get("dag"), "dag_id"))
    run_id = _first(_of(run, "run_id"), _of(run, "dag_run_id"), _of(ti, "run_id"), context.get("run_id"))
    if dag_id is None or run_id is None:
        raise ValueError("the context does not name its DAG run; give the notifier a business_key")
    since = _seconds(_of(run, "run_after"))
    if deadline is not None:
        return IncidentKey(dag_id=dag_id, run_id=run_id, deadline_id=str(_of(deadline, "id")), since=since)
    if ti is None or "reason" in context:
        return IncidentKey(dag_id=dag_id, run_id=run_id, number=_of(run, "clear_number") or 0, since=since)
    index = _of(ti, "map_index")
    return IncidentKey(
        dag_id=dag_id,
        run_id=run_id,
        task_id=ti.task_id,
        map_index=-1 if index is None else index,
        region=region_of(ti, context),
        number=ti.try_number,
        since=since,
    )


def incident_title(context: Mapping[str, Any]) -> str | None:
    """Return the title of the incident, or ``None`` if the context does not name the DAG run."""
    try:
        return incident_key(context).title()
    except (ValueError, AttributeError):
        return None


def _of(owner: Any, name: str) -> Any:
    return owner.get(name) if isinstance(owner, Mapping) else getattr(owner, name, None)


def _first(*values: Any) -> str | None:
    return next((str(value) for value in values if value), None)


def _seconds(moment: Any) -> float | None:
    """Return a moment, which may come as JSON, in seconds since the epoch."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment.replace("Z", "+00:00")[:MAX_STAMP_CHARS])
    return moment.timestamp() if isinstance(moment, datetime) else None
