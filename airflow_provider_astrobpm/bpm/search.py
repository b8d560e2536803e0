"""Plans that find instances with the documented query alone: by state, with no id filter and no paging.

One search answers for any number of instances. It asks for the states in which they were last seen first, because most
have not moved. For those that left, it asks for the other states, likeliest first, each at most once. What was in none
of them may have moved between two queries, so all states are asked once more before anything counts as not found.

Reading one instance by its id is undocumented. Where it works it is used when that saves requests, and for what a row
cap may hide from the lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.bpm import api, checks, states
from airflow_provider_astrobpm.bpm.errors import (
    CallError,
    InstanceNotFoundError,
    NotSentError,
    RefusedError,
    SeveralInstancesError,
    ThrottledError,
)
from airflow_provider_astrobpm.bpm.key_form import KeyForm

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from airflow_provider_astrobpm.bpm.api import Plan
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.settings import InstanceLookup, Settings


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
    key_example: tuple[str, str] | None = None
    """A business key as it was sent, and as the answer to that start showed it, where the two differ."""

    @property
    def key_form(self) -> KeyForm | None:
        """What the endpoint makes of business keys, if it was seen to change one."""
        return KeyForm.of(*self.key_example) if self.key_example else None

    def learn_key(self, sent: str, started: BpmInstance) -> str | None:
        """Compare the key that a start has sent with the one that its answer shows.

        :returns: a warning, the first time that they differ.
        """
        shown = started.business_key
        # Where the answer shows no key, or the id in its place, it says nothing.
        if shown in (None, sent, started.id) or self.key_example is not None:
            return None
        self.key_example = (sent, str(shown))
        return (
            f"Business key {sent!r} came back as {shown!r}. Where the answer to a start is lost, its instance may not be "
            "found by its key, and the task then asks a person"
        )


_ENDPOINTS: dict[str, Endpoint] = {}


def endpoint_at(base_url: str) -> Endpoint:
    """Return what this process has learnt about the environment at an address."""
    return _ENDPOINTS.setdefault(base_url, Endpoint())


class Findings:
    """What one search has found.

    :param ids: the instances that are sought by their ids.
    :param keys: the business keys that are sought.
    :param lists: the states whose every instance is wanted.
    """

    def __init__(self, ids: Iterable[str], keys: Iterable[BusinessKey], lists: Collection[str] = ()) -> None:
        self.instances: dict[str, BpmInstance] = {}
        self.lists: dict[str, Sequence[BpmInstance]] = {}
        """The instances of each state that was wanted whole, in the order of the server."""
        self._wanted_lists = lists
        self._ids = frozenset(ids)
        self._keys: dict[str, list[BusinessKey]] = {}
        self._carriers: dict[BusinessKey, dict[str, BpmInstance]] = {key: {} for key in keys}
        for key in self._carriers:
            self._keys.setdefault(key.value, []).append(key)
        self._read: dict[str, CallError | None] = {}
        self._most_rows: int | None = None

    def instance(self, instance_id: str) -> BpmInstance:
        """Return an instance that was sought by its id.

        :raises InstanceNotFoundError: if it is in none of the states.
        """
        if found := self.instances.get(instance_id):
            return found
        refusal = self._read.get(instance_id)
        missing = InstanceNotFoundError(
            f"instance {instance_id!r}", most_rows=self._most_rows or 0, refusal=refusal
        )
        if self._most_rows is None:
            missing.problem = f"instance {instance_id!r} could not be read by its id"
            missing.advice = (
                "Either there is none, or this endpoint does not read instances by id (undocumented): then set the "
                "extra 'instance_lookup' to \"list\"."
            )
        elif refusal is not None:
            missing.problem += ", and could not be read by its id either"
        raise missing

    def carrier(self, key: BusinessKey) -> BpmInstance:
        """Return the instance that carries a business key: the only one, or the only one that is open.

        :raises InstanceNotFoundError: if there is none.
        :raises SeveralInstancesError: if the key does not say which one is meant.
        """
        carriers = list(self._carriers[key].values())
        if not carriers:
            raise InstanceNotFoundError(f"an instance with {key}", most_rows=self._most_rows or 0)
        still_open = [row for row in carriers if not row.is_closed]
        if len(carriers) > 1 and len(still_open) != 1:
            raise SeveralInstancesError(f"business key {key.value!r}", still_open or carriers)
        return still_open[0] if still_open else carriers[0]

    def take(self, state: str, rows: Sequence[BpmInstance]) -> None:
        """Take what is sought from a list. An instance that moved meanwhile shows twice; the later look counts."""
        self._most_rows = max(self._most_rows or 0, len(rows))
        if state in self._wanted_lists:
            self.lists[state] = rows
        if not self._ids and not self._keys:
            return
        for row in rows:
            if row.id in self._ids:
                self.instances[row.id] = row
            for key in self._keys.get(row.business_key or "", ()):
                if key.bpm_name in (None, row.name):
                    self._carriers[key][row.id] = row

    def take_read(self, instance_id: str, answer: BpmInstance | CallError) -> bool:
        """Take what came of reading an instance by its id, and return whether it is that instance."""
        self._read[instance_id] = answer if isinstance(answer, CallError) else None
        if isinstance(answer, CallError) or answer.id != instance_id:
            return False
        self.instances[instance_id] = answer
        return True

    def lacks_a_list(self, state: str) -> bool:
        """Tell whether a state was not listed yet whose every instance is wanted."""
        return state in self._wanted_lists and state not in self.lists

    def lacking(self) -> list[str]:
        """Return the ids that were not found yet."""
        return [one for one in self._ids if one not in self.instances]

    def not_read(self) -> list[str]:
        """Return the ids that were neither found yet nor read."""
        return [one for one in self.lacking() if one not in self._read]

    def lacks_a_key(self) -> bool:
        """Tell whether nothing was found for a key."""
        return not all(self._carriers.values())

    def lacks_an_open_carrier(self) -> bool:
        """Tell whether nothing but ended instances were found for a key."""
        return any(all(row.is_closed for row in rows.values()) for rows in self._carriers.values())

    def shows_what_was_read(self) -> bool:
        """Tell whether something was found that reading by its id was tried for."""
        return any(one in self.instances for one in self._read)


def looks_capped(rows: int) -> bool:
    """Tell whether a list has a length at which servers cut lists off; Astro Zero's cap is undocumented."""
    return rows >= 100 and (rows % 50 == 0 or rows & (rows - 1) == 0)


