"""The commands in docs/command-line.md run, and its table of exit codes equals the one in ``--help``."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from airflow_provider_astrobpm.cli.definition import COMMANDS
from airflow_provider_astrobpm.cli.exit_codes import MEANINGS
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from tests.cli.conftest import Run

PAGE = (Path(__file__).parent.parent.parent / "docs" / "command-line.md").read_text(encoding="utf-8")
PREFIXES = (["airflow", "astro-zero"], ["python", "-m", "airflow_provider_astrobpm"])
SHOWN = [line for block in re.findall(r"```shell\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.mark.usefixtures("zone", "airflow_database")
@pytest.mark.parametrize("line", SHOWN)
def test_command_on_the_page_runs(
    line: str, run: Run, emulator: EmulatorControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "variables.json").write_text('{"supplier": "ACME"}', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    one = emulator.start("SupplierOnboarding", business_key="order-4711")["id"]
    emulator.start("NightlyReconciliation")
    words = shlex.split(line.replace("$ID", one))
    (prefix,) = (each for each in PREFIXES if words[: len(each)] == each)
    done = run(*words[len(prefix) :])
    assert done.code == 0, done.err


def test_page_shows_every_command_except_doctor() -> None:
    shown = {words[2 if words[0] == "airflow" else 3] for words in map(shlex.split, SHOWN)}
    assert shown == {command.name for command in COMMANDS} - {"doctor"}


def test_page_has_the_exit_codes_of_the_help() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert rows == [(str(int(code)), meaning) for code, meaning in MEANINGS.items()]
