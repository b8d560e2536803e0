"""Replays: which request gets which recorded answer, and how a difference is reported."""

from __future__ import annotations

import gzip
import json
import shlex
import signal
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_astrobpm.client.settings import Settings, StaticToken
from airflow_provider_astrobpm.client.transcript import heading
from airflow_provider_astrobpm.emulator import EmulatorServer
from airflow_provider_astrobpm.emulator.__main__ import main
from airflow_provider_astrobpm.emulator.refusals import ResultCode
from airflow_provider_astrobpm.emulator.replay import Played, Replay
from airflow_provider_astrobpm.emulator.transcript_reader import EXTRAS, TranscriptError, read_transcript
from tests.emulator.conftest import CREDENTIALS, INSTANCES, TOKEN

AT = datetime(2026, 11, 24, 10, 0, tzinfo=timezone.utc)
NOW = AT + timedelta(days=10)
HEADING = {"transcript": 1, "provider": "0.1.0", "extras": {}}


def entry(
    method: str,
    target: str,
    body: Any = None,
    *,
    answer: Any = None,
    status: int = 200,
    failure: str | None = None,
    second: int = 0,
    media: str = "application/json",
    **headers: str,
) -> dict[str, Any]:
    request = {"method": method, "target": target, "content_type": "application/json"}
    if body is not None:
        request["body"] = body
    shown = {"content-type": media, **{name.replace("_", "-"): value for name, value in headers.items()}}
    given = answer if isinstance(answer, dict) and "omitted" in answer else {"body": answer}
    end = {"failure": failure} if failure else {"answer": {"status": status, "headers": shown, **given}}
    return {"at": (AT + timedelta(seconds=second)).isoformat(), "seconds": 0.1, "request": request, **end}


def written(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in (HEADING, *entries)))
    return path


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def replay_of(tmp_path: Path, said: list[str]) -> Any:
    def replay_of(*entries: dict[str, Any]) -> Replay:
        return Replay(read_transcript(written(tmp_path / "t.jsonl", *entries)), said.append)

    return replay_of


def play(replay: Replay, method: str, target: str, body: Any = None) -> Played:
    raw = b"" if body is None else json.dumps(body).encode()
    return replay.play(method, target, "application/json", raw, NOW)


def answered(replay: Replay, method: str, target: str, body: Any = None) -> Any:
    response = play(replay, method, target, body).response
    assert response is not None
    return json.loads(response.body)


START = {
    "name": "~Qbc",
    "variables": {"~xy": "~Zz", "~ab": {"~": 7}, "$Flow.BusinessKey": "~k-1", "~no": None},
}
VARIABLES: dict[str, Any] = {"who": "Me", "count": 1.5, "$Flow.BusinessKey": "key-1", "null": None}
SENT: dict[str, Any] = {"name": "Mine", "variables": VARIABLES}


def test_stand_ins_take_the_values_that_the_client_sends(replay_of: Any) -> None:
    row = {
        "id": "~9X",
        "name": "~Qbc",
        "businessKey": "~k-1",
        "state": "Running",
        "title": "~Zz",
        "x": {"~": 3},
    }
    replay = replay_of(entry("POST", INSTANCES, START, answer=row))
    assert answered(replay, "POST", INSTANCES, SENT) == {
        "id": "9X", "name": "Mine", "businessKey": "key-1", "state": "Running", "title": "Me", "x": 3
    }  # fmt: skip
    assert replay.summary() == ["Recorded exchanges that were used: 1 of 1. Requests that differed: 0."]


@pytest.mark.parametrize(
    ("shown", "value"),
    [
        ("~k-1", "key-1"),
        ("~k-", "ke"),
        ("~k-1   ", "key-1 "),
        ("~K-1", "KEY-1"),
        ("~other", "other"),
        ("", ""),
        (None, None),
    ],
)
def test_keys_that_the_server_has_changed(shown: str | None, value: str | None, replay_of: Any) -> None:
    replay = replay_of(entry("POST", INSTANCES, START, answer={"businessKey": shown}))
    assert answered(replay, "POST", INSTANCES, SENT)["businessKey"] == value


def test_requests_of_one_form_are_answered_in_order_and_others_in_any(replay_of: Any) -> None:
    replay = replay_of(
        entry("GET", f"{INSTANCES}?states=Running", answer=1),
        entry("GET", f"{INSTANCES}?states=Broken", answer=2),
        entry("GET", f"{INSTANCES}?states=Running", answer=3),
    )
    targets = [f"{INSTANCES}?states={state}" for state in ("Running", "Running", "Broken")]
    assert [answered(replay, "GET", target) for target in targets] == [1, 3, 2]


