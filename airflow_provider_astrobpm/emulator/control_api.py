"""The control API under ``/_emulator``: act as a person, inject faults, and inspect the emulator.

It is not part of the emulated API, so a client must not rely on it. Responses are JSON. An error is
``{"error": "..."}`` with HTTP 400, with 404 for an instance that does not exist, or with 403 for a foreign web page.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from airflow_provider_astrobpm.emulator.engine import BUSINESS_KEY, TITLE
from airflow_provider_astrobpm.emulator.faults import Fault
from airflow_provider_astrobpm.emulator.instances import Distortion
from airflow_provider_astrobpm.emulator.process_scripts import parse_script
from airflow_provider_astrobpm.emulator.reactions import Reaction
from airflow_provider_astrobpm.emulator.refusals import Refusal, ResultCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.emulator.emulator_state import Emulator
    from airflow_provider_astrobpm.emulator.instances import Instance

PREFIX = "/_emulator"
MAX_SCRIPT_BYTES = 256 * 1024  # of added processes: the emulator answers nothing else while it reads them
T = TypeVar("T")


@dataclass(frozen=True)
class ControlRequest:
    """A request to the control API."""

    parts: dict[str, str]
    query: dict[str, str]
    body: bytes

    def read(self, kind: type[T]) -> T:
        """Return the decoded body; an empty body is an empty object.

        :raises msgspec.MsgspecError: if the body does not fit the type.
        """
        return msgspec.json.decode(self.body or b"{}", type=kind)


@dataclass(frozen=True)
class ControlCommand:
    """A command of the control API.

    :param run: performs it, and returns the result; ``None`` is sent as an empty object.
    """

    method: str
    path: str
    run: Callable[[Emulator, ControlRequest], Any]


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base class of request bodies. An unknown key is an error."""


class _StartBody(_Body, frozen=True):
    name: str
    version: str | None = None
    variables: dict[str, Any] = {}
    business_key: str | None = None
    title: str | None = None
    by: str = "someone"
    age: float = 0.0


class _DecisionBody(_Body, frozen=True):
    outcome: str
    by: str = "someone"
    variables: dict[str, Any] = {}


class _MoveBody(_Body, frozen=True):
    state: str | None = None
    bp_status: str | None = None
    closed: bool | None = None


class _ChangeBody(_Body, frozen=True):
    action: str


class _OutageBody(_Body, frozen=True):
    mode: Literal["off", "cut", "503"]


class _AdvanceBody(_Body, frozen=True):
    seconds: float


def handle_command(emulator: Emulator, command: ControlCommand, request: ControlRequest) -> tuple[int, Any]:
    """Run a command, and return the HTTP status and the result to send."""
    try:
        result = command.run(emulator, request)
    except Refusal as refusal:
        return (404 if refusal.code == ResultCode.UNKNOWN_INSTANCE else 400), {"error": refusal.message}
    except (ValueError, msgspec.MsgspecError) as error:
        return 400, {"error": str(error)}
    except RecursionError:
        return 400, {"error": "the body is nested too deeply"}
    return 200, {} if result is None else result


def describe(instance: Instance, emulator: Emulator) -> dict[str, Any]:
    """Return an instance as the control API shows it. Times are seconds since the epoch."""
    return {
        "id": instance.id,
        "name": instance.process.name,
        "version": instance.process.version,
        "state": emulator.engine.shown_state(instance),
        "bp_status": instance.bp_status,
        "bp_step": instance.bp_step,
        "element": instance.element,
        "task_outcome": instance.task_outcome,
        "business_key": instance.business_key,
        "title": instance.title,
        "created_by": instance.created_by,
        "variables": instance.variables,
        "suspended": instance.suspended,
        "closed": instance.closed,
        "started": instance.started,
        "ended": instance.ended,
        "outcomes": list(instance.outcomes),
    }


def _index(emulator: Emulator, _: ControlRequest) -> Any:
    return {"commands": [f"{command.method} {PREFIX}{command.path}" for command in COMMANDS]}


def _instances(emulator: Emulator, request: ControlRequest) -> Any:
    if unknown := request.query.keys() - {"name", "state", "business_key"}:
        raise ValueError(
            f"unknown parameter {', '.join(sorted(unknown))}; known are name, state, business_key"
        )
    shown = (describe(instance, emulator) for instance in emulator.engine.instances())
    return [each for each in shown if request.query.items() <= {(key, each[key]) for key in request.query}]


def _start(emulator: Emulator, request: ControlRequest) -> Any:
    wanted = request.read(_StartBody)
    system = {BUSINESS_KEY: wanted.business_key, TITLE: wanted.title}
    variables = wanted.variables | {name: value for name, value in system.items() if value is not None}
    instance = emulator.engine.start(wanted.name, wanted.version, variables, wanted.by, age=wanted.age)
    return describe(instance, emulator)


def _instance(emulator: Emulator, request: ControlRequest) -> Any:
    instance = emulator.engine.instance(request.parts["id"])
    return {**describe(instance, emulator), "history": [asdict(event) for event in instance.history]}


