"""Fault injection: the requests that fail, how often they fail, and their responses.

This module keeps the rules and distorts responses. The web application delays responses and cuts connections.
"""

from __future__ import annotations

import json
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import unquote_plus

import msgspec

from airflow_provider_astrobpm.emulator.refusals import ResultCode
from airflow_provider_astrobpm.emulator.request_log import RequestKind
from airflow_provider_astrobpm.emulator.wire_format import ApiResponse, encoded, enveloped, html, plain

if TYPE_CHECKING:
    from collections.abc import Callable

FaultName = Literal[
    "delay",
    "drop_before",
    "drop_after",
    "status",
    "not_json",
    "html",
    "text",
    "code_in_200",
    "redirect",
    "wrong_shape",
    "wrong_types",
    "other_fields",
    "twice",
    "nul",
    "half_pair",
    "oversize",
    "truncate",
    "trickle",
]
FaultKind = Literal[RequestKind, "any"]

_MEBIBYTE = 1024 * 1024


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule that makes requests fail.

    ``drop_before`` cuts the connection before the request is processed, ``drop_after`` cuts it afterwards. ``status``,
    ``not_json``, ``html``, ``text``, ``code_in_200`` and ``redirect`` respond instead of processing the request; with
    ``work_done`` they respond after processing it. The other faults distort the real response.

    :param kind: the kind of request that fails.
    :param fault: the fault.
    :param times: how many requests fail before the rule expires.
    :param skip: how many matching requests pass first.
    :param seconds: the delay before the fault; ``trickle`` spreads the response over this time.
    :param work_done: whether the request is processed anyway, before the delay.
    :param status: the HTTP status of ``status``, ``html`` and ``text``.
    :param retry_after: the ``Retry-After`` header of the same faults, sent unchanged.
    :param res_code: the ``resCode`` of ``status`` and ``code_in_200``.
    :param res_msg: the ``resMsg`` of the same faults, and the body of ``text``.
    :param size: the bytes that ``oversize`` appends to the response.
    :param location: the target of ``redirect``.
    :param fields: the fields that ``other_fields`` replaces in each instance, and ``twice`` in the second row of each
        instance.
    :param target: match only requests whose decoded path and query contain this text.
    :param share: the random share of matching requests that fail. The others pass and are not counted.
    """

    kind: FaultKind
    fault: FaultName
    times: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    skip: Annotated[int, msgspec.Meta(ge=0)] = 0
    seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0
    work_done: bool = False
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] = 500
    retry_after: str | int | None = None
    res_code: str = ResultCode.INJECTED
    res_msg: str = "An injected fault"
    size: Annotated[int, msgspec.Meta(ge=1, le=256 * _MEBIBYTE)] = 16 * _MEBIBYTE
    location: str = "/somewhere/else"
    fields: dict[str, Any] = {}
    target: str = ""
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0


class FaultRules:
    """The active rules, each with its remaining ``times`` and ``skip``. The oldest that matches a request applies to it."""

    def __init__(self) -> None:
        self.active: list[Fault] = []
        self._chance = Random(0)  # noqa: S311 - the same faults in every run

    def take(self, kind: RequestKind, target: str = "") -> Fault | None:
        """Return the fault for an incoming request, if any, and count it as used.

        :param kind: the kind of the request.
        :param target: its raw path and query.
        """
        for position, rule in enumerate(self.active):
            if rule.kind not in (kind, "any") or rule.target not in unquote_plus(target):
                continue
            if rule.share < 1 and self._chance.random() >= rule.share:
                continue
            if rule.skip:
                self.active[position] = msgspec.structs.replace(rule, skip=rule.skip - 1)
                continue
            if rule.times > 1:
                self.active[position] = msgspec.structs.replace(rule, times=rule.times - 1)
            else:
                del self.active[position]
            return rule
        return None


def replacement(fault: Fault) -> ApiResponse | None:
    """Return the response that replaces the real one; ``None`` if the fault sends the real one."""
    match fault.fault:
        case "status":
            response = enveloped(fault.res_code, fault.res_msg, status=fault.status)
        case "html":
            response = html(fault.status, "Something is wrong")
        case "text":
            response = plain(fault.status, fault.res_msg)
        case "not_json":
            return ApiResponse(200, b'{"resCode": "0", "resMsg": Success, "result": ')
        case "code_in_200":
            return enveloped(fault.res_code, fault.res_msg)
        case "redirect":
            return ApiResponse(302, b"", "text/plain", {"Location": fault.location})
        case _:
            return None
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return msgspec.structs.replace(response, headers=headers)


def distorted(fault: Fault, response: ApiResponse) -> ApiResponse:
    """Return the real response, distorted by a fault."""
    if fault.fault == "oversize":
        return msgspec.structs.replace(response, body=response.body + b" " * fault.size)
    distort = _DISTORTIONS.get(fault.fault)
    if distort is None or response.content_type != "application/json":
        return response
    return msgspec.structs.replace(response, body=encoded(distort(json.loads(response.body), fault.fields)))


def _other_shape(document: Any) -> Any:
    """Turn a list into an object, and anything else into a list; inside the envelope if there is one."""
    if isinstance(document, dict) and "result" in document:
        return {**document, "result": _other_shape(document["result"])}
    return {"rows": document} if isinstance(document, list) else [document]


def _other_fields(document: Any, fields: dict[str, Any]) -> Any:
    """Replace fields in the result, or in each of its rows."""
    if isinstance(document, list):
        return [_other_fields(each, fields) for each in document]
    if isinstance(document, dict) and "result" in document:
        return {**document, "result": _other_fields(document["result"], fields)}
    return {**document, **fields} if isinstance(document, dict) else document


def _twice(document: Any, fields: dict[str, Any]) -> Any:
    """Add after each row of a list a second row with the same id."""
    rows = document.get("result") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        return document
    changed = {name: value for name, value in fields.items() if name != "id"}
    both = [row for each in rows for row in (each, {**each, **changed})]
    return {**document, "result": both}


def _each_value(document: Any, change: Callable[[Any], Any], kept: tuple[str, ...]) -> Any:
    """Change every value in a document, except in the kept fields."""
    if isinstance(document, dict):
        return {
            key: value if key in kept else _each_value(value, change, kept) for key, value in document.items()
        }
    if isinstance(document, list):
        return [_each_value(value, change, kept) for value in document]
    return change(document)


def _other_type(value: Any) -> Any:
    return 7 if isinstance(value, str) else value if value is None else "seven"


def _with_inside(character: str, value: Any) -> Any:
    """Insert a character in the middle of a string that is not empty."""
    if not isinstance(value, str) or not value:
        return value
    middle = len(value) // 2
    return f"{value[:middle]}{character}{value[middle:]}"


_DISTORTIONS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "wrong_shape": lambda document, _: _other_shape(document),
    "wrong_types": lambda document, _: _each_value(document, _other_type, ("resCode", "resMsg")),
    "other_fields": _other_fields,
    "twice": _twice,
    "nul": lambda document, _: _each_value(document, partial(_with_inside, "\0"), ("resCode", "id")),
    "half_pair": lambda document, _: _each_value(
        document, partial(_with_inside, "\ud83d"), ("resCode", "id")
    ),
}
