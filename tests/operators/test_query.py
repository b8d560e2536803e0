"""The operator that lists instances."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroQueryBpmInstancesOperator,
)
from tests.support.task_instance import run


class TestQuery:
    def test_lists_open_instances_by_default(self, emulator: EmulatorControl) -> None:
        waiting = emulator.start("SupplierOnboarding", business_key="a")["id"]
        held = emulator.start("SupplierOnboarding")["id"]
        emulator.move(held, state="Suspended")
        other = emulator.start("PublishApproval")["id"]
        emulator.move(emulator.start("SupplierOnboarding")["id"], state="Broken")
        listed = run(AstroZeroQueryBpmInstancesOperator(task_id="t"))
        assert {row["id"] for row in listed} == {waiting, held, other}
        listed = run(AstroZeroQueryBpmInstancesOperator(task_id="t", bpm_name="SupplierOnboarding"))
        assert {row["id"] for row in listed} == {waiting, held}
        listed = run(AstroZeroQueryBpmInstancesOperator(task_id="t", business_key="a"))
        assert [row["id"] for row in listed] == [waiting]

    def test_search_by_key_fails_if_lists_show_no_keys(self, emulator: EmulatorControl) -> None:
        emulator.switch(business_keys_in_rows=False)
        emulator.start("SupplierOnboarding", business_key="a")
        with pytest.raises(errors.KeysNotShownError, match="or list by bpm_name"):
            run(AstroZeroQueryBpmInstancesOperator(task_id="t", business_key="a"))
        foreign = AstroZeroQueryBpmInstancesOperator(
            task_id="t", business_key="a", bpm_name="PublishApproval"
        )
        assert run(foreign) == []

    def test_newest_come_first_in_every_server_order(self, emulator: EmulatorControl) -> None:
        emulator.switch(order_honoured=False, row_order="shuffled")
        started = []
        for number in range(6):
            started.append(emulator.start("SupplierOnboarding" if number % 2 else "PublishApproval")["id"])
            emulator.advance(60)
        emulator.move(started[2], state="Running")
        listed = run(AstroZeroQueryBpmInstancesOperator(task_id="t"))
        assert [row["id"] for row in listed] == started[::-1]
        listed = run(AstroZeroQueryBpmInstancesOperator(task_id="t", order_type="asc"))
        assert [row["id"] for row in listed] == started

    def test_filters_by_age_suspension_and_limit(
        self, emulator: EmulatorControl, make_conn: Callable[..., None]
    ) -> None:
        make_conn(timezone="UTC")
        old = [emulator.start("SupplierOnboarding")["id"] for _ in range(3)]
        emulator.advance(9 * 86400)
        emulator.switch(clock_skew=-9 * 24)  # an instance that starts now has the time of this machine
        new = emulator.start("SupplierOnboarding")["id"]
        emulator.change(old[1], "suspend")

        def listed(**arguments: Any) -> list[str]:
            found = run(AstroZeroQueryBpmInstancesOperator(task_id="t", order_type="asc", **arguments))
            return [row["id"] for row in found]

        for age in ("7d", timedelta(days=7), 7 * 86400):
            assert set(listed(older_than=age)) == set(old)
            assert listed(younger_than=age) == [new]
        assert listed(suspended=True) == [old[1]]
        assert set(listed(suspended=False, older_than="7d")) == {old[0], old[2]}
        assert len(listed(older_than="7d", limit=2)) == 2
        assert listed(limit=9) == listed()

    def test_age_without_a_timezone_sends_no_request(self, emulator: EmulatorControl) -> None:
        with pytest.raises(ValueError, match="Set the extra 'timezone' of the connection"):
            run(AstroZeroQueryBpmInstancesOperator(task_id="t", older_than="7d"))
        assert not any(emulator.counts().values())

    @pytest.mark.parametrize("form", ["zero", "slashes", "dash", "epoch"])
    def test_instance_without_a_credible_age_is_left_out(
        self, form: str, emulator: EmulatorControl, make_conn: Callable[..., None], caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        make_conn(timezone="UTC")
        emulator.switch(start_time_form=form)
        emulator.start("SupplierOnboarding")
        for name in ("older_than", "younger_than"):
            arguments: dict[str, Any] = {name: "7d"}
            assert run(AstroZeroQueryBpmInstancesOperator(task_id="t", **arguments)) == []
        assert "Left out 1 instances of unknown age" in capfd.readouterr().out + caplog.text

    @pytest.mark.parametrize(
        ("if_none", "kind"), [("skip", AirflowSkipException), ("fail", errors.NoInstancesError)]
    )
    def test_if_none_decides_about_an_empty_list(
        self, if_none: Any, kind: type[Exception], emulator: EmulatorControl
    ) -> None:
        query = AstroZeroQueryBpmInstancesOperator(
            task_id="t", states=["Broken"], bpm_name="SupplierOnboarding", if_none=if_none
        )
        with pytest.raises(
            kind, match="no instance with bpm_name='SupplierOnboarding' was found in the states"
        ):
            run(query)
        emulator.move(emulator.start("SupplierOnboarding")["id"], state="Broken")
        assert len(run(query)) == 1
        assert run(AstroZeroQueryBpmInstancesOperator(task_id="t", states=["Paused"])) == []

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"older_than": "a week"}, "older_than must be an age such as"),
            ({"younger_than": True}, "younger_than must be a number of seconds"),
            ({"limit": 0}, "limit must be a whole number"),
            ({"suspended": "yes"}, "suspended must be one of"),
            ({"if_none": "ignore"}, "if_none must be one of 'succeed', 'skip', 'fail'"),
        ],
    )
    def test_bad_arguments_fail_the_parsing_of_the_dag(self, arguments: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            AstroZeroQueryBpmInstancesOperator(task_id="t", **arguments)
        AstroZeroQueryBpmInstancesOperator(task_id="t", older_than="{{ params.age }}")

    def test_sends_one_request_per_given_state(self, emulator: EmulatorControl) -> None:
        broken = emulator.start("SupplierOnboarding")["id"]
        emulator.move(broken, state="Broken")
        listed = run(
            AstroZeroQueryBpmInstancesOperator(task_id="t", states=["Broken", "Terminated", "Broken"])
        )
        assert [(row["id"], row["is_closed"]) for row in listed] == [(broken, True)]
        assert emulator.counts()["query"] == 2

    @pytest.mark.parametrize("argument", ["bpm_name", "business_key"])
    @pytest.mark.parametrize("value", [None, " "])
    def test_filter_rendered_to_none_sends_no_request(
        self, argument: str, value: str | None, emulator: EmulatorControl
    ) -> None:
        arguments: dict[str, Any] = {"bpm_name": "A", argument: "{{ a template }}"}
        operator = AstroZeroQueryBpmInstancesOperator(task_id="t", **arguments)
        setattr(operator, argument, value)
        with pytest.raises(ValueError, match=argument):
            run(operator)
        assert not any(emulator.counts().values())

    def test_bad_input_sends_no_request(self, emulator: EmulatorControl) -> None:
        with pytest.raises(ValueError, match="states must be one of"):
            run(AstroZeroQueryBpmInstancesOperator(task_id="t", states=["Finished"]))
        with pytest.raises(ValueError, match="order_type"):
            AstroZeroQueryBpmInstancesOperator(task_id="t", order_type="up")  # type: ignore[arg-type]
        assert not any(emulator.counts().values())
