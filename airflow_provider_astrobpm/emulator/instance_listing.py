"""The instance query (page 0070): its states, and the rows, columns and order of its result."""

from __future__ import annotations

import hashlib
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from airflow_provider_astrobpm.client.states import STATES
from airflow_provider_astrobpm.emulator.refusals import Refusal, ResultCode
from airflow_provider_astrobpm.emulator.wire_format import ROW, row

if TYPE_CHECKING:
    from airflow_provider_astrobpm.emulator.engine import Engine
    from airflow_provider_astrobpm.emulator.instances import Instance
    from airflow_provider_astrobpm.emulator.switches import Switches


def parse_query(raw: str, *, plus_is_blank: bool) -> list[tuple[str, str]]:
    """Parse a raw query string."""
    return parse_qsl(raw if plus_is_blank else raw.replace("+", "%2B"), keep_blank_values=True)


def list_instances(engine: Engine, query: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return the rows of an instance query.

    :raises Refusal: for missing, several or unknown states, or unknown columns, depending on the switches.
    """
    switches = engine.switches
    states = wanted_states([value for name, value in query if name == "states"], switches)
    params = dict(query)
    fields = params.get("fields", "") if switches.fields_honoured else ""
    columns = [column for column in fields.split(",") if column]
    order_field = params.get("orderField", "") if switches.order_honoured else ""
    order_type = params.get("orderType", "asc") if order_field else "asc"
    unknown = [name for name in (*columns, order_field) if name and name not in ROW]
    if unknown and switches.unknown_field == "refuse":
        raise Refusal(ResultCode.UNKNOWN_FIELD, f"Unknown field {', '.join(unknown)}")
    if order_type not in ("asc", "desc"):
        raise Refusal(ResultCode.BAD_REQUEST, f"orderType must be asc or desc, not {order_type}")
    found = [instance for instance in engine.visible() if engine.shown_state(instance) in states]
    ordered = _ordered(found, engine, order_field, descending=order_type == "desc")
    shown = {name: ROW[name] for name in columns if name in ROW} or ROW
    return [row(instance, engine, shown) for instance in ordered[: switches.row_cap]]


def wanted_states(values: list[str], switches: Switches) -> frozenset[str]:
    """Return the states that a query asks for.

    :param values: the values of the parameter ``states``.
    :raises Refusal: if there is no state; and, depending on the switches, for several or unknown states.
    """
    taken = values[:1] if switches.several_states == "comma" else values
    asked = taken if switches.several_states == "repeated" else ",".join(taken).split(",")
    names = [name.strip() for name in asked if name.strip()]
    if not names:
        raise Refusal(ResultCode.STATES_MISSING, "The parameter states is missing")
    if switches.several_states == "refuse" and len(names) > 1:
        raise Refusal(ResultCode.SEVERAL_STATES, "The parameter states takes one state")
    if switches.several_states == "first":
        names = names[:1]
    if switches.unknown_state == "refuse" and (unknown := [name for name in names if name not in STATES]):
        raise Refusal(ResultCode.UNKNOWN_STATE, f"Unknown state {', '.join(unknown)}")
    return frozenset(names)


def _ordered(instances: list[Instance], engine: Engine, field: str, *, descending: bool) -> list[Instance]:
    """Sort the instances. Those that are equal in the order field are sorted by their start."""
    if field not in ROW and engine.switches.row_order == "shuffled":
        return sorted(instances, key=lambda instance: hashlib.sha256(instance.id.encode()).digest())
    if field not in ROW:
        return sorted(
            instances, key=attrgetter("started", "number"), reverse=engine.switches.row_order == "newest"
        )
    column = ROW[field]

    def rank(instance: Instance) -> tuple[bool, Any, float, int]:
        value = column(instance, engine)
        return (value is not None, value, instance.started, instance.number)

    return sorted(instances, key=rank, reverse=descending)
