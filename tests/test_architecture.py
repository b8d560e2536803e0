"""The rooms and their arrows: who may import whom, read off the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "airflow_provider_astrobpm"
NAME = PACKAGE.name
MODULES = sorted(PACKAGE.rglob("*.py"))

# For each room what it may import of the package, besides itself. A room never imports one beside or above it.
ROOMS: dict[str, set[str]] = {
    "__main__": {"cli"},
    "pytest_plugin": {"testing", "emulator", "bpm"},
    "testing": {"emulator", "hooks", "bpm"},
    "cli": {"doctor", "hooks", "bpm"},
    "doctor": {"bpm"},
    "decorators": {"operators", "tasks", "_airflow"},
    "notifications": {"hooks", "bpm"},
    "policies": {"_airflow", "bpm"},
    "operators": {"links", "tasks", "triggers", "hooks", "_airflow", "bpm"},
    "sensors": {"links", "tasks", "triggers", "hooks", "_airflow", "bpm"},
    "tasks": {"triggers", "hooks", "_airflow", "bpm"},
    "links": {"_airflow"},
    "triggers": {"hooks", "_airflow", "bpm"},
    "hooks": {"_airflow", "bpm"},
    "_airflow": {"bpm"},
    "bpm": set(),
    "emulator": {"client.states"},
    "provider_info": set(),
    "__init__": set(),
}

# Inside bpm/: each module may import those before it.
BPM_ORDER = (
    "texts",
    "disguises",
    "secrecy",
    "checks",
    "variables",
    "meter",
    "moment",
    "states",
    "places",
    "cursor",
    "settings",
    "instance",
    "wire",
    "errors",
    "timestamps",
    "csrf",
    "key_form",
    "sameness",
    "ages",
    "shown_keys",
    "generation",
    "try_record",
    "condition",
    "api",
    "definitions",
    "exchange",
    "token",
    "retry",
    "task_retry",
    "findings",
    "search",
    "listing",
    "key_search",
    "lost_start",
    "effect",
    "change",
    "trial",
    "wait",
    "look",
    "lookup",
    "watch",
    "group_wait",
    "identity",
    "adoption",
    "launch",
    "incident",
    "launches",
    "batch_record",
    "batch",
    "batch_account",
    "batch_result",
    "failure",
    "tls",
    "proxies",
    "transport",
    "client",
    "aio_transport",
    "aio",
    "batch_start",
    "group_change",
    "group_set",
    "batch_launch",
    "poller",
    "event",
)

# Inside emulator/page/: each module may import those before it. The page stands beside the API and the control API.
PAGE_ORDER = (
    "formatting",
    "request_guard",
    "badges",
    "overview",
    "instance_details",
    "forms",
    "change_notifier",
    "render",
    "page_routes",
)
BESIDE_THE_PAGE = {
    "api_routes",
    "control_api",
    "faults",
    "instance_listing",
    "remote",
    "running",
    "web_app",
    "request_log",
    "wire_format",
}


def imports_of(path: Path) -> set[str]:
    """Return every module that a file imports, at whatever depth of its code, type-checking blocks included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def runtime_imports_of(path: Path) -> set[str]:
    """Return what a file imports when it runs: without its ``if TYPE_CHECKING`` blocks."""
    tree = ast.parse(path.read_text(encoding="utf-8"))

    class Dropper(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.If | None:
            return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node

    found: set[str] = set()
    for node in ast.walk(Dropper().visit(tree)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_what_lies_below_it(path: Path) -> None:
    room = room_of(path)
    allowed = {room, *ROOMS[room]}
    for imported in imports_of(path):
        if imported.startswith(f"{NAME}."):
            inner = imported.removeprefix(f"{NAME}.")
            assert any(f"{inner}.".startswith(f"{name}.") for name in allowed), f"{room} imports {inner}"


@pytest.mark.parametrize("room", ["bpm", "emulator", "provider_info", "testing", "pytest_plugin"])
def test_nothing_of_airflow_below_the_hooks(room: str) -> None:
    for path in MODULES:
        if room_of(path) == room:
            assert not [name for name in imports_of(path) if name.split(".")[0] == "airflow"]


def test_the_modules_of_bpm_import_only_those_before_them() -> None:
    modules = {path.stem for path in (PACKAGE / "bpm").glob("*.py")} - {"__init__"}
    assert modules == set(BPM_ORDER)
    for position, module in enumerate(BPM_ORDER):
        for imported in runtime_imports_of(PACKAGE / "bpm" / f"{module}.py"):
            parts = imported.split(".")
            if parts[:2] == [NAME, "bpm"]:
                assert parts[2] in BPM_ORDER[:position], f"{module} imports {parts[2]}"


def test_the_modules_of_the_emulators_page_import_only_those_before_them() -> None:
    emulator = f"{NAME}.emulator."
    page = f"{emulator}page."
    modules = {path.stem for path in (PACKAGE / "emulator" / "page").glob("*.py")} - {"__init__"}
    assert modules == set(PAGE_ORDER)
    for position, module in enumerate(PAGE_ORDER):
        imported = {f"{name}." for name in runtime_imports_of(PACKAGE / "emulator" / "page" / f"{module}.py")}
        for before in [name.removeprefix(page).split(".")[0] for name in imported if name.startswith(page)]:
            assert before in PAGE_ORDER[:position], f"{module} imports {before}"
        assert not [
            each
            for each in BESIDE_THE_PAGE
            if any(name.startswith(f"{emulator}{each}.") for name in imported)
        ]
    for path in (PACKAGE / "emulator").glob("*.py"):
        if path.stem != "web_app":
            assert not [name for name in imports_of(path) if name.startswith(page)], path


def test_no_named_tuple_is_generic() -> None:
    """Python 3.10 cannot define one, and neither ruff nor mypy says so."""
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


def test_only_the_states_module_knows_the_states() -> None:
    names = {
        "Waiting for user interaction",
        "Completed OK",
        "User Terminated",
        "CompletedOkWait",
        "Dispatched",
    }
    for path in MODULES:
        if path == PACKAGE / "bpm" / "states.py" or room_of(path) == "emulator":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant):
                assert node.value not in names, f"{path} line {node.lineno}"
