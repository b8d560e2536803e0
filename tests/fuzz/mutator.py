"""Changes inputs: bytes as libFuzzer does, and JSON value by value, so that most inputs are still JSON."""

from __future__ import annotations

import json
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

from tests.fuzz.inputs import SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Callable

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, 1e300, -1e300, 2**63, 10**30, float("nan"), float("inf")),
    *(
        "",
        " ",
        "0",
        "a",
        "-1",
        "ff",
        "\0",
        "\ud800",
        "\ufffd",
        "é",
        "None",
        "$SECRET",
        "%41",
        "<br>",
        "1e400",
        "+-o",
    ),
    *("Completed OK", "Running", "Terminated", "success", "failure", "group", "2026-11-28 10:00:00"),
    *([], {}, [None], [[]], {"": None}, ["a", 1], "{{400|[}}", "{{5000|1}}"),
)
STRUCTURED_SHARE = 0.6  # of the changes of a part that is JSON
MAX_PLACES = 400  # in a value


def mutate(data: bytes, max_size: int, seed: int, by_bytes: Callable[[bytes, int], bytes]) -> bytes:
    """Return a changed input.

    :param max_size: of the result, in bytes.
    :param by_bytes: libFuzzer's own mutator.
    """
    chance = Random(seed)
    head, newline, rest = data.partition(b"\n")
    parts = rest.split(SEPARATOR)
    number = chance.randrange(len(parts))
    if chance.random() < STRUCTURED_SHARE:
        with suppress(ValueError, RecursionError):
            parts[number] = _changed_json(parts[number], chance)
            return (head + b"\n" + SEPARATOR.join(parts))[:max_size]
    if newline and chance.random() < 0.5:
        parts[number] = by_bytes(parts[number], max(1, max_size - len(data) + len(parts[number])))
        return (head + b"\n" + SEPARATOR.join(parts))[:max_size]
    return by_bytes(data, max_size)


def _changed_json(part: bytes, chance: Random) -> bytes:
    value = json.loads(part)
    places: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(places) < MAX_PLACES:
        one = waiting.pop()
        if isinstance(one, (dict, list)):
            names: list[Any] = list(one) if isinstance(one, dict) else list(range(len(one)))
            places += [(one, name) for name in names]
            waiting += [one[name] for name in names]
    for _ in range(chance.choice((1, 1, 2, 3))):
        if not places:
            return json.dumps(chance.choice(ODD_VALUES)).encode()
        within, name = chance.choice(places)
        with suppress(LookupError):
            _change(within, name, places, chance)
    return json.dumps(value, ensure_ascii=chance.random() < 0.7).encode(errors="surrogatepass")


def _change(within: Any, name: Any, places: list[tuple[Any, Any]], chance: Random) -> None:
    """Change one value, or what is beside it."""
    old = within[name]
    match chance.randrange(6):
        case 0:
            del within[name]
        case 1:
            other, place = chance.choice(places)
            within[name] = json.loads(json.dumps(other[place]))
        case 2 if isinstance(old, str):
            at = chance.randrange(len(old) + 1)
            within[name] = old[:at] + str(chance.choice(ODD_VALUES)) + old[at:]
        case 2 if isinstance(old, (int, float)):
            within[name] = chance.choice((-old, old + 1, old - 1, str(old), old * 2))
        case 3 if isinstance(within, dict):
            within[chance.choice([*within, "", "x", "\0"])] = old
        case 3:
            within.append(old)
        case _:
            within[name] = chance.choice(ODD_VALUES)
