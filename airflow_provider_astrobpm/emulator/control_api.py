"""The control API under ``/_emulator``: act as a person, inject faults, and inspect the emulator.

It is not part of the emulated API, so a client must not rely on it. Responses are JSON. An error is
``{"error": "..."}`` with HTTP 400, with 404 for an instance that does not exist, or with 403 for a foreign web page.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec

from airflow_provider_astrobpm.emulator.engine import BUSINESS_KEY, TITLE
from airflow_provider_astrobpm.emulator.faults import Fault
from airflow_provider_astrobpm.emulator.instances import Distortion, Instance
from airflow_provider_astrobpm.emulator.process_scripts import parse_script
from airflow_provider_astrobpm.emulator.reactions import Reaction
from airflow_provider_astrobpm.emulator.refusals import Refusal, ResultCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.emulator.api_routes import ApiCall
    from airflow_provider_astrobpm.emulator.emulator_state import Emulator

PREFIX = "/_emulator"
MAX_SCRIPT_BYTES = 256 * 1024  # of added processes: the emulator answers nothing else while it reads them
T = TypeVar("T")


@dataclass(frozen=True)
class ControlCommand:
    """A command of the control API.

    :param run: performs it, and returns the result. An instance is sent as ``describe`` shows it, ``None`` as an empty
        object.
    """

    method: str
    path: str
    run: Callable[[Emulator, ApiCall], Any]


class _StartBody(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    version: str | None = None
    variables: dict[str, Any] = {}
    business_key: str | None = None
    title: str | None = None
    by: str = "someone"
    age: float = 0.0


class _DecisionBody(msgspec.Struct, forbid_unknown_fields=True):
    outcome: str
    by: str = "someone"
    variables: dict[str, Any] = {}


class _MoveBody(msgspec.Struct, forbid_unknown_fields=True):
    state: str | None = None
    bp_status: str | None = None
    closed: bool | None = None


class _ChangeBody(msgspec.Struct, forbid_unknown_fields=True):
    action: str


class _OutageBody(msgspec.Struct, forbid_unknown_fields=True):
    mode: Literal["off", "cut", "503"]


class _AdvanceBody(msgspec.Struct, forbid_unknown_fields=True):
    seconds: float


def _read(call: ApiCall, kind: type[T]) -> T:
    """Return the decoded body; an empty body is an empty object."""
    return msgspec.json.decode(call.body or b"{}", type=kind)


def handle_command(emulator: Emulator, command: ControlCommand, call: ApiCall) -> tuple[int, Any]:
    """Run a command, and return the HTTP status and the result to send."""
    try:
        result = command.run(emulator, call)
        if isinstance(result, Instance):
            result = describe(result, emulator)
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


def _index(emulator: Emulator, _: ApiCall) -> Any:
    return {"commands": [f"{command.method} {PREFIX}{command.path}" for command in COMMANDS]}


def _instances(emulator: Emulator, call: ApiCall) -> Any:
    wanted = dict(parse_qsl(call.query, keep_blank_values=True))
    if unknown := wanted.keys() - {"name", "state", "business_key"}:
        raise ValueError(
            f"unknown parameter {', '.join(sorted(unknown))}; known are name, state, business_key"
        )
    shown = (describe(instance, emulator) for instance in emulator.engine.instances())
    return [each for each in shown if wanted.items() <= each.items()]


def _start(emulator: Emulator, call: ApiCall) -> Any:
    wanted = _read(call, _StartBody)
    system = {BUSINESS_KEY: wanted.business_key, TITLE: wanted.title}
    variables = wanted.variables | {name: value for name, value in system.items() if value is not None}
    return emulator.engine.start(wanted.name, wanted.version, variables, wanted.by, age=wanted.age)


def _instance(emulator: Emulator, call: ApiCall) -> Any:
    instance = emulator.engine.instance(call.id)
    return {**describe(instance, emulator), "history": [asdict(event) for event in instance.history]}


def _decide(emulator: Emulator, call: ApiCall) -> Any:
    decision = _read(call, _DecisionBody)
    return emulator.engine.decide(call.id, decision.outcome, decision.by, decision.variables)


def _change(emulator: Emulator, call: ApiCall) -> Any:
    return emulator.engine.act(call.id, _read(call, _ChangeBody).action)


def _move(emulator: Emulator, call: ApiCall) -> Any:
    return emulator.engine.move(call.id, **msgspec.structs.asdict(_read(call, _MoveBody)))


def _distort(emulator: Emulator, call: ApiCall) -> Any:
    # Not decoded by msgspec: it rejects an unpaired surrogate, which a distortion may contain.
    distortion = msgspec.convert(json.loads(call.body or b"{}"), Distortion)
    instance = emulator.engine.instance(call.id)
    instance.distortion = distortion
    return instance


def _reactions(emulator: Emulator, _: ApiCall) -> Any:
    return list(emulator.engine.reactions)


def _add_reaction(emulator: Emulator, call: ApiCall) -> Any:
    emulator.engine.react(_read(call, Reaction))
    return _reactions(emulator, call)


def _set_switches(emulator: Emulator, call: ApiCall) -> Any:
    emulator.engine.switches = emulator.switches.changed(**_read(call, dict[str, Any]))
    return emulator.switches.positions()


def _add_fault(emulator: Emulator, call: ApiCall) -> Any:
    emulator.faults.active.append(_read(call, Fault))
    return emulator.faults.active


def _set_outage(emulator: Emulator, call: ApiCall) -> Any:
    emulator.outage = _read(call, _OutageBody).mode
    return {"mode": emulator.outage}


def _clock(emulator: Emulator, _: ApiCall) -> Any:
    return {"now": emulator.clock(), "ahead": emulator.clock.ahead}


def _advance(emulator: Emulator, call: ApiCall) -> Any:
    emulator.clock.advance(_read(call, _AdvanceBody).seconds)
    return _clock(emulator, call)


def _processes(emulator: Emulator, _: ApiCall) -> Any:
    return [
        {"name": each.process.name, "version": each.process.version, "active": each.process.active}
        for each in emulator.engine.catalogue
    ]


def _add_processes(emulator: Emulator, call: ApiCall) -> Any:
    if len(call.body) > MAX_SCRIPT_BYTES:
        size = f"{len(call.body):,} bytes are more than the limit of {MAX_SCRIPT_BYTES:,}"
        raise ValueError(f"request body: {size}; start the emulator with --processes FILE instead")
    emulator.engine.catalogue.add(parse_script(call.body.decode(), "request body"))
    return _processes(emulator, call)


COMMANDS = (
    ControlCommand("GET", "", _index),
    ControlCommand("GET", "/counts", lambda emulator, _: emulator.request_log.counts),
    ControlCommand("DELETE", "/counts", lambda emulator, _: emulator.request_log.reset()),
    ControlCommand("GET", "/requests", lambda emulator, _: list(map(asdict, emulator.request_log.log))),
    ControlCommand("GET", "/instances", _instances),
    ControlCommand("POST", "/instances", _start),
    ControlCommand("GET", "/instances/{id}", _instance),
    ControlCommand("DELETE", "/instances/{id}", lambda emulator, call: emulator.engine.vanish(call.id)),
    ControlCommand("POST", "/instances/{id}/act", _decide),
    ControlCommand("POST", "/instances/{id}/break", lambda emulator, call: emulator.engine.break_(call.id)),
    ControlCommand("POST", "/instances/{id}/change", _change),
    ControlCommand("POST", "/instances/{id}/move", _move),
    ControlCommand("PUT", "/instances/{id}/distortion", _distort),
    ControlCommand("GET", "/reactions", _reactions),
    ControlCommand("POST", "/reactions", _add_reaction),
    ControlCommand(
        "GET",
        "/reactions/missed",
        lambda emulator, call: emulator.engine.missed(final=("final", "true") in parse_qsl(call.query)),
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
