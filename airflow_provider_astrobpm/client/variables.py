"""Converts the values of ``variables`` to JSON: one form for each Python type, and an error for a type without one.

Pure and light to import: values of numpy and pandas are recognised by the names of their classes. ``docs/variables.md`` has
the table for users. Astro Zero documents no types. Its own example sends dates as ``2018-12-12`` and numbers as texts, and its
timestamps are ``YYYY-MM-DD HH:MM:SS`` in a time zone that the connection names.
"""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, NoReturn
from uuid import UUID

from airflow_provider_astrobpm.client import validation
from airflow_provider_astrobpm.client.texts import is_storable

Zone = Callable[[], "tzinfo | None"]
"""Returns the time zone of the API's timestamps, or ``None`` if it is unknown. Called only for values that need it."""

MAX_DEPTH = 100  # levels of lists and mappings
MAX_INTEGER_BITS = 4096  # Python itself refuses to print much longer integers
MAX_PATH_STEPS = 10  # steps of the path that an error shows
DATE_CHARS = 10  # characters of a date: 2018-12-12
SECOND_CHARS = 19  # characters of a time without fractions of a second: 2018-12-12T09:30:00

MISSING = frozenset({"pandas.NaTType", "pandas.NAType", "numpy.MaskedConstant"})
PATHS = frozenset({"upath.UPath", "upath.ProxyUPath"})
"""Path classes outside ``pathlib``: those of Airflow's object storage."""
REMEDIES = {
    "pandas.DataFrame": "value.to_dict('records')",
    **dict.fromkeys(("pandas.NDFrame", "pandas.Index", "pandas.ExtensionArray"), "value.tolist()"),
    "pydantic.BaseModel": "value.model_dump()",
    "msgspec.Struct": "msgspec.to_builtins(value)",
    "polars.DataFrame": "value.to_dicts()",
    "polars.Series": "value.to_list()",
}
"""What to write instead of a container that JSON does not have, by its class. ``value`` stands for the container."""


def unknown_zone() -> None:
    """Return ``None``: the time zone is unknown."""


def json_ready(variables: object, zone: Zone = unknown_zone) -> dict[str, Any]:
    """Return variables as they are sent: a dict of names to plain JSON values.

    :param zone: returns the time zone of the API's timestamps; called only for datetimes with a time zone.
    :raises ValueError: for a value without an exact form in JSON; it names the place, the value, and what to write instead.
    """
    return _convert(_Converter(zone), named(variables))


def check_unrendered(variables: object) -> None:
    """Refuse variables that can never be sent, before templates are rendered or Airflow stores the rendered values.

    Values that only the run supplies, such as the output of an upstream task, are checked when they are sent.

    :raises ValueError: as ``plain`` does.
    """
    if isinstance(variables, str) and "{" in variables:
        return  # a template, or a rendered one; it is checked when it is sent
    if isinstance(variables, (dict, str, list, tuple, set, int, float)):
        _convert(_Converter(unknown_zone, is_final=False), named(variables))


def named(variables: object) -> Mapping[str, Any]:
    """Check that variables are a mapping with usable names, and return it.

    :raises ValueError: for anything else.
    """
    if isinstance(variables, str):
        raise ValueError(
            "variables must be a mapping of names to JSON values, not a text. A template renders to a text: "
            "write one template for each value, such as variables={'amount': \"{{ dag_run.conf['amount'] }}\"}, or set "
            "render_template_as_native_obj=True"
        )
    if not isinstance(variables, Mapping):
        raise ValueError(
            f"variables must be a mapping of names to JSON values, not {type(variables).__name__}"
        )
    for name in variables:
        validation.non_blank(name, "each name in variables")
    return variables


