"""How instances are read off the wire: strictly where that works, and otherwise with odd fields converted or left out.

Numbers are taken for texts, and texts for flags. A field that decides nothing and cannot be converted counts as not sent. A
row whose id, name, state, business status, business key or flags cannot be read makes only its own instance doubtful: the
other rows of its list are read, and ``Rows.unreadable`` says what is known of it.

An id, a name, a state or a business key in which a character had to be replaced (``texts``) cannot be read either: nobody can
tell whose it was. Such a business status can, and is none that was asked for.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from airflow_provider_astrobpm.bpm import checks, states
from airflow_provider_astrobpm.bpm.instance import BpmInstance
from airflow_provider_astrobpm.bpm.texts import REPLACEMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

UNREAD_STATE = "unknown"
"""The state of an instance that was certainly started, by an answer that does not say how it is. It decides nothing."""
LONGEST_VALUE = 60  # characters of an odd value in a reason

T = TypeVar("T", str, str | None)

_Name = Annotated[str, msgspec.Meta(min_length=1)]


class WireInstance(msgspec.Struct, frozen=True):
    """Both wire shapes at once, with the wire's own names."""

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

    def normalised(self) -> BpmInstance:
        """Return the one view.

        :raises msgspec.ValidationError: if the id cannot be one, or what tells instances apart cannot be read.
        """
        if not checks.is_id(self.id):
            raise msgspec.ValidationError("Expected an id - at `$.id`")
        if REPLACEMENT in self.name or REPLACEMENT in self.state or REPLACEMENT in (self.businessKey or ""):
            raise msgspec.ValidationError("Expected a name, a state and a business key that can be read")
        return BpmInstance(
            id=self.id,
            name=self.name,
            state=self.state,
            version=self.version or None,
            bp_status=self.bpStatus and (self.bpStatus.strip() or None),
            task_outcome=self.taskOutcome or None,
            # A suspended instance keeps its state in the documented example, yet a state "Suspended" exists too.
            suspended=bool(self.suspended) or self.state == states.SUSPENDED,
            is_closed=bool(self.isClosed) or states.is_terminal(self.state),
            business_key=self.businessKey or None,
            label=self.label or self.interviewLabel or None,
            title=self.title or None,
            current_element=self.curElement or self.nextElem or None,
            start_time=self.startTime or None,
            end_time=self.endTime or None,
        )


class BpmDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the definitions query (page 0047): one version of a BPM."""

    id: str
    name: str
    version: str | None = None
    label: str | None = None
    active: bool | None = None
    status: str | None = None
    description: str | None = None


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """A row that could not be read, as far as it could be."""

    reason: str
    """What is odd about it."""
    unread: frozenset[str]
    """The fields that could not be read, by their names on the wire."""
    id: str | None = None
    name: str | None = None
    business_key: str | None = None
    """``None`` where it is in ``unread``, and also where the row shows no key."""

    def may_be(self, *, bpm_name: str | None = None, business_key: str | None = None) -> bool:
        """Return whether it may be an instance of this name and with this key; ``None`` stands for any."""
        sought = (("name", bpm_name, self.name), ("businessKey", business_key, self.business_key))
        return all(field in self.unread or value in (None, own) for field, value, own in sought)


class Rows(list[BpmInstance]):
    """The instances of a list.

    :param instances: those that could be read, in the order of the server.
    :param unreadable: the rows that could not.
    """

    def __init__(self, instances: Iterable[BpmInstance] = (), unreadable: Iterable[Unreadable] = ()) -> None:
        super().__init__(instances)
        self.unreadable = tuple(unreadable)


def unreadable_in(rows: Sequence[BpmInstance]) -> tuple[Unreadable, ...]:
    """Return the rows of a list that could not be read."""
    return rows.unreadable if isinstance(rows, Rows) else ()


def length_of(rows: Sequence[BpmInstance]) -> int:
    """Return how many rows the server has sent, those that could not be read among them."""
    return len(rows) + len(unreadable_in(rows))


_INSTANCE = msgspec.json.Decoder(WireInstance)
_PARTS = msgspec.json.Decoder(list[msgspec.Raw])
EMPTY_RESULTS: tuple[object, ...] = (None, "", {})
"""What may come in place of an empty list."""


def decode_instance(raw: bytes | msgspec.Raw) -> BpmInstance:
    """Decode the ``result`` of an action.

    :raises msgspec.MsgspecError: if it is no instance, or a field cannot be read that decides something.
    """
    try:
        return _INSTANCE.decode(raw).normalised()
    except msgspec.ValidationError:
        values, odd = _read(msgspec.json.decode(raw))
        if odd:
            raise
        return WireInstance(**values).normalised()


def decode_found(raw: bytes | msgspec.Raw) -> BpmInstance | None:
    """Decode the ``result`` of a call that reads one instance; ``None`` where it says that there is none.

    :raises msgspec.MsgspecError: as ``decode_instance`` does.
    """
    if msgspec.json.decode(raw) in (*EMPTY_RESULTS, []):
        return None
    return decode_instance(raw)


def decode_started(raw: bytes | msgspec.Raw, name: str) -> BpmInstance:
    """Decode the ``result`` of a start: what shows an id was started, however odd the rest may be.

    :param name: the name of the BPM that was asked for.
    :raises msgspec.MsgspecError: if it shows no id.
    """
    try:
        return _INSTANCE.decode(raw).normalised()
    except msgspec.ValidationError:
        values, odd = _read(msgspec.json.decode(raw))
        if "id" in odd:
            raise
        values.setdefault("name", name)
        if odd.keys() - {"name", "businessKey"}:
            values = {field: value for field, value in values.items() if field not in _DECIDING}
            values["state"] = UNREAD_STATE
        return WireInstance(**values).normalised()


def decode_definitions(raw: bytes | msgspec.Raw) -> list[BpmDefinition]:
    """Decode the ``result`` of a query for definitions.

    :raises msgspec.MsgspecError: if it is not JSON or not a list, or a row lacks its id or its name.
    """
    return [_definition(part) for part in _parts_of(raw)]


def _definition(raw: msgspec.Raw) -> BpmDefinition:
    try:
        return msgspec.json.decode(raw, type=BpmDefinition)
    except msgspec.ValidationError:
        values, odd = _read(msgspec.json.decode(raw), _DEFINITION_KINDS)
        if odd.keys() & {"id", "name"}:
            raise
        return BpmDefinition(**values)


def decode_rows(raw: bytes | msgspec.Raw) -> Rows:
    """Decode the ``result`` of a query: an array in the example of page 0070, an object in its table.

    An empty list may come as an empty object, as an empty text, as ``null`` or not at all. An object that is an instance is a
    list of one.

    Row by row: one call for all of them would keep every other thread waiting as long as it takes.

    :raises msgspec.MsgspecError: if it is not JSON or not a list.
    """
    decode = _INSTANCE.decode
    instances: list[BpmInstance] = []
    unreadable: list[Unreadable] = []
    for part in _parts_of(raw):
        try:
            instances.append(decode(part).normalised())
        except msgspec.MsgspecError:
            found = _read_row(part)
            (unreadable if isinstance(found, Unreadable) else instances).append(found)  # type: ignore[arg-type]
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


def _read_row(raw: msgspec.Raw) -> BpmInstance | Unreadable:
    try:
        values, odd = _read(msgspec.json.decode(raw))
    except msgspec.MsgspecError as error:
        return Unreadable(reason=str(error), unread=frozenset(_KINDS))
    if not odd:
        return WireInstance(**values).normalised()
    reasons = [f"its {field} {reason}" for field, reason in odd.items()]
    return Unreadable(
        reason=" and ".join(reasons),
        unread=frozenset(odd),
        id=values.get("id"),
        name=values.get("name"),
        business_key=values.get("businessKey") or None,
    )


def _read(
    row: Any, kinds: Mapping[str, Callable[[Any], Any]] | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields that can be read, and what is wrong with those that cannot."""
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
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _id(value: Any) -> str:
    text = str(_number_or_text(value))
    return text if checks.is_id(text) else _refuse()


def _name(value: Any) -> str:
    return _whole(str(_number_or_text(value))) or _refuse()


def _state(value: Any) -> str:
    return _whole(value) if isinstance(value, str) else _refuse()


def _key(value: Any) -> str | None:
    return _whole(_optional(value))


def _optional(value: Any) -> str | None:
    return None if value is None else str(_number_or_text(value))


def _flag(value: Any) -> bool | None:
    """Return a flag; ``None`` for one that is not set."""
    if isinstance(value, bool) or value is None:
        return value
    word = str(_number_or_text(value)).strip().lower()
    return _FLAGS[word] if word in _FLAGS else _refuse()


def _minor(value: Any) -> str | None:
    return str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None


def _number_or_text(value: Any) -> int | str:
    # Not a fraction: what it was before somebody took it for a number nobody can tell.
    return value if isinstance(value, (str, int)) and not isinstance(value, bool) else _refuse()


def _whole(text: T) -> T:
    """Return a text in which no character had to be replaced."""
    return _refuse() if text and REPLACEMENT in text else text


def _refuse() -> Any:
    raise ValueError


_FLAGS = {"true": True, "1": True, "false": False, "0": False, "": None}
_KINDS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(WireInstance.__struct_fields__, _minor),
    "id": _id,
    "name": _name,
    "state": _state,
    "bpStatus": _optional,
    "businessKey": _key,
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
