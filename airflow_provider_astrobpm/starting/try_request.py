"""What a try of a task knows of earlier tries: which of the record it uses, and how it searches. For one start and for many.

How to search is decided by the first row that applies:

| what the try knows                                                     | it searches                           |
|------------------------------------------------------------------------|---------------------------------------|
| others may use its custom keys, and their instances count              | by business key                       |
| a try of this generation has recorded its instance                     | by that id                            |
| a try of this generation may have sent a start                         | by business key                       |
| an older generation has recorded its instance                          | by that id                            |
| a custom key, which a clear starts without a search                    | not at all                            |
| no record covers the older generations, or the record mentions a start | by business key, except in a first try|
| anything else                                                          | not at all                            |

Only a search by business key has to wait until every instance that an earlier try may have started shows in the lists.

Airflow runs a rescheduled try once more, with the same number. So a first try that was rescheduled is no first try here: a
process of it may have sent a start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Generic

import msgspec

from airflow_provider_astrobpm.client.timestamps import Placement
from airflow_provider_astrobpm.starting.generation import generation_of
from airflow_provider_astrobpm.starting.try_record import R

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.key_form import KeyForm
    from airflow_provider_astrobpm.client.key_search import KeyMatches
    from airflow_provider_astrobpm.starting.business_keys import TaskIdentity
    from airflow_provider_astrobpm.starting.try_record import TryRecord


class LookupMethod(Enum):
    """How a try searches for instances that earlier tries may have started."""

    NONE = "not at all"
    ID = "by its id"
    KEY = "by its business key"


@dataclass(frozen=True, kw_only=True)
class TaskTry:
    """A try of a task.

    :param generation: the number of the first try since the task was last cleared.
    :param since: the earliest time at which the task's first try can have begun, in seconds since the epoch, if known.
    :param max_tries: Airflow's ``max_tries`` of the task, if known.
    :param generation_is_certain: whether the sources for the generation agree.
    :param was_rescheduled: whether Airflow has run this try before, and then rescheduled it.
    """

    identity: TaskIdentity
    generation: int
    try_number: int
    since: float | None = None
    max_tries: int | None = None
    generation_is_certain: bool = True
    was_rescheduled: bool = False

    @property
    def is_first(self) -> bool:
        """Whether no process of this task can have run before."""
        return self.try_number <= 1 and not self.was_rescheduled

    @property
    def begins_generation(self) -> bool:
        """Whether no process of this generation can have run before."""
        return self.try_number <= self.generation and not self.was_rescheduled

    @classmethod
    def of(
        cls,
        identity: TaskIdentity,
        record: TryRecord | None,
        *,
        try_number: int,
        max_tries: int,
        retries: int,
        now: float,
        due: float | None,
        was_rescheduled: bool = False,
    ) -> Self:
        """Return a try by Airflow's numbers and the record of earlier tries.

        :param retries: the retries that the DAG gives the task now.
        :param due: when the DAG run was due, if known; with ``now``, in seconds since the epoch.
        :param was_rescheduled: whether Airflow has run this try before, and then rescheduled it.
        """
        number, is_certain = generation_of(
            record, try_number=try_number, max_tries=max_tries, retries=retries
        )
        began = due if record is None or record.since is None else record.since
        return cls(
            identity=identity,
            generation=number,
            try_number=try_number,
            since=now if try_number <= 1 and not was_rescheduled else began,
            max_tries=max_tries,
            generation_is_certain=is_certain,
            was_rescheduled=was_rescheduled,
        )

    def intent(self, record: R | None, kind: type[R]) -> R:
        """Return the record that this try writes before it does anything else, from that of earlier tries."""
        if record is None:
            return kind(
                generation=self.generation,
                max_tries=self.max_tries,
                is_unclear=not self.generation_is_certain,
                intent_of=self.generation if self.begins_generation else None,
                older_unknown=not self.is_first,
                since=self.since,
            )
        if record.generation != self.generation:
            return msgspec.structs.replace(record, intent_of=self.generation)
        # A record that was lost and rewritten proves nothing about starts that its generation sent before.
        intent_of = record.intent_of if record.older_unknown else self.generation
        return msgspec.structs.replace(record, intent_of=intent_of, max_tries=self.max_tries)


@dataclass(frozen=True, kw_only=True)
class TryRequest(TaskTry, ABC, Generic[R]):
    """Describes what one try of a task wants to start.

    :param keeps_open: whether an open instance of an older generation is adopted even if it was not left open on purpose.
    :param business_key: the author's own key, which others may use too; ``None`` for keys made from the task, and for a batch.
    :param accepts: returns whether a closed instance has succeeded, that is, ended as the task wants.
    :param timeout: seconds for the wait, which begins when everything is started.
    :param grace: seconds after which a started instance certainly shows in the lists.
    """

    keeps_open: bool = False
    business_key: str | None = None
    accepts: Callable[[BpmInstance], bool]
    timeout: float | None = None
    grace: float = 60

    @property
    @abstractmethod
    def searches_always(self) -> bool:
        """Whether even a first try searches, because others may use the keys."""

    @abstractmethod
    def new_matches(self, form: KeyForm | None, clock: Callable[[], float]) -> KeyMatches:
        """Return a collector for search results that keeps the instances that this request may be about."""

    @abstractmethod
    def taken_over(self, record: R) -> R:
        """Return what this generation keeps of an older generation's record when a person is asked to check."""

    def own(self, record: R | None) -> R | None:
        """Return the record if it belongs to this generation."""
        return record if record is not None and record.generation == self.generation else None

    def may_have_sent(self, record: R | None) -> bool:
        """Return whether a try of this generation may have sent a start."""
        own = self.own(record)
        # If a person was asked to search, an instance may exist although no record mentions a start.
        if own is not None and (own.instance_id is not None or own.posted_at is not None or own.told):
            return True
        if self.generation_is_certain and self.begins_generation:
            return False
        return record is None or not record.covers(self.generation)

    def is_answered(self, record: R | None) -> bool:
        """Return whether a person was asked to search, and has cleared the task since."""
        return record is not None and self.own(record) is None and record.told

    def record_person_asked(self, record: R | None, kind: type[R]) -> R:
        """Return the record to store after asking a person to check. It belongs to this generation, so only a clear answers."""
        begun = self.intent(record, kind)
        if self.own(record) is None:
            begun = msgspec.structs.replace(
                self.taken_over(begun),
                generation=self.generation,
                max_tries=self.max_tries,
                is_unclear=not self.generation_is_certain,
            )
        return msgspec.structs.replace(begun, told=True)

    def is_relevant(self, instance: BpmInstance) -> bool:
        """Return whether an instance is open or has succeeded. After a failed one the task starts another anyway."""
        return not instance.is_closed or self.accepts(instance)

    def deadline(self, now: float, recorded: float | None = None) -> float | None:
        """Return when the wait fails: as an earlier try has recorded, or by the time-out from now on."""
        return recorded if recorded is not None or self.timeout is None else now + self.timeout

    def place(
        self, record: R | None, matches: KeyMatches, instance: BpmInstance, generation: int
    ) -> Placement:
        """Return whether this run of the DAG may have started an instance. A deleted run with the same id used the same keys.

        :param generation: the generation in the instance's key.
        :returns: ``BEFORE`` if a deleted run has started it, ``UNKNOWN`` if its start time does not decide it.
        """
        if generation > self.try_number:
            return Placement.BEFORE
        own = self.own(record) if generation == self.generation else None
        moment = self.since if own is None or own.posted_at is None else own.posted_at
        placed = matches.place(instance, moment)
        if placed is not Placement.UNKNOWN:
            return placed
        if record is None or record.posted_at is None:
            return Placement.SINCE  # no record mentions a start, so nothing more precise is known
        return Placement.BEFORE if self.is_answered(record) else Placement.UNKNOWN


