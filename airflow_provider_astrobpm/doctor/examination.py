"""A run of the doctor: the probes in their order, and the end of everything that was started, whatever happens."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.bpm.api import Pause
from airflow_provider_astrobpm.bpm.states import COMPLETED
from airflow_provider_astrobpm.doctor.acting import Acting
from airflow_provider_astrobpm.doctor.asking import Ask
from airflow_provider_astrobpm.doctor.extras import extras_for
from airflow_provider_astrobpm.doctor.lengths import probe_squeeze, squeezed
from airflow_provider_astrobpm.doctor.lists import list_all, probe_lists
from airflow_provider_astrobpm.doctor.own import Own, end_all
from airflow_provider_astrobpm.doctor.queries import best_to_read, probe_by_id, probe_queries
from airflow_provider_astrobpm.doctor.refused_start import Known, probe_refused_start
from airflow_provider_astrobpm.doctor.report import Report
from airflow_provider_astrobpm.doctor.signing_in import sign_in, wrong_token
from airflow_provider_astrobpm.doctor.starting import probe_start, start_one

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.doctor.asking import Probing
    from airflow_provider_astrobpm.doctor.points import Point
    from airflow_provider_astrobpm.doctor.sender import Sender

ENDING = "Interrupted; what was started is terminated now. Interrupt again to leave it as it is."


def examine(
    sender: Sender,
    *,
    process: str | None = None,
    key: str,
    refused_key: str,
    say: Callable[[str], None] = lambda _words: None,
) -> Report:
    """Ask an endpoint what it does.

    :param sender: asks.
    :param process: the process of which to start an instance; ``None`` to change nothing.
    :param key: the business key of what is started, as of ``signs.make_key``; nothing else may carry it.
    :param refused_key: another one, for a start that is to be refused.
    :param say: is told of an interrupt.
    :returns: the report, also of a run that was interrupted or found nothing.
    """
    settings = sender.settings
    report = Report(settings.connection, settings.base_url, process)
    own = Own(process or "")
    report.started = own.starts
    try:
        _run(_probe(sender, report, own, (key, refused_key)), sender, report)
    except KeyboardInterrupt:
        report.interrupted = True
        if own.left():
            say(ENDING)
    finally:
        # A second interrupt ends this as well; the report names what is left over then.
        with suppress(KeyboardInterrupt):
            _run(end_all(own), sender, report)
    report.requests = sender.requests
    report.extras = extras_for(report.points, settings)
    return report


def _probe(sender: Sender, report: Report, own: Own, keys: tuple[str, str]) -> Probing[None]:
    settings = sender.settings
    report.signed_in = yield from sign_in(settings)
    if not report.signed_in:
        return
    lists = yield from list_all()
    yield from probe_lists(lists)
    refuses_with_5xx = yield from probe_queries(lists)
    row = best_to_read(lists)
    yield from probe_by_id(row, lists.no_rows)
    state = lists.granted or COMPLETED
    yield from wrong_token(state, lists.seen[state])
    if not own.process:
        return
    started = yield from start_one(own, keys[0], settings, refuses_with_5xx=refuses_with_5xx)
    if started is None:
        return
    probing: dict[str, Any] = {"clock": sender.clock, "refuses_with_5xx": refuses_with_5xx}
    shown = yield from probe_start(own, *started, settings=settings, places=lists.filled, **probing)
    squeeze = squeezed(lists, *shown) if shown is not None else None
    if shown is not None and row is None:
        # Nothing showed before: there is an instance to look at now.
        lists = yield from list_all()
        yield from probe_lists(lists)
        yield from probe_queries(lists)
    if shown is not None and report.points["get_by_id"].value is None:
        yield from probe_by_id(shown[0])
    yield from Acting(own, (shown or started)[0], whole=lists.longest - 1, **probing).probe()
    yield from probe_squeeze(lists, squeeze)
    known = Known(
        row=shown[0] if shown is not None else None,
        lag=_seconds(report.points["start_lag"]),
        newest_first=report.points["order"].value == "honoured",
    )
    yield from probe_refused_start(own, keys[1], known, lists)


def _seconds(point: Point) -> float:
    return point.value if isinstance(point.value, (int, float)) else 0.0


def _run(plan: Probing[None], sender: Sender, report: Report) -> None:
    """Run probes, and take down each point as it is told; a later look that cannot tell takes nothing back."""
    reply: Any = None
    with suppress(StopIteration):
        while True:
            step = plan.send(reply)
            reply = None
            if isinstance(step, Ask):
                reply = sender.ask(step)
            elif isinstance(step, Pause):
                sender.sleep(step.seconds)
            else:
                _take(report, step, sender)


def _take(report: Report, point: Point, sender: Sender) -> None:
    known = report.points.get(point.name)
    if known is None or known.value is None or point.value is not None:
        report.points[point.name] = replace(point, seen=sender.scrub(point.seen))
