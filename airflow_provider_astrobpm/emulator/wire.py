"""What the API sends: the envelopes and the two shapes of an instance, field for field as in the API reference.

Pages 0069 and 0071 show the shape that starts and actions return, page 0070 the rows of a query, page 0047 those
of the definitions.
"""

from __future__ import annotations

import codecs
import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_astrobpm.emulator.clock import timestamp
from airflow_provider_astrobpm.emulator.refusals import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_astrobpm.emulator.catalogue import Definition
    from airflow_provider_astrobpm.emulator.engine import Engine
    from airflow_provider_astrobpm.emulator.instances import Instance
    from airflow_provider_astrobpm.emulator.switches import Switches

    Column = Callable[[Instance, Engine], Any]

_NO_RESULT = object()
_HTML = "<!DOCTYPE html>\n<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>\n"


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer.

    :param detail: one word for the request log.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = {}
    detail: str = ""


def encoded(value: object) -> bytes:
    """Return a value as JSON, one that holds half a surrogate pair too."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def bare(value: object, status: int = 200) -> Answer:
    """Answer with JSON that has no envelope."""
    return Answer(status, encoded(value))


def enveloped(
    code: str, message: str, result: object = _NO_RESULT, *, status: int = 200, detail: str = ""
) -> Answer:
    """Answer with the platform's envelope; without a result the key is absent."""
    envelope = {"resCode": code, "resMsg": message}
    if result is not _NO_RESULT:
        envelope |= {"result": result}  # type: ignore[dict-item]
    return Answer(status, encoded(envelope), detail=detail)


def listed(message: str, rows: list[dict[str, Any]], switches: Switches) -> Answer:
    """Answer with the rows of a query."""
    forms = {"array": [], "null": None, "absent": _NO_RESULT, "object": {}, "text": ""}
    return enveloped(Code.SUCCESS, message, rows or forms[switches.empty_list])


def as_switched(answer: Answer, switches: Switches) -> Answer:
    """Return an answer as it is sent by the switches that concern every answer."""
    if answer.content_type != "application/json":
        return answer
    body = answer.body
    if switches.numeric_codes:
        envelope = json.loads(body)
        if str(envelope.get("resCode", "")).isdecimal():
            body = encoded({**envelope, "resCode": int(envelope["resCode"])})
    if switches.byte_order_mark:
        body = codecs.BOM_UTF8 + body
    return msgspec.structs.replace(answer, body=body)


def html(status: int, title: str) -> Answer:
    """Answer with an HTML page, as gateways do."""
    return Answer(status, _HTML.format(title).encode(), "text/html; charset=utf-8")


def action_object(instance: Instance, engine: Engine) -> dict[str, Any]:
    """Return an instance in the shape that starts and actions return."""
    offset = engine.switches.utc_offset
    shown = {
        "name": instance.process.name,
        "version": instance.process.version,
        "id": instance.id,
        "processDefID": instance.definition_id,
        "interviewLabel": _label(instance, engine),
        "nextElem": instance.element,
        "isTest": False,
        "state": engine.shown_state(instance),
        "bpStatus": instance.bp_status,
        "urgency": 0,
        "taskOutcome": instance.task_outcome,
        "businessKey": instance.business_key,
        "startTime": timestamp(instance.started, offset),
        "endTime": timestamp(instance.ended, offset),
        **{f"Ext{number}": "" for number in range(1, 7)},
        "Ext7": 0,
        "Ext8": 0,
        "suspended": engine.shown_suspended(instance),
        "isClosed": instance.closed and engine.switches.closed_flag == "on_close",
    }
    return instance.distortion.applied(shown)


def _label(instance: Instance, engine: Engine) -> str:
    return f"{instance.process.label} {timestamp(instance.started, engine.switches.utc_offset)}"


def _time(name: str) -> Column:
    return lambda instance, engine: timestamp(getattr(instance, name), engine.switches.utc_offset)


def _user(prefix: str, user: Callable[[Instance], str]) -> dict[str, Column]:
    return {
        prefix: lambda instance, _: f"10gd{user(instance):0>16.16}",
        f"{prefix}.name": lambda instance, _: user(instance),
        f"{prefix}.__objectType": lambda *_: "User",
    }


ROW: Mapping[str, Column] = MappingProxyType(
    {
        "id": lambda instance, _: instance.id,
        "name": lambda instance, _: instance.process.name,
        "version": lambda instance, _: instance.process.version,
        "label": _label,
        "title": lambda instance, _: instance.title,
        "type": lambda *_: "BP",
        "state": lambda instance, engine: engine.shown_state(instance),
        "suspended": lambda instance, engine: engine.shown_suspended(instance),
        "bpStage": lambda *_: "",
        "bpStatus": lambda instance, _: instance.bp_status,
        "bpStep": lambda instance, _: instance.bp_step,
        "curElement": lambda instance, _: instance.element,
        "description": lambda instance, _: instance.process.description,
        "businessKey": lambda instance, engine: (
            instance.business_key if engine.switches.business_keys_in_rows else instance.id
        ),
        "urgency": lambda *_: 0,
        "startTime": _time("started"),
        "endTime": _time("ended"),
        "createdDate": _time("started"),
        "lastModifiedDate": _time("changed"),
        "lastHandler": lambda *_: None,
        **_user("createdBy", lambda instance: instance.created_by),
        **_user("lastModifiedBy", lambda instance: instance.created_by),
        **_user("owner", lambda instance: instance.created_by),
    }
)


def row(instance: Instance, engine: Engine, columns: Mapping[str, Column] = ROW) -> dict[str, Any]:
    """Return an instance as a row of a query.

    :param columns: the columns that it has; by default every one.
    """
    shown = {name: column(instance, engine) for name, column in columns.items()}
    return instance.distortion.applied(shown)


def definition_row(definition: Definition) -> dict[str, Any]:
    """Return a definition as a row of the definitions query."""
    process = definition.process
    return {
        "id": definition.id,
        "name": process.name,
        "label": process.label,
        "version": process.version,
        "active": process.active,
        "status": "Pass",
        "description": process.description,
        "config": json.dumps({"cancelable": True, "instanceLabel": "{!$Flow.Label} {!$Flow.StartTime}"}),
    }


def definition_graph(definition: Definition) -> dict[str, Any]:
    """Return a definition as it is read by its id: the row, its variables and its elements."""
    process = definition.process
    return {
        **definition_row(definition),
        "variables": [
            {"name": name, "readOnly": name in process.read_only, "defaultValue": value}
            for name, value in process.variables.items()
        ],
        "elements": [
            {"name": step.element or step.state, "type": "userTask" if step.outcomes else "task"}
            for step in process.steps
        ],
    }
