"""A run of the doctor: sends all probes in order, and always terminates the started instances."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.client.drivers import drive
from airflow_provider_astrobpm.client.states import COMPLETED
from airflow_provider_astrobpm.doctor.findings import Finding
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

    from airflow_provider_astrobpm.client.operations import Sleep
    from airflow_provider_astrobpm.doctor.observation import Observation, Probe, ProbeFlow
    from airflow_provider_astrobpm.doctor.probe_sender import ProbeSender

TERMINATING_MESSAGE = "Interrupted. Terminating the started instances; interrupt again to leave them."


def run_doctor(
    sender: ProbeSender,
    *,
    process: str | None = None,
    key: str,
    refused_key: str,
    say: Callable[[str], None] = lambda _words: None,
) -> Report:
    """Examine an endpoint.

    :param sender: sends the probes.
    :param process: the process to start instances of; ``None`` to change nothing.
    :param key: a unique business key for the instances, from ``start_markers.make_key``.
    :param refused_key: another unique key, for a start with a wrong token.
    :param say: called with a message on an interrupt.
    :returns: the report, also of a run that was interrupted or found nothing.
    """
    settings = sender.settings
    report = Report(settings.connection, settings.base_url, process)
    started = StartedInstances(process or "")
    report.started = started.starts
    try:
        _run(_probe(sender, report, started, (key, refused_key)), sender, report)
    except KeyboardInterrupt:
        report.interrupted = True
        if started.not_ended():
            say(TERMINATING_MESSAGE)
    finally:
        # A second interrupt ends this too; the report then names the instances that are left.
        with suppress(KeyboardInterrupt):
            _run(terminate_all(started), sender, report)
    report.requests = sender.requests
    report.extras = recommended_extras(report.findings, settings)
    return report


def _probe(
    sender: ProbeSender, report: Report, started: StartedInstances, keys: tuple[str, str]
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
    if not started.process:
        return
    first = yield from probe_first_start(started, keys[0], settings, refuses_with_5xx=refuses_with_5xx)
    if first is None:
        return
    probing: dict[str, Any] = {"clock": sender.clock, "refuses_with_5xx": refuses_with_5xx}
    shown = yield from probe_started_instance(
        started, *first, settings=settings, filled_states=lists.non_empty, **probing
    )
    displacement = find_displacement(lists, *shown) if shown is not None else None
    if shown is not None and row is None:
        # No instance was visible before; now there is one to probe.
        lists = yield from fetch_lists()
        yield from probe_lists(lists)
        yield from probe_queries(lists)
    if shown is not None and report.findings["get_by_id"].value is None:
        yield from probe_by_id(shown[0])
    yield from ActionProbes(
        started, (shown or first)[0], max_complete_rows=lists.max_rows - 1, **probing
    ).probe()
    yield from probe_displacement(lists, displacement)
    known = ListBehaviour(
        row=shown[0] if shown is not None else None,
        lag=_seconds(report.findings["start_lag"]),
        newest_first=report.findings["order"].value == "honoured",
    )
    yield from probe_refused_start(started, keys[1], known, lists)


def _seconds(finding: Finding) -> float:
    return finding.value if isinstance(finding.value, (int, float)) else 0.0


def _run(flow: ProbeFlow[None], sender: ProbeSender, report: Report) -> None:
    """Run a probe flow, and record its findings."""

    def answer(step: Probe | Sleep | Finding) -> Observation | None:
        if not isinstance(step, Finding):
            return sender.answer(step)
        _record(report, step, sender)
        return None

    drive(flow, answer)


def _record(report: Report, finding: Finding, sender: ProbeSender) -> None:
    """Record a finding. An unknown one does not replace an earlier known one."""
    known = report.findings.get(finding.name)
    if known is None or known.value is None or finding.value is not None:
        report.findings[finding.name] = replace(finding, sentence=sender.scrub(finding.sentence))
