"""Decodes instances. Decoding is strict at first; if that fails, unusual fields are converted or left out.

Numbers are accepted as texts, and texts as flags. A field that decides nothing and cannot be converted counts as missing. A
row whose id, name, state, business status, business key or flags are unreadable makes only its own instance doubtful: the
other rows of its list are still read, and ``Rows.unreadable`` has what is known about it.

An id, a name, a state or a business key in which a character was replaced (``texts``) is unreadable too, because its original
is lost. Such a business status is readable, and equals none that an author can ask for.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from airflow_provider_astrobpm.client import states, validation
from airflow_provider_astrobpm.client.errors import UnexpectedAnswerError
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.texts import REPLACEMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

UNKNOWN_STATE = "unknown"
"""The state of an instance that was certainly started but whose answer has no readable state. It decides nothing."""
MAX_SHOWN_VALUE_CHARS = 60  # characters of an invalid value that a reason shows

T = TypeVar("T", str, str | None)

_Name = Annotated[str, msgspec.Meta(min_length=1)]


class WireInstance(msgspec.Struct, frozen=True):
    """Both wire shapes in one, with the names of the wire."""

    id: _Name
    name: _Name
    state: str
    version: str | None = None
    bpStatus: str | None = None  # noqa: N815 - the wire's name, as are the others below
    taskOutcome: str | None = None  # noqa: N815
    suspended: bool | None = None
    isClosed: bool | None = None  # noqa: N815
    businessKey: str | None = None  # noqa: N815
    interviewLabel: str | None = None  # noqa: N815
    label: str | None = None
    title: str | None = None
    nextElem: str | None = None  # noqa: N815
    curElement: str | None = None  # noqa: N815
    startTime: str | None = None  # noqa: N815
    endTime: str | None = None  # noqa: N815

    def to_instance(self) -> BpmInstance:
        """Convert to the one model.

        :raises msgspec.ValidationError: if the id is unusable, or a field that identifies the instance is unreadable.
        """
        if not validation.is_id(self.id):
            raise msgspec.ValidationError("Expected an id - at `$.id`")
        if REPLACEMENT in self.name or REPLACEMENT in self.state or REPLACEMENT in (self.businessKey or ""):
            raise msgspec.ValidationError("Expected a readable name, state and business key")
        return BpmInstance(
            id=self.id,
            name=self.name,
            state=self.state,
            version=self.version or None,
            bp_status=self.bpStatus and (self.bpStatus.strip() or None),
            task_outcome=self.taskOutcome or None,
            # In the documented example a suspended instance keeps its state, but a state "Suspended" exists too.
            suspended=bool(self.suspended) or self.state == states.SUSPENDED,
            is_closed=bool(self.isClosed) or states.is_terminal(self.state),
            business_key=_business_key(self.businessKey),
            label=self.label or self.interviewLabel or None,
            title=self.title or None,
            current_element=self.curElement or self.nextElem or None,
            start_time=self.startTime or None,
            end_time=self.endTime or None,
        )


def _business_key(shown: str | None) -> str | None:
    """Return a shown business key without surrounding blanks. Blanks alone stand for none: they must not prove that lists show keys."""
    return (shown or "").strip() or None


class BpmDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the definitions query (page 0047): one version of a BPM."""

    id: str
    name: str
    version: str | None = None
    label: str | None = None
    active: bool | None = None
    status: str | None = None
    description: str | None = None


class UnreadableRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that could not be read completely."""

    reason: str
    """What is wrong with it."""
    unread: frozenset[str]
    """The unreadable fields, by their names on the wire."""
    id: str | None = None
    name: str | None = None
    business_key: str | None = None
    """``None`` if it is in ``unread``, and also if the row shows no key."""

    def may_be(self, *, bpm_name: str | None = None, business_key: str | None = None) -> bool:
        """Return whether it may be an instance with this name and this key. ``None`` matches any."""
        sought = (("name", bpm_name, self.name), ("businessKey", business_key, self.business_key))
        return all(field in self.unread or value in (None, own) for field, value, own in sought)

    def error(self, where: str, advice: str) -> UnexpectedAnswerError:
        """Return the error of an answer with this row."""
        which = f"the row of instance {self.id!r}" if self.id else "a row"
        error = UnexpectedAnswerError(f"{which}{where} cannot be read, because {self.reason}")
        error.advice = advice
        return error


class Rows(list[BpmInstance]):
    """The instances of one list, in the order of the server, and the rows that could not be read."""

    def __init__(self, instances: Iterable[BpmInstance], unreadable: Iterable[UnreadableRow]) -> None:
        super().__init__(instances)
        self.unreadable = tuple(unreadable)


def unreadable_in(rows: Sequence[BpmInstance]) -> tuple[UnreadableRow, ...]:
    """Return the unreadable rows of a list."""
    return rows.unreadable if isinstance(rows, Rows) else ()


def row_count(rows: Sequence[BpmInstance]) -> int:
    """Return how many rows the server sent, including unreadable ones."""
    return len(rows) + len(unreadable_in(rows))


_INSTANCE = msgspec.json.Decoder(WireInstance)
_PARTS = msgspec.json.Decoder(list[msgspec.Raw])
EMPTY_RESULTS: tuple[object, ...] = (None, "", {})
"""Values that servers send in place of an empty list."""


def decode_instance(raw: bytes | msgspec.Raw) -> BpmInstance:
    """Decode the ``result`` of an action.

    :raises msgspec.MsgspecError: if it is not an instance, or if a field that decides something is unreadable.
    """
    try:
        return _INSTANCE.decode(raw).to_instance()
    except msgspec.ValidationError:
        if isinstance(row := _read_row(raw), UnreadableRow):
            raise
        return row


def decode_optional_instance(raw: bytes | msgspec.Raw) -> BpmInstance | None:
    """Decode the ``result`` of reading one instance. Return ``None`` if it says that there is none.

    :raises msgspec.MsgspecError: as ``decode_instance`` does.
    """
    if msgspec.json.decode(raw) in (*EMPTY_RESULTS, []):
        return None
    return decode_instance(raw)


def decode_started(raw: bytes | msgspec.Raw, name: str) -> BpmInstance:
    """Decode the ``result`` of a start. An answer with an id proves a start, even if the rest is malformed.

    :param name: the name of the requested BPM.
    :raises msgspec.MsgspecError: if it has no id.
    """
    try:
        return _INSTANCE.decode(raw).to_instance()
    except msgspec.ValidationError:
        values, odd = _read_fields(msgspec.json.decode(raw))
        if "id" in odd:
            raise
        values.setdefault("name", name)
        if odd.keys() - {"name", "businessKey"}:
            values = {field: value for field, value in values.items() if field not in _DECIDING}
            values["state"] = UNKNOWN_STATE
        return WireInstance(**values).to_instance()


def decode_definitions(raw: bytes | msgspec.Raw) -> list[BpmDefinition]:
    """Decode the ``result`` of a query for definitions.

    :raises msgspec.MsgspecError: if it is not JSON or not a list, or if a row has no id or no name.
    """
    return [_definition(part) for part in _parts_of(raw)]


def _definition(raw: msgspec.Raw) -> BpmDefinition:
    try:
        return msgspec.json.decode(raw, type=BpmDefinition)
    except msgspec.ValidationError:
        values, odd = _read_fields(msgspec.json.decode(raw), _DEFINITION_KINDS)
        if odd.keys() & {"id", "name"}:
            raise
        return BpmDefinition(**values)


def decode_rows(raw: bytes | msgspec.Raw) -> Rows:
    """Decode the ``result`` of a query: an array in the example of page 0070, an object in its table.

    An empty list may be sent as an empty object, an empty text, ``null``, or nothing. A single instance object counts as a list
    with one row.

    Rows are decoded one by one, because a single call for a long list would block all other threads.

    :raises msgspec.MsgspecError: if it is not JSON or not a list.
    """
    decode = _INSTANCE.decode
    instances: list[BpmInstance] = []
    unreadable: list[UnreadableRow] = []
    for part in _parts_of(raw):
        try:
            instances.append(decode(part).to_instance())
        except msgspec.MsgspecError:
            found = _read_row(part)
            (unreadable if isinstance(found, UnreadableRow) else instances).append(found)  # type: ignore[arg-type]
    return Rows(instances, unreadable)


def _parts_of(raw: bytes | msgspec.Raw) -> list[msgspec.Raw]:
    """Return the rows of a list."""
    try:
        return _PARTS.decode(raw)
    except msgspec.ValidationError:
        value = msgspec.json.decode(raw)
        if value in EMPTY_RESULTS:
            return []
        if not isinstance(value, dict) or "id" not in value:
            raise
        return [msgspec.Raw(raw)]


def _read_row(raw: bytes | msgspec.Raw) -> BpmInstance | UnreadableRow:
    try:
        values, odd = _read_fields(msgspec.json.decode(raw))
    except msgspec.MsgspecError as error:
        return UnreadableRow(reason=str(error), unread=frozenset(_KINDS))
    if not odd:
        return WireInstance(**values).to_instance()
    return UnreadableRow(
        reason=" and ".join(f"its {field} {reason}" for field, reason in odd.items()),
        unread=frozenset(odd),
        id=values.get("id"),
        name=values.get("name"),
        business_key=_business_key(values.get("businessKey")),
    )


def _read_fields(
    row: Any, kinds: Mapping[str, Callable[[Any], Any]] | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the readable fields, and for each other field what is wrong with it."""
    values: dict[str, Any] = {}
    odd: dict[str, str] = {}
    for field, convert in (kinds or _KINDS).items():
        value = row.get(field) if isinstance(row, dict) else None
        try:
            values[field] = convert(value)
        except ValueError:
            odd[field] = f"is {_shown(value)}" if isinstance(row, dict) and field in row else "is missing"
    return values, odd


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "a value that is nested too deeply"
    return text if len(text) <= MAX_SHOWN_VALUE_CHARS else f"{text[:MAX_SHOWN_VALUE_CHARS]}…"


