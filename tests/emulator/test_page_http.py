"""The page over HTTP, without a browser: addresses, headers, redirects, and the event stream."""

from __future__ import annotations

import re
import threading
import time
from html import unescape
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_astrobpm.emulator import EmulatorControl, EmulatorServer
from airflow_provider_astrobpm.emulator.page.change_notifier import MIN_NOTICE_GAP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.emulator.conftest import Api

WAITING = "Waiting for user interaction"


class Page:
    """A client that acts like a browser without scripts."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.session.get(self.url + path, headers=headers, timeout=10)

    def post(self, path: str, fields: dict[str, str], **headers: str) -> requests.Response:
        sent = {"Origin": self.url, **headers}
        return self.session.post(
            self.url + path, data=fields, headers=sent, timeout=10, allow_redirects=False
        )

    def definition(self, name: str) -> str:
        found = re.search(rf'<option value="(\w+)">{name}<', self.get("/").text)
        assert found
        return found.group(1)


@pytest.fixture
def page(control: EmulatorControl) -> Iterator[Page]:
    page = Page(control.url)
    yield page
    page.session.close()


def text_of(answer: requests.Response) -> str:
    """Return the visible text."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", answer.text.partition("<main>")[2])).split())


def test_the_table_lists_and_filters_instances(page: Page, control: EmulatorControl) -> None:
    assert "There is no instance yet" in text_of(page.get("/"))
    instance = control.start("PublishApproval", business_key="release-7")
    answer = page.get("/")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert f'href="/instances/{instance["id"]}"' in answer.text
    assert f"PublishApproval release-7 ◔ {WAITING} Submitted release-7 under a minute" in text_of(answer)
    assert "None of the 1 instances matches the filter" in text_of(page.get("/?state=Broken"))


@pytest.mark.parametrize("path", ["/", "/page.css", "/page.js", "/icon.svg", "/instances/none"])
def test_headers_exclude_foreign_content(page: Page, path: str) -> None:
    headers = page.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert {policy[name] for name in policy} <= {"'none'", "'self'"}
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_page_requests_are_not_counted_as_api_requests(page: Page, control: EmulatorControl) -> None:
    control.outage()
    control.fault("any", "status")
    control.reset_counts()
    assert [page.get(path).status_code for path in ("/", "/page.css", "/page.js")] == [200] * 3
    assert (sum(control.counts().values()), len(control.faults())) == (0, 1)


def test_a_start_redirects_with_the_filters(page: Page, control: EmulatorControl) -> None:
    fields = {"definition": page.definition("PublishApproval"), "business_key": "k", "state": "Broken"}
    answer = page.post("/instances", {**fields, "variables": '{"dataset": "d"}'})
    (instance,) = control.instances()
    assert (instance["business_key"], instance["variables"]["dataset"]) == ("k", "d")
    assert (answer.status_code, answer.headers["Location"]) == (
        303,
        f"/?state=Broken&started={instance['id']}",
    )
    assert "Started PublishApproval k" in text_of(page.get(answer.headers["Location"]))


def test_an_invalid_start_keeps_the_typed_values(page: Page, control: EmulatorControl) -> None:
    fields = {"definition": page.definition("InvoiceCheck 2.0.0"), "business_key": "<k>", "title": '"t"'}
    answer = page.post("/instances", {**fields, "variables": "{<", "process": "Instant"})
    assert answer.status_code == 422
    assert "Not done. This is not JSON" in text_of(answer)
    assert re.search(rf'<option value="{fields["definition"]}" selected>', answer.text)
    assert 'value="&lt;k&gt;"' in answer.text
    assert 'value="&#34;t&#34;"' in answer.text
    assert re.search(
        r'<textarea id="variables"[^>]* aria-invalid="true"[^>]*>\n\{&lt;</textarea>', answer.text
    )
    assert '<option value="Instant" selected>' in answer.text
    assert control.instances() == []


def test_an_action_redirects_and_shows_a_notice(page: Page, control: EmulatorControl) -> None:
    here = f"/instances/{control.start('PublishApproval')['id']}"
    answer = page.post(f"{here}/complete", {"outcome": "approve"})
    assert (answer.status_code, answer.headers["Location"]) == (303, f"{here}?done=complete")
    shown = text_of(page.get(answer.headers["Location"]))
    assert "✓ Completed OK Approved The step was completed." in shown
    assert "someone chose approve" in shown
    late = page.post(f"{here}/complete", {"outcome": "approve"})
    assert late.status_code == 422
    assert "Not done. Outcome 'approve' is not on offer" in text_of(late)


def test_invalid_variables_keep_the_typed_values(page: Page, control: EmulatorControl) -> None:
    instance = control.start("PublishApproval", {"dataset": "now"})
    here = f"/instances/{instance['id']}"
    typed = {"set:comment": "mine", "was:comment": "", "set:row_count": "many", "was:row_count": "0"}
    answer = page.post(f"{here}/variables", {**typed, "set:dataset": "old", "was:dataset": "old"})
    assert answer.status_code == 422
    shown = re.findall(r'name="set:(\w+)" value="([^"]*)"', answer.text)
    assert dict(shown) == {"dataset": "now", "row_count": "many", "requested_by": "", "comment": "mine"}
    control.act(instance["id"], "approve")
    answer = page.post(f"{here}/variables", {**typed, "set:row_count": "5"})
    assert "has ended as Completed OK" in text_of(answer)
    assert 'name="set:comment" value="mine"' in answer.text


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (
            "/instances/none",
            404,
            "There is no instance 'none'. It was deleted, or the emulator was reset or restarted.",
        ),
        ("/instances/%3Cb%3E%E2%80%AE", 404, "There is no instance '<b>\\u202e'"),
        ("/?show=ten", 400, "show in the address must be a whole number from 1 to 1000, not 'ten'."),
        ("/?show=1001", 400, "show in the address must be a whole number from 1 to 1000, not '1001'."),
    ],
)
def test_invalid_addresses_show_the_reason(page: Page, path: str, status: int, words: str) -> None:
    answer = page.get(path)
    assert answer.status_code == status
    assert words in text_of(answer)


