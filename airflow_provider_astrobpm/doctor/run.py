"""A run of the doctor: sends all probes in order, and always terminates the started instances."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.client.drivers import drive
from airflow_provider_astrobpm.client.states import COMPLETED
from airflow_provider_astrobpm.doctor.findings import Finding
from airflow_provider_astrobpm.doctor.observation import report_findings
from airflow_provider_astrobpm.doctor.probe_actions import ActionProbes
from airflow_provider_astrobpm.doctor.probe_auth import probe_sign_in, probe_wrong_token
from airflow_provider_astrobpm.doctor.probe_lists import fetch_lists, probe_lists
from airflow_provider_astrobpm.doctor.probe_order import find_displacement, probe_displacement
from airflow_provider_astrobpm.doctor.probe_queries import probe_by_id, probe_queries, probe_refusal
from airflow_provider_astrobpm.doctor.probe_refused_start import ListBehaviour, probe_refused_start
from airflow_provider_astrobpm.doctor.probe_start import probe_first_start, probe_started_instance
from airflow_provider_astrobpm.doctor.recommended_settings import recommended_extras
from airflow_provider_astrobpm.doctor.report import Report
from airflow_provider_astrobpm.doctor.started_instances import StartedInstances, terminate_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.client.operations import Sleep
    from airflow_provider_astrobpm.doctor.observation import Observation, Probe, ProbeFlow
    from airflow_provider_astrobpm.doctor.probe_lists import StateLists
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
    lists = yield from _probe_reads(sender)
    row = lists.instance_to_read
    yield from probe_by_id(row, lists.why_no_rows)
    state = lists.granted or COMPLETED
    yield from report_findings(probe_wrong_token(state, lists.answers[state]))
    if not started.process:
        return
    first = yield from probe_first_start(started, keys[0], settings)
    if first is None:
        return
    shown = yield from probe_started_instance(
        started, *first, settings=settings, filled_states=lists.non_empty
    )
    displacement = find_displacement(lists, *shown) if shown is not None else None
    if shown is not None and row is None:
        # No instance was visible before; now there is one to probe.
        lists = yield from _probe_reads(sender)
    if shown is not None and report.findings["get_by_id"].value is None:
        yield from probe_by_id(shown[0])
    yield from ActionProbes(started, (shown or first)[0], max_complete_rows=lists.max_rows - 1).probe()
    yield from probe_displacement(lists, displacement)
    known = ListBehaviour(
        lists,
        row=shown[0] if shown is not None else None,
        lag=float(report.findings["start_lag"].value or 0),
        newest_first=report.findings["order"].value == "honoured",
    )
    yield from probe_refused_start(started, keys[1], known)


def _probe_reads(sender: ProbeSender) -> ProbeFlow[StateLists]:
    lists = yield from fetch_lists()
    yield from probe_lists(lists)
    sender.refuses_with_5xx |= yield from probe_refusal(lists)
    yield from probe_queries(lists)
    return lists


def _run(flow: ProbeFlow[None], sender: ProbeSender, report: Report) -> None:
    """Run a probe flow, and record its findings. An unknown one does not replace an earlier known one."""

    def answer(step: Probe | Sleep | Finding) -> Observation | None:
        if not isinstance(step, Finding):
            return sender.answer(step)
        earlier = report.findings.get(step.name)
        if earlier is None or earlier.value is None or step.value is not None:
            report.findings[step.name] = replace(step, sentence=sender.scrub(step.sentence))
        return None

    drive(flow, answer)
