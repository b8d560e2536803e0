"""Targets that read what authors and operators write: launch files, scripts, connections and arguments."""

from __future__ import annotations

import csv
import io
import json
import math
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

from airflow_provider_astrobpm.batches import batch_input
from airflow_provider_astrobpm.cli import option_values
from airflow_provider_astrobpm.client import ages, resend_policy, timestamps, validation, variables
from airflow_provider_astrobpm.client.errors import SettingsError
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.key_form import KeyForm, KeyForms
from airflow_provider_astrobpm.client.states import STATES
from airflow_provider_astrobpm.hooks.connection import settings_from
from airflow_provider_astrobpm.notifications import context
from airflow_provider_astrobpm.starting.business_keys import TaskIdentity
from airflow_provider_astrobpm.task_base import batch_input_file, batch_result_file
from airflow_provider_astrobpm.waiting.condition import WaitCondition
from tests.fuzz.inputs import SECRET, Input, raises_only

IDENTITY = TaskIdentity("orders", "manual__1", "approve")
COLUMNS = ("id", "title", "variables")


def launches(data: bytes) -> None:
    """Read a file or a list of launches.

    It is read whole, or a ``ValueError`` says where it is wrong. What was read makes the same launches again when it is written as
    JSON lines. The result file repeats the authors' fields as they were.
    """
    source = Input(data)
    suffix = source.choose((".jsonl", ".csv", "list"))
    has_default = source.choose((True, False))
    given = source.json() if suffix == "list" else source.body()
    with raises_only(ValueError):
        if suffix == "list":
            items = batch_input.with_positions(given)
        else:
            file = io.TextIOWrapper(
                io.BytesIO(given), encoding="utf-8-sig", errors="surrogateescape", newline=""
            )
            items = batch_input_file._FORMATS[suffix](batch_input_file._lines(file, "f"), "f")
        read = list(batch_input.parse_launches(items, bpm_name="Approval" if has_default else None))
        _check_again(read)
        _check_result(read)


def _check_again(read: list[batch_input.Launch]) -> None:
    fields = [
        {name: value for name in batch_input.LAUNCH_FIELDS if (value := getattr(one, name)) is not None}
        for one in read
    ]
    lines = [json.dumps(each) + "\n" for each in fields]
    items = batch_input_file._FORMATS[".jsonl"](iter(lines), "again")
    again = list(batch_input.parse_launches(items))
    assert [one.digest for one in again] == [one.digest for one in read]
    for one in read:
        body = one.operation("key").body
        assert body is not None
        assert json.loads(body)["name"] == one.bpm_name


def _check_result(read: list[batch_input.Launch]) -> None:
    rows = [one.author_fields(with_variables=True)._asdict() for one in read]
    lines = "".join(batch_result_file._FORMATS[".jsonl"](rows, COLUMNS)).split("\n")
    assert [json.loads(line) for line in lines if line] == rows
    text = "".join(batch_result_file._FORMATS[".csv"](rows, COLUMNS))
    cells = list(csv.DictReader(io.StringIO(text, newline="")))
    for cell, row in zip(cells, rows, strict=True):
        assert cell["id"] == str(row["id"])
        assert cell["title"] == (row["title"] or "")
        assert json.loads(cell["variables"]) == row["variables"]


def connection(data: bytes) -> None:
    """Read a connection. It can be used, or a ``SettingsError`` says why not, without its secrets."""
    source = Input(data)
    with_secret = source.choose((True, False))
    host, schema, port, login, extra = (source.text() for _ in range(5))
    host, extra = _planted(host), _planted_in_extras(extra)
    given: Any = SimpleNamespace(
        conn_id="fuzz",
        host=host,
        schema=schema or None,
        port=int(port) if port.isdecimal() and len(port) < 7 else None,
        login=login or "client",
        password=SECRET if with_secret else login,
        extra=extra,
    )
    with raises_only(SettingsError):
        settings = settings_from(given)
        assert SECRET not in repr(settings)
        assert settings.base_url.startswith(("http://", "https://"))
        assert settings.base_url == settings.base_url.strip()
        for limit in ("connect_timeout", "read_timeout", "max_wait", "start_grace"):
            assert 0 < getattr(settings, limit) <= validation.MAX_SECONDS
        assert settings.max_attempts >= 1
        assert settings.max_response_bytes >= 1
        page = settings.page_url("002N1")
        assert page is None or page.startswith(("http://", "https://"))


