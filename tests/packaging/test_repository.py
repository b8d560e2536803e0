"""The files of the repository contain nothing that is specific to one machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PIN = re.compile(
    r"[a-z0-9]+(?:[._-][a-z0-9]+)*==[0-9][0-9a-z.]*(?: ; [a-z_]+ [a-z0-9_.'<>=!*() -]+)?", re.IGNORECASE
)

# Each pattern has a bracket so that it does not match itself.
MACHINE_BOUND = {
    "a package registry": re.compile(
        r"py[p]i\.(?:org|python)|python[h]osted|registry\.[n]pmjs|[-]-(?:extra-)?index-url"
    ),
    "a folder of one machine": re.compile(r"(?<![\w.~<>{}$])[/](?:root|work|home|tmp|Users)/\w"),
}


def _files() -> list[Path]:
    """Return the files that are under version control, or not ignored by it."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("path", sorted((ROOT / "constraints").iterdir()), ids=lambda path: path.name)
def test_constraints_contain_only_names_and_versions(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) > 100
    assert [line for line in lines if not PIN.fullmatch(line)] == []


@pytest.mark.parametrize("what", MACHINE_BOUND)
def test_no_file_contains(what: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in _files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if MACHINE_BOUND[what].search(line)
    ]
    assert found == []
