"""Decides what the try of one start does about the instances of earlier tries, by ``decision_table``. No I/O.

A try learns what earlier tries did from their ``StartRecord``, if Airflow stores one, and from the business key. All open
instances of older generations are terminated before a start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from airflow_provider_astrobpm.client.errors import AmbiguousStartError
from airflow_provider_astrobpm.client.key_form import KeyForms
from airflow_provider_astrobpm.client.key_search import KeyMatches
from airflow_provider_astrobpm.client.sameness import KnownIdentity
from airflow_provider_astrobpm.client.timestamps import Placement
from airflow_provider_astrobpm.starting.decision_table import (
    MAX_PREEXISTING_IDS,
    ExistingInstances,
    RefuseStart,
    StartInstance,
    StartSubject,
    decide_start,
    generation_doubt,
)
from airflow_provider_astrobpm.starting.try_record import TryRecord
from airflow_provider_astrobpm.starting.try_request import TryRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.key_form import KeyForm
    from airflow_provider_astrobpm.client.operations import Operation
    from airflow_provider_astrobpm.starting.business_keys import IfOpenInstanceExists
    from airflow_provider_astrobpm.starting.decision_table import StartDecision

OWNER_ADVICE = (
    "Terminate the instance that this task has started, if any, then clear this task. If only this task uses the key, set "
    'if_open_instance_exists="adopt": then a retry recognises its instance by the key.'
)


class StartRecord(TryRecord, frozen=True, kw_only=True, omit_defaults=True):
    """What a try writes down about the task's one instance."""

    launch: int = 1
    """The number of the last start in this generation; 0 if the instance is of an older generation and not adopted yet."""
    left_open: bool = False
    """Whether the wait failed and left its instance open, so that the wait can resume."""


@dataclass(frozen=True, kw_only=True)
class StartRequest(TryRequest[StartRecord]):
    """Describes the one instance that a try of a task wants to start.

    :param start: returns the operation that starts it with a business key.
    :param if_open_instance_exists: what to do if an open instance has the custom key.
    """

    start: Callable[[str], Operation[BpmInstance]]
    bpm_name: str
    if_open_instance_exists: IfOpenInstanceExists = "start"

    @property
    def searches_always(self) -> bool:
        """Whether even a first try searches, because others may use the key."""
        return self.business_key is not None and self.if_open_instance_exists != "start"

    def taken_over(self, record: StartRecord) -> StartRecord:
        """Return what this generation keeps of an older generation's record when a person is asked to check."""
        # A retry resumes with the instance that a failed wait left open. Any other instance is of an older generation.
        return msgspec.structs.replace(
            record,
            launch=0 if record.left_open else 1,
            instance_id=record.instance_id if record.left_open else None,
            strangers=None,
            deadline=None,
        )

    def key(self, launch: int = 1) -> str:
        """Return the business key of a start."""
        return self.business_key or self.identity.key(self.generation, launch)

    def new_matches(self, form: KeyForm | None, clock: Callable[[], float]) -> KeyMatches:
        """Return a collector for the instances that have the key of this task, or its custom key."""
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
        """Return what is known about the instance that a record names, apart from its id."""
        if self.business_key is not None:
            return KnownIdentity()  # the try that started the instance may have rendered another key
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
        return self.known(record).matches(instance) or self.identity.resembles(instance.business_key)


def is_enough(request: StartRequest, record: StartRecord | None, matches: KeyMatches) -> bool:
    """Return whether further search results cannot change the decision.

    Other instances may have the same key: those of called BPMs, and those of older generations.
    """
    if not request.may_have_sent(record):
        found = matches.instances.values()
        return any(not one.is_closed and one.name == request.bpm_name for one in found)
    sorted_out = classify(request, record, matches)
    if isinstance(sorted_out, RefuseStart) or sorted_out.unclear:
        return True
    return any(not one.is_closed for one in sorted_out.own)


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
        own = tuple(
            one
            for one in mine
            if generations[one.id] == request.generation
            or not (request.generation_is_certain or one.is_closed)
        )
        if not request.may_have_sent(record):
            own = ()  # an instance with this generation's key was started by a deleted run
        older = tuple(one for one in mine if one not in own and not one.is_closed)
        unknown = [one for one in (*own, *older) if places[one.id] is Placement.UNKNOWN]
        unclear = tuple(one for one in unknown if request.is_relevant(one))
        # A BPM that the instance calls may have its key too. But then the instance itself must be there.
        resembling = [one for one in current if one not in mine and generations[one.id] == request.generation]
        if resembling and not own:
            doubt = f"its business key belongs to {resembling[0]}, which is not an instance of {request.bpm_name!r}"
        if not request.generation_is_certain and (
            ended := [one for one in mine if one.is_closed and request.accepts(one)]
        ):
            doubt = doubt or generation_doubt(ended[0])
        return ExistingInstances(own, older, doubt=doubt, unclear=unclear)
    return _classify_by_custom_key(request, record, matches, doubt, request.business_key)


