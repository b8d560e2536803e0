"""Tests of the retry policy, called as Airflow does. In ``tests/deployment`` a worker calls it."""

from __future__ import annotations

import copy
import importlib
import json
import pickle
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.decorators.bpm import astro_bpm_task
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator
from airflow_provider_astrobpm.policies import bpm
from airflow_provider_astrobpm.policies.bpm import astro_zero_retry_policy
from airflow_provider_astrobpm.testing.emulator_fixture import AstroZeroEmulator

pytestmark = pytest.mark.usefixtures("no_jitter")

try:
    from airflow.sdk import RetryAction, RetryDecision, RetryPolicy
except ImportError:
    HAS_POLICIES = False
else:
    HAS_POLICIES = True


needs_policies = pytest.mark.skipif(not HAS_POLICIES, reason="tasks have no retry_policy before Airflow 3.3")


def test_before_airflow_3_3_raises_an_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpm, "has_retry_policies", lambda: False)
    with pytest.raises(RuntimeError, match="needs Airflow 3.3 or newer.*leave it out"):
        astro_zero_retry_policy()


@pytest.mark.parametrize("max_delay", [-1, "long", None, True])
def test_a_bad_delay_fails_at_parse_time(max_delay: Any) -> None:
    with pytest.raises(ValueError, match="max_delay must be a number of seconds"):
        astro_zero_retry_policy(max_delay=max_delay)


@pytest.mark.parametrize("number", [0, -1, 1.5, "3", True])
def test_a_bad_number_of_reschedules_fails_at_parse_time(number: Any) -> None:
    with pytest.raises(ValueError, match="max_reschedules must be a whole number, at least 1"):
        astro_zero_retry_policy(max_reschedules=number)


@pytest.mark.parametrize("limit", [0, -1, "long", True])
def test_a_bad_limit_of_reschedules_fails_at_parse_time(limit: Any) -> None:
    with pytest.raises(ValueError, match="reschedule_timeout must be a number of seconds, at least 1"):
        astro_zero_retry_policy(reschedule_timeout=limit)


def decided(error: BaseException, policy: Any = None) -> RetryDecision:
    """Return the decision of a policy that never reschedules, unless another one is given."""
    policy = policy or astro_zero_retry_policy(reschedule_timeout=None)
    decision: RetryDecision = policy.evaluate(error, try_number=1, max_tries=5)
    return decision


def raised(act: Any, *arguments: Any, **options: Any) -> BaseException:
    try:
        act(*arguments, **options)
    except Exception as error:  # noqa: BLE001
        return error
    pytest.fail("nothing was raised")


