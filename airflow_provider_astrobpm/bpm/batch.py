"""Many starts from one task: what a launch is, and what an earlier try has already seen to. No I/O.

The tries of a batch know each other's work by the business keys of the launches and by the batch's ``Record``. What
carries a launch's key decides, in this order:

| found                                                               | then                                    |
|---------------------------------------------------------------------|-----------------------------------------|
| an open instance of this generation                                 | go on with it                           |
| one of this generation that has come to its good end                | go on with it: it is a result           |
| an open one of an older generation that was left open on purpose    | go on with it: people may be at work    |
| nothing, and yet there may be one                                   | refuse: nobody can tell                 |
| nothing but what has come to a bad end                              | start it again                          |
| nothing                                                             | start it                                |
| another launch of this generation in its place                      | refuse: the input has changed           |
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from airflow_provider_astrobpm.bpm import adoption, api
from airflow_provider_astrobpm.bpm.errors import AmbiguousStartError, BatchChangedError
from airflow_provider_astrobpm.bpm.identity import BatchKey

if TYPE_CHECKING:
    from typing_extensions import Self

    from airflow_provider_astrobpm.bpm.adoption import Record
    from airflow_provider_astrobpm.bpm.api import Operation
    from airflow_provider_astrobpm.bpm.identity import TaskIdentity
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.search import Carriers

FIELDS = ("bpm_name", "version", "variables", "business_key", "title")
"""What may be said of a launch."""


class Launch(msgspec.Struct, frozen=True):
    """One start of a batch.

    :param number: its place in the batch, from 1.
    :param bpm_name: the BPM's name.
    :param version: the version to run; without it the enabled one runs.
    :param variables: values for the BPM's variables.
    :param business_key: the author's own key; without one the launch gets one of the task's.
    :param title: the instance's title.
    """

    number: int
    bpm_name: str
    version: str | None = None
    variables: Mapping[str, Any] | None = None
    business_key: str | None = None
    title: str | None = None

    @classmethod
    def of(
        cls, number: int, given: object, *, bpm_name: str | None = None, version: str | None = None
    ) -> Self:
        """Make a launch of what an author wrote, and check it as a start does.

        :param number: its place in the batch, from 1.
        :param given: a mapping with some of ``FIELDS``.
        :param bpm_name: the name where it has none of its own.
        :param version: the version of that BPM, where it names neither.
        :raises ValueError: if it cannot be started.
        """
        if not isinstance(given, Mapping):
            raise ValueError(
                f"it must be a mapping with some of {', '.join(FIELDS)}, not {type(given).__name__}"
            )
        if unknown := [name for name in given if name not in FIELDS]:
            raise ValueError(f"it has no field {unknown[0]!r}; what may be given is {', '.join(FIELDS)}")
        own = {name: value for name, value in given.items() if value is not None}
        if "bpm_name" not in own:
            if bpm_name is None:
                raise ValueError("it needs a bpm_name, because the batch has none")
            own = {"bpm_name": bpm_name, **({} if version is None else {"version": version}), **own}
        launch = cls(number, **own)
        launch.operation(launch.business_key)
        return launch

    @property
    def digest(self) -> str:
        """Four characters that tell whether another launch has taken this one's place."""
        said = [self.bpm_name, self.version, self.variables, self.business_key, self.title]
        whole = hashlib.sha256(msgspec.json.encode(said, order="sorted")).digest()
        return base64.b32encode(whole).decode().lower()[:4]

    def operation(self, business_key: str | None) -> Operation[BpmInstance]:
        """Return the start, with a business key.

        :raises ValueError: for arguments that cannot be sent.
        """
        return api.start(
            self.bpm_name,
            version=self.version,
            variables=self.variables,
            business_key=business_key,
            title=self.title,
        )


def launches_of(
    items: Iterable[tuple[str, object]], *, bpm_name: str | None = None, version: str | None = None
) -> Iterator[Launch]:
    """Check launches one after the other.

    :param items: each launch as the author wrote it, with words for where that was.
    :param bpm_name: the name of those that have none of their own.
    :param version: the version of those.
    :raises ValueError: for a launch that cannot be started, or whose business key is another's too; it says where.
    """
    places: dict[str, str] = {}
    for number, (where, given) in enumerate(items, 1):
        try:
            launch = Launch.of(number, given, bpm_name=bpm_name, version=version)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        key = launch.business_key
        if key is not None and (first := places.setdefault(key, where)) != where:
            raise ValueError(f"{where}: its business_key {key!r} is that of {first} too")
        yield launch


def numbered(given: object) -> Iterator[tuple[str, object]]:
    """Return the launches of a list, with words for where each is.

    :raises ValueError: if it is no list.
    """
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise ValueError(f"launches must be a list of mappings, not {type(given).__name__}")
    return ((f"launch {number}", one) for number, one in enumerate(given, 1))


