"""Findings need evidence: without it they are unknown or not fine, and no started instance is left unreported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.operations import TokenAnswer
from airflow_provider_astrobpm.client.protocol import Response
from airflow_provider_astrobpm.doctor import probe_auth, probe_lists, probe_queries
from airflow_provider_astrobpm.doctor.findings import Finding
from airflow_provider_astrobpm.doctor.observation import Observation, Probe
from airflow_provider_astrobpm.doctor.probe_lists import StateLists
from airflow_provider_astrobpm.doctor.probe_queries import QUERY_FINDINGS
from airflow_provider_astrobpm.doctor.report import Report
from airflow_provider_astrobpm.doctor.started_instances import SentStart, StartedInstances, terminate_all
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from tests.doctor.conftest import KEY, PROCESS, Examine
from tests.doctor.test_conclusions import EMPTY, FULL, REFUSED, answer_always, observed, rows, run_flow

OwnInstances = Callable[[], list[dict[str, Any]]]
RunOn = Callable[..., Report]

ALWAYS = 100_000  # requests, more than a run sends
FORBIDDEN = "405230070"
# Ways in which a missing permission may be reported. None of them is documented.
REPORTS: list[tuple[str, dict[str, Any]]] = [
    ("status", {"status": 403, "res_code": FORBIDDEN}),
    ("html", {"status": 403}),
    ("status", {"status": 400, "res_code": FORBIDDEN}),
    ("code_in_200", {"res_code": FORBIDDEN}),
]
WITHOUT_PERMISSION = pytest.mark.parametrize(
    ("fault", "options"), REPORTS, ids=["403", "403-html", "400", "200"]
)

BROKEN_BUT_OPEN = """
processes:
  - name: NeedsRepair
    steps:
      - {state: Broken, for: 100000}
  - name: BreaksAtOnce
    steps:
      - {state: Dispatched, for: 0}
      - {state: Broken, for: 100000}
