"""No point says that something is fine where the answer does not show it, and nothing that was started is left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_astrobpm.bpm import errors
from airflow_provider_astrobpm.bpm.api import TokenAnswer
from airflow_provider_astrobpm.bpm.exchange import Response
from airflow_provider_astrobpm.doctor import probe_auth, probe_lists, probe_queries
from airflow_provider_astrobpm.doctor.observation import Observation, Probe
from airflow_provider_astrobpm.doctor.probe_lists import StateLists
from airflow_provider_astrobpm.doctor.probe_queries import QUERY_FINDINGS
from airflow_provider_astrobpm.doctor.started_instances import SentStart, StartedInstances, terminate_all
from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from tests.doctor.conftest import KEY, PROCESS, Examine
from tests.doctor.test_tables import EMPTY, FULL, REFUSED, play, rows, seen

OwnInstances = Callable[[], list[dict[str, Any]]]

FORBIDDEN = "405230070"
# How a right that is wanting may be reported; none of it is documented.
REPORTS: list[tuple[str, dict[str, Any]]] = [
    ("status", {"status": 403, "res_code": FORBIDDEN}),
    ("html", {"status": 403}),
    ("status", {"status": 400, "res_code": FORBIDDEN}),
    ("code_in_200", {"res_code": FORBIDDEN}),
]
WANTING = pytest.mark.parametrize(("fault", "report"), REPORTS, ids=["403", "403-html", "400", "200"])

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


@WANTING
def test_without_the_right_to_list_nothing_is_concluded_from_refusals(
    fault: str, report: dict[str, Any], emulator: EmulatorControl, populate: Callable[..., None], run: Examine
) -> None:
    populate()
    emulator.fault("query", fault, times=100_000, **report)
    findings = run().findings
    assert (findings["instances"].value, findings["instances"].fine) == ("refused", False)
    for name in (
        *QUERY_FINDINGS,
        "fields",
        "order",
        "own_order",
        "row_cap",
        "others",
        "business_keys",
        "get_by_id",
    ):
        assert findings[name].value is None, findings[name]
        assert "could be read" in findings[name].sentence
    assert findings["ended"].value is None
    assert not [finding for finding in findings.values() if "sees no instance" in finding.sentence]


def test_a_right_that_is_wanting_for_some_states_is_not_taken_for_empty_lists(
    emulator: EmulatorControl, populate: Callable[..., None], run: Examine
) -> None:
    populate()
    emulator.fault("query", "status", status=403, target="states=Completed OK", times=100_000)
    emulator.switch(see_others=False)
    findings = run().findings
    assert findings["instances"].value == "refused"
    assert "the list of 'Completed OK' could not be read" in findings["ended"].sentence
    assert findings["content_type"].value == "not needed"
    assert findings["refusal"].value == "HTTP 400"
    assert findings["bad_token"].value == "HTTP 401, resCode 405230602"


@pytest.mark.parametrize("position", ["403", "403_html", "401"])
def test_a_wrong_token_is_not_judged_by_an_answer_that_the_right_one_gets(
    position: str, emulator: EmulatorControl, populate: Callable[..., None], run: Examine
) -> None:
    populate()
    emulator.switch(bad_token=position)
    fault: tuple[str, dict[str, Any]] = ("html", {"status": 403}) if "html" in position else REPORTS[0]
    emulator.fault("query", fault[0], times=100_000, **fault[1])
    finding = run().findings["bad_token"]
    assert finding.value is None
    assert "the right token gets the same answer" in finding.sentence


def test_an_older_token_is_not_said_to_end_where_the_newer_one_is_refused_too() -> None:
    refused = Observation(
        "", error=errors.AuthenticationError("no", status=401), response=Response(401, {}, b"{}")
    )
    token = seen(TokenAnswer("one"))
    another = seen(TokenAnswer("two"))
    for newer, value in ((refused, None), (seen([]), "replaced")):
        findings, _ = play(
            probe_auth._probe_older_tokens(token, another),
            lambda probe: refused if probe.token else newer,  # noqa: B023
        )
        assert findings["older_tokens"].value == value


@WANTING
def test_without_the_right_to_set_variables(
    fault: str, report: dict[str, Any], emulator: EmulatorControl, populate: Callable[..., None], run: Examine
) -> None:
    populate()
    emulator.fault("variables", fault, times=100_000, **report)
    findings = run(PROCESS).findings
    is_shown = report.get("status") == 403
    unknown = findings["unknown_variable"]
    assert (unknown.value, unknown.fine) == (("refused", False) if is_shown else (None, None))
    assert "want of a right to set variables" in unknown.sentence
    assert findings["variables_of_ended"].value is None
    assert "setting variables was not granted before either" in findings["variables_of_ended"].sentence
    assert findings["suspend_ended"].value == "refused"


@WANTING
def test_without_the_right_to_act_nothing_is_fine_and_what_is_left_is_named(
    fault: str,
    report: dict[str, Any],
    emulator: EmulatorControl,
    populate: Callable[..., None],
    own_instances: OwnInstances,
    run: Examine,
) -> None:
    populate()
    emulator.fault("action", fault, times=100_000, **report)
    told = run(PROCESS)
    for name in ("suspend", "terminate"):
        assert (told.findings[name].value, told.findings[name].fine) == ("refused", False)
        assert ("as for want of a right" in told.findings[name].sentence) is (report.get("status") == 403)
        assert told.findings[name].evidence[0].startswith("PUT ")
    for name in ("resume", "suspend_twice", "resume_twice", "terminate_twice", "suspend_ended"):
        assert told.findings[name].value is None, told.findings[name]
    left = {each["id"] for each in own_instances() if not each["closed"]}
    assert left == {start.instance_id for start in told.not_ended}
    assert told.exit_code == 1


@WANTING
def test_without_the_right_to_act_on_what_has_ended_by_itself(
    fault: str, report: dict[str, Any], emulator: EmulatorControl, populate: Callable[..., None], run: Examine
) -> None:
    """A refusal is about the state of the instance only where the same is granted otherwise."""
    populate()
    emulator.fault("action", fault, times=100_000, **report)
    emulator.fault("variables", fault, times=100_000, **report)
    findings = run("Instant").findings
    for name in ("suspend_ended", "variables_of_ended"):
        assert findings[name].value is None
        assert "a right may be wanting" in findings[name].sentence


@pytest.mark.parametrize("kind", ["get", "get_variables"])
def test_a_read_that_is_refused_for_want_of_a_right_is_no_good_news(
    kind: str, emulator: EmulatorControl, populate: Callable[..., None], run: Examine
) -> None:
    populate()
    emulator.switch(get_by_id="row", get_variables="map")
    emulator.fault(kind, "status", status=403, res_code=FORBIDDEN, times=100_000)
    finding = run().findings[{"get": "get_by_id"}.get(kind, kind)]
    assert (finding.value, finding.fine) == ("refused", False)
    assert "as for want of a right, with HTTP 403" in finding.sentence


@pytest.mark.parametrize("csrf", [False, True])
def test_csrf_tokens_by_get_alone(
    csrf: bool, emulator: EmulatorControl, populate: Callable[..., None], run: Examine
) -> None:
    populate()
    emulator.switch(csrf_required=True, csrf_method="get")
    report = run(PROCESS, csrf=csrf)
    assert report.findings["start"].value == "started"
    assert (report.findings["csrf"].value, report.findings["csrf"].fine) == ("needed", csrf)
    assert report.findings["csrf_method"].value == "GET"
    assert report.findings["csrf_method"].sentence == "by GET only"
    assert report.exit_code == 0


@pytest.mark.parametrize("needed", [False, True])
def test_csrf_tokens_by_neither_method(
    needed: bool, emulator: EmulatorControl, populate: Callable[..., None], run: Examine
) -> None:
    populate()
    emulator.switch(csrf_required=needed)
    emulator.fault("csrf", "status", status=405, times=100_000)
    report = run(PROCESS)
    method = report.findings["csrf_method"]
    assert (method.value, method.fine) == ("none", not needed)
    if needed:
        assert report.findings["start"].value == "failed"
        assert "The header csrf-token is missing or wrong" in report.findings["start"].sentence
        assert report.findings["csrf"].value is None
        assert "no CSRF token could be fetched" in report.findings["csrf"].sentence
        assert (report.exit_code, report.started) == (0, [])


@pytest.mark.parametrize("keep_closed", [False, True])
def test_what_no_list_has_ever_shown_is_not_said_to_be_gone(
    keep_closed: bool, emulator: EmulatorControl, populate: Callable[..., None], run: Examine
) -> None:
    populate()
    emulator.switch(start_lag=3600, keep_closed=keep_closed)
    report = run(PROCESS)
    assert report.findings["ended"].value is None
    assert "no list has ever shown the instance" in report.findings["ended"].sentence
    assert report.exit_code == 0


@pytest.mark.parametrize(
    ("position", "words"), [("zero", "0"), ("negative", "-1"), ("words", "'ten minutes'")]
)
def test_a_lifetime_that_makes_no_sense_is_quoted(
    position: str, words: str, emulator: EmulatorControl, run: Examine
) -> None:
    emulator.switch(expires_in=position)
    finding = run().findings["token_lifetime"]
    assert finding.value == "unusable"
    assert finding.sentence.startswith(
        f"expires_in is {words}, which is no lifetime: it is used until it is refused"
    )


@pytest.mark.parametrize("process", ["NeedsRepair", "BreaksAtOnce"])
@pytest.mark.parametrize("closed_flag", ["on_close", "never"])
def test_what_breaks_and_stays_open_is_terminated(
    process: str,
    closed_flag: str,
    emulator: EmulatorControl,
    populate: Callable[..., None],
    own_instances: OwnInstances,
    run: Examine,
) -> None:
    populate()
    emulator.add_processes(BROKEN_BUT_OPEN)
    emulator.switch(closed_flag=closed_flag)
    report = run(process)
    assert [(each["state"], each["suspended"]) for each in own_instances()] == [("Terminated", False)] * 2
    assert "the instance broke by itself" in report.findings["suspend"].sentence
    assert report.findings["terminate"].value == "Terminated"
    assert report.exit_code == 0


def test_what_breaks_and_cannot_be_terminated_is_named(
    emulator: EmulatorControl, populate: Callable[..., None], own_instances: OwnInstances, run: Examine
) -> None:
    populate()
    emulator.add_processes(BROKEN_BUT_OPEN)
    emulator.fault("action", "status", status=400, times=100_000)
    report = run("NeedsRepair")
    assert report.exit_code == 1
    assert {start.instance_id for start in report.not_ended} == {each["id"] for each in own_instances()}
    assert "it is 'Broken'" in report.as_text()


def test_what_is_suspended_and_does_not_end_so_is_resumed_first() -> None:
    """Whether a suspended instance can be terminated is not documented."""
    row = {"id": "002N1", "name": "P", "state": FULL, "suspended": True, "businessKey": KEY}
    own = StartedInstances("P", starts=[SentStart(KEY, "002N1", shown=True)])
    acts: list[str] = []

    def answer(probe: Probe) -> Observation:
        if probe.operation.method == "GET":
            return seen([row] if row["state"] in probe.operation.query[0] else [])
        acts.append(probe.operation.kind)
        if probe.operation.kind == "resume":
            row["suspended"] = False
        elif row["suspended"]:
            return REFUSED
        else:
            row["state"] = "Terminated"
        return seen(dict(row))

    play(terminate_all(own), answer)
    assert acts == ["terminate", "resume", "terminate"]
    assert own.starts[0].end == "Terminated"


def test_columns_that_would_come_anyway_do_not_show_that_fields_is_honoured() -> None:
    asked = [{**row, "id": "1"} for row in rows("2026-01-01 00:00:01")]
    known = StateLists({FULL: seen(asked)})
    assert probe_lists._fields_finding(known, FULL, seen(asked)).value is None
    assert probe_lists._fields_finding(known, FULL, REFUSED).value is None
    assert (
        probe_lists._fields_finding(known, FULL, seen([{**asked[0], "createdBy": "x"}])).value == "honoured"
    )
    more = StateLists({FULL: seen([{**asked[0], "createdBy": "x"}])})
    assert probe_lists._fields_finding(more, FULL, seen(asked)).value == "ignored"


def test_a_refusal_of_two_states_is_about_two_states() -> None:
    """Both are known to be listed alone; a name that does not exist may be refused for itself."""
    full = StateLists({FULL: seen(rows("1")), EMPTY: seen(rows("2"))})
    asked: list[str] = []

    def answer(probe: Probe) -> Observation:
        asked.append(probe.operation.query[0][1])
        return REFUSED

    findings, _ = play(
        probe_queries._probe_several_states(full, "states_with_commas", refuses_with_5xx=False), answer
    )
    assert findings["states_with_commas"].value == "refused"
    assert sorted(asked[0].split(",")) == sorted([FULL, EMPTY])
    alone = StateLists({FULL: seen(rows("1")), EMPTY: REFUSED})
    findings, _ = play(
        probe_queries._probe_several_states(alone, "states_with_commas", refuses_with_5xx=False), answer
    )
    assert findings["states_with_commas"].value is None


def test_rows_of_other_states_do_not_show_that_a_plus_is_a_blank() -> None:
    state = probe_queries.STATES_WITH_BLANKS[0]
    here = seen([{**rows("1")[0], "state": state}])
    for answer, value in ((here, "yes"), (seen(rows("1")), None)):
        findings, _ = play(
            probe_queries._probe_plus(StateLists({state: here}), None, refuses_with_5xx=False),
            lambda _: answer,  # noqa: B023
        )
        assert findings["plus"].value == value


@pytest.mark.parametrize(
    ("result", "value", "words"),
    [
        ([], "yes", "shows none"),
        ([{}], "yes", "shows at least one"),
        (None, "yes", "shows none"),
        ("x", None, ""),
    ],
)
def test_only_a_list_shows_that_definitions_may_be_listed(result: Any, value: str | None, words: str) -> None:
    findings, _ = play(
        probe_lists.fetch_lists(), lambda probe: seen(result if probe.operation.kind == "definitions" else [])
    )
    assert findings["definitions"].value == value
    assert words in findings["definitions"].sentence
