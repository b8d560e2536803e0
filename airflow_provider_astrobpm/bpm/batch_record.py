"""What the tries of a batch tell each other, which of it counts for this one, and when it looks for more. No I/O."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from airflow_provider_astrobpm.bpm.key_form import KeyForms
from airflow_provider_astrobpm.bpm.key_search import KeyMatches
from airflow_provider_astrobpm.bpm.try_record import TryRecord, with_intent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from typing_extensions import Self

    from airflow_provider_astrobpm.bpm.identity import TaskIdentity
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.key_form import KeyForm

SIGN = 4  # characters by which an instance of an author's own key is known
MOST_MET = 60_000  # launches that are noted as having met a condition
MOST_OWN_KEYS = (
    10_000  # launches where some have keys of the authors' own: Airflow bounds the length of a record
)


class BatchRecord(TryRecord, frozen=True, kw_only=True, omit_defaults=True):
    """What the tries of a batch tell each other."""

    begun_at: float | None = None
    """When the first start of this generation was about to be sent, in seconds since the epoch; ``None`` if none was."""
    answered_at: float | None = None
    """When no start was under way any more; ``None`` where a process may have died over some."""
    unproven: bool = False
    """Whether starts with keys of the authors' own were refused or throttled: they may have been carried out all the same."""
    own_keys: str | None = None
    """What tells whether the authors' own keys are still the same ones, in the same places."""
    own: str | None = None
    """The signs of the instances of such keys, as many characters for each launch as a sign has."""
    strangers: tuple[str, ...] | None = None
    """The ids that carried such keys before the starts that may be under way; ``None`` where nobody knows."""
    met: str | None = None
    """The launches that have met a condition which may pass by: a bit for each, in hexadecimal digits."""
    deadline: float | None = None
    """When the wait fails, in seconds since the epoch."""
    unfinished: bool = False
    """Whether a clear goes on with the batch: its starts are under way, or its last try has failed."""
    goes_on_from: int | None = None
    """The oldest generation that this one goes on with, if it goes on with one."""

    def failed(self, *, unfinished: bool, met: Iterable[int] = ()) -> Self:
        """Return the record of a try that has failed.

        :param unfinished: whether a clear goes on with the batch.
        :param met: the launches that have met a condition which may pass by.
        """
        bits = sum(1 << number for number in self.numbers_met().union(met))
        # What would be too long is left out: then those are judged by what they are by then.
        noted = f"{bits:x}" if 0 < bits.bit_length() < MOST_MET else None
        return msgspec.structs.replace(self, unfinished=unfinished, met=noted)

    def numbers_met(self) -> frozenset[int]:
        """Return the launches that have met the condition."""
        bits = f"{int(self.met or '0', 16):b}"
        return frozenset(number for number, bit in enumerate(reversed(bits)) if bit == "1")


