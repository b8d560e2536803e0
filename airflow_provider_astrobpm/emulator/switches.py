"""Switches for the behaviour that the API reference leaves open. Each position is an Astro Zero that might exist.

A correct client works in every position.
"""

from __future__ import annotations

import dataclasses
import math
from contextlib import suppress
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints


class SwitchError(ValueError):
    """A switch does not exist, or does not have the given position."""


def _switch(default: Any, doc: str, *, at_least: float = 0, at_most: float = math.inf) -> Any:
    return dataclasses.field(default=default, metadata={"doc": doc, "at_least": at_least, "at_most": at_most})


@dataclass(frozen=True, kw_only=True)
class Switches:
    """The position of each switch. Use :meth:`changed` to change them: it validates."""

    get_by_id: Literal["absent", "not_allowed", "action", "row"] = _switch(
        "absent",
        "GET /instances/{id}: 404, 405, the shape of an action's response, or the shape of a query row.",
    )
    definition_variables: Literal["listed", "absent", "null", "empty", "unnamed", "map"] = _switch(
        "listed",
        "The variables of a definition that is read by its id: an array of objects with names, no such field, null, an empty"
        " array, an array of objects without names, or an object with the names as keys.",
    )
    missing_by_id: Literal["refused", "null", "object"] = _switch(
        "refused",
        "GET /instances/{id} for an unknown id, if get_by_id allows the call: refused, or a success whose result is null or an"
        " empty object.",
    )
    get_variables: Literal["absent", "map"] = _switch(
        "absent", "GET /instances/{id}/variables: 404, or a map of names to values."
    )
    several_states: Literal["refuse", "comma", "repeated", "first"] = _switch(
        "refuse",
        "Several states in one query: refused, accepted with commas, accepted as a repeated parameter,"
        " or only the first one is used.",
    )
    unknown_state: Literal["refuse", "empty"] = _switch(
        "refuse", "A query for a state that does not exist: refused, or no rows."
    )
    row_cap: int | None = _switch(
        None, "The maximum number of rows that a query returns; none for no limit.", at_least=1
    )
    row_order: Literal["newest", "oldest", "shuffled"] = _switch(
        "newest",
        "The order of rows if the query asks for none; shuffled is a fixed order that depends only on the ids.",
    )
    fields_honoured: bool = _switch(True, "Whether fields= limits the columns of a query.")
    order_honoured: bool = _switch(True, "Whether orderField= and orderType= sort the rows of a query.")
    unknown_field: Literal["ignore", "refuse"] = _switch(
        "ignore", "An unknown column in fields= or orderField=: ignored, or refused."
    )
    business_keys_in_rows: bool = _switch(
        True, "Whether rows show the business key; otherwise they show the id in its place."
    )
    key_form: Literal["as_sent", "cut_50", "cut_20", "upper", "padded", "prefixed"] = _switch(
        "as_sent",
        "How responses and rows show business keys: as sent, cut to 50 or 20 characters, in upper case, padded with blanks"
        " to 80 characters, or with the prefix ASTRO:.",
    )
    see_others: bool = _switch(True, "Whether instances that other users started are visible.")
    keep_closed: bool = _switch(True, "Whether the API keeps closed instances, or drops them immediately.")
    start_lag: float = _switch(0.0, "Seconds before a new instance is visible in reads.")
    action_lag: float = _switch(0.0, "Seconds before an accepted action takes effect.")
    terminate_state: Literal["Terminated", "User Terminated"] = _switch(
        "Terminated", "The state after terminate."
    )
    suspend_state: Literal["unchanged", "Suspended", "state_only"] = _switch(
        "unchanged",
        "What suspend changes: only the flag, the flag and the state (to Suspended), or only the state.",
    )
    closed_flag: Literal["on_close", "never"] = _switch("on_close", "When isClosed becomes true.")
    acting_twice: Literal["refuse", "accept"] = _switch(
        "refuse", "Suspending a suspended instance, resuming a running one, terminating a terminated one."
    )
    acting_on_closed: Literal["refuse", "accept"] = _switch(
        "refuse", "Actions on, and variables for, a closed instance. If accepted, they change nothing."
    )
    deleting_open: Literal["accept", "refuse"] = _switch("accept", "Deleting an instance that has not ended.")
    duplicate_business_key: Literal["accept", "refuse"] = _switch(
        "accept", "A start with a business key that an instance of the same BPM already has."
    )
    refused_token_start: Literal["nothing", "started"] = _switch(
        "nothing",
        "The effect of a start with a refused token: nothing, or the instance is started anyway.",
    )
    unknown_variables_at_start: Literal["ignore", "refuse"] = _switch(
        "ignore", "A start with variables that the BPM does not declare."
    )
    refusal_status: Literal[400, 404, 500, 200] = _switch(
        400, "The HTTP status of a refusal, in addition to its resCode."
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
        "The value of expires_in in a token response: the seconds, the seconds as text, absent, 0, negative, or text that"
        " is not a number. The lifetime of the token does not change.",
    )
    concurrent_tokens: bool = _switch(True, "Whether older tokens stay valid when a new one is issued.")
    csrf_required: bool = _switch(False, "Whether POST, PUT and DELETE need the csrf-token header.")
    csrf_method: Literal["both", "post", "get"] = _switch(
        "both",
        "The method that fetches a CSRF token: POST and GET, only POST, or only GET. The other is HTTP 405.",
    )
    content_type_required: bool = _switch(
        False, "Whether a call without the header Content-Type: application/json is refused, including GET."
    )
    plus_is_blank: bool = _switch(True, "Whether + in a query means a space, as in forms.")
    success_message: Literal["Success", "成功"] = _switch("Success", "The resMsg of a success.")
    empty_list: Literal["array", "null", "absent", "object", "text"] = _switch(
        "array",
        "The result of a query without rows: an empty array, null, no result field, an empty object, or an empty string.",
    )
    numeric_codes: bool = _switch(False, "Whether resCode is sent as a number.")
    byte_order_mark: bool = _switch(False, "Whether JSON responses begin with a byte order mark.")
    utc_offset: float = _switch(0.0, "Hours by which timestamps are ahead of UTC.", at_least=-14, at_most=14)
    clock_skew: float = _switch(
        0.0,
        "Hours by which the clock behind the timestamps is wrong. The Date header stays correct, because a gateway sets it.",
        at_least=-100_000,
        at_most=100_000,
    )
    start_time_form: Literal["documented", "zero", "epoch", "dash", "slashes", "millis", "leading_blank"] = (
        _switch(
            "documented",
            "The format of startTime and endTime: as documented, always 0001-01-01 00:00:00, always 1970-01-01 08:00:00,"
            " always -, with slashes, as milliseconds since the epoch, or with a leading space.",
        )
    )

    def changed(self, /, **positions: object) -> Switches:
        """Return a copy with some switches in other positions.

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
    """Parse ``NAME=POSITION`` from the command line.

    :raises SwitchError: if the text has another form, or the switch or position is unknown.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise SwitchError(f"a switch is given as NAME=POSITION, not {text!r}")
    return name, _checked(name, _read(name, value))


