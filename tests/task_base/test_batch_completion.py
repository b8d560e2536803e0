"""Completion of a batch while lists fail: open instances are acted on, and no success stays unconfirmed."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import pytest

from airflow_provider_astrobpm._airflow.user_action import TaskInstanceRef
from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.task_base.batch_completion import BatchCompletion
from airflow_provider_astrobpm.task_base.batch_xcoms import PublishedBatch
from airflow_provider_astrobpm.waiting.batch_wait import BatchWaitResult
from airflow_provider_astrobpm.waiting.condition import WaitCondition

TASK = TaskInstanceRef("dag", "run", "batch", -1)


def batch_end(**arguments: Any) -> BatchCompletion:
    return BatchCompletion(
        **{
            "hook": AstroZeroHook(),
            "condition": WaitCondition(),
            "max_failures": 0,
            "on_timeout": "leave",
            "on_failure": "leave",
            "max_concurrency": 4,
            "poll_interval": 1,
            "max_poll_failure_time": 600,
            "log": logging.getLogger(__name__),
            **arguments,
        }
    )


def late(argument: str = "timeout") -> errors.WaitTimeoutError:
    return errors.WaitTimeoutError("4 instances", time.time(), None, argument=argument)


@pytest.fixture
def ids(
    emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Four instances: one has succeeded, three wait for a person. All lists fail."""
    connection = {**json.loads(emulator_server.connection_json()), "extra": {"max_attempts": 1}}
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))
    good = emulator.start("Instant")["id"]
    started = [good, *(emulator.start("SupplierOnboarding")["id"] for _ in range(3))]
    for kind in ("query", "get"):
        emulator.fault(kind, "status", status=503, times=1000)
    return started


def batch(ids: list[str]) -> PublishedBatch:
    return PublishedBatch(TASK, "key-", ids, ids)


@pytest.mark.parametrize("how", [{"on_timeout": "terminate"}, {"on_failure": "terminate"}], ids=str)
def test_id_of_another_instance_is_no_success_and_not_terminated(
    how: dict[str, Any], ids: list[str], emulator: EmulatorControl
) -> None:
    emulator.clear_faults()
    for one in ids[:2]:
        emulator.distort(one, {"name": "Another"})
    named = batch(ids)._replace(names=("SupplierOnboarding", "Instant"))
    end = BatchWaitResult(1, {}, tuple(ids[1:]))
    result, failure = batch_end(**how).complete(named, end, late())
    reasons = {one.instance_id: one.reason for one in result}
    assert all(str(reasons[one]).startswith("its id now shows another instance") for one in ids[:2])
    assert failure is not None
    assert closed(emulator, ids) == [True, False, True, True]
    assert result.counts["failed"] == 4
    acted_on = {
        entry["path"].rpartition("/")[2] for entry in emulator.requests() if entry["kind"] == "action"
    }
    assert acted_on == set(ids[2:])


def closed(emulator: EmulatorControl, ids: list[str]) -> list[bool]:
    return [emulator.instance(one)["closed"] for one in ids]


@pytest.mark.parametrize(
    ("on_timeout", "ends"), [("terminate", [True] * 4), ("suspend", [True, False, False, False])]
)
@pytest.mark.parametrize("argument", ["timeout", "execution_timeout"])
def test_on_timeout_acts_although_nothing_can_be_read(
    argument: str, on_timeout: str, ends: list[bool], ids: list[str], emulator: EmulatorControl
) -> None:
    began = time.monotonic()
    result, failure = batch_end(on_timeout=on_timeout).complete(
        batch(ids), BatchWaitResult(1, {}, tuple(ids[1:])), late(argument)
    )
    assert time.monotonic() - began < 20, "it polls once and not for max_poll_failure_time"
    assert closed(emulator, ids) == ends
    assert [emulator.instance(one)["suspended"] for one in ids[1:]] == [on_timeout == "suspend"] * 3
    assert result.counts["failed"] == 3
    assert failure is not None
    assert f"it was still open at the deadline ({argument!r})" in str(failure)
    assert "The current states of its instances could not be read: " in str(failure)
    assert f"By 'on_timeout': {on_timeout}: 3 done" in str(failure)
    assert str(failure).startswith("On connection 'astro_zero_default': 3 of 4 launches failed")


def test_on_timeout_leave_does_nothing(ids: list[str], emulator: EmulatorControl) -> None:
    _, failure = batch_end().complete(batch(ids), BatchWaitResult(1, {}, tuple(ids[1:])), late())
    assert failure is not None
    assert closed(emulator, ids) == [True, False, False, False]
    assert emulator.counts()["action"] == 0


def test_unconfirmed_success_fails(ids: list[str], emulator: EmulatorControl) -> None:
    """Three may fail, and three are open at the deadline; but only the trigger reports that the first one succeeded."""
    end = batch_end(on_timeout="terminate", max_failures=3)
    with pytest.raises(errors.ServerError):
        end.complete(batch(ids), BatchWaitResult(1, {}, tuple(ids[1:])), late())
    assert closed(emulator, ids) == [True] * 4


def test_failed_batch_terminates_the_rest(ids: list[str], emulator: EmulatorControl) -> None:
    """With ``fail_fast`` and ``on_failure="terminate"``."""
    end = BatchWaitResult(1, {ids[1]: "it is in state 'Paused'"}, tuple(ids[2:]))
    result, failure = batch_end(on_failure="terminate").complete(batch(ids), end, None)
    assert failure is not None
    assert "By 'on_failure': terminate: 3 done" in str(failure)
    assert closed(emulator, ids) == [True] * 4
    acted_on = {
        entry["path"].rpartition("/")[2] for entry in emulator.requests() if entry["kind"] == "action"
    }
    assert acted_on == set(ids[1:]), "the succeeded instance is left alone"
    assert result.counts["open"] == 2


def test_confirmation_fails_if_polls_fail_for_too_long(ids: list[str], emulator: EmulatorControl) -> None:
    end = BatchWaitResult(4, {}, ())
    with pytest.raises(errors.ServerError, match="'max_poll_failure_time'"):
        batch_end(max_poll_failure_time=0).complete(batch(ids), end, None)
    assert emulator.counts()["action"] == 0
