"""Faults over HTTP while a trigger waits: it survives transient ones, reports lasting ones, and never writes anything.

The real trigger, poller and client talk to the emulator. Most tests skip time: whenever no request is under way, the
event loop skips to its next timer, and the emulator's clock follows. Each kind of fault is also tested in real time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.errors import AstroZeroError
from airflow_provider_astrobpm.client.states import STATES
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from tests.triggers.faults.helpers import (
    FAIL,
    FOR_EVER,
    SUCCEED,
    ApprovalWait,
    Connect,
    RunScenario,
    notes,
    polls,
    states_asked,
    status,
    until,
    waiting,
)


@dataclass(frozen=True)
class FaultCase:
    """A fault, the connection extras it needs, and the error of a poll that meets it.

    :param error: ``None`` if the poll succeeds anyway.
    :param kind: the kind of request; for ``token``, the current token is revoked as well.
    :param requests: how many such requests one poll sends: one more with a fresh token, two encodings for a token.
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
    "502, as a page": FaultCase({"fault": "html", "status": 502}, errors.ServerError),
    "503": FaultCase(status(503), errors.ServerError),
    "429": FaultCase(status(429), errors.ThrottledError),
    "a connection reset before": FaultCase({"fault": "drop_before"}, errors.InterruptedCallError),
    "a connection reset after": FaultCase({"fault": "drop_after"}, errors.InterruptedCallError),
    "broken JSON": FaultCase({"fault": "not_json"}, errors.UnexpectedAnswerError),
    "another shape": FaultCase({"fault": "wrong_shape"}, errors.UnexpectedAnswerError),
    "half an answer": FaultCase({"fault": "truncate"}, errors.InterruptedCallError),
    "an answer that trickles": FaultCase({"fault": "trickle", "seconds": 0.5}, None, {"read_timeout": 0.4}),
    "an answer that trickles too long": FaultCase(
        {"fault": "trickle", "seconds": 2}, errors.InterruptedCallError, {"answer_timeout": 0.3}
    ),
    "a long answer": FaultCase({"fault": "oversize", "size": 1_000_000}, None),
    "too long an answer": FaultCase(
        {"fault": "oversize", "size": 1_000_000},
        errors.UnexpectedAnswerError,
        {"max_response_bytes": 500_000},
    ),
    "a refusal with 200": FaultCase({"fault": "code_in_200"}, errors.RefusedError),
    "slower than the interval": FaultCase({"fault": "delay", "seconds": 1.2}, None),
    "slower than the read timeout": FaultCase(
        {"fault": "delay", "seconds": 0.6}, errors.InterruptedCallError, {"read_timeout": 0.2}
    ),
}
MORE_FAULTS = {
    "500": FaultCase(status(500), errors.ServerError),
    "a page with 200": FaultCase({"fault": "html", "status": 200}, errors.UnexpectedAnswerError),
    "403": FaultCase(status(403), errors.RefusedError, requests=2),
    "403, as a page": FaultCase({"fault": "html", "status": 403}, errors.RefusedError, requests=2),
    "401, with a fresh token too": FaultCase(status(401), errors.TokenRefusedError, requests=2),
    "404, as a page": FaultCase({"fault": "html", "status": 404}, errors.RefusedError),
    "408": FaultCase(status(408), errors.InterruptedCallError),
    "a redirect": FaultCase({"fault": "redirect"}, errors.UnexpectedAnswerError),
    "500 with a code for bad tokens": FaultCase(
        status(500, res_code="405230602"), errors.ServerError, requests=2
    ),
    "no token: 503": FaultCase(status(503), errors.ServerError, kind="token"),
    "no token: 500 with a code for bad tokens": FaultCase(
        status(500, res_code="405230602"), errors.ServerError, kind="token"
    ),
    "no token: 400 of the platform": FaultCase(
        status(400), errors.UnexpectedAnswerError, kind="token", requests=2
    ),
    "no token: 403 of the platform": FaultCase(
        status(403), errors.UnexpectedAnswerError, kind="token", requests=2
    ),
    "no token: 404 of the platform": FaultCase(
        status(404), errors.UnexpectedAnswerError, kind="token", requests=2
    ),
    "no token: 403, as a page": FaultCase(
        {"fault": "html", "status": 403}, errors.UnexpectedAnswerError, kind="token", requests=2
    ),
    "no token: 404, as a page": FaultCase(
        {"fault": "html", "status": 404}, errors.UnexpectedAnswerError, kind="token", requests=2
    ),
    "no token: 429": FaultCase(status(429), errors.ThrottledError, kind="token"),
    "no token: reset": FaultCase({"fault": "drop_before"}, errors.InterruptedCallError, kind="token"),
    "no token: broken JSON": FaultCase({"fault": "not_json"}, errors.UnexpectedAnswerError, kind="token"),
    "no token: another shape": FaultCase(
        {"fault": "wrong_shape"}, errors.UnexpectedAnswerError, kind="token"
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_survives_a_single_fault_in_real_time(
    name: str,
    real_time: RunScenario,
    emulator: EmulatorControl,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = FAULTS[name]
    connect(**{"max_attempts": 1, "instance_lookup": "list", **row.extra})

    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id)
        await until(lambda: polls(emulator))
        row.strike(emulator)
        await until(lambda: not emulator.faults())
        emulator.act(instance_id, "approve")
        await approval.succeeds()

    real_time(scenario())
    assert notes(capsys) == ([FAIL, SUCCEED] if row.error else [])


@pytest.mark.parametrize("name", MORE_FAULTS)
def test_survives_a_single_fault(
    name: str, fast_time: RunScenario, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    row = MORE_FAULTS[name]

    async def scenario() -> None:
        instance_id = waiting(emulator)
        approval = ApprovalWait(instance_id)
        await until(lambda: polls(emulator))
        row.strike(emulator)
        await until(lambda: approval.failed_polls)
        emulator.act(instance_id, "approve")
        await approval.succeeds()

    fast_time(scenario())
    assert notes(capsys) == [FAIL, SUCCEED]


@pytest.mark.parametrize("name", [name for name, row in {**FAULTS, **MORE_FAULTS}.items() if row.error])
def test_reports_a_lasting_fault_by_its_error_class(
    name: str,
    fast_time: RunScenario,
    emulator: EmulatorControl,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = {**FAULTS, **MORE_FAULTS}[name]
    connect(**{"max_attempts": 1, "instance_lookup": "list", **row.extra})

    async def scenario() -> None:
        approval = ApprovalWait(waiting(emulator), max_poll_failure_time=100)
        await until(lambda: polls(emulator))
        row.strike(emulator, FOR_EVER)
        assert row.error
        await approval.fails(row.error, "polls have failed for 100 s ('max_poll_failure_time')")

    fast_time(scenario())
    assert notes(capsys) == [FAIL]


FIXED_BY_A_SECOND_ATTEMPT = (
    "503",
    "a connection reset after",
    "429",
    "slower than the read timeout",
    "broken JSON",
    "another shape",
)


@pytest.mark.parametrize("name", [*FIXED_BY_A_SECOND_ATTEMPT, "a page with 200"])
def test_does_not_log_a_fault_that_a_second_attempt_fixes(
    name: str,
    real_time: RunScenario,
    emulator: EmulatorControl,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = {**FAULTS, **MORE_FAULTS}[name]
    connect(**row.extra)

    async def scenario() -> None:
        instance_id = waiting(emulator)
        row.strike(emulator)
        approval = ApprovalWait(instance_id)
        await until(lambda: polls(emulator) >= 2)
        emulator.act(instance_id, "approve")
        await approval.succeeds()

    real_time(scenario())
    assert notes(capsys) == []


@pytest.mark.parametrize("name", ["a redirect", "too long an answer"])
def test_does_not_resend_after_a_fault_that_a_second_attempt_cannot_fix(
    name: str, fast_time: RunScenario, emulator: EmulatorControl, connect: Connect
) -> None:
    row = {**FAULTS, **MORE_FAULTS}[name]
    connect(instance_lookup="list", **row.extra)

    async def scenario() -> None:
        approval = ApprovalWait(waiting(emulator), max_poll_failure_time=0)
        row.strike(emulator, FOR_EVER)
        assert row.error
        await approval.fails(row.error)

    fast_time(scenario())
    assert states_asked(emulator) == list(STATES)
