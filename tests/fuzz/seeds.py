"""Make the inputs with which fuzzing begins: ``python -m tests.fuzz.seeds FOLDER``.

Answers, events and records are real: an emulator sends them, and tasks that run against it write them. The rest are the
scripts and launch files of the documentation, and a few odd texts.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fuzz.inputs import SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Iterator

BPM = "SupplierOnboarding"
ROOT = Path(__file__).parent.parent.parent


def joined(choices: str, *parts: object) -> bytes:
    """Return an input with these choices and parts. What is neither text nor bytes is written as JSON."""
    written = [
        part if isinstance(part, bytes) else (part if isinstance(part, str) else json.dumps(part)).encode()
        for part in parts
    ]
    return choices.encode() + b"\n" + SEPARATOR.join(written)


def answers() -> Iterator[bytes]:
    """Yield what the emulator answers, with each switch in each position."""
    from airflow_provider_astrobpm.client.protocol import Request  # noqa: PLC0415 - only after Airflow has a home
    from airflow_provider_astrobpm.emulator import api_routes  # noqa: PLC0415
    from airflow_provider_astrobpm.emulator.emulator_state import Emulator  # noqa: PLC0415
    from airflow_provider_astrobpm.emulator.switches import Switches  # noqa: PLC0415
    from tests.conftest import positions  # noqa: PLC0415
    from tests.fuzz.answers import OPERATIONS, STATUSES  # noqa: PLC0415

    seen = set()
    for name, position in [("row_cap", None), *positions()]:
        emulator = Emulator()
        emulator.engine.switches = Switches().changed(**{name: position})
        instance = emulator.engine.start(BPM, None, {"$Flow.BusinessKey": "orders.approve"})
        tokens = (emulator.tokens.issue(concurrent=True), "refused")
        for number, operation in enumerate(OPERATIONS):
            for token in tokens:
                path = operation.path.replace("002N1", instance.id)
                route, one = next(
                    (route, path[len(before) : len(path) - len(after)])
                    for route in api_routes.ROUTES
                    for before, _, after in [route.path.partition("{id}")]
                    if route.method == operation.method
                    and path.startswith(before)
                    and path.endswith(after)
                    and (path == before or "/" not in path[len(before) : len(path) - len(after)])
                    and ("{id}" in route.path or path == before)
                )
                request = Request(operation.method, operation.target, {}, operation.body)
                headers = {"access-token": token, "Content-Type": operation.content_type}
                call = api_routes.ApiCall(
                    request.method, operation.target.partition("?")[2], headers, request.body or b"", one
                )
                response = api_routes.perform(emulator, route, call)
                body = response.body.replace(instance.id.encode(), b"002N1")
                shape = (number, response.status, body[:60])
                if shape not in seen and response.status in STATUSES:
                    seen.add(shape)
                    status = chr(ord("0") + STATUSES.index(response.status))
                    lines = "\n".join(f"{key}: {value}" for key, value in response.headers.items())
                    media = f"content-type: {response.content_type}\n{lines}"
                    yield joined(chr(ord("0") + number) + status, media, body)
    yield joined("06", "Retry-After: 120", '{"resCode": "1", "resMsg": "slow down, $SECRET"}')
    yield joined("06", "Retry-After: Sat, 28 Nov 2026 22:00:00 GMT\nDate: Sat, 28 Nov 2026 22:00:00 GMT", "")
    yield joined("01", "", '{"resCode": "1", "resMsg": {{900|[}}{{900|]}}}')
    yield joined(
        "00", "", '{"resCode": 0, "result": [{"id": 1, "name": "$SECRET", "state": {{900|[}}{{900|]}}}]}'
    )
    yield joined("91", "", '{"error": "invalid_client", "error_description": "no client $SECRET"}')


def quotes() -> Iterator[bytes]:
    """Yield texts that show the secret in the encodings of gateways."""
    from tests.fuzz.inputs import SECRET  # noqa: PLC0415
    from tests.support.echoing import ENCODINGS  # noqa: PLC0415

    for encode in ENCODINGS.values():
        yield joined("0", f"<html>bad token: {encode(SECRET)}</html>")
    yield joined("0", '["$SECRET<br{{60000| }}"]')
    yield joined("1", '{"a": "{{3000|%41&amp;=41}}$SECRET"}')


def written_by_tasks() -> dict[str, list[bytes]]:
    """Return the events, records and XComs of tasks that run against an emulator."""
    from airflow.providers.common.compat.sdk import TaskDeferred  # noqa: PLC0415

    from airflow_provider_astrobpm._airflow import xcom_keys  # noqa: PLC0415
    from airflow_provider_astrobpm.client.errors import AstroZeroError  # noqa: PLC0415
    from airflow_provider_astrobpm.client.instance import BpmInstance  # noqa: PLC0415
    from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer  # noqa: PLC0415
    from airflow_provider_astrobpm.operators.bpm import (  # noqa: PLC0415
        AstroZeroStartBpmBatchOperator,
        AstroZeroStartBpmInstanceOperator,
    )
    from airflow_provider_astrobpm.waiting import event_payload  # noqa: PLC0415
    from airflow_provider_astrobpm.waiting.batch_wait import BatchWaitResult  # noqa: PLC0415
    from tests.support.stores import TaskStateStore  # noqa: PLC0415
    from tests.support.task_instance import FakeTaskInstance  # noqa: PLC0415

    found: dict[str, list[bytes]] = {"event": [], "record": [], "stored": []}
    launches = [{"bpm_name": BPM, "title": "one", "business_key": "order-1"}, {"bpm_name": BPM, "id": "b"}]
    with EmulatorServer() as server:
        connection = {**json.loads(server.connection_json()), "extra": '{"start_grace": 0.2}'}
        os.environ["AIRFLOW_CONN_ASTRO_ZERO_DEFAULT"] = json.dumps(connection)
        tasks: tuple[dict[str, Any], ...] = (
            {"bpm_name": BPM, "timeout": 60, "deferrable": True},
            {"bpm_name": BPM, "timeout": 0.001},
            {"bpm_name": BPM, "business_key": "mine", "wait_for_completion": False},
            {"bpm_name": "Unknown"},
            {"launches": launches, "deferrable": True, "timeout": 60},
            {"launches": launches, "wait_for_completion": False},
        )
        for number, arguments in enumerate(tasks):
            kind: Any = (
                AstroZeroStartBpmBatchOperator
                if "launches" in arguments
                else AstroZeroStartBpmInstanceOperator
            )
            ti = FakeTaskInstance(store=TaskStateStore())
            operator = kind(task_id=ti.task_id, poll_interval=1, **arguments)
            try:
                operator.execute(ti.context)
            except TaskDeferred as deferred:
                found["stored"].append(joined("1", deferred.kwargs))
            except AstroZeroError as error:
                found["event"].append(joined("", event_payload.dump(error, "0199-waiter")))
            for value in ti.context["task_state_store"].values():
                found["record"].append(joined(f"{int(number > 3)}10", value))
            if "launches" in arguments:
                names = (
                    *(xcom_keys.INSTANCE_IDS, xcom_keys.REFUSED_LAUNCHES, xcom_keys.SATISFIED_LAUNCHES),
                    *(
                        xcom_keys.BATCH_KEY,
                        xcom_keys.BPM_NAMES,
                        xcom_keys.LAUNCH_IDS,
                        xcom_keys.LAUNCH_TITLES,
                    ),
                    xcom_keys.LAUNCH_VARIABLES,
                )
                found["stored"].append(joined("1", [ti.xcoms.get(name) for name in names]))
    for state in ("Completed OK", "Terminated"):
        one = BpmInstance(id="002N1", name=BPM, state=state, bp_status="Approved", is_closed=True)
        found["event"].append(joined("", event_payload.dump(one, "0199-waiter")))
    end = BatchWaitResult(1, {"002N2": "it broke"}, ("002N3",))
    found["event"].append(joined("", event_payload.dump_batch(end, ["002N1", "002N2", "002N3"])))
    head = {"version": 1, "shards": 1}
    found["stored"].append(joined("0", {"watch": head, "watch.1.0": "00abcdefgh01ABCDEF-_"}))
    return found


def transcripts() -> Iterator[bytes]:
    """Yield transcripts of one exchange each, with its request, and one of several."""
    from airflow_provider_astrobpm.client import operations, stand_ins, transcript  # noqa: PLC0415
    from airflow_provider_astrobpm.client.protocol import Request, Response  # noqa: PLC0415

    replacing = stand_ins.StandIns(bytes(stand_ins.SALT_BYTES))
    row = {
        "id": "002N1", "name": BPM, "state": "Running", "businessKey": "ORDERS.APPR", "suspended": False, "isClosed": "false",
        "startTime": "2026-11-28 22:00:00", "title": None, "urgency": 7, "Ext8": 1.5,
    }  # fmt: skip
    ended: tuple[tuple[operations.Operation[Any], Response | str], ...] = (
        (
            operations.start(
                BPM, variables={"amount": 7, "big": True, "who": ["x"]}, business_key="orders.approve"
            ),
            _answer(200, row),
        ),
        (operations.query("Running"), _answer(200, [row, {**row, "id": "002N2"}])),
        (operations.get_instance("002N1"), Response(502, {"retry-after": "7"}, b"<html>gone</html>")),
        (operations.change_state("002N1", "suspend"), _answer(400, "no")),
        (operations.set_variables("002N1", {"amount": 1}), "no_answer"),
        (operations.delete("002N1"), "connection_lost"),
        (operations.get_token("client", "secret"), "not_decompressed"),
    )
    lines, requests = [], []
    heading = '{"transcript":1,"provider":"0.1.0","extras":{}}'
    for number, (operation, outcome) in enumerate(ended):
        request = Request(
            operation.method, operation.target, {"content-type": operation.content_type}, operation.body
        )
        exchange = transcript.Exchange(request, outcome, 1_795_000_000.0 + number, 0.1)
        lines.append(json.dumps(transcript.entry(exchange, replacing)))
        requests.append(f"{operation.method} {operation.target}\n".encode() + (operation.body or b""))
        yield joined("", heading, lines[-1], requests[-1])
    yield joined("", heading, lines[0], lines[2], '{"dropped":3}', lines[3], requests[0], requests[3])
    yield joined("", '{"transcript": 2}', lines[0])
    yield joined("", heading, lines[0][:100])


def _answer(status: int, result: object) -> Any:
    from airflow_provider_astrobpm.client.protocol import Response  # noqa: PLC0415

    body = json.dumps({"resCode": "0", "resMsg": "Success", "result": result}).encode()
    return Response(status, {"content-type": "application/json"}, body)


def texts() -> dict[str, list[bytes]]:
    """Return launch files, scripts, connections, arguments and calls of the emulator."""
    from airflow_provider_astrobpm.emulator.process_scripts import DEFAULT_SCRIPT  # noqa: PLC0415
    from airflow_provider_astrobpm.emulator.switches import Switches  # noqa: PLC0415

    csv_file = (
        'id,bpm_name,title,variables,country,amount\r\n1,A,"a ""title""","{""x"": [1]}",CN,\r\n2,,,,DE,7\n'
    )
    lines = '{"id": 1, "variables": {"country": "CN", "n": 1.5}}\n\n{"id": "b", "business_key": "k", "title": "t"}\r\n'
    api = "/u-route/baas/bp/v2.0/runtime/instances"
    calls = (
        ("POST /_emulator/instances\n" + json.dumps({"name": BPM, "business_key": "k", "age": 3600})),
        ('POST /_emulator/instances/ID/move\n{"state": "Running", "bp_status": "x", "closed": false}'),
        ('PUT /_emulator/instances/ID/distortion\n{"fields": {"name": "\\ud800"}}'),
        ('POST /_emulator/instances/ID/act\n{"outcome": "approve", "by": "me", "variables": {"a": 1}}'),
        ('PUT /_emulator/switches\n{"start_lag": 5, "row_cap": 1, "start_time_form": "millis"}'),
        ('POST /_emulator/faults\n{"kind": "query", "fault": "twice", "fields": {"name": "b"}, "times": 3}'),
        ('POST /_emulator/clock/advance\n{"seconds": 86400}'),
        (
            'POST /_emulator/reactions\n{"name": "SupplierOnboarding", "action": "decide", "outcome": "approve"}'
        ),
        (f"GET {api}?states=Running&fields=id,name,state&orderField=startTime&orderType=asc\n"),
        (f'PUT {api}/ID\n{{"action": "suspend"}}'),
        (f'PUT {api}/ID/variables\n{{"a": 1}}'),
        ("GET /u-route/baas/bp/v2.0/metadata/definitions?skip=1&limit=2&like=true&name=a\n"),
        ('FORM start\ndefinition=x&variables={"dataset": "a"}&business_key=k'),
        ("FORM complete\noutcome=approve&entered=1"),
        ("GET /_emulator/instances?name=a&state=Running\n"),
    )
    scripts = DEFAULT_SCRIPT.read_text(encoding="utf-8")
    odd = (
        "!!int ''",
        "a: &a [*a]",
        "? {a: b}",
        "processes: [{name: A, steps: [{state: Running, for: 1:30}]}]",
    )
    extras = {
        "verify": "false", "read_timeout": "30", "max_attempts": 5, "timezone": "+08:00", "csrf": True,
        "proxy": "http://u:$SECRET@proxy.example:3128", "instance_url": "https://{host}/x/{instance_id}",
    }  # fmt: skip
    argument: list[tuple[str, ...]] = [
        ("0", "1h"), ("0", "90"), ("0", "1w2d3h4m5s"), ("0", "1{{50000| }}!"), ("0", "5 %"), ("0", "99999999999w"),
        ("1", "2026-11-01 01:30:00"), ("1", "Sat, 28 Nov 2026 22:00:00 GMT"), ("1", "2026-11-28T10:00:00Z"),
        ("2", "running", "a=1", 'b={"c": [1]}'), ("2", '{"a": 1, "b": "NaN"}', "c=NaN"), ("2", "term"),
        ("3", '[["Completed OK"], ["Approved"], ["Broken"], ["Rejected"], "fail"]'),
        ("4", "PREFIX1.2"), ("4", "ASTRO:BATCH1-815-k3xq.2"), ("4", "PREFIX{{5000|1}}"),
        ("5", "orders.approve.scheduled-1", "ASTRO:ORDERS.APPROVE", "orders.other"),
        ("6", '{"a": 1, "b": [1.5, null, true, {"c": "d"}], "$Flow.Title": "x"}'), ("6", '{"a": {{200|[}}{{200|]}}}'),
    ]  # fmt: skip
    return {
        "launches": [
            joined("00", lines), joined("10", csv_file), joined("10", "\ufeff" + csv_file),
            joined("20", [{"bpm_name": "A", "variables": {"a": [None, 1.5]}}, {"id": 7}]),
            joined("10", "{{20000|a,}}a\n"), joined("10", '"{{200|a\n}}'), joined("00", '{"variables": {{900|[}}'),
        ],
        "script": [joined("", scripts), *(joined("", one, "row_cap=3") for one in odd), *[joined("", "", f"{name}={value}") for name, value in Switches().positions().items()][:12]],
        "connection": [
            joined("0", "appcube.example", "https", "443", "client", extras),
            joined("0", "https://h.example:8443/base", "", "", "client", {"access_token": "$SECRET"}),
            joined("0", "//u:$SECRET@h x", "", "", "", "{}"),
            joined("0", "2001:db8::1", "https", "", "c", {"instance_url": "https://u:$SECRET@h/{x}"}),
            joined("1", "h.example", "http", "0", "c", "{{50000|[}}"),
        ],
        "argument": [joined(*each) for each in argument],
        "emulator": [joined("", *calls[at : at + 5]) for at in range(len(calls) - 4)]
        + [joined("", calls[0], *calls[1:12]), joined("", "POST /_emulator/processes\n" + scripts)],
        "compressed": [joined("0", b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xcb\x48\x04\0\xac\x2a\x93\xd8\x02\0\0\0"), joined("1", "{{60000|a}}")],
    }  # fmt: skip


def main() -> None:
    """Write all seeds, each into the folder of its target."""
    os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="astrobpm-fuzz-"))
    folder = Path(sys.argv[1])
    answered = [*answers()]
    named = [seed.replace(b"SupplierOnboarding", b"$PERSON") for seed in answered]
    made = {
        "answer": answered,
        "transcript": named,
        "replay": [*transcripts()],
        "quote": [*quotes()],
        **written_by_tasks(),
        **texts(),
    }
    for name, seeds in made.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        with suppress(StopIteration):
            for number, seed in enumerate(seeds):
                (folder / name / f"seed-{number:03}").write_bytes(seed)
        print(f"{name}: {len(seeds)} seeds")  # noqa: T201


if __name__ == "__main__":
    main()
