"""Flows that find instances with the documented query alone, which lists by state, without an id filter and without paging.

One search serves any number of instances. It first lists the states in which they were last seen, because most have not
moved. For the rest it lists the other states, the likeliest first, each at most once. An instance in none of them may have
moved between two queries, so all states are listed once more before it counts as not found. A list that fails after all its
attempts affects only the instances that it might have shown (``search_result``).

Reading one instance by its id is undocumented. If it works, it is used when it saves requests, and for instances that a row
cap may hide from the lists.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.client import operations, process_state, states, validation
from airflow_provider_astrobpm.client.errors import AstroZeroError, CallError
from airflow_provider_astrobpm.client.key_form import BusinessKey, KeyForm
from airflow_provider_astrobpm.client.search_result import SearchResult

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.operations import Flow
    from airflow_provider_astrobpm.client.settings import InstanceLookup, Settings


@dataclass(slots=True)
class SearchRequest:
    """What a search has to find."""

    ids: dict[str, str | None] = field(default_factory=dict)
    """Instances by id, each with the state in which it was last seen, or ``None``."""
    keys: set[BusinessKey] = field(default_factory=set)
    """Instances by business key."""
    lists: set[str] = field(default_factory=set)
    """States whose instances are all requested."""


class EndpointTraits:
    """What this process has learned about one environment."""

    reads_by_id: bool | None = None
    """Whether the undocumented ``GET /instances/{id}`` works, or ``None`` if that is unknown."""
    shows_keys = False
    """Whether a row of a list has shown a business key."""
    key_example: tuple[str, str] | None = None
    """A business key as it was sent and as the answer to the start showed it, if the two differ."""

    @property
    def key_form(self) -> KeyForm | None:
        """How the endpoint changes business keys, if it was seen to change one."""
        return KeyForm.of(*self.key_example) if self.key_example else None

    def learn_key(self, sent: str, started: BpmInstance) -> str | None:
        """Compare the business key that a start sent with the one in its answer. Return a warning the first time they differ."""
        shown = started.business_key
        # An answer without a key, or with the id in its place, proves nothing.
        if shown in (None, sent, started.id) or self.key_example is not None:
            return None
        self.key_example = (sent, str(shown))
        return (
            f"Business key {sent!r} came back as {shown!r}. If the answer to a start is lost, its instance may not be "
            "found by its key, and the task then asks a user to check"
        )


_ENDPOINTS: dict[str, EndpointTraits] = {}
process_state.register(_ENDPOINTS.clear)


def traits_of_endpoint(base_url: str) -> EndpointTraits:
    """Return what this process has learned about the environment at a base URL."""
    return _ENDPOINTS.setdefault(base_url, EndpointTraits())


def may_be_truncated(rows: int) -> bool:
    """Return whether a list has a length at which servers typically truncate lists. Astro Zero's cap is undocumented."""
    return rows >= 100 and (rows % 50 == 0 or rows & (rows - 1) == 0)


def find(
    last_seen: Mapping[str, str | None],
    keys: Collection[BusinessKey] = (),
    lists: Collection[str] = (),
    *,
    lookup: InstanceLookup = "list",
    endpoint: EndpointTraits | None = None,
) -> Flow[SearchResult]:
    """Find instances by ids and by business keys, and all instances in some states.

    A failed call does not end the search; the result says what follows from it.

    :param last_seen: for each id the state in which it was last seen, or ``None``.
    :param keys: business keys. All states are listed for them, because several instances may have the same key.
    :param lists: states whose instances are all requested.
    :param lookup: ``list`` uses only the documented query. ``by_id`` reads ids directly, which is undocumented. ``auto`` reads
        an id directly if that saves requests, until this proves not to work on the endpoint.
    :param endpoint: what is known about the environment; ``auto`` adds to it.
    """
    endpoint = endpoint or EndpointTraits()
    search_result = SearchResult(last_seen, keys, lists, reads_only=lookup == "by_id")
    search_result.shown_keys.shows_any = endpoint.shows_keys
    if lookup == "by_id":
        yield from _read(search_result, endpoint, only_way=True)
        if not keys:
            yield from _list(lists, search_result)
            return search_result
    # Lists that are needed anyway come first: searching them costs nothing.
    hints = [state for state in states.STATES if state in {*last_seen.values(), *lists}]
    others = [state for state in states.STATES if state not in hints]
    may_read = lookup == "auto" and endpoint.reads_by_id is not False
    if not keys:
        if may_read and endpoint.reads_by_id and not lists and len(last_seen) <= max(1, len(hints)):
            yield from _read(search_result, endpoint)
        yield from _list(hints, search_result)
        if may_read and len(search_result.unread_ids()) <= len(others):
            yield from _read(search_result, endpoint)
        yield from _list(others, search_result)
    else:
        yield from _list(states.STATES, search_result, whole=True)
        endpoint.shows_keys = search_result.shown_keys.shows_any
    is_complete = search_result.lacks_a_match()
    # If a list failed, a second round cannot prove that an instance is in none of the states.
    if is_complete or (lookup != "by_id" and search_result.missing_ids() and not search_result.failed_lists):
        yield from _list([*hints, *others], search_result, whole=is_complete)
    if not is_complete and search_result.lacks_an_open_match():
        # An open match may have moved against the order of the search. An ended match must not be returned in its place.
        yield from _list(states.OPEN_STATES, search_result, whole=True)
    if may_read:
        yield from _read(search_result, endpoint)
        # The lists show an instance that could not be read by its id.
        if endpoint.reads_by_id is None and search_result.found_an_id_that_was_read():
            endpoint.reads_by_id = False
    return search_result


