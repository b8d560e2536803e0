"""Checks of arguments, before anything is sent. Each returns the checked value or raises a ``ValueError`` that names it."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Literal, TypeVar

from airflow_provider_astrobpm.client.texts import REPLACEMENT, is_storable

T = TypeVar("T")

EMPTY_RENDERINGS = frozenset({"None", "null", "undefined", "[]", "{}"})
"""The texts that templates render for a missing value. A blank text is another one."""
FOUND_NOTHING = "a template renders this if it finds nothing; check what it reads, such as dag_run.conf, params or an XCom"

MAX_SECONDS = 1e9  # some thirty years; operating systems cannot count much further
MIN_POLL_INTERVAL_SECONDS = 1.0  # seconds between two polls
MIN_SIMILARITY = 0.7  # of a misspelt word and the word that is suggested for it, as difflib measures it
QUOTED = "write a text, and add quotes inside a template, as in \"'{{ params.version }}'\""
"""Advice for a template that native rendering turned into something other than a text."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
_COUNT_OR_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*(%?)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_TRUTHS = {
    **dict.fromkeys(("true", "yes", "on", "y", "t", "1", "enabled"), True),
    **dict.fromkeys(("false", "no", "off", "n", "f", "0", "none", "disabled", "never"), False),
}
"""Words that people write for the two booleans."""
SUCCEED_OR_FAIL: tuple[Literal["succeed", "fail"], ...] = ("succeed", "fail")


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = MAX_SHOWN_CHARS = 200
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = _SHORT.maxfrozenset = _SHORT.maxdict = 20


def shown(value: object) -> str:
    """Return how an error message shows a value: like ``repr``, but shortened."""
    return _SHORT.repr(value)


def non_blank(value: object, argument: str) -> str:
    """Return a text that is not blank and that Airflow's database accepts."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{argument} must be a text that is not blank, not {shown(value)}")
    if not is_storable(value):
        raise ValueError(
            f"{argument} must be a text without NUL characters and lone surrogates, not {shown(value)}"
        )
    return value


def rendered_text(value: object, argument: str) -> str:
    """Return the text that a template rendered. Native rendering turns texts such as ``12`` into numbers.

    An integer is converted back to its text. A ``float`` is refused, because its original text is lost.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        raise ValueError(
            f"{argument} must be a text, not the number {shown(value)}: native rendering turns '1.10' into 1.1; {QUOTED}"
        )
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{argument} must be a text, not {shown(value)}; {QUOTED}")
    return non_blank(value, argument)


def identifier(value: object, argument: str) -> str:
    """Return a text that identifies something: an id, a key, a name, a status or a state.

    A template that finds nothing still renders a text, such as ``None``, and so does the template of every other run. Such
    texts are refused, because they identify nothing. Native rendering turns texts into numbers; see ``rendered_text``.
    """
    if isinstance(value, str) and not value.strip():
        raise ValueError(f"{argument} must be a text that is not blank, not {shown(value)}: {FOUND_NOTHING}")
    checked = rendered_text(value, argument)
    if checked.strip() in EMPTY_RENDERINGS:
        raise ValueError(f"{argument} must not be {shown(value)}: {FOUND_NOTHING}")
    if REPLACEMENT in checked:
        raise ValueError(
            f"{argument} must not contain U+FFFD, which stands for a lost character: {shown(value)}"
        )
    return checked


def is_id(value: str) -> bool:
    """Return whether a text can be an id: it identifies something, and it is a single segment of a path.

    An id from the server that fails this check is not accepted as one, because a call with it would fail before it is sent.
    """
    if value.isalnum():  # fast path: nearly every id is, and a batch checks ten thousand
        return value not in EMPTY_RENDERINGS
    bare = value.strip()
    return bool(bare.strip(".")) and bare not in EMPTY_RENDERINGS and REPLACEMENT not in value


def provided_arguments(task: object, arguments: Iterable[str]) -> frozenset[str]:
    """Return the optional arguments that the author of a task provided. Call it before templates are rendered."""
    return frozenset(argument for argument in arguments if getattr(task, argument) is not None)


def require_still_provided(task: object, arguments: Iterable[str]) -> None:
    """Check that no template rendered to ``None``, which would count as an argument that was not provided."""
    for argument in arguments:
        if getattr(task, argument) is None:
            raise ValueError(f"{argument} was provided, but rendered as None")


def identifiers(values: object, argument: str) -> frozenset[str]:
    """Return several texts, each checked by ``identifier``.

    A single text is refused: it is probably a mistake, not a list of letters. So is an iterator, which would be empty when it is
    read again. So is an empty list: a template may leave one of a condition, and that must not count as no condition.
    """
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Collection):
        raise ValueError(f"{argument} must be a list of texts, not {shown(values)}{_list_instead(values)}")
    if not values:
        raise ValueError(f"{argument} must not be empty; omit it instead")
    return frozenset(identifier(value, f"each of {argument}") for value in values)


def statuses(values: object, argument: str) -> frozenset[str]:
    """Return business statuses without surrounding blanks, which are not significant."""
    return frozenset(status.strip() for status in identifiers(values, argument))


def sought_key(value: object, argument: str) -> str:
    """Return a business key to search for, without surrounding blanks, which are not significant."""
    return identifier(value, argument).strip()


