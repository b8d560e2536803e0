"""Runs the Python blocks: a DAG file as Airflow parses and runs it, operators in a DAG of their own, the rest as it is."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.local_runs import person, run_dag

if TYPE_CHECKING:
    from airflow_provider_astrobpm.emulator.remote import EmulatorControl
    from tests.docs.pages import Block

PATIENCE = 30  # seconds
POLL_INTERVAL = 1  # seconds; the pages show what suits people, who take longer

_OWN_DAG = re.compile(r"^@dag\b|\bDAG\(", re.MULTILINE)
_TASKS = re.compile(r"\btask_id=|^@task\b", re.MULTILINE)


def run_python(
    block: Block, emulator: EmulatorControl, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run a block, and what is noted to be run after it.

    :param folder: an empty folder, which becomes Airflow's only one with DAG files.
    """
    outcomes: dict[str, dict[str, str]] = {}
    text = source(block)
    with _loaded(block, text, folder, monkeypatch) as (names, dags):
        if "parsed only" not in block.notes:
            for dag in dags:
                outcomes[dag.dag_id] = _run(dag, emulator)
        if then := block.notes.get("then"):
            names |= {"control": emulator, "outcomes": outcomes}
            exec(compile("\n" * (then.line - 1) + then.text, block.page, "exec"), names)  # noqa: S102


def source(block: Block) -> str:
    """Return a file in which everything stands in the lines that it has on the page.

    Operators outside a DAG are between the two halves of a ``with DAG(...)``, so that their lines stay as they are.
    """
    lines: dict[int, str] = {}
    if setting := block.notes.get("setting"):
        lines |= dict(enumerate(setting.text.splitlines(), setting.line))
    lines |= dict(enumerate(block.text.splitlines(), block.line))
    text = "\n".join(lines.get(number, "") for number in range(2, max(lines) + 1))
    if _TASKS.search(text) and not _OWN_DAG.search(text):
        name = f"{Path(block.page).stem}_{block.line}"
        first = f"from airflow.sdk import DAG as _DAG; _dag = _DAG({name!r}, schedule=None); _dag.__enter__()"
        return f"{first}\n{text}\n_dag.__exit__(None, None, None)\n"
    return f"\n{text}\n"


@contextmanager
def _loaded(
    block: Block, text: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """Yield the names that a block makes, and its DAGs."""
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
    before = set(sys.modules)
    bag = _dag_bag(path)
    try:
        assert not bag.import_errors, f"{block}: {bag.import_errors}"
        (module,) = (sys.modules[name] for name in set(sys.modules) - before if name.endswith(path.stem))
        dags = [dag for dag in bag.dags.values() if dag.tasks]
        assert dags, f"{block}: Airflow finds no DAG in it"
        yield vars(module), dags
    finally:
        for name in [name for name in sys.modules if name.endswith(path.stem)]:
            del sys.modules[name]


def _dag_bag(path: Path) -> Any:
    try:
        from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415
    except ImportError:  # before Airflow 3.2
        from airflow.models.dagbag import DagBag  # type: ignore[attr-defined, no-redef, unused-ignore]  # noqa: PLC0415
    return DagBag(dag_folder=str(path))


@contextmanager
def _alarm(dag: Any) -> Iterator[None]:
    """Let a run that waits for what never comes fail, wherever it is."""

    def ring(*_: object) -> None:
        raise TimeoutError(
            f"{dag.dag_id} has not ended after {PATIENCE} s; does it wait for what nobody does?"
        )

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _run(dag: Any, emulator: EmulatorControl) -> dict[str, str]:
    for task in dag.tasks:
        for name in ("poll_interval", "poke_interval"):
            if hasattr(task, name):
                setattr(task, name, POLL_INTERVAL)
    with (
        person(emulator, lambda instance: emulator.act(instance["id"], instance["outcomes"][0])),
        _alarm(dag),
    ):
        state, tasks = run_dag(dag)
    assert state == "success", f"{dag.dag_id} ended as {state}: {tasks}"
    return tasks
