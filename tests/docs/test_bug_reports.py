"""``docs/bug-reports.md``: the whole way from a recorded failure to a failing test, and what the page says about transcripts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from airflow_provider_astrobpm.client import transcript, transcript_writer
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.client.stand_ins import MAX_SHAPED_CHARS
from airflow_provider_astrobpm.emulator.replay import Replay
from airflow_provider_astrobpm.emulator.transcript_reader import EXTRAS, read_transcript
from tests.testing.test_guide import files

PAGE = (Path(__file__).parents[2] / "docs" / "bug-reports.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
RECORDS = """
from pathlib import Path

from publish_sales import publish_sales


def test_record(astro_zero_emulator):
    astro_zero_emulator.connect(record=str(Path("tests/transcripts").absolute()))
    astro_zero_emulator.breaks("PublishApproval")
    assert astro_zero_emulator.run(publish_sales()).tasks["approval"] == "failed"
"""
CHANGED = '"sales_daily", "owner": "Anna", "amount": 1'


@pytest.mark.long
def test_the_way_ends_in_a_failing_test(pytester: pytest.Pytester) -> None:
    guide = files()
    (report,) = (text for language, text in BLOCKS if language == "python")
    project = {name: guide[name] for name in ("dags/publish_sales.py", "tests/conftest.py", "pytest.ini")}
    dag = project["dags/publish_sales.py"]
    project |= {
        "dags/publish_changed.py": dag.replace('"sales_daily"', CHANGED),
        "tests/test_record.py": RECORDS,
        "tests/test_report.py": report,
        "tests/test_changed.py": report.replace("from publish_sales import", "from publish_changed import"),
    }
    for path, text in project.items():
        target = pytester.path / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")
    tests = [f"tests/test_{name}.py" for name in ("record", "report", "changed")]
    done = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", *tests, timeout=120)
    done.assert_outcomes(passed=1, failed=2)
    done.stdout.fnmatch_lines(
        [
            ">*assert result.tasks*success*",
            "E*assert 'failed' == 'success'*",
            "E*AssertionError: A request differed from the recorded ones, so the run was ended.",
            "E*body.variables has 2 fields too many: 3 of your own (dataset, owner, amount), where the transcript has 1",
        ]
    )


def test_the_page_shows_a_real_message(tmp_path: Path) -> None:
    entry, message = (text for language, text in BLOCKS if language == "text")
    recorded = json.loads(entry)
    recorded["request"]["body"]["variables"] = {"~a": "~b"}
    lines = [{"transcript": transcript.FORMAT}, *[{"dropped": 1}] * 3, recorded]
    path = tmp_path / "one.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    said: list[str] = []
    sent = {"name": "P", "variables": {"dataset": 1, "owner": 2, "amount": 3}}
    target = recorded["request"]["target"]
    Replay(read_transcript(path), said.append).play(
        "POST", target, "application/json", json.dumps(sent).encode()
    )
    assert said == [message.strip()]


def test_the_page_lists_the_extras_that_are_recorded_and_applied() -> None:
    settings = Settings("c", "http://localhost", ClientCredentials("a", "b"))
    assert set(EXTRAS) == set(transcript.heading(settings, "0.1.0")["extras"])
    (listed,) = (line for line in PAGE.splitlines() if "the extras that change what is sent" in line)
    assert set(re.findall(r"`(\w+)`", listed)) == set(EXTRAS)


def test_the_page_states_the_bounds() -> None:
    mebibyte = 1024 * 1024
    bounds = {
        "the transcript of one process": f"{transcript_writer.MAX_FILE_BYTES // mebibyte} MiB",
        "all transcripts of a folder": f"{transcript_writer.MAX_FOLDER_BYTES // mebibyte} MiB",
        "files in a folder": f"{transcript_writer.MAX_FILES:,}",
        "exchanges of a triggerer that wait to be written": (
            f"{transcript_writer.MAX_WAITING_EXCHANGES:,}, and {transcript_writer.MAX_WAITING_BYTES // mebibyte} MiB"
        ),
    }
    for what, much in bounds.items():
        assert f"| {what} | {much}" in PAGE
    assert f"After {MAX_SHAPED_CHARS} characters" in PAGE
    assert f"A longer answer than {transcript.MAX_BODY_BYTES // mebibyte} MiB" in PAGE
    assert transcript_writer.SALT_NAME in PAGE
    assert mebibyte == transcript_writer.CHECK_EVERY_BYTES
