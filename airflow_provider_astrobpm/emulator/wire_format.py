"""The responses of the API: the envelope and the two shapes of an instance, with the fields of the API reference.

Pages 0069 and 0071 show the shape that starts and actions return, page 0070 the rows of an instance query, page 0047
the rows of a definition query.
"""

from __future__ import annotations

import codecs
import json
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_astrobpm.emulator.clock import timestamp
from airflow_provider_astrobpm.emulator.refusals import ResultCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_astrobpm.emulator.catalogue import Definition
    from airflow_provider_astrobpm.emulator.engine import Engine
    from airflow_provider_astrobpm.emulator.instances import Instance
    from airflow_provider_astrobpm.emulator.process_scripts import Process
    from airflow_provider_astrobpm.emulator.switches import Switches

    Column = Callable[[Instance, Engine], Any]

NO_RESULT = object()
_HTML = "<!DOCTYPE html>\n<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>\n"


class ApiResponse(msgspec.Struct, frozen=True):
    """An HTTP response.

    :param detail: one word for the request log.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = {}
    detail: str = ""


def encoded(value: object) -> bytes:
    """Encode a value as JSON, even if it contains an unpaired surrogate."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def bare(value: object, status: int = 200) -> ApiResponse:
    """Return a JSON response without an envelope."""
    return ApiResponse(status, encoded(value))


def enveloped(
    code: str, message: str, result: object = NO_RESULT, *, status: int = 200, detail: str = ""
) -> ApiResponse:
    """Return a response in the platform's envelope. Without a result, the key is absent."""
    envelope = {"resCode": code, "resMsg": message}
    if result is not NO_RESULT:
        envelope |= {"result": result}  # type: ignore[dict-item]
    return ApiResponse(status, encoded(envelope), detail=detail)


def listed(rows: list[dict[str, Any]], switches: Switches) -> ApiResponse:
    """Return a response with the rows of a query."""
    forms = {"array": [], "null": None, "absent": NO_RESULT, "object": {}, "text": ""}
    return enveloped(ResultCode.SUCCESS, switches.success_message, rows or forms[switches.empty_list])


def as_switched(response: ApiResponse, switches: Switches) -> ApiResponse:
    """Apply the switches that affect every response."""
    if response.content_type != "application/json":
        return response
    body = response.body
    if switches.numeric_codes:
        envelope = json.loads(body)
        if str(envelope.get("resCode", "")).isdecimal():
            body = encoded({**envelope, "resCode": int(envelope["resCode"])})
    if switches.byte_order_mark:
        body = codecs.BOM_UTF8 + body
    return msgspec.structs.replace(response, body=body)


def html(status: int, title: str) -> ApiResponse:
    """Return an HTML response, as gateways send it."""
    return ApiResponse(status, _HTML.format(title).encode(), "text/html; charset=utf-8")


def plain(status: int, text: str) -> ApiResponse:
    """Return a plain text response, as gateways send it."""
    return ApiResponse(status, f"{text}\n".encode(), "text/plain; charset=utf-8")


def action_object(instance: Instance, engine: Engine) -> dict[str, Any]:
    """Return an instance in the shape that starts and actions return."""
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
        "businessKey": shown_key(instance.business_key, engine.switches.key_form),
        "startTime": shown_time(instance.started, engine.switches),
        "endTime": shown_time(instance.ended, engine.switches),
        **{f"Ext{number}": "" for number in range(1, 7)},
        "Ext7": 0,
        "Ext8": 0,
        "suspended": engine.shown_suspended(instance),
        "isClosed": instance.closed and engine.switches.closed_flag == "on_close",
    }
    return instance.distortion.applied(shown)


def shown_key(key: str, form: str) -> str:
    """Return a business key as the switch ``key_form`` shows it."""
    return {
        "as_sent": key,
        "cut_50": key[:50],
        "cut_20": key[:20],
        "upper": key.upper(),
        "padded": key.ljust(80),
        "prefixed": f"ASTRO:{key}",
    }[form]