def _id(value: Any) -> str:
    text = str(_number_or_text(value))
    return text if validation.is_id(text) else _refuse()


def _name(value: Any) -> str:
    return _whole(str(_number_or_text(value))) or _refuse()


def _optional(value: Any) -> str | None:
    return None if value is None else str(_number_or_text(value))


def _flag(value: Any) -> bool | None:
    """Return a flag, or ``None`` if it is not set."""
    if isinstance(value, bool) or value is None:
        return value
    word = str(_number_or_text(value)).strip().lower()
    return _FLAGS[word] if word in _FLAGS else _refuse()


def _minor(value: Any) -> str | None:
    return str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None


def _number_or_text(value: Any) -> int | str:
    # A float is refused: the text that it was before it became a number is lost.
    return value if isinstance(value, (str, int)) and not isinstance(value, bool) else _refuse()


def _whole(text: T) -> T:
    """Return a text, and refuse one in which a character was replaced."""
    return _refuse() if text and REPLACEMENT in text else text


def _refuse() -> Any:
    raise ValueError


_FLAGS = {"true": True, "1": True, "false": False, "0": False, "": None}
_KINDS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(WireInstance.__struct_fields__, _minor),
    "id": _id,
    "name": _name,
    "state": lambda value: _whole(value) if isinstance(value, str) else _refuse(),
    "bpStatus": _optional,
    "businessKey": lambda value: _whole(_optional(value)),
    "suspended": _flag,
    "isClosed": _flag,
}
_DEFINITION_KINDS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(BpmDefinition.__struct_fields__, _minor),
    "id": _id,
    "name": _name,
    "active": _flag,
}
_DECIDING = ("state", "bpStatus", "suspended", "isClosed")
