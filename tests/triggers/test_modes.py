"""A wait ends alike in every mode: the same result, failure, skip, and log lines."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
)

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.texts import storable
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator
from airflow_provider_astrobpm.sensors.bpm import AstroZeroBpmInstanceSensor

World = Callable[[EmulatorControl, str], None]


def nothing(_emulator: EmulatorControl, _instance_id: str) -> None:
    pass


def approve(emulator: EmulatorControl, instance_id: str) -> None:
    emulator.act(instance_id, "approve")


def reject(emulator: EmulatorControl, instance_id: str) -> None:
    emulator.act(instance_id, "reject")


def move(state: str) -> World:
    def happens(emulator: EmulatorControl, instance_id: str) -> None:
        emulator.move(instance_id, state=state)

    return happens


def distorted(outcome: str, fields: dict[str, Any], *without: str) -> World:
    """Complete the instance's task, while the API shows some of its fields wrongly or not at all."""

    def happens(emulator: EmulatorControl, instance_id: str) -> None:
        emulator.distort(instance_id, fields, without=without)
        emulator.act(instance_id, outcome)

    return happens


NULS = dict.fromkeys(
    ("version", "label", "title", "bpStatus", "curElement", "description", "createdBy.name"), "Appr\x00oved"
)


def refuse_credentials(emulator: EmulatorControl, _instance_id: str) -> None:
    emulator.revoke_tokens()
    emulator.fault("token", "status", status=401, times=1000, res_code="401")


@dataclass(frozen=True)
class Case:
    """What happens while a task waits, and how it must end.

    :param cause: the error with which the wait ends; ``None`` for success.
    :param may_be_open: whether the instance may still be open then.
    :param words: what the error says.
    :param is_news: whether it matters only after the instance was seen, which a sensor has not done.
    """

    happens: World
    cause: type[Exception] | None = None
    may_be_open: bool = False
    arguments: tuple[tuple[str, Any], ...] = ()
    words: str = ""
    is_news: bool = False

    def says(self, end: BaseException) -> bool:
        """Return whether the error of a task, or its cause, contains the words and names the connection."""
        said = f"{end} {end.__cause__}".lower()
        return self.words.lower() in said and "on connection 'astro_zero_default': " in said


def time_is_up(limit: str, **arguments: Any) -> Case:
    """Return the case of a timeout by one of the two arguments that limit a wait; the other limit is later."""
    limits = {"timeout": 3600, "execution_timeout": timedelta(hours=1)}
    limits[limit] = timedelta(seconds=0.3) if limit == "execution_timeout" else 0.3
    return Case(
        nothing,
        errors.WaitTimeoutError,
        may_be_open=arguments.get("on_timeout") != "terminate",
        arguments=(*limits.items(), *arguments.items()),
        words=f"UTC ({limit!r})",
    )


CASES = {
    "approved": Case(approve),
    "rejected": Case(reject, errors.WaitFailedError, arguments=(("failed_bp_statuses", ["Rejected"]),)),
    "not the status asked for": Case(
        reject, errors.WaitFailedError, arguments=(("bp_statuses", ["Approved"]),)
    ),
    "a state asked for": Case(move("Terminated"), arguments=(("states", ["Terminated"]),)),
    "terminated": Case(move("Terminated"), errors.WaitFailedError),
    "user terminated": Case(move("User Terminated"), errors.WaitFailedError),
    "broken": Case(move("Broken"), errors.WaitFailedError),
    "suspended": Case(
        move("Suspended"), errors.WaitFailedError, may_be_open=True, arguments=(("on_suspended", "fail"),)
    ),
    "a failure state": Case(
        move("Paused"), errors.WaitFailedError, may_be_open=True, arguments=(("failed_states", ["Paused"]),)
    ),
    **{
        f"{effect}, when time is up by {limit}": time_is_up(limit, **arguments)
        for limit in ("timeout", "execution_timeout")
        for effect, arguments in {
            "left": {},
            "suspended": {"on_timeout": "suspend"},
            "terminated": {"on_timeout": "terminate"},
        }.items()
    },
    "unreachable for too long": Case(
        lambda emulator, _: emulator.fault("query", "status", status=503, times=1000),
        errors.ServerError,
        may_be_open=True,
        arguments=(("max_poll_failure_time", 0),),
    ),
    "a failure status with blanks around it": Case(
        distorted("reject", {"bpStatus": "Rejected "}),
        errors.WaitFailedError,
        arguments=(("failed_bp_statuses", ["Rejected"]),),
    ),
    "a status with blanks around it": Case(
        distorted("approve", {"bpStatus": "\tApproved "}), arguments=(("bp_statuses", [" Approved"]),)
    ),
    "no status at the end": Case(
        distorted("approve", {}, "bpStatus"),
        errors.WaitFailedError,
        arguments=(("failed_bp_statuses", ["Rejected"]),),
    ),
    "no status at the end, though one is asked for": Case(
        distorted("approve", {"bpStatus": ""}),
        errors.WaitFailedError,
        arguments=(("bp_statuses", ["Approved"]),),
    ),
    "a NUL in all texts": Case(
        distorted("approve", NULS), errors.WaitFailedError, arguments=(("bp_statuses", ["Approved"]),)
    ),
    "half a surrogate pair": Case(
        distorted("approve", {"title": "half \ud83d", "label": "\udc00"}),
        arguments=(("bp_statuses", ["Approved"]),),
    ),
    "odd fields that decide nothing": Case(
        distorted("approve", {"title": 7, "version": 1.5, "suspended": "false", "curElement": {}}),
        arguments=(("bp_statuses", ["Approved"]),),
    ),
    "another instance under its id": Case(
        distorted("approve", {"name": "Another", "businessKey": "z"}),
        errors.AnotherInstanceError,
        may_be_open=True,
        words="is not the same as before",
        is_news=True,
    ),
    "contradictory rows": Case(
        lambda emulator, _: emulator.fault("query", "twice", times=1000, fields={"state": "Completed OK"}),
        errors.UnexpectedAnswerError,
        may_be_open=True,
        arguments=(("max_poll_failure_time", 0),),
        words="twice in the list of state 'Waiting for user interaction' with different values: state",
    ),
    "refused credentials": Case(refuse_credentials, errors.AuthenticationError, may_be_open=True),
}
SENSOR_MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke", "poke_interval": 1},
    "reschedule": {"mode": "reschedule", "poke_interval": 0},
    "deferred": {"deferrable": True, "poke_interval": 1},
}