def _planted(url: str) -> str:
    """Return a URL with the secret as its password, where the input has a place for it."""
    return url.replace("//u:$SECRET@", f"//u:{SECRET}@")


def _planted_in_extras(text: str) -> str:
    """Return extras with the secret where it belongs: in a token, and as the password of a URL."""
    try:
        extras = json.loads(text)
        for name in ("access_token", "proxy", "instance_url"):
            if isinstance(extras, dict) and isinstance(value := extras.get(name), str):
                extras[name] = value.replace("$SECRET", SECRET) if name == "access_token" else _planted(value)
        return json.dumps(extras)
    except (ValueError, RecursionError):
        return text


def _number_of(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def argument(data: bytes) -> None:
    """Read an argument of a task or a command: a duration, a time, an age, a state, a list, a key, variables.

    It has a value that can be used, or a ``ValueError`` names the argument.
    """
    source = Input(data)
    check = source.choose((_durations, _times, _command_line, _conditions, _keys, _forms, _variables))
    check(source)


def _durations(source: Input) -> None:
    text = source.text()
    for value in (text, _number_of(text)):
        for read in (validation.poll_interval, validation.timeout, lambda one: ages.age_seconds(one, "x")):
            with raises_only(ValueError):
                seconds = read(value)
                assert seconds is None or 0 <= seconds < math.inf
        for check in (validation.number_or_share, validation.rate, validation.boolean):
            with raises_only(ValueError):
                check(value, "x")
        with raises_only(ValueError):
            assert validation.count(value, "x", least=1) >= 1


def _times(source: Input) -> None:
    text = source.text()
    now = 1_795_000_000.0
    asked = resend_policy.retry_after_seconds(text, now)
    assert asked is None or 0 <= asked < math.inf
    with raises_only(ValueError):
        context._seconds(text)
    timestamps.parse(text)
    instance = BpmInstance(id="1", name="A", state="Running", start_time=text, end_time=text)
    for zone in ("Asia/Shanghai", "America/New_York", "UTC"):
        limits = ages.AgeLimits(ZoneInfo(zone), older_than=60)
        assert limits.includes(text, now) in (True, False, None)
        assert instance.as_dict(timezone=ZoneInfo(zone))["start_time"] == text
    for is_credible in (True, False):
        timestamps.place(text, now, now, clock_is_credible=is_credible)
    timestamps.is_clock_credible([text], now)


def _command_line(source: Input) -> None:
    texts = [part.decode(errors="surrogateescape") for part in source.rest()]
    first = texts[0] if texts else ""
    with raises_only(ValueError):
        assert option_values.state_named(first, "--state") in STATES
    with raises_only(ValueError):
        read = option_values.variables_from(texts[1:], first, None)
        json.dumps(variables.json_ready(read), allow_nan=False).encode()


def _conditions(source: Input) -> None:
    given = source.json()
    if not isinstance(given, list):
        return
    names = ("states", "bp_statuses", "failed_states", "failed_bp_statuses", "on_suspended")
    with raises_only(ValueError):
        asked = dict(zip(names, given, strict=False))
        condition = WaitCondition.of(**{"on_suspended": "wait", **asked})
        for state in (*STATES, "Unheard Of"):
            condition.judge(BpmInstance(id="1", name="A", state=state, bp_status="Approved"))


def _keys(source: Input) -> None:
    key = source.text().replace("PREFIX", IDENTITY.prefix).replace("BATCH", IDENTITY.batch_prefix)
    found = IDENTITY.read(key)
    if found is not None and found[0] > 0:
        assert IDENTITY.read(IDENTITY.key(*found)) == (found[0], max(found[1], 1))
    IDENTITY.resembles(key)
    batch = IDENTITY.read_batch(key)
    if batch is not None:
        again = IDENTITY.read_batch(IDENTITY.batch_key(batch))
        assert again == batch._replace(start_number=max(batch.start_number, 1))
    IDENTITY.resembles_batch(key)


def _forms(source: Input) -> None:
    sent, shown, other = source.text(), source.text(), source.text()
    form = KeyForm.of(sent, shown)
    if form is not None and form.keeps(sent):
        assert form.shown(sent).casefold() == shown.strip().casefold()
    forms = KeyForms([sent, other], form)
    if found := forms.sent(shown):
        assert found in (sent, other)
    forms.resembles(shown)


def _variables(source: Input) -> None:
    with raises_only(ValueError):
        sent = variables.json_ready(source.json())
        assert json.loads(json.dumps(sent, allow_nan=False)) == sent
        variables.check_unrendered(sent)
