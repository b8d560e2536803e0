"""Runs a batch: each launch gets one instance, even after a crash. ``decision`` and ``instance_starter`` do the same for one start.

A try searches once for the whole batch if earlier tries may have started anything. Then it decides, terminates the open
instances of older generations that no launch has adopted, and starts what is missing. It records what it is about to do
beforehand, and what it has done afterwards.
"""

from __future__ import annotations

import asyncio
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from airflow_provider_astrobpm.batches import bulk_change
from airflow_provider_astrobpm.batches.batch_account import BatchCounts
from airflow_provider_astrobpm.batches.batch_decision import BatchDecider, StartLaunch
from airflow_provider_astrobpm.batches.batch_record import BatchRecord
from airflow_provider_astrobpm.client import key_search
from airflow_provider_astrobpm.client.errors import (
    AmbiguousStartError,
    AstroZeroError,
    AuthenticationError,
    BatchChangedError,
    CallError,
    RefusedError,
)
from airflow_provider_astrobpm.client.log_note import LogNote
from airflow_provider_astrobpm.client.metrics import ADOPTIONS
from airflow_provider_astrobpm.starting import try_request
from airflow_provider_astrobpm.starting.decision_table import AdoptInstance
from airflow_provider_astrobpm.starting.try_request import LookupMethod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_provider_astrobpm.batches.batch_input import AuthorFields, Launch
    from airflow_provider_astrobpm.batches.batch_record import BatchRequest
    from airflow_provider_astrobpm.batches.batch_sender import BatchSender
    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.key_search import KeyMatches

UNKNOWN_STARTS_ADVICE = "It is unknown whether an earlier try has started instances. A retry searches again."


class BatchStartResult(NamedTuple):
    """The instances of a batch, and the record to store for them."""

    total: int
    """The number of launches, as far as the input was read."""
    instances: dict[int, BpmInstance]
    """The started and adopted instances, by the numbers of their launches."""
    refused: dict[int, RefusedError]
    """The refusals of the server, by the numbers of the launches."""
    met: frozenset[int]
    """The launches that met the condition in an earlier try. Later changes of their instances do not matter."""
    record: BatchRecord
    author_fields: Sequence[AuthorFields] = ()
    """The author's fields of each launch, in order."""


