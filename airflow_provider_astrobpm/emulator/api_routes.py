"""The documented REST API: each call is a function from a request to a response. No sockets here."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from airflow_provider_astrobpm.emulator import wire_format
from airflow_provider_astrobpm.emulator.instance_listing import list_instances, parse_query
from airflow_provider_astrobpm.emulator.refusals import Refusal, ResultCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_astrobpm.emulator.emulator_state import Emulator
    from airflow_provider_astrobpm.emulator.request_log import RequestKind
    from airflow_provider_astrobpm.emulator.wire_format import ApiResponse

    RouteHandler = Callable[["Emulator", "ApiCall"], ApiResponse]

MAX_DIGITS = 18  # of a number in a query
_INSTANCES = "/u-route/baas/bp/v2.0/runtime/instances"
_DEFINITIONS = "/u-route/baas/bp/v2.0/metadata/definitions"
_CSRF = "/u-route/baas/sys/v1.0/csrf/get"


@dataclass(frozen=True)
class ApiCall:
    """A request to the API or the control API.

    :param query: the raw query string.
    :param headers: the headers; names are case-insensitive.
    :param id: the id in the path; empty if there is none.
    """

    method: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    id: str

    def json_object(self) -> dict[str, Any]:
        """Return the body; refuse one that is not a JSON object."""
        try:
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Refusal(ResultCode.BAD_REQUEST, f"The body must be a JSON object: {error}") from None

    def media_type(self) -> str:
        """Return the content type without its parameters."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True)
class ApiRoute:
    """A documented call, or an undocumented read that a switch turns on."""

    kind: RequestKind
    method: str
    path: str
    handler: RouteHandler


def perform(emulator: Emulator, route: ApiRoute, call: ApiCall) -> ApiResponse:
    """Check the token and the headers of a call, run it, and return the response."""
    return wire_format.as_switched(_performed(emulator, route, call), emulator.switches)


def _performed(emulator: Emulator, route: ApiRoute, call: ApiCall) -> ApiResponse:
    try:
        if route.kind not in ("token", "other"):
            token = call.headers.get("access-token", "")
            if not emulator.tokens.is_valid(token):
                if route.kind == "start" and emulator.switches.refused_token_start != "nothing":  # noqa: S105
                    with suppress(Refusal):
                        _start(emulator, call)
                return _bad_token(emulator.switches.bad_token)
            _check_headers(emulator, route, call, token)
        return route.handler(emulator, call)
    except Refusal as refusal:
        status = refusal.status or emulator.switches.refusal_status
        return wire_format.enveloped(refusal.code, refusal.message, status=status)


def _bad_token(position: str) -> ApiResponse:
    status, _, form = position.partition("_")
    if form == "html":
        return wire_format.html(int(status), "Forbidden" if status == "403" else "Unauthorized")
    if position == "403":
        return wire_format.enveloped(ResultCode.FORBIDDEN, "Access is denied", status=403)
    code = ResultCode.TOKEN_INVALID if form == "603" else ResultCode.UNAUTHORISED
    return wire_format.enveloped(code, "The token is missing, invalid or expired", status=int(status))


def _check_headers(emulator: Emulator, route: ApiRoute, call: ApiCall, token: str) -> None:
    if emulator.switches.content_type_required and call.media_type() != "application/json":
        raise Refusal(ResultCode.BAD_REQUEST, "The header Content-Type: application/json is missing")
    needs_csrf = emulator.switches.csrf_required and call.method != "GET" and route.kind != "csrf"
    if needs_csrf and call.headers.get("csrf-token") != emulator.tokens.csrf_of(token):
        raise Refusal(ResultCode.CSRF, "The header csrf-token is missing or wrong", status=403)