@dataclass(frozen=True, kw_only=True)
class BatchOrder:
    """A batch that is to be started, for which try of which task.

    :param identity: the task.
    :param generation: the number of the first try since the task was last cleared.
    :param keeps_open: whether an open instance of an older generation is adopted whoever left it open.
    :param accepts: tells whether an instance that has ended is what the task is to bring about.
    :param own_keys: the authors' own business keys in the batch.
    """

    identity: TaskIdentity
    generation: int
    keeps_open: bool = False
    accepts: Callable[[BpmInstance], bool]
    own_keys: frozenset[str] = frozenset()

    def wants(self, instance: BpmInstance) -> bool:
        """Tell whether an instance carries a key that this batch is about."""
        key = instance.business_key
        return key in self.own_keys or self.identity.read_batch(key) is not None


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
    """What earlier tries have started of a batch.

    :param order: the batch.
    :param record: what earlier tries have written down, if they did.
    :param carriers: what carries a key of the batch; ``None`` where nobody needed to look.
    :param since: when the first of this generation can have been started, in seconds since the epoch, if that is known.
    :raises AmbiguousStartError: if others carry the authors' own keys, and nobody knows which of them are others.
    """

    def __init__(
        self,
        order: BatchOrder,
        record: Record | None = None,
        carriers: Carriers | None = None,
        *,
        since: float | None = None,
    ) -> None:
        self._order = order
        self._carriers = carriers
        self._since = since
        of_this = record is not None and record.generation == order.generation
        self._adopts_older = order.keeps_open or (record is not None and not of_this and record.left_open)
        # A person was asked to look, and has cleared the task.
        self._answered = record is not None and not of_this and record.told
        self._own: dict[int, list[tuple[BatchKey, BpmInstance]]] = {}
        self._older: dict[tuple[int, str], list[BpmInstance]] = {}
        self._keyed: dict[str, list[BpmInstance]] = {}
        self._older_keyed: dict[str, list[BpmInstance]] = {}
        self._taken: set[str] = set()
        self._decided: set[int] = set()
        self.strangers: tuple[str, ...] = ()
        """The ids that carry the authors' own keys, and that this batch has not started."""
        keyed = []
        for instance in carriers.instances.values() if carriers else ():
            key = order.identity.read_batch(instance.business_key)
            if key is None:
                keyed.append(instance)
            elif key.generation == order.generation:
                self._own.setdefault(key.number, []).append((key, instance))
            elif not instance.is_closed:
                self._older.setdefault((key.number, key.digest), []).append(instance)
        self._sort_keyed(keyed, record, of_this=of_this)

    def _sort_keyed(self, keyed: list[BpmInstance], record: Record | None, *, of_this: bool) -> None:
        """Tell which carriers of the authors' own keys this batch has started."""
        known = record.strangers if record is not None else None
        if of_this and known is None and keyed:
            raise AmbiguousStartError(
                "whether an earlier try started some of these cannot be told, for others may use their keys: "
                f"{adoption.listed(keyed)}",
                keyed[0].business_key,
            )
        strangers = []
        for instance in keyed:
            if known is None or instance.id in known:
                strangers.append(instance.id)
            elif of_this:
                self._keyed.setdefault(str(instance.business_key), []).append(instance)
            else:
                strangers.append(instance.id)
                if not instance.is_closed:
                    self._older_keyed.setdefault(str(instance.business_key), []).append(instance)
        self.strangers = tuple(strangers)

    def decide(self, launch: Launch) -> Start | GoOn:
        """Decide what becomes of a launch, by the table above.

        :raises BatchChangedError: if another launch was started in its place.
        :raises AmbiguousStartError: if nobody can tell whether it was started, or which instance is its own.
        """
        key, mine, older = self._found_for(launch)
        if misnamed := [one for one in mine if one.name != launch.bpm_name]:
            raise AmbiguousStartError(
                f"{misnamed[0]} carries the business key of launch {launch.number}, but is none of {launch.bpm_name!r}",
                key,
            )
        still_open = [one for one in mine if not one.is_closed]
        good = sorted(filter(self._order.accepts, mine), key=lambda one: one.start_time or "")
        left = older if self._adopts_older else []
        if found := still_open or good[-1:] or left:
            if len(found) > 1:
                raise AmbiguousStartError(
                    f"which one is that of launch {launch.number} cannot be told of {adoption.listed(found)}",
                    key,
                )
            self._taken.add(found[0].id)
            return GoOn(launch, found[0])
        doubt = self._carriers.doubt(launch.bpm_name, self._since) if self._carriers and not mine else None
        if doubt and not self._answered:
            raise AmbiguousStartError(
                f"whether an earlier try started launch {launch.number} cannot be told: {doubt}", key
            )
        return Start(launch, key)

    def superseded(self) -> list[BpmInstance]:
        """Return the open instances of older generations that nobody goes on with; to be asked after all decisions."""
        older = [*self._older.values(), *self._older_keyed.values()]
        return [one for instances in older for one in instances if one.id not in self._taken]

    def check_all_seen(self) -> None:
        """Check, after all decisions, that no launch is missing that an earlier try started.

        :raises BatchChangedError: if one is.
        """
        for number, found in self._own.items():
            if number not in self._decided:
                raise BatchChangedError(number, found[0][1])

    def _found_for(self, launch: Launch) -> tuple[str, list[BpmInstance], list[BpmInstance]]:
        """Return the key that a start would have, what this generation has started, and what older ones left open."""
        self._decided.add(launch.number)
        if (key := launch.business_key) is not None:
            named = [one for one in self._keyed.get(key, ()) if one.name == launch.bpm_name]
            return key, named, self._older_keyed.get(key, [])
        found = self._own.get(launch.number, [])
        for other, instance in found:
            if other.digest != launch.digest:
                raise BatchChangedError(launch.number, instance)
        last = max((other.launch for other, _ in found), default=0)
        key = self._order.identity.batch_key(
            BatchKey(self._order.generation, launch.number, launch.digest, last + 1)
        )
        return key, [one for _, one in found], self._older.get((launch.number, launch.digest), [])