def test_several_instances_are_told_apart_by_what_was_shown(replay_of: Any) -> None:
    replay = replay_of(
        entry("GET", f"{INSTANCES}?states=Running", answer=[{"id": "~1A"}, {"id": "~2B"}]),
        entry("GET", f"{INSTANCES}/~1A", answer=1),
        entry("GET", f"{INSTANCES}/~2B", answer=2),
        entry("GET", f"{INSTANCES}/~1A", answer=3),
    )
    answered(replay, "GET", f"{INSTANCES}?states=Running")
    assert [answered(replay, "GET", f"{INSTANCES}/{id_}") for id_ in ("2B", "1A", "1A")] == [2, 1, 3]


def test_a_name_that_was_only_shown_so_far_may_still_get_its_value(replay_of: Any) -> None:
    replay = replay_of(
        entry("GET", f"{INSTANCES}?states=Running", answer=[{"name": "~Qbc"}]),
        entry("POST", INSTANCES, START, answer={"name": "~Qbc"}),
    )
    assert answered(replay, "GET", f"{INSTANCES}?states=Running") == [{"name": "Qbc"}]
    assert answered(replay, "POST", INSTANCES, SENT) == {"name": "Mine"}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({**SENT, "name": 7}, "body.name is a number; the transcript has text"),
        ({**SENT, "version": "1"}, "body has 1 field too many: 1 of your own (version), where the transcript has none"),
        ({"name": "Mine"}, "body has no 'variables'; the transcript has one"),
        (
            {**SENT, "variables": {"$Flow.BusinessKey": "key-1", "who": "Me"}},
            "body.variables has 2 fields too few: 1 of your own (who), where the transcript has 3",
        ),
        (
            {**SENT, "variables": {"$Flow.BusinessKey": "key-1"}},
            "body.variables has 3 fields too few: none of your own, where the transcript has 3",
        ),
        (
            {**SENT, "variables": {**VARIABLES, **dict.fromkeys("abcdefgh", 1)}},
            "body.variables has 8 fields too many: 11 of your own (who, count, null, a, b, c, d, e, f, g, …), where the",
        ),
        ({**SENT, "variables": {**VARIABLES, "count": "1.5"}}, "body.variables.count is text; the transcript has a number"),
        ({**SENT, "variables": {**VARIABLES, "null": ""}}, "body.variables.null is text; the transcript has null"),
        ([], "body is a list; the transcript has an object"),
    ],
)  # fmt: skip
def test_a_body_that_differs_is_reported_with_its_place(
    body: Any, why: str, replay_of: Any, said: list[str]
) -> None:
    replay = replay_of(entry("POST", INSTANCES, START))
    answer = answered(replay, "POST", INSTANCES, body)
    (message,) = replay.differences
    assert message.startswith(f"POST {INSTANCES} differs from t.jsonl line 2 (POST {INSTANCES}): {why}")
    assert answer["resMsg"] == f"Replay: {message}"
    assert said == [f"Differs: {message}"]
    assert len(replay.unused()) == 1


def test_a_value_must_stay_the_same(replay_of: Any) -> None:
    twice = {**START, "name": "~Other"}
    replay = replay_of(entry("POST", INSTANCES, START, answer=1), entry("POST", INSTANCES, twice, answer=2))
    answered(replay, "POST", INSTANCES, SENT)
    variables = {**VARIABLES, "$Flow.BusinessKey": "key-2"}
    answered(replay, "POST", INSTANCES, {"name": "Theirs", "variables": variables})
    (message,) = replay.differences
    assert message.endswith(
        "body.variables.$Flow.BusinessKey is 'key-2', and the same stand-in '~k-1' was 'key-1' before"
    )


@pytest.mark.parametrize(
    ("method", "target"), [("PUT", f"{INSTANCES}/x"), ("GET", f"{INSTANCES}?states=Paused"), ("GET", "/x")]
)
def test_another_request_is_reported_with_the_next_expected_one(
    method: str, target: str, replay_of: Any
) -> None:
    replay = replay_of(entry("GET", f"{INSTANCES}?states=Running"), entry("POST", INSTANCES, START))
    answered(replay, method, target)
    assert replay.differences == [
        f"{method} {target} came where t.jsonl line 2 (GET {INSTANCES}?states=Running) was expected"
    ]
    assert replay.summary() == [
        "Recorded exchanges that were used: 0 of 2. Requests that differed: 1.",
        f"The first that was not used: t.jsonl line 2 (GET {INSTANCES}?states=Running)",
    ]


