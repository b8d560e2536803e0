"""The input of a batch: what is read, checked and refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmBatchOperator
from tests.operators.batch.batch_task import (
    ENDS,
    WAITS,
    Task,
    launches,
    numbers,
)


class TestInput:
    def test_empty_batch_succeeds_and_starts_nothing(
        self, task: Any, emulator: EmulatorControl, capfd: Any, caplog: Any
    ) -> None:
        caplog.set_level("INFO")
        for validate_first in (True, False):
            result = task(launches=[], validate_first=validate_first).try_it()
            assert (result["total"], result["launches"]) == (0, [])
        assert "The batch is empty: nothing is started" in capfd.readouterr().out + caplog.text
        assert emulator.counts()["start"] == 0

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ([{}, "x"], "launch 2: it must be a mapping with some of bpm_name"),
            (
                [{}, {"variables": {"a": object()}}],
                "launch 2: variables.'a'. cannot be sent: it is of type object",
            ),
            ("{{ launches }}", "launches must be a list of mappings, not str"),
            (
                [{}, {"business_key": "None"}],
                "launch 2: business_key must not be 'None': a template renders this",
            ),
            ([{}, {"business_key": ""}], "launch 2: business_key must be a text that is not blank, not ''"),
            ([{"title": "a\0b"}], "launch 1: title must be a text without NUL"),
            (
                [{"variables": {"note": ["\ud83d"]}}],
                r"launch 1: variables\['note'\]\[0\] cannot be sent: it is a text with a NUL character or a lone",
            ),
        ],
    )
    def test_bad_input_starts_nothing(
        self, given: Any, said: str, task: Any, emulator: EmulatorControl
    ) -> None:
        with pytest.raises(ValueError, match=said):
            task(launches=given, bpm_name=WAITS).try_it()
        assert not any(emulator.counts().values())

    @pytest.mark.parametrize("argument", ["bpm_name", "version", "failed_bp_statuses"])
    def test_template_rendered_to_the_text_none_is_refused(
        self, argument: str, task: Any, emulator: EmulatorControl
    ) -> None:
        value: Any = ["None"] if argument == "failed_bp_statuses" else "None"
        own = {"bpm_name": WAITS, "version": "1.0.0"}
        with pytest.raises(ValueError, match=f"{argument} must not be 'None': a template renders this"):
            task(launches=[own], **{"bpm_name": WAITS, argument: value}).try_it()
        assert not any(emulator.counts().values())

    def test_warns_once_if_only_failing_statuses_are_given(
        self, task: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        task(launches=[{}, {}], bpm_name=ENDS, failed_bp_statuses=["No", "Nay"]).try_it()
        said = capfd.readouterr().out + caplog.text
        assert said.count("Any business status except 'Nay' and 'No' opens this gate") == 1

    def test_template_rendered_to_none_is_not_an_empty_batch(self, task: Any) -> None:
        operator = task(launches=[]).operator()
        operator.launches = None
        with pytest.raises(ValueError, match="launches was provided, but rendered as None"):
            operator.execute({"ti": Task(lambda _: None, has_store=False)})

    @pytest.mark.parametrize("suffix", ["jsonl", "csv"])
    def test_launches_from_a_file(
        self, suffix: str, task: Any, tmp_path: Path, emulator: EmulatorControl
    ) -> None:
        path = tmp_path / f"launches.{suffix}"
        lines = (
            ["note", "1", "2"] if suffix == "csv" else [f'{{"variables": {{"note": "{n}"}}}}' for n in "12"]
        )
        path.write_text("\n".join(lines))
        result = task(launches_path=str(path), bpm_name=ENDS).try_it()
        assert result["succeeded"] == 2
        assert [each["variables"]["note"] for each in emulator.instances()] == ["1", "2"]

    @pytest.mark.parametrize(("validate_first", "started"), [(True, 0), (False, 2)])
    def test_error_names_the_broken_line_of_a_file(
        self, validate_first: bool, started: int, task: Any, tmp_path: Path, emulator: EmulatorControl
    ) -> None:
        path = tmp_path / "launches.jsonl"
        path.write_text('{}\n{}\n{"title": \n{}\n')
        one = task(launches_path=str(path), bpm_name=ENDS, validate_first=validate_first)
        with pytest.raises(ValueError, match=rf"line 3 of {path}"):
            one.try_it()
        assert emulator.counts()["start"] == started
        path.write_text("{}\n{}\n{}\n{}\n")
        assert one.try_it()["succeeded"] == 4
        assert numbers(emulator) == Counter(range(1, 5))


def test_validation_finds_a_launch_that_cannot_be_sent(task: Any, emulator: EmulatorControl) -> None:
    given = [*launches(3), {"bpm_name": WAITS, "variables": {"$Flow.BusinessKey": "k"}}]
    with pytest.raises(ValueError, match="launch 4: business_key is given twice"):
        task(launches=given).try_it()
    assert not any(emulator.counts().values())


@pytest.mark.parametrize("validate_first", [True, False])
def test_duplicate_id_is_refused_before_its_start(
    validate_first: bool, task: Any, emulator: EmulatorControl
) -> None:
    given = [{"bpm_name": ENDS, "id": one} for one in ("a", "b", "a")]
    with pytest.raises(ValueError, match="launch 3: its id 'a' is also that of launch 1"):
        task(launches=given, validate_first=validate_first).try_it()
    assert emulator.counts()["start"] == (0 if validate_first else 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "exactly one of launches and launches_path"),
        ({"launches": [], "launches_path": "x.csv"}, "exactly one of launches and launches_path"),
        ({"launches": [], "max_failures": -1}, "max_failures must be a whole number, or a share"),
        ({"launches": [], "max_failures": 1.5}, "max_failures must be a whole number, or a share"),
        ({"launches": [], "max_failures": True}, "max_failures must be a whole number, or a share"),
        ({"launches": [], "max_concurrency": 0}, "max_concurrency must be a whole number, at least 1"),
        ({"launches": [], "rate_limit": 0}, "rate_limit must be a number per second"),
        ({"launches": [], "on_failure": "suspend"}, "on_failure must be one of"),
        (
            {"launches": [], "wait_for_completion": False, "states": ["Running"]},
            "has no effect with wait_for",
        ),
        (
            {"launches": [], "fail_fast": True, "max_failures": 0.1, "validate_first": False},
            "must be a number and not a share",
        ),
    ],
)
def test_bad_arguments_fail_the_parsing_of_the_dag(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AstroZeroStartBpmBatchOperator(task_id="t", **arguments)
