"""Plans that find instances with the documented query alone: by state, with no id filter and no paging.

A search asks for the states in which the sought instances were last seen first, because most have not moved. For
those that left, it asks for the other states, likeliest first, each at most once. What was in none of them may have
moved between two queries, so all states are asked once more before anything counts as not found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm import api, checks, states
from airflow_provider_astrobpm.bpm.errors import (
    AstroZeroError,
    CallError,
    InstanceNotFoundError,
    NotSentError,
    RefusedError,
    SeveralInstancesError,
    ThrottledError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_provider_astrobpm.bpm.api import Plan
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.settings import InstanceLookup

ROUNDS = 2  # the search, and one more before "not found"


class Endpoint:
    """What this process has learnt about one environment."""

    reads_by_id: bool | None = None
    """Whether ``GET /instances/{id}``, which is undocumented, answers properly; ``None`` while nobody knows."""


class Findings:
    """What one search has found."""

    def __init__(self) -> None:
        self.instances: dict[str, BpmInstance] = {}
        self.most_rows = 0


def find_many(last_seen: Mapping[str, str | None]) -> Plan[Findings]:
    """Find instances by their ids.

    :param last_seen: for each id the state in which it was last seen, or ``None``.
    :returns: those found; a missing id was in none of the states, twice.
    """
    findings = Findings()
    hints = [state for state in states.STATES if state in set(last_seen.values())]
    for _ in range(ROUNDS):
        for state in [*hints, *(state for state in states.STATES if state not in hints)]:
            if findings.instances.keys() >= last_seen.keys():
                return findings
            rows = yield from _rows(state, findings)
            findings.instances.update((row.id, row) for row in rows if row.id in last_seen)
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
    :param lookup: ``list`` uses the documented query alone; ``by_id`` reads it directly, which is undocumented;
        ``auto`` tries to read it directly until this proves not to work here.
    :param endpoint: what is known of the environment; ``auto`` adds to it.
    :raises InstanceNotFoundError: if it is in none of the states.
    """
    checks.text(instance_id, "instance_id")
    endpoint = endpoint or Endpoint()
    failure: CallError | None = None
    if lookup == "by_id" or (lookup == "auto" and endpoint.reads_by_id is not False):
        try:
            instance: BpmInstance = yield api.get_instance(instance_id)
        except (NotSentError, ThrottledError):
            raise
        except CallError as error:
            if error.came_before:
                raise  # Listing would need the same token.
            failure = error
        else:
            if instance.id == instance_id:
                endpoint.reads_by_id = True
                return instance
        if lookup == "by_id":
            raise _unreadable(instance_id, failure)
    findings = yield from find_many({instance_id: last_state})
    if instance_id not in findings.instances:
        raise InstanceNotFoundError(
            f"instance {instance_id!r}", most_rows=findings.most_rows, refusal=failure
        )
    if lookup == "auto" and endpoint.reads_by_id is None:
        endpoint.reads_by_id = False  # It exists, and yet it could not be read by its id.
    return findings.instances[instance_id]


def find_by_key(business_key: str, *, name: str | None = None) -> Plan[BpmInstance]:
    """Find the instance that carries a business key. Every state is asked: several may carry it.

    :param business_key: the key, ``$Flow.BusinessKey``.
    :param name: the BPM's name, if only its instances count.
    :returns: the only one, or the only one that is open.
    :raises InstanceNotFoundError: if there is none.
    :raises SeveralInstancesError: if the key does not say which one is meant.
    """
    checks.text(business_key, "business_key")
    if name is not None:
        checks.text(name, "bpm_name")
    sought = f"an instance with business key {business_key!r}" + (f" of BPM {name!r}" if name else "")
    matching = yield from _matching(
        lambda row: row.business_key == business_key and name in (None, row.name), sought=sought
    )
    still_open = [row for row in matching if not row.is_closed]
    if len(matching) > 1 and len(still_open) != 1:
        raise SeveralInstancesError(f"business key {business_key!r}", still_open or matching)
    return still_open[0] if still_open else matching[0]


def _matching(wanted: Callable[[BpmInstance], bool], *, sought: str) -> Plan[list[BpmInstance]]:
    findings = Findings()

    def look(where: Iterable[str]) -> Plan[None]:
        for state in where:
            rows = yield from _rows(state, findings)
            # An instance that moved meanwhile shows twice; the later look counts.
            findings.instances.update((row.id, row) for row in rows if wanted(row))

    yield from look(states.STATES)
    if not any(not row.is_closed for row in findings.instances.values()):
        # An open one may have moved against the order of the search. An ended one must not be taken in its place.
        yield from look(states.STATES if not findings.instances else states.OPEN_STATES)
    if not findings.instances:
        raise InstanceNotFoundError(sought, most_rows=findings.most_rows)
    return list(findings.instances.values())


def _rows(state: str, findings: Findings) -> Plan[list[BpmInstance]]:
    rows: list[BpmInstance] = yield api.query(state)
    findings.most_rows = max(findings.most_rows, len(rows))
    return rows


def _unreadable(instance_id: str, failure: CallError | None) -> AstroZeroError:
    """Return the error for a direct read that failed where nothing else may be tried."""
    if failure is not None and not isinstance(failure, RefusedError):
        return failure
    missing = InstanceNotFoundError(f"instance {instance_id!r}", refusal=failure)
    missing.problem = f"instance {instance_id!r} could not be read by its id"
    missing.advice = (
        "Either there is none, or this endpoint does not read instances by id (undocumented): then set the extra "
        "'instance_lookup' to \"list\"."
    )
    return missing
