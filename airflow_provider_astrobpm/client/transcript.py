"""The entries of a transcript: what was sent and answered, without anything that names a person, a customer or a secret.

Only what is listed here is kept: documented field names, the documented values of some fields, statuses, timestamps, and the
form of everything else. Any other value is replaced by its stand-in, so nothing has to be recognised as a secret.
``docs/bug-reports.md`` describes the entries.
"""

from __future__ import annotations

import codecs
import json
import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, unquote_plus

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.errors import InterruptedCallError, UnexpectedAnswerError
from airflow_provider_astrobpm.client.protocol import Response
from airflow_provider_astrobpm.client.stand_ins import MARK
from airflow_provider_astrobpm.client.states import STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from airflow_provider_astrobpm.client.errors import AstroZeroError
    from airflow_provider_astrobpm.client.protocol import Request
    from airflow_provider_astrobpm.client.settings import Settings
    from airflow_provider_astrobpm.client.stand_ins import StandIns

    Keeps = Callable[[object], bool]

FORMAT = 1  # of the entries
GIVEN_UP = "given_up"
"""The outcome of a request for whose answer the caller did not wait, because it was cancelled or killed."""
MAX_BODY_BYTES = 1024 * 1024  # of a body that a transcript contains; of a longer one it contains the length
_CODE = re.compile(r"\d{1,3}|405\d{6}|astrozero\.\d{4}|APIGW\.\d{4}", re.ASCII)
_TIME = re.compile(
    r"\s*\d{4}[-/]\d\d[-/]\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?(Z|[+-]\d\d:?\d\d)?\s*|-", re.ASCII
)
_FLAG = re.compile(r"\s*(true|false|-?\d)\s*", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"-?\d{1,9}(\.\d{1,6})?", re.ASCII)
_RETRY_AFTER = re.compile(r"\d{1,9}|[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", re.ASCII)
_MAX_NUMBER = 1e9
_COUNT = re.compile(r"\d{1,6}", re.ASCII)
_MEDIA = re.compile(
    r"(application/(json|xml|problem\+json|octet-stream|x-www-form-urlencoded)|text/(html|plain|xml))"
    r"(; ?charset=(utf-8|iso-8859-1|us-ascii|gbk|gb2312|gb18030))?",
    re.IGNORECASE,
)
_HTML = re.compile(rb"\s*<(!doctype html|html|head|body)\b", re.IGNORECASE)
_COMMA = re.compile("(,|%2[cC])")
_SCHEME = re.compile("https?://")


class Exchange(NamedTuple):
    """One request and its outcome.

    :param outcome: the answer, or what happened instead: ``GIVEN_UP``, or a name from ``failure_name``.
    :param at: when it was sent, in seconds since the epoch.
    :param seconds: how long it took.
    """

    request: Request
    outcome: Response | str
    at: float
    seconds: float


def heading(settings: Settings, version: str) -> dict[str, Any]:
    """Return the first entry of a transcript: the version of the provider, and the extras that change what it sends.

    :param version: the version of the provider.
    """
    extras = {
        "csrf": settings.csrf,
        "instance_lookup": settings.instance_lookup,
        "max_attempts": settings.max_attempts,
        "max_wait": settings.max_wait,
        "max_response_bytes": settings.max_response_bytes,
        "connect_timeout": settings.connect_timeout,
        "read_timeout": settings.read_timeout,
        "start_grace": settings.start_grace,
        "timezone": None if settings.timezone is None else str(settings.timezone),
    }
    return {"transcript": FORMAT, "provider": version, "extras": extras}


def entry(exchange: Exchange, stand_ins: StandIns) -> dict[str, Any]:
    """Return the entry of an exchange, with stand-ins."""
    request, outcome, at, seconds = exchange
    path, _, query = request.target.partition("?")
    of_variables = path.endswith("/variables")
    sent = datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds")
    target = _path(path, stand_ins) + (f"?{_query(query, stand_ins)}" if query else "")
    result: dict[str, Any] = {"failure": outcome}
    if isinstance(outcome, Response):
        secret = ("result",) if request.kind == "csrf" else ()
        inside = ("result",) if of_variables else ()
        result = {"answer": _answer(outcome, _Walk(stand_ins, secret, inside))}
    return {
        "at": sent,
        "seconds": round(seconds, 3),
        "request": {
            "method": request.method,
            "target": target,
            **_request_headers(request.headers, stand_ins),
            **_request_body(request, _Walk(stand_ins, is_opaque=of_variables)),
        },
        **result,
    }


