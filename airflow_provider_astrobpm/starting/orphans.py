"""Decides which open instances are orphans: those that a task of this Airflow has started, and for which no task waits. No I/O.

An orphan may be terminated, so an instance counts as one only if everything is certain. The first row that applies decides:

| the instance                                                                  | verdict            |
|-------------------------------------------------------------------------------|--------------------|
| is not in a state of an open instance                                         | not open           |
| has a business key that is not of one task that Airflow's database has        | another's key      |
| is of a task that has succeeded                                               | task has succeeded |
| is of a task in any state but failed, upstream_failed, skipped or removed     | task may continue  |
| is of a DAG run that has not ended                                            | run continues      |
| is not named by what its task has recorded                                    | not recorded       |
| is of a task that has changed within the last ten minutes, or unknown when    | task just ended    |
| is awaited by a task, by its id or its business key                           | awaited            |
| is anything else, while a task waits for an instance that is unknown          | perhaps awaited    |
| is anything else                                                              | orphan             |

The key alone proves nothing: another Airflow with the same DAGs gives its instances the same keys. What a task has recorded is in
Airflow's database, so it shows that this Airflow has started the instance. A task that succeeds may leave its instance open on
purpose. A start that is under way belongs to a task that is running, so it is never an orphan. While a run continues, a later task
of it may still wait for the instance, or steer it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.client import states
from airflow_provider_astrobpm.client.key_form import KeyForms

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.starting.business_keys import TaskIdentity

SETTLE_SECONDS = 600.0
"""How long the task of an orphan has not changed. Until then a trigger or a worker may still terminate the instance."""

ENDED_WITHOUT_SUCCESS = frozenset({"failed", "upstream_failed", "skipped", "removed"})
"""The states of tasks that have ended without having succeeded."""

_GENERATED_KEY = re.compile(
    r"(?P<words>.*)-[a-z2-7]{16}-(?=-?\d+(\.\d+|-\d+-[a-z2-7]{4}(\.\d+)?)?$)", re.ASCII | re.IGNORECASE
)


class OrphanVerdict(Enum):
    """Why an open instance is not an orphan, or ``None`` if it is one."""

    ORPHAN = None
    NOT_OPEN = "not open"
    OTHER_KEY = "started by no task that this Airflow knows"
    SUCCEEDED = "started by a task that has succeeded"
    TASK_CONTINUES = "started by a task that may continue"
    RUN_CONTINUES = "started in a DAG run that has not ended"
    NOT_RECORDED = "not recorded as started by this Airflow"
    JUST_ENDED = f"started by a task that has changed within the last {SETTLE_SECONDS / 60:.0f} minutes"
    AWAITED = "awaited by another task"
    PERHAPS_AWAITED = "perhaps awaited by a task of which it is unknown what it waits for"


class StartingTask(NamedTuple):
    """What Airflow's database has about a task that may have started an instance."""

    identity: TaskIdentity
    state: str | None
    """The state of the task instance; ``None`` if it has none, for instance after a clear."""
    run_has_ended: bool
    """Whether its DAG run has ended."""
    changed_at: float | None = None
    """When the task instance changed last, in seconds since the epoch; ``None`` if unknown."""
    recorded_ids: frozenset[str] = frozenset()
    """The ids of the instances that the task has recorded."""

    def has_key(self, business_key: str | None) -> bool:
        """Return whether a business key is one of this task's."""
        return self.identity.read(business_key) is not None or (
            self.identity.read_batch(business_key) is not None
        )


@dataclass(frozen=True)
class Awaited:
    """What the waiting tasks of this Airflow wait for.

    :param ids: the ids of the instances.
    :param keys: the business keys of the instances of which only those are known.
    :param is_complete: whether it is known of each waiting task what it waits for.
    """

    ids: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    is_complete: bool = True

    def includes(self, instance: BpmInstance) -> bool:
        """Return whether a task waits for an instance, or may wait for it by a key that the server has changed."""
        key = instance.business_key
        return instance.id in self.ids or self._forms.sent(key) is not None or self._forms.resembles(key)

    @cached_property
    def _forms(self) -> KeyForms:
        return KeyForms(self.keys)