def test_a_request_too_many_is_reported(replay_of: Any) -> None:
    replay = replay_of(entry("GET", INSTANCES, answer=1))
    assert answered(replay, "GET", INSTANCES) == 1
    answered(replay, "GET", INSTANCES)
    assert replay.differences == [f"GET {INSTANCES} came after all recorded exchanges were used"]
    replay.rewind()
    assert answered(replay, "GET", INSTANCES) == 1
    assert replay.differences == []


def test_tokens_that_were_not_recorded_are_issued(replay_of: Any) -> None:
    replay = replay_of(entry("GET", INSTANCES, answer=1))
    assert answered(replay, "POST", TOKEN)["access_token"] == "replay-token-1"
    assert answered(replay, "POST", "/u-route/baas/sys/v1.0/csrf/get")["result"] == "replay-token-2"
    assert replay.differences == []


def test_reading_by_id_is_refused_if_the_recorded_process_never_tried_it(replay_of: Any) -> None:
    replay = replay_of(entry("GET", f"{INSTANCES}?states=Running", answer=1))
    response = play(replay, "GET", f"{INSTANCES}/9X").response
    assert response is not None
    assert (response.status, json.loads(response.body)["resCode"]) == (404, ResultCode.NO_SUCH_API)
    assert replay.differences == []
    for method, target in (("PUT", "9X"), ("GET", "9X/variables"), ("GET", "9X?a=1")):
        answered(replay, method, f"{INSTANCES}/{target}")
    assert len(replay.differences) == 3


def test_reading_by_id_once_more_than_recorded_is_reported(replay_of: Any) -> None:
    replay = replay_of(entry("GET", f"{INSTANCES}/~9X", answer=1))
    assert answered(replay, "GET", f"{INSTANCES}/9X") == 1
    answered(replay, "GET", f"{INSTANCES}/9X")
    assert replay.differences == [f"GET {INSTANCES}/9X came after all recorded exchanges were used"]


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ("2026-11-24 09:59:00", "2026-12-04 09:59:00"),
        (" 2026/11/24 18:00:00", " 2026/12/04 18:00:00"),
        ("0001-01-01 00:00:00", "0001-01-01 00:00:00"),
        ("2026-13-24 10:00:00", "2026-13-24 10:00:00"),
        ("-", "-"),
    ],
)
def test_timestamps_are_as_long_ago_as_they_were(recorded: str, shown: str, replay_of: Any) -> None:
    replay = replay_of(
        entry("GET", INSTANCES, answer={"startTime": recorded}),
        entry("GET", INSTANCES, answer={"startTime": recorded}, second=60),
    )
    assert [answered(replay, "GET", INSTANCES)["startTime"] for _ in range(2)] == [shown, shown]


@pytest.mark.parametrize(
    ("form", "begins"), [("html", b"<html>"), ("broken JSON", b"{"), ("text", b"a"), ("blank", b" ")]
)
def test_what_was_no_json_has_its_form_and_length(form: str, begins: bytes, replay_of: Any) -> None:
    omitted = {"omitted": {"form": form, "bytes": 3000}}
    replay = replay_of(
        entry("GET", INSTANCES, answer=omitted, status=502, media="text/html; charset=utf-8", retry_after="7")
    )
    response = play(replay, "GET", INSTANCES).response
    assert response is not None
    assert (response.status, response.content_type) == (502, "text/html; charset=utf-8")
    assert (response.headers, len(response.body)) == ({"Retry-After": "7"}, 3000)
    assert response.body.startswith(begins)
    with pytest.raises(ValueError):  # noqa: PT011 - any error of the parser
        json.loads(response.body)


def test_a_header_that_cannot_be_sent_is_made_sendable(replay_of: Any) -> None:
    odd = "~a\r\nb\ud800c"
    replay = replay_of(entry("GET", INSTANCES, answer=1, media=odd, retry_after=odd))
    response = play(replay, "GET", INSTANCES).response
    assert response is not None
    assert (response.content_type, response.headers) == ("a??b?c", {"Retry-After": "a??b?c"})


