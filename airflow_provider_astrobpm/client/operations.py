"""Every REST operation that Astro Zero documents, as a value: the request, and how to decode the answer.

No I/O. Invalid arguments are refused here, before anything is sent. Page numbers refer to the Astro Zero API reference
(``astrozero_api_NNNN``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from airflow_provider_astrobpm.client import csrf, states, validation
from airflow_provider_astrobpm.client import variables as values
from airflow_provider_astrobpm.client.instance import ROW_FIELDS, BpmInstance
from airflow_provider_astrobpm.client.wire import (
    BpmDefinition,
    Rows,
    decode_definitions,
    decode_instance,
    decode_optional_instance,
    decode_rows,
    decode_started,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = TypeVar("T")

Action = Literal["suspend", "resume", "terminate"]
ACTIONS: tuple[Action, ...] = ("suspend", "resume", "terminate")
Encoding = Literal["form", "json"]

TOKEN_PATH = "/baas/auth/v1.0/oauth2/token"  # noqa: S105 - a path
CSRF_PATH = "/u-route/baas/sys/v1.0/csrf/get"
INSTANCES_PATH = "/u-route/baas/bp/v2.0/runtime/instances"
DEFINITIONS_PATH = "/u-route/baas/bp/v2.0/metadata/definitions"

BUSINESS_KEY_VARIABLE = "$Flow.BusinessKey"
TITLE_VARIABLE = "$Flow.Title"

_ENCODER = json.JSONEncoder(allow_nan=False)  # one for all bodies; ``json.dumps`` would create one each time


class Operation(msgspec.Struct, Generic[T], frozen=True):
    """One call of the API.

    :param kind: its name in metrics and logs.
    :param attempt: what it attempts, to complete the sentence "Could not ...".
    :param decode: decodes the envelope's ``result``, or the whole body if there is no envelope. It raises
        ``msgspec.MsgspecError`` if that does not have the documented form.
    :param resend_if_in_doubt: whether it may be resent if it is unknown whether the server acted on it.
    :param resend_if_malformed: whether it may be resent after a malformed answer.
    :param needs_token: whether it needs the access token.
    :param has_envelope: whether the answer is ``{"resCode", "resMsg", "result"}``.
    :param secrets: the secrets in the request. The server may repeat them, and no message may show them.
    :param result_is_secret: whether its result is a secret itself, which must not be masked in the answer.
    """

    kind: str
    attempt: str
    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    decode: Callable[[bytes | msgspec.Raw], T]
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    content_type: str = "application/json"
    resend_if_in_doubt: bool = True
    resend_if_malformed: bool = False
    needs_token: bool = True
    has_envelope: bool = True
    secrets: tuple[str, ...] = ()
    result_is_secret: bool = False

    @property
    def target(self) -> str:
        """The path with its query. A blank is sent as ``%20``, because it is undocumented whether ``+`` works."""
        return f"{self.path}?{urlencode(self.query, quote_via=quote)}" if self.query else self.path

    def __repr__(self) -> str:
        return f"Operation({self.attempt!r}, {self.method!r}, {self.target!r})"


@dataclass(frozen=True)
class Sleep:
    """A step of a flow that sleeps for some seconds instead of sending a call."""

    seconds: float


# A flow yields the next step, receives the result of the step (or has its error thrown in), and returns a result. It does
# no I/O, so the sync and the async client run the same flows.
Flow = Generator[Operation[Any] | Sleep, Any, T]


class TokenAnswer(msgspec.Struct, frozen=True):
    """The OAuth answer: no envelope, no refresh token (page 0011)."""

    access_token: str
    expires_in: float | None = None
    """Seconds until the token expires, or ``None`` if the answer does not say."""
    encoding: Encoding = "form"
    """The encoding of the request."""

    def __repr__(self) -> str:
        return f"TokenAnswer(access_token='***', expires_in={self.expires_in})"


class _TokenBody(msgspec.Struct, frozen=True):
    access_token: str
    expires_in: msgspec.Raw = msgspec.Raw(b"null")


def get_token(client_id: str, client_secret: str, *, encoding: Encoding = "form") -> Operation[TokenAnswer]:
    """Request a token with client credentials. They are sent in the body, never in the URL."""
    fields = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret}
    as_form = encoding == "form"
    return Operation(
        kind="token",
        attempt="get a token",
        method="POST",
        path=TOKEN_PATH,
        body=urlencode(fields).encode() if as_form else _json(fields),
        content_type="application/x-www-form-urlencoded" if as_form else "application/json",
        decode=partial(_decode_token, encoding),
        resend_if_malformed=True,
        needs_token=False,
        has_envelope=False,
        secrets=(client_secret,),
        result_is_secret=True,
    )


def get_csrf_token(method: csrf.Method = "POST") -> Operation[str]:
    """Request a CSRF token for the next writes.

    :param method: the HTTP method; it is undocumented which of the two an endpoint offers.
    """
    return Operation(
        kind="csrf",
        attempt="get a CSRF token",
        method=method,
        path=CSRF_PATH,
        decode=lambda raw: msgspec.json.decode(raw, type=str),
        resend_if_malformed=True,
        result_is_secret=True,
    )


def start(
    name: str,
    *,
    version: str | None = None,
    variables: Mapping[str, Any] | None = None,
    business_key: str | None = None,
    title: str | None = None,
    zone: values.Zone = values.unknown_zone,
) -> Operation[BpmInstance]:
    """Start an instance (page 0069). Never resent when the server may have acted on it, because that could start a second one.

    :param name: the BPM's name as the designer shows it, with its namespace if it has one.
    :param version: the version to run, even if it is not the enabled one; without it, the enabled version runs.
    :param variables: values for the BPM's variables; see ``docs/variables.md`` for the types that can be sent.
    :param business_key: the instance's business key, ``$Flow.BusinessKey``.
    :param title: the instance's title, ``$Flow.Title``.
    :param zone: returns the time zone of the API's timestamps, for datetimes among the variables.
    :raises ValueError: for a blank name, for variables that are not a mapping of names to values with a JSON form, or for a
        key or title that ``variables`` sets too.
    """
    sent = values.json_ready({} if variables is None else variables, zone)
    for variable, value, argument, check in (
        (BUSINESS_KEY_VARIABLE, business_key, "business_key", validation.identifier),
        (TITLE_VARIABLE, title, "title", validation.rendered_text),
    ):
        if value is None:
            continue
        if variable in sent:
            raise ValueError(f"{argument} is given twice: as an argument and as variable {variable!r}")
        sent[variable] = check(value, argument)
    name = validation.identifier(name, "bpm_name")
    body: dict[str, Any] = {"name": name}
    if version is not None:
        body["version"] = validation.identifier(version, "version")
    if sent:
        body["variables"] = sent
    release = f" version {version}" if version else ""
    return Operation(
        kind="start",
        attempt=f"start an instance of BPM {name!r}{release}",
        method="POST",
        path=INSTANCES_PATH,
        body=_json(body),
        decode=partial(decode_started, name=name),
        resend_if_in_doubt=False,
    )


def query(
    state: str,
    *,
    fields: Iterable[str] | None = ROW_FIELDS,
    order_field: str | None = "startTime",
    order_type: Literal["asc", "desc"] = "desc",
) -> Operation[Rows]:
    """List the instances in one state (page 0070). Several states in one call are undocumented, and so is paging.

    :param state: one of the twelve states.
    :param fields: the columns to request; ``None`` for the server's default.
    :param order_field: the column to order by; ``None`` for the server's default. The default here is newest first, because
        the maximum number of rows in an answer is undocumented.
    :raises ValueError: for an unknown state or direction, or for columns without ``id``, ``name`` and ``state``.
    """
    (checked,) = states.require_known([state], "state")
    params = [("states", checked)]
    if fields is not None:
        columns = tuple(fields)
        if missing := {"id", "name", "state"}.difference(columns):
            raise ValueError(f"fields must include {', '.join(sorted(missing))}, which every instance needs")
        params.append(("fields", ",".join(columns)))
    if order_field is not None:
        validation.choice(order_type, "order_type", ("asc", "desc"))
        params += [
            ("orderField", validation.non_blank(order_field, "order_field")),
            ("orderType", order_type),
        ]
    return Operation(
        kind="query",
        attempt=f"list the instances in state {state!r}",
        method="GET",
        path=INSTANCES_PATH,
        query=tuple(params),
        decode=decode_rows,
        resend_if_malformed=True,
    )


def get_instance(instance_id: str, *, is_known_to_work: bool = True) -> Operation[BpmInstance | None]:
    """Read one instance. A successful answer without an instance gives ``None``. Undocumented, so expect any answer.

    :param is_known_to_work: whether this endpoint has returned an instance by its id before. If not, a malformed answer may
        mean that it does not offer this call.
    """
    return Operation(
        kind="get",
        attempt=f"read instance {instance_id!r}",
        method="GET",
        path=_instance_path(instance_id),
        decode=decode_optional_instance,
        resend_if_malformed=is_known_to_work,
    )


def change_state(instance_id: str, action: Action) -> Operation[BpmInstance]:
    """Suspend, resume or terminate an instance (page 0071).

    :raises ValueError: for a blank id or an unknown action.
    """
    validation.choice(action, "action", ACTIONS)
    return Operation(
        kind=action,
        attempt=f"{action} instance {instance_id!r}",
        method="PUT",
        path=_instance_path(instance_id),
        body=_json({"action": action}),
        decode=decode_instance,
    )


def set_variables(
    instance_id: str, variables: Mapping[str, Any], *, zone: values.Zone = values.unknown_zone
) -> Operation[None]:
    """Set variables of an instance (page 0073). Astro Zero silently ignores unknown and read-only names.

    :param zone: returns the time zone of the API's timestamps, for datetimes among the variables.
    :raises ValueError: for a blank id, no variables, or variables that are not a mapping of names to values with a JSON form.
    """
    if not (sent := values.json_ready(variables, zone)):
        raise ValueError("variables must name at least one variable to set")
    return Operation(
        kind="variables",
        attempt=f"set variables of instance {instance_id!r}",
        method="PUT",
        path=f"{_instance_path(instance_id)}/variables",
        body=_json(sent),
        decode=_ignore_result,
    )


def delete(instance_id: str) -> Operation[None]:
    """Delete an instance permanently (page 0072). Not resent when the server may have acted on it: the outcome is checked."""
    return Operation(
        kind="delete",
        attempt=f"delete instance {instance_id!r}",
        method="DELETE",
        path=_instance_path(instance_id),
        decode=_ignore_result,
        resend_if_in_doubt=False,
    )


def definitions(
    *,
    name: str | None = None,
    like: bool = False,
    active: bool | None = None,
    skip: int | None = None,
    limit: int | None = None,
) -> Operation[list[BpmDefinition]]:
    """List BPM definitions, one row per version (page 0047).

    :param name: the name to search for; without it, all are listed.
    :param like: whether the name may be a part of the BPM's name.
    :param active: whether to list only enabled or only disabled versions; sent as ``true`` or ``false``, which is undocumented.
    :param skip: the number of rows to skip.
    :param limit: the maximum number of rows.
    :raises ValueError: for a negative ``skip`` or a ``limit`` below 1.
    """
    params = {
        "name": validation.identifier(name, "name") if name is not None else None,
        "like": "true" if validation.boolean(like, "like") else None,
        "active": None if active is None else str(validation.boolean(active, "active")).lower(),
        "skip": validation.count(skip, "skip", least=0) if skip is not None else None,
        "limit": validation.count(limit, "limit", least=1) if limit is not None else None,
    }
    return Operation(
        kind="definitions",
        attempt="list BPM definitions",
        method="GET",
        path=DEFINITIONS_PATH,
        query=tuple((key, str(value)) for key, value in params.items() if value is not None),
        decode=decode_definitions,
        resend_if_malformed=True,
    )


def definition(definition_id: str) -> Operation[dict[str, Any]]:
    """Read one definition: the whole graph as Astro Zero sends it (page 0048)."""
    return Operation(
        kind="definition",
        attempt=f"read BPM definition {definition_id!r}",
        method="GET",
        path=f"{DEFINITIONS_PATH}/{_segment(definition_id, 'definition_id')}",
        decode=lambda raw: msgspec.json.decode(raw, type=dict[str, Any]),
        resend_if_malformed=True,
    )


def _instance_path(instance_id: str) -> str:
    return f"{INSTANCES_PATH}/{_segment(instance_id, 'instance_id')}"


def _segment(value: str, argument: str) -> str:
    """Return an id as one segment of a path. Ids are opaque, but must not change the path."""
    if not validation.is_id(validation.identifier(value, argument)):
        raise ValueError(f"{argument} must be an id, not {validation.shown(value)}")
    return quote(value, safe="")


def _json(value: object) -> bytes:
    return _ENCODER.encode(value).encode()


def _decode_token(encoding: Encoding, raw: bytes | msgspec.Raw) -> TokenAnswer:
    body = msgspec.json.decode(raw, type=_TokenBody)
    if not validation.is_token(body.access_token):
        raise msgspec.ValidationError("access_token is not valid in a header")
    return TokenAnswer(body.access_token, _lifetime(bytes(body.expires_in)), encoding)


def _lifetime(expires_in: bytes) -> float | None:
    """Parse ``expires_in``, a number or the text of one. A token without a usable lifetime is accepted too."""
    try:
        seconds = float(expires_in.strip(b'"'))
    except ValueError:
        return None
    return seconds if 0 < seconds < math.inf else None


def _ignore_result(raw: bytes | msgspec.Raw) -> None:
    """Accept any result, because only the success of the call is documented."""
