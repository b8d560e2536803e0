"""Checks of arguments, made before anything is sent. Each returns the value, or raises ``ValueError`` naming it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Literal, TypeVar

from airflow_provider_astrobpm.bpm.texts import REPLACEMENT, is_storable

T = TypeVar("T")

RENDERED_NOTHING = frozenset({"None", "null", "undefined", "[]", "{}"})
"""The texts that a template renders for a value that is not there, beside a blank one."""
FOUND_NOTHING = "a template renders that where it finds nothing; check what it reads, such as dag_run.conf, params or an XCom"

MOST_SECONDS = 1e9  # some thirty years; operating systems cannot count much further
SHORTEST_INTERVAL = 1.0  # seconds between two looks
CLOSE = 0.6  # how much of a misspelt word is right
QUOTED = "write a text, and put quotes into a template of it, as in \"'{{ params.version }}'\""
"""What to write where native rendering has made something else than a text of a template."""

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_TRUTHS = {
    **dict.fromkeys(("true", "yes", "on", "y", "t", "1", "enabled"), True),
    **dict.fromkeys(("false", "no", "off", "n", "f", "0", "none", "disabled", "never"), False),
}
"""What people write for the two truth values."""
SUCCEED_OR_FAIL: tuple[Literal["succeed", "fail"], ...] = ("succeed", "fail")


def text(value: object, argument: str) -> str:
    """Return a text that is not blank and that Airflow's database takes."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{argument} must be a text that is not blank, not {value!r}")
    if not is_storable(value):
        raise ValueError(f"{argument} must be a text without NUL and half surrogate pairs, not {value!r}")
    return value


def rendered(value: object, argument: str) -> str:
    """Return a text that may have been a template: native rendering makes numbers of texts.

    An integer is taken as its text. A ``float`` is refused, because its text may have been another one.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        raise ValueError(
            f"{argument} must be a text, not the number {value!r}: of '1.10' native rendering makes 1.1; {QUOTED}"
        )
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{argument} must be a text, not {value!r}; {QUOTED}")
    return text(value, argument)


def identifier(value: object, argument: str) -> str:
    """Return a text by which something is found or told from others: an id, a key, a name, a status or a state.

    A template that finds nothing renders a text all the same, such as ``None``, and another run's template renders the same
    one. So these texts name nothing. Native rendering makes numbers of texts; see ``rendered``.
    """
    if isinstance(value, str) and not value.strip():
        raise ValueError(f"{argument} must be a text that is not blank, not {value!r}: {FOUND_NOTHING}")
    checked = rendered(value, argument)
    if checked.strip() in RENDERED_NOTHING:
        raise ValueError(f"{argument} must not be {value!r}: {FOUND_NOTHING}")
    if REPLACEMENT in checked:
        raise ValueError(
            f"{argument} must not hold U+FFFD, which stands for a character that was lost: {value!r}"
        )
    return checked


def is_id(value: str) -> bool:
    """Return whether a text can be an id: whether it names something, and stays one segment of a path.

    What the server sends as one and cannot be is not taken for one, or a call about it would fail before it is sent.
    """
    if value.isalnum():  # nearly every id is, and ten thousand of them may be asked about
        return value not in RENDERED_NOTHING
    bare = value.strip()
    return bool(bare.strip(".")) and bare not in RENDERED_NOTHING and REPLACEMENT not in value


def given(task: object, arguments: Iterable[str]) -> frozenset[str]:
    """Return the optional arguments that the author of a task gave; to be asked before templates are rendered."""
    return frozenset(argument for argument in arguments if getattr(task, argument) is not None)


def still_given(task: object, arguments: Iterable[str]) -> None:
    """Check that no template came out as ``None``: that would count as not given."""
    for argument in arguments:
        if getattr(task, argument) is None:
            raise ValueError(f"{argument} was given, and came out as None")


def identifiers(values: object, argument: str) -> frozenset[str]:
    """Return several texts, each of which names something.

    One text alone is a likely slip, not a list of letters; an iterator would be empty when it is read again; an empty
    list is what a template may leave of a condition, and must not count as none asked for.
    """
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Collection):
        raise ValueError(f"{argument} must be a list of texts, not {values!r}{_list_instead(values)}")
    if not values:
        raise ValueError(f"{argument} must not be empty; leave it out to ask for nothing")
    return frozenset(identifier(value, f"each of {argument}") for value in values)


def statuses(values: object, argument: str) -> frozenset[str]:
    """Return business statuses, without the blanks around them, which do not count."""
    return frozenset(status.strip() for status in identifiers(values, argument))


def _list_instead(value: object) -> str:
    """Return what to write instead of one text, as the end of an error."""
    if not isinstance(value, str):
        return ""
    if value.strip().startswith(("[", "(", "{")):
        return "; a template renders a text: set render_template_as_native_obj=True, or write each text by itself"
    return f"; write [{value!r}]"


def not_one_text(value: object, argument: str) -> None:
    """Refuse one text instead of a list of them while the DAG is parsed; what is a template is checked when the task runs."""
    if isinstance(value, str) and "{" not in value:
        identifiers(value, argument)


def seconds(value: object, argument: str, *, least: float = 0, in_code: bool = True) -> float:
    """Return a number of seconds; a ``timedelta`` is one too.

    :param in_code: whether a ``timedelta`` can be written there.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= MOST_SECONDS:
        raise ValueError(
            f"{argument} must be a number of seconds, at least {least:g} and at most {MOST_SECONDS:g}, "
            f"not {value!r}{_seconds_instead(value, in_code=in_code)}"
        )
    return value