def failure_name(error: AstroZeroError) -> str:
    """Return the name of what happened instead of an answer, by the error that the transport raised."""
    if isinstance(error, InterruptedCallError):
        return "no_answer" if error.timed_out else "connection_lost"
    if isinstance(error, UnexpectedAnswerError):
        return "not_decompressed" if error.is_malformed else "answer_too_long"
    return "not_sent"


def _one_of(*values: object) -> Keeps:
    return lambda value: isinstance(value, str) and value in values


def _matching(pattern: re.Pattern[str]) -> Keeps:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_flag(value: object) -> bool:
    """Return whether a value is sent as a flag. Other digits than 0 and 1 are kept too: their stand-ins could be 0 or 1."""
    return isinstance(value, (str, int)) and _FLAG.fullmatch(str(value)) is not None


def _is_code(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (str, int)) and bool(_CODE.fullmatch(str(value)))


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is not None
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MAX_NUMBER


def _never(_value: object) -> bool:
    return False


_REPLACED = (
    "id", "name", "version", "label", "title", "interviewLabel", "description", "businessKey", "processDefID",
    "bpStatus", "bpStage", "bpStep", "nextElem", "curElement", "taskOutcome", "lastHandler",
    "createdBy", "createdBy.name", "lastModifiedBy", "lastModifiedBy.name", "owner", "owner.name",
    *(f"Ext{number}" for number in range(1, 9)),
    "config", "variables", "dataType", "isCollection", "isInput", "isOutput", "defaultValue", "elements",
    "result", "error_description",
)  # fmt: skip
_TIMES = ("startTime", "endTime", "createdDate", "lastModifiedDate")
FIELDS: Mapping[str, Keeps] = {
    **dict.fromkeys(_REPLACED, _never),
    **dict.fromkeys(_TIMES, _matching(_TIME)),
    **dict.fromkeys(("suspended", "isClosed", "isTest", "active"), _is_flag),
    **dict.fromkeys(
        ("createdBy.__objectType", "lastModifiedBy.__objectType", "owner.__objectType"), _one_of("User")
    ),
    "resCode": _is_code,
    "resMsg": _one_of("Success", "成功"),
    "state": _one_of(*STATES),
    "type": _one_of("BP"),
    "status": _one_of("Pass", "Warning"),
    "urgency": _is_number,
    "action": _one_of(*operations.ACTIONS),
    "grant_type": _one_of("client_credentials"),
    "token_type": _one_of("Bearer"),
    "expires_in": _is_number,
    "error": _one_of(
        "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
        "invalid_scope",
    ),
}  # fmt: skip
"""Every field name that is kept, and whether a value of the field is kept."""
SECRETS = frozenset({"access_token", "client_id", "client_secret"})
"""The fields whose stand-ins show neither the length nor the form of the value."""
SYSTEM_VARIABLES = frozenset({operations.BUSINESS_KEY_VARIABLE, operations.TITLE_VARIABLE})
_PARAMETERS: Mapping[str, Keeps] = {
    "states": _one_of(*STATES),
    "fields": _one_of(*FIELDS),
    "orderField": _one_of(*FIELDS),
    "orderType": _one_of("asc", "desc"),
    "name": _never,
    "like": _is_flag,
    "active": _is_flag,
    "skip": _matching(_COUNT),
    "limit": _matching(_COUNT),
}
_PATHS = (
    operations.TOKEN_PATH,
    operations.CSRF_PATH,
    operations.INSTANCES_PATH,
    operations.DEFINITIONS_PATH,
    "variables",
)
_SEGMENTS = frozenset(segment for path in _PATHS for segment in path.split("/"))


class _Walk:
    """Replaces the values of one JSON document, and every name and value inside a field that is not documented.

    :param secret: the names of further fields whose values are secrets.
    :param opaque: the names of further fields inside which every name and value is replaced, as inside ``variables``.
    :param is_opaque: whether every name and value of the document is replaced.
    """

    def __init__(
        self,
        stand_ins: StandIns,
        secret: Collection[str] = (),
        opaque: Collection[str] = (),
        *,
        is_opaque: bool = False,
    ) -> None:
        self._stand_ins = stand_ins
        self._secrets = SECRETS.union(secret)
        self._opaque = {"variables", *opaque}
        self._is_opaque = is_opaque

    def document(self, value: Any) -> Any:
        """Return the document with stand-ins."""
        return self._replaced(value, "", is_opaque=self._is_opaque)

    def _replaced(self, value: Any, name: str, *, is_opaque: bool) -> Any:
        if isinstance(value, dict):
            return {
                self._name(each, is_opaque=is_opaque): self._replaced(
                    value[each], each, is_opaque=is_opaque or each in self._opaque or not _is_known(each)
                )
                for each in value
            }
        if isinstance(value, list):
            return [self._replaced(each, name, is_opaque=is_opaque) for each in value]
        if value is None or (not is_opaque and FIELDS.get(name, _never)(value)):
            return value
        if isinstance(value, str):
            is_secret = name in self._secrets and value.strip()
            return self._stand_ins.secret(value) if is_secret else self._stand_ins.text(value)
        if isinstance(value, bool):
            return self._stand_ins.boolean(value, name)
        return self._stand_ins.number(value)

    def _name(self, name: str, *, is_opaque: bool) -> str:
        is_kept = name in SYSTEM_VARIABLES if is_opaque else _is_known(name)
        return name if is_kept else self._stand_ins.text(name)


