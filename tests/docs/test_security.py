"""For each claim about the provider, docs/security.md names a test that shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")

NAMED = [test for note in re.findall(r"<!-- seen in: (.*?) -->", PAGE) for test in note.split()]

# Sections of claims; the others are about Airflow, or give instructions.
CLAIMING = ("Where they never are", "On the network", "The emulator")


@pytest.mark.parametrize("test", sorted(set(NAMED)))
def test_each_named_test_exists(test: str) -> None:
    file, _, name = test.partition("::")
    assert re.search(rf"def {name}\b", (ROOT / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize("heading", CLAIMING)
def test_each_claim_names_a_test(heading: str) -> None:
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    claims = re.findall(r"^- .*?(?=^\S|\Z)", section, re.MULTILINE | re.DOTALL)
    assert claims
    assert [claim for claim in claims if "<!-- seen in: " not in claim] == []
