"""Plans that find instances with the documented query alone: by state, with no id filter and no paging.

One search answers for any number of instances. It asks for the states in which they were last seen first, because most
have not moved. For those that left, it asks for the other states, likeliest first, each at most once. What was in none
of them may have moved between two queries, so all states are asked once more before anything counts as not found.
A list that fails, after all its attempts, costs only what it could have shown (``findings``).

Reading one instance by its id is undocumented. Where it works it is used when that saves requests, and for what a row
cap may hide from the lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.bpm import api, checks, states
from airflow_provider_astrobpm.bpm.errors import CallError
from airflow_provider_astrobpm.bpm.findings import Findings
from airflow_provider_astrobpm.bpm.key_form import KeyForm

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

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
    shows_keys = False
    """Whether a row of a list has shown a business key."""
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
    findings.shown_keys.shows_any = endpoint.shows_keys
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
        endpoint.shows_keys = findings.shown_keys.shows_any
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
    instance_id = checks.identifier(instance_id, "instance_id")
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


def find_by_key(
    business_key: str, *, name: str | None = None, endpoint: Endpoint | None = None
) -> Plan[BpmInstance]:
    """Find the instance that carries a business key.

    :param business_key: the key, ``$Flow.BusinessKey``.
    :param name: the BPM's name, if only its instances count.
    :param endpoint: as ``find`` has it.
    :raises InstanceNotFoundError: if there is none.
    :raises KeysNotShownError: if no row shows a key, so nobody can tell.
    :raises SeveralInstancesError: if the key does not say which one is meant.
    """
    key = key_of(business_key, name)
    findings = yield from find({}, [key], endpoint=endpoint)
    return findings.carrier(key)


def key_of(business_key: str, bpm_name: str | None) -> BusinessKey:
    """Return a checked business key."""
    business_key = checks.identifier(business_key, "business_key")
    return BusinessKey(business_key, None if bpm_name is None else checks.identifier(bpm_name, "bpm_name"))


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
            answer: BpmInstance | None = yield api.get_instance(instance_id, is_known_to_work=is_known)
        except CallError as error:
            findings.take_failed_read(instance_id, error)
            has_worked = False
        else:
            has_worked = findings.take_read(instance_id, answer)
        if has_worked:
            endpoint.reads_by_id = True
        elif not is_known:
            return