def _is_known(name: str) -> bool:
    return name in FIELDS or name in SECRETS


def _path(path: str, stand_ins: StandIns) -> str:
    return "/".join(
        segment if segment in _SEGMENTS else _quoted(stand_ins.text(unquote(segment)))
        for segment in path.split("/")
    )


def _query(query: str, stand_ins: StandIns) -> str:
    """Replace the values of a query, and keep how everything else is encoded."""
    pairs = []
    for pair in query.split("&"):
        name, equals, values = pair.partition("=")
        keeps = _PARAMETERS.get(name, _never)
        shown = [
            part if _COMMA.fullmatch(part) or keeps(unquote_plus(part)) else _value(part, stand_ins)
            for part in _COMMA.split(values)
        ]
        pairs.append(f"{name if name in _PARAMETERS else _value(name, stand_ins)}{equals}{''.join(shown)}")
    return "&".join(pairs)


def _value(part: str, stand_ins: StandIns) -> str:
    text = unquote_plus(part)
    return _quoted(stand_ins.text(text)) if text.strip() else part


def _quoted(text: str) -> str:
    return quote(text, safe=MARK, errors="surrogatepass")


def _request_headers(headers: Mapping[str, str], stand_ins: StandIns) -> dict[str, str]:
    shown = {}
    if (media := headers.get("content-type")) is not None:
        shown["content_type"] = media if _MEDIA.fullmatch(media) else stand_ins.text(media)
    for name, field in (("access-token", "token"), ("csrf-token", "csrf_token")):
        if name in headers:
            shown[field] = stand_ins.secret(headers[name])
    return shown


def _request_body(request: Request, walk: _Walk) -> dict[str, Any]:
    if request.body is None:
        return {}
    if "urlencoded" in request.headers.get("content-type", ""):
        return {"body": walk.document(dict(parse_qsl(request.body.decode(), keep_blank_values=True)))}
    return _body(request.body, walk)


def _answer(response: Response, walk: _Walk) -> dict[str, Any]:
    return {
        "status": response.status,
        "headers": _answer_headers(response.headers, walk._stand_ins),  # noqa: SLF001 - of this module
        **_body(response.body, walk),
    }


def _answer_headers(headers: Mapping[str, str], stand_ins: StandIns) -> dict[str, str]:
    shown = {}
    for name, pattern in (("content-type", _MEDIA), ("retry-after", _RETRY_AFTER)):
        if (value := headers.get(name)) is not None:
            shown[name] = value if pattern.fullmatch(value) else stand_ins.text(value)
    if (target := headers.get("location")) is not None:
        scheme = match[0] if (match := _SCHEME.match(target)) else ""
        shown["location"] = scheme + stand_ins.text(target.removeprefix(scheme))
    return shown


def _body(body: bytes, walk: _Walk) -> dict[str, Any]:
    if len(body) > MAX_BODY_BYTES:
        return {"omitted": {"form": "long", "bytes": len(body)}}
    marked = body.startswith(codecs.BOM_UTF8)
    try:
        value = json.loads(body.removeprefix(codecs.BOM_UTF8).decode(errors="replace"), strict=False)
        shown: dict[str, Any] = {"body": walk.document(value)}
    except (ValueError, RecursionError):
        return {"omitted": {"form": _form(body), "bytes": len(body)}}
    return {**shown, "byte_order_mark": True} if marked else shown


def _form(body: bytes) -> str:
    """Return what a body that is not JSON looks like."""
    if not body.strip():
        return "blank"
    if _HTML.match(body):
        return "html"
    return "broken JSON" if body.lstrip()[:1] in (b"{", b"[", b'"') else "text"