"""


@pytest.fixture
def run_on(emulator: EmulatorControl, populate: Callable[..., None], run: Examine) -> RunOn:
    """Run the doctor on an emulator with instances, with some switches set and with every request of some kinds failing."""

    def run_it(
        process: str | None = None,
        *,
        failing: str = "",
        fault: str = "status",
        options: Mapping[str, Any] = MappingProxyType({}),
        connection: Mapping[str, Any] = MappingProxyType({}),
        **switches: Any,
    ) -> Report:
        populate()
        emulator.switch(**switches)
        for kind in failing.split():
            emulator.fault(kind, fault, times=ALWAYS, **options)
        report = run(process, **connection)
        assert report.signed_in
        return report

    return run_it


def assert_unknown(findings: Mapping[str, Finding], *names: str, because: str = "") -> None:
    """Assert that findings are unknown, for a reason that contains some words."""
    for name in names:
        assert findings[name].value is None, findings[name]
        assert findings[name].fine is None
        assert because in findings[name].sentence


@WITHOUT_PERMISSION
def test_refused_lists_leave_dependent_findings_unknown(
    fault: str, options: dict[str, Any], run_on: RunOn
) -> None:
    findings = run_on(failing="query", fault=fault, options=options).findings
    assert (findings["instances"].value, findings["instances"].fine) == ("refused", False)
    of_lists = ("fields", "order", "own_order", "row_cap", "others", "business_keys", "get_by_id")
    assert_unknown(findings, "refusal", *QUERY_FINDINGS, *of_lists, because="could be read")
    assert_unknown(findings, "ended")
    assert not [finding for finding in findings.values() if "sees no instance" in finding.sentence]


def test_a_refused_list_is_not_an_empty_list(
    emulator: EmulatorControl, populate: Callable[..., None], run: Examine
) -> None:
    populate()
    emulator.fault("query", "status", status=403, target="states=Completed OK", times=ALWAYS)
    emulator.switch(see_others=False)
    findings = run().findings
    assert findings["instances"].value == "refused"
    assert "the list of 'Completed OK' could not be read" in findings["ended"].sentence
    assert findings["content_type"].value == "not needed"
    assert findings["refusal"].value == "HTTP 400"
    assert findings["bad_token"].value == "HTTP 401, resCode 405230602"


@pytest.mark.parametrize("position", ["403", "403_html", "401"])
def test_bad_token_is_unknown_if_the_valid_token_gets_the_same_answer(position: str, run_on: RunOn) -> None:
    fault, options = ("html", {"status": 403}) if "html" in position else REPORTS[0]
    findings = run_on(failing="query", fault=fault, options=options, bad_token=position).findings
    assert_unknown(findings, "bad_token", because="the valid token gets the same answer")


@pytest.mark.parametrize(("newer_token_works", "value"), [(False, None), (True, "replaced")])
def test_older_token_is_replaced_only_if_the_newer_one_works(
    newer_token_works: bool, value: str | None
) -> None:
    refused = Observation(
        "", error=errors.AuthenticationError("no", status=401), response=Response(401, {}, b"{}")
    )
    newer = observed([]) if newer_token_works else refused
    _, finding = run_flow(
        probe_auth._probe_older_tokens(observed(TokenAnswer("one")), observed(TokenAnswer("two"))),
        lambda probe: refused if probe.token else newer,
    )
    assert (finding.name, finding.value) == ("older_tokens", value)


@WITHOUT_PERMISSION
def test_missing_permission_to_set_variables(fault: str, options: dict[str, Any], run_on: RunOn) -> None:
    findings = run_on(PROCESS, failing="variables", fault=fault, options=options).findings
    is_shown = options.get("status") == 403
    unknown = findings["unknown_variable"]
    assert (unknown.value, unknown.fine) == (("refused", False) if is_shown else (None, None))
    assert "missing permission to set variables" in unknown.sentence
    assert_unknown(findings, "variables_of_ended", because="setting variables was not granted before either")
    assert findings["suspend_ended"].value == "refused"


@WITHOUT_PERMISSION
def test_missing_permission_to_act_is_not_fine_and_the_instances_left_are_reported(
    fault: str, options: dict[str, Any], own_instances: OwnInstances, run_on: RunOn
) -> None:
    report = run_on(PROCESS, failing="action", fault=fault, options=options)
    for name in ("suspend", "terminate"):
        finding = report.findings[name]
        assert (finding.value, finding.fine) == ("refused", False)
        assert ("suggests a missing permission" in finding.sentence) is (options.get("status") == 403)
        assert finding.evidence[0].startswith("PUT ")
    assert_unknown(
        report.findings, "resume", "suspend_twice", "resume_twice", "terminate_twice", "suspend_ended"
    )
    still_open = {each["id"] for each in own_instances() if not each["closed"]}
    assert still_open == {start.instance_id for start in report.not_ended}
    assert report.exit_code == 1


@WITHOUT_PERMISSION
def test_refusals_for_an_ended_instance_are_no_evidence_without_an_earlier_grant(
    fault: str, options: dict[str, Any], run_on: RunOn
) -> None:
    findings = run_on("Instant", failing="action variables", fault=fault, options=options).findings
    assert_unknown(findings, "suspend_ended", "variables_of_ended", because="a permission may be missing")


@pytest.mark.parametrize(("kind", "name"), [("get", "get_by_id"), ("get_variables", "get_variables")])
def test_read_refused_for_a_missing_permission_is_not_fine(kind: str, name: str, run_on: RunOn) -> None:
    findings = run_on(failing=kind, options=REPORTS[0][1], get_by_id="row", get_variables="map").findings
    finding = findings[name]
    assert (finding.value, finding.fine) == ("refused", False)
    assert "refused with HTTP 403, which suggests a missing permission" in finding.sentence


@pytest.mark.parametrize("csrf", [False, True])
def test_csrf_tokens_by_get_only(csrf: bool, run_on: RunOn) -> None:
    report = run_on(PROCESS, connection={"csrf": csrf}, csrf_required=True, csrf_method="get")
    assert report.findings["start"].value == "started"
    assert (report.findings["csrf"].value, report.findings["csrf"].fine) == ("needed", csrf)
    assert report.findings["csrf_method"].value == "GET"
    assert report.findings["csrf_method"].sentence == "by GET only"
    assert report.exit_code == 0


@pytest.mark.parametrize("needed", [False, True])
def test_csrf_tokens_by_neither_method(needed: bool, run_on: RunOn) -> None:
    report = run_on(PROCESS, failing="csrf", options={"status": 405}, csrf_required=needed)
    method = report.findings["csrf_method"]
    assert (method.value, method.fine) == ("none", not needed)
    if needed:
        assert report.findings["start"].value == "failed"
        assert "The header csrf-token is missing or wrong" in report.findings["start"].sentence
        assert_unknown(report.findings, "csrf", because="no CSRF token could be fetched")
        assert (report.exit_code, report.started) == (0, [])


@pytest.mark.parametrize("keep_closed", [False, True])
def test_instance_that_was_never_listed_is_not_reported_as_gone(keep_closed: bool, run_on: RunOn) -> None:
    report = run_on(PROCESS, start_lag=3600, keep_closed=keep_closed)
    assert_unknown(report.findings, "ended", because="no list has ever shown the instance")
    assert report.exit_code == 0


@pytest.mark.parametrize(
    ("position", "words"), [("zero", "0"), ("negative", "-1"), ("words", "'ten minutes'")]
)
def test_invalid_token_lifetime_is_quoted(
    position: str, words: str, emulator: EmulatorControl, run: Examine
) -> None:
    emulator.switch(expires_in=position)
    finding = run().findings["token_lifetime"]
    assert finding.value == "unusable"
    assert finding.sentence.startswith(
        f"expires_in is {words}, which is not a lifetime: a token is used until it is refused"
    )


@pytest.mark.parametrize("process", ["NeedsRepair", "BreaksAtOnce"])
@pytest.mark.parametrize("closed_flag", ["on_close", "never"])
def test_broken_but_open_instance_is_terminated(
    process: str,
    closed_flag: str,
    emulator: EmulatorControl,
    own_instances: OwnInstances,
    run_on: RunOn,
) -> None:
    emulator.add_processes(BROKEN_BUT_OPEN)
    report = run_on(process, closed_flag=closed_flag)
    assert [(each["state"], each["suspended"]) for each in own_instances()] == [("Terminated", False)] * 2
    assert "the instance broke by itself" in report.findings["suspend"].sentence
    assert report.findings["terminate"].value == "Terminated"
    assert report.exit_code == 0


def test_broken_instance_that_cannot_be_terminated_is_reported(
    emulator: EmulatorControl, own_instances: OwnInstances, run_on: RunOn
) -> None:
    emulator.add_processes(BROKEN_BUT_OPEN)
    report = run_on("NeedsRepair", failing="action", options={"status": 400})
    assert report.exit_code == 1
    assert {start.instance_id for start in report.not_ended} == {each["id"] for each in own_instances()}
    assert "it is 'Broken'" in report.as_text()


def test_suspended_instance_that_cannot_be_terminated_is_resumed_first() -> None:
    """Whether a suspended instance can be terminated is not documented."""
    row = {"id": "002N1", "name": "P", "state": FULL, "suspended": True, "businessKey": KEY}
    started = StartedInstances("P", starts=[SentStart(KEY, "002N1", shown=True)])
    acts: list[str] = []

    def answer(probe: Probe) -> Observation:
        if probe.operation.method == "GET":
            return observed([row] if row["state"] in probe.operation.query[0] else [])
        acts.append(probe.operation.kind)
        if probe.operation.kind == "resume":
            row["suspended"] = False
        elif row["suspended"]:
            return REFUSED
        else:
            row["state"] = "Terminated"
        return observed(dict(row))

    run_flow(terminate_all(started), answer)
    assert acts == ["terminate", "resume", "terminate"]
    assert started.starts[0].end == "Terminated"


def test_fields_is_honoured_only_if_other_columns_come_without_it() -> None:
    own_columns = [{**row, "id": "1"} for row in rows("2026-01-01 00:00:01")]
    more_columns = [{**own_columns[0], "createdBy": "x"}]
    lists = StateLists({FULL: observed(own_columns)})
    assert probe_lists._fields_finding(lists, FULL, observed(own_columns)).value is None
    assert probe_lists._fields_finding(lists, FULL, REFUSED).value is None
    assert probe_lists._fields_finding(lists, FULL, observed(more_columns)).value == "honoured"
    lists = StateLists({FULL: observed(more_columns)})
    assert probe_lists._fields_finding(lists, FULL, observed(own_columns)).value == "ignored"


def test_refusal_of_two_states_is_evidence_only_if_each_can_be_listed_alone() -> None:
    requested: list[str] = []

    def refuse(probe: Probe) -> Observation:
        requested.append(probe.operation.query[0][1])
        return REFUSED

    def probe_with(lists: StateLists) -> Finding:
        flow = probe_queries._probe_several_states(lists, "states_with_commas")
        finding: Finding = run_flow(flow, refuse)[1]
        return finding

    both_listed = StateLists({FULL: observed(rows("1")), EMPTY: observed(rows("2"))})
    assert probe_with(both_listed).value == "refused"
    assert len(requested) == 1, "the other order is not requested after a refusal"
    assert sorted(requested[0].split(",")) == sorted([FULL, EMPTY])
    one_listed = StateLists({FULL: observed(rows("1")), EMPTY: REFUSED})
    assert probe_with(one_listed).value is None


@pytest.mark.parametrize(
    ("answered_state", "value"), [(probe_queries.STATES_WITH_BLANKS[0], "yes"), (FULL, None)]
)
def test_plus_is_a_space_only_if_the_rows_are_of_that_state(answered_state: str, value: str | None) -> None:
    state = probe_queries.STATES_WITH_BLANKS[0]
    lists = StateLists({state: observed([{**rows("1")[0], "state": state}])})
    answer = observed([{**rows("1")[0], "state": answered_state}])
    flow = probe_queries._probe_plus(lists, Finding.unknown("unknown_state", ""))
    _, finding = run_flow(flow, partial(answer_always, answer))
    assert (finding.name, finding.value) == ("plus", value)


@pytest.mark.parametrize(
    ("result", "value", "words"),
    [
        ([], "yes", "shows none"),
        ([{}], "yes", "shows at least one"),
        (None, "yes", "shows none"),
        ("x", None, ""),
    ],
)
def test_only_a_list_proves_the_permission_to_list_definitions(
    result: Any, value: str | None, words: str
) -> None:
    findings, _ = run_flow(
        probe_lists.fetch_lists(),
        lambda probe: observed(result if probe.operation.kind == "definitions" else []),
    )
    assert findings["definitions"].value == value
    assert words in findings["definitions"].sentence
