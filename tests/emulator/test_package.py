"""The emulator imports only the state names from this package, and nothing from Airflow."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import airflow_provider_astrobpm.emulator as package

FOLDER = Path(package.__file__).parent
ALLOWED = ("airflow_provider_astrobpm.client.states", "airflow_provider_astrobpm.emulator")


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return names


def test_the_emulator_imports_only_the_state_names() -> None:
    found = {name for path in FOLDER.rglob("*.py") for name in imports(path) if name.startswith("airflow")}
    assert {name for name in found if not name.startswith(ALLOWED)} == set()


def test_the_emulator_runs_without_airflow() -> None:
    code = "import sys; sys.modules['airflow'] = None; import airflow_provider_astrobpm.emulator.__main__"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_modules_are_short_and_have_a_docstring() -> None:
    for path in FOLDER.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), path.name
        assert len(text.splitlines()) <= 330, path.name
