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

A generation ends when a person clears the task. Where it is uncertain which one a try belongs to, because ``retries`` was
changed, every instance of the task counts as one of this generation, and nothing is terminated.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from airflow_provider_astrobpm.bpm.errors import AmbiguousStartError, OpenInstanceExistsError
from airflow_provider_astrobpm.bpm.key_form import KeyForms
from airflow_provider_astrobpm.bpm.key_search import KeyMatches
from airflow_provider_astrobpm.bpm.lost_start import listed
from airflow_provider_astrobpm.bpm.sameness import Known
from airflow_provider_astrobpm.bpm.timestamps import Placement
from airflow_provider_astrobpm.bpm.try_record import TryRecord, with_intent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_astrobpm.bpm.api import Operation
    from airflow_provider_astrobpm.bpm.identity import IfOpenInstanceExists, TaskIdentity
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.key_form import KeyForm

MOST_STRANGERS = 1000  # ids that a record holds; Airflow bounds its length


class Record(TryRecord, frozen=True, kw_only=True, omit_defaults=True):
    """What the tries of a task tell each other of its one instance."""

    launch: int = 1
    """Which start of the generation was the last; 0 where the instance is of an older one that was not adopted yet."""
    posted_at: float | None = None
    """When the start was about to be sent, in seconds since the epoch, and once its instance is known, when it had been
    answered; ``None`` if none was sent, or if the last one certainly never reached the server."""
    instance_id: str | None = None
    """The instance that was started or adopted, once that is known."""
    strangers: tuple[str, ...] | None = None
    """The ids that carried the author's key before the start; ``None`` where nobody looked."""
    deadline: float | None = None
    """When the wait fails, in seconds since the epoch."""
    left_open: bool = False
    """Whether the wait failed and left its instance open, so that it can go on."""


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
    :param keeps_open: whether an open instance of an older generation is adopted whoever left it open.
    :param accepts: tells whether an instance that has ended is what the task is to bring about.
    :param timeout: seconds for the wait, which begins with the start.
    :param grace: seconds after which an instance that was started certainly shows in the lists.
    :param since: when the first try of the task began at the earliest, in seconds since the epoch, if that is known.
    :param max_tries: Airflow's ``max_tries`` of the task, if that is known.
    :param generation_is_certain: whether the sources for the generation agree.
    """

    start: Callable[[str], Operation[BpmInstance]]
    bpm_name: str
    identity: TaskIdentity
    generation: int
    try_number: int
    business_key: str | None = None
    if_open_instance_exists: IfOpenInstanceExists = "start"
    keeps_open: bool = False
    accepts: Callable[[BpmInstance], bool]
    timeout: float | None = None
    grace: float = 60
    since: float | None = None
    max_tries: int | None = None
    generation_is_certain: bool = True

    def key(self, launch: int = 1) -> str:
        """Return the business key of a start."""
        return self.business_key or self.identity.key(self.generation, launch)

    def new_matches(self, form: KeyForm | None, clock: Callable[[], float]) -> KeyMatches:
        """Return what takes the rows of a search for the instances that this order is about.

        :param form: what the endpoint makes of business keys, where that is known.
        :param clock: the time, in seconds since the epoch.
        """
        if self.business_key is None:
            return KeyMatches(
                lambda one: self.identity.read(one.business_key) is not None,
                resembles=self.identity.resembles,
                clock=clock,
            )
        keys = KeyForms([self.business_key], form)
        return KeyMatches(
            lambda one: one.name == self.bpm_name and keys.sent(one.business_key) is not None,
            resembles=keys.resembles,
            clock=clock,
        )

    def known(self, record: Record) -> Known:
        """Return what is known of the instance of a record besides its id.

        :param record: a record that names an instance.
        """
        if self.business_key is not None:
            return Known()  # it may have been rendered otherwise for the try that started it
        key = self.identity.key(record.generation, record.launch)
        if record.key_example is None:
            return Known(business_key=key)
        sent, shown = record.key_example
        form = record.key_form
        return Known(business_key=shown if sent == key else form.shown(key) if form else None)

    def can_be(self, record: Record, instance: BpmInstance) -> bool:
        """Return whether an instance can be the one that a record names, by its business key.

        The record of an instance that was adopted is of a later generation than the instance's key.
        """
        if self.known(record).is_of(instance):
            return True
        key = instance.business_key
        return self.identity.read(key) is not None or self.identity.resembles(key)

    def own(self, record: Record | None) -> Record | None:
        """Return a record if it is of this generation."""
        return record if record is not None and record.generation == self.generation else None

    def matters(self, instance: BpmInstance) -> bool:
        """Return whether an instance is open or at its good end; after a bad end the task starts another one anyway."""
        return not instance.is_closed or self.accepts(instance)

    def has_sent_nothing(self, record: Record | None) -> bool:
        """Return whether certainly no try of this generation has sent a start, where no record of one is there."""
        if self.generation_is_certain and self.try_number <= self.generation:
            return True
        return record is not None and record.tells_of(self.generation)

    def may_have_sent(self, record: Record | None) -> bool:
        """Return whether a try of this generation may have sent a start."""
        own = self.own(record)
        # Where a person was asked to look, something may be there though no record tells of a start.
        if own is not None and (own.instance_id is not None or own.posted_at is not None or own.told):
            return True
        return not self.has_sent_nothing(record)


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


def way_to_look(order: Order, record: Record | None) -> Look:  # noqa: PLR0911 - a table in order
    """Return how to look for what earlier tries may have started: not at all where they certainly started nothing.

    :param record: what was there before this try wrote its intent.
    """
    is_authors = order.business_key is not None
    if is_authors and order.if_open_instance_exists != "start":
        return Look.KEY
    own = order.own(record)
    if own is not None and own.instance_id is not None:
        return Look.ID
    if order.may_have_sent(record):
        return Look.KEY
    # So there is nothing of this generation, but there may be something of an older one.
    if record is not None and record.instance_id is not None:
        return Look.ID
    if is_authors:
        return Look.NONE  # after a clear, "start" with the author's key means what it says
    if record is None or record.older_unknown:
        return Look.KEY if order.try_number > 1 else Look.NONE
    return Look.NONE if record.posted_at is None else Look.KEY


def pause_before_look(order: Order, record: Record | None, now: float) -> float:
    """Return the seconds until that shows which an earlier try may have started in its last moment.

    :param now: the time, in seconds since the epoch.
    """
    if way_to_look(order, record) is not Look.KEY or order.try_number <= 1:
        return 0.0
    if record is None or record.older_unknown or not (order.own(record) or order.has_sent_nothing(record)):
        return order.grace  # nothing tells when a start was sent
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


def is_enough(order: Order, record: Record | None, matches: KeyMatches) -> bool:
    """Return whether nothing that a search has not found yet can change the decision.

    Others may carry the same key: BPMs that an instance calls, and instances of older generations.
    """
    if not order.may_have_sent(record):
        found = matches.instances.values()
        return any(not one.is_closed and one.name == order.bpm_name for one in found)
    sorted_out = sort_out(order, record, matches)
    return isinstance(sorted_out, Refuse) or any(not one.is_closed for one in sorted_out.own)


def sort_out(order: Order, record: Record | None, matches: KeyMatches) -> Found | Refuse:
    """Tell whose the instances are that carry the key."""
    everything = tuple(matches.instances.values())
    own_record = order.own(record)
    began = own_record.posted_at if own_record else None
    doubt = matches.doubt(
        order.bpm_name,
        began if own_record else order.since,
        is_any_open_one_wanted=order.if_open_instance_exists != "start",
    )
    if order.business_key is None:
        current, unclear = _of_this_run(order, record, matches)
        numbers = {one.id: order.identity.read(one.business_key) or (0, 0) for one in current}
        mine = [one for one in current if one.name == order.bpm_name]
        own = tuple(one for one in mine if _is_own(one, numbers[one.id][0], order))
        if not order.may_have_sent(record):
            own = ()  # what carries its key is of a deleted run
        older = tuple(one for one in mine if one not in own and not one.is_closed)
        if in_doubt := [one for one in (*own, *older) if one.id in unclear and order.matters(one)]:
            return Refuse(AmbiguousStartError(unclear_time(in_doubt[0]), order.key()))
        # A BPM that it calls may carry its key too; but alone that is strange.
        alike = [one for one in current if one not in mine and numbers[one.id][0] == order.generation]
        if alike and not own:
            doubt = f"its business key is carried by {alike[0]}, which is none of {order.bpm_name!r}"
        if not order.generation_is_certain and (
            ended := [one for one in mine if one.is_closed and order.accepts(one)]
        ):
            doubt = doubt or unclear_generation(ended[0])
        return Found(own, older, doubt=doubt)
    if order.if_open_instance_exists == "start":
        current = [
            one for one in everything if not began or matches.place(one, began) is not Placement.BEFORE
        ]
        if current:
            return Refuse(_whose(order.business_key, current))
        return Found(doubt=doubt)
    ids = (*matches.instances, *matches.alike)
    strangers = own_record.strangers if own_record else None
    known = own_record.instance_id if own_record else None
    if known is not None and known not in ids:
        return Refuse(gone(known, order.business_key))
    own = tuple(
        one
        for one in everything
        if one.id == known
        or (
            strangers is not None
            and one.id not in strangers
            and not (began and matches.place(one, began) is Placement.BEFORE)
        )
    )
    still_open = [one for one in everything if not one.is_closed and one not in own]
    older = tuple(one for one in still_open if record and one.id == record.instance_id)
    others = tuple(one for one in still_open if one not in older)
    return Found(own, older, others, doubt, ids)


def _of_this_run(
    order: Order, record: Record | None, matches: KeyMatches
) -> tuple[list[BpmInstance], frozenset[str]]:
    """Return what this run of the DAG may have started: a deleted one with the same id has the same keys.

    :returns: the instances, and the ids of those whose time does not tell.
    """
    own = order.own(record)
    of_own = own.posted_at if own is not None and own.posted_at is not None else order.since
    current, unclear = [], set()
    for one in matches.instances.values():
        generation = (order.identity.read(one.business_key) or (0, 0))[0]
        moment = of_own if generation == order.generation else order.since
        placement = Placement.SINCE if moment is None else matches.place(one, moment)
        if generation > order.try_number or placement is Placement.BEFORE:
            continue
        current.append(one)
        if placement is Placement.UNKNOWN:
            unclear.add(one.id)
    if record is None or record.posted_at is None:
        return current, frozenset()  # no record tells of a start, so nothing better is known
    if record.told and own is None:
        # A person was asked to look, and has cleared the task.
        return [one for one in current if one.id not in unclear], frozenset()
    return current, frozenset(unclear)


def _is_own(instance: BpmInstance, generation: int, order: Order) -> bool:
    if generation == order.generation:
        return True
    return not order.generation_is_certain and not instance.is_closed


def unclear_generation(instance: BpmInstance) -> str:
    """Return the doubt about an instance that has come to its good end before or after the last clear."""
    return f"'retries' was changed, so it is unclear whether {instance} was started before the task was last cleared"


def unclear_time(instance: BpmInstance) -> str:
    """Return the doubt about an instance whose time does not tell when it was started."""
    return (
        f"{instance} carries its business key, but its start time {instance.start_time!r} does not tell whether this run of the "
        "DAG has started it, or a deleted one with the same id"
    )


def decide(order: Order, record: Record | None, found: Found) -> Decision:  # noqa: PLR0911 - the table's rows
    """Decide what a try does, by the table above."""
    key = order.key()
    if misnamed := [one for one in found.own if one.name != order.bpm_name]:
        return _refuse(
            f"{misnamed[0]} carries this task's business key, but is none of {order.bpm_name!r}", key
        )
    still_open = [one for one in found.own if not one.is_closed]
    good = [one for one in found.own if order.accepts(one)]
    if good and not still_open and not order.generation_is_certain:
        return _refuse(unclear_generation(good[0]), key)
    if still_open or good:
        newest = max(good, key=lambda one: one.start_time or "", default=None)
        return _the_only(still_open or [one for one in [newest] if one], key, "an earlier try started it")
    left_open = (
        order.keeps_open
        or not order.generation_is_certain
        or (record is not None and order.own(record) is None and record.left_open)
    )
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
    last = max(own_record.launch, 1) if own_record else 1
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


def _whose(key: str, instances: Iterable[BpmInstance]) -> AmbiguousStartError:
    return AmbiguousStartError(
        f"whether an earlier try started one of these cannot be told, for others may use their key: {listed(instances)}",
        key,
        "Terminate what this task has started, if anything, then clear this task. If nobody else uses the key, set "
        'if_open_instance_exists="adopt": then a retry knows its instance by it.',
    )


def asked(order: Order, record: Record | None) -> Record:
    """Return the record to store after asking a person to check. It belongs to this generation, so only a clear answers."""
    begun = with_intent(
        record,
        Record,
        generation=order.generation,
        max_tries=order.max_tries,
        try_number=order.try_number,
        since=order.since,
        is_certain=order.generation_is_certain,
    )
    if order.own(record) is not None:
        return msgspec.structs.replace(begun, told=True)
    return msgspec.structs.replace(
        begun,
        generation=order.generation,
        max_tries=order.max_tries,
        is_unclear=not order.generation_is_certain,
        # A retry goes on with what a failed wait has left open. Anything else is of an older generation.
        launch=0 if begun.left_open else 1,
        instance_id=begun.instance_id if begun.left_open else None,
        strangers=None,
        deadline=None,
        told=True,
    )


def too_many_carriers(carriers: int, key: str) -> AmbiguousStartError:
    """Return the error for a business key of more instances than can be written down."""
    return AmbiguousStartError(
        f"{carriers} instances carry its business key, too many to know later which one this task has started",
        key,
        'Choose a business_key that fewer have, or if_open_instance_exists="start".',
    )


def replaced(instance: BpmInstance, known: Known, key: str) -> AmbiguousStartError:
    """Return the error for an id of an instance that this task goes on with, and that shows another instance now."""
    return AmbiguousStartError(
        f"an earlier try started an instance {known}, and its id shows another one now: {instance}, with business key "
        f"{instance.business_key!r}",
        key,
        "Nothing was started again, and that one was left as it is. Look for the instance in Astro Zero by its business key, "
        "and terminate it if it is still open; then clear this task, which starts a new one.",
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