@pytest.mark.parametrize(
    "change",
    [
        {"at": "2026-11-24"},
        {"at": "2026-11-24T10:00:00"},
        {"request": {"method": "GET"}},
        {"request": {"method": "GET", "target": 7}},
        {"answer": []},
        {"answer": {"status": "200", "headers": {}}},
        {"answer": {"status": 7, "headers": {}}},
        {"answer": {"status": 200, "headers": {"retry-after": 7}}},
        {"answer": {"status": 200, "headers": {}, "omitted": {"form": "html", "bytes": 10**10}}},
        {"answer": {"status": 200, "headers": {}, "omitted": {"form": "unknown", "bytes": 1}}},
    ],
)
def test_a_damaged_entry_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", {**entry("GET", "/1"), **change}, entry("GET", "/2"))
    with pytest.raises(TranscriptError, match="t.jsonl is not a transcript: line 2 is not an entry of one"):
        read_transcript(path)


@pytest.mark.parametrize(
    ("failure", "keeps_open"),
    [("connection_lost", False), ("answer_too_long", False), ("no_answer", True), ("given_up", True)],
)
def test_failures(failure: str, keeps_open: bool, replay_of: Any) -> None:
    assert play(replay_of(entry("GET", INSTANCES, failure=failure)), "GET", INSTANCES) == Played(
        None, keeps_open
    )


def test_an_answer_that_could_not_be_decompressed(replay_of: Any) -> None:
    response = play(replay_of(entry("GET", INSTANCES, failure="not_decompressed")), "GET", INSTANCES).response
    assert response is not None
    assert response.headers == {"Content-Encoding": "gzip"}
    with pytest.raises(gzip.BadGzipFile):
        gzip.decompress(response.body)


def test_requests_that_were_not_sent_are_skipped_and_named(replay_of: Any) -> None:
    replay = replay_of(entry("GET", INSTANCES, failure="not_sent"), entry("GET", INSTANCES, answer=1))
    assert answered(replay, "GET", INSTANCES) == 1
    assert replay.summary() == [
        "Recorded exchanges that were used: 1 of 1. Requests that differed: 0.",
        f"Requests that did not reach the server, which a replay cannot repeat: 1, the first is t.jsonl line 2 (GET {INSTANCES})",
    ]


def test_every_recorded_extra_is_known() -> None:
    settings = Settings("c", "https://host.example", StaticToken("a-token"))
    assert set(heading(settings, "0.1.0")["extras"]) == set(EXTRAS)


def test_files_of_a_folder_are_read_in_the_order_of_time(tmp_path: Path) -> None:
    written(tmp_path / "b.jsonl", entry("GET", "/1"), entry("GET", "/3", second=3))
    written(tmp_path / "a.jsonl", entry("GET", "/2", second=2))
    assert [each.request.target for each in read_transcript(tmp_path).exchanges] == ["/1", "/2", "/3"]


@pytest.mark.parametrize(
    ("end", "note"),
    [
        ("", None),
        (
            '{"dropped":3}\n{"at":"2026-11',
            "t.jsonl ends within line 4: its process was killed while it wrote.",
        ),
        (
            '{"cut":"the folder is full"}\n',
            "t.jsonl was cut, so later exchanges are missing: the folder is full",
        ),
    ],
)
def test_a_transcript_that_was_cut_at_its_end_is_read_with_a_note(
    end: str, note: str | None, tmp_path: Path
) -> None:
    path = written(tmp_path / "t.jsonl", entry("GET", "/1"))
    path.write_text(path.read_text() + end)
    transcript = read_transcript(path)
    assert [each.request.target for each in transcript.exchanges] == ["/1"]
    assert transcript.notes == ([note] if note else [])


@pytest.mark.parametrize("text", ["", '{"tra', '{"transcript":1,"provider":"0.1.0","ext'])
def test_a_transcript_that_was_cut_in_its_first_line_is_skipped_in_a_folder(
    text: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    note = "a.jsonl ends within line 1: its process was killed while it wrote."
    with pytest.raises(TranscriptError) as caught:
        read_transcript(path)
    assert str(caught.value) == f"{path} has no recorded exchange. {note}"
    written(tmp_path / "b.jsonl", entry("GET", "/1"))
    transcript = read_transcript(tmp_path)
    assert [each.request.target for each in transcript.exchanges] == ["/1"]
    assert transcript.notes == [note]


def test_the_extras_are_those_of_the_first_file_that_has_any(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    known = {"csrf": True, "max_attempts": 2, "read_timeout": 0.5}
    for name, extras in (
        ("b", {**known, "timezone": None, "proxy": "http://proxy.example", "record": "/x"}),
        ("c", {"max_attempts": 9}),
    ):
        (tmp_path / f"{name}.jsonl").write_text(
            json.dumps({**HEADING, "extras": extras}) + "\n" + json.dumps(entry("GET", "/1")) + "\n"
        )
    assert read_transcript(tmp_path).extras == known


WRITE_ONE = "The extra 'record' of a connection and 'doctor --record FILE' write transcripts."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"signed_in": true}\n', "is not a transcript: line 1 is not an entry of one"),
        ("nonsense", "is not a transcript: line 1 is not an entry of one"),
        ('{"transcript": 1}\n{"request": {}}\n{}\n', "is not a transcript: line 2 is not an entry of one"),
        (
            '{"transcript": 1, "extras": {"csrf": []}}\n{}\n',
            "is not a transcript: line 1 is not an entry of one",
        ),
        ("\xff", "is not a transcript: it is not UTF-8"),
    ],
)
def test_other_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(TranscriptError) as caught:
        read_transcript(path)
    assert str(caught.value) == f"{path} {message}. {WRITE_ONE}"


