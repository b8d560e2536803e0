"""Arguments: those without effect are refused while the DAG is parsed, and rendered values are accepted or refused."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, TaskGroup, task

from airflow_provider_astrobpm.decorators.bpm import astro_bpm_task
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.notifications.bpm import AstroZeroStartBpmNotifier
from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroDeleteBpmInstanceOperator,
    AstroZeroQueryBpmInstancesOperator,
    AstroZeroSetBpmVariablesOperator,
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
    AstroZeroTerminateBpmInstanceOperator,
)
from airflow_provider_astrobpm.sensors.bpm import AstroZeroBpmInstanceSensor
from airflow_provider_astrobpm.testing.dag_run import DagResult
from airflow_provider_astrobpm.testing.emulator_fixture import AstroZeroEmulator
from tests.support.task_instance import FakeTaskInstance

DAGS = Path(__file__).parent / "dags" / "arguments.py"
MOMENT = datetime(2018, 12, 12, 20, 0, tzinfo=timezone.utc)
GIVEN = {"day": date(2018, 12, 12), "amount": Decimal("12.50"), "due": MOMENT, "parts": {"b", "a"}}
SENT = {"day": "2018-12-12", "amount": "12.50", "due": "2018-12-13 04:00:00", "parts": ["a", "b"]}
STEPS: list[dict[str, Any]] = [{"state": "Running", "for": 0}, {"end": {"state": "Completed OK"}}]


def start(**arguments: Any) -> Any:
    return AstroZeroStartBpmInstanceOperator(**{"task_id": "gate", "bpm_name": "Any", **arguments})


def batch(**arguments: Any) -> Any:
    return AstroZeroStartBpmBatchOperator(
        task_id="gate", **{"launches": [{}], "bpm_name": "Any", **arguments}
    )


def sensor(**arguments: Any) -> Any:
    return AstroZeroBpmInstanceSensor(task_id="gate", **{"instance_id": "1", **arguments})


NOT_WAITING = {"wait_for_completion": False}


class TestArgumentsWithoutEffect:
    @pytest.mark.parametrize("make", [start, batch])
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"on_timeout": "suspend"}, "on_timeout has no effect without a timeout or an execution_timeout"),
            ({**NOT_WAITING, "timeout": 60}, "timeout has no effect with wait_for_completion=False"),
            ({**NOT_WAITING, "on_timeout": "suspend"}, "on_timeout has no effect with wait_for_completion=False"),
            ({**NOT_WAITING, "on_suspended": "fail"}, "on_suspended has no effect with wait_for_completion=False"),
            ({**NOT_WAITING, "states": ["Broken"]}, "states has no effect with wait_for_completion=False"),
            ({"deferrable": "no"}, "deferrable must be True or False, not 'no'; write False"),
            ({"deferrable": 1}, "deferrable must be True or False, not 1; write True"),
            ({"wait_for_completion": "later"}, "wait_for_completion must be True or False, not 'later'"),
            ({"terminate_on_kill": "yes"}, "terminate_on_kill must be True or False, not 'yes'; write True"),
            ({"timeout": 0}, "timeout must be more than 0; omit it to wait forever"),
            ({"timeout": timedelta(0)}, "timeout must be more than 0"),
        ],
    )  # fmt: skip
    def test_fail_the_parsing_of_the_dag(
        self, make: Callable[..., Any], arguments: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is checked below
            make(**arguments)
        assert str(caught.value).startswith("Task 'gate': ")
        assert words in str(caught.value)

    def test_fail_the_parsing_of_a_batch(self) -> None:
        with pytest.raises(ValueError, match="on_failure has no effect with wait_for_completion=False"):
            batch(**NOT_WAITING, on_failure="terminate")
        with pytest.raises(ValueError, match="validate_first must be True or False, not 'off'; write False"):
            batch(validate_first="off")

    @pytest.mark.parametrize(
        "arguments",
        [
            {"on_timeout": "suspend", "timeout": 60},
            {"on_timeout": "suspend", "execution_timeout": timedelta(minutes=1)},
            {**NOT_WAITING, "execution_timeout": timedelta(minutes=1)},
            {"on_timeout": "leave"},
            {**NOT_WAITING, "on_timeout": "leave", "timeout": None, "on_suspended": "wait"},
        ],
    )
    @pytest.mark.parametrize("make", [start, batch])
    def test_arguments_with_an_effect_are_accepted(
        self, make: Callable[..., Any], arguments: dict[str, Any]
    ) -> None:
        make(**arguments)

    def test_a_sensor_always_has_a_timeout(self) -> None:
        sensor(on_timeout="suspend")
        sensor(timeout=0)  # it polls once


class TestAdvice:
    @pytest.mark.parametrize(
        ("make", "arguments", "words"),
        [
            (start, {"timeout": "1h"}, "not '1h'; write timedelta(hours=1)"),
            (start, {"timeout": "90 min"}, "write timedelta(minutes=90)"),
            (start, {"poll_interval": "30"}, "not '30'; write 30"),
            (start, {"max_poll_failure_time": "1.5d"}, "write timedelta(days=1.5)"),
            (start, {"timeout": "soon"}, "at most 1e+09, not 'soon'"),
            (start, {"timeout": "5ms"}, "at most 1e+09, not '5ms'"),
            (sensor, {"timeout": "1h"}, "timeout must be a number of seconds, at least 0 and at most 1e+09, not '1h'"),
            (sensor, {"poke_interval": "60"}, "write 60"),
            (start, {"states": ["Completed"]}, "not 'Completed'; did you mean 'Completed OK'?"),
            (start, {"states": ["completed_ok"]}, "did you mean 'Completed OK'?"),
            (start, {"failed_states": ["Brocken"]}, "did you mean 'Broken'?"),
            (start, {"on_timeout": "Terminate"}, "not 'Terminate'; did you mean 'terminate'?"),
            (start, {"bp_statuses": "Approved"}, "a list of texts, not 'Approved'; write ['Approved']"),
            (sensor, {"failed_bp_statuses": "Rejected"}, "write ['Rejected']"),
            (start, {"states": "Completed OK"}, "states must be a list of texts, not 'Completed OK'; write ["),
            (batch, {"max_concurrency": "16"}, "not '16'; write 16"),
            (batch, {"max_failures": "10%"}, "not '10%'; write 0.1"),
            (batch, {"rate_limit": "5"}, "not '5'; write 5"),
            (start, {"if_open_instance_exists": "adopt"}, "if_open_instance_exists has no effect without"),
            (sensor, {"bpm_name": "A"}, "bpm_name has no effect with an instance_id"),
            (sensor, {"business_key": "k"}, "give exactly one of instance_id and business_key"),
            (batch, {"launches": None}, "give exactly one of launches and launches_path"),
            (start, {"variables": {"a": [0, float("nan")]}}, "variables['a'][1] cannot be sent: it is nan"),
            (batch, {"launches": [{}, {"variables": {"a": b"x"}}]}, "launch 2: variables['a'] cannot be sent"),
        ],
    )  # fmt: skip
    def test_error_names_the_task_and_the_remedy(
        self, make: Callable[..., Any], arguments: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is checked below
            make(**arguments)
        assert str(caught.value).startswith("Task 'gate': ")
        assert words in str(caught.value)

    @pytest.mark.parametrize(
        ("kind", "arguments", "words"),
        [
            (AstroZeroTerminateBpmInstanceOperator, {"if_closed": "Fail"}, "did you mean 'fail'?"),
            (AstroZeroDeleteBpmInstanceOperator, {"if_missing": "succed"}, "did you mean 'succeed'?"),
            (AstroZeroSetBpmVariablesOperator, {"variables": {"a": b"x"}}, "variables['a'] cannot be sent"),
            (AstroZeroQueryBpmInstancesOperator, {"states": "Running"}, "write ['Running']"),
            (AstroZeroQueryBpmInstancesOperator, {"order_type": "up"}, "order_type must be one of"),
        ],
    )
    def test_errors_of_the_other_operators(self, kind: Any, arguments: dict[str, Any], words: str) -> None:
        of_one = {} if kind is AstroZeroQueryBpmInstancesOperator else {"instance_id": "1"}
        with DAG("d", schedule=None), pytest.raises(ValueError, match="^Task 'gate': ") as caught:
            kind(task_id="gate", **of_one, **arguments)
        assert words in str(caught.value)

    def test_list_template_without_native_rendering(self) -> None:
        operator = start(bp_statuses="{{ params.statuses }}")
        operator.bp_statuses = "['Approved']"
        with pytest.raises(ValueError, match="a template renders a text: set render_template_as_native_obj"):
            operator.execute({})

    def test_error_of_the_decorator(self) -> None:
        def gate() -> dict[str, Any]:
            return {}

        with pytest.raises(ValueError, match="^Task 'gate': @task.astro_bpm takes no variables"):
            astro_bpm_task(gate, bpm_name="Any", variables={"a": 1})


START: Any = AstroZeroStartBpmInstanceOperator
SET: Any = AstroZeroSetBpmVariablesOperator
DEFAULTS: dict[str, Any] = {
    "bpm_name": "Any", "business_key": "k", "if_open_instance_exists": "adopt", "timeout": timedelta(hours=1),
    "on_timeout": "terminate", "states": ["Completed OK"], "bp_statuses": ["Approved"], "on_suspended": "fail",
    "on_failure": "terminate", "launches_path": "/launches.csv", "variables": {"a": 1}, "deferrable": True,
}  # fmt: skip


class TestDefaultArgs:
    """Defaults of a DAG that have no effect in one of its tasks do not break its import."""

    def test_are_ignored_where_they_have_no_effect(self) -> None:
        with DAG("d", schedule=None, default_args=DEFAULTS):
            fired = START(task_id="fired", wait_for_completion=False)
            many = AstroZeroStartBpmBatchOperator(task_id="many", launches=[{}], wait_for_completion=False)
            waits = AstroZeroBpmInstanceSensor(task_id="waits", instance_id="1")
            SET(task_id="sets", instance_id="1")
            AstroZeroQueryBpmInstancesOperator(task_id="lists")
        assert (fired.states, fired.bp_statuses, fired.timeout, fired.on_timeout) == (
            None,
            None,
            None,
            "leave",
        )
        assert (many.launches_path, many.on_failure, many.on_suspended) == (None, "leave", "wait")
        assert (waits.business_key, waits.bpm_name, waits.on_timeout) == (None, None, "terminate")

    def test_apply_where_they_have_an_effect(self) -> None:
        with DAG("d", schedule=None, default_args=DEFAULTS):
            gate = START(task_id="gate")
        assert (gate.timeout, gate.on_timeout, gate.if_open_instance_exists) == (3600, "terminate", "adopt")
        assert gate.bp_statuses == ["Approved"]

    @pytest.mark.parametrize(
        ("defaults", "arguments"),
        [
            ({"on_timeout": "terminate"}, {}),
            ({"if_open_instance_exists": "fail"}, {}),
            ({"timeout": 3600.0}, NOT_WAITING),
        ],
    )
    def test_single_default_without_effect_is_ignored(
        self, defaults: dict[str, Any], arguments: dict[str, Any]
    ) -> None:
        with DAG("d", schedule=None, default_args=defaults):
            start(**arguments)

    def test_default_args_of_a_task_group(self) -> None:
        defaults: Any = {"on_timeout": "terminate"}
        with DAG("d", schedule=None), TaskGroup("g", default_args=defaults):
            assert start().on_timeout == "leave"

    def test_do_not_excuse_arguments_of_the_task(self) -> None:
        with DAG("d", schedule=None, default_args={"on_timeout": "terminate", "timeout": 60}):
            with pytest.raises(ValueError, match="Task 'gate': timeout has no effect"):
                start(**NOT_WAITING, timeout=61)
            with pytest.raises(ValueError, match="Task 'other': on_timeout has no effect"):
                start(task_id="other", **NOT_WAITING, on_timeout="suspend")


@pytest.fixture
def shanghai(
    emulator: AstroZeroEmulator, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection with a ``timezone``."""
    connection = {**json.loads(emulator_server.connection_json()), "extra": {"timezone": "Asia/Shanghai"}}
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))


