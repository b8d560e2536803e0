"""Plans that list the instances of some states: those that a filter means, in order.

The query can order, and whether an endpoint honours that is not documented. So the instances are ordered here as well: times by time,
texts by their characters, and what shows nothing in the column last. A column that the client does not read is left to the server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from airflow_provider_astrobpm.bpm import api, checks, states, timestamps
from airflow_provider_astrobpm.bpm.errors import UnexpectedAnswerError
from airflow_provider_astrobpm.bpm.findings import Findings
from airflow_provider_astrobpm.bpm.search import Endpoint
from airflow_provider_astrobpm.bpm.shown_keys import ShownKeys
from airflow_provider_astrobpm.bpm.wire import unreadable_in

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from airflow_provider_astrobpm.bpm.ages import AgeLimits
    from airflow_provider_astrobpm.bpm.api import Plan
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.wire import Unreadable

OrderType = Literal["asc", "desc"]

TIMES = {"startTime": "start_time", "endTime": "end_time"}
COLUMNS = {
    **TIMES,
    "id": "id",
    "name": "name",
    "version": "version",
    "label": "label",
    "title": "title",
    "state": "state",
    "suspended": "suspended",
    "bpStatus": "bp_status",
    "curElement": "current_element",
    "businessKey": "business_key",
}
"""The columns by which is ordered here, by their names on the wire, each with its field of an instance."""


class Order(NamedTuple):
    """In which order instances are listed."""

    field: str | None = "startTime"
    """The column; ``None`` for the server's own order."""
    direction: OrderType = "desc"


NEWEST_FIRST = Order()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which instances of some states are meant; what is ``None`` is not asked.

    :param bpm_name: the name of its BPM.
    :param business_key: its business key.
    :param suspended: whether it is suspended.
    :param ages: how old it is.
    :param now: the time, in seconds since the epoch; for its age.
    """

    bpm_name: str | None = None
    business_key: str | None = None
    suspended: bool | None = None
    ages: AgeLimits | None = None
    now: float = 0.0

    def matches(self, instance: BpmInstance) -> bool | None:
        """Tell whether an instance is meant; ``None`` if it would be, and its age cannot be known."""
        if self.bpm_name not in (None, instance.name) or self.business_key not in (
            None,
            instance.business_key,
        ):
            return False
        if self.suspended not in (None, states.SUSPENDED in instance.shown_states()):
            return False
        return True if self.ages is None else self.ages.admit(instance.start_time, self.now)

    def may_be(self, row: Unreadable) -> bool:
        """Tell whether a row that cannot be read may be of an instance that is meant."""
        return row.may_be(bpm_name=self.bpm_name, business_key=self.business_key)


EVERY = Wanted()


class Listed(NamedTuple):
    """What was listed."""

    instances: list[BpmInstance]
    """Those that are meant, in order."""
    of_unknown_age: int = 0
    """How many were left out because their age cannot be known."""


def instances(
    wanted_states: Collection[str],
    *,
    wanted: Wanted = EVERY,
    order: Order = NEWEST_FIRST,
    endpoint: Endpoint | None = None,
) -> Plan[Listed]:
    """List instances by state (API page 0070): one request a state, because several at once are undocumented.

    :param wanted_states: states to list.
    :param wanted: which of their instances are meant.
    :param order: the order.
    :param endpoint: what is known of the environment, and is learnt of it.
    :raises UnexpectedAnswerError: if a row that may be meant cannot be read, or rows of one instance contradict each other.
    :raises KeysNotShownError: if a business key is asked for, and no row of any state shows one.
    """
    known = states.require_known(wanted_states, "states")
    operations = {
        state: api.query(state, order_field=order.field, order_type=order.direction)
        for state in dict.fromkeys(wanted_states)
        if state in known
    }
    endpoint = endpoint or Endpoint()
    shown = ShownKeys(shows_any=endpoint.shows_keys)
    # An instance that moved from one state to another meanwhile shows twice; the later list counts.
    findings = Findings({}, wanted_lists=operations)
    for state, operation in operations.items():
        rows = yield operation
        for odd in unreadable_in(rows):
            if wanted.may_be(odd):
                raise _unreadable(odd, operation.attempt)
        findings.take(state, rows)
        shown.take(rows)
    verdicts = {row.id: wanted.matches(row) for row in findings.rows.values()}
    for instance_id, verdict in verdicts.items():
        if verdict is not False and instance_id in findings.doubts:
            raise findings.doubts[instance_id]
    found = [row for row in findings.rows.values() if verdicts[row.id]]
    if not found and wanted.business_key is not None:
        yield from check_keys_show(shown, operations, wanted, endpoint)
    return Listed(ordered(found, order), sum(verdict is None for verdict in verdicts.values()))


def check_keys_show(
    shown: ShownKeys, listed: Collection[str], wanted: Wanted, endpoint: Endpoint
) -> Plan[None]:
    """Check that lists show business keys, where nothing was found by one.

    The states that were not listed are looked through, too: the instances that have keys may just be in another state.

    :param shown: what the lists show.
    :param listed: the states that were listed.
    :param wanted: what was looked for.
    :param endpoint: what is known of the environment, and is learnt of it.
    :raises KeysNotShownError: if no row of any state shows a key.
    """
    key = str(wanted.business_key)
    for state in states.STATES:
        if shown.why_not_found(key, wanted.bpm_name) is None:
            break
        if state not in listed:
            shown.take((yield api.query(state)))
    endpoint.shows_keys = shown.shows_any
    if error := shown.why_not_found(key, wanted.bpm_name):
        raise error


def ordered(rows: Sequence[BpmInstance], order: Order) -> list[BpmInstance]:
    """Return instances in an order; those that show nothing in its column come last, in the order in which they are."""
    field = COLUMNS.get(order.field or "")
    if field is None:
        return list(rows)
    known: list[tuple[Any, BpmInstance]] = []
    unknown: list[BpmInstance] = []
    for row in rows:
        value = getattr(row, field)
        if order.field in TIMES:
            value = timestamps.parse(value)
        if value is None:
            unknown.append(row)
        else:
            known.append((value, row))
    known.sort(key=lambda pair: pair[0], reverse=order.direction == "desc")
    return [*(row for _, row in known), *unknown]


def checked(bpm_name: str | None, business_key: str | None) -> dict[str, str]:
    """Return those of the two that are given, checked."""
    given = (("bpm_name", bpm_name), ("business_key", business_key))
    return {name: checks.identifier(value, name) for name, value in given if value is not None}


def _unreadable(row: Unreadable, attempt: str) -> UnexpectedAnswerError:
    which = f"the row of instance {row.id!r}" if row.id else "a row"
    error = UnexpectedAnswerError(f"{which} cannot be read, because {row.reason}")
    error.advice = "Narrow the query by bpm_name or business_key to leave it out, or mend it in Astro Zero."
    error.attempt = attempt
    return error
