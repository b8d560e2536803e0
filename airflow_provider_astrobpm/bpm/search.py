"""Plans that find instances with the documented query alone: by state, with no id filter and no paging.

One search answers for any number of instances. It asks for the states in which they were last seen first, because most
have not moved. For those that left, it asks for the other states, likeliest first, each at most once. What was in none
of them may have moved between two queries, so all states are asked once more before anything counts as not found.
A list that fails, after all its attempts, costs only what it could have shown (``findings``).

Reading one instance by its id is undocumented. Where it works it is used when that saves requests, and for what a row
cap may hide from the lists.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.bpm import api, checks, states
from airflow_provider_astrobpm.bpm.errors import CallError
from airflow_provider_astrobpm.bpm.findings import Findings
from airflow_provider_astrobpm.bpm.instance import BpmInstance
from airflow_provider_astrobpm.bpm.wire import UNREAD_STATE, length_of, unreadable_in

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from airflow_provider_astrobpm.bpm.api import Plan
    from airflow_provider_astrobpm.bpm.settings import InstanceLookup, Settings
    from airflow_provider_astrobpm.bpm.wire import Unreadable


class BusinessKey(NamedTuple):
    """What an instance is sought by where its id is not known."""

    value: str
    bpm_name: str | None = None
    """The BPM's name, if only its instances count."""

    def __str__(self) -> str:
        return f"business key {self.value!r}" + (f" of BPM {self.bpm_name!r}" if self.bpm_name else "")


class Sought:
    """What a search is for."""

    __slots__ = ("ids", "keys", "lists")

    def __init__(self) -> None:
        self.ids: dict[str, str | None] = {}
        """Instances by their ids, each with the state in which it was last seen, if it was."""
        self.keys: set[BusinessKey] = set()
        """Instances by their business keys."""
        self.lists: set[str] = set()
        """States whose every instance is wanted."""


class Endpoint:
    """What this process has learnt about one environment."""

    reads_by_id: bool | None = None
    """Whether ``GET /instances/{id}``, which is undocumented, answers properly; ``None`` while nobody knows."""


_ENDPOINTS: dict[str, Endpoint] = {}


def endpoint_at(base_url: str) -> Endpoint:
    """Return what this process has learnt about the environment at an address."""
    return _ENDPOINTS.setdefault(base_url, Endpoint())


class Carriers:
    """What a search for business keys has found, and how far it can be trusted.

    :param wanted: tells of an instance whether its key is wanted.
    """

    def __init__(self, wanted: Callable[[BpmInstance], bool]) -> None:
        self.instances: dict[str, BpmInstance] = {}
        """The instances that are wanted, by their ids."""
        self._wanted = wanted
        self._shows_keys = False
        self._names_without_keys: set[str] = set()
        self._capped: list[Sequence[BpmInstance]] = []
        self._unreadable: list[Unreadable] = []

    def take(self, rows: Sequence[BpmInstance], reverse: Sequence[BpmInstance] = ()) -> None:
        """Take a list. An instance that moved meanwhile shows twice; the later look counts.

        :param rows: the list, newest first.
        :param reverse: the same list oldest first, asked for where the other looks cut off.
        """
        if looks_capped(length_of(rows)) and not _are_all(rows, reverse):
            self._capped.append(rows)
        self._unreadable += (*unreadable_in(rows), *unreadable_in(reverse))
        for row in (*rows, *reverse):
            if row.business_key in (None, row.id):
                self._names_without_keys.add(row.name)
            else:
                self._shows_keys = True
            if self._wanted(row):
                self.instances[row.id] = row

    def doubt(self, bpm_name: str, since: float | None) -> str | None:
        """Return why an instance that was not found may exist all the same; ``None`` if it cannot.

        :param bpm_name: the name of its BPM.
        :param since: when it was started at the earliest, in seconds since the epoch, if that is known.
        """
        if bpm_name in self._names_without_keys and not self._shows_keys:
            return "the lists show no business keys here"
        return self.hides(since, bpm_name)

    def hides(self, since: float | None, bpm_name: str | None = None) -> str | None:
        """Return why the lists may not show all that was started since a moment; ``None`` if they do.

        :param bpm_name: the name of its BPM, if only its instances count.
        """
        for row in self._unreadable:
            if self._may_be_wanted(row, bpm_name):
                return f"a row of the lists cannot be read, because {row.reason}, and may be its own"
        for rows in self._capped:
            if since is None or not _reaches_back(rows, since):
                return f"a list of exactly {length_of(rows)} rows looks cut off"
        return None

    def _may_be_wanted(self, row: Unreadable, bpm_name: str | None) -> bool:
        if row.id in self.instances or not row.may_be(bpm_name=bpm_name):
            return False
        if "businessKey" in row.unread:
            return True
        name = bpm_name or row.name or ""
        return self._wanted(
            BpmInstance(id=row.id or "", name=name, state=UNREAD_STATE, business_key=row.business_key)
        )


