"""Targets that read what a server sends."""

from __future__ import annotations

import asyncio
import gzip
import json
from functools import lru_cache
from typing import Any

from airflow_provider_astrobpm.client import (
    async_transport,
    operations,
    protocol,
    resend_policy,
    secrecy,
    texts,
)
from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
from airflow_provider_astrobpm.client.definitions import variables_of, why_unknown
from airflow_provider_astrobpm.client.errors import AstroZeroError, CallError
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.operations import Operation
from airflow_provider_astrobpm.client.protocol import Request, Response
from airflow_provider_astrobpm.client.sameness import KnownIdentity
from airflow_provider_astrobpm.client.settings import Settings, StaticToken
from airflow_provider_astrobpm.client.sync_client import BpmClient
from airflow_provider_astrobpm.client.texts import is_storable
from airflow_provider_astrobpm.client.timestamps import Placement, place
from airflow_provider_astrobpm.client.wire import Rows
from airflow_provider_astrobpm.doctor.observation import Observation
from airflow_provider_astrobpm.waiting import event_payload
from airflow_provider_astrobpm.waiting.condition import Outcome, WaitCondition
from tests.fuzz.inputs import SECRET, Input, check_error

SETTINGS = Settings("fuzz", "https://zero.example", StaticToken(SECRET), max_attempts=2)
STATUSES = (200, 400, 401, 403, 404, 408, 429, 500, 503, 302, 204, 201, 405, 200, 202)
NOW = 1_795_000_000.0
OPERATIONS: tuple[Operation[Any], ...] = (
    operations.query("Running"),
    operations.start("Approval", business_key="orders.approve"),
    operations.get_instance("002N1"),
    operations.get_instance("002N1", is_known_to_work=False),
    operations.change_state("002N1", "suspend"),
    operations.set_variables("002N1", {"amount": 1}),
    operations.delete("002N1"),
    operations.definitions(name="Approval"),
    operations.definition("001L1"),
    operations.get_token("client", SECRET),
    operations.get_csrf_token(),
)


class SameAnswer:
    """Answers every request with the same answer."""

    answer: Response

    def send(self, _: Request) -> Response:
        return self.answer


class _AsyncSameAnswer(SameAnswer):
    async def send(self, _: Request) -> Response:  # type: ignore[override]
        return self.answer


async def _no_pause(_: float) -> None:
    pass