class _UnsendableValueError(Exception):
    """A value that cannot be sent. Each enclosing container adds its step to the path."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.place: list[str] = []


def _refuse(what: str, instead: str) -> NoReturn:
    raise _UnsendableValueError(f"it is {what}. Write {instead}")


def _convert(converter: _Converter, variables: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return converter.mapping(variables, 0)
    except _UnsendableValueError as refused:
        place = refused.place[::-1]
        if len(place) > MAX_PATH_STEPS:
            place[MAX_PATH_STEPS:] = ["…"]
        raise ValueError(f"variables{''.join(place)} cannot be sent: {refused}") from None


@dataclasses.dataclass(frozen=True)
class _Converter:
    """Converts values to plain JSON."""

    zone: Zone
    is_final: bool = True
    """Whether the values are the ones that will be sent. Otherwise values that the run supplies are accepted."""

    def mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        """Return a JSON object. Refuse two keys that would become the same key."""
        made: dict[str, Any] = {}
        originals: dict[str, Any] = {}
        for key, content in value.items():
            name = key if type(key) is str and is_storable(key) else self._key(key)
            if name in made:
                _refuse(
                    f"a mapping in which {originals[name]!r} and {key!r} become the same key in JSON, {name!r}",
                    "only one of them",
                )
            originals[name] = key
            made[name] = self._part(content, depth, key)
        return made

    def _key(self, key: object) -> str:
        """Return a key as JSON has it: a text."""
        if not isinstance(key, str) and isinstance(key, (Mapping, Sequence, AbstractSet)):
            _refuse(f"a mapping with the key {reprlib.repr(key)}", "a text as the key")
        try:
            made = self._value(key, 0)
        except _UnsendableValueError as refused:
            reason = str(refused).removeprefix("it is ")
            raise _UnsendableValueError(f"it is a mapping with a key that is {reason}") from None
        if isinstance(made, str):
            return made
        if isinstance(made, (int, float, type(None))):
            return json.dumps(made)
        _refuse(f"a mapping with a key of type {type(key).__name__}", "a text as the key")

    def _part(self, value: Any, depth: int, place: object) -> Any:
        """Convert a part of a container at a key or a position, or at ``...`` in a set."""
        try:
            return self._value(value, depth + 1)
        except _UnsendableValueError as refused:
            refused.place.append("{…}" if place is ... else f"[{reprlib.repr(place)}]")
            raise

    def _items(self, values: Iterable[Any], depth: int) -> list[Any]:
        return [self._part(each, depth, position) for position, each in enumerate(values)]

    def _set(self, values: AbstractSet[Any], depth: int) -> list[Any]:
        """Return a set as a sorted list, so that a retry sends the same."""
        made = [self._part(each, depth, ...) for each in values]
        try:
            return sorted(made)
        except TypeError:
            return sorted(made, key=json.dumps)

    def _value(self, value: Any, depth: int) -> Any:  # noqa: PLR0911 - a table in order
        """Return plain JSON. The types that are JSON already come first, because most values have them."""
        kind = type(value)
        if kind is str:
            return _text(value)
        if value is None or kind is bool:
            return value
        if kind is int:
            return _integer(value)
        if kind is float:
            return _number(value)
        if depth > MAX_DEPTH:
            _refuse(f"more than {MAX_DEPTH} levels deep, or contains itself", "a flatter value")
        if kind is dict:
            return self.mapping(value, depth)
        if kind is list:
            return self._items(value, depth)
        return self._converted(value, depth)

    def _converted(self, value: Any, depth: int) -> Any:
        names = _names(value)
        if isinstance(value, Enum):
            return self._value(value.value, depth + 1)
        if not MISSING.isdisjoint(names):
            _missing(type(value).__name__)
        if isinstance(value, datetime):
            return self._moment(value)
        for kind, form in _FORMS:
            if isinstance(value, kind):
                return form(value)
        if "numpy.generic" in names:
            return self._scalar(value, names, depth)
        return self._container(value, names, depth)

    def _container(self, value: Any, names: frozenset[str], depth: int) -> Any:
        if "numpy.ndarray" in names:
            return self._items(value, depth) if value.ndim else self._value(value[()], depth + 1)
        if remedy := next((remedy for name, remedy in REMEDIES.items() if name in names), None):
            _refuse(f"of type {type(value).__name__}", remedy)
        if not self.is_final and _is_open(value):
            return None
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        match value:
            case Mapping():
                return self.mapping(value, depth)
            case AbstractSet():
                return self._set(value, depth)
            case Sequence():
                return self._items(value, depth)
        return _unknown(value, names)

    def _moment(self, value: datetime) -> str | None:
        """Return a datetime in the format of the API, without fractions of a second."""
        offset = value.utcoffset()
        written = datetime(*value.timetuple()[:6])  # noqa: DTZ001 - the local time of its own zone
        if offset is None:
            return str(written)
        if not self.is_final:
            return None
        if (zone := self.zone()) is None:
            _refuse(
                f"the datetime {value.isoformat()}, and the time zone of Astro Zero's timestamps is unknown",
                "it as a text in the time zone that the process expects, or set the extra 'timezone' of the connection",
            )
        try:
            local = (written - offset).replace(tzinfo=timezone.utc).astimezone(zone)
        except OverflowError:
            _refuse(
                f"the datetime {value.isoformat()}, which is out of range in {zone}", "another one, or a text"
            )
        return str(local.replace(tzinfo=None, microsecond=0))

    def _scalar(self, value: Any, names: frozenset[str], depth: int) -> Any:
        """Convert a numpy scalar, recognised by the names of its classes."""
        if "numpy.datetime64" in names:
            return _from_numpy_moment(str(value))
        if "numpy.timedelta64" in names:
            _duration(value)
        if not names.isdisjoint({"numpy.bool", "numpy.bool_"}):
            return bool(value)
        if "numpy.integer" in names:
            return int(value)
        if "numpy.floating" in names:
            # The shortest decimal that numpy reads as the same number: 0.1, not 0.10000000149011612.
            return _number(float(str(value)))
        if "numpy.object_" in names:
            return self._value(value.item(), depth + 1)
        _refuse(f"a numpy.{type(value).__name__}, which JSON does not have", "a text or a number")


def _is_open(value: object) -> bool:
    """Return whether only the run supplies the value: the output of an upstream task, or a value that is resolved then."""
    if isinstance(value, (Mapping, AbstractSet, Sequence)):
        return not isinstance(value, (dict, set, frozenset, list, tuple))
    return hasattr(value, "resolve") or hasattr(value, "template_fields")


def _unknown(value: object, names: frozenset[str]) -> str:
    """Convert a path class outside ``pathlib``. Refuse anything else."""
    if not PATHS.isdisjoint(names):
        return str(value)
    name = type(value).__name__
    if isinstance(value, Iterator):
        _refuse(f"a {name}, which can be read only once", "list(value)")
    if hasattr(type(value), "__attrs_attrs__"):
        _refuse(f"of type {name}", "attrs.asdict(value)")
    _refuse(f"of type {name}, which JSON does not have", "a text, a number, a list or a mapping")


def _names(value: object) -> frozenset[str]:
    """Return the classes of a value, each as top-level package and name, such as ``numpy.generic``."""
    return frozenset(f"{one.__module__.partition('.')[0]}.{one.__name__}" for one in type(value).__mro__)


def _text(value: str) -> str:
    if not is_storable(value):
        _refuse("a text with a NUL character or a lone surrogate", "a clean text")
    return str.__str__(value)


def _integer(value: int) -> int:
    if value.bit_length() > MAX_INTEGER_BITS:
        _refuse("a number of more than 1,200 digits", "a text")
    return int(value)


def _number(value: float) -> float:
    if not math.isfinite(value):
        _refuse(f"{float(value)}, which JSON does not have", "None, or leave it out")
    return float(value)


def _decimal(value: Decimal) -> str:
    """Return all digits, without an exponent."""
    if not value.is_finite():
        _refuse(f"{value}, which JSON does not have", "None, or leave it out")
    return format(value, "f")


def _time(value: time) -> str:
    if value.tzinfo is not None:
        _refuse("a time of day with a time zone, whose offset depends on the day", "a datetime, or a text")
    return f"{value.hour:02}:{value.minute:02}:{value.second:02}"


def _duration(value: object) -> NoReturn:
    _refuse(
        f"a {type(value).__name__}, for which Astro Zero documents no type",
        "a number in the unit that the process expects, such as value.total_seconds()",
    )


def _bytes(value: object) -> NoReturn:
    _refuse(f"{type(value).__name__}, which JSON does not have", "a text, such as value.decode()")


def _missing(name: str) -> NoReturn:
    _refuse(f"a missing value ({name.removesuffix('Type')})", "None, or leave it out")


def _from_numpy_moment(shown: str) -> str:
    """Convert a ``datetime64`` by its text. Its unit decides how precise that text is."""
    if shown == "NaT":
        _missing(shown)
    if len(shown) < DATE_CHARS:
        _refuse(f"a datetime64 without a day, {shown}", "a date, or a text")
    try:
        moment = datetime.fromisoformat(shown[:SECOND_CHARS])
    except ValueError:
        _refuse(f"a datetime64 out of range, {shown}", "a text")
    return shown if len(shown) == DATE_CHARS else str(moment)


_FORMS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (str, _text),
    (int, _integer),
    (float, _number),
    (date, date.isoformat),
    (time, _time),
    (timedelta, _duration),
    (Decimal, _decimal),
    (UUID, str),
    (PurePath, str),
    ((bytes, bytearray, memoryview), _bytes),
)
"""The form of each type that JSON does not have. A ``datetime``, which is a ``date`` too, is handled earlier."""
