"""Conclusions from given answers, without a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from email.utils import format_datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.drivers import drive
from airflow_provider_astrobpm.client.operations import Sleep
from airflow_provider_astrobpm.client.protocol import Request, Response
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.doctor import (
    observation,
    probe_lists,
    probe_order,
    probe_queries,
    probe_refused_start,
    probe_start,
    timestamp_findings,
)
from airflow_provider_astrobpm.doctor.findings import DESCRIPTIONS, Finding
from airflow_provider_astrobpm.doctor.observation import Observation, Probe
from airflow_provider_astrobpm.doctor.probe_lists import StateLists
from airflow_provider_astrobpm.doctor.recommended_settings import recommended_extras
from airflow_provider_astrobpm.doctor.report import Report
from airflow_provider_astrobpm.doctor.start_markers import make_key, title_for
from airflow_provider_astrobpm.doctor.started_instances import SentStart, StartedInstances, terminate_all
from airflow_provider_astrobpm.hooks.connection import EXTRAS

KEY = make_key("0123456789ab")
NOW = datetime(2026, 1, 31, 20, 0, 0, tzinfo=timezone.utc)
SETTINGS = Settings("my_conn", "https://somewhere", ClientCredentials("id", "secret"))
FULL, EMPTY = "Running", "Broken"
REFUSED = Observation("", error=errors.RefusedError("no", status=400), response=Response(400, {}, b""))
FAILED = Observation(
    "", error=errors.ServerError("failed", status=502), response=Response(502, {}, b"<html>")
)
CUT = Observation("", error=errors.InterruptedCallError("cut"))


def failed_with(code: str) -> Observation:
    body = msgspec.json.encode({"resCode": code, "resMsg": "x"})
    return Observation("", error=errors.ServerError("failed", status=500), response=Response(500, {}, body))


def rows(*starts: str, **columns: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"002N{start}", "name": "P", "state": FULL, "startTime": start, **columns} for start in starts
    ]


def observed(result: Any) -> Observation:
    date = {"date": format_datetime(NOW, usegmt=True)}
    return Observation("asked -> answered", result, response=Response(200, date, b"{}"), at=NOW.timestamp())


def run_flow(
    plan: Any, answer: Callable[[Probe], Observation] = lambda probe: CUT
) -> tuple[dict[str, Finding], Any]:
    findings: dict[str, Finding] = {}

    def reply_to(step: Probe | Sleep | Finding) -> Observation | None:
        if isinstance(step, Probe):
            return answer(step)
        if isinstance(step, Finding):
            findings[step.name] = step
        return None

    return findings, drive(plan, reply_to)


def answer_always(answer: Observation, _probe: Probe) -> Observation:
    return answer


@pytest.mark.parametrize(
    ("answer", "knows_5xx", "expected"),
    [
        (observed([]), False, "answered"),
        (REFUSED, False, "refused"),
        (FAILED, False, "unclear"),
        (FAILED, True, "unclear"),
        (CUT, True, "unclear"),
        (failed_with("405230099"), False, "unclear"),
        (failed_with("405230099"), True, "refused"),
        (failed_with("0"), True, "unclear"),
        (Observation("", error=errors.ThrottledError("wait", status=429)), True, "unclear"),
        (Observation("", error=errors.AuthenticationError("token", status=401)), True, "unclear"),
    ],
)
def test_kind_of_an_answer(answer: Observation, knows_5xx: bool, expected: str) -> None:
    seen = replace(answer, refuses_with_5xx=knows_5xx)
    kinds = {"answered": seen.error is None, "refused": seen.is_refusal, "unclear": seen.is_unclear}
    assert [kind for kind, applies in kinds.items() if applies] == [expected]


@pytest.mark.parametrize(
    ("knows_5xx", "by_id", "variables", "extras"),
    [(False, None, None, {}), (True, "refused", "refused", {"instance_lookup": "list"})],
)
def test_5xx_is_a_refusal_of_a_read_by_id_if_the_endpoint_refuses_so(
    knows_5xx: bool, by_id: str | None, variables: str | None, extras: dict[str, Any]
) -> None:
    refused = replace(failed_with("405230099"), refuses_with_5xx=knows_5xx)
    (row,) = rows("1")

    def answer(probe: Probe) -> Observation:
        return observed([row]) if probe.operation.kind == "query" else refused

    findings, _ = run_flow(probe_queries.probe_by_id(row), answer)
    assert (findings["get_by_id"].value, findings["get_variables"].value) == (by_id, variables)
    assert recommended_extras(findings, SETTINGS) == extras


@pytest.mark.parametrize(
    "result", ["rows", 0, [1], [{}], [{"id": 7, "state": "Running"}], [{"id": "1", "state": None}]]
)
def test_result_without_rows_or_instance(result: Any) -> None:
    assert observed(result).rows is None
    assert observed(result).instance is None


@pytest.mark.parametrize("result", [None, {}, "", []])
def test_empty_results_are_empty_lists(result: Any) -> None:
    assert observed(result).rows == []


def test_row_without_a_state_is_skipped() -> None:
    known = {"id": "1", "state": "Running", "name": None}
    assert observed([{"id": "2", "state": None}, known, None]).rows == [known]


def test_evidence_line_is_short_and_has_no_body() -> None:
    target = "/instances?states=A%2CB&fields=" + "x" * 500 + "&orderField=startTime"
    line = observation.evidence_line(
        Request("GET", target, {}, b"secret"), "odd", None, errors.CallError("cut off"), None
    )
    assert line == "GET /instances?states=A%2CB&fields=…&orderField=startTime (odd) -> no answer: cut off"
    long = observation.evidence_line(
        Request("GET", "/" + "y" * 500, {}, None), "", Response(200, {}, b"[]"), None, [1]
    )
    assert long == f"GET /{'y' * (observation.MAX_TARGET_CHARACTERS - 1)}… -> HTTP 200, 1 row"


@pytest.mark.parametrize(
    ("empty_first", "full_first", "expected"),
    [
        (rows("1"), rows("1"), "honoured"),
        (rows("1"), [], "last only"),
        ([], rows("1"), "first only"),
        ([], [], "none"),
        (REFUSED, [], "refused"),
        (FAILED, [], None),
        ([], CUT, None),
        ({"rows": []}, [], None),
    ],
)
def test_several_states_in_one_request(empty_first: Any, full_first: Any, expected: str | None) -> None:
    known = StateLists({FULL: observed(rows("1")), EMPTY: observed([])})
    for name in ("states_with_commas", "states_repeated"):

        def answer(probe: Probe) -> Observation:
            is_full_first = probe.operation.query[0][1].startswith(FULL)
            result = full_first if is_full_first else empty_first
            return result if isinstance(result, Observation) else observed(result)

        _, finding = run_flow(probe_queries._probe_several_states(known, name), answer)
        assert (finding.name, finding.value) == (name, expected)


@pytest.mark.parametrize(
    ("with_blank", "plus", "unknown", "expected"),
    [
        (rows("1"), rows("1"), None, "yes"),
        (rows("1"), [], None, "no"),
        (rows("1"), REFUSED, None, "no"),
        ([], REFUSED, "empty", "no"),
        ([], [], "refused", "yes"),
        ([], [], "empty", None),
        ([], [], None, None),
        (rows("1"), FAILED, None, None),
        (CUT, rows("1"), None, None),
    ],
)
def test_plus_as_a_space(with_blank: Any, plus: Any, unknown: str | None, expected: str | None) -> None:
    state = probe_queries.STATES_WITH_BLANKS[0]
    with_blank, plus = (
        [{**row, "state": state} for row in each] if isinstance(each, list) else each
        for each in (with_blank, plus)
    )
    known = StateLists({state: with_blank if isinstance(with_blank, Observation) else observed(with_blank)})
    answer = plus if isinstance(plus, Observation) else observed(plus)
    asked: list[Probe] = []

    def reply(probe: Probe) -> Observation:
        asked.append(probe)
        return answer

    unknown_state = Finding("unknown_state", unknown, "", None)
    _, finding = run_flow(probe_queries._probe_plus(known, unknown_state), reply)
    assert (finding.name, finding.value) == ("plus", expected)
    assert asked[0].target == f"{asked[0].operation.path}?states={state.replace(' ', '+')}"


A, B, C = "2026-01-01 00:00:01", "2026-01-01 00:00:02", "2026-01-01 00:00:03"


@pytest.mark.parametrize(
    ("newest_first", "oldest_first", "again", "order", "cap"),
    [
        ((C, B, A), (A, B, C), None, "honoured", "none seen"),
        ((C, B), (A, B), (C, B), "honoured", 2),
        ((C,), (A,), (C,), "honoured", 1),
        ((C, B), (A, B), (B, C), "honoured", None),  # an instance changed its state
        ((C, B, A), (A, B), (C, B, A), "honoured", None),
        ((A, C, B), (A, C, B), None, "ignored", None),
        ((C, B, A), (C, B, A), None, "ignored", None),
        ((A, A), (A, A), None, None, None),
        ((A,), (A,), None, None, None),
    ],
)
def test_order_and_row_cap(
    newest_first: tuple[str, ...], oldest_first: tuple[str, ...], again: Any, order: str | None, cap: Any
) -> None:
    known = StateLists({FULL: observed(rows(*newest_first))})

    def answer(probe: Probe) -> Observation:
        return observed(rows(*(oldest_first if ("orderType", "asc") in probe.operation.query else again)))

    findings, _ = run_flow(probe_order.probe_order_and_cap(known, FULL), answer)
    assert (findings["order"].value, findings["row_cap"].value) == (order, cap)


def unordered(number: int) -> list[dict[str, Any]]:
    """Return rows with equal start times, so that their order is no evidence."""
    return [{**rows(A)[0], "id": f"002N{each}"} for each in range(number)]


@pytest.mark.parametrize("number", [3, 37, 99, 100])
@pytest.mark.parametrize(
    ("of_longer", "cap", "words"),
    [
        (lambda all_rows: (all_rows, all_rows), None, "its order does not prove that these are all"),
        (lambda all_rows: (all_rows, all_rows[::-1]), None, "its order does not prove that these are all"),
        (
            lambda all_rows: (all_rows[1:], all_rows[:-1]),
            -1,
            "the newest and the oldest instances in 'Broken'",
        ),
        (lambda all_rows: (all_rows, all_rows[1:]), None, "instances changed their states between two lists"),
        (lambda all_rows: (all_rows, CUT), None, "cut"),
    ],
)
def test_row_cap_is_concluded_from_both_ends_of_the_longest_lists(
    number: int, of_longer: Any, cap: Any, words: str
) -> None:
    newest, oldest = of_longer(unordered(number))
    known = StateLists({FULL: observed(rows(B, A)), EMPTY: observed(newest)})

    def answer(probe: Probe) -> Observation:
        is_longer, is_oldest = (
            EMPTY in probe.operation.query[0],
            ("orderType", "asc") in probe.operation.query,
        )
        if is_longer:
            return (
                (oldest if isinstance(oldest, Observation) else observed(oldest))
                if is_oldest
                else observed(newest)
            )
        return observed(rows(A, B))

    findings, _ = run_flow(probe_order.probe_order_and_cap(known, FULL), answer)
    assert findings["order"].value == "honoured"
    assert findings["row_cap"].value == (cap and number + cap)
    assert findings["row_cap"].fine is (None if cap is None else False)
    assert words in findings["row_cap"].sentence
    assert (known.row_cap, known.max_rows) == (cap and number + cap, len(newest))


def test_order_is_unknown_if_start_times_are_not_sortable() -> None:
    for starts in (("01.02.2026", "02.02.2026"), ("-", "2026-01-01 00:00:01"), ("9", "10")):
        known = StateLists({FULL: observed(rows(*starts))})
        reverse = observed(rows(*starts[::-1]))
        findings, _ = run_flow(probe_order.probe_order_and_cap(known, FULL), partial(answer_always, reverse))
        assert (findings["order"].value, findings["row_cap"].value) == (None, None)


@pytest.mark.parametrize(
    ("starts", "value"),
    [
        ("54321", "newest first"),
        ("12345", "oldest first"),
        ("1234", None),  # possibly by chance
        ("4321", None),
        ("132", "other"),
        ("11111", None),
    ],
)
def test_order_of_a_list_requested_without_an_order(starts: str, value: str | None) -> None:
    stamps = [f"2026-01-01 00:00:0{second}" for second in starts]
    assert probe_order.own_order_finding(observed(rows(*stamps))).value == value


@pytest.mark.parametrize(
    ("before", "with_new", "after", "cap"),
    [
        ("abc", "abcN", "abc", None),  # the list grew
        ("abc", "Nab", "abc", 3),
        ("abc", "Nab", "Nab", None),  # the displaced instance did not come back
        ("abc", "Nab", "abcd", None),
        ("abc", "Nabd", "abc", None),  # the list grew, though one instance left
        ("", "N", "", None),
    ],
)
def test_row_cap_is_known_if_a_new_instance_displaces_another(
    before: str, with_new: str, after: str, cap: int | None
) -> None:
    def listed(ids: str) -> Observation:
        return observed([{"id": each, "state": FULL} for each in ids])

    known = StateLists({FULL: listed(before)})
    displacement = probe_order.find_displacement(known, {"id": "N", "state": FULL}, listed(with_new))
    assert known.max_rows == max(len(before), len(with_new))
    findings, _ = run_flow(probe_order.probe_displacement(known, displacement), lambda _: listed(after))
    assert {name: finding.value for name, finding in findings.items()} == ({"row_cap": cap} if cap else {})
    assert known.row_cap == cap


@pytest.mark.parametrize(
    ("start", "zone", "offset", "fine", "extra"),
    [
        ("2026-01-31 20:00:01", None, 0, True, "Etc/UTC"),
        ("2026-02-01 04:00:01", None, 8, True, "Etc/GMT-8"),
        ("2026-01-31 13:00:00", None, -7, True, "Etc/GMT+7"),
        ("2026-02-01 01:30:00", None, 5.5, True, None),  # no fixed zone has this offset
        ("2026-02-01 04:00:01", "Asia/Shanghai", 8, True, "Asia/Shanghai"),
        ("2026-02-01 04:00:01", "Europe/Berlin", 8, False, "Etc/GMT-8"),
        (
            "2026-01-31 20:05:00",
            None,
            None,
            None,
            None,
        ),  # a wrong clock, or a nonexistent zone
        ("2026-02-02 20:00:00", None, None, None, None),
        ("31.01.2026", None, None, None, None),
        ("", None, None, None, None),
    ],
)
def test_timezone_from_the_start_time(
    start: str, zone: str | None, offset: float | None, fine: bool | None, extra: str | None
) -> None:
    settings = replace(SETTINGS, timezone=ZoneInfo(zone) if zone else None)
    finding = timestamp_findings.timezone_finding({"startTime": start}, observed({}), settings)
    assert (finding.value, finding.fine) == (offset, fine)
    extras = recommended_extras({"timezone": finding}, settings)
    assert extras.get("timezone") == extra
    if extra is not None and offset is not None:
        there = NOW.astimezone(EXTRAS["timezone"](extra, "timezone"))  # type: ignore[arg-type]
        assert there.utcoffset() == (NOW.astimezone(timezone.utc) - NOW) + _hours(offset)


def _hours(number: float) -> Any:
    return datetime.fromtimestamp(number * 3600, timezone.utc) - datetime.fromtimestamp(0, timezone.utc)


@pytest.mark.parametrize(
    ("values", "extras"),
    [
        ({}, {}),
        ({"get_by_id": "action"}, {"instance_lookup": "auto"}),
        ({"get_by_id": "row"}, {"instance_lookup": "auto"}),
        ({"get_by_id": "absent"}, {"instance_lookup": "list"}),
        ({"get_by_id": "not allowed"}, {"instance_lookup": "list"}),
        ({"get_by_id": "other"}, {"instance_lookup": "list"}),
        ({"get_by_id": None, "csrf": None, "timezone": None, "start_lag": None}, {}),
        ({"csrf": "needed"}, {"csrf": True}),
        ({"csrf": "not needed"}, {"csrf": False}),
        ({"start_lag": 0.3}, {}),
        ({"start_lag": 30}, {}),
        ({"start_lag": 31.2}, {"start_grace": 63}),
    ],
)
def test_recommended_extras(values: dict[str, Any], extras: dict[str, Any]) -> None:
    findings = {
        name: Finding(name, value, "", None if value is None else True) for name, value in values.items()
    }
    assert recommended_extras(findings, SETTINGS) == extras
    for name, value in extras.items():
        EXTRAS[name](value, name)  # raises if the connection does not accept the value


def test_newest_instance_bounds_the_timezone() -> None:
    finding = probe_lists._newest_finding(StateLists({FULL: observed(rows("2026-02-01 03:50:00"))}))
    assert finding.value is None
    assert "7:50:00 ahead of UTC, so the zone is at least that far east" in finding.sentence
    far = probe_lists._newest_finding(StateLists({FULL: observed(rows("2026-02-01 12:00:00"))}))
    assert "16:00:00 ahead of UTC, and no zone is so far east" in far.sentence
    odd = probe_lists._newest_finding(StateLists({FULL: observed(rows("1.2.2026"))}))
    assert "the lists show '1.2.2026' instead of the documented timestamp format" in odd.sentence
    assert (
        "ahead"
        not in probe_lists._newest_finding(StateLists({FULL: observed(rows("2026-01-31 20:00:05"))})).sentence
    )


def test_text_and_json_have_the_same_findings_and_the_text_wraps() -> None:
    report = Report("my_conn", "https://somewhere", "P", signed_in=True, extras={"csrf": True}, requests=3)
    report.findings = {name: Finding(name, "x", "word " * 60, None) for name in sorted(DESCRIPTIONS)}
    report.started = [SentStart("k1", "002N1", end="Terminated"), SentStart("k2", "002N2", problem="refused")]
    as_json = msgspec.json.decode(report.as_json())
    assert [finding["name"] for finding in as_json["points"]] == list(DESCRIPTIONS)
    assert [each["id"] for each in as_json["not_terminated"]] == ["002N2"]
    assert as_json["extras"] == report.extras
    text = report.as_text()
    assert max(map(len, text.splitlines())) <= 110
    assert "Started and ended: instance 002N1 with business key 'k1' (Terminated)" in text
    assert "python -m airflow_provider_astrobpm terminate 002N2 --conn-id my_conn" in text
    assert text.endswith('{"csrf": true}')


def test_start_is_recorded_before_it_is_sent_and_removed_if_it_was_not_sent() -> None:
    started = StartedInstances("P")
    plan = probe_start._start(started, "key", csrf=False, with_variable=True)
    next(plan)
    assert [str(start) for start in started.starts] == ["an instance with business key 'key'"]
    with pytest.raises(StopIteration):
        plan.send(Observation("", error=errors.NotSentError("not reached")))
    assert started.starts == []


@pytest.mark.parametrize("is_there", [False, True])
def test_refused_start_is_removed_only_if_the_lists_show_no_instance(is_there: bool) -> None:
    started = StartedInstances("P")
    start, _ = run_flow(
        probe_start._start(started, KEY, csrf=False, with_variable=True),
        lambda _: REFUSED,
    )[1]
    assert started.starts == [start]
    row = {"id": "002N1", "name": "P", "state": FULL, "businessKey": KEY}

    def answer(probe: Probe) -> Observation:
        if probe.operation.kind == "terminate":
            return observed({**row, "state": "Terminated"})
        return observed([row] if is_there and FULL in probe.operation.query[0] else [])

    run_flow(terminate_all(started), answer)
    assert [each.end for each in started.starts] == (["Terminated"] if is_there else [])
    assert not is_there or str(start).endswith(f"with business key {KEY!r}, though its start was refused")


TOKEN_REFUSED = Observation(
    "read",
    error=errors.AuthenticationError("no", status=401),
    response=Response(401, {}, msgspec.json.encode({"resCode": "405230602", "resMsg": "no"})),
)


@pytest.mark.parametrize(
    ("answer", "shows_at", "value", "left"),
    [
        (TOKEN_REFUSED, None, "not started", 0),
        (TOKEN_REFUSED, 1, "started", 0),
        (TOKEN_REFUSED, 2, "started", 0),
        (FAILED, None, None, 1),  # searched for again at the end of the run
        (FAILED, 1, "started", 0),
        (CUT, None, None, 1),
        (REFUSED, None, None, 1),  # refused for another reason
        (Observation("", error=errors.NotSentError("not reached")), None, None, 0),
        (Observation("", error=errors.ThrottledError("wait", status=429)), None, None, 1),
        (observed({"id": "002N2", "state": FULL}), None, "started", 0),
        (observed({"id": "002N2", "state": FULL}), 1, "started", 0),
        (observed("taken"), None, None, 1),
    ],
)
def test_start_whose_token_is_refused(
    answer: Observation, shows_at: int | None, value: str | None, left: int
) -> None:
    first_key = make_key("ba9876543210")
    started = StartedInstances("P", starts=[SentStart(first_key, "002N1", end="Terminated")])
    first = {"id": "002N1", "state": FULL, "businessKey": "002N1", "title": title_for(first_key)}
    row = {"id": "002N2", "state": FULL, "businessKey": KEY}
    polls = 0
    sent: list[Probe] = []

    def reply(probe: Probe) -> Observation:
        nonlocal polls
        sent.append(probe)
        if probe.operation.kind == "start":
            return answer
        if probe.operation.kind == "terminate":
            return observed({**row, "state": "Terminated"})
        if probe.token is not None:
            return TOKEN_REFUSED
        polls += probe.operation.query[0][1] == FULL
        shown = shows_at is not None and polls >= shows_at and probe.operation.query[0][1] == FULL
        return observed([row] if shown else [])

    before = StateLists({FULL: observed([])})
    known = probe_refused_start.ListBehaviour(before, first, 3.0, newest_first=True)
    findings, _ = run_flow(probe_refused_start.probe_refused_start(started, KEY, known), reply)
    finding = findings["refused_token_start"]
    assert (finding.value, finding.fine) == (value, None if value is None else value == "not started")
    assert len(started.not_ended()) == left
    assert [probe.token is not None for probe in sent if probe.operation.kind == "start"] == [True]


@pytest.mark.parametrize(
    ("shows_first", "newest_first", "rows_before", "longest", "sends"),
    [
        (True, True, 37, 37, True),
        (True, False, 37, 38, True),  # a list was longer before, so one more row would show
        (True, False, 37, 37, False),
        (False, True, 0, 1, False),
        (None, True, 0, 1, False),
    ],
)
def test_start_with_a_wrong_token_is_sent_only_if_its_instance_would_show(
    shows_first: bool | None, newest_first: bool, rows_before: int, longest: int, sends: bool
) -> None:
    started = StartedInstances("P", starts=[SentStart(KEY, "002N-own", end="Terminated")])
    first = {"id": "002N-own", "state": FULL, "businessKey": KEY if shows_first else "002N-own"}
    before = StateLists({FULL: observed(unordered(rows_before))})
    before.max_rows = longest
    known = probe_refused_start.ListBehaviour(
        before, None if shows_first is None else first, 0, newest_first=newest_first
    )
    plan = probe_refused_start.probe_refused_start(started, make_key("ba9876543210"), known)
    assert isinstance(next(plan), Probe) is sends
    assert len(started.starts) == 1