@lru_cache(maxsize=1)
def _clients() -> tuple[BpmClient, AsyncBpmClient, asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    sync = BpmClient(SETTINGS, sleep=lambda _: None, clock=lambda: NOW)
    sync.close()
    unsync = AsyncBpmClient(SETTINGS, sleep=_no_pause)
    unsync.clock = lambda: NOW
    sync._transport, unsync._transport = SameAnswer(), _AsyncSameAnswer()  # type: ignore[assignment]
    return sync, unsync, loop


def answer_of(source: Input) -> tuple[Operation[Any], Response]:
    """Read an operation and its answer: two choices, the headers, and the body."""
    operation = source.choose(OPERATIONS)
    status = source.choose(STATUSES)
    lines = (line.partition(":") for line in source.body().decode("latin-1").split("\n"))
    headers = {name.strip().lower(): value.strip() for name, _, value in lines}
    return operation, Response(status, headers, source.body())


def answer(data: bytes) -> None:
    """Read an answer of the API, as the sync and the async client do.

    Both clients find the same. Only a ``CallError`` is raised. There is a result only if the HTTP status and ``resCode`` both say
    success. A wait succeeds only for an instance in ``Completed OK``. No message and no result shows the secret. An error and
    an instance survive the way through a trigger's event, and Airflow's database accepts both.
    """
    operation, response = answer_of(Input(data, secret=True))
    sync, unsync, loop = _clients()
    sync._transport.answer = unsync._transport.answer = response  # type: ignore[union-attr]
    found, found_async = (
        _ended(lambda: sync.call(operation)),
        _ended(lambda: loop.run_until_complete(unsync.call(operation))),
    )
    assert _comparable(found) == _comparable(found_async)
    _check_observation(response)
    if isinstance(found, CallError):
        _check_failure(found)
    else:
        _check_success(operation, response, found)


def _ended(call: Any) -> Any:
    try:
        return call()
    except CallError as error:
        return error


def _comparable(found: Any) -> Any:
    if isinstance(found, CallError):
        return type(found), str(found), vars(found)
    return found, getattr(found, "unreadable", None)


def _check_failure(error: CallError) -> None:
    check_error(error)
    pause = resend_policy.resend_pause(error, 1, max_wait=30, now=NOW)
    assert 0 <= pause <= 30
    check_event_of(error)


def check_event_of(error: AstroZeroError) -> None:
    """Check that an error survives the way through an event, and that Airflow's database accepts the event."""
    event = json.loads(json.dumps(event_payload.dump(error)))
    assert is_storable(json.dumps(event, ensure_ascii=False))
    arrived = event_payload.load(event)
    assert isinstance(arrived, AstroZeroError)
    known = event_payload.ERRORS.get(type(error).__name__, AstroZeroError)
    assert type(arrived) is known
    assert str(arrived) == str(error)


def _check_success(operation: Operation[Any], response: Response, result: Any) -> None:
    assert 200 <= response.status < 300
    whole = json.loads(
        response.body.decode("utf-8-sig", errors="replace"), strict=False, parse_int=lambda digits: digits
    )
    if not operation.needs_token:
        assert whole["access_token"] == result.access_token
        assert SECRET not in repr(result)
        return
    assert str(whole["resCode"]).lstrip("-") == "0"
    if operation.result_is_secret:
        return
    assert SECRET not in repr(result)
    if isinstance(result, dict):
        assert (variables_of(result) is None) == bool(why_unknown(result))
    instances = result if isinstance(result, Rows) else [result]
    for instance in instances:
        if isinstance(instance, BpmInstance):
            _check_instance(instance)


def _check_instance(instance: BpmInstance) -> None:
    verdict = WaitCondition().judge(instance)
    assert (verdict.outcome is Outcome.DONE) == (instance.state == "Completed OK")
    event = json.loads(json.dumps(event_payload.dump(instance)))
    assert event_payload.load(event) == instance
    assert is_storable(json.dumps(instance.as_dict(), ensure_ascii=False))
    assert place(instance.start_time, NOW, NOW, clock_is_credible=True) in Placement
    assert KnownIdentity.of(instance).matches(instance)


def _check_observation(response: Response) -> None:
    """The doctor reads the same answers."""
    seen = Observation("GET /x", response=protocol.without_secrets(response, (SECRET,)))
    assert seen.server_time is None or seen.server_time == seen.server_time
    assert SECRET not in f"{seen.envelope} {seen.token_fault} {seen.is_forbidden}"


def quote(data: bytes) -> None:
    """Mask the secret in what a server has sent.

    Neither a quote nor masked data shows the secret. A quote is one short printable line.
    """
    source = Input(data, secret=True)
    longest = source.choose((500, 60, 1))
    text = source.text()
    quoted = secrecy.quote(text, (SECRET, "short"), longest)
    assert SECRET not in quoted
    assert quoted.isprintable()
    assert is_storable(quoted)
    assert SECRET not in secrecy.masked(text, (SECRET,))
    body = text.encode(errors="surrogateescape")
    masked = secrecy.masked_json(texts.storable_json(body), (SECRET,))
    try:
        values = json.loads(masked.decode(errors="replace"), strict=False)
    except (ValueError, RecursionError):
        return
    assert SECRET not in repr(values)


def compressed(data: bytes) -> None:
    """Decompress an answer. Never more is made than the limit allows, and what gzip has made comes back."""
    source = Input(data, secret=True)
    limit = source.choose((4096, 65536, 1))
    body = source.body()
    plain = async_transport._decompress(body, limit)
    assert plain is None or len(plain) <= limit + 1
    assert async_transport._decompress(gzip.compress(body, 1, mtime=0), limit) == body[: limit + 1]
    headers = async_transport._Headers(((b"Retry-After", body[:100]), (body[:50], b"x")))
    assert set(headers) >= {"retry-after"}
    asked = resend_policy.retry_after_seconds(headers["retry-after"], NOW)
    assert asked is None or asked >= 0