def _get_token(emulator: Emulator, call: ApiCall) -> ApiResponse:
    """Exchange client credentials for a token (page 0011). Only the body is read, never the URL."""
    wanted = emulator.switches.token_body
    kind = {"application/x-www-form-urlencoded": "form", "application/json": "json"}.get(call.media_type())
    if kind is None or wanted not in ("both", kind):
        return _token_refused(
            "invalid_request", f"The body must be sent as {'form or json' if wanted == 'both' else wanted}"
        )
    try:
        given = call.json_object() if kind == "json" else dict(parse_qsl(call.body.decode()))
    except (Refusal, UnicodeDecodeError):
        return _token_refused("invalid_request", "The body cannot be read")
    if given.get("grant_type") != "client_credentials":
        return _token_refused("unsupported_grant_type", "grant_type must be client_credentials")
    right = {"client_id": emulator.settings.client_id, "client_secret": emulator.settings.client_secret}
    if not right.items() <= given.items():
        return _token_refused("unauthorized_client", "client_id or client_secret is wrong")
    token = emulator.tokens.issue(concurrent=emulator.switches.concurrent_tokens)
    seconds = emulator.tokens.lifetime
    shapes = {"number": seconds, "text": str(seconds), "zero": 0, "negative": -1, "words": "ten minutes"}
    shape = emulator.switches.expires_in
    lifetime = {} if shape == "absent" else {"expires_in": shapes[shape]}
    return wire_format.bare({"access_token": token, **lifetime, "token_type": "Bearer"})


def _token_refused(error: str, description: str) -> ApiResponse:
    return wire_format.bare({"error": error, "error_description": description}, status=400)


def _get_csrf(emulator: Emulator, call: ApiCall) -> ApiResponse:
    """Return the CSRF token that belongs to the access token. The method is undocumented, so a switch decides."""
    if emulator.switches.csrf_method not in ("both", call.method.lower()):
        message = f"The method {call.method} is not allowed here"
        raise Refusal(ResultCode.METHOD_NOT_ALLOWED, message, status=405)
    return _success(emulator, emulator.tokens.csrf_of(call.headers["access-token"]))


def _start(emulator: Emulator, call: ApiCall) -> ApiResponse:
    """Start an instance (page 0069)."""
    body = call.json_object()
    name, version, variables = body.get("name"), body.get("version"), body.get("variables")
    if not isinstance(name, str) or not name:
        raise Refusal(ResultCode.BAD_REQUEST, "The parameter name is missing")
    if not isinstance(version, (str, type(None))) or not isinstance(variables, (dict, type(None))):
        raise Refusal(ResultCode.BAD_REQUEST, "The parameter version must be a String, variables an Object")
    instance = emulator.engine.start(name, version or None, variables)
    return _success(emulator, wire_format.action_object(instance, emulator.engine), detail=name)


def _query(emulator: Emulator, call: ApiCall) -> ApiResponse:
    """List instances by state (page 0070)."""
    query = parse_query(call.query, plus_is_blank=emulator.switches.plus_is_blank)
    return wire_format.listed(list_instances(emulator.engine, query), emulator.switches)


def _get(emulator: Emulator, call: ApiCall) -> ApiResponse:
    """Read one instance. Undocumented, so a switch decides."""
    position = emulator.switches.get_by_id
    if position == "absent":
        raise Refusal(ResultCode.NO_SUCH_API, "There is no such API", status=404)
    if position == "not_allowed":
        raise Refusal(ResultCode.METHOD_NOT_ALLOWED, "The method GET is not allowed here", status=405)
    shape = wire_format.action_object if position == "action" else wire_format.row
    try:
        instance = emulator.engine.read(call.id)
    except Refusal:
        if emulator.switches.missing_by_id == "refused":
            raise
        return _success(emulator, None if emulator.switches.missing_by_id == "null" else {})
    return _success(emulator, shape(instance, emulator.engine))


def _act(emulator: Emulator, call: ApiCall) -> ApiResponse:
    """Suspend, resume or terminate (page 0071)."""
    action = call.json_object().get("action")
    if not isinstance(action, str):
        raise Refusal(ResultCode.UNKNOWN_ACTION, "The parameter action is missing")
    instance = emulator.engine.act(call.id, action)
    return _success(emulator, wire_format.action_object(instance, emulator.engine), detail=action)


