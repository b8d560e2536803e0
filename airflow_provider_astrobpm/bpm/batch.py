"""Many starts from one task: what a try does with what earlier ones have started, launch by launch. No I/O.

The tries of a batch know each other's work by the business keys of the launches and by a ``BatchRecord``. A clear begins
a new generation. After a try that has failed, the new one goes on with the batch, and what an older generation has
started counts as its own; after anything else it begins anew. What carries a launch's key decides, in this order:

| found                                                               | then                                    |
|---------------------------------------------------------------------|-----------------------------------------|
| another launch of this generation in its place                      | refuse: the input has changed           |
| an open instance of this generation                                 | go on with it                           |
| one of this generation that has come to its good end                | go on with it: it is a result           |
| the same of an older generation that this one goes on with          | go on with it                           |
| an open one of any older generation, where no kill touches them     | go on with it: people may be at work    |
| nothing, and yet there may be one                                   | refuse: nobody can tell                 |
| nothing, or nothing but what has come to a bad end                  | start it                                |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from airflow_provider_astrobpm.bpm import adoption, search
from airflow_provider_astrobpm.bpm.errors import AmbiguousStartError, BatchChangedError
from airflow_provider_astrobpm.bpm.identity import BatchKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.bpm.identity import TaskIdentity
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.launches import Launch
    from airflow_provider_astrobpm.bpm.search import Carriers


class BatchRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the tries of a batch tell each other."""

    generation: int
    """The number of the first try since the task was last cleared, as the writer had it."""
    begun_at: float | None = None
    """When the first start of this generation was about to be sent, in seconds since the epoch; ``None`` if none was."""
    answered_at: float | None = None
    """When no start was under way any more; ``None`` where a process may have died over some."""
    strangers: tuple[str, ...] | None = None
    """The ids that carried the authors' own keys before the first start; ``None`` where nobody looked."""
    deadline: float | None = None
    """When the wait fails, in seconds since the epoch."""
    unfinished: bool = False
    """Whether the last try has failed, so that a clear goes on with the batch."""
    told: bool = False
    """Whether a person was asked to look for instances before clearing the task."""
    goes_on_from: int | None = None
    """The oldest generation that this one goes on with, if it goes on with one."""


@dataclass(frozen=True, kw_only=True)
class BatchOrder:
    """A batch that is to be started, for which try of which task.

    :param identity: the task.
    :param generation: the number of the first try since the task was last cleared.
    :param try_number: the number of this try.
    :param has_memory: whether records outlive a try.
    :param keeps_open: whether an open instance of an older generation is adopted whoever left it open.
    :param accepts: tells whether an instance that has ended is what the task is to bring about.
    :param own_keys: the authors' own business keys in the batch.
    :param timeout: seconds for the wait, which begins when everything was started.
    :param grace: seconds after which an instance that was started certainly shows in the lists.
    :param since: when the first try of the task began at the earliest, in seconds since the epoch, if that is known.
    """

    identity: TaskIdentity
    generation: int
    try_number: int
    has_memory: bool = True
    keeps_open: bool = False
    accepts: Callable[[BpmInstance], bool]
    own_keys: frozenset[str] = frozenset()
    timeout: float | None = None
    grace: float = 60
    since: float | None = None

    def wants(self, instance: BpmInstance) -> bool:
        """Tell whether an instance carries a key that this batch is about."""
        key = instance.business_key
        return key in self.own_keys or self.identity.read_batch(key) is not None

    def own(self, record: BatchRecord | None) -> BatchRecord | None:
        """Return a record if it is of this generation."""
        return record if record is not None and record.generation == self.generation else None

    def oldest(self, record: BatchRecord | None) -> int:
        """Return the oldest generation whose instances are this one's too."""
        if record is None or not (record.unfinished or self.own(record)):
            return self.generation
        return record.generation if record.goes_on_from is None else record.goes_on_from


