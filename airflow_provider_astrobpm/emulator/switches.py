"""What the API reference leaves open, as switches: each position is an Astro Zero that might exist.

A client is right when it is right in every position. The first position of each switch is the default.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints


class SwitchError(ValueError):
    """An unknown switch, or a position that it does not have."""


def _switch(default: Any, doc: str, *, at_least: float = 0, at_most: float = math.inf) -> Any:
    return dataclasses.field(default=default, metadata={"doc": doc, "at_least": at_least, "at_most": at_most})


@dataclass(frozen=True, kw_only=True)
class Switches:
    """One position for each undocumented point. Change them with :meth:`changed`, which checks."""

    get_by_id: Literal["absent", "not_allowed", "action", "row"] = _switch(
        "absent", "GET /instances/{id}: 404, 405, the shape of an action's answer, or that of a query row."
    )
    definition_variables: Literal["listed", "absent", "null", "empty", "unnamed", "map"] = _switch(
        "listed",
        "The variables of a definition that is read by its id: an array of objects with their names, no such field, null, an"
        " empty array, an array of objects without names, or an object by name.",
    )
    missing_by_id: Literal["refused", "null", "object"] = _switch(
        "refused",
        "GET /instances/{id} for an id that nobody has, where get_by_id answers: refused, or a success whose result is null or"
        " an empty object.",
    )
    get_variables: Literal["absent", "map"] = _switch(
        "absent", "GET /instances/{id}/variables: 404, or a map of names to values."
    )
    several_states: Literal["refuse", "comma", "repeated", "first"] = _switch(
        "refuse",
        "Several states in one query: refused, honoured with commas, honoured as a repeated parameter,"
        " or only the first one counts.",
    )
    unknown_state: Literal["refuse", "empty"] = _switch(
        "refuse", "A query for a state that does not exist: refused, or no rows."
    )
    row_cap: int | None = _switch(None, "The most rows that one query returns; none for no cap.", at_least=1)
    row_order: Literal["newest", "oldest", "shuffled"] = _switch(
        "newest",
        "What comes first where no order was asked for; shuffled is an order of its own that hangs on the ids alone.",
    )
    fields_honoured: bool = _switch(True, "Whether fields= limits the columns of a query.")
    order_honoured: bool = _switch(True, "Whether orderField= and orderType= order the rows of a query.")
    unknown_field: Literal["ignore", "refuse"] = _switch(
        "ignore", "A column that does not exist in fields= or orderField=: ignored, or refused."
    )
    business_keys_in_rows: bool = _switch(
        True, "Whether rows carry the business key; if not, they carry the id there."
    )
    key_form: Literal["as_sent", "cut_50", "cut_20", "upper", "padded", "prefixed"] = _switch(
        "as_sent",
        "How business keys come back, in answers and rows: as they were sent, cut at 50 or 20 characters, in upper case,"
        " with blanks to a width of 80, or with ASTRO: before them.",
    )
    see_others: bool = _switch(True, "Whether instances that somebody else started are visible.")
    keep_closed: bool = _switch(True, "Whether ended instances stay known to the API, or are gone at once.")
    start_lag: float = _switch(0.0, "Seconds before a new instance shows up in reads.")
    action_lag: float = _switch(0.0, "Seconds before an accepted action takes effect.")
    terminate_state: Literal["Terminated", "User Terminated"] = _switch(
        "Terminated", "The state after terminate."
    )
    suspend_state: Literal["unchanged", "Suspended", "state_only"] = _switch(
        "unchanged",
        "What suspend changes: the flag alone, the flag and the state to Suspended, or the state alone.",
    )
    closed_flag: Literal["on_close", "never"] = _switch("on_close", "When isClosed turns true.")
    acting_twice: Literal["refuse", "accept"] = _switch(
        "refuse", "Suspending a suspended instance, resuming a running one, terminating a terminated one."
    )
    acting_on_closed: Literal["refuse", "accept"] = _switch(
        "refuse", "Actions on, and variables for, an instance that has ended; accepting changes nothing."
    )
    deleting_open: Literal["accept", "refuse"] = _switch("accept", "Deleting an instance that has not ended.")
    duplicate_business_key: Literal["accept", "refuse"] = _switch(
        "accept", "A start with a business key that an instance of the same BPM carries already."
    )
    refused_token_start: Literal["nothing", "started"] = _switch(
        "nothing", "What a start does whose token is refused: nothing, or it is carried out all the same."
    )
    unknown_variables_at_start: Literal["ignore", "refuse"] = _switch(
        "ignore", "A start with variables that the BPM does not declare."
    )
    refusal_status: Literal[400, 404, 500, 200] = _switch(
        400, "The HTTP status of a refusal, beside its resCode."
    )
    bad_token: Literal["401", "401_html", "400_602", "403_603", "200_602", "403", "403_html", "500_602"] = (
        _switch(
            "401",
            "How an invalid or expired token is reported: HTTP 401 with JSON, 401 with an HTML page, another HTTP status"
            " with resCode 405230602 or 405230603, or HTTP 403 with another resCode or an HTML page.",
        )
    )
    token_body: Literal["form", "json", "both"] = _switch(
        "both", "Which encoding the token endpoint accepts."
    )
    expires_in: Literal["number", "text", "absent", "zero", "negative", "words"] = _switch(
        "number",
        "What expires_in of a token answer is: the seconds, the seconds as a text, left out, 0, less than 0, or a text"
        " that is no number. The token ends after the same time.",
    )
    concurrent_tokens: bool = _switch(True, "Whether older tokens stay valid when a new one is issued.")
    csrf_required: bool = _switch(False, "Whether POST, PUT and DELETE need the csrf-token header.")
    csrf_method: Literal["both", "post", "get"] = _switch(
        "both",
        "By which method a CSRF token is fetched: POST and GET, POST alone, GET alone. The other is HTTP 405.",
    )
    content_type_required: bool = _switch(
        False, "Whether a call without the header Content-Type: application/json is refused, even a GET."
    )
    plus_is_blank: bool = _switch(True, "Whether + in a query means a blank, as in forms.")
    success_message: Literal["Success", "成功"] = _switch("Success", "The resMsg of a success.")
    empty_list: Literal["array", "null", "absent", "object", "text"] = _switch(
        "array",
        "The result of a query that finds nothing: an empty array, null, no result at all, an empty object, an empty text.",
    )
    numeric_codes: bool = _switch(False, "Whether resCode is sent as a number.")
    byte_order_mark: bool = _switch(False, "Whether JSON answers begin with a byte order mark.")
    utc_offset: float = _switch(0.0, "Hours that timestamps are ahead of UTC.", at_least=-14, at_most=14)
    clock_skew: float = _switch(
        0.0,
        "Hours by which the clock is wrong that writes the timestamps. The header Date stays right, as a gateway sets it.",
        at_least=-100_000,
        at_most=100_000,
    )
    start_time_form: Literal["documented", "zero", "epoch", "dash", "slashes", "millis", "leading_blank"] = (
        _switch(
            "documented",
            "How startTime and endTime are written: as documented, always as 0001-01-01 00:00:00, always as"
            " 1970-01-01 08:00:00, always as -, with slashes, as milliseconds since the epoch, or with a leading blank.",
        )
    )

    def changed(self, **positions: object) -> Switches:
        """Return these switches with some in another position.

        :raises SwitchError: for an unknown switch or position.
        """
        checked: dict[str, Any] = {name: _checked(name, value) for name, value in positions.items()}
        return dataclasses.replace(self, **checked)

    def positions(self) -> dict[str, Any]:
        """Return every switch with its position."""
        return dataclasses.asdict(self)


_TYPES = get_type_hints(Switches)
_FIELDS = {field.name: field for field in dataclasses.fields(Switches)}


def parse_switch(text: str) -> tuple[str, object]:
    """Read ``NAME=POSITION`` from a command line.

    :raises SwitchError: if it is not of that form, or names no switch or position.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise SwitchError(f"a switch is given as NAME=POSITION, not {text!r}")
    return name, _checked(name, _read(name, value))


