"""The provider as Airflow sees it: by its schema, on its command line and in its connection form."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.sdk import task
from packaging.version import Version

from airflow_provider_astrobpm.decorators.bpm import astro_bpm_task
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.links.bpm import AstroZeroBpmInstanceLink
from airflow_provider_astrobpm.provider_info import get_provider_info

PACKAGE = "airflow-provider-astrobpm"


def airflow_command(*arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "airflow", *arguments, "--output", "json"],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return json.loads(done.stdout[done.stdout.index("[{") :])


def test_matches_airflows_schema() -> None:
    schema = json.loads(
        (Path(airflow.__file__).parent / "provider_info.schema.json").read_text(encoding="utf-8")
    )
    jsonschema.validate(get_provider_info(), schema)


def test_named_modules_and_classes_exist() -> None:
    info = get_provider_info()
    modules = [
        module
        for kind in ("hooks", "operators", "sensors", "triggers")
        for entry in info[kind]
        for module in entry["python-modules"]
    ]
    assert len(modules) == 4
    for module in modules:
        importlib.import_module(module)
    for path in (*(each["class-name"] for each in info["task-decorators"]), *info["notifications"]):
        module, _, name = path.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))
    (link,) = info["extra-links"]
    assert link == f"{AstroZeroBpmInstanceLink.__module__}.{AstroZeroBpmInstanceLink.__name__}"
    (connection_type,) = info["connection-types"]
    assert connection_type["hook-class-name"] == f"{AstroZeroHook.__module__}.{AstroZeroHook.__name__}"
    assert connection_type["connection-type"] == AstroZeroHook.conn_type
    assert connection_type["hook-name"] == AstroZeroHook.hook_name


@pytest.mark.usefixtures("airflow_database")
class TestOnAirflow:
    def test_providers_get(self) -> None:
        (shown,) = airflow_command("providers", "get", PACKAGE, "--full")
        assert shown["package-name"] == PACKAGE
        assert "astro_zero" in str(shown["connection-types"])

    def test_airflow_finds_everything_in_it(self) -> None:
        manager = importlib.import_module("airflow.providers_manager").ProvidersManager()
        assert "airflow_provider_astrobpm.notifications.bpm.AstroZeroStartBpmNotifier" in manager.notification
        assert task.astro_bpm is astro_bpm_task

    def test_providers_hooks(self) -> None:
        (shown,) = [
            row for row in airflow_command("providers", "hooks") if row["connection_type"] == "astro_zero"
        ]
        assert shown["class"].endswith("AstroZeroHook")
        assert PACKAGE in str(shown)
        assert AstroZeroHook.hook_name in str(shown)

    @pytest.mark.filterwarnings("ignore")  # Airflow and its libraries emit their own warnings here
    def test_connection_form(self) -> None:
        service = importlib.import_module(
            "airflow.api_fastapi.core_api.services.ui.connections"
        ).HookMetaService
        (meta,) = [each for each in service.hook_meta_data() if each.connection_type == "astro_zero"]
        assert meta.hook_name == "Huawei Cloud Astro Zero"
        if Version(airflow.__version__) < Version("3.2"):
            assert not meta.extra_fields  # a form made of data is not known there: extras are written as JSON
            return
        assert meta.standard_fields.login.title == "Client id"
        assert meta.standard_fields.password.title == "Client secret"
        assert meta.extra_fields["access_token"]["schema"]["format"] == "password"
        assert meta.extra_fields["instance_lookup"]["schema"]["enum"][:3] == ["auto", "list", "by_id"]


def test_hook_needs_only_a_connection_id() -> None:
    parameters = inspect.signature(AstroZeroHook).parameters
    assert [parameter.default for parameter in parameters.values()] == ["astro_zero_default"]
    assert AstroZeroHook.conn_name_attr in parameters
