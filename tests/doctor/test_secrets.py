"""A report has no secrets, even if the server echoes them in many encodings and places."""

from __future__ import annotations

import pytest

from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.doctor.probe_sender import ProbeSender
from airflow_provider_astrobpm.doctor.run import run_doctor
from airflow_provider_astrobpm.doctor.start_markers import make_key
from tests.support.clocks import ManualClock
from tests.support.echoing import BPM, EchoingServer, shown_in

SECRET = "the/client&secret <of>=\"a\" 'test' + 100%41"


@pytest.mark.parametrize("kind", ["token", "query", "start"])
@pytest.mark.parametrize("place", ["refused", "code", "oauth", "status_line", "redirect", "row", "rows"])
def test_report_has_no_secrets(place: str, kind: str) -> None:
    said: list[str] = []
    clock = ManualClock(1_800_000_000.0)
    with EchoingServer().running() as server:
        settings = Settings(
            "my_conn", server.url(place, kind), ClientCredentials("client", SECRET), max_attempts=1
        )
        sender = ProbeSender(settings, sleep=clock.sleep, clock=clock)
        process = BPM if kind == "start" else None
        key, refused_key = make_key("aaa"), make_key("bbb")
        report = run_doctor(sender, process=process, key=key, refused_key=refused_key, say=said.append)
        sender.close()
    assert {each for _, each in server.answered} == {kind}
    text = "\n".join([report.as_text(), report.as_json(), *said])
    secrets = [secret for secret in server.secrets if "doctor-wrong-token" not in secret]
    assert SECRET in secrets
    assert not [secret for secret in secrets if shown_in(text, secret)]