def judge_instance(
    instance: BpmInstance, tasks: Sequence[StartingTask], awaited: Awaited, now: float
) -> OrphanVerdict:
    """Return whether an instance is an orphan, by the table above.

    :param instance: the instance, as a list has just shown it.
    :param tasks: the tasks in Airflow's database that have its business key.
    :param awaited: what the waiting tasks wait for.
    :param now: the time, in seconds since the epoch.
    """
    if instance.is_closed or instance.state not in states.OPEN_STATES:
        return OrphanVerdict.NOT_OPEN
    if len(tasks) != 1 or not tasks[0].has_key(instance.business_key):
        return OrphanVerdict.OTHER_KEY
    (task,) = tasks
    settled = task.changed_at is not None and now - task.changed_at >= SETTLE_SECONDS
    rows = (
        (task.state == "success", OrphanVerdict.SUCCEEDED),
        (task.state not in ENDED_WITHOUT_SUCCESS, OrphanVerdict.TASK_CONTINUES),
        (not task.run_has_ended, OrphanVerdict.RUN_CONTINUES),
        (instance.id not in task.recorded_ids, OrphanVerdict.NOT_RECORDED),
        (not settled, OrphanVerdict.JUST_ENDED),
        (awaited.includes(instance), OrphanVerdict.AWAITED),
        (not awaited.is_complete, OrphanVerdict.PERHAPS_AWAITED),
    )
    return next((verdict for applies, verdict in rows if applies), OrphanVerdict.ORPHAN)


class Orphan(NamedTuple):
    """An orphan, and the task that has started it."""

    instance: BpmInstance
    task: StartingTask


@dataclass
class OrphanSearch:
    """The orphans among some instances.

    :param orphans: the orphans.
    :param others: how many other instances have a generated key, by the reason why they are no orphans.
    """

    orphans: list[Orphan] = field(default_factory=list)
    others: Counter[OrphanVerdict] = field(default_factory=Counter)

    @property
    def note(self) -> str | None:
        """How many instances are no orphans, and why; ``None`` if there are none."""
        if not self.others:
            return None
        reasons = ", ".join(f"{count} {verdict.value}" for verdict, count in self.others.items())
        total = sum(self.others.values())
        return (
            f"{total} other open instance{'' if total == 1 else 's'} with such a key left alone: {reasons}."
        )


def find_orphans(
    instances: Iterable[BpmInstance],
    tasks: Mapping[str, Sequence[StartingTask]],
    awaited: Awaited,
    now: float,
) -> OrphanSearch:
    """Return the orphans among some instances.

    :param instances: the instances.
    :param tasks: the tasks that have each key, by ``key_beginning`` of the key.
    :param awaited: what the waiting tasks wait for.
    :param now: the time, in seconds since the epoch.
    """
    search = OrphanSearch()
    for instance in instances:
        beginning = key_beginning(instance.business_key)
        if beginning is None:
            continue
        candidates = tasks.get(beginning, ())
        verdict = judge_instance(instance, candidates, awaited, now)
        if verdict is OrphanVerdict.ORPHAN:
            search.orphans.append(Orphan(instance, candidates[0]))
        else:
            search.others[verdict] += 1
    return search


def key_beginning(business_key: str | None) -> str | None:
    """Return the part of a generated business key that identifies its task, in lower case, or ``None`` for any other key."""
    match = _GENERATED_KEY.match((business_key or "").strip())
    return match[0].lower() if match else None


def may_be_of(beginning: str, dag_id: str, task_id: str) -> bool:
    """Return whether a key with this beginning may be of a task, by its readable words alone.

    :param beginning: the beginning, as ``key_beginning`` returns it.
    """
    match = _GENERATED_KEY.match(f"{beginning}1")
    if match is None:
        return False
    words, shown = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{dag_id}.{task_id}").lower(), match["words"]
    return words.startswith(shown) or shown.startswith(f"{words}.")


def beginnings_of(identities: Collection[TaskIdentity]) -> dict[str, TaskIdentity]:
    """Return the beginnings of all keys of a task that may have several identities, each with its identity."""
    return {
        prefix.lower(): identity
        for identity in identities
        for prefix in (identity.prefix, identity.batch_prefix)
    }
