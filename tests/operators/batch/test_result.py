"""The result of a batch, as an XCom and as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from tests.operators.batch.batch_task import (
    ENDS,
    launches,
)


class TestResult:
    @pytest.mark.parametrize("suffix", ["jsonl", "csv"])
    def test_is_written_to_result_path(self, suffix: str, task: Any, tmp_path: Path) -> None:
        path = tmp_path / f"result.{suffix}"
        one = task(launches=[*launches(2, ENDS), {"bpm_name": "NoSuchBpm"}], result_path=str(path))
        with pytest.raises(errors.BatchFailedError):
            one.try_it()
        lines = path.read_text().splitlines()
        rows = lines[1:] if suffix == "csv" else lines
        assert len(rows) == 3
        assert "refused" in rows[0]
        assert (one.xcoms["result"]["launches"], one.xcoms["result"]["result_path"]) == ([], str(path))

    def test_invalid_path_is_refused_before_anything_starts(
        self, task: Any, emulator: EmulatorControl
    ) -> None:
        with pytest.raises(ValueError, match="result.xml"):
            task(launches=launches(2), result_path="result.xml").try_it()
        assert not any(emulator.counts().values())

    def test_has_at_most_500_launches(self, task: Any) -> None:
        given = [*launches(600, ENDS), {"bpm_name": "NoSuchBpm"}]
        result = task(launches=given, wait_for_completion=False, max_failures=1).try_it()
        assert (result["total"], result["started"], result["refused"]) == (601, 600, 1)
        assert len(result["launches"]) == 500
        assert result["launches"][0]["number"] == 601


@pytest.mark.parametrize("wait_for_completion", [True, False])
def test_unwritable_path_is_refused_before_anything_starts(
    wait_for_completion: bool, task: Any, emulator: EmulatorControl, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    one = task(launches=launches(3, ENDS), wait_for_completion=wait_for_completion)
    with pytest.raises(OSError, match="^the result cannot be written to .*: NotADirectoryError"):
        one.try_it(result_path=str(tmp_path / "file" / "result.csv"))
    assert emulator.counts()["start"] == 0