def _seconds_instead(value: object, *, in_code: bool) -> str:
    """Return what to write instead of a text such as ``1h``, as the end of an error."""
    if not isinstance(value, str) or not (found := _DURATION.fullmatch(value)):
        return ""
    number, unit = found[1], found[2].lower()
    if not unit:
        return f"; write {number}"
    if unit == "ms" or (name := _UNITS.get(unit[0])) is None:
        return ""
    total = timedelta(**{name: float(number)}).total_seconds()
    return f"; write timedelta({name}={number})" if in_code else f"; write {total:g}"


def timeout(value: object) -> float | None:
    """Return the seconds that a wait may take, or ``None`` for no limit."""
    if value is None:
        return None
    if value in (0, timedelta(0)) and value is not False:
        raise ValueError(
            "timeout must be more than 0; leave it out to wait for ever, or set wait_for_completion=False to not wait at all"
        )
    return seconds(value, "timeout")


def poll_interval(value: object) -> float:
    """Return the seconds between two looks."""
    return seconds(value, "poll_interval", least=SHORTEST_INTERVAL)


def count(value: object, argument: str, *, least: int) -> int:
    """Return a whole number."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(
            f"{argument} must be a whole number, at least {least}, not {value!r}{_number_instead(value)}"
        )
    return value


def _number_instead(value: object) -> str:
    """Return what to write instead of the text of a number, as the end of an error."""
    if not isinstance(value, str) or not (found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", value)):
        return ""
    return f"; write {float(found[1]) / 100:g}" if found[2] else f"; write {found[1]}"


def truth(value: object, argument: str) -> bool:
    """Return a truth value. A text is none: ``"no"`` would count as true."""
    if not isinstance(value, bool):
        raise ValueError(f"{argument} must be True or False, not {value!r}{truth_instead(value)}")
    return value


def truth_instead(value: object, words: Mapping[bool, str] = {True: "True", False: "False"}) -> str:
    """Return what to write instead of a word such as ``no``, as the end of an error.

    :param words: how the two values are written there.
    """
    meant = _TRUTHS.get(str(value).strip().lower())
    return "" if meant is None else f"; write {words[meant]}"


def rate(value: object, argument: str) -> float:
    """Return how often something may happen a second."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= MOST_SECONDS:
        raise ValueError(
            f"{argument} must be a number a second, more than 0, not {value!r}{_number_instead(value)}"
        )
    return value


def number_or_share(value: object, argument: str) -> float:
    """Return a number of things, or a share of them below 1 as a ``float``."""
    if isinstance(value, float) and 0 <= value < 1:
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(
            f"{argument} must be a whole number, or a share as a float below 1, not {value!r}{_number_instead(value)}"
        )
    return value


def choice(value: T, argument: str, choices: Iterable[T]) -> T:
    """Return one of the choices."""
    known = tuple(choices)
    if value not in known:
        raise ValueError(
            f"{argument} must be one of {', '.join(map(repr, known))}, not {value!r}{_nearest(value, known)}"
        )
    return value


def _nearest(value: object, known: Iterable[object]) -> str:
    """Return which choice was probably meant, as the end of an error."""
    from difflib import get_close_matches  # noqa: PLC0415 - only where something is wrong

    if not isinstance(value, str) or not (wanted := _folded(value)):
        return ""
    names = {_folded(name): name for name in known if isinstance(name, str)}
    begun = [name for name in names if name.startswith(wanted)]
    close = begun if len(begun) == 1 else get_close_matches(wanted, names, n=1, cutoff=CLOSE)
    return f"; did you mean {names[close[0]]!r}?" if close else ""


def _folded(text: str) -> str:
    return re.sub(r"[\s_-]", "", text).casefold()


def is_token(value: str) -> bool:
    """Tell whether a text can be a token in a header. It is not raised about: no message may show it."""
    return value.isascii() and value.isprintable() and bool(value) and " " not in value
