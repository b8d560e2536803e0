"""What a try does before it starts anything: adopt what an earlier try has started, start, or refuse. No I/O.

The tries of a task know each other's work by a ``Record``, where Airflow keeps one for them, and by the business key.
What is found decides, in this order:

| found                                                            | then                                     |
|------------------------------------------------------------------|------------------------------------------|
| an open instance of this generation                              | adopt it: go on with it                  |
| one of this generation that has come to its good end             | adopt it: its end is the task's result   |
| an open one of an older generation that was left open on purpose | adopt it: people may be at work in it    |
| an open one that somebody else started with the author's key     | as ``if_open_instance_exists`` says      |
| nothing, and yet there may be one                                | refuse: nobody can tell                  |
| nothing but what has come to a bad end, or is to be terminated   | terminate what is open, and start        |

A generation ends when a person clears the task.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from airflow_provider_astrobpm.bpm import search
from airflow_provider_astrobpm.bpm.errors import AmbiguousStartError, OpenInstanceExistsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_astrobpm.bpm.api import Operation
    from airflow_provider_astrobpm.bpm.identity import IfOpenInstanceExists, TaskIdentity
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.search import Carriers

MOST_STRANGERS = 1000  # ids that a record holds; Airflow bounds its length


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the tries of a task tell each other."""

    generation: int
    """The number of the first try since the task was last cleared, as the writer had it."""
    launch: int = 1
    """Which start of the generation was the last."""
    posted_at: float | None = None
    """When the start was about to be sent, in seconds since the epoch, and once its instance is known, when it had been
    answered; ``None`` if none was sent, or if it certainly came to nothing."""
    instance_id: str | None = None
    """The instance that was started or adopted, once that is known."""
    strangers: tuple[str, ...] | None = None
    """The ids that carried the author's key before the start; ``None`` where nobody looked."""
    deadline: float | None = None
    """When the wait fails, in seconds since the epoch."""
    left_open: bool = False
    """Whether the wait failed and left its instance open, so that it can go on."""
    told: bool = False
    """Whether a person was asked to look for the instance before clearing the task."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be started, for which try of which task.

    :param start: the operation that starts it, with a business key.
    :param bpm_name: the BPM's name.
    :param identity: the task.
    :param generation: the number of the first try since the task was last cleared.
    :param try_number: the number of this try.
    :param business_key: the author's own key, which others may use too; without one it is the task's.
    :param if_open_instance_exists: what to do where an open instance carries the author's key.
    :param has_memory: whether records outlive a try.
    :param keeps_open: whether an open instance of an older generation is adopted whoever left it open.
    :param accepts: tells whether an instance that has ended is what the task is to bring about.
    :param timeout: seconds for the wait, which begins with the start.
    :param grace: seconds after which an instance that was started certainly shows in the lists.
    :param since: when the first try of the task began at the earliest, in seconds since the epoch, if that is known.
    """

    start: Callable[[str], Operation[BpmInstance]]
    bpm_name: str
    identity: TaskIdentity
    generation: int
    try_number: int
    business_key: str | None = None
    if_open_instance_exists: IfOpenInstanceExists = "start"
    has_memory: bool = True
    keeps_open: bool = False
    accepts: Callable[[BpmInstance], bool]
    timeout: float | None = None
    grace: float = 60
    since: float | None = None

    def key(self, launch: int = 1) -> str:
        """Return the business key of a start."""
        return self.business_key or self.identity.key(self.generation, launch)

    def wants(self, instance: BpmInstance) -> bool:
        """Tell whether an instance carries a key that this order is about."""
        if self.business_key is None:
            return self.identity.read(instance.business_key) is not None
        return instance.business_key == self.business_key and instance.name == self.bpm_name

    def own(self, record: Record | None) -> Record | None:
        """Return a record if it is of this generation."""
        return record if record is not None and record.generation == self.generation else None


class Look(Enum):
    """How a try looks for what earlier ones may have started."""

    NONE = "not at all"
    ID = "by its id"
    KEY = "by its business key"


class Found(NamedTuple):
    """What a try has found."""

    own: tuple[BpmInstance, ...] = ()
    """Instances of this generation, open and ended."""
    older: tuple[BpmInstance, ...] = ()
    """Open instances of older generations."""
    others: tuple[BpmInstance, ...] = ()
    """Open instances that carry the author's key and were started by somebody else."""
    doubt: str | None = None
    """Why an instance of this generation may exist that was not found."""
    carriers: tuple[str, ...] = ()
    """The ids of all that carry the author's key."""


