"""A name means one thing: no class and no module of the package has the name of another."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "airflow_provider_astrobpm"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Airflow's convention: the public import paths of a provider's hooks, operators, sensors, and so on end in its subject.
SUBJECT = "bpm"


def repeated(names: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: places for name, places in names.items() if len(places) > 1}


def test_each_class_name_is_defined_once() -> None:
    defined: dict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                defined[node.name.lstrip("_")].append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert repeated(defined) == {}


def test_each_module_name_is_used_once() -> None:
    modules: dict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        if not path.stem.startswith("__") and path.stem != SUBJECT:
            modules[path.stem.lstrip("_")].append(str(path.relative_to(PACKAGE)))
    assert repeated(modules) == {}


def test_no_module_has_the_name_of_a_room() -> None:
    rooms = {path.name.lstrip("_") for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert [path for path in MODULES if path.stem.lstrip("_") in rooms and path.parent != PACKAGE] == []