def find(
    last_seen: Mapping[str, str | None],
    keys: Collection[BusinessKey] = (),
    lists: Collection[str] = (),
    *,
    lookup: InstanceLookup = "list",
    endpoint: Endpoint | None = None,
) -> Plan[Findings]:
    """Find instances by their ids and by business keys, and all of some states.

    :param last_seen: for each id the state in which it was last seen, or ``None``.
    :param keys: business keys. Every state is listed for them: several instances may carry one.
    :param lists: states whose every instance is wanted.
    :param lookup: ``list`` uses the documented query alone; ``by_id`` reads ids directly, which is undocumented;
        ``auto`` reads an id directly where that saves requests, until this proves not to work here.
    :param endpoint: what is known of the environment; ``auto`` adds to it.
    :raises CallError: if a call fails.
    """
    endpoint = endpoint or Endpoint()
    findings = Findings(last_seen, keys, lists)
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
    if whole or (lookup != "by_id" and findings.lacking()):
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
    checks.text(instance_id, "instance_id")
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
    checks.text(business_key, "business_key")
    return BusinessKey(business_key, None if bpm_name is None else checks.text(bpm_name, "bpm_name"))


def _list(where: Iterable[str], findings: Findings, *, whole: bool = False) -> Plan[None]:
    """List states: all of them, or those that are wanted whole, and others until no id lacks any more."""
    for state in where:
        if whole or findings.lacks_a_list(state) or findings.lacking():
            findings.take(state, (yield api.query(state)))


def _read(findings: Findings, endpoint: Endpoint, *, only_way: bool = False) -> Plan[None]:
    """Read what lacks by its ids, each once in a search; only one of them while nobody knows whether that works.

    :param only_way: whether nothing else may be tried.
    """
    for instance_id in findings.not_read():
        try:
            answer: BpmInstance | CallError = yield api.get_instance(instance_id)
        except CallError as error:
            # Listing would need the same server and the same token.
            if error.came_before or isinstance(error, (NotSentError, ThrottledError)):
                raise
            if only_way and not isinstance(error, RefusedError):
                raise
            answer = error
        if findings.take_read(instance_id, answer):
            endpoint.reads_by_id = True
        elif not endpoint.reads_by_id and not only_way:
            return