def _decide(emulator: Emulator, request: ControlRequest) -> Any:
    decision = request.read(_DecisionBody)
    instance = emulator.engine.decide(request.parts["id"], decision.outcome, decision.by, decision.variables)
    return describe(instance, emulator)


def _break(emulator: Emulator, request: ControlRequest) -> Any:
    return describe(emulator.engine.break_(request.parts["id"]), emulator)


def _change(emulator: Emulator, request: ControlRequest) -> Any:
    return describe(emulator.engine.act(request.parts["id"], request.read(_ChangeBody).action), emulator)


def _move(emulator: Emulator, request: ControlRequest) -> Any:
    wanted = msgspec.structs.asdict(request.read(_MoveBody))
    return describe(emulator.engine.move(request.parts["id"], **wanted), emulator)


def _distort(emulator: Emulator, request: ControlRequest) -> Any:
    # Not decoded by msgspec: it rejects an unpaired surrogate, which a distortion may contain.
    distortion = msgspec.convert(json.loads(request.body or b"{}"), Distortion)
    instance = emulator.engine.instance(request.parts["id"])
    instance.distortion = distortion
    return describe(instance, emulator)


def _reactions(emulator: Emulator, _: ControlRequest) -> Any:
    return list(emulator.engine.reactions)


def _add_reaction(emulator: Emulator, request: ControlRequest) -> Any:
    emulator.engine.react(request.read(Reaction))
    return _reactions(emulator, request)


def _set_switches(emulator: Emulator, request: ControlRequest) -> Any:
    emulator.engine.switches = emulator.switches.changed(**request.read(dict[str, Any]))
    return emulator.switches.positions()


def _add_fault(emulator: Emulator, request: ControlRequest) -> Any:
    emulator.faults.active.append(request.read(Fault))
    return emulator.faults.active


def _set_outage(emulator: Emulator, request: ControlRequest) -> Any:
    emulator.outage = request.read(_OutageBody).mode
    return {"mode": emulator.outage}


def _clock(emulator: Emulator, _: ControlRequest) -> Any:
    return {"now": emulator.clock(), "ahead": emulator.clock.ahead}


def _advance(emulator: Emulator, request: ControlRequest) -> Any:
    emulator.clock.advance(request.read(_AdvanceBody).seconds)
    return _clock(emulator, request)


def _processes(emulator: Emulator, _: ControlRequest) -> Any:
    return [
        {"name": each.process.name, "version": each.process.version, "active": each.process.active}
        for each in emulator.engine.catalogue
    ]


def _add_processes(emulator: Emulator, request: ControlRequest) -> Any:
    if len(request.body) > MAX_SCRIPT_BYTES:
        size = f"{len(request.body):,} bytes are more than the limit of {MAX_SCRIPT_BYTES:,}"
        raise ValueError(f"request body: {size}; start the emulator with --processes FILE instead")
    emulator.engine.catalogue.add(parse_script(request.body.decode(), "request body"))
    return _processes(emulator, request)


COMMANDS = (
    ControlCommand("GET", "", _index),
    ControlCommand("GET", "/counts", lambda emulator, _: emulator.request_log.counts),
    ControlCommand("DELETE", "/counts", lambda emulator, _: emulator.request_log.reset()),
    ControlCommand("GET", "/requests", lambda emulator, _: list(map(asdict, emulator.request_log.log))),
    ControlCommand("GET", "/instances", _instances),
    ControlCommand("POST", "/instances", _start),
    ControlCommand("GET", "/instances/{id}", _instance),
    ControlCommand(
        "DELETE", "/instances/{id}", lambda emulator, request: emulator.engine.vanish(request.parts["id"])
    ),
    ControlCommand("POST", "/instances/{id}/act", _decide),
    ControlCommand("POST", "/instances/{id}/break", _break),
    ControlCommand("POST", "/instances/{id}/change", _change),
    ControlCommand("POST", "/instances/{id}/move", _move),
    ControlCommand("PUT", "/instances/{id}/distortion", _distort),
    ControlCommand("GET", "/reactions", _reactions),
    ControlCommand("POST", "/reactions", _add_reaction),
    ControlCommand(
        "GET",
        "/reactions/missed",
        lambda emulator, request: emulator.engine.missed(final=request.query.get("final") == "true"),
    ),
    ControlCommand("GET", "/switches", lambda emulator, _: emulator.switches.positions()),
    ControlCommand("PUT", "/switches", _set_switches),
    ControlCommand("GET", "/faults", lambda emulator, _: emulator.faults.active),
    ControlCommand("POST", "/faults", _add_fault),
    ControlCommand("DELETE", "/faults", lambda emulator, _: emulator.faults.active.clear()),
    ControlCommand("GET", "/outage", lambda emulator, _: {"mode": emulator.outage}),
    ControlCommand("PUT", "/outage", _set_outage),
    ControlCommand("POST", "/tokens/revoke", lambda emulator, _: {"revoked": emulator.tokens.revoke_all()}),
    ControlCommand("GET", "/clock", _clock),
    ControlCommand("POST", "/clock/advance", _advance),
    ControlCommand("GET", "/processes", _processes),
    ControlCommand("POST", "/processes", _add_processes),
    ControlCommand("POST", "/reset", lambda emulator, _: emulator.reset()),
)