@pytest.fixture
def offered(emulator: AstroZeroEmulator) -> AstroZeroEmulator:
    """The emulator with a process that ends at once and has the variables of ``GIVEN``."""
    emulator.process("Any", STEPS, variables=dict.fromkeys(GIVEN))
    emulator.process("Open", [{"state": "Running", "for": 9e5}], variables=dict.fromkeys(GIVEN))
    return emulator


def execute(operator: Any) -> Any:
    return operator.execute(FakeTaskInstance("gate").context)


def by_the_decorator(given: Any) -> None:
    made: Any = task.astro_bpm(task_id="gate", bpm_name="Any", poll_interval=1)(lambda: given)()
    execute(made.operator)


def by_the_notifier(given: Any) -> None:
    AstroZeroStartBpmNotifier(bpm_name="Any", variables=given, business_key="k").notify({})


WAYS: dict[str, Callable[[Any], Any]] = {
    "start": lambda given: execute(start(variables=given, poll_interval=1)),
    "batch": lambda given: execute(batch(launches=[{"variables": given}], poll_interval=1)),
    "decorator": by_the_decorator,
    "notifier": by_the_notifier,
    "hook": lambda given: AstroZeroHook().start_instance("Any", variables=given),
}


class TestValues:
    @pytest.mark.usefixtures("shanghai")
    @pytest.mark.parametrize("way", WAYS)
    def test_all_ways_to_start_send_the_same(self, way: str, offered: AstroZeroEmulator) -> None:
        WAYS[way](GIVEN)
        (instance,) = offered.instances()
        assert {name: instance["variables"][name] for name in SENT} == SENT

    @pytest.mark.usefixtures("shanghai")
    @pytest.mark.parametrize("way", ["operator", "hook"])
    def test_all_ways_to_set_variables_send_the_same(self, way: str, offered: AstroZeroEmulator) -> None:
        instance_id = offered.start("Open")["id"]
        if way == "operator":
            execute(AstroZeroSetBpmVariablesOperator(task_id="set", instance_id=instance_id, variables=GIVEN))
        else:
            AstroZeroHook().set_variables(instance_id, GIVEN)
        assert offered.instance(instance_id)["variables"] == SENT

    @pytest.mark.parametrize("way", WAYS)
    def test_aware_datetime_needs_the_timezone_of_the_connection(
        self, way: str, offered: AstroZeroEmulator, caplog: pytest.LogCaptureFixture, capsys: Any
    ) -> None:
        said = ""
        try:
            WAYS[way]({"due": [MOMENT]})
        except ValueError as error:
            said = str(error)
        said += caplog.text + capsys.readouterr().out
        assert "variables['due'][0] cannot be sent: it is the datetime 2018-12-12T20:00:00+00:00" in said
        assert "set the extra 'timezone' of the connection" in said
        assert not any(offered.counts().values())

    def test_values_in_a_file_of_launches(self, offered: AstroZeroEmulator, tmp_path: Path) -> None:
        path = tmp_path / "launches.jsonl"
        path.write_text('{"business_key": 4711, "version": "1.0.0", "variables": {"parts": [1, null]}}\n')
        execute(batch(launches=None, launches_path=str(path), poll_interval=1))
        (instance,) = offered.instances()
        assert (instance["business_key"], instance["variables"]["parts"]) == ("4711", [1, None])

    def test_float_version_in_a_file_is_refused(self, offered: AstroZeroEmulator, tmp_path: Path) -> None:
        path = tmp_path / "launches.jsonl"
        path.write_text('{"version": 1.10}\n')
        with pytest.raises(ValueError, match="line 1 of .*version must be a text, not the number 1.1"):
            execute(batch(launches=None, launches_path=str(path)))
        assert not any(offered.counts().values())


