"""The contents and the metadata of the wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import airflow_provider_astrobpm

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "airflow_provider_astrobpm"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def _dist_info(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = (path for path in wheel.namelist() if path.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


def test_metadata_contains_the_version_of_the_package(wheel: zipfile.ZipFile) -> None:
    metadata = Parser().parsestr(_dist_info(wheel, "METADATA"))
    assert metadata["Name"] == "airflow-provider-astrobpm"
    assert metadata["Version"] == airflow_provider_astrobpm.__version__
    assert metadata["License-Expression"] == "Apache-2.0"


def test_links_of_the_readme_work_on_a_package_index_page(tmp_path: Path) -> None:
    environment = {**os.environ, "REPOSITORY_URL": "https://github.com/owner/name/"}
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=environment)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        description = Parser().parsestr(_dist_info(wheel, "METADATA")).get_payload()
    assert isinstance(description, str)
    targets = re.findall(r"\]\(([^)]*)\)", description)
    tag = f"v{airflow_provider_astrobpm.__version__}"
    assert f"https://github.com/owner/name/blob/{tag}/docs/quick-start.md" in targets
    assert f"https://github.com/owner/name/raw/{tag}/docs/pictures/gated-run.png" in targets
    assert [target for target in targets if not target.startswith("https://")] == []


def test_the_version_is_defined_in_one_place() -> None:
    version = re.compile(rf"""(?<![\d.]){re.escape(airflow_provider_astrobpm.__version__)}(?![\d.])""")
    files = [ROOT / "pyproject.toml", *PACKAGE.rglob("*.py")]
    assert [file for file in files if version.search(file.read_text())] == [PACKAGE / "__init__.py"]


def test_the_wheel_registers_the_provider(wheel: zipfile.ZipFile) -> None:
    lines = _dist_info(wheel, "entry_points.txt").split("\n")
    assert "[apache_airflow_provider]" in lines
    assert "provider_info = airflow_provider_astrobpm.provider_info:get_provider_info" in lines
    assert "airflow_provider_astrobpm/provider_info.py" in wheel.namelist()


def test_the_wheel_contains_exactly_the_package(wheel: zipfile.ZipFile) -> None:
    in_tree = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    in_wheel = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert in_wheel == in_tree


def test_the_wheel_contains_data_files_and_licence(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "airflow_provider_astrobpm/py.typed" in names
    assert any(re.fullmatch(r"airflow_provider_astrobpm/emulator/.*\.yaml", name) for name in names)
    assert _dist_info(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text()
