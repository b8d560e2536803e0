"""Probe of a start whose token is refused.

It must start nothing, because this provider resends such a start with a new token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.states import COMPLETED, OPEN_STATES
from airflow_provider_astrobpm.doctor.findings import Finding
from airflow_provider_astrobpm.doctor.observation import Probe, text
from airflow_provider_astrobpm.doctor.probe_auth import WRONG_TOKEN
from airflow_provider_astrobpm.doctor.start_markers import matches, title_for
from airflow_provider_astrobpm.doctor.started_instances import (
    SECOND_SEARCH_DELAY_SECONDS,
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
_CONSEQUENCE = "This provider resends such a start with a new token, so one task may start two instances"


class ListBehaviour(NamedTuple):
    """How a new instance shows in the lists, as far as the run has found out."""

    lists: StateLists
    """The lists of all states, as last read."""
    row: InstanceRow | None
    """The row of the first instance, if it was ever visible."""
    lag: float
    """Seconds until it was visible."""
    newest_first: bool
    """Whether lists are sorted newest first."""

    def would_show_one_more(self, rows: Mapping[str, list[InstanceRow]]) -> bool:
        """Return whether the lists of the first states of an instance would show one more.

        That is certain if lists are sorted newest first, or if each is shorter than the longest list observed.
        """
        first_states = {*OPEN_STATES, text(self.row or {}, "state")}
        limit = self.lists.max_rows
        return self.newest_first or all(len(rows.get(state, ())) < limit for state in first_states)


def probe_refused_start(started: StartedInstances, key: str, known: ListBehaviour) -> ProbeFlow[None]:
    """Send a start with a wrong token, report whether it starts an instance, and terminate that instance.

    :param key: the business key of the start, which is unique.
    """
    reason = _why_not_sent(started, known)
    if reason is not None:
        words = f"{reason}, so an instance of such a start might not be found; it was not sent"
        yield Finding.unknown(FINDING, words)
        return
    state = known.lists.granted or COMPLETED
    read = yield Probe(operations.query(state), token=WRONG_TOKEN, remark="a wrong token")
    start = started.record(key)
    operation = operations.start(started.process, business_key=key, title=title_for(key))
    sent = yield Probe(operation, token=WRONG_TOKEN, remark="a wrong token")
    if sent.never_reached:
        started.starts.remove(start)
        yield Finding.unknown(FINDING, sent.why_unclear, sent)
        return
    # The read can be refused only because of the token.
    start.refused = sent.fails_like(read) and not (sent.is_server_error and sent.envelope[0] is None)
    instance = sent.instance
    if instance is not None:
        start.instance_id = instance["id"]
        words = f"a start with a wrong token is accepted. {_CONSEQUENCE}"
        yield Finding.known(FINDING, "started", words, sent, fine=False)
        yield from terminate_one(started, start)
        return
    yield from _search_for_instance(started, start, known, read, sent)


def _why_not_sent(started: StartedInstances, known: ListBehaviour) -> str | None:
    if known.row is None:
        return "the new instance was not visible in the lists"
    if not matches(known.row, started.first.business_key):
        return "rows show neither the business key nor the title that was sent"
    mine = {start.instance_id for start in started.starts}  # these have left the lists
    before = known.lists.rows.items()
    rows = {state: [row for row in rows if row["id"] not in mine] for state, rows in before}
    if not known.would_show_one_more(rows):
        return "lists may be truncated, and are not known to be sorted newest first"
    return None


def _search_for_instance(
    started: StartedInstances, start: SentStart, known: ListBehaviour, *seen: Observation
) -> ProbeFlow[None]:
    """Search twice for an instance of the start, and conclude."""
    sweeps = []
    for pause in (known.lag + EXTRA_LAG_SECONDS, SECOND_SEARCH_DELAY_SECONDS):
        yield operations.Sleep(pause)
        sweeps.append((yield from sweep_lists(started)))
        same_key = (each for each in started.starts if each.business_key == start.business_key)
        found = [each for each in same_key if each.instance_id]
        if found:
            words = f"refused, but an instance with its business key appeared anyway. {_CONSEQUENCE}"
            yield Finding.known(FINDING, "started", words, *seen, fine=False)
            for each in found:
                yield from terminate_one(started, each)
            return
    failed = next((sweep.failed for sweep in sweeps if sweep.failed is not None), None)
    if failed is not None:
        yield Finding.unknown(FINDING, f"a list could not be read: {failed.why_unclear}", *seen, failed)
    elif not start.refused:
        answer = seen[-1].why_unclear if seen[-1].error else "the answer is a success"
        reason = f"the answer does not show that the token was refused: {answer}"
        yield Finding.unknown(FINDING, reason, *seen)
    elif not all(known.would_show_one_more(sweep.rows) for sweep in sweeps):
        yield Finding.unknown(FINDING, "the lists grew meanwhile, and may be truncated", *seen)
    else:
        started.starts.remove(start)
        seconds = known.lag + EXTRA_LAG_SECONDS + SECOND_SEARCH_DELAY_SECONDS
        words = f"refused, and no instance with its business key appeared within {seconds:.0f} s"
        yield Finding.known(FINDING, "not started", words, *seen)