@pytest.mark.parametrize("path", ["/", "/changes", "/page.js"])
def test_a_foreign_host_name_is_refused(page: Page, path: str) -> None:
    answer = page.get(path, Host="evil.example:8765")
    assert answer.status_code == 403
    assert "start the emulator with --allowed-host evil.example." in text_of(answer)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/_emulator", None),
        ("GET", "/_emulator/instances", None),
        ("POST", "/_emulator/instances", {"name": "PublishApproval"}),
        ("POST", "/_emulator/reset", None),
        ("POST", "/baas/auth/v1.0/oauth2/token", None),
        ("GET", "/u-route/baas/bp/v2.0/runtime/instances?states=Running", None),
        ("POST", "/u-route/baas/bp/v2.0/runtime/instances", {"name": "PublishApproval"}),
        ("GET", "/anything/else", None),
    ],
)
def test_dns_rebinding_reaches_nothing(
    page: Page, control: EmulatorControl, method: str, path: str, body: Any
) -> None:
    """The requests have no browser headers, like those of a program."""
    before = control.start("PublishApproval")
    control.reset_counts()
    answer = page.session.request(
        method, page.url + path, json=body, headers={"Host": f"evil.example:{page.url[-5:]}"}, timeout=10
    )
    assert answer.status_code == (403 if path.startswith("/_emulator") else 421)
    assert "start the emulator with --allowed-host evil.example." in answer.text
    assert [each["id"] for each in control.instances()] == [before["id"]]
    assert set(control.counts().values()) == {0}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_a_form_from_a_foreign_page_is_refused(
    page: Page, control: EmulatorControl, headers: dict[str, str]
) -> None:
    instance = control.start("PublishApproval")
    fields = {"definition": page.definition("Instant"), "outcome": "approve"}
    for path in ("/instances", f"/instances/{instance['id']}/complete"):
        assert page.post(path, fields, **headers).status_code == 403
    (after,) = control.instances()
    assert (after["id"], after["outcomes"]) == (instance["id"], ["approve", "reject"])


def test_a_foreign_page_cannot_use_the_control_api(page: Page, control: EmulatorControl) -> None:
    """Browsers let a page send plain text to any address without a preflight request."""
    headers = {"Origin": "http://evil.example", "Content-Type": "text/plain"}
    orders = f"{page.url}/_emulator/reactions"
    answer = page.session.post(
        orders, '{"name": "PublishApproval", "outcomes": ["approve"]}', headers=headers, timeout=10
    )
    assert answer.status_code == 403
    assert "A web page sent this, from 'http://evil.example'" in answer.json()["error"]
    assert not control.start("PublishApproval")["closed"]
    assert [each["closed"] for each in control.instances()] == [False]


def test_a_body_that_is_not_a_form_is_ignored(page: Page, control: EmulatorControl) -> None:
    here = f"/instances/{control.start('PublishApproval')['id']}/complete"
    sent: dict[str, Any] = {"json": {"outcome": "approve"}, "headers": {"Origin": page.url}}
    assert page.session.post(page.url + here, timeout=10, **sent).status_code == 422


def test_many_changes_cause_few_notifications(page: Page, control: EmulatorControl) -> None:
    instance_id = control.start("PublishApproval")["id"]
    with page.session.get(f"{page.url}/changes", stream=True, timeout=(10, 0.5)) as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        lines = stream.iter_lines(chunk_size=1)
        assert [next(lines) for _ in range(4)] == [b"retry: 500", b"", b"data: changed", b""]
        begun = time.monotonic()
        for _ in range(1000):
            control.move(instance_id, bp_status="x")
        took = time.monotonic() - begun
        received: list[bytes] = []
        with pytest.raises(requests.ConnectionError, match="timed out"):  # no more events
            received.extend(lines)
        assert 1 <= received.count(b"data: changed") <= took / MIN_NOTICE_GAP_SECONDS + 3


def test_a_step_that_runs_out_is_notified(page: Page, control: EmulatorControl) -> None:
    control.start("AlwaysBroken")
    with page.session.get(f"{page.url}/changes", stream=True, timeout=10) as stream:
        notices = (line for line in stream.iter_lines(chunk_size=1) if line == b"data: changed")
        next(notices)
        assert control.counts()["other"] == 0
        # There are no more requests; the instance breaks half a second later.
        next(notices)
        assert [each["state"] for each in control.instances()] == ["Broken"]


def test_reads_cause_no_notification(api: Api, page: Page, control: EmulatorControl) -> None:
    received: list[bytes] = []
    with page.session.get(f"{page.url}/changes", stream=True, timeout=10) as stream:
        lines = stream.iter_lines(chunk_size=1)
        for _ in range(4):
            next(lines)
        for _ in range(20):
            api.query(WAITING)
            control.instances()
        control.start("PublishApproval", business_key="last")
        received += [next(lines), next(lines)]
        control.start("PublishApproval")
        received.append(next(lines))
    assert received == [b"data: changed", b"", b"data: changed"]


def test_an_emulator_with_an_open_page_stops_quickly() -> None:
    before = threading.active_count()
    with EmulatorServer() as server, requests.Session() as session:
        session.trust_env = False
        stream = session.get(f"{server.url}/changes", stream=True, timeout=10)
        next(stream.iter_content(1))
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < 2
        stream.close()
    assert threading.active_count() == before
