"""A start whose token is refused must start nothing: this provider sends it again with a new token."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.bpm import api
from airflow_provider_astrobpm.bpm.states import COMPLETED, OPEN_STATES
from airflow_provider_astrobpm.doctor.asking import Ask, instance_of, raw, text, why_unclear
from airflow_provider_astrobpm.doctor.own import Own, Started, end_one, look_through
from airflow_provider_astrobpm.doctor.points import told, untold
from airflow_provider_astrobpm.doctor.signing_in import WRONG_TOKEN
from airflow_provider_astrobpm.doctor.signs import carries, title_of
from airflow_provider_astrobpm.doctor.starting import is_not_sent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_astrobpm.doctor.asking import Probing, Row, Seen
    from airflow_provider_astrobpm.doctor.lists import Lists

NAME = "refused_token_start"
LONGER = 5  # seconds to wait beyond the lag that was seen
SECOND_LOOK = 4  # seconds after the first; an instance may move between two lists
_TWICE = "This provider sends such a start again with a new token, so one task may start two instances"


class Known(NamedTuple):
    """What the run has found out about how a new instance shows."""

    row: Row | None
    """The row of the first instance, if it ever showed."""
    lag: float
    """Seconds after which it showed."""
    newest_first: bool
    """Whether lists are ordered newest first."""


def probe_refused_start(own: Own, key: str, known: Known, lists: Lists) -> Probing[None]:
    """Send a start with a token that is refused, report whether it starts an instance, and terminate that instance.

    :param key: the business key that it carries; nothing else does.
    """
    reason = _why_not(own, known, lists)
    if reason is not None:
        yield untold(
            NAME, f"{reason}, so an instance that such a start leaves could not be found; it was not sent"
        )
        return
    state = lists.granted or COMPLETED
    read = yield Ask(raw(api.query(state)), token=WRONG_TOKEN, remark="a wrong token")
    start = own.begin(key)
    operation = raw(api.start(own.process, business_key=key, title=title_of(key)), resend_if_unsure=False)
    sent = yield Ask(operation, token=WRONG_TOKEN, remark="a wrong token")
    if is_not_sent(sent):
        own.starts.remove(start)
        yield untold(NAME, why_unclear(sent), sent)
        return
    start.refused = is_refused_alike(sent, read)
    instance = instance_of(sent)
    if instance is not None:
        start.instance_id = instance["id"]
        yield told(NAME, "started", f"a start with a wrong token is taken. {_TWICE}", sent, fine=False)
        yield from end_one(own, start)
        return
    yield from _look(own, start, known, lists, read, sent)


def is_refused_alike(seen: Seen, read: Seen) -> bool:
    """Return whether a start with a wrong token was refused for its token.

    :param read: what came of a read with the same token, which needs nothing else.
    """
    if None in (seen.error, read.error, seen.status):
        return False
    code, _ = seen.envelope()
    is_failure = (seen.status or 0) >= 500 and code is None
    return not is_failure and (seen.status, code) == (read.status, read.envelope()[0])


def _why_not(own: Own, known: Known, lists: Lists) -> str | None:
    if known.row is None:
        return "a new instance did not show in the lists"
    if not carries(known.row, own.first.business_key):
        return "rows show neither business key nor title as they were sent"
    mine = {start.instance_id for start in own.starts}  # they have left these lists
    rows = {state: [row for row in rows if row["id"] not in mine] for state, rows in lists.rows.items()}
    if not _has_room(rows, known, lists):
        return "lists are not known to be ordered newest first, and may be cut off"
    return None


def _has_room(rows: Mapping[str, list[Row]], known: Known, lists: Lists) -> bool:
    """Return whether the lists in which an instance begins would show one more: the newest first, or at their end.

    A list would show it at its end if another list, or itself before, was seen to be longer.
    """
    begins_in = {*OPEN_STATES, text(known.row or {}, "state")}
    return known.newest_first or all(len(rows.get(state, ())) < lists.longest for state in begins_in)


def _look(own: Own, start: Started, known: Known, lists: Lists, *seen: Seen) -> Probing[None]:
    """Look for what the start has started, twice, and conclude."""
    looks = []
    for pause in (known.lag + LONGER, SECOND_LOOK):
        yield api.Pause(pause)
        looks.append((yield from look_through(own)))
        found = [each for each in own.starts if each.business_key == start.business_key and each.instance_id]
        if found:
            words = f"refused, and an instance with its business key showed all the same. {_TWICE}"
            yield told(NAME, "started", words, *seen, fine=False)
            for each in found:
                yield from end_one(own, each)
            return
    failed = next((look.failed for look in looks if look.failed is not None), None)
    if failed is not None:
        yield untold(NAME, f"a list could not be read: {why_unclear(failed)}", *seen, failed)
    elif not start.refused:
        yield untold(NAME, f"the answer does not say that the token was refused: {_said(seen[-1])}", *seen)
    elif not all(_has_room(look.rows, known, lists) for look in looks):
        yield untold(NAME, "the lists grew meanwhile, and may be cut off", *seen)
    else:
        own.starts.remove(start)
        seconds = known.lag + LONGER + SECOND_LOOK
        words = f"refused, and no instance with its business key showed within {seconds:.0f} s"
        yield told(NAME, "not started", words, *seen)


def _said(seen: Seen) -> str:
    return why_unclear(seen) if seen.error else "it was answered as if it had been taken"
