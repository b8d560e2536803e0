"""What is concluded from which answers, without a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from email.utils import format_datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from airflow_provider_astrobpm.bpm import errors
from airflow_provider_astrobpm.bpm.api import Pause
from airflow_provider_astrobpm.bpm.exchange import Request, Response
from airflow_provider_astrobpm.bpm.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.doctor import asking, lists, queries, starting
from airflow_provider_astrobpm.doctor.asking import Ask, Seen, Verdict
from airflow_provider_astrobpm.doctor.extras import extras_for
from airflow_provider_astrobpm.doctor.lists import Lists
from airflow_provider_astrobpm.doctor.own import Own, Started
from airflow_provider_astrobpm.doctor.points import ABOUT, Point
from airflow_provider_astrobpm.doctor.report import Report
from airflow_provider_astrobpm.hooks.connection import EXTRAS

NOW = datetime(2026, 1, 31, 20, 0, 0, tzinfo=timezone.utc)
SETTINGS = Settings("my_conn", "https://somewhere", ClientCredentials("id", "secret"))
FULL, EMPTY = "Running", "Broken"
REFUSED = Seen("", error=errors.RefusedError("no", status=400), response=Response(400, {}, b""))
FAILED = Seen("", error=errors.ServerError("failed", status=502), response=Response(502, {}, b"<html>"))
CUT = Seen("", error=errors.InterruptedCallError("cut"))


def failed_with(code: str) -> Seen:
    body = msgspec.json.encode({"resCode": code, "resMsg": "x"})
    return Seen("", error=errors.ServerError("failed", status=500), response=Response(500, {}, body))


def rows(*starts: str, **columns: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"002N{start}", "name": "P", "state": FULL, "startTime": start, **columns} for start in starts
    ]


def seen(result: Any) -> Seen:
    date = {"date": format_datetime(NOW, usegmt=True)}
    return Seen("asked -> answered", result, response=Response(200, date, b"{}"), at=NOW.timestamp())


def play(plan: Any, answer: Callable[[Ask], Seen] = lambda ask: CUT) -> tuple[dict[str, Point], Any]:
    points: dict[str, Point] = {}
    reply = None
    try:
        while True:
            step = plan.send(reply)
            reply = None
            if isinstance(step, Ask):
                reply = answer(step)
            elif not isinstance(step, Pause):
                points[step.name] = step
    except StopIteration as stop:
        return points, stop.value


@pytest.mark.parametrize(
    ("answer", "knows_5xx", "expected"),
    [
        (seen([]), False, Verdict.ANSWERED),
        (REFUSED, False, Verdict.REFUSED),
        (FAILED, False, Verdict.UNCLEAR),
        (FAILED, True, Verdict.UNCLEAR),
        (CUT, True, Verdict.UNCLEAR),
        (failed_with("405230099"), False, Verdict.UNCLEAR),
        (failed_with("405230099"), True, Verdict.REFUSED),
        (failed_with("0"), True, Verdict.UNCLEAR),
        (Seen("", error=errors.ThrottledError("wait", status=429)), True, Verdict.UNCLEAR),
        (Seen("", error=errors.AuthenticationError("token", status=401)), True, Verdict.UNCLEAR),
    ],
)
def test_what_an_answer_means(answer: Seen, knows_5xx: bool, expected: Verdict) -> None:
    assert asking.verdict(answer, refuses_with_5xx=knows_5xx) is expected


@pytest.mark.parametrize(
    "result", ["rows", 0, [1], [{}], [{"id": 7, "state": "Running"}], [{"id": "1", "state": None}]]
)
def test_what_is_no_list_of_instances(result: Any) -> None:
    assert asking.rows_of(seen(result)) is None
    assert asking.instance_of(seen(result)) is None


@pytest.mark.parametrize("result", [None, {}, "", []])
def test_an_empty_list(result: Any) -> None:
    assert asking.rows_of(seen(result)) == []


def test_a_row_that_shows_no_state_hides_no_other() -> None:
    known = {"id": "1", "state": "Running", "name": None}
    assert asking.rows_of(seen([{"id": "2", "state": None}, known, None])) == [known]


def test_a_line_of_evidence_is_short_and_holds_no_body() -> None:
    target = "/instances?states=A%2CB&fields=" + "x" * 500 + "&orderField=startTime"
    line = asking.evidence(
        Request("GET", target, {}, b"secret"), "odd", None, errors.CallError("cut off"), None
    )
    assert line == "GET /instances?states=A%2CB&fields=…&orderField=startTime (odd) -> no answer: cut off"
    long = asking.evidence(Request("GET", "/" + "y" * 500, {}, None), "", Response(200, {}, b"[]"), None, [1])
    assert long == f"GET /{'y' * (asking.LONGEST_TARGET - 1)}… -> HTTP 200, 1 row"


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
def test_several_states(empty_first: Any, full_first: Any, expected: str | None) -> None:
    known = Lists({FULL: seen(rows("1")), EMPTY: seen([])})
    for name in ("states_with_commas", "states_repeated"):

        def answer(ask: Ask) -> Seen:
            is_full_first = ask.operation.query[0][1].startswith(FULL)
            result = full_first if is_full_first else empty_first
            return result if isinstance(result, Seen) else seen(result)

        points, _ = play(queries._several_states(known, name, refuses_with_5xx=False), answer)
        assert points[name].value == expected


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
def test_plus(with_blank: Any, plus: Any, unknown: str | None, expected: str | None) -> None:
    state = queries.STATES_WITH_BLANKS[0]
    known = Lists({state: with_blank if isinstance(with_blank, Seen) else seen(with_blank)})
    answer = plus if isinstance(plus, Seen) else seen(plus)
    asked: list[Ask] = []

    def reply(ask: Ask) -> Seen:
        asked.append(ask)
        return answer

    points, _ = play(queries._plus(known, unknown, refuses_with_5xx=False), reply)
    assert points["plus"].value == expected
    assert asked[0].target == f"{asked[0].operation.path}?states={state.replace(' ', '+')}"


A, B, C = "2026-01-01 00:00:01", "2026-01-01 00:00:02", "2026-01-01 00:00:03"


@pytest.mark.parametrize(
    ("newest_first", "oldest_first", "again", "order", "cap"),
    [
        ((C, B, A), (A, B, C), None, "honoured", "none seen"),
        ((C, B), (A, B), (C, B), "honoured", 2),
        ((C,), (A,), (C,), "honoured", 1),
        ((C, B), (A, B), (B, C), "honoured", None),  # something moved
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
    known = Lists({FULL: seen(rows(*newest_first))})

    def answer(ask: Ask) -> Seen:
        return seen(rows(*(oldest_first if ("orderType", "asc") in ask.operation.query else again)))

    points, _ = play(lists._order_and_cap(known, FULL), answer)
    assert (points["order"].value, points["row_cap"].value) == (order, cap)


def test_a_list_as_long_as_servers_cut_lists_off_is_suspicious() -> None:
    known = Lists({FULL: seen(rows(A, B)), EMPTY: seen(rows(*[A] * 100))})
    points, _ = play(lists._order_and_cap(known, FULL), lambda _: seen(rows(B, A)))
    assert points["row_cap"].value is None
    assert "exactly 100 rows, which looks cut off" in points["row_cap"].seen


@pytest.mark.parametrize(
    ("start", "zone", "offset", "fine", "extra"),
    [
        ("2026-01-31 20:00:01", None, 0, True, "Etc/UTC"),
        ("2026-02-01 04:00:01", None, 8, True, "Etc/GMT-8"),
        ("2026-01-31 13:00:00", None, -7, True, "Etc/GMT+7"),
        ("2026-02-01 01:30:00", None, 5.5, True, None),  # no zone has a name for that alone
        ("2026-02-01 04:00:01", "Asia/Shanghai", 8, True, "Asia/Shanghai"),
        ("2026-02-01 04:00:01", "Europe/Berlin", 8, False, "Etc/GMT-8"),
        (
            "2026-01-31 20:05:00",
            None,
            None,
            None,
            None,
        ),  # a clock that is wrong, or a zone that does not exist
        ("2026-02-02 20:00:00", None, None, None, None),
        ("31.01.2026", None, None, None, None),
        ("", None, None, None, None),
    ],
)
def test_the_zone_of_the_timestamps(
    start: str, zone: str | None, offset: float | None, fine: bool | None, extra: str | None
) -> None:
    settings = replace(SETTINGS, timezone=ZoneInfo(zone) if zone else None)
    point = starting._timezone({"startTime": start}, seen({}), settings)
    assert (point.value, point.fine) == (offset, fine)
    extras = extras_for({"timezone": point}, settings)
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
def test_the_extras_that_follow(values: dict[str, Any], extras: dict[str, Any]) -> None:
    points = {name: Point(name, value, "", None if value is None else True) for name, value in values.items()}
    assert extras_for(points, SETTINGS) == extras
    for name, value in extras.items():
        EXTRAS[name](value, name)  # what the connection does not take it refuses


def test_the_newest_instance_says_how_far_east_the_zone_is_at_least() -> None:
    point = lists._newest(Lists({FULL: seen(rows("2026-02-01 03:50:00"))}))
    assert point.value is None
    assert "7:50:00 ahead of UTC, so the zone is at least that far east" in point.seen
    assert "ahead" not in lists._newest(Lists({FULL: seen(rows("2026-01-31 20:00:05"))})).seen


def test_the_text_and_the_json_hold_the_same_and_the_text_wraps() -> None:
    report = Report("my_conn", "https://somewhere", "P", signed_in=True, extras={"csrf": True}, requests=3)
    report.points = {name: Point(name, "x", "word " * 60, None) for name in sorted(ABOUT)}
    report.started = [Started("k1", "002N1", end="Terminated"), Started("k2", "002N2", problem="refused")]
    as_json = msgspec.json.decode(report.as_json())
    assert [point["name"] for point in as_json["points"]] == list(ABOUT)
    assert [each["id"] for each in as_json["not_terminated"]] == ["002N2"]
    assert as_json["extras"] == report.extras
    text = report.as_text()
    assert max(map(len, text.splitlines())) <= 110
    assert "Started and ended: instance 002N1 with business key 'k1' (Terminated)" in text
    assert "python -m airflow_provider_astrobpm terminate 002N2 --conn-id my_conn" in text
    assert text.endswith('{"csrf": true}')


def test_a_start_is_written_down_before_it_is_sent_and_crossed_out_when_it_was_refused() -> None:
    own = Own("P")
    plan = starting._start(own, "key", csrf=False, with_variable=True)
    next(plan)
    assert [str(start) for start in own.starts] == ["an instance with business key 'key'"]
    with pytest.raises(StopIteration):
        plan.send(REFUSED)
    assert own.starts == []
