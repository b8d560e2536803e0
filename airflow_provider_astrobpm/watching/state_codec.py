"""Writes what a watch has reported into a store of small values, and reads it again.

A store such as Airflow's asset state store takes values of about 64 KB, too small for the entry keys of all instances that a
process may ever have. So the entry keys are spread over *shards*, each under its own key, and a *head* holds the number of
shards. Reporting one more instance writes one shard.

The head is written last. Without a head the store counts as empty, even if a crash has left shards in it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.watching.targets import ENTRY_KEY_LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from airflow_provider_astrobpm.watching.targets import WatchTargets

MAX_MEAN_SHARD_SIZE = 4000  # entry keys: 40 KB
MAX_SHARDS = 4096  # 16 million entry keys
STATE_VERSION = 1
_SHARD = re.compile(r"(?:[0-9a-f]{2}[A-Za-z0-9_-]{8})*")


def state_name(connection: str, targets: WatchTargets) -> str:
    """Return the name of a watch in a store. Watches with different targets or connections have different names."""
    watched = [connection, targets.bpm_name, targets.states, targets.bp_statuses]
    return f"astro_bpm.{hashlib.sha256(json.dumps(watched).encode()).hexdigest()[:16]}"


def shard_keys(name: str, head: object) -> list[str] | None:
    """Return the keys of all shards, or ``None`` if there is no head, or it was not written by this version.

    :param name: the name of the watch, which is also the key of the head.
    """
    match head:
        case {"version": version, "shards": int(count)} if (
            version == STATE_VERSION and count is not True and 0 < count <= MAX_SHARDS
        ):
            return _keys(name, count)
    return None


def decode_shards(shards: Iterable[object]) -> set[str] | None:
    """Return the entry keys in some shards, or ``None`` if one of them is lost or damaged."""
    texts = [shard if isinstance(shard, str) and _SHARD.fullmatch(shard) else None for shard in shards]
    if None in texts:
        return None
    return {
        text[at : at + ENTRY_KEY_LENGTH]
        for text in texts
        if text
        for at in range(0, len(text), ENTRY_KEY_LENGTH)
    }


def state_changes(
    name: str, entry_keys: AbstractSet[str], stored: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Yield the changes, in the order to write them, that make a store hold these entry keys instead of ``stored``.

    Each is a key and its value; ``None`` deletes the key.
    """
    known = shard_keys(name, stored.get(name))
    count = len(known or [name])
    while len(entry_keys) > count * MAX_MEAN_SHARD_SIZE:
        count *= 2
    shards: list[list[str]] = [[] for _ in range(count)]
    for entry_key in sorted(entry_keys):
        digest = base64.urlsafe_b64decode(entry_key[2:])
        shards[int.from_bytes(digest, "big") % count].append(entry_key)
    wanted: dict[str, Any] = dict(zip(_keys(name, count), map("".join, shards), strict=True))
    wanted[name] = {"version": STATE_VERSION, "shards": count}
    # A head that is not understood may equal the wanted one, because to Python 1.0 and True equal 1.
    yield from (
        (key, value)
        for key, value in wanted.items()
        if stored.get(key) != value or (key == name and known is None)
    )
    yield from ((key, None) for key in stored if key not in wanted)


def _keys(name: str, count: int) -> list[str]:
    return [f"{name}.{count}.{number}" for number in range(count)]