def describe_switches() -> str:
    """Return a paragraph for each switch, with its positions and its meaning."""
    return "\n".join(
        f"{name} = {_positions(name)} (default: {_shown(field.default)})\n    {field.metadata['doc']}"
        for name, field in _FIELDS.items()
    )


def _words(name: str) -> dict[str, object]:
    """Return the positions of a switch that are no numbers, by their text."""
    if name not in _TYPES:
        raise SwitchError(f"unknown switch {name!r}; known are {', '.join(_TYPES)}")
    kind = _TYPES[name]
    if get_origin(kind) is Literal:
        return {str(choice): choice for choice in get_args(kind)}
    if kind is bool:
        return {"true": True, "false": False}
    return {"none": None} if NoneType in get_args(kind) else {}


def _number(name: str) -> type[int | float] | None:
    """Return the type of the positions of a switch that are numbers; ``None`` if none is."""
    kinds = get_args(_TYPES[name]) or (_TYPES[name],)
    return next((kind for kind in (int, float) if kind in kinds), None)


def _checked(name: str, value: object) -> object:
    words, number, limits = _words(name), _number(name), _FIELDS[name].metadata
    if number is float and type(value) is int:
        with suppress(OverflowError):
            value = float(value)
    is_word = any(value == each and type(value) is type(each) for each in words.values())
    if is_word or (type(value) is number and limits["at_least"] <= value <= limits["at_most"]):
        return value
    raise SwitchError(f"switch {name} has no position {value!r}; it has {_positions(name)}")


def _read(name: str, text: str) -> object:
    """Parse a position. Invalid text is returned unchanged, so that the error can quote it."""
    for word, position in _words(name).items():
        if text == word or (text.lower() == word and isinstance(position, (bool, NoneType))):
            return position
    try:
        return number(text) if (number := _number(name)) else text
    except ValueError:
        return text


def _positions(name: str) -> str:
    number, limits = _number(name), _FIELDS[name].metadata
    most = "" if limits["at_most"] == math.inf else f" and at most {limits['at_most']:g}"
    what = "a number" if number is float else "an integer"
    numbers = [f"{what} of at least {limits['at_least']:g}{most}"] if number else []
    return " | ".join([*_words(name), *numbers])


def _shown(value: object) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
