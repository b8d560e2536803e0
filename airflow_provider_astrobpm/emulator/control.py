"""The control API under ``/_emulator``: what people and the world do to Astro Zero, and what tests want to know.

It is no part of the emulated API, and no client of that may lean on it. Answers are JSON; a failure is
``{"error": "..."}`` with HTTP 400, 404 for an instance that does not exist, or 403 for a foreign web page.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from airflow_provider_astrobpm.emulator.engine import BUSINESS_KEY, TITLE
from airflow_provider_astrobpm.emulator.faults import Fault
from airflow_provider_astrobpm.emulator.instances import Distortion
from airflow_provider_astrobpm.emulator.reactions import Reaction
from airflow_provider_astrobpm.emulator.refusals import Code, Refusal
from airflow_provider_astrobpm.emulator.scripts import parse_script

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.emulator.instances import Instance
    from airflow_provider_astrobpm.emulator.world import Emulator

PREFIX = "/_emulator"
LONGEST_SCRIPT = 256 * 1024  # bytes of processes that are added: they are read while nothing else is answered
T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    """A request to the control API."""

    parts: dict[str, str]
    query: dict[str, str]
    body: bytes

    def read(self, kind: type[T]) -> T:
        """Return the body as what it must be; an empty one is an empty object.

        :raises msgspec.MsgspecError: if it is something else.
        """
        return msgspec.json.decode(self.body or b"{}", type=kind)


@dataclass(frozen=True)
class Command:
    """A method and a path of the control API, and what it does."""

    method: str
    path: str
    run: Callable[[Emulator, Order], Any]


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A body in which an unknown key is an error."""


class _Start(_Body, frozen=True):
    name: str
    version: str | None = None
    variables: dict[str, Any] = {}
    business_key: str | None = None
    title: str | None = None
    by: str = "somebody"
    age: float = 0.0


class _Decision(_Body, frozen=True):
    outcome: str
    by: str = "somebody"
    variables: dict[str, Any] = {}


class _Move(_Body, frozen=True):
    state: str | None = None
    bp_status: str | None = None
    closed: bool | None = None


class _Distortion(_Body, frozen=True):
    fields: dict[str, Any] = {}
    without: tuple[str, ...] = ()


class _Change(_Body, frozen=True):
    action: str


class _Outage(_Body, frozen=True):
    mode: Literal["off", "cut", "503"]


class _Advance(_Body, frozen=True):
    seconds: float


def obey(emulator: Emulator, command: Command, order: Order) -> tuple[int, Any]:
    """Run a command, and return the HTTP status and what to answer."""
    try:
        return 200, command.run(emulator, order)
    except Refusal as refusal:
        return (404 if refusal.code == Code.UNKNOWN_INSTANCE else 400), {"error": refusal.message}
    except (ValueError, msgspec.MsgspecError) as error:
        return 400, {"error": str(error)}
    except RecursionError:
        return 400, {"error": "the body is nested too deeply"}


def describe(instance: Instance, emulator: Emulator) -> dict[str, Any]:
    """Return an instance as the control API shows it; moments are seconds since the epoch."""
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


def _index(emulator: Emulator, _: Order) -> Any:
    return {"commands": [f"{command.method} {PREFIX}{command.path}" for command in COMMANDS]}


def _counts(emulator: Emulator, _: Order) -> Any:
    return emulator.traffic.counts


def _reset_counts(emulator: Emulator, _: Order) -> Any:
    emulator.traffic.reset()
    return {}


def _requests(emulator: Emulator, _: Order) -> Any:
    return [asdict(entry) for entry in emulator.traffic.log]


def _instances(emulator: Emulator, order: Order) -> Any:
    if unknown := order.query.keys() - {"name", "state", "business_key"}:
        raise ValueError(
            f"unknown parameter {', '.join(sorted(unknown))}; known are name, state, business_key"
        )
    shown = (describe(instance, emulator) for instance in emulator.engine.instances())
    return [each for each in shown if order.query.items() <= {(key, each[key]) for key in order.query}]


def _start(emulator: Emulator, order: Order) -> Any:
    wanted = order.read(_Start)
    system = {BUSINESS_KEY: wanted.business_key, TITLE: wanted.title}
    variables = wanted.variables | {name: value for name, value in system.items() if value is not None}
    instance = emulator.engine.start(wanted.name, wanted.version, variables, wanted.by, age=wanted.age)
    return describe(instance, emulator)


def _instance(emulator: Emulator, order: Order) -> Any:
    instance = emulator.engine.instance(order.parts["id"])
    return {**describe(instance, emulator), "history": [asdict(event) for event in instance.history]}


def _vanish(emulator: Emulator, order: Order) -> Any:
    emulator.engine.vanish(order.parts["id"])
    return {}


def _decide(emulator: Emulator, order: Order) -> Any:
    decision = order.read(_Decision)
    instance = emulator.engine.decide(order.parts["id"], decision.outcome, decision.by, decision.variables)
    return describe(instance, emulator)