def looks_capped(rows: int) -> bool:
    """Tell whether a list has a length at which servers cut lists off; Astro Zero's cap is undocumented."""
    return rows >= 100 and (rows % 50 == 0 or rows & (rows - 1) == 0)


def _reaches_back(rows: Sequence[BpmInstance], since: float) -> bool:
    """Tell whether a list that was cut off holds everything that was started since then: newest first, and beyond it."""
    starts = [row.start_time or "" for row in rows]
    return starts == sorted(starts, reverse=True) and started_long_before(rows[-1], since)


def started_long_before(instance: BpmInstance, moment: float) -> bool:
    """Tell whether an instance was certainly started before a moment, in seconds since the epoch.

    Timestamps have no zone, but no zone is more than 14 hours off.
    """
    certainly = datetime.fromtimestamp(moment, timezone.utc) - timedelta(hours=14)
    return "" < (instance.start_time or "") < certainly.strftime("%Y-%m-%d %H:%M:%S")


def _are_all(rows: Sequence[BpmInstance], reverse: Sequence[BpmInstance]) -> bool:
    """Tell whether a list is whole: it holds the same in both orders, and the server does order."""
    starts, reverse_starts = ([row.start_time or "" for row in each] for each in (rows, reverse))
    is_ordered = starts == sorted(starts, reverse=True) and reverse_starts == sorted(reverse_starts)
    return is_ordered and len(set(starts)) > 1 and {row.id for row in rows} == {row.id for row in reverse}


def find(
    last_seen: Mapping[str, str | None],
    keys: Collection[BusinessKey] = (),
    lists: Collection[str] = (),
    *,
    lookup: InstanceLookup = "list",
    endpoint: Endpoint | None = None,
) -> Plan[Findings]:
    """Find instances by their ids and by business keys, and all of some states.

    A call that fails ends nothing: what follows from it is in the findings.

    :param last_seen: for each id the state in which it was last seen, or ``None``.
    :param keys: business keys. Every state is listed for them: several instances may carry one.
    :param lists: states whose every instance is wanted.
    :param lookup: ``list`` uses the documented query alone; ``by_id`` reads ids directly, which is undocumented;
        ``auto`` reads an id directly where that saves requests, until this proves not to work here.
    :param endpoint: what is known of the environment; ``auto`` adds to it.
    """
    endpoint = endpoint or Endpoint()
    findings = Findings(last_seen, keys, lists, reads_only=lookup == "by_id")
    if lookup == "by_id":
        yield from _read(findings, endpoint, only_way=True)
        if not keys:
            yield from _list(lists, findings)
            return findings
    # What is listed anyway costs nothing to look through first.
    hints = [state for state in states.STATES if state in {*last_seen.values(), *lists}]
    others = [state for state in states.STATES if state not in hints]
    may_read = lookup == "auto" and endpoint.reads_by_id is not False
    if not keys:
        if may_read and endpoint.reads_by_id and not lists and len(last_seen) <= max(1, len(hints)):
            yield from _read(findings, endpoint)
        yield from _list(hints, findings)
        if may_read and len(findings.not_read()) <= len(others):
            yield from _read(findings, endpoint)
        yield from _list(others, findings)
    else:
        yield from _list(states.STATES, findings, whole=True)
    whole = findings.lacks_a_key()
    # Where a list has failed, a second round could not show that an instance is in none of the states.
    if whole or (lookup != "by_id" and findings.lacking() and not findings.failed_lists):
        yield from _list([*hints, *others], findings, whole=whole)
    if not whole and findings.lacks_an_open_carrier():
        # An open one may have moved against the order of the search. An ended one must not be taken in its place.
        yield from _list(states.OPEN_STATES, findings, whole=True)
    if may_read:
        yield from _read(findings, endpoint)
        # It exists, and yet it could not be read by its id.
        if endpoint.reads_by_id is None and findings.shows_what_was_read():
            endpoint.reads_by_id = False
    return findings


