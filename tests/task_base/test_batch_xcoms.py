"""What a batch has published: XComs of another form are an error, and decide nothing."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_astrobpm._airflow import xcom_keys
from airflow_provider_astrobpm.client.errors import AstroZeroError
from airflow_provider_astrobpm.task_base.batch_xcoms import published
from tests.support.task_instance import FakeTaskInstance

GOOD: dict[str, Any] = {
    xcom_keys.INSTANCE_IDS: ["002N1", None],
    xcom_keys.REFUSED_LAUNCHES: {"refused": [2]},
    xcom_keys.BATCH_KEY: "batch-1",
    xcom_keys.BPM_NAMES: ["Approval"],
    xcom_keys.LAUNCH_IDS: [1, "b"],
}


def task_with(**xcoms: Any) -> FakeTaskInstance:
    ti = FakeTaskInstance()
    ti.xcoms = {**GOOD, **xcoms}
    return ti


def test_what_was_published_is_read() -> None:
    batch = published(task_with().context)
    assert (batch.ids, batch.awaited, batch.refusals) == (["002N1", None], ["002N1"], {2: "refused"})
    assert [one.id for one in batch.author_fields] == [1, "b"]


@pytest.mark.parametrize(
    "damaged",
    [
        {xcom_keys.INSTANCE_IDS: None},
        {xcom_keys.INSTANCE_IDS: [7]},
        {xcom_keys.INSTANCE_IDS: "002N1"},
        {xcom_keys.REFUSED_LAUNCHES: {"refused": 2}},
        {xcom_keys.REFUSED_LAUNCHES: {"refused": [[2]]}},
        {xcom_keys.SATISFIED_LAUNCHES: [[1]]},
        {xcom_keys.SATISFIED_LAUNCHES: 1},
        {xcom_keys.BATCH_KEY: 1},
        {xcom_keys.BPM_NAMES: 7},
        {xcom_keys.BPM_NAMES: [None]},
    ],
)
def test_another_form_is_an_error(damaged: dict[str, Any]) -> None:
    with pytest.raises(AstroZeroError, match="do not say what this try has started"):
        published(task_with(**damaged).context)


@pytest.mark.parametrize(
    "damaged",
    [
        {xcom_keys.LAUNCH_IDS: [1]},
        {xcom_keys.LAUNCH_IDS: [None, None]},
        {xcom_keys.LAUNCH_TITLES: ["one"]},
        {xcom_keys.LAUNCH_TITLES: [1, 2]},
        {xcom_keys.LAUNCH_VARIABLES: 7},
    ],
)
def test_authors_fields_of_another_form_count_as_not_published(damaged: dict[str, Any]) -> None:
    assert published(task_with(**damaged).context).author_fields == []