def choose_lookup(request: TryRequest[R], record: R | None) -> LookupMethod:
    """Return how to search, by the table above.

    :param record: the record as it was before this try wrote its intent.
    """
    if request.searches_always:
        return LookupMethod.KEY
    own = request.own(record)
    if own is not None and own.instance_id is not None:
        return LookupMethod.ID
    if request.may_have_sent(record):
        return LookupMethod.KEY
    # So nothing of this generation exists, but something of an older one may.
    if record is not None and record.instance_id is not None:
        return LookupMethod.ID
    if request.business_key is not None:
        return LookupMethod.NONE  # after a clear, "start" with the custom key starts unconditionally
    is_unknown = not request.is_first if record is None or record.older_unknown else record.mentions_start
    return LookupMethod.KEY if is_unknown else LookupMethod.NONE


def lookup_delay(request: TryRequest[R], record: R | None, now: float) -> float:
    """Return the seconds to wait until every instance that an earlier try may have started shows in the lists."""
    if choose_lookup(request, record) is not LookupMethod.KEY or (record is None and request.is_first):
        return 0.0
    if record is None or record.older_unknown:
        return request.grace  # no record shows when a start was sent
    return seconds_until_visible(request, record, now)


def seconds_until_visible(request: TryRequest[R], record: R, now: float) -> float:
    """Return the seconds until the instances of recorded starts are certainly visible; 0 if no start was sent.

    If a start was not answered, the server may have processed it late: it may have waited for a token or been throttled.
    """
    if record.posted_at is None:
        return 0.0
    if record.settled_at is None:
        return request.grace
    return min(request.grace, max(0.0, record.settled_at + request.grace - now))
