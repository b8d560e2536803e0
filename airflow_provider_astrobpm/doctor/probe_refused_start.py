"""Probe of a start whose token is refused.

It must start nothing, because this provider resends such a start with a new token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.states import COMPLETED, OPEN_STATES
from airflow_provider_astrobpm.doctor.findings import Finding
from airflow_provider_astrobpm.doctor.observation import Probe, instance_of, raw, text, why_unclear
from airflow_provider_astrobpm.doctor.probe_auth import WRONG_TOKEN
from airflow_provider_astrobpm.doctor.probe_start import is_not_sent
from airflow_provider_astrobpm.doctor.start_markers import matches, title_for
from airflow_provider_astrobpm.doctor.started_instances import (
    SentStart,
    StartedInstances,
    sweep_lists,
    terminate_one,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_astrobpm.doctor.observation import InstanceRow, Observation, ProbeFlow
    from airflow_provider_astrobpm.doctor.probe_lists import StateLists

FINDING = "refused_token_start"
EXTRA_LAG_SECONDS = 5  # to wait longer than the observed lag
SECOND_SEARCH_DELAY_SECONDS = 4  # after the first; an instance may change its state between two lists
_CONSEQUENCE = "This provider resends such a start with a new token, so one task may start two instances"


class ListBehaviour(NamedTuple):
    """How a new instance shows in the lists, as far as the run has found out."""

    row: InstanceRow | None
    """The row of the first instance, if it was ever visible."""
    lag: float
    """Seconds until it was visible."""
    newest_first: bool
    """Whether lists are sorted newest first."""


def probe_refused_start(
    started: StartedInstances, key: str, known: ListBehaviour, lists: StateLists
) -> ProbeFlow[None]:
    """Send a start with a wrong token, report whether it starts an instance, and terminate that instance.

    :param key: the business key of the start, which is unique.
    """
    reason = _why_not_sent(started, known, lists)
    if reason is not None:
        yield Finding.unknown(
            FINDING, f"{reason}, so an instance of such a start might not be found; it was not sent"
        )
        return
    state = lists.granted or COMPLETED
    read = yield Probe(raw(operations.query(state)), token=WRONG_TOKEN, remark="a wrong token")
    start = started.record(key)
    operation = raw(
        operations.start(started.process, business_key=key, title=title_for(key)), resend_if_in_doubt=False
    )
    sent = yield Probe(operation, token=WRONG_TOKEN, remark="a wrong token")
    if is_not_sent(sent):
        started.starts.remove(start)
        yield Finding.unknown(FINDING, why_unclear(sent), sent)
        return
    start.refused = is_token_refused(sent, read)
    instance = instance_of(sent)
    if instance is not None:
        start.instance_id = instance["id"]
        yield Finding.known(
            FINDING, "started", f"a start with a wrong token is accepted. {_CONSEQUENCE}", sent, fine=False
        )
        yield from terminate_one(started, start)
        return
    yield from _search_for_instance(started, start, known, lists, read, sent)


def is_token_refused(seen: Observation, read: Observation) -> bool:
    """Return whether a start with a wrong token was refused because of the token.

    :param read: a read with the same token, which can be refused only because of the token.
    """
    if None in (seen.error, read.error, seen.status):
        return False
    code, _ = seen.envelope()
    is_failure = (seen.status or 0) >= 500 and code is None
    return not is_failure and (seen.status, code) == (read.status, read.envelope()[0])


def _why_not_sent(started: StartedInstances, known: ListBehaviour, lists: StateLists) -> str | None:
    if known.row is None:
        return "the new instance was not visible in the lists"
    if not matches(known.row, started.first.business_key):
        return "rows show neither the business key nor the title that was sent"
    mine = {start.instance_id for start in started.starts}  # these have left the lists
    rows = {state: [row for row in rows if row["id"] not in mine] for state, rows in lists.rows.items()}
    if not _would_show_one_more(rows, known, lists):
        return "lists may be truncated, and are not known to be sorted newest first"
    return None


def _would_show_one_more(
    rows: Mapping[str, list[InstanceRow]], known: ListBehaviour, lists: StateLists
) -> bool:
    """Return whether the lists of the first states of an instance would show one more.

    That is certain if lists are sorted newest first, or if each is shorter than the longest list observed.
    """
    first_states = {*OPEN_STATES, text(known.row or {}, "state")}
    return known.newest_first or all(len(rows.get(state, ())) < lists.max_rows for state in first_states)


def _search_for_instance(
    started: StartedInstances, start: SentStart, known: ListBehaviour, lists: StateLists, *seen: Observation
) -> ProbeFlow[None]:
    """Search twice for an instance of the start, and conclude."""
    sweeps = []
    for pause in (known.lag + EXTRA_LAG_SECONDS, SECOND_SEARCH_DELAY_SECONDS):
        yield operations.Sleep(pause)
        sweeps.append((yield from sweep_lists(started)))
        found = [
            each for each in started.starts if each.business_key == start.business_key and each.instance_id
        ]
        if found:
            words = f"refused, but an instance with its business key appeared anyway. {_CONSEQUENCE}"
            yield Finding.known(FINDING, "started", words, *seen, fine=False)
            for each in found:
                yield from terminate_one(started, each)
            return
    failed = next((sweep.failed for sweep in sweeps if sweep.failed is not None), None)
    if failed is not None:
        yield Finding.unknown(FINDING, f"a list could not be read: {why_unclear(failed)}", *seen, failed)
    elif not start.refused:
        yield Finding.unknown(
            FINDING,
            f"the answer does not show that the token was refused: {_describe_answer(seen[-1])}",
            *seen,
        )
    elif not all(_would_show_one_more(sweep.rows, known, lists) for sweep in sweeps):
        yield Finding.unknown(FINDING, "the lists grew meanwhile, and may be truncated", *seen)
    else:
        started.starts.remove(start)
        seconds = known.lag + EXTRA_LAG_SECONDS + SECOND_SEARCH_DELAY_SECONDS
        words = f"refused, and no instance with its business key appeared within {seconds:.0f} s"
        yield Finding.known(FINDING, "not started", words, *seen)


def _describe_answer(seen: Observation) -> str:
    return why_unclear(seen) if seen.error else "the answer is a success"