def find_by_id(
    instance_id: str,
    last_state: str | None = None,
    *,
    lookup: InstanceLookup = "auto",
    endpoint: EndpointTraits | None = None,
) -> Flow[BpmInstance]:
    """Find one instance by its id.

    :param last_state: the state in which it was last seen.
    :param lookup: as for ``find``, as is ``endpoint``.
    :raises InstanceNotFoundError: if it is in none of the states.
    """
    instance_id = validation.identifier(instance_id, "instance_id")
    search_result = yield from find({instance_id: last_state}, lookup=lookup, endpoint=endpoint)
    return search_result.instance(instance_id)


def instance_finder(settings: Settings) -> Callable[..., Flow[BpmInstance]]:
    """Return ``find_by_id`` with the settings of a connection: a function of an id and, optionally, its last seen state."""
    endpoint = traits_of_endpoint(settings.base_url)
    return partial(find_by_id, lookup=settings.instance_lookup, endpoint=endpoint)


def find_by_key(
    business_key: str, *, name: str | None = None, endpoint: EndpointTraits | None = None
) -> Flow[BpmInstance]:
    """Find the instance with a business key.

    :param name: the BPM's name, if only its instances count.
    :param endpoint: as for ``find``.
    :raises InstanceNotFoundError: if there is none.
    :raises KeysNotShownError: if no row shows a key, so a search by key cannot work.
    :raises SeveralInstancesError: if several instances have the key.
    :raises CallError: if that is unknown.
    """
    key = checked_business_key(business_key, name)
    search_result = yield from find({}, [key], endpoint=endpoint)
    if isinstance(result := search_result.match_or_error(key), AstroZeroError):
        raise result
    return result


def checked_business_key(business_key: str, bpm_name: str | None) -> BusinessKey:
    """Check a business key and a BPM name, and return them as one value."""
    key = validation.sought_key(business_key, "business_key")
    return BusinessKey(key, None if bpm_name is None else validation.identifier(bpm_name, "bpm_name"))


def _list(where: Iterable[str], search_result: SearchResult, *, whole: bool = False) -> Flow[None]:
    """List states: all of them if ``whole``; otherwise those requested completely, and others while ids are missing."""
    for state in where:
        if search_result.stopped_by is not None:
            return
        if whole or search_result.wants_list(state) or search_result.may_still_find_ids():
            try:
                search_result.add_list(state, (yield operations.query(state)))
            except CallError as error:
                search_result.add_failed_list(state, error)


def _read(search_result: SearchResult, endpoint: EndpointTraits, *, only_way: bool = False) -> Flow[None]:
    """Read missing instances by id, each once per search. Read only one while it is unknown whether reading by id works."""
    for instance_id in search_result.unread_ids():
        if search_result.stopped_by is not None:
            return
        is_known = bool(endpoint.reads_by_id) or only_way
        try:
            answer: BpmInstance | None = yield operations.get_instance(instance_id, is_known_to_work=is_known)
            if search_result.add_read(instance_id, answer):
                endpoint.reads_by_id = is_known = True
        except CallError as error:
            search_result.add_failed_read(instance_id, error)
        if not is_known:
            return
