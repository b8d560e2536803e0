"""Faults during a run: there is always a report, no finding is wrong, and no started instance is left behind."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings, StaticToken
from airflow_provider_astrobpm.doctor.findings import DESCRIPTIONS
from airflow_provider_astrobpm.doctor.observation import Observation, Probe
from airflow_provider_astrobpm.doctor.probe_sender import ProbeSender
from airflow_provider_astrobpm.doctor.report import Report
from airflow_provider_astrobpm.doctor.run import run_doctor
from airflow_provider_astrobpm.doctor.start_markers import make_key
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.emulator.switches import Switches
from tests.doctor.conftest import KEY, PROCESS, REFUSED_KEY, Examine
from tests.doctor.expected_findings import OTHERS, expected

OwnInstances = Callable[[], list[dict[str, Any]]]

# These are not answers of Astro Zero, so they are no evidence.
FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("status", {"status": 500}),
    ("status", {"status": 503, "work_done": True}),
    ("status", {"status": 429, "retry_after": 7200}),
    ("html", {"status": 502}),
    ("html", {"status": 200}),
    ("not_json", {"work_done": True}),
    ("drop_before", {}),
    ("drop_after", {}),
    ("truncate", {}),
    ("redirect", {}),
    ("wrong_shape", {}),
    ("wrong_types", {}),
]
NAMES = [f"{fault}-{'-'.join(map(str, options.values()))}" for fault, options in FAULTS]


def assert_no_wrong_finding(report: Report, *ignored: str) -> None:
    """Assert that every known finding is true of the emulator in its default positions.

    :param ignored: findings that the fault makes wrong, in addition to those about the connection.
    """
    expectations = expected(asdict(Switches()), starts=report.process is not None, others=OTHERS)
    for name, finding in report.findings.items():
        if name in {"connection", "start", "token_request", *ignored} or finding.value is None:
            continue  # these report the fault
        assert expectations[name].allows(finding) or (name == "others" and finding.value == "none seen"), (
            finding
        )


def assert_valid(report: Report, secret: str) -> None:
    for text in (report.as_text(), report.as_json()):
        assert secret not in text
        assert "Traceback" not in text
    assert set(report.findings) <= set(DESCRIPTIONS)


@pytest.mark.parametrize("process", [None, PROCESS], ids=["read-only", "start"])
@pytest.mark.parametrize(("fault", "options"), FAULTS, ids=NAMES)
def test_fault_in_every_request(
    fault: str,
    options: dict[str, Any],
    process: str | None,
    emulator: EmulatorControl,
    emulator_server: EmulatorServer,
    populate: Callable[..., None],
    run: Examine,
) -> None:
    populate()
    emulator.fault("any", fault, times=100_000, **options)
    report = run(process)
    assert (report.exit_code, report.signed_in, report.started) == (1, False, [])
    assert report.findings["connection"].fine is False or report.findings["token_request"].fine is False
    assert_valid(report, emulator_server.settings.client_secret)


@pytest.mark.parametrize("kind", ["query", "get", "start", "action", "variables", "definitions"])
@pytest.mark.parametrize(("fault", "options"), FAULTS, ids=NAMES)
def test_fault_makes_no_finding_wrong_and_leaves_no_instance(
    fault: str,
    options: dict[str, Any],
    kind: str,
    emulator: EmulatorControl,
    emulator_server: EmulatorServer,
    populate: Callable[..., None],
    own_instances: OwnInstances,
    run: Examine,
) -> None:
    populate()
    for skip in {"query": (6, 20), "action": (0, 1, 3, 5, 7), "start": (0, 1, 2)}.get(kind, (0,)):
        emulator.clear_faults()
        emulator.fault(kind, fault, times=2, skip=skip, **options)
        report = run(PROCESS)
        assert_no_wrong_finding(report)
        assert_valid(report, emulator_server.settings.client_secret)
        assert report.signed_in
        assert all(instance["closed"] for instance in own_instances())
        # A failed start whose instance is not listed may exist anyway, so the report names it.
        assert report.exit_code == int(bool(report.not_ended))
        assert not report.not_ended or (kind == "start" and report.not_ended[0].instance_id is None)


@pytest.mark.parametrize("mode", ["cut", "503"])
def test_outage_during_a_run_reports_the_instance_left(
    mode: Any,
    emulator: EmulatorControl,
    populate: Callable[..., None],
    own_instances: OwnInstances,
    make_sender: Callable[..., ProbeSender],
) -> None:
    populate()

    class Failing(ProbeSender):
        def send(self, probe: Probe) -> Observation:
            seen = super().send(probe)
            if probe.operation.kind == "start":
                emulator.outage(mode=mode)
            return seen

    report = run_doctor(make_sender(Failing), process=PROCESS, key=KEY, refused_key=REFUSED_KEY)
    emulator.outage(on=False)
    assert report.exit_code == 1
    (start,) = report.not_ended
    (instance,) = own_instances()
    assert start.instance_id == instance["id"]
    assert f"NOT TERMINATED: instance {instance['id']} with business key {KEY!r}" in report.as_text()


def test_lost_start_is_found_by_its_title_if_lists_show_no_keys(
    emulator: EmulatorControl, populate: Callable[..., None], own_instances: OwnInstances, run: Examine
) -> None:
    populate()
    emulator.switch(business_keys_in_rows=False)
    emulator.fault("start", "drop_after")
    report = run(PROCESS)
    (instance,) = own_instances()
    assert instance["closed"]
    assert (report.exit_code, report.findings["start"].value) == (0, None)


@pytest.mark.parametrize("form", get_args(get_type_hints(Switches)["key_form"]))
def test_lost_start_is_found_by_its_key_in_any_form(
    form: str,
    emulator: EmulatorControl,
    populate: Callable[..., None],
    own_instances: OwnInstances,
    run: Examine,
) -> None:
    populate()
    other = emulator.start(PROCESS, business_key=make_key("some-others!"))
    emulator.switch(key_form=form)
    emulator.fault("start", "drop_after")
    report = run(PROCESS)
    assert [each["closed"] for each in own_instances()] == [True]
    assert report.exit_code == 0
    assert not emulator.instance(other["id"])["closed"]


@pytest.mark.parametrize("skip", [0, 1, 2])
@pytest.mark.parametrize("fault", ["status", "html", "text"])
@pytest.mark.parametrize("status", [400, 401, 404, 409, 429, 499, 502])
def test_instance_of_a_refused_start_is_terminated(
    status: int,
    fault: str,
    skip: int,
    emulator: EmulatorControl,
    populate: Callable[..., None],
    own_instances: OwnInstances,
    run: Examine,
) -> None:
    """A gateway refuses a start that the server has processed: the first, the second, or the one with a wrong token."""
    populate()
    emulator.switch(refused_token_start="started")
    emulator.fault("start", fault, status=status, skip=skip, work_done=True)
    report = run(PROCESS)
    assert own_instances()
    assert all(instance["closed"] for instance in own_instances())
    assert {instance["id"] for instance in own_instances()} == {each.instance_id for each in report.started}
    assert report.exit_code == 0
    if status < 500 and skip < 2 and status not in (401, 429):
        assert "though its start was refused (Terminated)" in report.as_text()
    assert_no_wrong_finding(
        report, "refused_token_start", "csrf", "duplicate_key", "unknown_variable_at_start"
    )


def test_instance_of_a_resent_start_is_found_even_in_lists_of_one_row(
    emulator: EmulatorControl, populate: Callable[..., None], own_instances: OwnInstances, run: Examine
) -> None:
    populate()
    emulator.switch(order_honoured=False, row_cap=1)
    emulator.fault("start", "status", status=401, work_done=True)
    report = run(PROCESS)
    assert report.findings["refused_token_start"].value is None
    assert "it was not sent" in report.findings["refused_token_start"].sentence
    assert [instance["closed"] for instance in own_instances()] == [True] * 3
    assert {instance["id"] for instance in own_instances()} == {each.instance_id for each in report.started}


@pytest.mark.parametrize(("order", "rows"), [("newest", 37), ("newest", 1), ("oldest", 37), ("shuffled", 37)])
def test_row_cap_without_an_order(
    order: str, rows: int, emulator: EmulatorControl, populate: Callable[..., None], run: Examine
) -> None:
    """Only a new instance that displaces another reveals the cap. Otherwise it is unknown."""
    populate(more=40)
    emulator.switch(order_honoured=False, row_order=order, row_cap=rows)
    for process in (None, PROCESS):
        report = run(process)
        assert report.findings["row_cap"].value is None or report.findings["row_cap"].fine is False
        assert report.findings["row_cap"].value in (None, rows)
    assert (report.findings["row_cap"].value == rows) or order != "newest"
    assert report.exit_code == 0


def test_lost_start_that_is_not_listed_is_reported(
    emulator: EmulatorControl, populate: Callable[..., None], own_instances: OwnInstances, run: Examine
) -> None:
    populate()
    emulator.switch(start_lag=3600)
    emulator.fault("start", "drop_after")
    report = run(PROCESS)
    (instance,) = own_instances()
    assert not instance["closed"]
    assert report.exit_code == 1
    assert report.findings["start"].value is None
    assert f"NOT TERMINATED: an instance with business key {KEY!r}" in report.as_text()


def test_instance_is_reported_if_every_action_is_refused(
    emulator: EmulatorControl, populate: Callable[..., None], own_instances: OwnInstances, run: Examine
) -> None:
    populate()
    emulator.fault("action", "code_in_200", times=1000, res_msg="you may not")
    report = run(PROCESS)
    assert report.findings["suspend"].value == "refused"
    assert report.exit_code == 1
    assert {start.instance_id for start in report.not_ended} == {each["id"] for each in own_instances()}


@pytest.mark.parametrize("fault", ["delay", "trickle"])
def test_slow_endpoint(
    fault: str, emulator: EmulatorControl, populate: Callable[..., None], run: Examine
) -> None:
    populate()
    emulator.fault("query", fault, times=1000, seconds=30)
    report = run(read_timeout=0.2, answer_timeout=0.4)
    assert report.signed_in
    assert report.findings["instances"].value is None
    assert report.findings["order"].sentence.startswith("unknown: ")
    assert report.requests < 15  # further probes are dropped once the endpoint counts as down


def test_wrong_secret(emulator: EmulatorControl, run: Examine) -> None:
    report = run(PROCESS, credentials=ClientCredentials("emulator-client", "not-the-secret"))
    assert (report.exit_code, report.requests) == (1, 2)
    assert report.findings["connection"].fine
    assert "the client id or the secret was refused" in report.findings["token_request"].sentence
    assert report.findings["token_request"].evidence[0].endswith("HTTP 400, resCode 'unauthorized_client'")
    assert_valid(report, "not-the-secret")
    assert "Nothing else was probed." in report.as_text()
    assert emulator.counts()["start"] == 0


def test_expired_access_token(emulator: EmulatorControl, populate: Callable[..., None], run: Examine) -> None:
    populate()
    refused = run(credentials=StaticToken("this-has-expired"))
    assert (refused.exit_code, refused.findings["token_request"].value) == (1, "refused")
    assert_valid(refused, "this-has-expired")


def test_unreachable_host(free_port: int, run: Examine) -> None:
    report = run(base_url=f"http://127.0.0.1:{free_port}")
    assert (report.exit_code, report.requests, list(report.findings)) == (1, 2, ["connection"])
    assert not report.signed_in
    assert "could not be reached" in report.findings["connection"].sentence
    assert "Check the host, port and proxy" in report.findings["connection"].sentence


def test_host_without_tls(settings: Settings, run: Examine) -> None:
    report = run(base_url=settings.base_url.replace("http://", "https://"))
    assert (report.exit_code, report.findings["connection"].value) == (1, "failed")
    assert "the TLS handshake failed" in report.findings["connection"].sentence


def test_endpoint_with_tls(tmp_path: Path, run: Examine) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem",
         "-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1",
         "-addext", "keyUsage=critical,digitalSignature,keyCertSign"],
        cwd=tmp_path, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with EmulatorServer(ssl_context=context) as server:
        report = run(base_url=server.url, verify=str(tmp_path / "cert.pem"))
        untrusted = run(base_url=server.url)
    assert (report.exit_code, report.findings["connection"].value) == (0, "https")
    assert "over TLS, its certificate was checked" in report.findings["connection"].sentence
    assert (untrusted.exit_code, untrusted.findings["connection"].value) == (1, "failed")
    assert "'verify'" in untrusted.findings["connection"].sentence


def test_unknown_process(emulator: EmulatorControl, populate: Callable[..., None], run: Examine) -> None:
    populate()
    report = run("NoSuchProcess")
    assert (report.exit_code, report.started, report.findings["start"].fine) == (0, [], False)
    assert report.signed_in
    assert "BPM NoSuchProcess does not exist" in report.findings["start"].sentence
    assert "Nothing was started." in report.as_text()


@pytest.mark.parametrize("process", ["Instant", "AlwaysBroken"])
def test_process_that_ends_by_itself(
    process: str, populate: Callable[..., None], emulator: EmulatorControl, run: Examine
) -> None:
    populate()
    emulator.advance(1)
    report = run(process)
    assert report.exit_code == 0
    assert all(instance["closed"] for instance in emulator.instances(business_key=KEY))
    if process == "Instant":
        assert "ended by itself" in report.findings["suspend"].sentence
        assert report.findings["suspend_ended"].value is None
        assert "an action was not granted before either" in report.findings["suspend_ended"].sentence
        assert report.findings["variables_of_ended"].value is None


class Interrupted(ProbeSender):
    """A sender that is interrupted at one request, before or after the request is sent."""

    at, sent = 0, False

    def _send(self, request: Any) -> Any:
        if self.requests + 1 != self.at:
            return super()._send(request)
        if self.sent:
            super()._send(request)
        else:
            self.requests += 1
        raise KeyboardInterrupt


@pytest.mark.parametrize("sent", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "at", [1, 2, 15, *range(28, 51), 60, 70, 72]
)  # the run starts instances from request 30 on
def test_interrupt_at_any_request_terminates_started_instances(
    at: int,
    sent: bool,
    emulator: EmulatorControl,
    populate: Callable[..., None],
    own_instances: OwnInstances,
    make_sender: Callable[..., ProbeSender],
) -> None:
    populate()
    emulator.switch(refused_token_start="started")  # every start that is sent then creates an instance
    sender = make_sender(type("_", (Interrupted,), {"at": at, "sent": sent}))
    messages: list[str] = []
    report = run_doctor(sender, process=PROCESS, key=KEY, refused_key=REFUSED_KEY, say=messages.append)
    assert all(instance["closed"] for instance in own_instances())
    assert (report.interrupted, report.exit_code) == (
        sender.requests >= at,
        130 if sender.requests >= at else 0,
    )
    never_sent = [start for start in report.not_ended if start.instance_id is None]
    assert report.not_ended == never_sent
    assert len(never_sent) <= (0 if sent else 1)
    assert_no_wrong_finding(report, "refused_token_start")
    report.as_text()


def test_second_interrupt_reports_the_instances_left(
    populate: Callable[..., None], own_instances: OwnInstances, make_sender: Callable[..., ProbeSender]
) -> None:
    populate()

    class Impatient(ProbeSender):
        def send(self, probe: Probe) -> Observation:
            if probe.operation.kind in {"suspend", "terminate"} and len(own_instances()) == 2:
                raise KeyboardInterrupt
            return super().send(probe)

    report = run_doctor(make_sender(Impatient), process=PROCESS, key=KEY, refused_key=REFUSED_KEY)
    assert report.exit_code == 130
    still_open = {instance["id"] for instance in own_instances() if not instance["closed"]}
    assert still_open
    assert {start.instance_id for start in report.not_ended} == still_open
