"""Decides launch by launch what a try of a batch does about the instances of earlier tries, by ``decision_table``. No I/O.

A try learns what earlier tries did from the business keys of the launches and from a ``BatchRecord``. A clear begins a new
generation. If the last try had failed, the new generation resumes the batch: instances of the generations that it resumes
count as its own. After any other clear the batch begins again.

Beyond the table, an instance that another launch has started in a launch's place shows that the input has changed, which is
refused. A launch that has met the condition before adopts its newest instance, whatever became of it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.batches.batch_record import is_recorded_instance
from airflow_provider_astrobpm.client.errors import AmbiguousStartError, BatchChangedError
from airflow_provider_astrobpm.client.key_search import KeyMatches
from airflow_provider_astrobpm.client.timestamps import Placement
from airflow_provider_astrobpm.starting.business_keys import BatchKey
from airflow_provider_astrobpm.starting.decision_table import (
    MAX_PREEXISTING_IDS,
    AdoptInstance,
    ExistingInstances,
    RefuseStart,
    StartInstance,
    StartSubject,
    decide_start,
    generation_doubt,
    start_time_doubt,
)

if TYPE_CHECKING:
    from airflow_provider_astrobpm.batches.batch_input import Launch
    from airflow_provider_astrobpm.batches.batch_record import BatchRecord, BatchRequest
    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.key_form import KeyForm


class StartLaunch(NamedTuple):
    """Decision to start a launch with a business key."""

    launch: Launch
    key: str


class BatchDecider:
    """Decides about the launches of a batch. It remembers which instances it has adopted, launch by launch.

    :param matches: the instances with a key of the batch; ``None`` if no search was needed.
    :raises BatchChangedError: if the custom keys differ from those that an earlier try has used.
    """

    def __init__(
        self,
        request: BatchRequest,
        record: BatchRecord | None = None,
        matches: KeyMatches | None = None,
        *,
        form: KeyForm | None = None,
    ) -> None:
        self._request = request
        self._record = record
        self._matches = matches = matches or KeyMatches(lambda _one: False)
        self._oldest = request.oldest(record)
        self._own_record = own_record = request.own(record)
        if own_record and own_record.own_keys not in (None, request.keys_signature()):
            raise BatchChangedError("its launches have other business keys")
        began = own_record.posted_at if own_record else None
        resumes_older = request.keeps_open or request.goes_on_from(record) is not None
        self._since = request.since if began is None or resumes_older else began
        known = request.resumable_record(record)
        self.met = known.satisfied_launches() if known else frozenset()
        """The launches that have met the condition before. Later changes of their instances do not matter."""
        self._own: dict[int, list[tuple[BatchKey, BpmInstance]]] = {}
        self._older: dict[tuple[int, str], list[BpmInstance]] = {}
        self._older_open: dict[int, list[tuple[BatchKey, BpmInstance]]] = {}
        self._keyed: dict[str, list[BpmInstance]] = {}
        self._still_open: dict[str, BpmInstance] = {}
        self._adopted: set[str] = set()
        self._decided: set[int] = set()
        self._unclear: set[str] = set()
        """The ids of instances that a deleted run may have started."""
        self._doubt = cache(lambda name: matches.doubt(name, self._since))
        self._unclear_ends: dict[int, str] = {}
        """Why it is unclear whether a succeeded instance belongs to this generation, by launch number."""
        keys = request.authors_keys(form)
        for instance in matches.instances.values():
            key = request.identity.read_batch(instance.business_key)
            if key is None:
                self._keyed.setdefault(str(keys.sent(instance.business_key)), []).append(instance)
            elif not self._is_of_this_run(instance, key):
                continue
            elif key.generation == request.generation:
                self._own.setdefault(key.number, []).append((key, instance))
            elif self._counts(instance, key.generation):
                self._older.setdefault((key.number, key.digest), []).append(instance)
                if not instance.is_closed:
                    self._older_open.setdefault(key.number, []).append((key, instance))
            elif not request.generation_is_certain and request.accepts(instance):
                self._unclear_ends[key.number] = generation_doubt(instance)
            elif instance.id in self._unclear and not instance.is_closed:
                raise AmbiguousStartError(start_time_doubt(instance), instance.business_key)

    def _is_of_this_run(self, instance: BpmInstance, key: BatchKey) -> bool:
        """Return whether this run of the DAG may have started an instance. A deleted run used the same keys."""
        request = self._request
        if key.generation == request.generation and not request.may_have_sent(self._record):
            return False
        placement = request.place(self._record, self._matches, instance, key.generation)
        if placement is Placement.UNKNOWN:
            self._unclear.add(instance.id)
        return placement is not Placement.BEFORE

    def _counts(self, instance: BpmInstance, generation: int) -> bool:
        """Return whether an instance of another generation counts as one of this generation. Note it if it is open."""
        if not instance.is_closed:
            self._still_open[instance.id] = instance
        keeps_open = self._request.keeps_open or not self._request.generation_is_certain
        return generation >= self._oldest or (keeps_open and not instance.is_closed)

    def decide(self, launch: Launch) -> StartLaunch | AdoptInstance:
        """Decide about a launch by the table above.

        :raises BatchChangedError: if another launch was started in its place.
        :raises AmbiguousStartError: if it is unknown whether the launch was started, or which instance is its own.
        """
        self._decided.add(launch.number)
        own = self._own.get(launch.number, [])
        self._check_place(launch, own)
        if launch.business_key is not None:
            key = launch.business_key
            mine, older = self._by_custom_key(launch, key)
        else:
            again = max((other.start_number for other, _ in own), default=0) + 1
            key = self._request.identity.batch_key(
                BatchKey(self._request.generation, launch.number, launch.digest, again)
            )
            mine = [one for _, one in own]
            older = self._older.get((launch.number, launch.digest), [])
        has_met = launch.number in self.met
        here = [*mine, *older, *(one for _, one in self._older_open.get(launch.number, ()))]
        unknown = [one for one in here if one.id in self._unclear]
        unclear = [one for one in unknown if has_met or self._request.is_relevant(one)]
        is_first = self._record is None and self._request.is_first
        doubt = None if is_first else self._doubt(launch.bpm_name)
        made = decide_start(
            self._request,
            self._record,
            StartSubject(launch.bpm_name, key, f"launch {launch.number}"),
            ExistingInstances(
                mine, older, doubt=self._unclear_ends.get(launch.number, doubt), unclear=unclear
            ),
            has_met=has_met,
        )
        if isinstance(made, RefuseStart):
            raise made.error
        if isinstance(made, StartInstance):
            return StartLaunch(launch, key)
        # BPMs that an adopted instance has called may have the same key.
        key_there = made.instance.business_key
        self._adopted |= {one.id for one in (*mine, *older) if one.business_key == key_there}
        return made

    def _check_place(self, launch: Launch, own: list[tuple[BatchKey, BpmInstance]]) -> None:
        """Check that no other launch has an instance in this launch's place, where this generation has started ``own``."""
        has_resumed = self._own_record is not None and self._own_record.posted_at is not None
        if has_resumed or not self._request.generation_is_certain:
            own = [*own, *self._older_open.get(launch.number, ())]
        for other, instance in own:
            if other.digest != launch.digest:
                raise BatchChangedError(
                    f"launch {launch.number} differs from the launch that started {instance}"
                )

    def superseded(self) -> list[BpmInstance]:
        """Return the open instances of older generations that no launch has adopted so far."""
        if not self._request.generation_is_certain:
            return []
        left = self._adopted | self._unclear
        return [one for one in self._still_open.values() if one.id not in left]

    @property
    def preexisting_ids(self) -> tuple[str, ...] | None:
        """The ids of instances with custom keys that are not of this batch; ``None`` if unknown, or too many for a record.

        Valid after all launches are decided.
        """
        if self._matches.why_incomplete(self._request.since):
            return None
        keyed = [one for each in self._keyed.values() for one in each if one.id not in self._adopted]
        matches = [*keyed, *self._matches.resembling.values()]
        # Instances from long ago are recognised by their start time.
        recent = [one for one in matches if self._matches.place(one, self._since) is not Placement.BEFORE]
        return tuple(one.id for one in recent) if len(recent) <= MAX_PREEXISTING_IDS else None

    def check_none_missing(self) -> None:
        """Check, after all decisions, that the input still has every launch that an earlier try started.

        :raises BatchChangedError: if a launch is missing.
        """
        for number, found in self._own.items():
            if number not in self._decided:
                raise BatchChangedError(f"launch {number} is missing; it had started {found[0][1]}")

    def _by_custom_key(self, launch: Launch, key: str) -> tuple[list[BpmInstance], list[BpmInstance]]:
        """Return the instances that this generation, and that older ones, have started with a custom key.

        :raises AmbiguousStartError: if it is unknown which these are, because others may use the key.
        """
        matches = [one for one in self._keyed.get(key, ()) if one.name == launch.bpm_name]
        subject = StartSubject(launch.bpm_name, key, f"launch {launch.number}")
        record, request = self._record, self._request
        if record is None or record.posted_at is None:
            if matches and request.may_have_sent(record):
                raise subject.ambiguous_owner_error(matches)
            return [], []
        known = [one for one in matches if is_recorded_instance(record, launch.number, key, one)]
        may_be_more = record.answered_at is None or record.unproven
        if not known and may_be_more and not request.is_answered(record):
            # A process died before it recorded its instances, or a start was refused, which the server may have carried out.
            new = [
                one
                for one in matches
                if one.id not in (record.strangers or ())
                and self._matches.place(one, record.posted_at) is not Placement.BEFORE
            ]
            is_unclear = any(self._matches.place(one, record.posted_at) is Placement.UNKNOWN for one in new)
            may_be_others = record.strangers is None or record.answered_at is not None
            if len(new) > 1 or is_unclear or (new and may_be_others):
                raise subject.ambiguous_owner_error(new)
            known = new
        if request.own(record):
            return known, []
        return [], [one for one in known if self._counts(one, record.generation)]
