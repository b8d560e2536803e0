"""Examples open a gate by naming success: by ``bp_statuses``, or by a branch on the status itself."""

from __future__ import annotations

import ast

import pytest

from tests.docs.pages import ROOT, pages

EXAMPLES = [
    *(
        (str(path.relative_to(ROOT)), path.read_text())
        for path in sorted((ROOT / "example_dags").glob("*.py"))
    ),
    *(
        (f"{page.path}:{block.line}", block.text)
        for page in pages()
        for block in page.blocks()
        if block.language == "python"
    ),
]


def gates(code: str) -> list[set[str]]:
    """Return the argument names of each call that makes a gate for people."""
    return [
        {str(keyword.arg) for keyword in call.keywords}
        for call in ast.walk(ast.parse(code))
        if isinstance(call, ast.Call)
        and any(
            keyword.arg == "failed_bp_statuses"
            or (
                keyword.arg == "bpm_name"
                and isinstance(keyword.value, ast.Constant)
                and keyword.value.value == "PublishApproval"
            )
            for keyword in call.keywords
        )
    ]


def test_the_examples_have_gates() -> None:
    assert sum(bool(gates(code)) for _, code in EXAMPLES) > 6


@pytest.mark.parametrize(("where", "code"), EXAMPLES, ids=[where for where, _ in EXAMPLES])
def test_every_gate_names_its_success(where: str, code: str) -> None:
    branches = "@task.branch" in code and '["bp_status"] == "Approved"' in code
    for arguments in gates(code):
        assert "bp_statuses" in arguments or branches, f"{where} opens a gate without naming its success"


@pytest.mark.parametrize(("where", "code"), EXAMPLES, ids=[where for where, _ in EXAMPLES])
def test_no_example_branches_in_a_mapped_task_group(where: str, code: str) -> None:
    """Airflow skips nothing there; see ``tests/operators/test_mapped_gates.py``."""
    if "task_group" in code:
        assert not {"task.branch", "task.short_circuit"} & set(
            code.replace("(", " ").replace("@", "").split()
        )