def _delete(emulator: Emulator, call: ApiCall) -> ApiResponse:
    """Delete an instance (page 0072)."""
    emulator.engine.delete(call.id)
    return _success(emulator)


def _set_variables(emulator: Emulator, call: ApiCall) -> ApiResponse:
    """Set variables of an instance (page 0073)."""
    emulator.engine.set_variables(call.id, call.json_object())
    return _success(emulator)


def _get_variables(emulator: Emulator, call: ApiCall) -> ApiResponse:
    """Read the variables of an instance. Undocumented, so a switch decides."""
    if emulator.switches.get_variables == "absent":
        raise Refusal(ResultCode.NO_SUCH_API, "There is no such API", status=404)
    return _success(emulator, emulator.engine.read(call.id).variables)


def _list_definitions(emulator: Emulator, call: ApiCall) -> ApiResponse:
    """List the definitions that match a condition (page 0047), one row for each version."""
    params = dict(parse_query(call.query, plus_is_blank=emulator.switches.plus_is_blank))
    name, like = params.get("name", ""), params.get("like", "").lower() == "true"
    active = params.get("active", "").lower()
    skip = _whole_number(params, "skip", at_least=0)
    limit = _whole_number(params, "limit", at_least=1)
    rows = [
        wire_format.definition_row(definition)
        for definition in emulator.engine.catalogue
        if (name in definition.process.name if like else name in ("", definition.process.name))
        and active in ("", str(definition.process.active).lower())
    ]
    return wire_format.listed(rows[skip:][:limit], emulator.switches)


def _get_definition(emulator: Emulator, call: ApiCall) -> ApiResponse:
    """Read one definition (page 0048)."""
    definition = emulator.engine.catalogue.find(call.id)
    return _success(emulator, wire_format.definition_graph(definition, emulator.switches))


def _nothing_here(emulator: Emulator, call: ApiCall) -> ApiResponse:
    raise Refusal(ResultCode.NO_SUCH_API, f"There is no such API for {call.method}", status=404)


def _success(emulator: Emulator, result: object = wire_format.NO_RESULT, detail: str = "") -> ApiResponse:
    return wire_format.enveloped(ResultCode.SUCCESS, emulator.switches.success_message, result, detail=detail)


def _whole_number(params: dict[str, str], name: str, at_least: int) -> int | None:
    text = params.get(name, "")
    if not text:
        return None
    if not text.isdecimal() or len(text) > MAX_DIGITS or int(text) < at_least:
        raise Refusal(
            ResultCode.BAD_REQUEST, f"The parameter {name} must be an integer of at least {at_least}"
        )
    return int(text)


ROUTES = (
    ApiRoute("token", "POST", "/baas/auth/v1.0/oauth2/token", _get_token),
    ApiRoute("csrf", "POST", _CSRF, _get_csrf),
    ApiRoute("csrf", "GET", _CSRF, _get_csrf),
    ApiRoute("start", "POST", _INSTANCES, _start),
    ApiRoute("query", "GET", _INSTANCES, _query),
    ApiRoute("get", "GET", f"{_INSTANCES}/{{id}}", _get),
    ApiRoute("action", "PUT", f"{_INSTANCES}/{{id}}", _act),
    ApiRoute("delete", "DELETE", f"{_INSTANCES}/{{id}}", _delete),
    ApiRoute("variables", "PUT", f"{_INSTANCES}/{{id}}/variables", _set_variables),
    ApiRoute("get_variables", "GET", f"{_INSTANCES}/{{id}}/variables", _get_variables),
    ApiRoute("definitions", "GET", _DEFINITIONS, _list_definitions),
    ApiRoute("definition", "GET", f"{_DEFINITIONS}/{{id}}", _get_definition),
)
ANYTHING_ELSE = ApiRoute("other", "*", "", _nothing_here)
