"""Many starts from one task: what a try does with what earlier ones have started, launch by launch. No I/O.

The tries of a batch know each other's work by the business keys of the launches and by a ``BatchRecord``. A clear begins
a new generation. After a try that has failed, the new one goes on with the batch, and what an older generation has
started counts as its own; after anything else it begins anew. What carries a launch's key decides, in this order:

| found                                                               | then                                    |
|---------------------------------------------------------------------|-----------------------------------------|
| another launch of this generation in its place                      | refuse: the input has changed           |
| an open instance of this generation                                 | go on with it                           |
| one of this generation that has come to its good end                | go on with it: it is a result           |
| the same of an older generation that this one goes on with          | go on with it                           |
| an open one of any older generation, where no kill touches them     | go on with it: people may be at work    |
| nothing, and yet there may be one                                   | refuse: nobody can tell                 |
| nothing, or nothing but what has come to a bad end                  | start it                                |
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from airflow_provider_astrobpm.bpm import adoption, search
from airflow_provider_astrobpm.bpm.errors import AmbiguousStartError, BatchChangedError
from airflow_provider_astrobpm.bpm.identity import BatchKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from typing_extensions import Self

    from airflow_provider_astrobpm.bpm.identity import TaskIdentity
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.launches import Launch
    from airflow_provider_astrobpm.bpm.search import Carriers


SIGN = 4  # characters by which an instance of an author's own key is known
MOST_MET = 60_000  # launches that are noted as having met a condition
MOST_OWN_KEYS = (
    10_000  # launches of a batch with keys of the authors' own: Airflow bounds the length of a record
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


class Start(NamedTuple):
    """Start a launch.

    :param key: the business key that it is to carry.
    """

    launch: Launch
    key: str


class GoOn(NamedTuple):
    """Go on with what was started for a launch."""

    launch: Launch
    instance: BpmInstance


class Ledger:
    """What earlier tries have started of a batch. It learns what it goes on with as it decides, launch by launch.

    :param order: the batch.
    :param record: what earlier tries have written down, if they did.
    :param carriers: what carries a key of the batch; ``None`` where nobody needed to look.
    :raises BatchChangedError: if the authors' own keys are others than those that an earlier try has used.
    """

    def __init__(
        self, order: BatchOrder, record: BatchRecord | None = None, carriers: Carriers | None = None
    ) -> None:
        self._order = order
        self._record = record
        self._carriers = carriers
        self._oldest = order.oldest(record)
        own_record = order.own(record)
        if own_record and own_record.own_keys not in (None, order.sign_of_keys()):
            raise BatchChangedError("the business keys of its launches are not those that were begun")
        began = own_record.begun_at if own_record else None
        goes_on_with_older = order.keeps_open or order.goes_on_from(record) is not None
        self._since = order.since if began is None or goes_on_with_older else began
        # A person was asked to look, and has cleared the task.
        self._is_answered = record is not None and own_record is None and record.told
        self._is_first = record is None and order.try_number <= 1
        known = order.goes_on(record)
        self.met = known.numbers_met() if known else frozenset()
        """The launches that have met the condition before, whatever has become of them since."""
        self._own: dict[int, list[tuple[BatchKey, BpmInstance]]] = {}
        self._older: dict[tuple[int, str], list[BpmInstance]] = {}
        self._keyed: dict[str, list[BpmInstance]] = {}
        self._still_open: dict[str, BpmInstance] = {}
        self._going_on: set[str] = set()
        self._decided: set[int] = set()
        for instance in carriers.instances.values() if carriers else ():
            key = order.identity.read_batch(instance.business_key)
            if key is None:
                self._keyed.setdefault(str(instance.business_key), []).append(instance)
            elif key.generation != order.generation:
                if self._counts(instance, key.generation):
                    self._older.setdefault((key.number, key.digest), []).append(instance)
            elif began is None or not search.started_long_before(instance, began):
                # Else it is of a run that was deleted and made again with the same keys.
                self._own.setdefault(key.number, []).append((key, instance))

    def _counts(self, instance: BpmInstance, generation: int) -> bool:
        """Tell whether an instance of an older generation may be gone on with, and remember it if it is open."""
        if not instance.is_closed:
            self._still_open[instance.id] = instance
        return generation >= self._oldest or (self._order.keeps_open and not instance.is_closed)

    def decide(self, launch: Launch) -> Start | GoOn:
        """Decide what becomes of a launch, by the table above.

        :raises BatchChangedError: if another launch was started in its place.
        :raises AmbiguousStartError: if nobody can tell whether it was started, or which instance is its own.
        """
        self._decided.add(launch.number)
        own = self._own.get(launch.number, [])
        for other, instance in own:
            if other.digest != launch.digest:
                raise BatchChangedError(f"launch {launch.number} is not the one that started {instance}")
        if launch.business_key is not None:
            key, mine, older = self._of_own_key(launch, launch.business_key)
        else:
            again = max((other.attempt for other, _ in own), default=0) + 1
            key = self._order.identity.batch_key(
                BatchKey(self._order.generation, launch.number, launch.digest, again)
            )
            mine = [one for _, one in own]
            older = self._older.get((launch.number, launch.digest), [])
        found = self._what_counts(launch, mine) or self._what_counts(launch, older)
        if len(found) > 1:
            raise AmbiguousStartError(
                f"which one is that of launch {launch.number} cannot be told of {adoption.listed(found)}",
                found[0].business_key,
            )
        if found:
            # With those that it has called, which may carry its key too.
            self._going_on |= {one.id for one in (*mine, *older) if one.business_key == found[0].business_key}
            return GoOn(launch, found[0])
        doubt = self._carriers.doubt(launch.bpm_name, self._since) if self._carriers else None
        if doubt and not self._is_answered and not self._is_first:
            raise AmbiguousStartError(
                f"whether an earlier try started launch {launch.number} cannot be told: {doubt}", key
            )
        return Start(launch, key)

    def superseded(self) -> list[BpmInstance]:
        """Return the open instances of older generations that nobody goes on with, by the decisions so far."""
        return [one for one in self._still_open.values() if one.id not in self._going_on]

    @property
    def strangers(self) -> tuple[str, ...] | None:
        """The ids that carry the authors' own keys and are not of this batch; ``None`` where nobody can know all.

        To be asked after all decisions.

        :raises AmbiguousStartError: if there are too many to be written down.
        """
        if self._carriers is None or self._carriers.hides(self._order.since):
            return None
        carriers = [one for each in self._keyed.values() for one in each if one.id not in self._going_on]
        # Those of long ago are told by their time.
        now = self._since
        recent = [one for one in carriers if now is None or not search.started_long_before(one, now)]
        return tuple(one.id for one in recent) if len(recent) <= adoption.MOST_STRANGERS else None

    def check_all_seen(self) -> None:
        """Check, after all decisions, that no launch is missing that an earlier try started.

        :raises BatchChangedError: if one is.
        """
        for number, found in self._own.items():
            if number not in self._decided:
                raise BatchChangedError(f"launch {number} is missing, which started {found[0][1]}")

    def _what_counts(self, launch: Launch, instances: list[BpmInstance]) -> list[BpmInstance]:
        """Return those that are open, or the newest of those that have come to their good end.

        :raises AmbiguousStartError: if all of them are of other BPMs, which is strange.
        """
        named = [one for one in instances if one.name == launch.bpm_name]
        if instances and not named:
            raise AmbiguousStartError(
                f"{instances[0]} carries the business key of launch {launch.number}, but is none of {launch.bpm_name!r}",
                instances[0].business_key,
            )
        still_open = [one for one in named if not one.is_closed]
        good = [one for one in named if one.is_closed and self._order.accepts(one)]
        if launch.number in self.met:
            good, still_open = named, []
        return still_open or sorted(good, key=lambda one: one.start_time or "")[-1:]

    def _of_own_key(self, launch: Launch, key: str) -> tuple[str, list[BpmInstance], list[BpmInstance]]:
        """Return what this generation and what older ones have started for a key that others may use too.

        :raises AmbiguousStartError: if nobody can tell.
        """
        carriers = [one for one in self._keyed.get(key, ()) if one.name == launch.bpm_name]
        record, order = self._record, self._order
        if record is None or record.begun_at is None:
            if carriers and not order.has_memory and order.try_number > order.generation:
                raise self._whose(launch, carriers)
            return key, [], []
        known = [one for one in carriers if self._is_known(record, launch.number, one)]
        if not known and record.answered_at is None and not self._is_answered:
            # The process died before it could write down what it had started.
            new = [
                one
                for one in carriers
                if one.id not in (record.strangers or ())
                and not search.started_long_before(one, record.begun_at)
            ]
            if len(new) > 1 or (new and record.strangers is None):
                raise self._whose(launch, new)
            known = new
        if order.own(record):
            return key, known, []
        return key, [], [one for one in known if self._counts(one, record.generation)]

    @staticmethod
    def _is_known(record: BatchRecord, number: int, instance: BpmInstance) -> bool:
        sign = (record.own or "")[SIGN * (number - 1) : SIGN * number]
        return sign == _sign(str(instance.business_key), instance.id)

    @staticmethod
    def _whose(launch: Launch, instances: list[BpmInstance]) -> AmbiguousStartError:
        return AmbiguousStartError(
            f"whether an earlier try started one of these for launch {launch.number} cannot be told, for others may use "
            f"their key: {adoption.listed(instances)}",
            launch.business_key,
        )
