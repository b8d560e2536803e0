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

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.bpm import adoption
from airflow_provider_astrobpm.bpm.batch_record import is_known
from airflow_provider_astrobpm.bpm.errors import AmbiguousStartError, BatchChangedError
from airflow_provider_astrobpm.bpm.identity import BatchKey
from airflow_provider_astrobpm.bpm.lost_start import listed
from airflow_provider_astrobpm.bpm.timestamps import Placement

if TYPE_CHECKING:
    from airflow_provider_astrobpm.bpm.batch_record import BatchOrder, BatchRecord
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.key_form import KeyForm
    from airflow_provider_astrobpm.bpm.key_search import KeyMatches
    from airflow_provider_astrobpm.bpm.launches import Launch


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
    :param matches: what carries a key of the batch; ``None`` where no search was needed.
    :param form: what the endpoint makes of business keys, where that is known.
    :raises BatchChangedError: if the authors' own keys are others than those that an earlier try has used.
    """

    def __init__(
        self,
        order: BatchOrder,
        record: BatchRecord | None = None,
        matches: KeyMatches | None = None,
        *,
        form: KeyForm | None = None,
    ) -> None:
        self._order = order
        self._record = record
        self._matches = matches
        self._oldest = order.oldest(record)
        own_record = order.own(record)
        if own_record and own_record.own_keys not in (None, order.sign_of_keys()):
            raise BatchChangedError("the business keys of its launches are not those that were begun")
        self._own_record = own_record
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
        self._older_open: dict[int, list[tuple[BatchKey, BpmInstance]]] = {}
        self._keyed: dict[str, list[BpmInstance]] = {}
        self._still_open: dict[str, BpmInstance] = {}
        self._going_on: set[str] = set()
        self._decided: set[int] = set()
        self._unclear: dict[str, str] = {}
        """By their ids: why it is unclear whether instances are of this batch."""
        self._unclear_ends: dict[int, str] = {}
        """By the numbers of their launches: why it is unclear whether a good end is of this generation."""
        keys = order.authors_keys(form)
        for instance in matches.instances.values() if matches else ():
            key = order.identity.read_batch(instance.business_key)
            if key is None:
                self._keyed.setdefault(str(keys.sent(instance.business_key)), []).append(instance)
            elif not self._is_of_this_run(instance, key):
                continue
            elif key.generation == order.generation:
                self._own.setdefault(key.number, []).append((key, instance))
            elif self._counts(instance, key.generation):
                self._older.setdefault((key.number, key.digest), []).append(instance)
                if not instance.is_closed:
                    self._older_open.setdefault(key.number, []).append((key, instance))
            elif not order.generation_is_certain and order.accepts(instance):
                self._unclear_ends[key.number] = adoption.unclear_generation(instance)
            elif instance.id in self._unclear and not instance.is_closed:
                raise AmbiguousStartError(self._unclear[instance.id], instance.business_key)

    def _is_of_this_run(self, instance: BpmInstance, key: BatchKey) -> bool:
        """Return whether this run of the DAG may have started an instance: a deleted one has the same keys."""
        order = self._order
        if key.generation > order.try_number or (
            key.generation == order.generation and not order.may_have_sent(self._record)
        ):
            return False
        own = order.own(self._record) if key.generation == order.generation else None
        began = own.begun_at if own else None
        placement = self._place(instance, order.since if began is None else began)
        # Where no record tells of a start, nothing better is known.
        if placement is Placement.UNKNOWN and self._record and self._record.begun_at is not None:
            self._unclear[instance.id] = adoption.unclear_time(instance)
            return not self._is_answered
        return placement is not Placement.BEFORE

    def _place(self, instance: BpmInstance, began: float | None) -> Placement:
        """Return whether an instance was started before a moment; without one it was not."""
        if began is None or self._matches is None:
            return Placement.SINCE
        return self._matches.place(instance, began)

    def _counts(self, instance: BpmInstance, generation: int) -> bool:
        """Return whether an instance of another generation counts as one of this one, and remember it if it is open."""
        if not instance.is_closed:
            self._still_open[instance.id] = instance
        keeps_open = self._order.keeps_open or not self._order.generation_is_certain
        return generation >= self._oldest or (keeps_open and not instance.is_closed)

    def decide(self, launch: Launch) -> Start | GoOn:
        """Decide what becomes of a launch, by the table above.

        :raises BatchChangedError: if another launch was started in its place.
        :raises AmbiguousStartError: if nobody can tell whether it was started, or which instance is its own.
        """
        self._decided.add(launch.number)
        own = self._own.get(launch.number, [])
        self._check_place(launch, own)
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
                f"which one is that of launch {launch.number} cannot be told of {listed(found)}",
                found[0].business_key,
            )
        if found and (unclear := self._unclear.get(found[0].id)):
            raise AmbiguousStartError(f"launch {launch.number}: {unclear}", found[0].business_key)
        if found and found[0].is_closed and not self._order.generation_is_certain:
            raise AmbiguousStartError(adoption.unclear_generation(found[0]), found[0].business_key)
        if found:
            # With those that it has called, which may carry its key too.
            self._going_on |= {one.id for one in (*mine, *older) if one.business_key == found[0].business_key}
            return GoOn(launch, found[0])
        doubt = self._matches.doubt(launch.bpm_name, self._since) if self._matches else None
        doubt = self._unclear_ends.get(launch.number, doubt)
        if doubt and not self._is_answered and not self._is_first:
            raise AmbiguousStartError(
                f"whether an earlier try started launch {launch.number} cannot be told: {doubt}", key
            )
        return Start(launch, key)

    def _check_place(self, launch: Launch, own: list[tuple[BatchKey, BpmInstance]]) -> None:
        """Check that no other launch has an instance in the place of this one.

        :param own: what this generation has started there.
        """
        for other, instance in [*own, *self._older_in_place(launch.number)]:
            if other.digest != launch.digest:
                raise BatchChangedError(f"launch {launch.number} is not the one that started {instance}")
        for _, instance in self._older_open.get(launch.number, ()):
            if unclear := self._unclear.get(instance.id):
                raise AmbiguousStartError(f"launch {launch.number}: {unclear}", instance.business_key)

    def _older_in_place(self, number: int) -> list[tuple[BatchKey, BpmInstance]]:
        """Return what older generations have open for a launch, if this one goes on with it already."""
        goes_on = self._own_record is not None and self._own_record.begun_at is not None
        return self._older_open.get(number, []) if goes_on or not self._order.generation_is_certain else []

    def superseded(self) -> list[BpmInstance]:
        """Return the open instances of older generations that nobody goes on with, by the decisions so far."""
        if not self._order.generation_is_certain:
            return []
        left = self._going_on | self._unclear.keys()
        return [one for one in self._still_open.values() if one.id not in left]

    @property
    def strangers(self) -> tuple[str, ...] | None:
        """The ids that carry the authors' own keys and are not of this batch; ``None`` where nobody can know all.

        To be asked after all decisions.

        :raises AmbiguousStartError: if there are too many to be written down.
        """
        if self._matches is None or self._matches.hides(self._order.since):
            return None
        keyed = [one for each in self._keyed.values() for one in each if one.id not in self._going_on]
        carriers = [*keyed, *self._matches.alike.values()]
        # Those of long ago are told by their time.
        recent = [one for one in carriers if self._place(one, self._since) is not Placement.BEFORE]
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
        if instances and not named and not self._is_answered:
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
            if carriers and order.may_have_sent(record):
                raise self._whose(launch, carriers)
            return key, [], []
        known = [one for one in carriers if is_known(record, launch.number, key, one)]
        may_be_more = record.answered_at is None or record.unproven
        if not known and may_be_more and not self._is_answered:
            # The process died before it could write down what it had started, or a start was refused and yet done.
            new = [
                one
                for one in carriers
                if one.id not in (record.strangers or ())
                and self._place(one, record.begun_at) is not Placement.BEFORE
            ]
            is_unclear = any(self._place(one, record.begun_at) is Placement.UNKNOWN for one in new)
            if len(new) > 1 or is_unclear or (new and record.strangers is None):
                raise self._whose(launch, new)
            known = new
        if order.own(record):
            return key, known, []
        return key, [], [one for one in known if self._counts(one, record.generation)]

    @staticmethod
    def _whose(launch: Launch, instances: list[BpmInstance]) -> AmbiguousStartError:
        return AmbiguousStartError(
            f"whether an earlier try started one of these for launch {launch.number} cannot be told, for others may use "
            f"their key: {listed(instances)}",
            launch.business_key,
        )
