"""Flows that list the instances of some states, filtered and ordered.

The query can order, but it is undocumented whether an endpoint does. So the instances are ordered here as well: times as
times, texts by their characters, and rows without a value last. A column that the client does not read is left to the server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from airflow_provider_astrobpm.client import operations, states, timestamps, validation
from airflow_provider_astrobpm.client.instance import ROW_FIELDS, BpmInstance
from airflow_provider_astrobpm.client.search import EndpointTraits
from airflow_provider_astrobpm.client.search_result import SearchResult
from airflow_provider_astrobpm.client.shown_keys import ShownKeys
from airflow_provider_astrobpm.client.wire import unreadable_in

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from airflow_provider_astrobpm.client.ages import AgeLimits
    from airflow_provider_astrobpm.client.operations import Flow
    from airflow_provider_astrobpm.client.wire import UnreadableRow

OrderType = Literal["asc", "desc"]
UNREADABLE_ADVICE = (
    "Narrow the query by bpm_name or business_key to leave it out, or fix the instance in Astro Zero."
)


@dataclass(frozen=True, kw_only=True)
class ListingFilter:
    """Selects instances. A criterion that is ``None`` does not apply.

    :param states: the states; ``Suspended`` matches every suspended instance.
    :param now: the time for its age, in seconds since the epoch.
    """

    states: frozenset[str] | None = None
    bpm_name: str | None = None
    business_key: str | None = None
    suspended: bool | None = None
    ages: AgeLimits | None = None
    now: float = field(default=0.0, compare=False)

    def matches(self, instance: BpmInstance) -> bool | None:
        """Return whether an instance is selected, or ``None`` if that depends on its age, which is unknown."""
        shown = instance.shown_states()
        if (
            (self.states is not None and not self.states & shown)
            or self.bpm_name not in (None, instance.name)
            or self.business_key not in (None, instance.business_key)
            or self.suspended not in (None, states.SUSPENDED in shown)
        ):
            return False
        return True if self.ages is None else self.ages.includes(instance.start_time, self.now)

    def may_be(self, row: UnreadableRow) -> bool:
        """Return whether an unreadable row may belong to a selected instance."""
        return row.may_be(bpm_name=self.bpm_name, business_key=self.business_key)


ALL_INSTANCES = ListingFilter()


class Listing(NamedTuple):
    """The result of a listing."""

    instances: list[BpmInstance]
    """The selected instances, in order."""
    of_unknown_age: int = 0
    """How many were left out because their age is unknown."""


def instances(
    wanted_states: Collection[str],
    *,
    wanted: ListingFilter = ALL_INSTANCES,
    order_field: str | None = "startTime",
    order_type: OrderType = "desc",
    endpoint: EndpointTraits | None = None,
) -> Flow[Listing]:
    """List instances by state (API page 0070), with one request per state, because several at once are undocumented.

    :param wanted: which of the instances in these states to return.
    :param order_field: the column to order by; ``None`` for the server's default.
    :param endpoint: what is known about the environment; the listing adds to it.
    :raises UnexpectedAnswerError: if an unreadable row may be selected, or if rows of one instance contradict each other.
    :raises KeysNotShownError: if a business key is given, and no row of any state shows one.
    """
    states.require_known(wanted_states, "states")
    queries = {
        state: operations.query(state, order_field=order_field, order_type=order_type)
        for state in wanted_states
    }
    # An instance that moves between two lists appears in both; the later row counts.
    search_result = SearchResult({}, wanted_lists=queries)
    for state, operation in queries.items():
        rows = yield operation
        for odd in unreadable_in(rows):
            if wanted.may_be(odd):
                error = odd.error("", UNREADABLE_ADVICE)
                error.attempt = operation.attempt
                raise error
        search_result.add_list(state, rows)
    verdicts = {row.id: wanted.matches(row) for row in search_result.rows.values()}
    for instance_id, verdict in verdicts.items():
        if verdict is not False and instance_id in search_result.contradictions:
            raise search_result.contradictions[instance_id]
    found = [row for row in search_result.rows.values() if verdicts[row.id]]
    if not found and wanted.business_key is not None:
        yield from check_keys_are_shown(search_result.lists, wanted, endpoint or EndpointTraits())
    in_order = sort_instances(found, order_field, order_type)
    return Listing(in_order, sum(verdict is None for verdict in verdicts.values()))


def check_keys_are_shown(
    lists: Mapping[str, Sequence[BpmInstance]], wanted: ListingFilter, endpoint: EndpointTraits
) -> Flow[None]:
    """Check that the lists show business keys, after a listing by key found nothing.

    The other states are listed too, because the instances with keys may just be in another state.

    :param lists: the rows of the states that were listed.
    :raises KeysNotShownError: if no row of any state shows a key.
    """
    key = str(wanted.business_key)
    shown = ShownKeys(shows_any=endpoint.shows_keys)
    for rows in lists.values():
        shown.add_list(rows)
    for state in states.STATES:
        if shown.why_not_found(key, wanted.bpm_name) is None:
            break
        if state not in lists:
            shown.add_list((yield operations.query(state)))
    endpoint.shows_keys = shown.shows_any
    if error := shown.why_not_found(key, wanted.bpm_name):
        raise error


def sort_instances(
    rows: Sequence[BpmInstance], order_field: str | None, order_type: OrderType
) -> list[BpmInstance]:
    """Sort instances. Those without a value in the column come last, in their present order."""
    field = ROW_FIELDS.get(order_field or "")
    if field is None:
        return list(rows)
    values = [getattr(row, field) for row in rows]
    if field in ("start_time", "end_time"):
        values = [timestamps.parse(value) for value in values]
    pairs = list(zip(values, rows, strict=True))
    known = [pair for pair in pairs if pair[0] is not None]
    known.sort(key=lambda pair: pair[0], reverse=order_type == "desc")
    return [row for _, row in known] + [row for value, row in pairs if value is None]


def checked(bpm_name: str | None, business_key: str | None) -> dict[str, Any]:
    """Check the given arguments, and return those that are not ``None``."""
    given = (
        ("bpm_name", bpm_name, validation.identifier),
        ("business_key", business_key, validation.sought_key),
    )
    return {name: check(value, name) for name, value, check in given if value is not None}