@needs_policies
class TestDecisions:
    def test_is_a_policy_of_airflow(self) -> None:
        assert isinstance(astro_zero_retry_policy(), RetryPolicy)

    def test_a_refusal_fails(self, emulator: EmulatorControl) -> None:
        task = AstroZeroStartBpmInstanceOperator(task_id="t", bpm_name="NoSuch")
        decision = decided(raised(task.hook.start_instance, "NoSuch"))
        assert decision == RetryDecision.fail("RefusedError: a retry would end in the same way")

    def test_an_outage_during_the_token_request_is_retried(
        self, free_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A new worker requests a token first, so that request fails."""
        connection = {"conn_type": "astro_zero", "host": f"http://127.0.0.1:{free_port}", "login": "c"}
        extra = {"max_attempts": 1}
        monkeypatch.setenv(
            "AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps({**connection, "password": "s", "extra": extra})
        )
        task = AstroZeroStartBpmInstanceOperator(task_id="t", bpm_name="A")
        decision = decided(raised(task.hook.start_instance, "A"))
        assert decision == RetryDecision.retry(None, "NotSentError: it may be transient")

    @pytest.mark.parametrize(("status", "name"), [(429, "ThrottledError"), (503, "ServerError")])
    def test_retries_when_the_token_endpoint_asks_for_it(
        self, status: int, name: str, emulator: AstroZeroEmulator
    ) -> None:
        emulator.connect(max_attempts=1)
        emulator.fault("token", "status", status=status, retry_after="0", times=100)
        task = AstroZeroStartBpmInstanceOperator(task_id="t", bpm_name="A")
        decision = decided(raised(task.hook.start_instance, "A"))
        assert decision == RetryDecision.retry(timedelta(0), f"{name}: the server asks to wait 0 s")

    def test_throttling_is_retried(self) -> None:
        error = errors.ThrottledError("the server received too many requests")
        error.retry_after = "120"
        assert decided(error) == RetryDecision.retry(
            timedelta(minutes=2), "ThrottledError: the server asks to wait 120 s"
        )
        soon = astro_zero_retry_policy(max_delay=timedelta(minutes=1), reschedule_timeout=None)
        assert decided(error, soon).retry_delay == timedelta(minutes=1)
        error.retry_after = None
        assert decided(error) == RetryDecision.retry(None, "ThrottledError: it may be transient")

    def test_a_start_in_doubt_is_retried_soon(self) -> None:
        decision = decided(errors.AmbiguousStartError("no answer came", "key"))
        assert (decision.action, decision.retry_delay) == (RetryAction.RETRY, timedelta(seconds=10))

    def test_a_bad_argument_refused_by_the_provider_fails(self, emulator: EmulatorControl) -> None:
        task = AstroZeroStartBpmInstanceOperator(task_id="t", bpm_name=" ")
        for error in (
            raised(task.hook.start_instance, " "),
            raised(AstroZeroStartBpmInstanceOperator, task_id="t", bpm_name="A", poll_interval=0),
            raised(task.hook.set_variables, "1", {}),
        ):
            assert type(error) is ValueError
            assert decided(error).action is RetryAction.FAIL

    def test_a_valueerror_of_a_task_function_is_no_bad_argument(self) -> None:
        def load() -> dict[str, Any]:
            return {"rows": int("many")}

        decorated: Any = astro_bpm_task(bpm_name="A")
        error = raised(decorated(load)().operator.execute, {})
        assert type(error) is ValueError
        assert decided(error) == RetryDecision.default()
        assert decided(ValueError("was never raised")) == RetryDecision.default()


@needs_policies
class TestInADag:
    @pytest.fixture
    def dag(self) -> DAG:
        policy = astro_zero_retry_policy(max_delay=60)
        with DAG("policies", schedule=None, default_args={"retry_policy": policy}) as dag:
            AstroZeroStartBpmInstanceOperator(task_id="plain", bpm_name="A", retry_policy=policy)
            AstroZeroStartBpmInstanceOperator.partial(task_id="mapped", retry_policy=policy).expand(
                bpm_name=["A"]
            )
            decorated: Any = astro_bpm_task(bpm_name="A", task_id="decorated", retry_policy=policy)
            decorated(lambda: None)()
        return dag

    @pytest.mark.filterwarnings("ignore")  # Airflow's own warnings
    def test_a_serialized_dag_says_that_there_is_a_policy(self, dag: DAG) -> None:
        objects = importlib.import_module("airflow.serialization.serialized_objects")
        serialised = json.dumps(objects.DagSerialization.to_dict(dag))
        again = objects.DagSerialization.from_dict(json.loads(serialised))
        assert {task.task_id for task in again.tasks if task.has_retry_policy} == {
            "plain",
            "mapped",
            "decorated",
        }

    def test_can_be_deserialized(self) -> None:
        policy = astro_zero_retry_policy(
            max_delay=60, max_reschedules=3, reschedule_timeout=timedelta(hours=1)
        )
        plain = json.loads(json.dumps(policy.serialize()))
        assert plain["max_delay"] == 60
        for again in (
            type(policy).deserialize(plain),
            copy.deepcopy(policy),
            pickle.loads(pickle.dumps(policy)),
        ):
            assert (again.max_delay, again.max_reschedules, again.reschedule_timeout) == (60, 3, 3600)
