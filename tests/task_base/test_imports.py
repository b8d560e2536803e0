"""The libraries that a process imports, because imports are most of what a task costs a worker."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LIBRARIES = ("aiohttp", "requests")
RESUMED = """
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator
from airflow_provider_astrobpm.waiting import event_payload
hook = AstroZeroStartBpmInstanceOperator(task_id="gate", bpm_name="PublishApproval").hook
print(hook.settings.page_url("1"))
"""
DEFERRED = """
from airflow_provider_astrobpm.client import search
from airflow_provider_astrobpm.starting import decision, instance_starter
from airflow_provider_astrobpm.task_base import task_state_record, termination
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmInstanceTrigger
from airflow_provider_astrobpm.waiting import wait
AstroZeroBpmInstanceTrigger(astro_zero_conn_id="astro_zero_default", instance_id="1")
"""
WAITING = """
from airflow_provider_astrobpm.triggers.base import import_runtime_modules
import_runtime_modules()
"""


@pytest.mark.parametrize(
    ("code", "imported"),
    [
        pytest.param(RESUMED, [], id="a task that resumes imports no client"),
        pytest.param(
            DEFERRED, ["requests"], id="a task that starts and defers imports the synchronous client"
        ),
        pytest.param(WAITING, ["aiohttp", "requests"], id="a trigger imports everything before it runs"),
    ],
)
def test_imported_libraries(code: str, imported: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "astro_zero", "host": "http://127.0.0.1:1", "login": "a", "password": "b"}
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))
    show = f"import json, sys; print(json.dumps([one for one in {LIBRARIES!r} if one in sys.modules]))"
    probe = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"], check=True, stdout=subprocess.PIPE, text=True
    )
    assert json.loads(probe.stdout.splitlines()[-1]) == imported
