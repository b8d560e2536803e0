"""Decides what a try does about the instances of earlier tries: adopt one, start one, or refuse. No I/O.

A try learns what earlier tries did from their ``StartRecord``, if Airflow stores one, and from the business key. An
instance has *succeeded* if it ended as the task wants, and *failed* if it ended in any other way. The first row that applies
decides:

| what the try finds                                              | decision                                             |
|-----------------------------------------------------------------|------------------------------------------------------|
| an open instance of this generation                             | adopt it                                             |
| an instance of this generation that has succeeded               | adopt it: its end is the task's result               |
| an open instance of an older generation, left open on purpose   | adopt it: people may be working on it                |
| an open instance with the custom key, started by someone else   | as ``if_open_instance_exists`` says                  |
| no such instance, but one may exist                             | refuse: a start could be the second one              |
| anything else: nothing, or only failed or superseded instances  | terminate open instances of older generations; start |

If several instances qualify for adoption by one row, the try refuses, too. An error that asks a person to check is recorded: the
first try after the next clear then starts despite the doubt.

A generation ends when a person clears the task. If ``retries`` was changed, it can be uncertain to which generation a try
belongs. Then an open instance of any generation counts as one of this generation, and nothing is terminated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from airflow_provider_astrobpm.client.errors import AmbiguousStartError, OpenInstanceExistsError
from airflow_provider_astrobpm.client.key_form import KeyForms
from airflow_provider_astrobpm.client.key_search import KeyMatches
from airflow_provider_astrobpm.client.sameness import KnownIdentity
from airflow_provider_astrobpm.client.timestamps import Placement
from airflow_provider_astrobpm.starting.lost_start import describe_instances
from airflow_provider_astrobpm.starting.try_record import TryRecord
from airflow_provider_astrobpm.starting.try_request import TryRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.key_form import KeyForm
    from airflow_provider_astrobpm.client.operations import Operation
    from airflow_provider_astrobpm.starting.business_keys import IfOpenInstanceExists

MAX_PREEXISTING_IDS = 1000  # a record holds at most this many ids, because Airflow limits its length


class StartRecord(TryRecord, frozen=True, kw_only=True, omit_defaults=True):
    """What a try writes down about the task's one instance."""

    launch: int = 1
    """The number of the last start in this generation; 0 if the instance is of an older generation and not adopted yet."""
    left_open: bool = False
    """Whether the wait failed and left its instance open, so that the wait can resume."""