def _list_instead(value: object) -> str:
    """Return the hint for a text where a list is expected, as the end of an error message."""
    if not isinstance(value, str):
        return ""
    if value.strip().startswith(("[", "(", "{")):
        return "; a template renders a text: set render_template_as_native_obj=True, or write each text separately"
    return f"; write [{shown(value)}]"


def reject_single_text(value: object, argument: str) -> None:
    """Refuse a single text where a list is expected while the DAG is parsed. A template is checked when the task runs."""
    if isinstance(value, str) and "{" not in value:
        identifiers(value, argument)


def seconds(value: object, argument: str, *, least: float = 0, in_code: bool = True) -> float:
    """Return a number of seconds, also from a ``timedelta``.

    :param in_code: whether the value stands in Python code, where the hint may suggest a ``timedelta``.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= MAX_SECONDS:
        raise ValueError(
            f"{argument} must be a number of seconds, at least {least:g} and at most {MAX_SECONDS:g}, "
            f"not {shown(value)}{_seconds_instead(value, in_code=in_code)}"
        )
    return value


def _seconds_instead(value: object, *, in_code: bool) -> str:
    """Return the hint for a text such as ``1h``, as the end of an error message."""
    if not isinstance(value, str) or len(value) > MAX_SHOWN_CHARS:
        return ""
    if not (found := _DURATION.fullmatch(value.strip())):
        return ""
    number, unit = found[1], found[2].lower()
    if not unit:
        return f"; write {number}"
    if unit == "ms" or (name := _UNITS.get(unit[0])) is None:
        return ""
    try:
        total = timedelta(**{name: float(number)}).total_seconds()
    except OverflowError:
        return ""
    return f"; write timedelta({name}={number})" if in_code else f"; write {total:g}"


def timeout(value: object) -> float | None:
    """Return the seconds that a wait may take, or ``None`` for no limit."""
    if value is None:
        return None
    if value in (0, timedelta(0)) and value is not False:
        raise ValueError(
            "timeout must be more than 0; omit it to wait forever, or set wait_for_completion=False to not wait at all"
        )
    return seconds(value, "timeout")


def poll_interval(value: object) -> float:
    """Return the seconds between two polls."""
    return seconds(value, "poll_interval", least=MIN_POLL_INTERVAL_SECONDS)


def count(value: object, argument: str, *, least: int) -> int:
    """Return a whole number."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(
            f"{argument} must be a whole number, at least {least}, not {shown(value)}{_number_instead(value)}"
        )
    return value


def _number_instead(value: object) -> str:
    """Return the hint for a number given as text, as the end of an error message."""
    if not isinstance(value, str) or len(value) > MAX_SHOWN_CHARS:
        return ""
    if not (found := _COUNT_OR_PERCENT.fullmatch(value.strip())):
        return ""
    return f"; write {float(found[1]) / 100:g}" if found[2] else f"; write {found[1]}"


def boolean(value: object, argument: str) -> bool:
    """Return a boolean. A text is refused, because ``"no"`` would count as true."""
    if not isinstance(value, bool):
        raise ValueError(f"{argument} must be True or False, not {shown(value)}{boolean_hint(value)}")
    return value


def boolean_hint(value: object, words: Mapping[bool, str] = {True: "True", False: "False"}) -> str:
    """Return the hint for a word such as ``no``, as the end of an error message.

    :param words: how the two booleans are written in the place where the value stands.
    """
    meant = _TRUTHS.get(str(value).strip().lower())
    return "" if meant is None else f"; write {words[meant]}"


def rate(value: object, argument: str) -> float:
    """Return a rate per second."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= MAX_SECONDS:
        raise ValueError(
            f"{argument} must be a number per second, more than 0, not {shown(value)}{_number_instead(value)}"
        )
    return value


def number_or_share(value: object, argument: str) -> float:
    """Return a count as an ``int``, or a share below 1 as a ``float``."""
    if isinstance(value, float) and 0 <= value < 1:
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(
            f"{argument} must be a whole number, or a share as a float below 1, not {shown(value)}{_number_instead(value)}"
        )
    return value


def choice(value: T, argument: str, choices: Iterable[T]) -> T:
    """Return one of the choices."""
    known = tuple(choices)
    if value not in known:
        words = [one for one in known if isinstance(one, str)]
        near = nearest(value, words) if isinstance(value, str) else None
        hint = f"; did you mean {near!r}?" if near else ""
        raise ValueError(f"{argument} must be one of {', '.join(map(repr, known))}, not {shown(value)}{hint}")
    return value


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that was probably meant by a word: the only one that it begins, or the most similar one."""
    from difflib import get_close_matches  # noqa: PLC0415 - only where something is wrong

    if not (wanted := _folded(word)):
        return None
    known = {_folded(name): name for name in names}
    close = [name for name in known if name.startswith(wanted)]
    if len(close) != 1:
        close = get_close_matches(wanted, known, n=1, cutoff=MIN_SIMILARITY)
    return known[close[0]] if close else None


def _folded(word: str) -> str:
    return re.sub(r"[\s_-]", "", word).casefold()


def is_token(value: str) -> bool:
    """Return whether a text can be a token in a header. Raises nothing, because no message may show the text."""
    return value.isascii() and value.isprintable() and bool(value) and " " not in value