@dataclass
class BatchRun:
    """Starts or adopts the instances of a batch.

    :param launches: returns the launches from the beginning, each time it is called.
    :param sender: sends the starts; its client, log and clock serve for everything else.
    :param remember: stores a record durably, so that later tries have it even if this process dies right after.
    :param total: the number of launches, if known. Then every launch is decided before the first start.
    :param may_be_refused: how many launches may be refused before no more are started; ``None`` for any number.
    """

    request: BatchRequest
    launches: Callable[[], Iterator[Launch]]
    _: KW_ONLY
    sender: BatchSender
    remember: Callable[[BatchRecord], None]
    total: int | None = None
    may_be_refused: int | None = None
    with_variables: bool = False
    _read: int = 0
    _said: list[AuthorFields] = field(default_factory=list)
    _adopted: dict[int, BpmInstance] = field(default_factory=dict)
    _had_begun: bool = False

    @property
    def instances(self) -> dict[int, BpmInstance]:
        """The instances adopted or started so far, by the numbers of their launches."""
        return self._adopted | self.sender.state.instances

    @property
    def under_way(self) -> int:
        """The number of starts being sent."""
        return self.sender.state.under_way

    def stop(self, reason: Exception) -> None:
        """Start no more launches. ``launch`` raises the reason once the pending starts are answered. Thread-safe."""
        self.sender.state.stop(reason)

    async def launch(self, record: BatchRecord | None) -> BatchStartResult:
        """Adopt what earlier tries of the batch have started, and start what is missing.

        :param record: the record as it was before this try wrote its intent.
        :raises AmbiguousStartError: if it is unknown whether some launches were started.
        :raises BatchChangedError: if the launches differ from those that an earlier try has started.
        :raises CallError: if a call stopped the batch.
        :raises ValueError: for a launch that cannot be started.
        """
        try:
            return await self._launch(record)
        except AstroZeroError as error:
            error.connection = error.connection or self.sender.client.settings.connection
            raise

    async def _launch(self, record: BatchRecord | None) -> BatchStartResult:
        if record is not None:
            self.sender.endpoint.key_example = self.sender.endpoint.key_example or record.key_example
        try:
            matches = await self._search(record)
            decider = BatchDecider(self.request, record, matches, form=self.sender.endpoint.key_form)
            keys = self._decide_all(decider) if self.total is not None else None
            is_resumed = self.request.oldest(record) != self.request.generation
            begins_again = not (is_resumed or self.request.keeps_open)
            if keys is not None or begins_again:  # else the older instances count until the input is read
                await self._terminate(decider.superseded())
        except AmbiguousStartError:
            await self._write_record(self.request.record_person_asked(record, BatchRecord))
            raise
        begun = self._new_record(record, decider)
        to_start = None if keys is None else len(keys) - keys.count(None)
        if to_start != 0:
            await self._start(
                self._starts(decider, keys), msgspec.structs.replace(begun, answered_at=None), to_start
            )
            begun = self._answered(begun)
        if to_start is None:
            await self._terminate(decider.superseded())
        self.sender.client.meter.count(ADOPTIONS, len(self._adopted))
        done = msgspec.structs.replace(
            begun,
            own=self.request.instance_signatures(self.instances),
            deadline=self.request.deadline(self.sender.clock(), begun.deadline),
            unfinished=False,
        )
        await self._write_record(done)
        return BatchStartResult(
            total=self.total or self._read,
            instances=self.instances,
            refused=self.sender.state.refused,
            met=decider.met & self._adopted.keys(),
            record=done,
            author_fields=self._said,
        )

    async def _write_record(self, record: BatchRecord) -> None:
        # Use another thread: Airflow does not expect blocking requests from a thread that runs an event loop.
        await asyncio.to_thread(self.remember, record)

    async def _search(self, record: BatchRecord | None) -> KeyMatches | None:
        """Find all instances with a key of the batch, if there can be any."""
        if try_request.choose_lookup(self.request, record) is LookupMethod.NONE:
            return None
        if (seconds := try_request.lookup_delay(self.request, record, self.sender.clock())) > 0:
            words = f"Waiting {seconds:.0f} s before the search, until every instance of earlier tries shows"
            self.sender.log(LogNote(words))
            await self.sender.sleep(seconds)
        try:
            matches = self.request.new_matches(self.sender.endpoint.key_form, self.sender.clock)
            search = key_search.find_matches(matches, is_enough=partial(self._is_complete, record))
            return await self.sender.client.run(search)
        except AuthenticationError:
            raise
        except CallError as error:
            if self.request.is_first:
                raise
            key = f"{self.request.identity.batch_prefix}…"
            raise AmbiguousStartError(error, key, UNKNOWN_STARTS_ADVICE) from error

    def _is_complete(self, record: BatchRecord | None, matches: KeyMatches) -> bool:
        """Return whether every launch has an open or succeeded instance, so that none can be missing."""
        found = matches.instances.values()
        keys = {one.business_key for one in found if not one.is_closed or self.request.accepts(one)}
        if self.total is None or len(keys) < self.total:
            return False
        # Other instances may have such keys too.
        try:
            decider = BatchDecider(self.request, record, matches, form=self.sender.endpoint.key_form)
            return all(isinstance(decider.decide(launch), AdoptInstance) for launch in self.launches())
        except AstroZeroError:
            return False

    def _answered(self, begun: BatchRecord) -> BatchRecord:
        """Return the record for starts that are all answered."""
        is_begun = self._had_begun or self._adopted or self.sender.state.has_reached_server
        return msgspec.structs.replace(
            begun,
            posted_at=begun.posted_at if is_begun else None,
            answered_at=self.sender.clock(),
            unproven=begun.unproven or self.sender.state.is_unproven,
            own=self.request.instance_signatures(self.instances),
            key_example=self.sender.endpoint.key_example,
        )

    def _decide_all(self, decider: BatchDecider) -> list[str | None]:
        """Decide every launch before the first start. Return its business key, or ``None`` for an adopted launch."""
        keys: list[str | None] = []
        doubts: list[AmbiguousStartError] = []
        for launch in self.launches():
            try:
                keys.append(self._decide(decider, launch))
            except AmbiguousStartError as error:
                doubts.append(error)
            except BatchChangedError:
                if doubts:
                    break
                raise
        if doubts:
            account = BatchCounts(self.total, self._adopted, in_doubt=len(doubts))
            doubts[0].problem += f"; {account}"
            raise doubts[0]
        decider.check_none_missing()
        if self._adopted:
            words = (
                f"Adopted the instances of {len(self._adopted)} of {len(keys)} launches; starting the others"
            )
            self.sender.log(LogNote(words))
        return keys

    async def _terminate(self, superseded: list[BpmInstance]) -> None:
        if not superseded:
            return
        words = f"The task was cleared. Terminating {len(superseded)} instances that it had started"
        self.sender.log(LogNote(words))
        change = await bulk_change.change_all(
            self.sender.client,
            {one.id: one.state for one in superseded},
            "terminate",
            max_concurrency=self.sender.state.max_concurrency,
            log=self.sender.log,
            clock=self.sender.clock,
        )
        if not change.is_complete:
            error = AstroZeroError(
                f"Instances that this task had started could not be terminated: {change.note}"
            )
            error.advice = "A retry terminates the rest."
            raise error
        self.sender.log(LogNote(change.note, warning=bool(change.failed)))

    def _new_record(self, record: BatchRecord | None, decider: BatchDecider) -> BatchRecord:
        request, own = self.request, self.request.own(record)
        known = request.resumable_record(record)
        posted_at = own.posted_at if own else None
        if posted_at is None and not request.is_first and (record is None or record.older_unknown):
            posted_at = request.since or 0.0  # earlier tries may have begun it
        self._had_begun = posted_at is not None
        return BatchRecord(
            generation=request.generation,
            max_tries=request.max_tries,
            intent_of=request.generation,
            since=request.since,
            key_example=self.sender.endpoint.key_example,
            unproven=own is not None and own.unproven,
            posted_at=self.sender.clock() if posted_at is None else posted_at,
            answered_at=own.answered_at if own else None,
            own_keys=request.keys_signature(),
            own=request.instance_signatures(self._adopted),
            strangers=decider.preexisting_ids if request.own_keys else None,
            met=known.met if known else None,
            # The deadline of a failed wait has no meaning any more: a new wait begins now.
            deadline=own.deadline if own and not (own.unfinished and own.answered_at) else None,
            unfinished=True,
            goes_on_from=request.goes_on_from(record) if request.generation_is_certain else 1,
        )

    async def _start(self, starts: Iterator[StartLaunch], begun: BatchRecord, to_start: int | None) -> None:
        await self._write_record(begun)
        try:
            await self.sender.start(starts, to_start, preexisting_ids=begun.strangers)
        except Exception as error:
            if isinstance(error, AmbiguousStartError):
                await self._write_record(msgspec.structs.replace(begun, told=True))
            elif not self.sender.state.in_doubt and not self.under_way:
                await self._write_record(self._answered(begun))
            raise

    def _decide(self, decider: BatchDecider, launch: Launch) -> str | None:
        """Return the business key of a launch to start, or ``None`` if its instance is adopted."""
        self._said.append(launch.author_fields(with_variables=self.with_variables))
        decision = decider.decide(launch)
        if isinstance(decision, StartLaunch):
            return decision.key
        self._adopted[launch.number] = decision.instance
        return None

    def _starts(self, decider: BatchDecider, keys: list[str | None] | None) -> Iterator[StartLaunch]:
        """Return the starts, decided launch by launch while reading the input unless they are decided already."""
        for launch in self.launches():
            self._read = launch.number
            if keys is None and launch.business_key is not None:
                # Other instances with that key must be known before the first start.
                raise ValueError(
                    f"launch {launch.number} has a business_key of its own, which needs validate_first=True"
                )
            key = self._decide(decider, launch) if keys is None else keys[launch.number - 1]
            if key is not None:
                if self._are_too_many_refused():
                    return
                yield StartLaunch(launch, key)
        if keys is None:
            decider.check_none_missing()

    def _are_too_many_refused(self) -> bool:
        refused = len(self.sender.state.refused)
        if self.may_be_refused is None or refused <= self.may_be_refused:
            return False
        self.sender.log(LogNote(f"{refused} launches were refused, so no more are started", warning=True))
        return True