def seconds_to_look(order: BatchOrder, record: BatchRecord | None, now: float) -> float | None:
    """Return after how many seconds to look for what was started before; ``None`` where nothing can have been.

    :param record: what earlier tries have written down, if they did.
    :param now: the time, in seconds since the epoch.
    """
    if record is None:
        if order.try_number <= 1:
            return 0.0 if order.own_keys else None
        return 0.0 if order.has_memory else order.grace
    if record.begun_at is None:
        return 0.0
    # Where a process died over its starts nobody knows when the last of them was taken.
    since = now if record.answered_at is None else record.answered_at
    return min(order.grace, max(0.0, since + order.grace - now))


def asked(order: BatchOrder, record: BatchRecord | None) -> BatchRecord:
    """Return what is written down when a person was asked to look: for this generation, so that only a clear answers."""
    if record is None:
        return BatchRecord(generation=order.generation, told=True)
    goes_on = order.own(record) is not None or record.unfinished
    return msgspec.structs.replace(
        record,
        generation=order.generation,
        told=True,
        strangers=record.strangers if goes_on else None,
        goes_on_from=older_than(order, record),
    )


def older_than(order: BatchOrder, record: BatchRecord | None) -> int | None:
    """Return the oldest generation that this one goes on with, if it goes on with an older one."""
    oldest = order.oldest(record)
    return oldest if oldest < order.generation else None


class Start(NamedTuple):
    """Start a launch.

    :param key: the business key that it is to carry.
    """

    launch: Launch
    key: str


class GoOn(NamedTuple):
    """Go on with what was started for a launch."""

    launch: Launch
    instance: BpmInstance


class _Before(NamedTuple):
    """What was started for a launch before."""

    own: list[BpmInstance]
    """By this generation."""
    older: list[BpmInstance]
    """By older ones, as far as this one may go on with it."""