@dataclass(frozen=True, kw_only=True)
class BatchOrder:
    """A batch that is to be started, for which try of which task.

    :param identity: the task.
    :param generation: the number of the first try since the task was last cleared.
    :param try_number: the number of this try.
    :param keeps_open: whether an open instance of an older generation is adopted whoever left it open.
    :param accepts: tells whether an instance that has ended is what the task is to bring about.
    :param own_keys: the authors' own business keys in the batch, by the numbers of their launches.
    :param timeout: seconds for the wait, which begins when everything was started.
    :param grace: seconds after which an instance that was started certainly shows in the lists.
    :param since: when the first try of the task began at the earliest, in seconds since the epoch, if that is known.
    :param max_tries: Airflow's ``max_tries`` of the task, if that is known.
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
        if max(self.own_keys, default=0) > MOST_OWN_KEYS:
            raise ValueError(
                f"a batch in which launches have a business_key of their own may have {MOST_OWN_KEYS} launches at most"
            )

    def new_matches(self, form: KeyForm | None, clock: Callable[[], float]) -> KeyMatches:
        """Return what takes the rows of a search for the instances that this batch is about.

        :param form: what the endpoint makes of business keys, where that is known.
        :param clock: the time, in seconds since the epoch.
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
        """Return what recognises the authors' own keys."""
        return KeyForms(self.own_keys.values(), form)

    def has_sent_nothing(self, record: BatchRecord | None) -> bool:
        """Return whether certainly no try of this generation has sent a start, where no record of one is there."""
        if self.generation_is_certain and self.try_number <= self.generation:
            return True
        return record is not None and record.tells_of(self.generation)

    def may_have_sent(self, record: BatchRecord | None) -> bool:
        """Return whether a try of this generation may have sent a start."""
        own = self.own(record)
        if own is not None and (own.begun_at is not None or own.told):
            return True
        return not self.has_sent_nothing(record)

    def own(self, record: BatchRecord | None) -> BatchRecord | None:
        """Return a record if it is of this generation."""
        return record if record is not None and record.generation == self.generation else None

    def goes_on(self, record: BatchRecord | None) -> BatchRecord | None:
        """Return a record if this generation goes on with what it tells of."""
        return record if record is not None and (record.unfinished or self.own(record)) else None

    def oldest(self, record: BatchRecord | None) -> int:
        """Return the oldest generation whose instances are this one's too."""
        if (known := self.goes_on(record)) is None:
            return self.generation
        return known.generation if known.goes_on_from is None else known.goes_on_from

    def goes_on_from(self, record: BatchRecord | None) -> int | None:
        """Return the oldest generation that this one goes on with, if it goes on with an older one."""
        oldest = self.oldest(record)
        return oldest if oldest < self.generation else None

    def sign_of_keys(self) -> str | None:
        """Return what tells whether the authors' own keys are still the same."""
        return _sign(*map(str, self.own_keys), *self.own_keys.values(), length=16) if self.own_keys else None

    def signs_of(self, instances: Mapping[int, BpmInstance]) -> str | None:
        """Return by what the instances of the authors' own keys are known later, as a record has it.

        :param instances: what was started, by the numbers of the launches.
        """
        if not self.own_keys:
            return None
        of_each = {
            number: _sign(key, instances[number].id)
            for number, key in self.own_keys.items()
            if number in instances
        }
        return "".join(of_each.get(number, "-" * SIGN) for number in range(1, max(self.own_keys) + 1))


def is_known(record: BatchRecord, number: int, key: str, instance: BpmInstance) -> bool:
    """Return whether an instance that carries the author's own key is the one that a launch has started.

    :param key: the key as it was sent.
    """
    noted = (record.own or "")[SIGN * (number - 1) : SIGN * number]
    return noted == _sign(key, instance.id)


def _sign(*texts: str, length: int = SIGN) -> str:
    whole = hashlib.sha256("\0".join(texts).encode(errors="surrogatepass")).digest()
    return base64.urlsafe_b64encode(whole).decode()[:length]


def seconds_to_look(order: BatchOrder, record: BatchRecord | None, now: float) -> float | None:
    """Return after how many seconds to look for what was started before; ``None`` where nothing can have been.

    :param record: what was there before this try wrote anything.
    :param now: the time, in seconds since the epoch.
    """
    if order.try_number <= 1:
        return 0.0 if order.own_keys else None
    if record is None or record.older_unknown or not (order.own(record) or order.has_sent_nothing(record)):
        return order.grace  # nothing tells when a start was sent
    if record.begun_at is None:
        # Where a person was asked to look, something may be there though no record tells of a start.
        return 0.0 if record.told or order.own_keys or record.goes_on_from is not None else None
    # Where a process died over its starts nobody knows when the last of them was taken.
    since = now if record.answered_at is None else record.answered_at
    return min(order.grace, max(0.0, since + order.grace - now))


def asked(order: BatchOrder, record: BatchRecord | None) -> BatchRecord:
    """Return the record to store after asking a person to check. It belongs to this generation, so only a clear answers."""
    known = order.goes_on(record)
    begun = with_intent(
        record,
        BatchRecord,
        generation=order.generation,
        max_tries=order.max_tries,
        try_number=order.try_number,
        since=order.since,
    )
    base = BatchRecord(generation=order.generation)
    if known is not None:
        base = msgspec.structs.replace(known, goes_on_from=order.goes_on_from(known))
    elif record is not None:
        base = msgspec.structs.replace(base, begun_at=record.begun_at, key_example=record.key_example)
    return msgspec.structs.replace(
        base,
        generation=order.generation,
        max_tries=order.max_tries,
        is_unclear=not order.generation_is_certain,
        intent_of=begun.intent_of,
        older_unknown=begun.older_unknown,
        since=begun.since,
        told=True,
    )