@dataclass(frozen=True)
class Adopt:
    """Go on with an instance that is there."""

    instance: BpmInstance
    why: str


@dataclass(frozen=True)
class Start:
    """Start an instance.

    :param key: its business key.
    :param launch: which start of this generation it is.
    :param terminate: open instances to terminate before.
    :param strangers: the ids that carry the author's key already; ``None`` where nobody looked.
    :param warning: what a person should know.
    """

    key: str
    launch: int = 1
    terminate: tuple[BpmInstance, ...] = ()
    strangers: tuple[str, ...] | None = None
    warning: str | None = None


@dataclass(frozen=True, eq=False)
class Refuse:
    """Fail, and start nothing.

    :param error: what to fail with.
    :param told: whether it asks a person to look for the instance before clearing the task.
    """

    error: AmbiguousStartError | OpenInstanceExistsError
    told: bool = True


Decision = Adopt | Start | Refuse


def way_to_look(order: Order, record: Record | None) -> Look:
    """Return how to look for what earlier tries may have started: not at all where they certainly started nothing."""
    own = order.own(record) is not None
    if order.business_key is not None and order.if_open_instance_exists != "start":
        return Look.KEY
    if record is None:
        first_of_generation = order.try_number <= order.generation
        # After a clear, "start" with the author's key means what it says.
        nothing = order.business_key is not None and (order.has_memory or first_of_generation)
        return Look.NONE if nothing or order.try_number <= 1 else Look.KEY
    if record.instance_id is not None:
        return Look.ID
    if order.business_key is not None and not own:
        return Look.NONE
    # Where a person was asked to look, something may be there though no record tells of a start.
    return Look.NONE if record.posted_at is None and not (own and record.told) else Look.KEY


def pause_before_look(order: Order, record: Record | None, now: float) -> float:
    """Return the seconds until that shows which an earlier try may have started in its last moment.

    :param now: the time, in seconds since the epoch.
    """
    if way_to_look(order, record) is not Look.KEY:
        return 0.0
    if record is None:
        return 0.0 if order.has_memory or order.try_number <= 1 else order.grace
    return until_it_shows(order, record, now)


def until_it_shows(order: Order, record: Record, now: float) -> float:
    """Return the seconds until an instance certainly shows whose start was written down; 0 where none was sent.

    Where it was not answered nobody knows when it was taken: a token, or throttling, may have held it up.
    """
    if record.posted_at is None:
        return 0.0
    if record.instance_id is None:
        return order.grace
    return min(order.grace, max(0.0, record.posted_at + order.grace - now))


def sort_out(order: Order, record: Record | None, carriers: Carriers) -> Found | Refuse:
    """Tell whose the instances are that carry the key."""
    everything = tuple(carriers.instances.values())
    own_record = order.own(record)
    doubt = carriers.doubt(order.bpm_name, own_record.posted_at if own_record else order.since)
    if order.business_key is None:
        # A run that was deleted and made again has the same keys as the old one.
        began = own_record.posted_at if own_record else None
        current = [one for one in everything if not (began and search.started_long_before(one, began))]
        numbers = {one.id: order.identity.read(one.business_key) or (0, 0) for one in current}
        mine = [one for one in current if one.name == order.bpm_name]
        own = tuple(one for one in mine if numbers[one.id][0] == order.generation)
        older = tuple(one for one in mine if one not in own and not one.is_closed)
        # A BPM that it calls may carry its key too; but alone that is strange.
        alike = [one for one in current if one not in mine and numbers[one.id][0] == order.generation]
        if alike and not own:
            doubt = f"its business key is carried by {alike[0]}, which is none of {order.bpm_name!r}"
        return Found(own, older, doubt=doubt)
    if order.if_open_instance_exists == "start":
        if everything:
            return Refuse(_whose(order.business_key, everything))
        return Found(doubt=doubt)
    ids = tuple(carriers.instances)
    strangers = own_record.strangers if own_record else None
    known = own_record.instance_id if own_record else None
    if known is not None and known not in ids:
        return Refuse(gone(known, order.business_key))
    own = tuple(
        one for one in everything if one.id == known or (strangers is not None and one.id not in strangers)
    )
    still_open = [one for one in everything if not one.is_closed and one not in own]
    older = tuple(one for one in still_open if record and one.id == record.instance_id)
    others = tuple(one for one in still_open if one not in older)
    return Found(own, older, others, doubt, ids)


