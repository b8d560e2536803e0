"""``@task.astro_bpm`` on real Airflow, against the emulator."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.sdk import DAG, task
from airflow.sdk.bases.decorator import DecoratedOperator

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.decorators.bpm import (
    SHOWN_VARIABLES,
    AstroZeroBpmDecoratedOperator,
    astro_bpm_task,
)
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.links.bpm import AstroZeroBpmInstanceLink
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator
from tests.support.task_instance import FakeTaskInstance

DAGS = Path(__file__).parent / "dags" / "decorated.py"
BPM = "NightlyReconciliation"
HOSTILE = "{{ 7 * 6 }} {% raise %} {{ var.value.secret }}"


def made(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Make a task from a function, outside of any DAG."""
    decorated: Any = astro_bpm_task(**{"bpm_name": BPM, "poll_interval": 1, "task_id": "load", **options})
    return decorated(function)(*arguments).operator


def nothing() -> dict[str, Any]:
    return {}


def run(operator: Any, ti: FakeTaskInstance | None = None, **context: Any) -> Any:
    return operator.execute({"ti": ti or FakeTaskInstance("load", retries=3), **context})


class TestFunction:
    def test_return_value_becomes_the_variables(self, emulator: EmulatorControl) -> None:
        result = run(made(lambda: {"ledger": "EU", "business_date": {"a": [1, None]}}))
        (instance,) = emulator.instances()
        assert (result["id"], result["state"]) == (instance["id"], "Completed OK")
        variables = instance["variables"]
        assert (variables["ledger"], variables["business_date"]) == ("EU", {"a": [1, None]})

    def test_may_return_none(self, emulator: EmulatorControl) -> None:
        run(made(lambda: None))
        assert len(emulator.instances()) == 1

    def test_gets_arguments_and_context(self, emulator: EmulatorControl) -> None:
        def load(ledger: str, run_id: Any = None, *, ti: Any = None) -> dict[str, Any]:
            return {"ledger": f"{ledger} {run_id} {ti.task_id}"}

        run(made(load, "EU"), run_id="r1")
        assert emulator.instances()[0]["variables"]["ledger"] == "EU r1 load"

    def test_return_value_is_not_rendered(self, emulator: EmulatorControl) -> None:
        run(made(lambda: {"ledger": HOSTILE}))
        assert emulator.instances()[0]["variables"]["ledger"] == HOSTILE

    @pytest.mark.parametrize("given", [[("ledger", "EU")], "ledger=EU", 5, True, (n for n in "ab")])
    def test_wrong_return_type_starts_nothing(self, given: object, emulator: EmulatorControl) -> None:
        def load() -> Any:
            return given

        with pytest.raises(ValueError, match="load must return the variables as a mapping .*, or None"):
            run(made(load))
        assert not any(emulator.counts().values())

    def test_return_value_without_json_form_starts_nothing(self, emulator: EmulatorControl) -> None:
        with pytest.raises(ValueError, match="variables.'when'. cannot be sent"):
            run(made(lambda: {"when": timedelta(1)}))
        assert not any(emulator.counts().values())

    def test_exception_starts_nothing(self, emulator: EmulatorControl) -> None:
        def load() -> dict[str, Any]:
            raise LookupError("no ledger today")

        with pytest.raises(LookupError, match="no ledger today"):
            run(made(load))
        assert not any(emulator.counts().values())

    def test_runs_once_per_try_and_the_retry_adopts_the_instance(
        self, emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection = {**json.loads(emulator_server.connection_json()), "extra": {"start_grace": 0.2}}
        monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))
        calls = iter(("CN", "US"))
        operator = made(
            lambda: {"country": next(calls)}, bpm_name="SupplierOnboarding", timeout=0.001, retries=3
        )
        ti = FakeTaskInstance("load", retries=3)
        with pytest.raises(errors.WaitTimeoutError):
            run(operator, ti)
        (instance,) = emulator.instances()
        emulator.move(instance["id"], state="Completed OK")
        ti.try_number = 2
        assert run(operator, ti)["id"] == instance["id"]
        assert emulator.instance(instance["id"])["variables"]["country"] == "CN"
        assert next(calls, None) is None
        assert emulator.counts()["start"] == 1


class TestParsing:
    @pytest.mark.parametrize("variables", [{}, {"a": 1}, None, "{{ a }}"])
    def test_variables_are_refused(self, variables: Any) -> None:
        with pytest.raises(ValueError, match="takes no variables: the function returns them"):
            made(nothing, variables=variables)

    def test_variables_are_refused_in_override(self) -> None:
        decorated: Any = astro_bpm_task(bpm_name=BPM)(nothing).override(variables={"a": 1})
        with (
            DAG("d", schedule=None),
            pytest.raises(ValueError, match="^Task 'nothing': @task.astro_bpm takes no variables"),
        ):
            decorated()

    def test_variables_of_default_args_are_ignored(self, emulator: EmulatorControl) -> None:
        decorated: Any = astro_bpm_task(bpm_name=BPM, poll_interval=1)(nothing)
        with DAG("d", schedule=None, default_args={"variables": {"ledger": "of the DAG"}}):
            operator = decorated().operator
        run(operator)
        (instance,) = emulator.instances()
        assert instance["variables"].get("ledger") != "of the DAG"

    def test_bpm_name_is_required(self) -> None:
        with pytest.raises(TypeError, match="bpm_name"):
            astro_bpm_task(nothing)()

    def test_coroutine_and_generator_functions_are_refused(self) -> None:
        async def later() -> dict[str, Any]:
            return {}

        def one_by_one() -> Iterator[Any]:
            yield {}

        for function in (later, one_by_one):
            with pytest.raises(ValueError, match="takes a plain function"):
                made(function)

    def test_bad_arguments_are_refused_as_the_operator_does(self) -> None:
        with pytest.raises(ValueError, match="poll_interval"):
            made(nothing, bpm_name=BPM, poll_interval=0)

    def test_return_annotation_does_not_set_multiple_outputs(self) -> None:
        def load() -> dict[str, Any]:
            return {}

        assert made(load).multiple_outputs is False
        assert made(load, multiple_outputs=True).multiple_outputs is True

    def test_other_arguments_are_those_of_the_start_operator(self) -> None:
        operator = made(nothing)
        assert isinstance(operator, AstroZeroStartBpmInstanceOperator)
        assert set(operator.template_fields) == {
            *DecoratedOperator.template_fields, *AstroZeroStartBpmInstanceOperator.template_fields
        }  # fmt: skip
        assert [type(link) for link in operator.operator_extra_links] == [AstroZeroBpmInstanceLink]
        assert AstroZeroBpmDecoratedOperator.custom_operator_name == "@task.astro_bpm"


