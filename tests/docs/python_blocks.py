"""Run the Python blocks: a DAG file as Airflow parses and runs it, operators in a DAG of their own, other code as it is."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow_provider_astrobpm.testing.emulator_fixture import AstroZeroEmulator
    from tests.docs.blocks import Block, Note

RUN_TIMEOUT_SECONDS = 20

DECISIONS = {"PublishApproval": "approve", "SupplierOnboarding": "complete"}
"""The decision of a person, by process."""

_OWN_DAG = re.compile(r"^@dag\b|\bDAG\(", re.MULTILINE)
_TASKS = re.compile(r"\btask_id=|^@task\b", re.MULTILINE)


def run_python(
    block: Block, emulator: AstroZeroEmulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run a block, and the code in its notes before and after it.

    :param folder: an empty folder, which becomes Airflow's only one with DAG files.
    """
    for process, outcome in DECISIONS.items():
        emulator.decides(process, outcome)
    names: dict[str, Any] = {"control": emulator, "run_conf": {}, "outcomes": {}}
    expected = "failed" if "fails" in block.notes else "success"
    run_note(block, "given", names)
    with loaded(block, folder, monkeypatch) as (made, dags):
        if "parsed only" not in block.notes:
            for dag in dags:
                assert dag.tasks or "then" in block.notes, f"{block}: {dag.dag_id} has no task"
                ended = emulator.run(dag, give_up_after=RUN_TIMEOUT_SECONDS, run_conf=names["run_conf"])
                assert ended.state == expected, f"{block}: {dag.dag_id} has ended as {ended}"
                names["outcomes"][dag.dag_id] = ended.tasks
        run_note(block, "then", {**made, **names})


def run_note(block: Block, name: str, names: dict[str, Any]) -> None:
    """Run the Python code of a note above a block, if there is one."""
    if note := block.notes.get(name):
        exec(compile(_in_place(note), block.page, "exec"), names)  # noqa: S102


def source(block: Block) -> str:
    """Return a file in which each line has the number that it has on the page.

    Operators outside a DAG are between the two halves of a ``with DAG(...)``, so that their lines stay as they are.
    """
    lines = dict(enumerate(block.text.splitlines(), block.line))
    if setting := block.notes.get("setting"):
        lines |= dict(enumerate(setting.text.splitlines(), setting.line))
    text = "\n".join(lines.get(number, "") for number in range(2, max(lines) + 1))
    if _TASKS.search(text) and not _OWN_DAG.search(text):
        name = f"{Path(block.page).stem}_{block.line}"
        first = f"from airflow.sdk import DAG as _DAG; _dag = _DAG({name!r}, schedule=None); _dag.__enter__()"
        return f"{first}\n{text}\n_dag.__exit__(None, None, None)\n"
    return f"\n{text}\n"


@contextmanager
def loaded(
    block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """Yield the names that a block defines, and its DAGs."""
    text = source(block)
    if not (_TASKS.search(text) or _OWN_DAG.search(text)):
        names: dict[str, Any] = {"__name__": Path(block.page).stem}
        exec(compile(text, block.page, "exec"), names)  # noqa: S102
        yield names, []
        return
    path = folder / f"block_{Path(block.page).stem.replace('-', '_')}_{block.line}.py"
    path.write_text(text, encoding="utf-8")
    bundle = {
        "name": path.stem,
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(folder)},
    }
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
    try:
        bag = _dag_bag(path)
        assert not bag.import_errors, f"{block}: {bag.import_errors}"
        (module,) = (module for name, module in sys.modules.items() if name.endswith(path.stem))
        dags = list(bag.dags.values())
        assert dags, f"{block}: Airflow finds no DAG in it"
        yield vars(module), dags
    finally:
        for name in [name for name in sys.modules if name.endswith(path.stem)]:
            del sys.modules[name]


def _dag_bag(path: Path) -> Any:
    try:
        from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415
    except ImportError:  # before Airflow 3.2
        from airflow.models.dagbag import (  # type: ignore[attr-defined, no-redef, unused-ignore]  # noqa: PLC0415
            DagBag,
        )
    return DagBag(dag_folder=str(path))


def _in_place(note: Note) -> str:
    """Return its code with the line numbers of the page, so that tracebacks show them."""
    return "\n" * (note.line - 1) + note.text
