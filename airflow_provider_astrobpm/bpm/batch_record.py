"""What the tries of a batch tell each other, which of it counts for this one, and when it looks for more. No I/O."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from typing_extensions import Self

    from airflow_provider_astrobpm.bpm.identity import TaskIdentity
    from airflow_provider_astrobpm.bpm.instance import BpmInstance

SIGN = 4  # characters by which an instance of an author's own key is known
MOST_MET = 60_000  # launches that are noted as having met a condition
MOST_OWN_KEYS = (
    10_000  # launches where some have keys of the authors' own: Airflow bounds the length of a record
)


class BatchRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the tries of a batch tell each other."""

    generation: int
    """The number of the first try since the task was last cleared, as the writer had it."""
    begun_at: float | None = None
    """When the first start of this generation was about to be sent, in seconds since the epoch; ``None`` if none was."""
    answered_at: float | None = None
    """When no start was under way any more; ``None`` where a process may have died over some."""
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
    told: bool = False
    """Whether a person was asked to look for instances before clearing the task."""
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
    :param has_memory: whether records outlive a try.
    :param keeps_open: whether an open instance of an older generation is adopted whoever left it open.
    :param accepts: tells whether an instance that has ended is what the task is to bring about.
    :param own_keys: the authors' own business keys in the batch, by the numbers of their launches.
    :param timeout: seconds for the wait, which begins when everything was started.
    :param grace: seconds after which an instance that was started certainly shows in the lists.
    :param since: when the first try of the task began at the earliest, in seconds since the epoch, if that is known.
    """

    identity: TaskIdentity
    generation: int
    try_number: int
    has_memory: bool = True
    keeps_open: bool = False
    accepts: Callable[[BpmInstance], bool]
    own_keys: Mapping[int, str] = field(default_factory=dict)
    timeout: float | None = None
    grace: float = 60
    since: float | None = None

    def __post_init__(self) -> None:
        if max(self.own_keys, default=0) > MOST_OWN_KEYS:
            raise ValueError(
                f"a batch in which launches have a business_key of their own may have {MOST_OWN_KEYS} launches at most"
            )

    @cached_property
    def _keys(self) -> frozenset[str]:
        return frozenset(self.own_keys.values())

    def wants(self, instance: BpmInstance) -> bool:
        """Tell whether an instance carries a key that this batch is about."""
        key = instance.business_key
        return key in self._keys or self.identity.read_batch(key) is not None

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


def is_known(record: BatchRecord, number: int, instance: BpmInstance) -> bool:
    """Tell whether an instance that carries the author's own key is the one that a launch has started."""
    noted = (record.own or "")[SIGN * (number - 1) : SIGN * number]
    return noted == _sign(str(instance.business_key), instance.id)


def _sign(*texts: str, length: int = SIGN) -> str:
    whole = hashlib.sha256("\0".join(texts).encode(errors="surrogatepass")).digest()
    return base64.urlsafe_b64encode(whole).decode()[:length]


def seconds_to_look(order: BatchOrder, record: BatchRecord | None, now: float) -> float | None:
    """Return after how many seconds to look for what was started before; ``None`` where nothing can have been.

    :param record: what earlier tries have written down, if they did.
    :param now: the time, in seconds since the epoch.
    """
    if record is None:
        if order.try_number <= 1:
            return 0.0 if order.own_keys else None
        return 0.0 if order.has_memory else order.grace
    if record.begun_at is None:
        return 0.0
    # Where a process died over its starts nobody knows when the last of them was taken.
    since = now if record.answered_at is None else record.answered_at
    return min(order.grace, max(0.0, since + order.grace - now))


def asked(order: BatchOrder, record: BatchRecord | None) -> BatchRecord:
    """Return what is written down when a person was asked to look: for this generation, so that only a clear answers."""
    known = order.goes_on(record)
    if known is None:
        begun_at = record.begun_at if record else None
        return BatchRecord(generation=order.generation, begun_at=begun_at, told=True)
    return msgspec.structs.replace(
        known, generation=order.generation, told=True, goes_on_from=order.goes_on_from(known)
    )
