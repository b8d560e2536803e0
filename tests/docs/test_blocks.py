"""Every code block of the README and the documentation runs, or shows an output; ``docs/contributing.md`` says how."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import airflow
import pytest
from packaging.version import Version

from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.testing.emulator_fixture import AstroZeroEmulator
from tests.docs.blocks import Block
from tests.docs.data_blocks import read_connection, read_json, read_yaml
from tests.docs.pages import ROOT, pages
from tests.docs.python_blocks import run_note, run_python
from tests.docs.shell_blocks import matches, run_shell, serve

BLOCKS = [block for page in pages() for block in page.blocks()]

# The beginnings of commands and programs, which are not output.
_RUNNABLE = re.compile(r"^(?:\$ |make |pip |python |airflow |export |curl |from \w+ import |import |@dag)")


def _of(language: str) -> list[Block]:
    """Return the blocks of a language that no other test runs."""
    return [block for block in BLOCKS if block.language == language and "run by" not in block.notes]


def _skip_if_too_old(block: Block) -> None:
    if needs := block.notes.get("needs"):
        found = re.fullmatch(r"Airflow (\d+\.\d+)", needs.text)
        assert found, f"{block} needs {needs.text!r}, not 'Airflow X.Y'"
        if Version(airflow.__version__).release[:2] < Version(found[1]).release:
            pytest.skip(f"needs {needs.text}")


@pytest.mark.usefixtures("airflow_database")
@pytest.mark.filterwarnings("ignore")  # warnings of Airflow and its dependencies
@pytest.mark.parametrize("block", _of("python"), ids=str)
def test_a_python_block_runs(
    block: Block, emulator: AstroZeroEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _skip_if_too_old(block)
    run_python(block, emulator, tmp_path, monkeypatch)


@pytest.mark.parametrize("block", _of("shell"), ids=str)
def test_a_shell_block_runs(
    block: Block,
    emulator: AstroZeroEmulator,
    emulator_server: EmulatorServer,
    free_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _skip_if_too_old(block)
    elsewhere = re.search(r"^(?:make|pip|airflow standalone)\b.*", block.text, re.MULTILINE)
    assert elsewhere is None, (
        f"{block}: {elsewhere and elsewhere[0]!r} is nothing to do here; say what runs it"
    )
    if "serves" in block.notes:
        serve(block, free_port, tmp_path)
        return
    names: dict[str, Any] = {"control": emulator, "environment": {}}
    run_note(block, "given", names)
    printed, left = run_shell(block, emulator_server.port, tmp_path, names["environment"])
    if block.output is not None:
        assert matches(block.output.text, printed), (
            f"{block} has printed\n{printed}\nand not\n{block.output.text}"
        )
    run_note(block, "then", {**names, "printed": printed, "left": left})
    for name, value in left.items():
        if name.startswith("AIRFLOW_CONN_") and os.environ.get(name) != value:
            read_connection(value, monkeypatch)


@pytest.mark.parametrize("block", [*_of("yaml"), *_of("json")], ids=str)
def test_a_data_block_can_be_read(
    block: Block, emulator: AstroZeroEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    if block.language == "yaml":
        read_yaml(block, emulator)
    else:
        read_json(block, monkeypatch)


@pytest.mark.parametrize("block", _of("text"), ids=str)
def test_a_text_block_holds_no_command(block: Block) -> None:
    assert not _RUNNABLE.match(block.text), f"{block} looks like something to run"


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_each_block_runs_or_is_output(block: Block) -> None:
    run_by = block.notes.get("run by")
    if run_by is None:
        known = ("python", "shell", "yaml", "json", "text")
        assert block.language in known, (
            f"{block}: nothing runs {block.language or 'a block without a language'}"
        )
        return
    path, _, words = run_by.text.partition(": ")
    assert (ROOT / path).is_file(), f"{block} is run by {path}, which does not exist"
    assert _is_run(path), f"{block} is run by {path}, which neither pytest nor .ci/run runs"
    text = (ROOT / path).read_text(encoding="utf-8")
    assert (words or Path(block.page).name) in text, f"{path} does not have {words or block.page!r}"


def _is_run(path: str) -> bool:
    """Return whether CI runs a file: a test, its own list of commands, or a script of one of these."""
    name = Path(path).name
    if path == ".ci/run" or (path.startswith("tests/") and name.startswith("test_")):
        return True
    commands = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    rules = dict(re.findall(r"^([a-z-]+):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE))
    targets = re.findall(r"^make ([a-z-]+)", commands, re.MULTILINE)
    return any(path in rules.get(target, "") for target in targets)