def _break(emulator: Emulator, order: Order) -> Any:
    return describe(emulator.engine.break_(order.parts["id"]), emulator)


def _change(emulator: Emulator, order: Order) -> Any:
    return describe(emulator.engine.act(order.parts["id"], order.read(_Change).action), emulator)


def _move(emulator: Emulator, order: Order) -> Any:
    wanted = order.read(_Move)
    instance = emulator.engine.move(
        order.parts["id"], state=wanted.state, bp_status=wanted.bp_status, closed=wanted.closed
    )
    return describe(instance, emulator)


def _distort(emulator: Emulator, order: Order) -> Any:
    # Not by msgspec, which refuses what is to be tried here: half a surrogate pair.
    wanted = msgspec.convert(json.loads(order.body or b"{}"), _Distortion)
    distortion = Distortion(wanted.fields, wanted.without)
    return describe(emulator.engine.distort(order.parts["id"], distortion), emulator)


def _reactions(emulator: Emulator, _: Order) -> Any:
    return list(emulator.engine.reactions)


def _add_reaction(emulator: Emulator, order: Order) -> Any:
    emulator.engine.react(order.read(Reaction))
    return _reactions(emulator, order)


def _missed(emulator: Emulator, order: Order) -> Any:
    return emulator.engine.missed(final=order.query.get("final") == "true")


def _switches(emulator: Emulator, _: Order) -> Any:
    return emulator.switches.positions()


def _set_switches(emulator: Emulator, order: Order) -> Any:
    emulator.engine.switches = emulator.switches.changed(**order.read(dict[str, Any]))
    return emulator.switches.positions()


def _faults(emulator: Emulator, _: Order) -> Any:
    return emulator.faults.in_force()


def _add_fault(emulator: Emulator, order: Order) -> Any:
    emulator.faults.add(order.read(Fault))
    return emulator.faults.in_force()


def _clear_faults(emulator: Emulator, _: Order) -> Any:
    emulator.faults.clear()
    return []


def _outage(emulator: Emulator, _: Order) -> Any:
    return {"mode": emulator.outage}


def _set_outage(emulator: Emulator, order: Order) -> Any:
    emulator.outage = order.read(_Outage).mode
    return {"mode": emulator.outage}


def _revoke_tokens(emulator: Emulator, _: Order) -> Any:
    return {"revoked": emulator.tokens.revoke_all()}


def _clock(emulator: Emulator, _: Order) -> Any:
    return {"now": emulator.clock(), "ahead": emulator.clock.ahead}


def _advance(emulator: Emulator, order: Order) -> Any:
    emulator.clock.advance(order.read(_Advance).seconds)
    return _clock(emulator, order)


def _processes(emulator: Emulator, _: Order) -> Any:
    return [
        {"name": each.process.name, "version": each.process.version, "active": each.process.active}
        for each in emulator.engine.catalogue
    ]


def _add_processes(emulator: Emulator, order: Order) -> Any:
    if len(order.body) > LONGEST_SCRIPT:
        size = f"{len(order.body):,} bytes, and {LONGEST_SCRIPT:,} at most are taken"
        raise ValueError(f"request body: {size}; start the emulator with --processes FILE for more")
    emulator.engine.catalogue.add(parse_script(order.body.decode(), "request body"))
    return _processes(emulator, order)


def _reset(emulator: Emulator, _: Order) -> Any:
    emulator.reset()
    return {}


COMMANDS = (
    Command("GET", "", _index),
    Command("GET", "/counts", _counts),
    Command("DELETE", "/counts", _reset_counts),
    Command("GET", "/requests", _requests),
    Command("GET", "/instances", _instances),
    Command("POST", "/instances", _start),
    Command("GET", "/instances/{id}", _instance),
    Command("DELETE", "/instances/{id}", _vanish),
    Command("POST", "/instances/{id}/act", _decide),
    Command("POST", "/instances/{id}/break", _break),
    Command("POST", "/instances/{id}/change", _change),
    Command("POST", "/instances/{id}/move", _move),
    Command("PUT", "/instances/{id}/distortion", _distort),
    Command("GET", "/reactions", _reactions),
    Command("POST", "/reactions", _add_reaction),
    Command("GET", "/reactions/missed", _missed),
    Command("GET", "/switches", _switches),
    Command("PUT", "/switches", _set_switches),
    Command("GET", "/faults", _faults),
    Command("POST", "/faults", _add_fault),
    Command("DELETE", "/faults", _clear_faults),
    Command("GET", "/outage", _outage),
    Command("PUT", "/outage", _set_outage),
    Command("POST", "/tokens/revoke", _revoke_tokens),
    Command("GET", "/clock", _clock),
    Command("POST", "/clock/advance", _advance),
    Command("GET", "/processes", _processes),
    Command("POST", "/processes", _add_processes),
    Command("POST", "/reset", _reset),
)
