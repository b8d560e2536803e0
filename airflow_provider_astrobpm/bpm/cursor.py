"""How what a watch has reported is written into a store of small values, and read again.

A store such as Airflow's asset state store takes values of some 64 KB, and a process may have had many more instances
than their marks fit in. So the marks are spread over *shards*, each under a key of its own, and a *head* says how many
there are. To report one more instance writes one shard.

The head is written last: where there is none, the store holds nothing, whatever a crash has left in it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.bpm.places import ENTRY_KEY_LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from airflow_provider_astrobpm.bpm.places import Places

FULL = 4000  # marks of a shard, in the mean: 40 KB
VERSION = 1


def name_of(connection: str, places: Places) -> str:
    """Return the name of a watch in a store: watches of different things never share one."""
    watched = [connection, places.bpm_name, places.states, places.bp_statuses]
    return f"astro_bpm.{hashlib.sha256(json.dumps(watched).encode()).hexdigest()[:16]}"


def keys(name: str, head: object) -> list[str] | None:
    """Return the keys of the shards.

    :param name: the name of the watch, which is also the key of the head.
    :param head: the head.
    :returns: ``None`` where there is no head, or none that this version has written.
    """
    if (
        not isinstance(head, dict)
        or head.get("version") != VERSION
        or not isinstance(head.get("shards"), int)
    ):
        return None
    return _keys(name, head["shards"])


def marks_in(shards: Iterable[object]) -> set[str]:
    """Return the marks that shards hold."""
    texts = [shard for shard in shards if isinstance(shard, str)]
    return {text[at : at + ENTRY_KEY_LENGTH] for text in texts for at in range(0, len(text), ENTRY_KEY_LENGTH)}


def changes(name: str, marks: AbstractSet[str], stored: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what to write, in this order, so that a store holds these marks: a key and its value, ``None`` for delete it.

    :param name: the name of the watch.
    :param marks: the marks.
    :param stored: what the store holds.
    """
    count = len(keys(name, stored.get(name)) or [name])
    while len(marks) > count * FULL:
        count *= 2
    shards: dict[str, list[str]] = {key: [] for key in _keys(name, count)}
    names = [*shards]
    for mark in sorted(marks):
        shards[names[_number(mark, count)]].append(mark)
    wanted: dict[str, Any] = {key: "".join(shard) for key, shard in shards.items()}
    wanted[name] = {"version": VERSION, "shards": count}
    yield from ((key, value) for key, value in wanted.items() if stored.get(key) != value)
    yield from ((key, None) for key in stored if key not in wanted)


def _keys(name: str, count: int) -> list[str]:
    return [f"{name}.{count}.{number}" for number in range(count)]


def _number(mark: str, count: int) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(mark[2:]), "big") % count