def find_by_id(
    instance_id: str,
    *,
    last_state: str | None = None,
    lookup: InstanceLookup = "auto",
    endpoint: Endpoint | None = None,
) -> Plan[BpmInstance]:
    """Find one instance by its id.

    :param instance_id: the id.
    :param last_state: the state in which it was last seen.
    :param lookup: as ``find`` has it.
    :param endpoint: as ``find`` has it.
    :raises InstanceNotFoundError: if it is in none of the states.
    """
    checks.identifier(instance_id, "instance_id")
    findings = yield from find({instance_id: last_state}, lookup=lookup, endpoint=endpoint)
    return findings.instance(instance_id)


def finder(settings: Settings) -> Callable[..., Plan[BpmInstance]]:
    """Return ``find_by_id`` as a connection wants it: a function of an id and, if known, the state last seen."""

    def find_it(instance_id: str, last_state: str | None = None) -> Plan[BpmInstance]:
        return find_by_id(
            instance_id,
            last_state=last_state,
            lookup=settings.instance_lookup,
            endpoint=endpoint_at(settings.base_url),
        )

    return find_it


def find_by_key(business_key: str, *, name: str | None = None) -> Plan[BpmInstance]:
    """Find the instance that carries a business key.

    :param business_key: the key, ``$Flow.BusinessKey``.
    :param name: the BPM's name, if only its instances count.
    :raises InstanceNotFoundError: if there is none.
    :raises SeveralInstancesError: if the key does not say which one is meant.
    """
    key = key_of(business_key, name)
    findings = yield from find({}, [key])
    return findings.carrier(key)


def key_of(business_key: str, bpm_name: str | None) -> BusinessKey:
    """Return a checked business key."""
    checks.identifier(business_key, "business_key")
    return BusinessKey(business_key, None if bpm_name is None else checks.identifier(bpm_name, "bpm_name"))


def find_carriers(wanted: Callable[[BpmInstance], bool]) -> Plan[Carriers]:
    """Find every instance whose business key is wanted, as thoroughly as the documented query allows.

    :param wanted: tells so of an instance.
    :raises CallError: if a call fails.
    """
    carriers = Carriers(wanted)
    yield from list_carriers(states.STATES, carriers)
    if all(instance.is_closed for instance in carriers.instances.values()):
        # It may have moved against the order of the search.
        again = states.OPEN_STATES if carriers.instances else states.STATES
        yield from list_carriers(again, carriers)
    return carriers


def list_carriers(where: Iterable[str], carriers: Carriers) -> Plan[None]:
    """List states for what is sought by business keys.

    :param where: the states.
    :param carriers: takes what is found.
    :raises CallError: if a call fails.
    """
    for state in where:
        rows = yield api.query(state)
        reverse = (yield api.query(state, order_type="asc")) if looks_capped(length_of(rows)) else ()
        carriers.take(rows, reverse)


def _list(where: Iterable[str], findings: Findings, *, whole: bool = False) -> Plan[None]:
    """List states: all of them, or those that are wanted whole, and others until no list can show more ids."""
    for state in where:
        if findings.stopped_by is not None:
            return
        if whole or findings.wants_list(state) or findings.lacks_an_id():
            try:
                findings.take(state, (yield api.query(state)))
            except CallError as error:
                findings.take_failed_list(state, error)


def _read(findings: Findings, endpoint: Endpoint, *, only_way: bool = False) -> Plan[None]:
    """Read what lacks by its ids, each once in a search; only one of them while it is unknown whether that works.

    :param only_way: whether nothing else may be tried.
    """
    for instance_id in findings.not_read():
        if findings.stopped_by is not None:
            return
        is_known = bool(endpoint.reads_by_id) or only_way
        try:
            answer: BpmInstance = yield api.get_instance(instance_id, is_known_to_work=is_known)
        except CallError as error:
            findings.take_failed_read(instance_id, error)
            has_worked = False
        else:
            has_worked = findings.take_read(instance_id, answer)
        if has_worked:
            endpoint.reads_by_id = True
        elif not is_known:
            return
