"""A run of the doctor: the probes in their order, and the end of everything that was started, whatever happens."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.bpm.api import Pause
from airflow_provider_astrobpm.bpm.states import COMPLETED
from airflow_provider_astrobpm.doctor.observation import Probe
from airflow_provider_astrobpm.doctor.probe_actions import ActionProbes
from airflow_provider_astrobpm.doctor.probe_auth import probe_sign_in, probe_wrong_token
from airflow_provider_astrobpm.doctor.probe_lists import fetch_lists, probe_lists
from airflow_provider_astrobpm.doctor.probe_order import find_displacement, probe_displacement
from airflow_provider_astrobpm.doctor.probe_queries import instance_to_read, probe_by_id, probe_queries
from airflow_provider_astrobpm.doctor.probe_refused_start import ListBehaviour, probe_refused_start
from airflow_provider_astrobpm.doctor.probe_start import probe_first_start, probe_started_instance
from airflow_provider_astrobpm.doctor.recommended_settings import recommended_extras
from airflow_provider_astrobpm.doctor.report import Report
from airflow_provider_astrobpm.doctor.started_instances import StartedInstances, terminate_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.doctor.findings import Finding
    from airflow_provider_astrobpm.doctor.observation import ProbeFlow
    from airflow_provider_astrobpm.doctor.probe_sender import ProbeSender

TERMINATING_MESSAGE = "Interrupted; what was started is terminated now. Interrupt again to leave it as it is."


def run_doctor(
    sender: ProbeSender,
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
    own = StartedInstances(process or "")
    report.started = own.starts
    try:
        _run(_probe(sender, report, own, (key, refused_key)), sender, report)
    except KeyboardInterrupt:
        report.interrupted = True
        if own.not_ended():
            say(TERMINATING_MESSAGE)
    finally:
        # A second interrupt ends this as well; the report names what is left over then.
        with suppress(KeyboardInterrupt):
            _run(terminate_all(own), sender, report)
    report.requests = sender.requests
    report.extras = recommended_extras(report.findings, settings)
    return report


def _probe(
    sender: ProbeSender, report: Report, own: StartedInstances, keys: tuple[str, str]
) -> ProbeFlow[None]:
    settings = sender.settings
    report.signed_in = yield from probe_sign_in(settings)
    if not report.signed_in:
        return
    lists = yield from fetch_lists()
    yield from probe_lists(lists)
    refuses_with_5xx = yield from probe_queries(lists)
    row = instance_to_read(lists)
    yield from probe_by_id(row, lists.why_no_rows)
    state = lists.granted or COMPLETED
    yield from probe_wrong_token(state, lists.answers[state])
    if not own.process:
        return
    started = yield from probe_first_start(own, keys[0], settings, refuses_with_5xx=refuses_with_5xx)
    if started is None:
        return
    probing: dict[str, Any] = {"clock": sender.clock, "refuses_with_5xx": refuses_with_5xx}
    shown = yield from probe_started_instance(
        own, *started, settings=settings, places=lists.non_empty, **probing
    )
    displacement = find_displacement(lists, *shown) if shown is not None else None
    if shown is not None and row is None:
        # Nothing showed before: there is an instance to look at now.
        lists = yield from fetch_lists()
        yield from probe_lists(lists)
        yield from probe_queries(lists)
    if shown is not None and report.findings["get_by_id"].value is None:
        yield from probe_by_id(shown[0])
    yield from ActionProbes(own, (shown or started)[0], max_whole_rows=lists.longest - 1, **probing).probe()
    yield from probe_displacement(lists, displacement)
    known = ListBehaviour(
        row=shown[0] if shown is not None else None,
        lag=_seconds(report.findings["start_lag"]),
        newest_first=report.findings["order"].value == "honoured",
    )
    yield from probe_refused_start(own, keys[1], known, lists)


def _seconds(finding: Finding) -> float:
    return finding.value if isinstance(finding.value, (int, float)) else 0.0


def _run(plan: ProbeFlow[None], sender: ProbeSender, report: Report) -> None:
    """Run probes, and take down each point as it is told; a later look that cannot tell takes nothing back."""
    reply: Any = None
    with suppress(StopIteration):
        while True:
            step = plan.send(reply)
            reply = None
            if isinstance(step, Probe):
                reply = sender.send(step)
            elif isinstance(step, Pause):
                sender.sleep(step.seconds)
            else:
                _take(report, step, sender)


def _take(report: Report, finding: Finding, sender: ProbeSender) -> None:
    known = report.findings.get(finding.name)
    if known is None or known.value is None or finding.value is not None:
        report.findings[finding.name] = replace(finding, sentence=sender.scrub(finding.sentence))