def decide(order: Order, record: Record | None, found: Found) -> Decision:
    """Decide what a try does, by the table above."""
    key = order.key()
    if misnamed := [one for one in found.own if one.name != order.bpm_name]:
        return _refuse(
            f"{misnamed[0]} carries this task's business key, but is none of {order.bpm_name!r}", key
        )
    still_open = [one for one in found.own if not one.is_closed]
    good = [one for one in found.own if order.accepts(one)]
    if still_open or good:
        newest = max(good, key=lambda one: one.start_time or "", default=None)
        return _the_only(still_open or [one for one in [newest] if one], key, "an earlier try started it")
    left_open = order.keeps_open or (record is not None and order.own(record) is None and record.left_open)
    left = [one for one in found.older if left_open and one.name == order.bpm_name]
    if left:
        return _the_only(left, key, "it was left open when the task was cleared")
    if found.others and order.if_open_instance_exists == "fail":
        return Refuse(OpenInstanceExistsError(found.others[0]), told=False)
    if found.others and order.if_open_instance_exists == "adopt":
        return _the_only(found.others, key, "it carries the author's business key")
    return _start_or_refuse(order, record, found)


def _start_or_refuse(order: Order, record: Record | None, found: Found) -> Start | Refuse:
    own_record = order.own(record)
    last = own_record.launch if own_record else 1
    if found.doubt is None:
        warning = None
    elif record is not None and own_record is None and record.told:
        warning = f"{found.doubt}; starting anew all the same, because the task was cleared to that end"
    else:
        return _refuse(
            f"whether an earlier try started an instance cannot be told: {found.doubt}", order.key(last)
        )
    # What came to nothing may still come late: with the same key it would be known for what it is.
    launch = max([last, *_launches(order, found.own)]) + 1 if found.own else last
    looked = order.if_open_instance_exists != "start"
    if looked and len(found.carriers) > MOST_STRANGERS:
        return Refuse(too_many_carriers(len(found.carriers), order.key(launch)), told=False)
    return Start(order.key(launch), launch, found.older, found.carriers if looked else None, warning)


def _launches(order: Order, instances: Iterable[BpmInstance]) -> list[int]:
    read = [order.identity.read(one.business_key) for one in instances]
    return [numbers[1] for numbers in read if numbers]


def _the_only(instances: list[BpmInstance] | tuple[BpmInstance, ...], key: str, why: str) -> Adopt | Refuse:
    if len(instances) == 1:
        return Adopt(instances[0], why)
    return _refuse(f"which one to go on with cannot be told of {listed(instances)}", key)


def _whose(key: str, instances: tuple[BpmInstance, ...]) -> AmbiguousStartError:
    return AmbiguousStartError(
        f"whether an earlier try started one of these cannot be told, for others may use their key: {listed(instances)}",
        key,
        "Terminate what this task has started, if anything, then clear this task. If nobody else uses the key, set "
        'if_open_instance_exists="adopt": then a retry knows its instance by it.',
    )


def asked(order: Order, record: Record | None) -> Record:
    """Return what is written down when a person was asked to look: for this generation, so that only a clear answers."""
    if record is None:
        return Record(generation=order.generation, told=True)
    if order.own(record) is not None:
        return msgspec.structs.replace(record, told=True)
    return Record(
        generation=order.generation,
        posted_at=record.posted_at,
        instance_id=record.instance_id,
        left_open=record.left_open,
        told=True,
    )


def too_many_carriers(carriers: int, key: str) -> AmbiguousStartError:
    """Return the error for a business key of more instances than can be written down."""
    return AmbiguousStartError(
        f"{carriers} instances carry its business key, too many to know later which one this task has started",
        key,
        'Choose a business_key that fewer have, or if_open_instance_exists="start".',
    )


def gone(instance_id: str, key: str) -> AmbiguousStartError:
    """Return the error for an instance that this task goes on with, and that cannot be found any more."""
    return AmbiguousStartError(
        f"an earlier try started instance {instance_id!r}, which is in none of the states now",
        key,
        "Nothing was started again. Look for it in Astro Zero, and terminate it if it is still open; then clear this "
        "task, which starts a new one.",
    )


def _refuse(doubt: str, key: str) -> Refuse:
    return Refuse(AmbiguousStartError(doubt, key))


def listed(instances: Iterable[BpmInstance]) -> str:
    """Return the first of several instances in words."""
    shown = list(instances)
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return "; ".join(str(one) for one in shown[:5]) + more
