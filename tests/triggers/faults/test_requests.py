"""Faults while a trigger waits, over HTTP: what passes is survived, what does not is told, and nothing is ever written.

The real trigger, poller and client talk to the emulator. Most tests let time fly: whenever nothing is under way, the
event loop skips to its next timer, and the emulator's clock goes along. Each kind of fault is met in real time, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_astrobpm.bpm import errors
from airflow_provider_astrobpm.bpm.errors import AstroZeroError
from airflow_provider_astrobpm.bpm.states import STATES
from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from tests.triggers.faults.helpers import (
    FAIL,
    FOR_EVER,
    SUCCEED,
    Connect,
    Gate,
    Play,
    looks,
    notes,
    states_asked,
    status,
    until,
    waiting,
)


@dataclass(frozen=True)
class Row:
    """A fault, what it needs of the connection, and what a look that meets it ends with.

    :param error: ``None`` where the look succeeds all the same.
    :param kind: which requests; for the token's, the token is revoked as well.
    :param requests: how many of them one look sends: with a fresh token once more, for a token in two encodings.
    """

    fault: dict[str, Any]
    error: type[AstroZeroError] | None
    extra: dict[str, Any] = field(default_factory=dict)
    kind: str = "query"
    requests: int = 1

    def strike(self, emulator: EmulatorControl, times: int = 1) -> None:
        emulator.fault(self.kind, **self.fault, times=min(times * self.requests, FOR_EVER))
        if self.kind == "token":
            emulator.revoke_tokens()


FAULTS = {
    "502, as a page": Row({"fault": "html", "status": 502}, errors.ServerError),
    "503": Row(status(503), errors.ServerError),
    "429": Row(status(429), errors.ThrottledError),
    "a connection reset before": Row({"fault": "drop_before"}, errors.InterruptedCallError),
    "a connection reset after": Row({"fault": "drop_after"}, errors.InterruptedCallError),
    "broken JSON": Row({"fault": "not_json"}, errors.UnexpectedAnswerError),
    "another shape": Row({"fault": "wrong_shape"}, errors.UnexpectedAnswerError),
    "half an answer": Row({"fault": "truncate"}, errors.InterruptedCallError),
    "an answer that trickles": Row({"fault": "trickle", "seconds": 0.5}, None, {"read_timeout": 0.4}),
    "an answer that trickles too long": Row(
        {"fault": "trickle", "seconds": 2}, errors.InterruptedCallError, {"answer_timeout": 0.3}
    ),
    "a long answer": Row({"fault": "oversize", "size": 1_000_000}, None),
    "too long an answer": Row(
        {"fault": "oversize", "size": 1_000_000},
        errors.UnexpectedAnswerError,
        {"max_response_bytes": 500_000},
    ),
    "a refusal with 200": Row({"fault": "code_in_200"}, errors.RefusedError),
    "slower than the interval": Row({"fault": "delay", "seconds": 1.2}, None),
    "slower than the read timeout": Row(
        {"fault": "delay", "seconds": 0.6}, errors.InterruptedCallError, {"read_timeout": 0.2}
    ),
}
MORE_FAULTS = {
    "500": Row(status(500), errors.ServerError),
    "a page with 200": Row({"fault": "html", "status": 200}, errors.UnexpectedAnswerError),
    "403": Row(status(403), errors.RefusedError, requests=2),
    "403, as a page": Row({"fault": "html", "status": 403}, errors.RefusedError, requests=2),
    "401, with a fresh token too": Row(status(401), errors.TokenRefusedError, requests=2),
    "404, as a page": Row({"fault": "html", "status": 404}, errors.RefusedError),
    "408": Row(status(408), errors.InterruptedCallError),
    "a redirect": Row({"fault": "redirect"}, errors.UnexpectedAnswerError),
    "500 with a code for bad tokens": Row(status(500, res_code="405230602"), errors.ServerError, requests=2),
    "no token: 503": Row(status(503), errors.ServerError, kind="token"),
    "no token: 500 with a code for bad tokens": Row(
        status(500, res_code="405230602"), errors.ServerError, kind="token"
    ),
    "no token: 400 of the platform": Row(status(400), errors.UnexpectedAnswerError, kind="token", requests=2),
    "no token: 403 of the platform": Row(status(403), errors.UnexpectedAnswerError, kind="token", requests=2),
    "no token: 404 of the platform": Row(status(404), errors.UnexpectedAnswerError, kind="token", requests=2),
    "no token: 403, as a page": Row(
        {"fault": "html", "status": 403}, errors.UnexpectedAnswerError, kind="token", requests=2
    ),
    "no token: 404, as a page": Row(
        {"fault": "html", "status": 404}, errors.UnexpectedAnswerError, kind="token", requests=2
    ),
    "no token: 429": Row(status(429), errors.ThrottledError, kind="token"),
    "no token: reset": Row({"fault": "drop_before"}, errors.InterruptedCallError, kind="token"),
    "no token: broken JSON": Row({"fault": "not_json"}, errors.UnexpectedAnswerError, kind="token"),
    "no token: another shape": Row({"fault": "wrong_shape"}, errors.UnexpectedAnswerError, kind="token"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_passes(
    name: str,
    real_time: Play,
    emulator: EmulatorControl,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = FAULTS[name]
    connect(**{"max_attempts": 1, "instance_lookup": "list", **row.extra})

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id)
        await until(lambda: looks(emulator))
        row.strike(emulator)
        await until(lambda: not emulator.faults())
        emulator.act(instance_id, "approve")
        await gate.opens()

    real_time(scene())
    assert notes(capsys) == ([FAIL, SUCCEED] if row.error else [])


@pytest.mark.parametrize("name", MORE_FAULTS)
def test_another_fault_that_passes(
    name: str, fast_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    row = MORE_FAULTS[name]

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id)
        await until(lambda: looks(emulator))
        row.strike(emulator)
        await until(lambda: gate.failed_looks)
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
    assert notes(capsys) == [FAIL, SUCCEED]


@pytest.mark.parametrize("name", [name for name, row in {**FAULTS, **MORE_FAULTS}.items() if row.error])
def test_a_fault_that_lasts_is_told_as_what_it_is(
    name: str,
    fast_time: Play,
    emulator: EmulatorControl,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = {**FAULTS, **MORE_FAULTS}[name]
    connect(**{"max_attempts": 1, "instance_lookup": "list", **row.extra})

    async def scene() -> None:
        gate = Gate(waiting(emulator), max_poll_failure_time=100)
        await until(lambda: looks(emulator))
        row.strike(emulator, FOR_EVER)
        assert row.error
        await gate.fails(row.error, "polls have failed for 100 s ('max_poll_failure_time')")

    fast_time(scene())
    assert notes(capsys) == [FAIL]


MENDED = (
    "503",
    "a connection reset after",
    "429",
    "slower than the read timeout",
    "broken JSON",
    "another shape",
)


@pytest.mark.parametrize("name", [*MENDED, "a page with 200"])
def test_what_a_second_attempt_mends_is_not_even_told(
    name: str,
    real_time: Play,
    emulator: EmulatorControl,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = {**FAULTS, **MORE_FAULTS}[name]
    connect(**row.extra)

    async def scene() -> None:
        instance_id = waiting(emulator)
        row.strike(emulator)
        gate = Gate(instance_id)
        await until(lambda: looks(emulator) >= 2)
        emulator.act(instance_id, "approve")
        await gate.opens()

    real_time(scene())
    assert notes(capsys) == []


@pytest.mark.parametrize("name", ["a redirect", "too long an answer"])
def test_what_a_second_attempt_would_not_mend_is_not_sent_again(
    name: str, fast_time: Play, emulator: EmulatorControl, connect: Connect
) -> None:
    row = {**FAULTS, **MORE_FAULTS}[name]
    connect(instance_lookup="list", **row.extra)

    async def scene() -> None:
        gate = Gate(waiting(emulator), max_poll_failure_time=0)
        row.strike(emulator, FOR_EVER)
        assert row.error
        await gate.fails(row.error)

    fast_time(scene())
    assert states_asked(emulator) == list(STATES)
