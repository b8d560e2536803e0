"""A start whose token is refused must start nothing: this provider sends it again with a new token."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.bpm import api
from airflow_provider_astrobpm.bpm.states import COMPLETED, OPEN_STATES
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

    from airflow_provider_astrobpm.doctor.observation import Observation, ProbeFlow, Row
    from airflow_provider_astrobpm.doctor.probe_lists import StateLists

FINDING = "refused_token_start"
EXTRA_LAG_SECONDS = 5  # seconds to wait beyond the lag that was seen
SECOND_SEARCH_DELAY_SECONDS = 4  # seconds after the first; an instance may move between two lists
_CONSEQUENCE = "This provider sends such a start again with a new token, so one task may start two instances"


class ListBehaviour(NamedTuple):
    """What the run has found out about how a new instance shows."""

    row: Row | None
    """The row of the first instance, if it ever showed."""
    lag: float
    """Seconds after which it showed."""
    newest_first: bool
    """Whether lists are ordered newest first."""


def probe_refused_start(
    own: StartedInstances, key: str, known: ListBehaviour, lists: StateLists
) -> ProbeFlow[None]:
    """Send a start with a token that is refused, report whether it starts an instance, and terminate that instance.

    :param key: the business key that it carries; nothing else does.
    """
    reason = _why_not_sent(own, known, lists)
    if reason is not None:
        yield Finding.unknown(
            FINDING, f"{reason}, so an instance that such a start leaves could not be found; it was not sent"
        )
        return
    state = lists.granted or COMPLETED
    read = yield Probe(raw(api.query(state)), token=WRONG_TOKEN, remark="a wrong token")
    start = own.begin(key)
    operation = raw(api.start(own.process, business_key=key, title=title_for(key)), resend_if_unsure=False)
    sent = yield Probe(operation, token=WRONG_TOKEN, remark="a wrong token")
    if is_not_sent(sent):
        own.starts.remove(start)
        yield Finding.unknown(FINDING, why_unclear(sent), sent)
        return
    start.refused = is_token_refused(sent, read)
    instance = instance_of(sent)
    if instance is not None:
        start.instance_id = instance["id"]
        yield Finding.known(
            FINDING, "started", f"a start with a wrong token is taken. {_CONSEQUENCE}", sent, fine=False
        )
        yield from terminate_one(own, start)
        return
    yield from _search_for_instance(own, start, known, lists, read, sent)


def is_token_refused(seen: Observation, read: Observation) -> bool:
    """Return whether a start with a wrong token was refused for its token.

    :param read: what came of a read with the same token, which needs nothing else.
    """
    if None in (seen.error, read.error, seen.status):
        return False
    code, _ = seen.envelope()
    is_failure = (seen.status or 0) >= 500 and code is None
    return not is_failure and (seen.status, code) == (read.status, read.envelope()[0])


def _why_not_sent(own: StartedInstances, known: ListBehaviour, lists: StateLists) -> str | None:
    if known.row is None:
        return "a new instance did not show in the lists"
    if not matches(known.row, own.first.business_key):
        return "rows show neither business key nor title as they were sent"
    mine = {start.instance_id for start in own.starts}  # they have left these lists
    rows = {state: [row for row in rows if row["id"] not in mine] for state, rows in lists.rows.items()}
    if not _would_show_one_more(rows, known, lists):
        return "lists are not known to be ordered newest first, and may be cut off"
    return None


def _would_show_one_more(rows: Mapping[str, list[Row]], known: ListBehaviour, lists: StateLists) -> bool:
    """Return whether the lists in which an instance begins would show one more: the newest first, or at their end.

    A list would show it at its end if another list, or itself before, was seen to be longer.
    """
    begins_in = {*OPEN_STATES, text(known.row or {}, "state")}
    return known.newest_first or all(len(rows.get(state, ())) < lists.longest for state in begins_in)


def _search_for_instance(
    own: StartedInstances, start: SentStart, known: ListBehaviour, lists: StateLists, *seen: Observation
) -> ProbeFlow[None]:
    """Look for what the start has started, twice, and conclude."""
    looks = []
    for pause in (known.lag + EXTRA_LAG_SECONDS, SECOND_SEARCH_DELAY_SECONDS):
        yield api.Pause(pause)
        looks.append((yield from sweep_lists(own)))
        found = [each for each in own.starts if each.business_key == start.business_key and each.instance_id]
        if found:
            words = f"refused, and an instance with its business key showed all the same. {_CONSEQUENCE}"
            yield Finding.known(FINDING, "started", words, *seen, fine=False)
            for each in found:
                yield from terminate_one(own, each)
            return
    failed = next((look.failed for look in looks if look.failed is not None), None)
    if failed is not None:
        yield Finding.unknown(FINDING, f"a list could not be read: {why_unclear(failed)}", *seen, failed)
    elif not start.refused:
        yield Finding.unknown(
            FINDING,
            f"the answer does not say that the token was refused: {_describe_answer(seen[-1])}",
            *seen,
        )
    elif not all(_would_show_one_more(look.rows, known, lists) for look in looks):
        yield Finding.unknown(FINDING, "the lists grew meanwhile, and may be cut off", *seen)
    else:
        own.starts.remove(start)
        seconds = known.lag + EXTRA_LAG_SECONDS + SECOND_SEARCH_DELAY_SECONDS
        words = f"refused, and no instance with its business key showed within {seconds:.0f} s"
        yield Finding.known(FINDING, "not started", words, *seen)


def _describe_answer(seen: Observation) -> str:
    return why_unclear(seen) if seen.error else "it was answered as if it had been taken"
