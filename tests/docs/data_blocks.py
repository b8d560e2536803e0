"""Read YAML and JSON blocks as the emulator and a connection do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook

if TYPE_CHECKING:
    from airflow_provider_astrobpm.client.settings import Settings
    from airflow_provider_astrobpm.testing.emulator_fixture import AstroZeroEmulator
    from tests.docs.blocks import Block

CONNECTION = "AIRFLOW_CONN_OF_A_PAGE"


def read_yaml(block: Block, emulator: AstroZeroEmulator) -> None:
    """Add the processes of a block to an emulator, and start each of them."""
    content = yaml.safe_load(block.text)
    assert "processes" in content, f"{block}: nothing here takes such YAML"
    emulator.add_processes(block.text)
    for process in content["processes"]:
        emulator.start(process["name"], version=process.get("version"))


def read_json(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a connection, or the extras of one."""
    content: dict[str, Any] = json.loads(block.text)
    if "conn_type" not in content:
        whole = {"conn_type": "astro_zero", "host": "example.com", "login": "id", "password": "a secret"}
        content = {**whole, "extra": content}
    read_connection(json.dumps(content), monkeypatch)


def read_connection(text: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings that a hook reads from a connection, written as JSON or as a URI."""
    monkeypatch.setenv(CONNECTION, text)
    return AstroZeroHook("of_a_page").settings