class TestNumbersOfTemplates:
    """Native rendering turns texts into numbers."""

    def test_integer_becomes_a_text(self, offered: AstroZeroEmulator) -> None:
        offered.process("Any", STEPS, version="2")
        operator = start(bpm_name="Any", poll_interval=1)
        operator.version, operator.title, operator.business_key = 2, 42, 20181212
        result = execute(operator)
        (instance,) = offered.instances()
        assert (result["version"], result["business_key"]) == ("2", "20181212")
        assert instance["title"] == "42"

    @pytest.mark.parametrize("argument", ["version", "title", "business_key", "bpm_name"])
    @pytest.mark.parametrize("value", [1.1, True, MOMENT, ["a"]])
    def test_other_types_are_refused_with_a_remedy(
        self, argument: str, value: object, offered: AstroZeroEmulator
    ) -> None:
        operator = start()
        setattr(operator, argument, value)
        with pytest.raises(
            ValueError, match=f"{argument} must be a text, not .*add quotes inside a template"
        ):
            execute(operator)
        assert not any(offered.counts().values())


@pytest.fixture
def run(
    offered: AstroZeroEmulator, airflow_database: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., DagResult]:
    """Run a DAG of ``dags/arguments.py``."""
    bundle = {
        "name": "arguments",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(DAGS.parent)},
    }
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
    spec = importlib.util.spec_from_file_location("arguments", DAGS)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda dag_id, **options: offered.run(getattr(module, dag_id), **options)


