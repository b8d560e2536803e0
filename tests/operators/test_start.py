"""The start operator: what it starts, returns and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroStartBpmInstanceOperator,
)
from tests.support.task_instance import FakeTaskInstance, run


@pytest.fixture
def ti() -> FakeTaskInstance:
    return FakeTaskInstance("start")


def start(**arguments: Any) -> AstroZeroStartBpmInstanceOperator:
    return AstroZeroStartBpmInstanceOperator(task_id="start", **{"poll_interval": 1, **arguments})


def wait_for_instance(emulator: EmulatorControl, running: Callable[[], bool]) -> str:
    """Return the id of the one instance as soon as it waits for a person."""
    while running():
        for instance in emulator.instances(state="Waiting for user interaction"):
            return str(instance["id"])
    pytest.fail("the task ended before its instance waited for a person")


class TestStart:
    def test_returns_the_instance_when_it_succeeds(
        self, emulator: EmulatorControl, ti: FakeTaskInstance
    ) -> None:
        result = run(start(bpm_name="NightlyReconciliation", business_key="k"), ti)
        assert result["state"] == "Completed OK"
        assert result["bp_status"] == "Done"
        assert result["business_key"] == "k"
        assert result["is_closed"] is True
        assert set(result) == {
            "id", "name", "version", "state", "bp_status", "task_outcome", "suspended", "is_closed", "business_key",
            "start_time", "end_time", "start_time_utc", "end_time_utc", "url",
        }  # fmt: skip
        assert json.loads(json.dumps(result)) == result
        assert ti.xcoms == {"instance_id": result["id"], "business_key": "k", "wait_over": result["id"]}

    def test_without_wait_for_completion_returns_the_started_instance(
        self, emulator: EmulatorControl
    ) -> None:
        result = run(start(bpm_name="SupplierOnboarding", wait_for_completion=False))
        assert result["is_closed"] is False
        assert emulator.counts()["query"] == 0

    def test_sends_all_arguments(self, emulator: EmulatorControl) -> None:
        result = run(
            start(
                bpm_name="InvoiceCheck",
                version="1.0.0",
                variables={"invoice": "7"},
                title="T",
                wait_for_completion=False,
            )
        )
        seen = emulator.instance(result["id"])
        assert (seen["version"], seen["title"], seen["variables"]["invoice"]) == ("1.0.0", "T", "7")

    @pytest.mark.parametrize(("outcome", "opens"), [("approve", True), ("reject", False)])
    def test_decision_opens_the_gate_or_fails_the_task(
        self, outcome: str, opens: bool, emulator: EmulatorControl
    ) -> None:
        operator = start(bpm_name="PublishApproval", failed_bp_statuses=["Rejected"])
        with ThreadPoolExecutor(1) as pool:
            task = pool.submit(run, operator)
            emulator.act(wait_for_instance(emulator, task.running), outcome)
            if opens:
                assert task.result()["bp_status"] == "Approved"
            else:
                with pytest.raises(errors.WaitFailedError, match="'Rejected', one of failed_bp_statuses"):
                    task.result()

    def test_retry_after_a_failed_instance_starts_another_one(
        self, emulator: EmulatorControl, ti: FakeTaskInstance
    ) -> None:
        with pytest.raises(
            errors.WaitFailedError, match="ended in state 'Broken' with business status 'Failed'"
        ):
            run(start(bpm_name="AlwaysBroken"), ti)
        assert ti.xcoms["instance_id"] == emulator.instances()[0]["id"]

    @pytest.mark.parametrize(
        ("arguments", "then"),
        [
            (
                {"timeout": 0.001},
                "A retry keeps waiting for it; clearing this task terminates it and starts a new one",
            ),
            (
                {"timeout": 0.001, "terminate_on_kill": False},
                "A retry keeps waiting for it, and so does clearing this task",
            ),
            ({"timeout": 0.001, "on_timeout": "suspend"}, "Resume it; then a retry keeps waiting for it"),
            ({"failed_bp_statuses": ["Collecting"], "timeout": 30}, "A retry keeps waiting for it; clearing"),
            (
                {"failed_states": ["Waiting for user interaction"], "timeout": 30},
                "A retry keeps waiting for it",
            ),
        ],
    )
    def test_failure_says_that_the_instance_stays_open(
        self, arguments: dict[str, Any], then: str, emulator: EmulatorControl
    ) -> None:
        with pytest.raises(errors.AstroZeroError, match=f"may still be open. {then}") as caught:
            run(start(bpm_name="SupplierOnboarding", **arguments))
        (instance,) = emulator.instances()
        assert repr(instance["id"]) in str(caught.value)
        assert instance["closed"] is False

    @pytest.mark.parametrize("error", [RuntimeError("no XCom today"), AirflowTaskTimeout("time is up")])
    def test_log_names_the_open_instance_after_any_failure(
        self,
        error: BaseException,
        emulator: EmulatorControl,
        monkeypatch: pytest.MonkeyPatch,
        ti: FakeTaskInstance,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def fail(**_: Any) -> None:
            raise error

        monkeypatch.setattr(ti, "xcom_push", fail)
        with pytest.raises(type(error), match=str(error)):
            run(start(bpm_name="SupplierOnboarding"), ti)
        said = capsys.readouterr().out + caplog.text
        assert (
            f"Instance '{emulator.instances()[0]['id']}' on connection 'astro_zero_default' may still" in said
        )

    @pytest.mark.parametrize("fault", ["token", "csrf"])
    def test_start_that_was_never_sent_can_be_retried(
        self, fault: str, make_conn: Any, emulator: EmulatorControl
    ) -> None:
        make_conn(csrf=True, max_attempts=1)
        emulator.fault(fault, "status", status=503, times=50)
        with pytest.raises(errors.ServerError):
            run(start(bpm_name="SupplierOnboarding"))
        assert emulator.counts()["start"] == 0

    def test_refused_start_can_be_retried(self, emulator: EmulatorControl) -> None:
        with pytest.raises(errors.RefusedError, match="'NoSuch'.*405230020"):
            run(start(bpm_name="NoSuch"))

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"bpm_name": ""}, "bpm_name"),
            ({"bpm_name": None}, "bpm_name"),
            ({"bpm_name": "A", "variables": "a=1"}, "variables"),
            ({"bpm_name": "A", "variables": {"d": timedelta(1)}}, "variables.'d'. cannot be sent"),
            ({"bpm_name": "A", "states": ["Done"]}, "states must be one of"),
            ({"bpm_name": "A", "bp_statuses": "Approved"}, "bp_statuses must be a list"),
        ],
    )
    def test_bad_input_starts_nothing(
        self, arguments: dict[str, Any], words: str, emulator: EmulatorControl
    ) -> None:
        with pytest.raises(ValueError, match=words):
            run(start(**arguments))
        assert not any(emulator.counts().values())

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"poll_interval": 0}, "poll_interval"),
            ({"poll_interval": -5}, "poll_interval"),
            ({"poll_interval": "often"}, "poll_interval"),
            ({"timeout": -1}, "timeout"),
            ({"max_poll_failure_time": timedelta(seconds=-1)}, "max_poll_failure_time"),
            ({"on_suspended": "ignore"}, "on_suspended"),
        ],
    )
    def test_bad_numbers_fail_the_parsing_of_the_dag(self, arguments: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            start(bpm_name="A", **arguments)

    @pytest.mark.parametrize(
        "argument", ["version", "variables", "business_key", "title", "bp_statuses", "failed_states"]
    )
    def test_template_rendered_to_none_starts_nothing(self, argument: str, emulator: EmulatorControl) -> None:
        operator = start(bpm_name="SupplierOnboarding", **{argument: "{{ a template }}"})
        setattr(operator, argument, None)
        with pytest.raises(ValueError, match=f"{argument} was provided, but rendered as None"):
            run(operator)
        assert not any(emulator.counts().values())

    @pytest.mark.parametrize("rendered", ["None", "", " \n", "null", "undefined", "[]", "{}"])
    @pytest.mark.parametrize(
        "argument", ["bpm_name", "version", "business_key", "bp_statuses", "failed_states"]
    )
    def test_template_rendered_to_the_text_none_starts_nothing(
        self, argument: str, rendered: str, emulator: EmulatorControl
    ) -> None:
        emulator.start("SupplierOnboarding", business_key=rendered)
        emulator.reset_counts()
        several = argument in ("bp_statuses", "failed_states")
        operator = start(
            **{"bpm_name": "SupplierOnboarding", argument: ["{{ a }}"] if several else "{{ a }}"}
        )
        setattr(operator, argument, [rendered] if several else rendered)
        if argument == "business_key":
            operator.if_open_instance_exists = "adopt"
        with pytest.raises(
            ValueError, match=f"{argument} must .*: a template renders this if it finds nothing"
        ):
            run(operator)
        assert not any(emulator.counts().values())

    @pytest.mark.parametrize("bad", ["Appr\0oved", "half \ud83d"])
    @pytest.mark.parametrize("deferrable", [False, True])
    @pytest.mark.parametrize(
        "argument", ["bpm_name", "version", "business_key", "title", "bp_statuses", "variables"]
    )
    def test_characters_that_postgresql_refuses_start_nothing(
        self, argument: str, deferrable: bool, bad: str, emulator: EmulatorControl
    ) -> None:
        value: Any = {"bp_statuses": [bad], "variables": {"dataset": {"name": [bad]}}}.get(argument, bad)
        words = (
            r"variables\['dataset'\]\['name'\]\[0\] cannot be sent: it is a text with a NUL"
            if argument == "variables"
            else f"{argument} must be a text without"
        )
        with pytest.raises(ValueError, match=words):
            run(start(**{"bpm_name": "PublishApproval", argument: value}, deferrable=deferrable))
        assert not any(emulator.counts().values())

    def test_complete_surrogate_pair_and_escaped_nul_are_accepted(self, emulator: EmulatorControl) -> None:
        fine = {"note": "a \U0001f600, and \\u0000 and \\ud83d written out"}
        run(start(bpm_name="Instant", variables=fine, title="\U0001f600"))
        (instance,) = emulator.instances()
        assert (instance["variables"], instance["title"]) == (fine, "\U0001f600")

    @pytest.mark.parametrize(
        ("arguments", "warned"),
        [
            ({"failed_bp_statuses": ["Rejected"]}, True),
            ({"failed_bp_statuses": ["Rejected"], "states": ["Completed OK"]}, True),
            ({"failed_bp_statuses": ["Rejected"], "bp_statuses": ["Done"]}, False),
            ({"bp_statuses": ["Done"]}, False),
            ({}, False),
        ],
    )
    def test_warns_once_if_only_failing_statuses_are_given(
        self,
        arguments: dict[str, Any],
        warned: bool,
        emulator: EmulatorControl,
        capfd: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        run(start(bpm_name="Instant", **arguments))
        said = capfd.readouterr().out + caplog.text
        assert said.count("Any business status except 'Rejected' opens this gate") == warned

    def test_condition_without_a_wait_is_refused(self) -> None:
        with pytest.raises(ValueError, match="bp_statuses has no effect with wait_for_completion=False"):
            start(bpm_name="A", bp_statuses=["Approved"], wait_for_completion=False)

    def test_accepts_timedeltas(self) -> None:
        operator = start(bpm_name="A", poll_interval=timedelta(minutes=2), timeout=timedelta(days=1))
        assert (operator.poll_interval, operator.timeout) == (120, 86400)