class Colour(str, Enum):
    RED = "red"


class TestDeferral:
    """A resumed task gets the return value of its function back, for its page."""

    def deferred(self, variables: Any) -> dict[str, Any]:
        operator = made(nothing)
        operator.variables = variables
        with pytest.raises(TaskDeferred) as caught:
            operator.defer(trigger=operator._trigger_for(None), method_name="m", kwargs={"deadline": 5})
        return caught.value.kwargs or {}

    def test_keeps_the_variables(self) -> None:
        assert self.deferred({"a": {"b": 1}}) == {"deadline": 5, SHOWN_VARIABLES: {"a": {"b": 1}}}
        assert self.deferred(None) == {"deadline": 5, SHOWN_VARIABLES: None}
        assert self.deferred({"of": Colour.RED, "by": {1: (2, 3)}})[SHOWN_VARIABLES] == {
            "of": "red",
            "by": {"1": [2, 3]},
        }
        assert self.deferred("cut off before") == {"deadline": 5, SHOWN_VARIABLES: "cut off before"}

    def test_keeps_variables_truncated_and_masked(self) -> None:
        kept = self.deferred({"text": "x" * 10_000})[SHOWN_VARIABLES]
        assert isinstance(kept, str)
        assert 4096 < len(kept) < 4200
        kept = self.deferred({"password": "very-secret", "ledger": "EU"})[SHOWN_VARIABLES]
        assert kept["ledger"] == "EU"
        assert "very-secret" not in json.dumps(kept)

    def test_variables_are_restored_before_the_task_resumes(self, emulator: EmulatorControl) -> None:
        operator = made(nothing)
        seen: list[Any] = []
        operator.execute_complete = lambda _context, **arguments: seen.append((operator.variables, arguments))
        operator.resume_execution(
            "execute_complete",
            {"deadline": 5, SHOWN_VARIABLES: {"a": 1}},
            {"ti": FakeTaskInstance("load", retries=3)},
        )
        assert seen == [({"a": 1}, {})]


@pytest.mark.usefixtures("airflow_database")
@pytest.mark.filterwarnings("ignore")  # Airflow and its libraries emit their own warnings here
class TestOnAirflow:
    @pytest.fixture
    def run(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, str]]:
        """Run a DAG of ``dags/``, and return how each of its task instances ended."""
        bundle = {
            "name": "decorated",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(DAGS.parent)},
        }
        monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
        spec = importlib.util.spec_from_file_location("decorated", DAGS)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)

        def run(dag_id: str) -> dict[str, str]:
            return {
                f"{ti.task_id}[{ti.map_index}]" if ti.map_index >= 0 else ti.task_id: str(ti.state)
                for ti in module.DAGS[dag_id].test().get_task_instances()
            }

        return run

    @pytest.mark.parametrize("where", ["on_worker", "deferred"])
    def test_a_gate(self, where: str, run: Any, emulator: EmulatorControl) -> None:
        assert run(f"gate_{where}") == {"rows": "success", "ask": "success", "after": "success"}
        (instance,) = emulator.instances()
        assert instance["title"].startswith("Of manual__")
        assert instance["variables"]["business_date"] == 7
        assert instance["variables"]["ledger"] == HOSTILE
        assert emulator.counts()["start"] == 1

    @pytest.mark.parametrize("where", ["on_worker", "deferred"])
    def test_mapped(self, where: str, run: Any, emulator: EmulatorControl) -> None:
        some = {f"some[{index}]": "success" for index in range(3)}
        assert run(f"mapped_{where}") == {**some, "count": "success"}
        variables = [one["variables"] for one in emulator.instances()]
        told = {(each["ledger"], each["business_date"]) for each in variables}
        assert told == {("EU", "today"), ("US", "today"), ("CN", "today")}
        assert len({one["business_key"] for one in emulator.instances()}) == 3

    @pytest.mark.parametrize("dag_id", ["with_variables", "out_as_none"])
    def test_mapped_task_with_a_wrong_value_starts_nothing(
        self, dag_id: str, run: Any, emulator: EmulatorControl
    ) -> None:
        assert run(dag_id) == {f"{dag_id}[0]": "failed"}
        assert not emulator.counts()["start"]

    def test_airflow_finds_the_decorator(self) -> None:
        with DAG("decorated", schedule=None):
            output: Any = task.astro_bpm(bpm_name=BPM)(nothing)()
        assert isinstance(output.operator, AstroZeroBpmDecoratedOperator)
