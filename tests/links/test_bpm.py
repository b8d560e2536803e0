"""The link to an instance; ``tests/crash`` asks a real Airflow for it."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import XCom

from airflow_provider_astrobpm.links.bpm import AstroZeroBpmInstanceLink
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator


@pytest.mark.parametrize("url", ["https://astro-zero.example/1", None])
def test_it_leads_where_the_task_has_published_that_its_instance_is(
    url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    xcoms = {"instance_url": url}

    def get_value(*, ti_key: Any, key: str) -> Any:
        assert ti_key == "this task"
        return xcoms[key]

    monkeypatch.setattr(XCom, "get_value", get_value)
    task = AstroZeroStartBpmInstanceOperator(task_id="task", bpm_name="Approval")
    (link,) = task.operator_extra_links
    assert isinstance(link, AstroZeroBpmInstanceLink)
    assert link.name == "Open in Astro Zero"
    assert link.get_link(task, ti_key="this task") == (url or "")  # type: ignore[arg-type]
    assert link.xcom_key == "instance_url", "Airflow looks there while the task waits"
