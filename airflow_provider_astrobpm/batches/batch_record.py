"""The record that the tries of a batch share: what it holds, and which of it a try uses. No I/O."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import msgspec

from airflow_provider_astrobpm.client.key_form import KeyForms
from airflow_provider_astrobpm.client.key_search import KeyMatches
from airflow_provider_astrobpm.starting.try_record import Seconds, TryRecord
from airflow_provider_astrobpm.starting.try_request import TryRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from typing_extensions import Self

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.key_form import KeyForm

# Airflow limits the length of a record.
SIGNATURE_LENGTH = 4  # characters by which an instance is recognised as the one of a custom key
MAX_SATISFIED_LAUNCHES = 60_000  # launches that a record can mark as satisfied
MAX_LAUNCHES_WITH_CUSTOM_KEYS = 10_000  # launches in a batch in which some have custom keys


class BatchRecord(TryRecord, frozen=True, kw_only=True, omit_defaults=True):
    """What a try of a batch writes down for later tries."""

    posted_at: Seconds | None = msgspec.field(default=None, name="begun_at")
    answered_at: Seconds | None = None
    """When the last start had been answered, in seconds since the epoch; ``None`` if a process may have died before that."""
    own_keys: str | None = None
    """A signature of the custom keys and their places. It changes if a key or a place changes."""
    own: str | None = None
    """The signatures of the instances with custom keys, one of fixed length for each launch."""
    met: (
        Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]+\Z", max_length=MAX_SATISFIED_LAUNCHES // 4)] | None
    ) = None
    """The launches that have met a condition that may cease to hold: one bit each, in hexadecimal digits."""
    unfinished: bool = False
    """Whether clearing the task resumes the batch: starts are pending, or the last try has failed."""
    goes_on_from: int | None = None
    """The oldest generation that this one resumes; ``None`` if it resumes none."""

    @property
    def settled_at(self) -> float | None:
        """When the last start had been answered, in seconds since the epoch; ``None`` if an answer may be missing."""
        return self.answered_at

    @property
    def mentions_start(self) -> bool:
        """Whether an instance may exist that a start in this record has made."""
        return self.posted_at is not None or self.goes_on_from is not None

    def failed(self, *, unfinished: bool, met: Iterable[int] = ()) -> Self:
        """Return the record of a try that has failed.

        :param unfinished: whether clearing the task resumes the batch.
        :param met: the launches that have met a condition that may cease to hold.
        """
        marked = self.satisfied_launches().union(met)
        # A mark that would be too long is left out. Those launches are then judged by their state at that time.
        fits = 0 < max(marked, default=0) < MAX_SATISFIED_LAUNCHES
        digits = f"{sum(1 << number for number in marked):x}" if fits else None
        return msgspec.structs.replace(self, unfinished=unfinished, met=digits)

    def satisfied_launches(self) -> frozenset[int]:
        """Return the launches that have met the condition."""
        bits = f"{int(self.met or '0', 16):b}"
        return frozenset(number for number, bit in enumerate(reversed(bits)) if bit == "1")


@dataclass(frozen=True, kw_only=True)
class BatchRequest(TryRequest[BatchRecord]):
    """Describes the batch that one try of a task wants to start.

    :param own_keys: the custom business keys, which authors chose, by the numbers of their launches.
    """

    own_keys: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if max(self.own_keys, default=0) > MAX_LAUNCHES_WITH_CUSTOM_KEYS:
            raise ValueError(
                f"a batch in which launches have a business_key of their own may have at most {MAX_LAUNCHES_WITH_CUSTOM_KEYS} launches"
            )

    @property
    def searches_always(self) -> bool:
        """Whether even a first try searches, because others may use the keys."""
        return bool(self.own_keys)

    def new_matches(self, form: KeyForm | None, clock: Callable[[], float]) -> KeyMatches:
        """Return a collector for the instances that have a key of this batch."""
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

    def taken_over(self, record: BatchRecord) -> BatchRecord:
        """Return what this generation keeps of an older generation's record when a person is asked to check."""
        if self.resumable_record(record) is not None:
            return msgspec.structs.replace(record, goes_on_from=self.goes_on_from(record))
        kept = ("generation", "intent_of", "older_unknown", "since", "key_example", "posted_at")
        return BatchRecord(**{name: getattr(record, name) for name in kept})

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
        if not self.own_keys:
            return None
        return _signature(*map(str, self.own_keys), *self.own_keys.values(), length=16)

    def instance_signatures(self, instances: Mapping[int, BpmInstance]) -> str | None:
        """Return the signatures by which a later try recognises the instances with custom keys, by launch number."""
        if not self.own_keys:
            return None
        signatures = ["-" * SIGNATURE_LENGTH] * max(self.own_keys)
        for number in self.own_keys.keys() & instances:
            signatures[number - 1] = _signature(self.own_keys[number], instances[number].id)
        return "".join(signatures)


def is_recorded_instance(record: BatchRecord, number: int, key: str, instance: BpmInstance) -> bool:
    """Return whether an instance with a custom key, as sent, is the one that a launch has started."""
    marked = (record.own or "")[SIGNATURE_LENGTH * (number - 1) : SIGNATURE_LENGTH * number]
    return marked == _signature(key, instance.id)


def _signature(*texts: str, length: int = SIGNATURE_LENGTH) -> str:
    whole = hashlib.sha256("\0".join(texts).encode(errors="surrogatepass")).digest()
    return base64.urlsafe_b64encode(whole).decode()[:length]
