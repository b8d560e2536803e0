"""The record that the tries of a batch share: what it holds, which of it a try uses, and when to search for more. No I/O."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from airflow_provider_astrobpm.client.key_form import KeyForms
from airflow_provider_astrobpm.client.key_search import KeyMatches
from airflow_provider_astrobpm.starting.try_record import TryRecord, recorded_intent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from typing_extensions import Self

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.key_form import KeyForm
    from airflow_provider_astrobpm.starting.business_keys import TaskIdentity

SIGNATURE_LENGTH = (
    4  # characters of an instance's signature, by which it is recognised as the one of a custom key
)
MAX_SATISFIED_LAUNCHES = 60_000  # launches that a record can mark as satisfied
MAX_LAUNCHES_WITH_CUSTOM_KEYS = (
    10_000  # launches in a batch in which some have custom keys: Airflow limits the length of a record
)


class BatchRecord(TryRecord, frozen=True, kw_only=True, omit_defaults=True):
    """What a try of a batch writes down for later tries."""

    begun_at: float | None = None
    """When the first start of this generation was about to be sent, in seconds since the epoch; ``None`` if none was sent."""
    answered_at: float | None = None
    """When the last start had been answered, in seconds since the epoch; ``None`` if a process may have died before that."""
    unproven: bool = False
    """Whether starts with custom keys were refused or throttled: the server may have carried them out anyway."""
    own_keys: str | None = None
    """A signature of the custom keys and their places. It changes if a key or a place changes."""
    own: str | None = None
    """The signatures of the instances with custom keys, one of fixed length for each launch."""
    strangers: tuple[str, ...] | None = None
    """The ids of instances that had custom keys before the pending starts; ``None`` if unknown."""
    met: str | None = None
    """The launches that have met a condition that may cease to hold: one bit each, in hexadecimal digits."""
    deadline: float | None = None
    """When the wait fails, in seconds since the epoch."""
    unfinished: bool = False
    """Whether clearing the task resumes the batch: starts are pending, or the last try has failed."""
    goes_on_from: int | None = None
    """The oldest generation that this one resumes; ``None`` if it resumes none."""

    def failed(self, *, unfinished: bool, met: Iterable[int] = ()) -> Self:
        """Return the record of a try that has failed.

        :param unfinished: whether clearing the task resumes the batch.
        :param met: the launches that have met a condition that may cease to hold.
        """
        bits = sum(1 << number for number in self.satisfied_launches().union(met))
        # A mark that would be too long is left out. Those launches are then judged by their state at that time.
        marked = f"{bits:x}" if 0 < bits.bit_length() < MAX_SATISFIED_LAUNCHES else None
        return msgspec.structs.replace(self, unfinished=unfinished, met=marked)

    def satisfied_launches(self) -> frozenset[int]:
        """Return the launches that have met the condition."""
        bits = f"{int(self.met or '0', 16):b}"
        return frozenset(number for number, bit in enumerate(reversed(bits)) if bit == "1")


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """Describes the batch that one try of a task wants to start.

    :param identity: the task.
    :param generation: the number of the first try since the task was last cleared.
    :param try_number: the number of this try.
    :param keeps_open: whether an open instance of an older generation is adopted even if it was not left open on purpose.
    :param accepts: returns whether a closed instance has succeeded, that is, ended as the task wants.
    :param own_keys: the custom business keys, which authors chose, by the numbers of their launches.
    :param timeout: seconds for the wait, which begins when all launches are started.
    :param grace: seconds after which a started instance certainly shows in the lists.
    :param since: the earliest time at which the task's first try can have begun, in seconds since the epoch, if known.
    :param max_tries: Airflow's ``max_tries`` of the task, if known.
    :param generation_is_certain: whether the sources for the generation agree.
    """

    identity: TaskIdentity
    generation: int
    try_number: int
    keeps_open: bool = False
    accepts: Callable[[BpmInstance], bool]
    own_keys: Mapping[int, str] = field(default_factory=dict)
    timeout: float | None = None
    grace: float = 60
    since: float | None = None
    max_tries: int | None = None
    generation_is_certain: bool = True

    def __post_init__(self) -> None:
        if max(self.own_keys, default=0) > MAX_LAUNCHES_WITH_CUSTOM_KEYS:
            raise ValueError(
                f"a batch in which launches have a business_key of their own may have at most {MAX_LAUNCHES_WITH_CUSTOM_KEYS} launches"
            )

    def new_matches(self, form: KeyForm | None, clock: Callable[[], float]) -> KeyMatches:
        """Return a collector for search results that keeps the instances that this batch may be about.

        :param form: how the endpoint changes business keys, if known.
        :param clock: returns the time, in seconds since the epoch.
        """
        keys = self.authors_keys(form)
        return KeyMatches(
            lambda one: (
                self.identity.read_batch(one.business_key) is not None
                or keys.sent(one.business_key) is not None
            ),
            resembles=lambda key: self.identity.resembles_batch(key) or keys.resembles(key),
            clock=clock,
        )

    def authors_keys(self, form: KeyForm | None) -> KeyForms:
        """Return the custom keys, ready to be recognised in the form in which the endpoint shows them."""
        return KeyForms(self.own_keys.values(), form)

    def has_sent_nothing(self, record: BatchRecord | None) -> bool:
        """Return whether, in the absence of a record of a start, certainly no try of this generation has sent one."""
        if self.generation_is_certain and self.try_number <= self.generation:
            return True
        return record is not None and record.covers(self.generation)

    def may_have_sent(self, record: BatchRecord | None) -> bool:
        """Return whether a try of this generation may have sent a start."""
        own = self.own(record)
        if own is not None and (own.begun_at is not None or own.told):
            return True
        return not self.has_sent_nothing(record)

    def own(self, record: BatchRecord | None) -> BatchRecord | None:
        """Return the record if it belongs to this generation."""
        return record if record is not None and record.generation == self.generation else None

    def resumable_record(self, record: BatchRecord | None) -> BatchRecord | None:
        """Return the record if this generation resumes the batch it describes."""
        return record if record is not None and (record.unfinished or self.own(record)) else None

    def oldest(self, record: BatchRecord | None) -> int:
        """Return the oldest generation whose instances also belong to this one."""
        if (known := self.resumable_record(record)) is None:
            return self.generation
        return known.generation if known.goes_on_from is None else known.goes_on_from

    def goes_on_from(self, record: BatchRecord | None) -> int | None:
        """Return the oldest generation that this one resumes, or ``None`` if it resumes none."""
        oldest = self.oldest(record)
        return oldest if oldest < self.generation else None

    def keys_signature(self) -> str | None:
        """Return a signature of the custom keys and their places."""
        return (
            _signature(*map(str, self.own_keys), *self.own_keys.values(), length=16)
            if self.own_keys
            else None
        )

    def instance_signatures(self, instances: Mapping[int, BpmInstance]) -> str | None:
        """Return the signatures by which a later try recognises the instances with custom keys.

        :param instances: the started instances, by the numbers of their launches.
        """
        if not self.own_keys:
            return None
        of_each = {
            number: _signature(key, instances[number].id)
            for number, key in self.own_keys.items()
            if number in instances
        }
        return "".join(
            of_each.get(number, "-" * SIGNATURE_LENGTH) for number in range(1, max(self.own_keys) + 1)
        )


def is_recorded_instance(record: BatchRecord, number: int, key: str, instance: BpmInstance) -> bool:
    """Return whether an instance with a custom key is the one that a launch has started.

    :param key: the key as sent.
    """
    marked = (record.own or "")[SIGNATURE_LENGTH * (number - 1) : SIGNATURE_LENGTH * number]
    return marked == _signature(key, instance.id)


def _signature(*texts: str, length: int = SIGNATURE_LENGTH) -> str:
    whole = hashlib.sha256("\0".join(texts).encode(errors="surrogatepass")).digest()
    return base64.urlsafe_b64encode(whole).decode()[:length]


def lookup_delay(request: BatchRequest, record: BatchRecord | None, now: float) -> float | None:
    """Return the seconds to wait before searching for earlier instances; ``None`` if there can be none.

    :param record: the record as it was before this try wrote anything.
    :param now: the time, in seconds since the epoch.
    """
    if request.try_number <= 1:
        return 0.0 if request.own_keys else None
    if (
        record is None
        or record.older_unknown
        or not (request.own(record) or request.has_sent_nothing(record))
    ):
        return request.grace  # no record shows when a start was sent
    if record.begun_at is None:
        # If a person was asked to search, an instance may exist although no record mentions a start.
        return 0.0 if record.told or request.own_keys or record.goes_on_from is not None else None
    # If a process died while starts were pending, the server may have processed the last of them at any time since.
    since = now if record.answered_at is None else record.answered_at
    return min(request.grace, max(0.0, since + request.grace - now))


def record_person_asked(request: BatchRequest, record: BatchRecord | None) -> BatchRecord:
    """Return the record to store after asking a person to check. It belongs to this generation, so only a clear answers."""
    known = request.resumable_record(record)
    begun = recorded_intent(
        record,
        BatchRecord,
        generation=request.generation,
        max_tries=request.max_tries,
        try_number=request.try_number,
        since=request.since,
    )
    base = BatchRecord(generation=request.generation)
    if known is not None:
        base = msgspec.structs.replace(known, goes_on_from=request.goes_on_from(known))
    elif record is not None:
        base = msgspec.structs.replace(base, begun_at=record.begun_at, key_example=record.key_example)
    return msgspec.structs.replace(
        base,
        generation=request.generation,
        max_tries=request.max_tries,
        is_unclear=not request.generation_is_certain,
        intent_of=begun.intent_of,
        older_unknown=begun.older_unknown,
        since=begun.since,
        told=True,
    )