@dataclass(frozen=True, kw_only=True)
class StartRequest(TryRequest[StartRecord]):
    """Describes the one instance that a try of a task wants to start.

    :param start: the operation that starts it, with a business key.
    :param bpm_name: the BPM's name.
    :param business_key: the author's own key, which others may use too; ``None`` for the key made from the task.
    :param if_open_instance_exists: what to do if an open instance has the custom key.
    """

    start: Callable[[str], Operation[BpmInstance]]
    bpm_name: str
    business_key: str | None = None
    if_open_instance_exists: IfOpenInstanceExists = "start"

    @property
    def searches_always(self) -> bool:
        """Whether even a first try searches, because others may use the key."""
        return self.business_key is not None and self.if_open_instance_exists != "start"

    @property
    def searches_after_clear(self) -> bool:
        """Whether a try searches by key for what older generations have started."""
        return self.business_key is None

    def key(self, launch: int = 1) -> str:
        """Return the business key of a start."""
        return self.business_key or self.identity.key(self.generation, launch)

    def new_matches(self, form: KeyForm | None, clock: Callable[[], float]) -> KeyMatches:
        """Return a collector for search results that keeps the instances that this request may be about.

        :param form: how the endpoint changes business keys, if known.
        :param clock: returns the time, in seconds since the epoch.
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

    def known(self, record: StartRecord) -> KnownIdentity:
        """Return what is known about the instance in a record, apart from its id.

        :param record: a record that names an instance.
        """
        if self.business_key is not None:
            return (
                KnownIdentity()
            )  # the key may have been rendered differently for the try that started the instance
        key = self.identity.key(record.generation, record.launch)
        if record.key_example is None:
            return KnownIdentity(business_key=key)
        sent, shown = record.key_example
        form = record.key_form
        return KnownIdentity(business_key=shown if sent == key else form.shown(key) if form else None)

    def matches_record(self, record: StartRecord, instance: BpmInstance) -> bool:
        """Return whether an instance, by its business key, can be the one in a record.

        The record of an adopted instance belongs to a later generation than the instance's key.
        """
        if self.known(record).matches(instance):
            return True
        key = instance.business_key
        return self.identity.read(key) is not None or self.identity.resembles(key)

    def is_relevant(self, instance: BpmInstance) -> bool:
        """Return whether an instance is open or has succeeded. After a failed one the task starts another anyway."""
        return not instance.is_closed or self.accepts(instance)


class ExistingInstances(NamedTuple):
    """The instances that a try has found."""

    own: tuple[BpmInstance, ...] = ()
    """Instances of this generation, open and closed."""
    older: tuple[BpmInstance, ...] = ()
    """Open instances of older generations."""
    others: tuple[BpmInstance, ...] = ()
    """Open instances that have the custom key and were started by someone else."""
    doubt: str | None = None
    """Why an instance of this generation may exist although it was not found."""
    match_ids: tuple[str, ...] = ()
    """The ids of all instances with the custom key."""


@dataclass(frozen=True)
class AdoptInstance:
    """Decision to adopt an existing instance."""

    instance: BpmInstance
    why: str


@dataclass(frozen=True)
class StartInstance:
    """Decision to start an instance.

    :param key: its business key.
    :param launch: the number of this start within the generation.
    :param terminate: open instances to terminate first.
    :param preexisting_ids: the ids of preexisting instances with the custom key; ``None`` if they were not searched for.
    :param warning: a warning to log.
    """

    key: str
    launch: int = 1
    terminate: tuple[BpmInstance, ...] = ()
    preexisting_ids: tuple[str, ...] | None = None
    warning: str | None = None


@dataclass(frozen=True, eq=False)
class RefuseStart:
    """Decision to fail and start nothing.

    :param error: the error to raise.
    :param asks_person: whether the error asks a person to search for the instance before clearing the task.
    """

    error: AmbiguousStartError | OpenInstanceExistsError
    asks_person: bool = True


StartDecision = AdoptInstance | StartInstance | RefuseStart


def is_enough(request: StartRequest, record: StartRecord | None, matches: KeyMatches) -> bool:
    """Return whether further search results cannot change the decision.

    Other instances may have the same key: those of called BPMs, and those of older generations.
    """
    if not request.may_have_sent(record):
        found = matches.instances.values()
        return any(not one.is_closed and one.name == request.bpm_name for one in found)
    sorted_out = classify(request, record, matches)
    return isinstance(sorted_out, RefuseStart) or any(not one.is_closed for one in sorted_out.own)


def classify(
    request: StartRequest, record: StartRecord | None, matches: KeyMatches
) -> ExistingInstances | RefuseStart:
    """Sort the instances with the key by who started them."""
    everything = tuple(matches.instances.values())
    own_record = request.own(record)
    began = own_record.posted_at if own_record else None
    doubt = matches.doubt(
        request.bpm_name,
        began if own_record else request.since,
        any_open_counts=request.if_open_instance_exists != "start",
    )
    if request.business_key is None:
        generations = {one.id: (request.identity.read(one.business_key) or (0, 0))[0] for one in everything}
        places = {one.id: request.place(record, matches, one, generations[one.id]) for one in everything}
        current = [one for one in everything if places[one.id] is not Placement.BEFORE]
        mine = [one for one in current if one.name == request.bpm_name]
        own = tuple(one for one in mine if _is_own(one, generations[one.id], request))
        if not request.may_have_sent(record):
            own = ()  # an instance with this generation's key was started by a deleted run
        older = tuple(one for one in mine if one not in own and not one.is_closed)
        unclear = [one for one in (*own, *older) if places[one.id] is Placement.UNKNOWN]
        if in_doubt := [one for one in unclear if request.is_relevant(one)]:
            return RefuseStart(AmbiguousStartError(start_time_doubt(in_doubt[0]), request.key()))
        # A BPM that the instance calls may have its key too. But then the instance itself must be there.
        resembling = [one for one in current if one not in mine and generations[one.id] == request.generation]
        if resembling and not own:
            doubt = f"its business key belongs to {resembling[0]}, which is not an instance of {request.bpm_name!r}"
        if not request.generation_is_certain and (
            ended := [one for one in mine if one.is_closed and request.accepts(one)]
        ):
            doubt = doubt or generation_doubt(ended[0])
        return ExistingInstances(own, older, doubt=doubt)
    if request.if_open_instance_exists == "start":
        current = [
            one for one in everything if not began or matches.place(one, began) is not Placement.BEFORE
        ]
        if current:
            return RefuseStart(_ambiguous_owner_error(request.business_key, current))
        return ExistingInstances(doubt=doubt)
    ids = (*matches.instances, *matches.resembling)
    preexisting = own_record.strangers if own_record else None
    known = own_record.instance_id if own_record else None
    if known is not None and known not in ids:
        return RefuseStart(missing_instance_error(known, request.business_key))
    own = tuple(
        one
        for one in everything
        if one.id == known
        or (
            preexisting is not None
            and one.id not in preexisting
            and not (began and matches.place(one, began) is Placement.BEFORE)
        )
    )
    still_open = [one for one in everything if not one.is_closed and one not in own]
    older = tuple(one for one in still_open if record and one.id == record.instance_id)
    others = tuple(one for one in still_open if one not in older)
    return ExistingInstances(own, older, others, doubt, ids)


def _is_own(instance: BpmInstance, generation: int, request: StartRequest) -> bool:
    if generation == request.generation:
        return True
    return not request.generation_is_certain and not instance.is_closed


def generation_doubt(instance: BpmInstance) -> str:
    """Return the doubt about an instance that succeeded either before or after the last clear."""
    return f"'retries' was changed, so it is unclear whether {instance} was started before the task was last cleared"


def start_time_doubt(instance: BpmInstance) -> str:
    """Return the doubt about an instance whose start time does not show which run started it."""
    return (
        f"{instance} has its business key, but its start time {instance.start_time!r} does not show whether this run of the "
        "DAG has started it, or a deleted one with the same id"
    )


def decide(request: StartRequest, record: StartRecord | None, found: ExistingInstances) -> StartDecision:  # noqa: PLR0911 - the table's rows
    """Decide what a try does, by the table above."""
    key = request.key()
    if misnamed := [one for one in found.own if one.name != request.bpm_name]:
        return _refuse(
            f"{misnamed[0]} has this task's business key, but is not an instance of {request.bpm_name!r}", key
        )
    still_open = [one for one in found.own if not one.is_closed]
    good = [one for one in found.own if request.accepts(one)]
    if good and not still_open and not request.generation_is_certain:
        return _refuse(generation_doubt(good[0]), key)
    if still_open or good:
        newest = max(good, key=lambda one: one.start_time or "", default=None)
        return _adopt_only_one(
            still_open or [one for one in [newest] if one], key, "an earlier try started it"
        )
    left_open = (
        request.keeps_open
        or not request.generation_is_certain
        or (record is not None and request.own(record) is None and record.left_open)
    )
    left = [one for one in found.older if left_open and one.name == request.bpm_name]
    if left:
        return _adopt_only_one(left, key, "it was left open when the task was cleared")
    if found.others and request.if_open_instance_exists == "fail":
        return RefuseStart(OpenInstanceExistsError(found.others[0]), asks_person=False)
    if found.others and request.if_open_instance_exists == "adopt":
        return _adopt_only_one(found.others, key, "it has the task's custom business key")
    return _start_or_refuse(request, record, found)


def _start_or_refuse(
    request: StartRequest, record: StartRecord | None, found: ExistingInstances
) -> StartInstance | RefuseStart:
    own_record = request.own(record)
    last = max(own_record.launch, 1) if own_record else 1
    if found.doubt is None:
        warning = None
    elif request.is_answered(record):
        warning = f"{found.doubt}; starting anyway, because the task was cleared"
    else:
        return _refuse(
            f"it is unknown whether an earlier try started an instance: {found.doubt}", request.key(last)
        )
    # An earlier start without an instance may still take effect late. The same key then shows which task it belongs to.
    launch = max([last, *_launch_numbers(request, found.own)]) + 1 if found.own else last
    was_searched = request.if_open_instance_exists != "start"
    if was_searched and len(found.match_ids) > MAX_PREEXISTING_IDS:
        return RefuseStart(
            _too_many_matches_error(len(found.match_ids), request.key(launch)), asks_person=False
        )
    return StartInstance(
        request.key(launch), launch, found.older, found.match_ids if was_searched else None, warning
    )


def _launch_numbers(request: StartRequest, instances: Iterable[BpmInstance]) -> list[int]:
    read = [request.identity.read(one.business_key) for one in instances]
    return [numbers[1] for numbers in read if numbers]


def _adopt_only_one(
    instances: list[BpmInstance] | tuple[BpmInstance, ...], key: str, why: str
) -> AdoptInstance | RefuseStart:
    if len(instances) == 1:
        return AdoptInstance(instances[0], why)
    return _refuse(f"several instances may be this task's: {describe_instances(instances)}", key)


def _ambiguous_owner_error(key: str, instances: Iterable[BpmInstance]) -> AmbiguousStartError:
    return AmbiguousStartError(
        f"it is unknown whether an earlier try started one of these, because others may use their key: {describe_instances(instances)}",
        key,
        "Terminate the instance that this task has started, if any, then clear this task. If only this task uses the key, set "
        'if_open_instance_exists="adopt": then a retry recognises its instance by the key.',
    )


def record_person_asked(request: StartRequest, record: StartRecord | None) -> StartRecord:
    """Return the record to store after asking a person to check. It belongs to this generation, so only a clear answers."""
    begun = request.intent(record, StartRecord)
    if request.own(record) is not None:
        return msgspec.structs.replace(begun, told=True)
    return msgspec.structs.replace(
        begun,
        generation=request.generation,
        max_tries=request.max_tries,
        is_unclear=not request.generation_is_certain,
        # A retry resumes with the instance that a failed wait left open. Any other instance is of an older generation.
        launch=0 if begun.left_open else 1,
        instance_id=begun.instance_id if begun.left_open else None,
        strangers=None,
        deadline=None,
        told=True,
    )


def _too_many_matches_error(matches: int, key: str) -> AmbiguousStartError:
    """Return the error for a business key that more instances have than a record can hold."""
    return AmbiguousStartError(
        f"{matches} instances have its business key, too many to recognise later which one this task has started",
        key,
        'Choose a business_key that fewer instances have, or if_open_instance_exists="start".',
    )


def replaced_instance_error(instance: BpmInstance, known: KnownIdentity, key: str) -> AmbiguousStartError:
    """Return the error for an adopted or started instance whose id now shows a different instance."""
    return AmbiguousStartError(
        f"an earlier try started an instance {known}, but its id now shows a different one: {instance}, with business key "
        f"{instance.business_key!r}",
        key,
        "Nothing was started again, and that instance was left as it is. Search Astro Zero for the task's own instance by its "
        "business key, and terminate it if it is still open; then clear this task, which starts a new one.",
    )


def missing_instance_error(instance_id: str, key: str) -> AmbiguousStartError:
    """Return the error for an adopted or started instance that can no longer be found."""
    return AmbiguousStartError(
        f"an earlier try started instance {instance_id!r}, which is now in none of the states",
        key,
        "Nothing was started again. Search for it in Astro Zero, and terminate it if it is still open; then clear this "
        "task, which starts a new one.",
    )


def _refuse(doubt: str, key: str) -> RefuseStart:
    return RefuseStart(AmbiguousStartError(doubt, key))