def describe_switches() -> str:
    """List every switch with its positions and what it stands for, one paragraph each."""
    return "\n".join(
        f"{name} = {_positions(name)} (default: {_shown(field.default)})\n    {field.metadata['doc']}"
        for name, field in _FIELDS.items()
    )


def _type_of(name: str) -> Any:
    if name not in _TYPES:
        raise SwitchError(f"unknown switch {name!r}; known are {', '.join(_TYPES)}")
    return _TYPES[name]


def _checked(name: str, value: object) -> object:
    kind = _type_of(name)
    if kind is float and type(value) is int:
        value = float(value)
    if not _fits(kind, value, _FIELDS[name].metadata):
        raise SwitchError(f"switch {name} has no position {value!r}; it has {_positions(name)}")
    return value


def _fits(kind: Any, value: Any, limits: Any) -> bool:
    if get_origin(kind) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(kind))
    if type(value) not in (get_args(kind) or (kind,)):
        return False
    return isinstance(value, (bool, NoneType)) or limits["at_least"] <= value <= limits["at_most"]


def _read(name: str, text: str) -> object:
    """Read a position from text; what cannot be read comes back as it is, for the error to name."""
    kind = _type_of(name)
    if get_origin(kind) is Literal:
        return next((choice for choice in get_args(kind) if str(choice) == text), text)
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if NoneType in get_args(kind) and text.lower() == "none":
        return None
    try:
        return float(text) if kind is float else int(text)
    except ValueError:
        return text


def _positions(name: str) -> str:
    kind = _TYPES[name]
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    if kind is bool:
        return "true | false"
    limits = _FIELDS[name].metadata
    most = "" if limits["at_most"] == math.inf else f" and at most {limits['at_most']:g}"
    number = f"{'a number' if kind is float else 'an integer'} of at least {limits['at_least']:g}{most}"
    return f"none | {number}" if NoneType in get_args(kind) else number


def _shown(value: object) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