class Ledger:
    """What earlier tries have started of a batch.

    :param order: the batch.
    :param record: what earlier tries have written down, if they did.
    :param carriers: what carries a key of the batch; ``None`` where nobody needed to look.
    :raises AmbiguousStartError: if others carry the authors' own keys, and nobody knows which of them are others.
    """

    def __init__(
        self, order: BatchOrder, record: BatchRecord | None = None, carriers: Carriers | None = None
    ) -> None:
        self._order = order
        self._carriers = carriers
        self._oldest = order.oldest(record)
        own_record = order.own(record)
        self._since = own_record.begun_at if own_record and own_record.begun_at else order.since
        # A person was asked to look, and has cleared the task.
        self._answered = record is not None and own_record is None and record.told
        self._own: dict[int, list[tuple[BatchKey, BpmInstance]]] = {}
        self._older: dict[tuple[int, str], list[BpmInstance]] = {}
        self._keyed: dict[str, _Before] = {}
        self._still_open: list[BpmInstance] = []
        self._taken: set[str] = set()
        self._decided: set[int] = set()
        self.strangers: tuple[str, ...] = ()
        """The ids that carry the authors' own keys, and that this batch has not started."""
        keyed = []
        for instance in carriers.instances.values() if carriers else ():
            key = order.identity.read_batch(instance.business_key)
            if key is None:
                keyed.append(instance)
            elif key.generation != order.generation:
                if self._may_go_on(instance, key.generation):
                    self._older.setdefault((key.number, key.digest), []).append(instance)
            elif not self._is_of_an_old_run(instance, own_record):
                self._own.setdefault(key.number, []).append((key, instance))
        self._sort_keyed(keyed, record)

    def _may_go_on(self, instance: BpmInstance, generation: int) -> bool:
        """Tell whether an instance of an older generation may be gone on with, and note it if it is open."""
        if not instance.is_closed:
            self._still_open.append(instance)
        return generation >= self._oldest or (self._order.keeps_open and not instance.is_closed)

    @staticmethod
    def _is_of_an_old_run(instance: BpmInstance, record: BatchRecord | None) -> bool:
        """Tell whether it was started by a run that was deleted and made again with the same keys."""
        began = record.begun_at if record else None
        return began is not None and search.started_long_before(instance, began)

    def _sort_keyed(self, keyed: list[BpmInstance], record: BatchRecord | None) -> None:
        """Tell which carriers of the authors' own keys this batch has started."""
        order = self._order
        known = record.strangers if record else None
        tried_before = order.own(record) is not None or (
            record is None and not order.has_memory and order.try_number > order.generation
        )
        if tried_before and known is None and keyed:
            raise AmbiguousStartError(
                "whether an earlier try started some of these cannot be told, for others may use their keys: "
                f"{adoption.listed(keyed)}",
                keyed[0].business_key,
            )
        strangers = []
        for instance in keyed:
            before = self._keyed.setdefault(str(instance.business_key), _Before([], []))
            if known is None or instance.id in known:
                strangers.append(instance.id)
            elif tried_before:
                before.own.append(instance)
            elif record is not None and self._may_go_on(instance, record.generation):
                before.older.append(instance)
            else:
                strangers.append(instance.id)
        self.strangers = tuple(strangers)
        if len(strangers) > adoption.MOST_STRANGERS:
            raise adoption.too_many_carriers(len(strangers), str(keyed[0].business_key))

    def decide(self, launch: Launch) -> Start | GoOn:
        """Decide what becomes of a launch, by the table above.

        :raises BatchChangedError: if another launch was started in its place.
        :raises AmbiguousStartError: if nobody can tell whether it was started, or which instance is its own.
        """
        key, (mine, older) = self._started_before(launch)
        if misnamed := [one for one in mine if one.name != launch.bpm_name]:
            raise AmbiguousStartError(
                f"{misnamed[0]} carries the business key of launch {launch.number}, but is none of {launch.bpm_name!r}",
                key,
            )
        if found := self._what_counts(mine) or self._what_counts(older):
            if len(found) > 1:
                raise AmbiguousStartError(
                    f"which one is that of launch {launch.number} cannot be told of {adoption.listed(found)}",
                    key,
                )
            self._taken.add(found[0].id)
            return GoOn(launch, found[0])
        doubt = self._carriers.doubt(launch.bpm_name, self._since) if self._carriers and not mine else None
        if doubt and not self._answered:
            raise AmbiguousStartError(
                f"whether an earlier try started launch {launch.number} cannot be told: {doubt}", key
            )
        return Start(launch, key)

    def superseded(self) -> list[BpmInstance]:
        """Return the open instances of older generations that nobody goes on with; to be asked after all decisions."""
        return [one for one in self._still_open if one.id not in self._taken]

    def check_all_seen(self) -> None:
        """Check, after all decisions, that no launch is missing that an earlier try started.

        :raises BatchChangedError: if one is.
        """
        for number, found in self._own.items():
            if number not in self._decided:
                raise BatchChangedError(number, found[0][1])

    def _what_counts(self, instances: list[BpmInstance]) -> list[BpmInstance]:
        """Return those that are open, or the newest of those that have come to their good end."""
        still_open = [one for one in instances if not one.is_closed]
        good = [one for one in instances if one.is_closed and self._order.accepts(one)]
        return still_open or sorted(good, key=lambda one: one.start_time or "")[-1:]

    def _started_before(self, launch: Launch) -> tuple[str, _Before]:
        """Return the key that a start would have, and what was started before."""
        self._decided.add(launch.number)
        if (key := launch.business_key) is not None:
            before = self._keyed.get(key, _Before([], []))
            return key, _Before(*([one for one in each if one.name == launch.bpm_name] for each in before))
        found = self._own.get(launch.number, [])
        for other, instance in found:
            if other.digest != launch.digest:
                raise BatchChangedError(launch.number, instance)
        last = max((other.launch for other, _ in found), default=0)
        key = self._order.identity.batch_key(
            BatchKey(self._order.generation, launch.number, launch.digest, last + 1)
        )
        return key, _Before([one for _, one in found], self._older.get((launch.number, launch.digest), []))