@pytest.fixture(autouse=True)
def _connection(
    emulator_server: EmulatorServer, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"max_attempts": 1, "instance_lookup": "list"}
    connection = {**json.loads(emulator_server.connection_json()), "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))


def logged(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the log lines since the last call, without the ids that differ between runs.

    Airflow 3.3 logs tasks to the standard output here, older ones through Python's own logging.
    """
    facts = r"(?:Started|Now|Found|Polls|The wait is over).*"
    said = re.findall(rf"\] ({facts}?) \[air", capsys.readouterr().out)
    said += [record.getMessage() for record in caplog.records if re.match(facts, record.getMessage())]
    caplog.clear()
    return [re.sub("'002N.*?'", "'...'", line) for line in said]


def facts(result: dict[str, Any]) -> dict[str, Any]:
    return {key: result[key] for key in ("state", "bp_status", "suspended", "is_closed")}


@pytest.mark.parametrize("name", CASES)
def test_start_operator_ends_alike_in_every_mode(
    name: str,
    make_runner: Any,
    emulator: EmulatorControl,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    case = CASES[name]
    ends = []
    caplog.set_level("INFO")
    for deferrable in (False, True):
        emulator.reset()
        ends.append(start_and_end(case, make_runner(), emulator, deferrable=deferrable))
        ends[-1].append(logged(capsys, caplog))
        assert ends[-1][-1], "nothing was logged"
    sync, deferred = ends
    assert sync == deferred


def start_and_end(case: Case, runner: Any, emulator: EmulatorControl, *, deferrable: bool) -> list[Any]:
    """Run the operator, which starts an instance and waits for it, and return how it ends."""
    push = runner.ti.xcom_push

    def started(key: str, value: str) -> None:
        push(key, value)
        if key == "instance_id":
            emulator.advance(5)
            case.happens(emulator, value)

    runner.ti.xcom_push = started
    arguments = {"bpm_name": "PublishApproval", "poll_interval": 1, **dict(case.arguments)}
    end = runner.end_of(
        lambda: AstroZeroStartBpmInstanceOperator(task_id="task", deferrable=deferrable, **arguments)
    )
    assert len(runner.deferrals) == deferrable
    (instance,) = emulator.instances()
    for handed_over in (runner.event, runner.ti.xcoms, end if case.cause is None else str(end)):
        assert storable(handed_over) == handed_over
        json.dumps(handed_over).encode()
    if case.cause is None:
        end = facts(end)
    else:
        assert ("may still be open" in str(end)) is case.may_be_open, end
        assert type(end) is case.cause, end
        assert case.says(end), end
        end = type(end)
    return [end, instance["state"], instance["suspended"]]


FOR_SENSORS = [name for name, case in CASES.items() if not case.is_news]


@pytest.mark.parametrize(("name", "soft_fail"), list(itertools.product(FOR_SENSORS, (False, True))))
def test_sensor_ends_alike_in_every_mode(
    name: str, soft_fail: bool, make_runner: Any, emulator: EmulatorControl
) -> None:
    case = CASES[name]
    poked, rescheduled, deferred = (
        wait_and_end(case, make_runner(), emulator, soft_fail=soft_fail, **how)
        for how in SENSOR_MODES.values()
    )
    assert poked == rescheduled == deferred


def wait_and_end(case: Case, runner: Any, emulator: EmulatorControl, **arguments: Any) -> list[Any]:
    """Run the sensor, which waits for an instance, and return how it ends."""
    emulator.reset()
    instance_id = emulator.start("PublishApproval")["id"]
    emulator.advance(5)
    deferrable = "deferrable" in arguments
    if deferrable:
        runner.while_deferred = lambda: case.happens(emulator, instance_id)
    else:
        case.happens(emulator, instance_id)
    arguments |= {"instance_id": instance_id, **dict(case.arguments)}
    end = runner.end_of(lambda: AstroZeroBpmInstanceSensor(task_id="task", **arguments))
    # On a busy machine the deadline may pass before the worker's first poll; then there is nothing to defer.
    assert len(runner.deferrals) == deferrable or case.cause is errors.WaitTimeoutError
    (instance,) = emulator.instances()
    if case.cause is None:
        end = facts(end)
    elif case.cause is errors.WaitTimeoutError:
        assert type(end) is (AirflowSkipException if arguments["soft_fail"] else AirflowSensorTimeout), end
        assert case.says(end)
    else:
        assert type(end) is case.cause, end
        assert case.says(end), end
    return [end if case.cause is None else type(end), instance["state"], instance["suspended"]]
