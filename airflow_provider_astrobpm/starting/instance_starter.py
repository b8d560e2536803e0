"""Starts the one instance of a task, or adopts the one that exists, even after a crash.

A start is one POST. It is never resent if the server may have processed it:

| the POST                                                    | so the instance          | and then                              |
|-------------------------------------------------------------|--------------------------|---------------------------------------|
| was answered with an instance                               | was started              | its id is recorded                    |
| never reached the server, or got no token                   | was not started          | the try fails; a retry starts         |
| was throttled (429), or its token was refused               | was probably not started | the client resends it                 |
| was refused, or throttled for too long                      | was probably not started | the try fails; a retry searches first |
| anything else: no whole answer, a server error, unreadable  | may have been started    | this try searches for it by its key   |

A server probably refuses before it acts, but this is undocumented. So the record of a refused start is kept.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from airflow_provider_astrobpm.client import actions, key_search
from airflow_provider_astrobpm.client.errors import (
    AmbiguousStartError,
    AuthenticationError,
    CallError,
    InstanceNotFoundError,
    UnexpectedAnswerError,
)
from airflow_provider_astrobpm.client.log_note import LogNote
from airflow_provider_astrobpm.client.metrics import ADOPTIONS, AMBIGUOUS_STARTS, NULL_METER, STARTS
from airflow_provider_astrobpm.client.operations import Sleep
from airflow_provider_astrobpm.client.search import EndpointTraits
from airflow_provider_astrobpm.starting import decision, try_request
from airflow_provider_astrobpm.starting.decision import StartRecord
from airflow_provider_astrobpm.starting.decision_table import AdoptInstance, ExistingInstances, RefuseStart
from airflow_provider_astrobpm.starting.lost_start import LostStart, recover_lost_starts
from airflow_provider_astrobpm.starting.try_request import LookupMethod

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.metrics import Meter
    from airflow_provider_astrobpm.client.operations import Flow, Operation
    from airflow_provider_astrobpm.starting.decision import StartRequest
    from airflow_provider_astrobpm.starting.decision_table import StartDecision, StartInstance


class StartResult(NamedTuple):
    """The instance of a start request, and the record to store for it."""

    instance: BpmInstance
    record: StartRecord


@dataclass(frozen=True)
class InstanceStarter:
    """Starts or adopts the one instance of a task.

    :param find: a flow that finds an instance by its id.
    :param remember: stores a record durably, so that later tries have it even if this process dies right after.
    :param clock: returns the time, in seconds since the epoch.
    :param endpoint: what this process has learnt about the environment.
    """

    request: StartRequest
    _: KW_ONLY
    find: Callable[[str], Flow[BpmInstance]]
    remember: Callable[[StartRecord], None]
    log: Callable[[LogNote], None]
    clock: Callable[[], float]
    endpoint: EndpointTraits = field(default_factory=EndpointTraits)
    meter: Meter = NULL_METER

    def launch(self, record: StartRecord | None) -> Flow[StartResult]:
        """Start the instance, or adopt the one that an earlier try has started.

        :param record: the record as it was before this try wrote its intent.
        :raises AmbiguousStartError: if it is unknown whether an instance was started.
        :raises OpenInstanceExistsError: if one has the custom key, and ``if_open_instance_exists`` is ``"fail"``.
        :raises CallError: if a call failed, and this try has probably started nothing.
        """
        if record is not None:
            self.endpoint.key_example = self.endpoint.key_example or record.key_example
        if (pause := try_request.lookup_delay(self.request, record, self.clock())) > 0:
            yield Sleep(pause)
        decided = yield from self._decision(record)
        if isinstance(decided, RefuseStart):
            if decided.asks_person:
                self.remember(self.request.record_person_asked(record, StartRecord))
            raise decided.error
        if isinstance(decided, AdoptInstance):
            return self._adopt(record, decided)
        if decided.warning:
            self.log(LogNote(decided.warning, warning=True))
        for instance in decided.terminate:
            yield from self._terminate(instance)
        return (yield from self._start(decided))

    def _decision(self, record: StartRecord | None) -> Flow[StartDecision]:
        """Search, and decide."""
        request = self.request
        lookup = try_request.choose_lookup(request, record)
        found: ExistingInstances | RefuseStart = ExistingInstances()
        try:
            if lookup is LookupMethod.KEY:
                matches = request.new_matches(self.endpoint.key_form, self.clock)
                is_enough = partial(decision.is_enough, request, record)
                yield from key_search.find_matches(matches, is_enough=is_enough)
                found = decision.classify(request, record, matches)
            elif lookup is LookupMethod.ID and record is not None and record.instance_id is not None:
                found = yield from self._find_recorded(record, record.instance_id)
        except AuthenticationError:
            raise
        except CallError as error:
            unknown = "It is unknown whether an earlier try has started an instance. A retry searches again."
            return RefuseStart(AmbiguousStartError(error, request.key(), unknown), asks_person=False)
        return found if isinstance(found, RefuseStart) else decision.decide(request, record, found)

    def _find_recorded(  # noqa: PLR0911 - a table in order
        self, record: StartRecord, instance_id: str
    ) -> Flow[ExistingInstances | RefuseStart]:
        """Find the instance of a record by its id."""
        own = self.request.own(record) is not None
        try:
            try:
                instance = yield from self.find(instance_id)
            except InstanceNotFoundError:
                if (pause := try_request.seconds_until_visible(self.request, record, self.clock())) <= 0:
                    raise
                yield Sleep(pause)
                instance = yield from self.find(instance_id)
        except InstanceNotFoundError:
            # A failed wait has promised that a clear resumes it. The instance may be hidden, so a person has to decide.
            if own or (record.left_open and not record.told):
                return RefuseStart(
                    decision.missing_instance_error(instance_id, self.request.key(record.launch))
                )
            return ExistingInstances()
        except UnexpectedAnswerError as error:
            if not error.is_malformed:
                raise
            return ExistingInstances(doubt=error.problem)
        if not self.request.matches_record(record, instance):
            known = self.request.known(record)
            if own:
                return RefuseStart(
                    decision.replaced_instance_error(instance, known, self.request.key(record.launch))
                )
            words = f"Left as it is, because the task had started another one, {known}: {instance}"
            self.log(LogNote(words, warning=True))
            return ExistingInstances()
        if instance.is_closed and (not own or record.launch == 0):
            return ExistingInstances()
        return ExistingInstances((instance,)) if own else ExistingInstances(older=(instance,))

    def _adopt(self, record: StartRecord | None, decided: AdoptInstance) -> StartResult:
        self.log(LogNote(f"Adopted {decided.instance}: {decided.why}"))
        self.meter.count(ADOPTIONS)
        request = self.request
        own = request.own(record) or StartRecord(generation=request.generation)
        # The deadline of a failed wait has no meaning any more: a new wait begins now.
        known = msgspec.structs.replace(
            own,
            max_tries=request.max_tries,
            is_unclear=False,
            launch=max(own.launch, 1),
            intent_of=request.generation,
            older_unknown=False,
            since=request.since,
            instance_id=decided.instance.id,
            deadline=request.deadline(self.clock(), None if own.left_open else own.deadline),
            left_open=False,
        )
        if known != record:
            self.remember(known)
        return StartResult(decided.instance, known)

    def _terminate(self, instance: BpmInstance) -> Flow[None]:
        self.log(
            LogNote(
                f"The task was cleared. Terminating the instance it had started: {instance}", warning=True
            )
        )
        try:
            done = yield from actions.change_state(
                instance.id, "terminate", find=self.find, grace=self.request.grace
            )
        except InstanceNotFoundError as error:
            self.log(LogNote(f"{error.problem}; there is nothing left to terminate"))
        else:
            self.log(LogNote(done.note))

    def _start(self, start: StartInstance) -> Flow[StartResult]:
        operation = self.request.start(start.key)
        sent = StartRecord(
            generation=self.request.generation,
            max_tries=self.request.max_tries,
            intent_of=self.request.generation,
            since=self.request.since,
            key_example=self.endpoint.key_example,
            launch=start.launch,
            posted_at=self.clock(),
            strangers=start.preexisting_ids,
        )
        self.remember(sent)
        try:
            instance: BpmInstance = yield operation
        except CallError as error:
            if error.never_reached:
                self.remember(msgspec.structs.replace(sent, posted_at=None))
                raise
            if error.was_processed is not None:
                if start.preexisting_ids is not None:
                    self.remember(msgspec.structs.replace(sent, unproven=True))
                raise
            self.meter.count(AMBIGUOUS_STARTS)
            self.log(
                LogNote(
                    f"The answer to the start was lost; searching for the instance. {error}", warning=True
                )
            )
            instance = yield from self._recover(start, sent, error)
        self.meter.count(STARTS)
        if warning := self.endpoint.learn_key(start.key, instance):
            self.log(LogNote(warning, warning=True))
        known = msgspec.structs.replace(
            sent,
            instance_id=instance.id,
            posted_at=self.clock(),
            deadline=self.request.deadline(self.clock()),
            key_example=self.endpoint.key_example,
        )
        self.remember(known)
        self.log(LogNote(f"Started {instance}, business key {start.key!r}"))
        return StartResult(instance, known)

    def _recover(self, start: StartInstance, sent: StartRecord, failure: CallError) -> Flow[BpmInstance]:
        request = self.request
        is_ours_alone = request.business_key is None or start.preexisting_ids is not None
        recovery = yield from recover_lost_starts(
            {start.key: LostStart(request.bpm_name, is_ours_alone=is_ours_alone)},
            grace=request.grace,
            posted_at=self.clock() if sent.posted_at is None else sent.posted_at,
            clock=self.clock,
            existing=start.preexisting_ids or (),
            form=self.endpoint.key_form,
        )
        if start.key in recovery.instances:
            return recovery.instances[start.key]
        self.remember(msgspec.structs.replace(sent, told=True))
        lost = AmbiguousStartError(failure, start.key)
        lost.problem += f"; {recovery.doubts[start.key]}"
        raise lost from failure


def start_once(
    operation: Operation[BpmInstance], business_key: str | None, meter: Meter = NULL_METER
) -> Flow[BpmInstance]:
    """Start an instance outside of a task, where there is no retry.

    :param business_key: the instance's business key, for the error.
    :raises AmbiguousStartError: if it is unknown whether the instance was started.
    :raises CallError: if it was certainly not started.
    """
    try:
        instance: BpmInstance = yield operation
    except CallError as error:
        if error.was_processed is None:
            meter.count(AMBIGUOUS_STARTS)
            raise AmbiguousStartError(error, business_key) from error
        raise
    meter.count(STARTS)
    return instance