def test_transcripts_without_an_exchange_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl")
    with pytest.raises(TranscriptError) as caught:
        read_transcript(path)
    assert str(caught.value) == f"{path} has no recorded exchange."


def test_transcripts_of_another_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"transcript": 99}\n')
    with pytest.raises(TranscriptError, match="t.jsonl: another version of the provider has written it"):
        read_transcript(path)


def test_paths_without_a_transcript_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TranscriptError, match="nowhere.jsonl cannot be read: No such file"):
        read_transcript(tmp_path / "nowhere.jsonl")
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(TranscriptError) as caught:
        read_transcript(tmp_path)
    assert str(caught.value) == f"{tmp_path} has no transcript, which is a file *.jsonl. {WRITE_ONE}"


def test_the_command_line_replays_and_reports(tmp_path: Path) -> None:
    path = written(
        tmp_path / "t.jsonl", entry("GET", f"/x{INSTANCES}", answer=1), entry("GET", INSTANCES, answer=2)
    )
    path.write_text(path.read_text().replace('"extras": {}', '"extras": {"max_attempts": 2}') + '{"at')
    command = [
        sys.executable,
        "-m",
        "airflow_provider_astrobpm.emulator",
        "--replay",
        str(tmp_path),
        "--base-path",
        "/p",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        count, address, *_, export = (process.stdout.readline().strip() for _ in range(5))
        assert count == "Recorded exchanges to replay: 2. Files: 1."
        connection = json.loads(shlex.split(export)[1].partition("=")[2])
        assert connection["extra"]["max_attempts"] == 2
        url = address.removeprefix("Astro Zero emulator: ")
        headers = {"content-type": "application/json"}
        assert requests.post(f"{url}{TOKEN}", data=CREDENTIALS, timeout=10).status_code == 200
        assert requests.get(f"{url}{INSTANCES}", headers=headers, timeout=10).json() == 2
        refused = requests.get(f"{url}/other", headers=headers, timeout=10)
        assert refused.status_code == 400
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=10)[1].splitlines()
    assert errors == [
        "t.jsonl ends within line 4: its process was killed while it wrote.",
        f"Differs: GET /other came where t.jsonl line 2 (GET /x{INSTANCES}) was expected",
        "Recorded exchanges that were used: 1 of 2. Requests that differed: 1.",
        f"The first that was not used: t.jsonl line 2 (GET /x{INSTANCES})",
    ]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            ["--replay", "t.jsonl", "--like", "r.json"],
            "--replay answers from a transcript alone; do not combine it with --like",
        ),
        (
            ["--replay", "t.jsonl", "--switch", "get_by_id=row", "--processes", "p.yaml"],
            "--replay answers from a transcript alone; do not combine it with --switch, --processes",
        ),
        (["--replay", "t.jsonl"], "t.jsonl cannot be read: No such file or directory"),
        (["--processes", "p.yaml"], "p.yaml cannot be read: No such file or directory"),
    ],
)
def test_the_command_line_refuses_what_it_cannot_use(
    options: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(options)
    assert capsys.readouterr().err.endswith(f"error: {error}\n")


def test_a_reset_ends_a_replay(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", entry("GET", "/1", answer=1))
    with EmulatorServer() as server:
        server.replay(path)
        headers = {"content-type": "application/json"}
        assert requests.get(f"{server.url}/1", headers=headers, timeout=10).json() == 1
        server.control.reset()
        assert requests.get(f"{server.url}/1", headers=headers, timeout=10).status_code == 404
