"""Run ``docs/testing-your-dags.md`` as a reader would: its files in a folder, its other tests in the file that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.testing.emulator_fixture import AstroZeroEmulator

PAGE = (Path(__file__).parents[2] / "docs" / "testing-your-dags.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# (\S+/\S+\.py|\S+\.ini)\n")
MORE_TESTS = "tests/test_publish_sales.py"


def files() -> dict[str, str]:
    """Return the files that the guide shows, path to text. A block without a path belongs to the tests."""
    found: dict[str, str] = {}
    for language, text in BLOCKS:
        if language != "text":
            named = FILE.match(text)
            path = named[1] if named else MORE_TESTS
            found[path] = f"{found[path]}\n\n{text}" if path in found else text
    return found


@pytest.mark.long
def test_the_files_of_the_guide_pass(pytester: pytest.Pytester) -> None:
    project = files()
    assert set(project) == {
        "dags/publish_sales.py",
        MORE_TESTS,
        "tests/conftest.py",
        "pytest.ini",
    }
    for path, text in project.items():
        target = pytester.path / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")
    tests = re.findall(r"^def (test_\w+)", project[MORE_TESTS], re.MULTILINE)
    assert len(tests) == len(set(tests))
    done = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", timeout=240)
    done.assert_outcomes(passed=len(tests) + 2)  # one of them is three


def test_the_guide_shows_the_real_message(emulator: AstroZeroEmulator) -> None:
    AstroZeroHook().start_instance(
        "PublishApproval", variables={"dataset": "sales_daily"}, business_key="release-7"
    )
    with pytest.raises(AssertionError) as caught:
        emulator.assert_started("PublishApproval", variables={"dataset": "costs_daily"})
    assert [text for language, text in BLOCKS if language == "text"] == [f"{caught.value}\n"]