def _classify_by_custom_key(
    request: StartRequest, record: StartRecord | None, matches: KeyMatches, doubt: str | None, key: str
) -> ExistingInstances | RefuseStart:
    everything = tuple(matches.instances.values())
    own_record = request.own(record)
    subject = StartSubject(request.bpm_name, key)
    if request.if_open_instance_exists == "start":
        began = own_record.posted_at if own_record else None
        if current := [one for one in everything if matches.place(one, began) is not Placement.BEFORE]:
            return RefuseStart(subject.ambiguous_owner_error(current, OWNER_ADVICE))
        return ExistingInstances(doubt=doubt)
    ids = (*matches.instances, *matches.resembling)
    known = own_record.instance_id if own_record else None
    if known is not None and known not in ids:
        return RefuseStart(missing_instance_error(known, key))
    own = _own_by_custom_key(own_record, matches)
    if known is None and own_record is not None and own_record.unproven:
        if ended := [one for one in own if one.is_closed and request.accepts(one)]:
            return RefuseStart(subject.ambiguous_owner_error(ended, OWNER_ADVICE))
        own = ()
    still_open = [one for one in everything if not one.is_closed and one not in own]
    older = tuple(one for one in still_open if record and one.id == record.instance_id)
    others = tuple(one for one in still_open if one not in older)
    return ExistingInstances(own, older, others, doubt, ids)


def _own_by_custom_key(record: StartRecord | None, matches: KeyMatches) -> tuple[BpmInstance, ...]:
    """Return the instance of a record, or if it is not known, those that the start may have made: none if it was never sent."""
    everything = matches.instances.values()
    if record is None:
        return ()
    if record.instance_id is not None:
        return tuple(one for one in everything if one.id == record.instance_id)
    if record.posted_at is None or record.strangers is None:
        return ()
    return tuple(
        one
        for one in everything
        if one.id not in record.strangers and matches.place(one, record.posted_at) is not Placement.BEFORE
    )


def decide(request: StartRequest, record: StartRecord | None, found: ExistingInstances) -> StartDecision:
    """Decide what a try does, by the common table. Everything open of older generations is terminated before a start."""
    own_record = request.own(record)
    resumes = (
        request.keeps_open
        or not request.generation_is_certain
        or (record is not None and own_record is None and record.left_open)
    )
    older = [one for one in found.older if resumes and one.name == request.bpm_name]
    last = max(own_record.launch, 1) if own_record else 1
    made = decide_start(
        request,
        record,
        StartSubject(request.bpm_name, request.key(last)),
        found._replace(older=older),
        if_open_instance_exists=request.if_open_instance_exists,
    )
    if not isinstance(made, StartInstance):
        return made
    # An earlier start without an instance may still take effect late. The same key then shows which task it belongs to.
    numbers = filter(None, (request.identity.read(one.business_key) for one in found.own))
    launch = max([last, *(launch for _, launch in numbers)]) + 1 if found.own else last
    was_searched = request.if_open_instance_exists != "start"
    if was_searched and (matches := len(found.match_ids)) > MAX_PREEXISTING_IDS:
        error = AmbiguousStartError(
            f"{matches} instances have its business key, too many to recognise later which one this task has started",
            request.key(launch),
            'Choose a business_key that fewer instances have, or if_open_instance_exists="start".',
        )
        return RefuseStart(error, asks_person=False)
    return replace(
        made,
        key=request.key(launch),
        launch=launch,
        terminate=found.older,
        preexisting_ids=found.match_ids if was_searched else None,
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