def shown_time(moment: float | None, switches: Switches) -> str:
    """Return a start or end time as the switch ``start_time_form`` writes it."""
    if moment is None:
        return ""
    stamp = _stamp(moment, switches)
    return {
        "documented": stamp,
        "zero": "0001-01-01 00:00:00",
        "epoch": "1970-01-01 08:00:00",
        "dash": "-",
        "slashes": stamp.replace("-", "/"),
        "millis": str(round((moment + switches.clock_skew * 3600) * 1000)),
        "leading_blank": f" {stamp}",
    }[switches.start_time_form]


def _stamp(moment: float, switches: Switches) -> str:
    return timestamp(moment + switches.clock_skew * 3600, switches.utc_offset)


def _label(instance: Instance, engine: Engine) -> str:
    return f"{instance.process.label} {_stamp(instance.started, engine.switches)}"


def _time(name: str) -> Column:
    return lambda instance, engine: shown_time(getattr(instance, name), engine.switches)


def _date(name: str) -> Column:
    return lambda instance, engine: _stamp(getattr(instance, name), engine.switches)


def _user(prefix: str) -> dict[str, Column]:
    return {
        prefix: lambda instance, _: f"10gd{instance.created_by:0>16.16}",
        f"{prefix}.name": lambda instance, _: instance.created_by,
        f"{prefix}.__objectType": lambda *_: "User",
    }


ROW: Mapping[str, Column] = {
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
        shown_key(instance.business_key, engine.switches.key_form)
        if engine.switches.business_keys_in_rows
        else instance.id
    ),
    "urgency": lambda *_: 0,
    "startTime": _time("started"),
    "endTime": _time("ended"),
    "createdDate": _date("started"),
    "lastModifiedDate": _date("changed"),
    "lastHandler": lambda *_: None,
    **_user("createdBy"),
    **_user("lastModifiedBy"),
    **_user("owner"),
}


def row(instance: Instance, engine: Engine, columns: Mapping[str, Column] = ROW) -> dict[str, Any]:
    """Return an instance as a row of a query.

    :param columns: the columns of the row; by default all.
    """
    shown = {name: column(instance, engine) for name, column in columns.items()}
    return instance.distortion.applied(shown)


def definition_row(definition: Definition) -> dict[str, Any]:
    """Return a definition as a row of the definition query."""
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


def _variables(process: Process, form: str) -> dict[str, Any]:
    """Return the variables of a definition as the switch ``definition_variables`` shows them."""
    listed = [
        {
            "name": name,
            "dataType": _data_type(value),
            "isCollection": isinstance(value, list),
            "isInput": name not in process.read_only,
            "isOutput": True,
            "defaultValue": value if isinstance(value, str) else json.dumps(value),
        }
        for name, value in process.variables.items()
    ]
    forms: dict[str, Any] = {
        "listed": listed,
        "null": None,
        "empty": [],
        "unnamed": [{**each, "name": None} for each in listed],
        "map": {each["name"]: each for each in listed},
    }
    return {} if form == "absent" else {"variables": forms[form]}


def _data_type(value: object) -> str:
    if isinstance(value, bool):
        return "Boolean"
    return "Number" if isinstance(value, (int, float)) else "Text"


def definition_graph(definition: Definition, switches: Switches) -> dict[str, Any]:
    """Return a definition as a read by id shows it: the row, its variables and its elements.

    On page 0046 a created definition has ``variables``, an array of objects. The example on page 0048 shows the same
    definition.
    """
    process = definition.process
    row = definition_row(definition)
    return {
        **row,
        "config": json.loads(row["config"]),
        **_variables(process, switches.definition_variables),
        "elements": [
            {"name": step.element or step.state, "type": "userTask" if step.outcomes else "task"}
            for step in process.steps
        ],
    }
