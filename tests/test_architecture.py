"""Rules of the source that neither import-linter (``.importlinter``) nor ruff nor mypy can check."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "airflow_provider_astrobpm"
MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_private_module_is_imported_only_in_its_own_room(path: Path) -> None:
    """import-linter has a contract for this, but not yet on Python 3.10."""
    room = path.relative_to(PACKAGE).parts[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            for name in [f"{node.module}.{alias.name}".split(".") for alias in node.names]:
                if name[0] == PACKAGE.name and len(name) > 2 and name[2].startswith("_"):
                    assert name[1] == room, f"line {node.lineno}: {'.'.join(name)} is private to {name[1]}"


def test_no_named_tuple_is_generic() -> None:
    """Python 3.10 cannot define one, and neither ruff nor mypy reports it."""
    generic = [
        f"{path.relative_to(PACKAGE)}: {node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        and len(node.bases) > 1
        and any(ast.unparse(base).endswith("NamedTuple") for base in node.bases)
    ]
    assert generic == []


def test_only_version_compat_distinguishes_airflow_versions() -> None:
    for path in MODULES:
        if path == PACKAGE / "_airflow" / "version_compat.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                caught = {each.id for each in ast.walk(node.type) if isinstance(each, ast.Name)}
                assert not caught & {"ImportError", "ModuleNotFoundError"}, f"{path} line {node.lineno}"
            if isinstance(node, ast.ImportFrom) and node.module == "airflow":
                assert "__version__" not in [alias.name for alias in node.names], f"{path} line {node.lineno}"


def test_only_the_states_module_names_the_states() -> None:
    names = {
        "Waiting for user interaction",
        "Completed OK",
        "User Terminated",
        "CompletedOkWait",
        "Dispatched",
    }
    for path in MODULES:
        if path == PACKAGE / "client" / "states.py" or path.relative_to(PACKAGE).parts[0] == "emulator":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant):
                assert node.value not in names, f"{path} line {node.lineno}"