@pytest.mark.filterwarnings("ignore")  # Airflow and its libraries emit their own warnings here
class TestOnAirflow:
    """The values after Airflow has rendered the templates of a task."""

    def test_native_rendering(self, offered: AstroZeroEmulator, run: Callable[..., DagResult]) -> None:
        offered.process("Any", STEPS, version="1.10")
        assert run("native", logical_date=MOMENT).state == "success"
        (instance,) = offered.instances()
        shown = instance["version"], instance["business_key"], instance["title"]
        assert shown == ("1.10", "20181212", "42")

    @pytest.mark.parametrize(
        ("dag_id", "words"),
        [
            ("as_text", "variables must be a mapping of names to JSON values, not a text. A template renders to a text"),
            ("not_a_number", "variables['parts'][1] cannot be sent: it is nan, which JSON does not have"),
        ],
    )  # fmt: skip
    def test_error_names_the_rendered_value(
        self,
        dag_id: str,
        words: str,
        offered: AstroZeroEmulator,
        run: Callable[..., DagResult],
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        assert run(dag_id, run_conf={"vars": {"day": "x"}}).state == "failed"
        assert words in capfd.readouterr().out
        assert not offered.instances()

    def test_return_value_of_a_task_is_not_rendered(
        self, offered: AstroZeroEmulator, run: Callable[..., DagResult]
    ) -> None:
        assert run("hostile").state == "success"
        (instance,) = offered.instances()
        assert instance["variables"]["day"] == "{{ 7 * 6 }}"

    def test_default_title_names_dag_task_launch_and_run(
        self, offered: AstroZeroEmulator, run: Callable[..., DagResult]
    ) -> None:
        result = run("titles")
        assert result.state == "success"
        titles = sorted(instance["title"] for instance in offered.instances())
        (run_id,) = {title.partition("(run ")[2] for title in titles if "(run " in title}
        assert run_id.startswith("manual__")
        assert titles == sorted(
            [
                f"titles.gate (run {run_id}", f"titles.many #1 (run {run_id}", f"titles.each.1 (run {run_id}",
                "own", "of the variables",
            ]
        )  # fmt: skip
