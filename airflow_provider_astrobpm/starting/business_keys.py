"""Builds and reads the business keys of a task. By its key, an instance is recognised as started by this task.

A key ends in the task's *generation*, the number of the first try since the task was last cleared. All generations of
a task share the part before it::

    orders.approve.scheduled__2026-11-24T0-zld2ojgxmkbhmtqy-1
    readable, cut off                      hash             generation

A retry keeps the key, so it finds the instance that an earlier try started. If that instance has failed, the retry starts
another one and numbers its key: ``…-1.2``. Astro Zero may refuse a key that is in use (undocumented).

Each iteration of a task loop has its own key: ``orders.review.approve.loop1…``. Its region is part of the hash.

Each launch of a batch has its own key below that of the task: ``…-1-815-k3xq``. 815 is the launch's place in the batch.
The four characters show whether the same launch still has this place.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from uuid import UUID

from airflow_provider_astrobpm.client.key_form import SHORTEST_CUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

IfOpenInstanceExists = Literal["start", "adopt", "fail"]
IF_OPEN_INSTANCE_EXISTS: tuple[IfOpenInstanceExists, ...] = ("start", "adopt", "fail")
"""What to do if an open instance has a business key that the author chose and that others may use."""

MAX_KEY_LENGTH = 64
MAX_TITLE_LENGTH = 128
_HASH = 16  # characters of five bits each, so a collision of two tasks is out of the question
_SUFFIX = 8  # characters reserved for the generation and the launch
_BATCH_SUFFIX = 20  # the same for a launch of a batch
_NUMBER = r"\d{1,9}"  # a generation, a launch or a start; Python refuses to read a number of any length


class BatchKey(NamedTuple):
    """The parts of the business key of a launch in a batch.

    :param generation: the number of the first try since the task was last cleared.
    :param number: the launch's place in the batch, from 1.
    :param digest: four characters that identify the launch.
    :param start_number: which start of this launch it is; more than 1 only after an instance of it has failed.
    """

    generation: int
    number: int
    digest: str
    start_number: int = 1


class Region(NamedTuple):
    """Where a mapped or looped task instance runs (Airflow 3.4).

    The iterations of a loop have the same DAG, run, task id and map index. Only the region differs.

    :param id: Airflow's id of the region. A clear may run later iterations of a loop again in another region.
    :param place: the place in the region: the iteration, or the map index of a mapped task.
    """

    id: str
    place: int

    @classmethod
    def of(cls, task_instance: Any) -> Self | None:
        """Return the region of a task instance, or ``None`` if it has none."""
        region, index = (getattr(task_instance, name, None) for name in ("region_id", "region_index"))
        if region is None or index is None or not UUID(str(region)).int:
            return None
        return cls(str(region), index)


def region_of(task_instance: Any, context: Mapping[str, Any]) -> Region | None:
    """Return the region of a looped task, or ``None`` outside of loops and before Airflow 3.4.

    Every mapped task has a region, in a loop or not. Outside of a loop its map index identifies the task, and a clear may give
    it another region, so the region is ignored there.
    """
    region = Region.of(task_instance)
    if region is None or context.get("loop") is not None:
        return region
    if task_instance.map_index is None or task_instance.map_index < 0:
        return region
    # The context of a callback may lack the loop, so search the task groups around the task.
    group = getattr(getattr(task_instance, "task", None), "task_group", None)
    while group is not None and not hasattr(group, "max_iterations"):
        group = group.parent_group
    return None if group is None else region


def key_prefix(words: str, identity: Sequence[object], *, suffix: int) -> str:
    """Return the beginning of a business key: as many of the words as fit, and a hash of the identity.

    :param suffix: characters reserved for the end of the key.
    """
    readable = re.sub(r"[^A-Za-z0-9_.-]", "_", words)
    digest = base64.b32encode(hashlib.sha256(json.dumps(identity).encode()).digest()).decode().lower()[:_HASH]
    return f"{readable[: MAX_KEY_LENGTH - _HASH - suffix - 2]}-{digest}-"


def title(words: str, more: str, run_id: str) -> str:
    """Return a title in which long words are cut off, and ``more`` never, because the length limit of titles is undocumented."""
    end = f"{more} (run {_cut(run_id, MAX_TITLE_LENGTH // 2)})"
    return f"{_cut(words, MAX_TITLE_LENGTH - len(end))}{end}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def task_label(task_id: str, map_index: int, region: Region | None) -> str:
    """Return the readable name of a task instance within a business key: ``approve``, ``approve.3``, ``approve.loop1``."""
    if map_index >= 0:
        return f"{task_id}.{map_index}"
    return task_id if region is None else f"{task_id}.loop{region.place}"


@dataclass(frozen=True)
class TaskIdentity:
    """Identifies a task within its DAG run, across all of its tries.

    :param map_index: the index of a mapped task; -1 for one that is not mapped.
    :param region: where a task of a loop runs; ``None`` outside of loops.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    region: Region | None = None

    @cached_property
    def prefix(self) -> str:
        """The beginning of all keys of this task, and of no other task."""
        return self._prefix(_SUFFIX)

    @cached_property
    def batch_prefix(self) -> str:
        """The beginning of all keys of this task's batch, and of no other task."""
        return self._prefix(_BATCH_SUFFIX)

    def _prefix(self, suffix: int) -> str:
        words = f"{self.dag_id}.{task_label(self.task_id, self.map_index, self.region)}.{self.run_id}"
        identity = [self.dag_id, self.run_id, self.task_id, self.map_index, *(self.region or ())]
        return key_prefix(words, identity, suffix=suffix)

    def key(self, generation: int, launch: int = 1) -> str:
        """Return a business key, at most 64 characters, of the first or a later start of a generation."""
        return f"{self.prefix}{generation}" + (f".{launch}" if launch > 1 else "")

    def title(self, number: int | None = None) -> str:
        """Return a title for people's to-do lists, at most 128 characters: ``orders.approve (run scheduled__2026-11-24)``.

        :param number: the place of the launch, if it belongs to a batch.
        """
        task = task_label(self.task_id, self.map_index, self.region)
        return title(f"{self.dag_id}.{task}", "" if number is None else f" #{number}", self.run_id)

    def read(self, key: str | None) -> tuple[int, int] | None:
        """Return the generation and the launch number in a business key, or ``None`` if the key is not this task's.

        The key is recognised even with a different case, with padding, or behind a prefix.
        """
        numbers = self._numbers_in(key, self.prefix, rf"(-?{_NUMBER})(?:\.({_NUMBER}))?")
        return (int(numbers[1]), int(numbers[2] or 1)) if numbers else None

    def resembles(self, key: str | None) -> bool:
        """Return whether an unreadable business key may be one of this task's keys, cut off."""
        return _resembles(key, self.prefix)

    def batch_key(self, key: BatchKey) -> str:
        """Return the business key of a launch in a batch, at most 64 characters."""
        again = f".{key.start_number}" if key.start_number > 1 else ""
        return f"{self.batch_prefix}{key.generation}-{key.number}-{key.digest}{again}"

    def read_batch(self, key: str | None) -> BatchKey | None:
        """Return the parts of a business key, or ``None`` if it is not of a launch in this task's batch, as ``read`` does."""
        parts = self._numbers_in(
            key, self.batch_prefix, rf"(-?{_NUMBER})-({_NUMBER})-([a-z2-7]{{4}})(?:\.({_NUMBER}))?"
        )
        return BatchKey(int(parts[1]), int(parts[2]), parts[3].lower(), int(parts[4] or 1)) if parts else None

    def resembles_batch(self, key: str | None) -> bool:
        """Return whether an unreadable business key may be one of this task's batch, cut off."""
        return _resembles(key, self.batch_prefix)

    @staticmethod
    def _numbers_in(key: str | None, prefix: str, numbers: str) -> re.Match[str] | None:
        if key is None or len(key) < len(prefix):
            return None
        core = key.strip()
        if core.startswith(prefix):
            return re.fullmatch(numbers, core[len(prefix) :], re.ASCII)
        return re.search(f"{re.escape(prefix)}{numbers}$", core, re.ASCII | re.IGNORECASE)


def _resembles(key: str | None, prefix: str) -> bool:
    """Return whether a key ends within the prefix or begins with it, ignoring case and a prefix added by the server."""
    folded, whole = (key or "").strip().lower(), prefix.lower()
    places = (at for at in range(len(folded)) if folded.startswith(whole[:SHORTEST_CUT], at))
    return any(whole.startswith(folded[at:]) or folded.startswith(whole, at) for at in places)
