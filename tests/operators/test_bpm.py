"""The operators against the emulator: what they do there, return, and say when it goes wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException, AirflowTaskTimeout
from airflow.sdk import DAG

from airflow_provider_astrobpm.bpm import errors
from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from airflow_provider_astrobpm.emulator.running import EmulatorServer
from airflow_provider_astrobpm.operators import bpm
from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroDeleteBpmInstanceOperator,
    AstroZeroQueryBpmInstancesOperator,
    AstroZeroResumeBpmInstanceOperator,
    AstroZeroSetBpmVariablesOperator,
    AstroZeroStartBpmInstanceOperator,
    AstroZeroSuspendBpmInstanceOperator,
    AstroZeroTerminateBpmInstanceOperator,
)


class TaskInstance:
    """As much of a task instance as the operators use."""

    dag_id, run_id, task_id, map_index = "dag", "run", "start", -1
    try_number, max_tries = 1, 0

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value

    def xcom_pull(self, *, task_ids: str, key: str, map_indexes: int) -> Any:
        assert (task_ids, map_indexes) == (self.task_id, self.map_index)
        return self.xcoms.get(key)


class Store(dict[str, Any]):
    """A task state store."""

    def set(self, key: str, value: Any, *, retention: Any) -> None:
        assert retention.days > 1e6
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        self.pop(key, None)


@pytest.fixture
def ti() -> TaskInstance:
    return TaskInstance()


def run(operator: Any, ti: TaskInstance | None = None) -> Any:
    return operator.execute({"ti": ti or TaskInstance()})


@pytest.fixture
def make_conn(emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put extras into the connection."""

    def make(**extra: Any) -> None:
        connection = {**json.loads(emulator_server.connection_json()), "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))

    return make


def start(**arguments: Any) -> AstroZeroStartBpmInstanceOperator:
    return AstroZeroStartBpmInstanceOperator(task_id="start", **{"poll_interval": 1, **arguments})


class TestStart:
    def test_returns_the_instance_at_its_good_end(self, emulator: EmulatorControl, ti: TaskInstance) -> None:
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

    def test_may_not_wait(self, emulator: EmulatorControl) -> None:
        result = run(start(bpm_name="SupplierOnboarding", wait_for_completion=False))
        assert result["is_closed"] is False
        assert emulator.counts()["query"] == 0

    def test_passes_on_what_it_was_given(self, emulator: EmulatorControl) -> None:
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
    def test_is_a_gate(self, outcome: str, opens: bool, emulator: EmulatorControl) -> None:
        operator = start(bpm_name="PublishApproval", failed_bp_statuses=["Rejected"])
        with ThreadPoolExecutor(1) as pool:
            task = pool.submit(run, operator)
            emulator.act(wait_for_instance(emulator, task.running), outcome)
            if opens:
                assert task.result()["bp_status"] == "Approved"
            else:
                with pytest.raises(errors.WaitFailedError, match="'Rejected', one of failed_bp_statuses"):
                    task.result()

    def test_a_bad_end_may_be_retried(self, emulator: EmulatorControl, ti: TaskInstance) -> None:
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
                "A retry goes on with it; clearing this task terminates it and starts a new one",
            ),
            (
                {"timeout": 0.001, "terminate_on_kill": False},
                "A retry goes on waiting for it, and so does clearing this task",
            ),
            ({"timeout": 0.001, "on_timeout": "suspend"}, "Resume it: then a retry goes on with it"),
            ({"failed_bp_statuses": ["Collecting"], "timeout": 30}, "A retry goes on with it; clearing"),
            ({"failed_states": ["Waiting for user interaction"], "timeout": 30}, "A retry goes on with it"),
        ],
    )
    def test_a_failure_that_leaves_the_instance_open_says_so(
        self, arguments: dict[str, Any], then: str, emulator: EmulatorControl
    ) -> None:
        with pytest.raises(errors.AstroZeroError, match=f"may still be open. {then}") as caught:
            run(start(bpm_name="SupplierOnboarding", **arguments))
        (instance,) = emulator.instances()
        assert repr(instance["id"]) in str(caught.value)
        assert instance["closed"] is False

    @pytest.mark.parametrize("error", [RuntimeError("no XCom today"), AirflowTaskTimeout("time is up")])
    def test_whatever_fails_after_the_start_the_log_says_what_stays_open(
        self,
        error: BaseException,
        emulator: EmulatorControl,
        monkeypatch: pytest.MonkeyPatch,
        ti: TaskInstance,
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
    def test_a_start_that_was_never_sent_may_be_retried(
        self, fault: str, make_conn: Any, emulator: EmulatorControl
    ) -> None:
        make_conn(csrf=True, max_attempts=1)
        emulator.fault(fault, "status", status=503, times=50)
        with pytest.raises(errors.ServerError):
            run(start(bpm_name="SupplierOnboarding"))
        assert emulator.counts()["start"] == 0

    def test_a_refused_start_may_be_retried(self, emulator: EmulatorControl) -> None:
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
    def test_bad_numbers_fail_when_the_dag_is_parsed(self, arguments: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            start(bpm_name="A", **arguments)

    @pytest.mark.parametrize(
        "argument", ["version", "variables", "business_key", "title", "bp_statuses", "failed_states"]
    )
    def test_a_template_that_came_out_as_none_starts_nothing(
        self, argument: str, emulator: EmulatorControl
    ) -> None:
        operator = start(bpm_name="SupplierOnboarding", **{argument: "{{ a template }}"})
        setattr(operator, argument, None)
        with pytest.raises(ValueError, match=f"{argument} was provided, but rendered as None"):
            run(operator)
        assert not any(emulator.counts().values())

    @pytest.mark.parametrize("rendered", ["None", "", " \n", "null", "undefined", "[]", "{}"])
    @pytest.mark.parametrize(
        "argument", ["bpm_name", "version", "business_key", "bp_statuses", "failed_states"]
    )
    def test_a_template_that_rendered_the_text_of_nothing_starts_nothing(
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
    def test_what_a_database_refuses_starts_nothing(
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

    def test_a_whole_surrogate_pair_and_an_escaped_nul_are_fine(self, emulator: EmulatorControl) -> None:
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
    def test_a_gate_by_what_fails_alone_says_so_once(
        self,
        arguments: dict[str, Any],
        warned: bool,
        emulator: EmulatorControl,
        capfd: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        run(start(bpm_name="Instant", **arguments))
        said = capfd.readouterr().out + caplog.text
        assert said.count("Any business status but 'Rejected' opens this gate") == warned

    def test_a_condition_without_a_wait_is_refused(self) -> None:
        with pytest.raises(ValueError, match="bp_statuses means nothing with wait_for_completion=False"):
            start(bpm_name="A", bp_statuses=["Approved"], wait_for_completion=False)

    def test_intervals_may_be_timedeltas(self) -> None:
        operator = start(bpm_name="A", poll_interval=timedelta(minutes=2), timeout=timedelta(days=1))
        assert (operator.poll_interval, operator.timeout) == (120, 86400)


def wait_for_instance(emulator: EmulatorControl, running: Callable[[], bool]) -> str:
    """Return the id of the one instance as soon as a person is awaited."""
    while running():
        for instance in emulator.instances(state="Waiting for user interaction"):
            return str(instance["id"])
    pytest.fail("the task ended before anybody was awaited")


class TestStateChanges:
    @pytest.fixture
    def instance_id(self, emulator: EmulatorControl) -> str:
        return str(emulator.start("SupplierOnboarding")["id"])

    def test_suspend_and_resume_may_be_said_twice(self, emulator: EmulatorControl, instance_id: str) -> None:
        for operator, suspended in [
            (AstroZeroSuspendBpmInstanceOperator, True),
            (AstroZeroResumeBpmInstanceOperator, False),
        ]:
            for _ in range(2):
                result = run(operator(task_id="t", instance_id=instance_id))
                assert (result["id"], result["suspended"]) == (instance_id, suspended)
                assert emulator.instance(instance_id)["suspended"] is suspended

    def test_terminate_may_be_said_twice(self, emulator: EmulatorControl, instance_id: str) -> None:
        for _ in range(2):
            result = run(AstroZeroTerminateBpmInstanceOperator(task_id="t", instance_id=instance_id))
            assert result["is_closed"] is True
        assert emulator.instance(instance_id)["state"] == "Terminated"

    @pytest.mark.parametrize(
        "operator",
        [
            AstroZeroSuspendBpmInstanceOperator,
            AstroZeroResumeBpmInstanceOperator,
            AstroZeroTerminateBpmInstanceOperator,
        ],
    )
    def test_an_instance_that_has_ended(
        self, operator: Any, emulator: EmulatorControl, instance_id: str
    ) -> None:
        emulator.move(instance_id, state="Completed OK")
        assert run(operator(task_id="t", instance_id=instance_id))["state"] == "Completed OK"
        with pytest.raises(errors.InstanceClosedError, match="has already ended, in state 'Completed OK'"):
            run(operator(task_id="t", instance_id=instance_id, if_closed="fail"))
        with pytest.raises(errors.InstanceNotFoundError, match="'002Nx'"):
            run(operator(task_id="t", instance_id="002Nx"))
        with pytest.raises(ValueError, match="if_closed"):
            operator(task_id="t", instance_id=instance_id, if_closed="ignore")

    def test_what_was_accepted_and_does_not_show_fails(
        self, emulator: EmulatorControl, instance_id: str, make_conn: Callable[..., None]
    ) -> None:
        emulator.switch(action_lag=30)
        make_conn(start_grace=0.02)
        with pytest.raises(
            errors.EffectNotShownError, match="terminate of .* accepted, but shows no effect after 0.02 s"
        ):
            run(AstroZeroTerminateBpmInstanceOperator(task_id="t", instance_id=instance_id))

    @pytest.mark.parametrize("remembers", [True, False])
    def test_a_retry_takes_the_end_for_its_own_that_an_earlier_try_has_asked_for(
        self, remembers: bool, emulator: EmulatorControl, instance_id: str, make_conn: Callable[..., None]
    ) -> None:
        make_conn(max_attempts=1, start_grace=0.01, instance_lookup="list")
        context: Any = {"ti": TaskInstance(), **({"task_state_store": Store()} if remembers else {})}
        terminate = AstroZeroTerminateBpmInstanceOperator(
            task_id="t", instance_id=instance_id, if_closed="fail"
        )
        emulator.fault("action", "drop_after")
        emulator.fault("query", "status", status=503, times=100, skip=1)
        with pytest.raises(errors.InterruptedCallError, match="could not be read"):
            terminate.execute(context)
        assert emulator.instance(instance_id)["state"] == "Terminated"
        emulator.clear_faults()
        if remembers:
            assert terminate.execute(context)["state"] == "Terminated"
            assert context["task_state_store"] == {}, "what came of it is known"
        with pytest.raises(errors.InstanceClosedError):
            terminate.execute(context)

    def test_a_retry_takes_no_end_for_its_own_that_it_has_not_asked_for(
        self, emulator: EmulatorControl, instance_id: str, make_conn: Callable[..., None]
    ) -> None:
        make_conn(max_attempts=1, start_grace=0.01)
        context: Any = {"ti": TaskInstance(), "task_state_store": Store()}
        terminate = AstroZeroTerminateBpmInstanceOperator(
            task_id="t", instance_id=instance_id, if_closed="fail"
        )
        emulator.fault("action", "status", status=400)
        with pytest.raises(errors.RefusedError):
            terminate.execute(context)
        emulator.move(instance_id, state="Terminated")
        with pytest.raises(errors.InstanceClosedError):
            terminate.execute(context)

    def test_a_retry_takes_a_deletion_for_its_own(
        self, emulator: EmulatorControl, instance_id: str, make_conn: Callable[..., None]
    ) -> None:
        make_conn(max_attempts=1, start_grace=0.01, instance_lookup="list")
        context: Any = {"ti": TaskInstance(), "task_state_store": Store()}
        delete = AstroZeroDeleteBpmInstanceOperator(task_id="t", instance_id=instance_id)
        emulator.fault("delete", "drop_after")
        emulator.fault("query", "status", status=503, times=100, skip=1)
        with pytest.raises(errors.InterruptedCallError):
            delete.execute(context)
        emulator.clear_faults()
        delete.execute(context)
        with pytest.raises(errors.InstanceNotFoundError):
            delete.execute(context)

    def test_set_variables(self, emulator: EmulatorControl, instance_id: str) -> None:
        run(
            AstroZeroSetBpmVariablesOperator(
                task_id="t", instance_id=instance_id, variables={"country": "CN", "no": 1}
            )
        )
        assert emulator.instance(instance_id)["variables"]["country"] == "CN"
        with pytest.raises(ValueError, match="variables"):
            run(AstroZeroSetBpmVariablesOperator(task_id="t", instance_id=instance_id, variables={}))

    def test_delete(self, emulator: EmulatorControl, instance_id: str) -> None:
        run(AstroZeroDeleteBpmInstanceOperator(task_id="t", instance_id=instance_id))
        assert emulator.instances() == []
        run(AstroZeroDeleteBpmInstanceOperator(task_id="t", instance_id=instance_id, if_missing="succeed"))
        with pytest.raises(errors.InstanceNotFoundError, match="405230030"):
            run(AstroZeroDeleteBpmInstanceOperator(task_id="t", instance_id=instance_id))


def test_steering_and_listing_in_every_position_of_every_switch(
    lookup: str, switch: str, position: Any, emulator: EmulatorControl, make_conn: Callable[..., None]
) -> None:
    emulator.switch(**{"get_by_id": "action" if lookup == "by_id" else "absent", switch: position})
    make_conn(instance_lookup=lookup, csrf=switch == "csrf_required", max_attempts=1, start_grace=0.01)
    lags = (switch, position) == ("action_lag", 30)

    def take(operator: Any, **arguments: Any) -> Any:
        result = None
        try:
            result = run(operator(task_id="t", **arguments))
        except errors.EffectNotShownError:
            assert lags
        emulator.advance(30)  # what lags shows by then
        return result

    started = take(
        AstroZeroStartBpmInstanceOperator,
        bpm_name="SupplierOnboarding",
        business_key="k",
        wait_for_completion=False,
    )
    only = {"instance_id": started["id"]}
    assert [row["id"] for row in take(AstroZeroQueryBpmInstancesOperator, bpm_name="SupplierOnboarding")] == [
        started["id"]
    ]
    take(AstroZeroSetBpmVariablesOperator, **only, variables={"country": "CN"})
    assert emulator.instance(started["id"])["variables"]["country"] == "CN"
    for _ in range(2):
        take(AstroZeroSuspendBpmInstanceOperator, **only)
        assert emulator.instance(started["id"])["suspended"] is True
    for _ in range(2):
        take(AstroZeroResumeBpmInstanceOperator, **only)
        assert emulator.instance(started["id"])["suspended"] is False
    take(AstroZeroTerminateBpmInstanceOperator, **only)
    assert emulator.instance(started["id"])["closed"] is True
    take(AstroZeroDeleteBpmInstanceOperator, **only, if_missing="succeed")
    assert all(one["closed"] for one in emulator.instances())


class TestQuery:
    def test_lists_the_open_ones_by_default(self, emulator: EmulatorControl) -> None:
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

    def test_where_lists_show_no_keys_it_fails_instead_of_finding_nothing(
        self, emulator: EmulatorControl
    ) -> None:
        emulator.switch(business_keys_in_rows=False)
        emulator.start("SupplierOnboarding", business_key="a")
        with pytest.raises(errors.KeysNotShownError, match="or list by bpm_name"):
            run(AstroZeroQueryBpmInstancesOperator(task_id="t", business_key="a"))
        foreign = AstroZeroQueryBpmInstancesOperator(
            task_id="t", business_key="a", bpm_name="PublishApproval"
        )
        assert run(foreign) == []

    def test_the_newest_come_first_whatever_the_server_does(self, emulator: EmulatorControl) -> None:
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

    def test_what_is_old_suspended_and_not_too_much(
        self, emulator: EmulatorControl, make_conn: Callable[..., None]
    ) -> None:
        make_conn(timezone="UTC")
        old = [emulator.start("SupplierOnboarding")["id"] for _ in range(3)]
        emulator.advance(9 * 86400)
        emulator.switch(clock_skew=-9 * 24)  # what starts now shows the time of this machine
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

    def test_an_age_without_a_zone_asks_for_nothing(self, emulator: EmulatorControl) -> None:
        with pytest.raises(ValueError, match="Set the extra 'timezone' of the connection"):
            run(AstroZeroQueryBpmInstancesOperator(task_id="t", older_than="7d"))
        assert not any(emulator.counts().values())

    @pytest.mark.parametrize("form", ["zero", "slashes", "dash", "epoch"])
    def test_what_has_no_credible_age_is_neither_old_nor_new(
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
    def test_an_empty_match_is_a_choice(
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
    def test_bad_arguments_are_refused_when_the_dag_is_parsed(
        self, arguments: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(ValueError, match=words):
            AstroZeroQueryBpmInstancesOperator(task_id="t", **arguments)
        AstroZeroQueryBpmInstancesOperator(task_id="t", older_than="{{ params.age }}")

    def test_lists_given_states_at_one_request_each(self, emulator: EmulatorControl) -> None:
        broken = emulator.start("SupplierOnboarding")["id"]
        emulator.move(broken, state="Broken")
        listed = run(
            AstroZeroQueryBpmInstancesOperator(task_id="t", states=["Broken", "Terminated", "Broken"])
        )
        assert [(row["id"], row["is_closed"]) for row in listed] == [(broken, True)]
        assert emulator.counts()["query"] == 2

    @pytest.mark.parametrize("argument", ["bpm_name", "business_key"])
    @pytest.mark.parametrize("value", [None, " "])
    def test_a_filter_that_came_out_as_nothing_lists_nothing(
        self, argument: str, value: str | None, emulator: EmulatorControl
    ) -> None:
        arguments: dict[str, Any] = {"bpm_name": "A", argument: "{{ a template }}"}
        operator = AstroZeroQueryBpmInstancesOperator(task_id="t", **arguments)
        setattr(operator, argument, value)
        with pytest.raises(ValueError, match=argument):
            run(operator)
        assert not any(emulator.counts().values())

    def test_bad_input_asks_for_nothing(self, emulator: EmulatorControl) -> None:
        with pytest.raises(ValueError, match="states must be one of"):
            run(AstroZeroQueryBpmInstancesOperator(task_id="t", states=["Finished"]))
        with pytest.raises(ValueError, match="order_type"):
            AstroZeroQueryBpmInstancesOperator(task_id="t", order_type="up")  # type: ignore[arg-type]
        assert not any(emulator.counts().values())


OPERATORS = [
    getattr(bpm, name) for name in dir(bpm) if name.startswith("AstroZero") and name.endswith("Operator")
]


def made(operator: Any) -> Any:
    """Make a task with what it cannot do without."""
    arguments = {"bpm_name": "A", "instance_id": "1", "variables": {"a": 1}, "launches": [{"title": "T"}]}
    return operator(
        task_id="t", **{name: value for name, value in arguments.items() if name in operator.template_fields}
    )


@pytest.mark.parametrize("operator", OPERATORS)
def test_templates_name_arguments_that_exist(operator: Any) -> None:
    with DAG("d", schedule=None):
        task = made(operator)
    for field in operator.template_fields:
        assert hasattr(task, field)
    assert "astro_zero_conn_id" in operator.template_fields


@pytest.mark.parametrize("operator", OPERATORS)
def test_no_connection_is_looked_up_before_a_task_runs(
    operator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", raising=False)
    made(operator)


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_copy_is_as_good(operator: Any) -> None:
    task = made(operator)
    again = copy.deepcopy(task)
    for field in operator.template_fields:
        assert getattr(again, field) == getattr(task, field)
