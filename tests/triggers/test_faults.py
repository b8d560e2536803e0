"""Faults while a trigger waits, over HTTP: what passes is survived, what does not is told, and nothing is ever written.

The real trigger, poller and client talk to the emulator. Most tests let time fly: whenever nothing is under way, the
event loop skips to its next timer, and the emulator's clock goes along. Each kind of fault is met in real time, too.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Executor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from functools import partial
from itertools import pairwise
from selectors import DefaultSelector, SelectorKey
from typing import Any, TypeVar, get_args, get_type_hints

import pytest
import requests

from airflow_provider_astrobpm.bpm import api, errors, event, poller
from airflow_provider_astrobpm.bpm.aio_transport import AsyncTransport
from airflow_provider_astrobpm.bpm.errors import AstroZeroError
from airflow_provider_astrobpm.bpm.findings import MOST_IN_VAIN
from airflow_provider_astrobpm.bpm.instance import BpmInstance
from airflow_provider_astrobpm.bpm.states import STATES
from airflow_provider_astrobpm.bpm.token import TOKENS
from airflow_provider_astrobpm.emulator.remote import EmulatorControl, EmulatorError
from airflow_provider_astrobpm.emulator.running import EmulatorServer
from airflow_provider_astrobpm.emulator.switches import Switches
from airflow_provider_astrobpm.hooks.connection import settings_from
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmInstanceTrigger

T = TypeVar("T")
Play = Callable[[Coroutine[Any, Any, Any]], Any]
Connect = Callable[..., None]

READS = {"token", "query", "get"}
WAITING = "Waiting for user interaction"
LAST_STATE = list(STATES)[-1]  # of a whole look
FAIL, SUCCEED = "Polls fail from now on", "Polls succeed again"
NOTES = (FAIL, SUCCEED, "looking again", "The connection has changed", "The wait could not go on")
FOR_EVER = 100_000


class FastLoop(asyncio.SelectorEventLoop):
    """An event loop that skips to its next timer whenever nothing is under way: no request, no thread.

    :param passes: is told what was skipped, in seconds.
    """

    def __init__(self, passes: Callable[[float], None]) -> None:
        self.ahead = 0.0
        """Seconds by which its time is ahead of the real one."""
        self.under_way = 0
        self._passes = passes
        super().__init__(_SkippingSelector(self))

    def time(self) -> float:
        return super().time() + self.ahead

    def skip(self, seconds: float) -> None:
        self.ahead += seconds
        self._passes(seconds)

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> Any:
        def done(_future: Any) -> None:
            self.under_way -= 1

        self.under_way += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(done)
        return future


class _SkippingSelector(DefaultSelector):
    def __init__(self, loop: FastLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        if timeout is None or timeout <= 0 or self._loop.under_way:
            return super().select(timeout)
        events = super().select(0)
        if not events:
            self._loop.skip(timeout)
        return events


class Gate:
    """A trigger that waits for an approval, in the running event loop.

    It may terminate its instance when it is killed; no fault must ever make it do so.
    """

    def __init__(self, instance_id: str | None = None, **arguments: Any) -> None:
        self.trigger = AstroZeroBpmInstanceTrigger(
            astro_zero_conn_id="astro_zero_default",
            instance_id=instance_id,
            **{"bp_statuses": ["Approved"], "poll_interval": 1, "terminate_on_kill": True, **arguments},
        )
        self.fired_at = 0.0
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> Any:
        async with aclosing(self.trigger.run()) as events:  # type: ignore[type-var]
            payload = (await events.__anext__()).payload
            self.fired_at = time.time()
        return payload

    async def end(self) -> BpmInstance | AstroZeroError:
        """Return how the wait ends, as its task reads it."""
        flies = isinstance(asyncio.get_running_loop(), FastLoop)
        payload = await asyncio.wait_for(self._task, 3600 if flies else 60)
        if self.trigger._poller is not None:
            await self.trigger._poller.ended()
        return event.decode(json.loads(json.dumps(payload)))

    async def opens(self) -> None:
        """See that the wait ends well."""
        end = await self.end()
        assert isinstance(end, BpmInstance), end
        assert (end.state, end.bp_status) == ("Completed OK", "Approved")

    async def fails(self, kind: type[AstroZeroError], *words: str) -> None:
        """See that the wait ends with an error that says these words."""
        end = await self.end()
        assert type(end) is kind, end
        assert end.connection == "astro_zero_default" or kind is errors.WaitFailedError
        for each in words:
            assert each in str(end)

    @property
    def has_fired(self) -> bool:
        return self._task.done()

    @property
    def failed_looks(self) -> int:
        return self.trigger._poller._failures.in_a_row if self.trigger._poller else 0


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until something has happened."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline
        await asyncio.sleep(0.1)


def now() -> float:
    """Return what the trigger's clock says, in seconds since the epoch."""
    loop = asyncio.get_running_loop()
    return time.time() + (loop.ahead if isinstance(loop, FastLoop) else 0)


def looks(emulator: EmulatorControl) -> int:
    """Return how often the state was asked for in which nearly all instances of these tests are."""
    return sum(query(WAITING) == request["query"].partition("&")[0] for request in emulator.requests())


def query(state: str) -> str:
    return api.query(state).target.partition("?")[2].partition("&")[0]


def states_asked(emulator: EmulatorControl) -> list[str]:
    known = {query(state): state for state in STATES}
    return [known[each["query"].partition("&")[0]] for each in emulator.requests() if each["kind"] == "query"]


def requests_sent(emulator: EmulatorControl) -> int:
    return sum(emulator.counts().values())


def waiting(emulator: EmulatorControl, **arguments: Any) -> str:
    """Start an instance and let it come to where it waits for a person."""
    instance_id: str = emulator.start("PublishApproval", **arguments)["id"]
    assert emulator.instance(instance_id)["state"] == WAITING
    return instance_id


def notes(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what the log has told of polls, in its order."""
    lines = capsys.readouterr().out.splitlines()
    return [note for line in lines for note in NOTES if note in line]


def played(loop: asyncio.AbstractEventLoop, scene: Coroutine[Any, Any, T]) -> T:
    """Run a scene as ``asyncio.run`` does, in a loop of one's own."""

    async def play() -> T:
        try:
            return await scene
        finally:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await loop.shutdown_asyncgens()
            await loop.shutdown_default_executor()

    try:
        return loop.run_until_complete(play())
    finally:
        loop.close()


def nothing_was_written(emulator: EmulatorControl) -> None:
    assert {kind for kind, number in emulator.counts().items() if number} <= READS


@pytest.fixture
def connect(emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Set the connection, with these extras. ``answer_timeout``, which is no extra, may be among them."""

    def set_connection(*, password: str | None = None, **extra: Any) -> None:
        if "answer_timeout" in extra:
            short = extra.pop("answer_timeout")
            monkeypatch.setattr(
                "airflow_provider_astrobpm.hooks.astro_zero.settings_from",
                lambda connection: replace(settings_from(connection), answer_timeout=short),
            )
        connection = {**json.loads(emulator_server.connection_json()), "extra": extra}
        if password is not None:
            connection["password"] = password
        monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(connection))

    return set_connection


@pytest.fixture(autouse=True)
def _one_attempt(emulator: EmulatorControl, connect: Connect) -> None:
    """Let every fault be a failed look, unless a test says otherwise."""
    connect(max_attempts=1, instance_lookup="list")


@pytest.fixture
def real_time(emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Play a scene in real time; the first look comes at once."""
    monkeypatch.setattr(poller, "Poller", partial(poller.Poller, jitter=lambda: 0.0))

    def play(scene: Coroutine[Any, Any, T]) -> T:
        result = asyncio.run(scene)
        nothing_was_written(emulator)
        return result

    return play


@pytest.fixture
def fast_time(emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Play a scene in a loop that skips what nobody has to wait for; the first look comes at once."""
    owed = 0.0

    def passes(seconds: float) -> None:
        nonlocal owed
        owed += seconds
        try:
            emulator.advance(owed)
        except EmulatorError:
            return  # it does not listen; it learns of it later
        owed = 0.0

    loop = FastLoop(passes)
    send = AsyncTransport.send

    async def send_in_real_time(self: AsyncTransport, request: Any) -> Any:
        loop.under_way += 1
        try:
            return await send(self, request)
        finally:
            loop.under_way -= 1

    monkeypatch.setattr(AsyncTransport, "send", send_in_real_time)
    monkeypatch.setattr(TOKENS, "_clock", lambda: time.monotonic() + loop.ahead)
    monkeypatch.setattr(
        poller,
        "Poller",
        partial(poller.Poller, clock=lambda: time.time() + loop.ahead, jitter=lambda: 0.0),
    )

    def play(scene: Coroutine[Any, Any, T]) -> T:
        result = played(loop, scene)
        nothing_was_written(emulator)
        return result

    return play


# What goes wrong with single requests.


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


def status(code: int, **parameters: Any) -> dict[str, Any]:
    return {"fault": "status", "status": code, **parameters}


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


# Lists that fail by themselves.


def test_a_list_that_fails_costs_only_those_in_it(
    fast_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scene() -> None:
        here, there = waiting(emulator), waiting(emulator)
        emulator.move(there, state="Running")
        lucky, unlucky = (
            Gate(here, poll_interval=10),
            Gate(there, poll_interval=10, max_poll_failure_time=100),
        )
        await until(lambda: states_asked(emulator).count("Running") >= 2)
        emulator.fault("query", **status(503), target="states=Running", times=FOR_EVER)
        await asyncio.sleep(90)
        assert not unlucky.has_fired
        await asyncio.sleep(25)
        assert unlucky.has_fired
        assert not lucky.has_fired
        assert lucky.failed_looks == 0
        assert states_asked(emulator).count(WAITING) >= 12  # nothing backs off for one list
        emulator.act(here, "approve")
        await lucky.opens()
        await unlucky.fails(errors.ServerError, "list the instances in state 'Running'", "failed for 100 s")

    fast_time(scene())
    assert notes(capsys) == [FAIL]


@pytest.mark.parametrize(
    "fault", [{"fault": "html", "status": 200}, {"fault": "not_json"}, status(503)], ids=str
)
def test_a_key_that_nothing_carries_yet_makes_no_poll_fail(
    fault: dict[str, Any],
    fast_time: Play,
    emulator: EmulatorControl,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It lists every state twice in each poll, and one answer of twenty makes no sense."""
    connect(instance_lookup="list")

    async def scene() -> None:
        emulator.fault("query", **fault, share=0.05, times=FOR_EVER)
        ids = [waiting(emulator, business_key=f"other-{number}") for number in range(3)]
        gates = [Gate(each, poll_interval=60) for each in ids] + [Gate(business_key="k", poll_interval=60)]
        await asyncio.sleep(3600)
        ids.append(waiting(emulator, business_key="k"))
        await asyncio.sleep(120)
        assert not any(gate.has_fired for gate in gates)
        for each in ids:
            emulator.act(each, "approve")
        await asyncio.gather(*[gate.opens() for gate in gates])

    fast_time(scene())
    assert notes(capsys) == []


@pytest.mark.parametrize("name", [None, "PublishApproval"])
def test_where_the_lists_show_no_keys_a_gate_by_key_fails_at_once(
    name: str | None, fast_time: Play, emulator: EmulatorControl
) -> None:
    async def scene() -> None:
        emulator.switch(business_keys_in_rows=False)
        by_key = Gate(business_key="k", bpm_name=name, poll_interval=60)
        await asyncio.sleep(150)
        assert not by_key.has_fired, "an empty list proves nothing"
        waiting(emulator, business_key="k")
        await by_key.fails(errors.KeysNotShownError, "none of the 1 listed instances shows a business key")

    fast_time(scene())


def test_rows_that_contradict_each_other_open_no_gate(
    fast_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=10)
        await until(lambda: looks(emulator))
        emulator.fault(
            "query",
            "twice",
            target=WAITING,
            times=FOR_EVER,
            fields={"state": "Completed OK", "bpStatus": "Approved"},
        )
        await asyncio.sleep(100)
        assert not gate.has_fired
        emulator.clear_faults()
        await asyncio.sleep(100)
        assert not gate.has_fired
        emulator.act(instance_id, "reject")
        await gate.fails(errors.WaitFailedError, "'Rejected'")

    fast_time(scene())
    assert notes(capsys) == [FAIL, SUCCEED]


@pytest.mark.parametrize(
    "fields", [{"name": "Another"}, {"businessKey": "z"}, {"name": "Another", "businessKey": "z"}], ids=str
)
@pytest.mark.parametrize("knows", [False, True])
def test_another_instance_under_the_same_id_opens_no_gate(
    fields: dict[str, Any], knows: bool, fast_time: Play, emulator: EmulatorControl
) -> None:
    async def scene() -> None:
        started = emulator.start("PublishApproval", business_key="k")
        seen = {"name": "PublishApproval", "state": "Dispatched", "business_key": "k", "id": started["id"]}
        gate = Gate(started["id"], seen=seen if knows else None)
        if not knows:
            await until(lambda: looks(emulator) >= 2)
        emulator.distort(started["id"], fields)
        emulator.act(started["id"], "approve")
        await gate.fails(
            errors.AnotherInstanceError, "of 'PublishApproval' with business key 'k'", "now it is"
        )

    fast_time(scene())


def test_rows_that_show_no_keys_are_no_other_instance(fast_time: Play, emulator: EmulatorControl) -> None:
    async def scene() -> None:
        emulator.switch(business_keys_in_rows=False)
        instance_id = waiting(emulator, business_key="k")
        seen = {"name": "ns__PublishApproval", "state": "Dispatched", "business_key": "k", "id": instance_id}
        gate = Gate(instance_id, seen=seen)
        await until(lambda: looks(emulator))
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())


@pytest.mark.parametrize(("grace", "opens"), [(300, True), (60, False)])
def test_an_instance_that_shows_late_is_not_gone_before_start_grace_has_passed(
    grace: float, opens: bool, fast_time: Play, emulator: EmulatorControl, connect: Connect
) -> None:
    connect(max_attempts=1, instance_lookup="list", start_grace=grace)

    async def scene() -> None:
        instance_id = emulator.start("PublishApproval")["id"]
        emulator.switch(start_lag=150)
        gate = Gate(instance_id, poll_interval=10)
        if not opens:
            await gate.fails(errors.InstanceNotFoundError, instance_id)
            return
        await asyncio.sleep(200)
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())


# Outages.


@asynccontextmanager
async def outage(mode: str, server: EmulatorServer) -> AsyncIterator[None]:
    if mode == "not listening":
        with server.unreachable():
            yield
    else:
        server.control.outage(mode=mode)  # type: ignore[arg-type]
        yield
        server.control.outage(False)


@pytest.mark.parametrize("mode", ["cut", "503", "not listening"])
def test_a_short_outage(
    mode: str,
    real_time: Play,
    emulator: EmulatorControl,
    emulator_server: EmulatorServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id)
        await until(lambda: looks(emulator))
        async with outage(mode, emulator_server):
            await until(lambda: gate.failed_looks)
        emulator.act(instance_id, "approve")
        await gate.opens()

    real_time(scene())
    assert notes(capsys) == [FAIL, SUCCEED]


@pytest.mark.parametrize("extra", [{}, {"max_attempts": 1, "instance_lookup": "list"}], ids=["auto", "list"])
@pytest.mark.parametrize("interval", [1, 30])
@pytest.mark.parametrize("mode", ["cut", "503", "not listening"])
def test_an_outage_of_a_minute(
    mode: str,
    interval: float,
    extra: dict[str, Any],
    fast_time: Play,
    emulator: EmulatorControl,
    emulator_server: EmulatorServer,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect(**extra)

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=interval)
        await until(lambda: looks(emulator))
        async with outage(mode, emulator_server):
            await asyncio.sleep(60)
            assert not gate.has_fired
        emulator.act(instance_id, "approve")
        closed = now()
        await gate.opens()
        # While looks fail, the pauses between them grow, to a minute at most.
        assert now() - closed <= 62

    fast_time(scene())
    assert notes(capsys) == [FAIL, SUCCEED]


def test_polls_fail_and_succeed_again_and_again(
    fast_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each stretch is counted anew, and each change is told once, not each look."""

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=5)
        for _ in range(3):
            emulator.outage(mode="503")
            await asyncio.sleep(300)
            assert gate.failed_looks > 3
            emulator.outage(False)
            await asyncio.sleep(90)
            assert gate.failed_looks == 0
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
    assert notes(capsys) == [FAIL, SUCCEED] * 3


@pytest.mark.parametrize("mode", ["cut", "503"])
def test_an_outage_that_lasts(
    mode: Any, fast_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    """It fails the wait after the ten minutes that are the default, not sooner and not much later."""

    async def scene() -> None:
        gate = Gate(waiting(emulator))
        await until(lambda: looks(emulator))
        emulator.outage(mode=mode)
        began = now()
        await asyncio.sleep(595)
        assert not gate.has_fired
        kind = errors.ServerError if mode == "503" else errors.InterruptedCallError
        await gate.fails(kind, "polls have failed for 600 s ('max_poll_failure_time')")
        assert 600 <= now() - began < 603

    fast_time(scene())
    assert notes(capsys) == [FAIL]


def test_an_outage_that_ends_just_in_time(
    fast_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id)
        await until(lambda: looks(emulator))
        emulator.outage(mode="503")
        await asyncio.sleep(595)
        emulator.outage(False)
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
    assert notes(capsys) == [FAIL, SUCCEED]


def test_a_deadline_in_an_outage_is_a_time_out(fast_time: Play, emulator: EmulatorControl) -> None:
    async def scene() -> None:
        deadline = now() + 100
        gate = Gate(waiting(emulator), deadline=deadline)
        await until(lambda: looks(emulator))
        emulator.outage()
        await gate.fails(
            errors.WaitTimeoutError,
            "last seen: instance",
            "polls have failed since",
            "Could not list the instances in state 'Waiting for user interaction' on connection 'astro_zero_default'",
        )
        assert 0 <= now() - deadline < 2

    fast_time(scene())


def test_an_outage_costs_the_server_as_much_for_fifty_as_for_one(
    fast_time: Play,
    emulator: EmulatorControl,
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def cost(number: int) -> int:
        emulator.reset()
        TOKENS.clear()
        ids = [waiting(emulator) for _ in range(number)]
        gates = [Gate(each) for each in ids]
        await until(lambda: looks(emulator))
        before = requests_sent(emulator)
        emulator.outage(mode="503")
        await asyncio.sleep(120)
        spent = requests_sent(emulator) - before
        emulator.outage(False)
        for each in ids:
            emulator.act(each, "approve")
        await asyncio.gather(*[gate.opens() for gate in gates])
        assert notes(capsys).count(FAIL) == number  # each task's own log tells it
        nothing_was_written(emulator)
        return spent

    async def scene() -> tuple[int, int]:
        return await cost(1), await cost(50)

    for_one, for_fifty = fast_time(scene())
    record_property("requests", (for_one, for_fifty))
    # Fifty may have been seen in two states, and a poll gives up after that many lists that fail.
    assert for_one <= for_fifty <= MOST_IN_VAIN * for_one


# A server that asks to be left alone.


def around(emulator: EmulatorControl, refused: int) -> tuple[float, float]:
    """Return when the request came that was answered with this status, and when the one after it."""
    ((before, after),) = [
        (before["at"], after["at"])
        for before, after in pairwise(emulator.requests())
        if before["status"] == refused
    ]
    return before, after


def test_retry_after(real_time: Play, emulator: EmulatorControl) -> None:
    async def scene() -> None:
        instance_id = waiting(emulator)
        emulator.fault("query", **status(429, retry_after=3))
        gate = Gate(instance_id)
        await until(lambda: not emulator.faults())
        emulator.act(instance_id, "approve")
        await gate.opens()

    real_time(scene())
    refused_at, asked_again_at = around(emulator, 429)
    assert 3 <= asked_again_at - refused_at < 5


@pytest.mark.parametrize(
    ("asked", "extra"), [(100, {"max_attempts": 1}), (20, {}), (3600, {"max_attempts": 1})]
)
@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("code", [429, 503])
def test_a_long_retry_after_holds_for_those_who_come_later_too(
    code: int,
    form: str,
    asked: int,
    extra: dict[str, Any],
    fast_time: Play,
    emulator: EmulatorControl,
    connect: Connect,
) -> None:
    """Only where it asks for more than ten minutes, the next look comes after ten."""
    connect(instance_lookup="list", **extra)

    async def scene() -> None:
        instance_id = waiting(emulator)
        gates = [Gate(instance_id, max_poll_failure_time=10_000)]
        await until(lambda: looks(emulator))
        date = int(now()) + asked + 1
        retry_after = asked if form == "seconds" else formatdate(date, usegmt=True)
        emulator.fault("query", **status(code, retry_after=retry_after))
        await until(lambda: not emulator.faults())
        gates.append(Gate(instance_id))
        emulator.act(instance_id, "approve")
        await asyncio.gather(*[gate.opens() for gate in gates])
        refused_at, asked_again_at = around(emulator, code)
        asked_until = refused_at + asked if form == "seconds" else date
        earliest = min(asked_until, refused_at + 600)
        assert earliest - 0.05 <= asked_again_at < earliest + 2

    fast_time(scene())


# Tokens and credentials.

END_OF_TOKENS: dict[str, Callable[[EmulatorControl], object]] = {
    "expired": lambda emulator: emulator.advance(601),
    "revoked": lambda emulator: emulator.revoke_tokens(),
}


async def a_token_ends(how: str, emulator: EmulatorControl) -> None:
    instance_id = waiting(emulator)
    gate = Gate(instance_id)
    await until(lambda: looks(emulator))
    END_OF_TOKENS[how](emulator)
    await until(lambda: looks(emulator) >= 3)  # one of them was refused, the next one is its repetition
    assert emulator.counts()["token"] == 2
    emulator.act(instance_id, "approve")
    await gate.opens()


@pytest.mark.parametrize("how", END_OF_TOKENS)
def test_a_token_that_ends_is_renewed_without_a_word(
    how: str, real_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    real_time(a_token_ends(how, emulator))
    assert emulator.counts()["token"] == 2
    assert notes(capsys) == []


@pytest.mark.parametrize("how", END_OF_TOKENS)
@pytest.mark.parametrize("report", get_args(get_type_hints(Switches)["bad_token"]))
def test_a_token_that_ends_in_whatever_way_that_is_reported(
    report: str,
    how: str,
    fast_time: Play,
    emulator: EmulatorControl,
    capsys: pytest.CaptureFixture[str],
) -> None:
    emulator.switch(bad_token=report)
    fast_time(a_token_ends(how, emulator))
    assert emulator.counts()["token"] == 2
    assert notes(capsys) == []


def test_a_token_is_renewed_before_it_ends(fast_time: Play, emulator: EmulatorControl) -> None:
    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=20)
        await asyncio.sleep(1500)  # a token lives for 600
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
    assert emulator.counts()["token"] == 3
    assert {request["status"] for request in emulator.requests()} == {200}


@pytest.mark.parametrize("shape", ["text", "absent", "zero", "negative", "words"])
def test_a_token_whose_end_is_told_oddly_or_not_at_all(
    shape: str, fast_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.switch(expires_in=shape)

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=20)
        await asyncio.sleep(1500)  # a token lives for 600
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
    assert notes(capsys) == []
    assert emulator.counts()["token"] == 3
    # What ends unseen is refused once; what says its end, as a text, is renewed before.
    refused = sum(request["status"] == 401 for request in emulator.requests())
    assert refused == (0 if shape == "text" else 2)


@pytest.fixture
def take_token(emulator: EmulatorControl, emulator_server: EmulatorServer) -> Callable[[], str]:
    """Request a token as another process with the same client does."""
    fields = {
        "grant_type": "client_credentials",
        "client_id": emulator_server.settings.client_id,
        "client_secret": emulator_server.settings.client_secret,
    }

    def take() -> str:
        answer = requests.post(emulator_server.url + api.TOKEN_PATH, data=fields, timeout=10)
        return str(answer.json()["access_token"])

    return take


@pytest.mark.parametrize("report", ["401", "403_html", "500_602"])
def test_fifty_waits_where_each_new_token_ends_the_older_one(
    report: str,
    fast_time: Play,
    emulator: EmulatorControl,
    take_token: Callable[[], str],
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A task that begins every second requests a token of its own."""
    emulator.switch(concurrent_tokens=False, bad_token=report)
    connect()  # with as many attempts as usual

    async def tasks() -> None:
        while True:
            await asyncio.to_thread(take_token)
            await asyncio.sleep(1)

    async def scene() -> None:
        ids = [waiting(emulator) for _ in range(50)]
        gates = [Gate(each, poll_interval=5) for each in ids]
        others = asyncio.ensure_future(tasks())
        await asyncio.sleep(120)
        for each in ids:
            emulator.act(each, "approve")
        await asyncio.gather(*[gate.opens() for gate in gates])
        others.cancel()

    fast_time(scene())
    assert notes(capsys) == []  # not one poll failed


def test_a_race_for_tokens_that_is_lost_again_and_again(
    fast_time: Play, emulator: EmulatorControl, connect: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each fresh token is refused for 300 s: the wait outlives it, and does not ask all the time."""
    connect(instance_lookup="list")

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=10)
        await until(lambda: looks(emulator))
        emulator.fault("query", **status(401), times=FOR_EVER)
        await asyncio.sleep(300)
        assert not gate.has_fired
        emulator.clear_faults()
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
    assert notes(capsys) == [FAIL, SUCCEED]
    assert emulator.counts()["token"] <= 1 + 8 * 5  # polls of five attempts, further and further apart


@pytest.fixture
def change_secret(
    emulator_server: EmulatorServer, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Let the server know another secret, and none of the tokens that it gave for the old one."""

    def change(secret: str) -> None:
        inside = emulator_server._emulator
        monkeypatch.setattr(inside, "settings", replace(inside.settings, client_secret=secret))
        emulator.revoke_tokens()

    return change


def test_credentials_that_are_refused_fail_the_wait_at_once(
    real_time: Play,
    emulator: EmulatorControl,
    change_secret: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        gates = [Gate(waiting(emulator)) for _ in range(2)]
        await until(lambda: looks(emulator))
        change_secret("another-secret")
        for gate in gates:
            await gate.fails(errors.AuthenticationError, "the client id or the secret was refused")

    real_time(scene())
    counts = emulator.counts()
    assert counts["token"] == 1 + 2  # it may be sent in two encodings
    assert counts["query"] <= 3
    assert notes(capsys) == []


def test_a_changed_connection_is_read_anew(
    real_time: Play,
    emulator: EmulatorControl,
    change_secret: Callable[[str], None],
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        ids = [waiting(emulator) for _ in range(3)]
        gates = [Gate(each) for each in ids]
        await until(lambda: looks(emulator))
        change_secret("another-secret")
        connect(password="another-secret", max_attempts=1, instance_lookup="list")
        await until(lambda: emulator.counts()["token"] >= 4)
        for each in ids:
            emulator.act(each, "approve")
        await asyncio.gather(*[gate.opens() for gate in gates])

    real_time(scene())
    assert emulator.counts()["token"] == 1 + 2 + 1
    assert notes(capsys) == ["The connection has changed"] * 3


def test_a_connection_that_was_changed_for_the_worse(
    fast_time: Play,
    emulator: EmulatorControl,
    change_secret: Callable[[str], None],
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        gate = Gate(waiting(emulator))
        await until(lambda: looks(emulator))
        change_secret("another-secret")
        connect(password="a-third-secret", max_attempts=1, instance_lookup="list")
        await gate.fails(errors.AuthenticationError, "the client id or the secret was refused")

    fast_time(scene())
    assert notes(capsys) == ["The connection has changed"]


def test_a_changed_connection_is_read_anew_whatever_the_token_endpoint_says(
    fast_time: Play,
    emulator: EmulatorControl,
    change_secret: Callable[[str], None],
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The old secret is refused in a way that may mean anything, so the polls have to fail for a while first."""

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, max_poll_failure_time=100)
        await until(lambda: looks(emulator))
        emulator.fault("token", **status(403), times=FOR_EVER)
        change_secret("another-secret")
        connect(password="another-secret", max_attempts=1, instance_lookup="list")
        before = gate.trigger._poller
        await until(lambda: gate.trigger._poller is not before, 200)
        emulator.clear_faults()
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
    assert notes(capsys)[:2] == [FAIL, "The connection has changed"]


@pytest.mark.parametrize("good_at_first", [False, True])
def test_a_ready_token_that_is_refused(
    good_at_first: bool,
    real_time: Play,
    emulator: EmulatorControl,
    emulator_server: EmulatorServer,
    connect: Connect,
) -> None:
    token = "never-valid"
    if good_at_first:
        fields = {
            "grant_type": "client_credentials",
            "client_id": emulator_server.settings.client_id,
            "client_secret": emulator_server.settings.client_secret,
        }
        token = requests.post(emulator_server.url + api.TOKEN_PATH, data=fields, timeout=10).json()[
            "access_token"
        ]
    connect(access_token=token, max_attempts=1, instance_lookup="list")

    async def scene() -> None:
        gate = Gate(waiting(emulator))
        await until(lambda: looks(emulator))
        emulator.revoke_tokens()
        await gate.fails(errors.AuthenticationError, "the access token was refused", "'access_token'")

    real_time(scene())
    assert emulator.counts()["token"] == int(good_at_first)  # the one above


# Instances that are hard to find.


async def while_asked_for(state: str, emulator: EmulatorControl, happens: Callable[[], object]) -> None:
    """Let something happen after the server has looked up its answer to a query, and before it sends it."""
    before = states_asked(emulator).count(state)
    await until(lambda: states_asked(emulator).count(state) > before)
    happens()


@pytest.mark.parametrize(
    ("held", "happens"),
    [
        (WAITING, lambda emulator, it: emulator.move(it, state=WAITING)),
        ("Completed OK", lambda emulator, it: emulator.act(it, "approve")),
    ],
    ids=["to a state that was asked for", "to its end"],
)
def test_an_instance_that_moves_between_two_queries(
    held: str,
    happens: Callable[[EmulatorControl, str], object],
    fast_time: Play,
    emulator: EmulatorControl,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It shows in none of the states, and yet it is not missed: they are asked once more."""

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=10)
        await until(lambda: looks(emulator))
        emulator.move(instance_id, state="Dispatched")
        skip = list(STATES).index(held)
        emulator.fault("query", "delay", seconds=0.5, work_done=True, skip=skip)
        await while_asked_for(held, emulator, lambda: happens(emulator, instance_id))
        if held == WAITING:
            await asyncio.sleep(25)
            assert not gate.has_fired
            emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
    asked = states_asked(emulator)
    assert asked[: 1 + 12] == [WAITING, *STATES]
    assert asked[13 : 13 + list(STATES).index(held) + 1] == list(STATES)[: list(STATES).index(held) + 1]
    assert notes(capsys) == []


def test_an_instance_that_moves_is_not_mistaken_for_an_ended_one_of_the_same_key(
    fast_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scene() -> None:
        emulator.act(waiting(emulator, business_key="k"), "approve")
        instance_id = waiting(emulator, business_key="k")
        emulator.move(instance_id, state="Dispatched")
        emulator.fault("query", "delay", seconds=0.5, work_done=True)
        gate = Gate(business_key="k", poll_interval=10)
        await while_asked_for(WAITING, emulator, lambda: emulator.move(instance_id, state=WAITING))
        await asyncio.sleep(25)
        assert not gate.has_fired
        emulator.act(instance_id, "reject")
        await gate.fails(errors.WaitFailedError, instance_id, "'Rejected'")

    fast_time(scene())
    assert notes(capsys) == []


LOOKUPS = [("list", "absent"), ("auto", "absent"), ("auto", "row"), ("by_id", "row"), ("by_id", "action")]


@pytest.mark.parametrize(("lookup", "get_by_id"), LOOKUPS)
def test_an_instance_that_vanishes_is_never_a_success(
    lookup: str,
    get_by_id: str,
    fast_time: Play,
    emulator: EmulatorControl,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect(instance_lookup=lookup)
    emulator.switch(get_by_id=get_by_id)

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=20)
        await until(lambda: emulator.counts()["get" if lookup == "by_id" or get_by_id == "row" else "query"])
        emulator.vanish(instance_id)
        vanished = now()
        await gate.fails(errors.InstanceNotFoundError, instance_id)
        # It is missed first after 20 s, and then for a minute.
        assert 75 <= now() - vanished < 105

    fast_time(scene())
    assert notes(capsys) == ["looking again"]


def test_a_minute_is_not_enough_where_looks_are_rare(fast_time: Play, emulator: EmulatorControl) -> None:
    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=100)
        await until(lambda: looks(emulator))
        emulator.vanish(instance_id)
        await gate.fails(errors.InstanceNotFoundError, instance_id)
        assert looks(emulator) == 1 + 3 * 2  # a whole look that misses it asks for each state twice

    fast_time(scene())


def test_looks_that_fail_do_not_count_as_looks_that_miss(fast_time: Play, emulator: EmulatorControl) -> None:
    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=20)
        await until(lambda: looks(emulator))
        emulator.vanish(instance_id)
        await until(lambda: states_asked(emulator).count(LAST_STATE) == 2)  # it was missed once
        emulator.outage(mode="503")
        await asyncio.sleep(200)
        assert not gate.has_fired
        emulator.outage(False)
        before = looks(emulator)
        await gate.fails(errors.InstanceNotFoundError, instance_id)
        assert looks(emulator) - before == 4

    fast_time(scene())


@pytest.fixture
def unknown_state(monkeypatch: pytest.MonkeyPatch) -> str:
    """A state that only the server knows; nobody can ask for it, so no list ever shows it."""
    monkeypatch.setattr("airflow_provider_astrobpm.emulator.engine.STATES", {**STATES, "Archived": None})
    return "Archived"


@pytest.mark.parametrize("shape", ["action", "row"])
def test_an_unknown_state_that_can_be_read_is_waited_through(
    shape: str,
    unknown_state: str,
    fast_time: Play,
    emulator: EmulatorControl,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect()
    emulator.switch(get_by_id=shape)

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id)
        await until(lambda: emulator.counts()["get"])
        emulator.move(instance_id, state=unknown_state, bp_status="Approved")
        await asyncio.sleep(200)
        assert not gate.has_fired
        emulator.move(instance_id, state="Completed OK")
        await gate.opens()

    fast_time(scene())
    assert notes(capsys) == []


def test_an_unknown_state_at_the_end_fails(
    unknown_state: str, fast_time: Play, emulator: EmulatorControl, connect: Connect
) -> None:
    connect()
    emulator.switch(get_by_id="action")  # rows do not say whether an instance has ended

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id)
        await until(lambda: emulator.counts()["get"])
        emulator.move(instance_id, state=unknown_state, bp_status="Approved", closed=True)
        await gate.fails(errors.WaitFailedError, "ended in state 'Archived'")

    fast_time(scene())


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("lookup", ["list", "auto"])
def test_an_unknown_state_that_no_list_shows_fails(
    lookup: str,
    closed: bool,
    unknown_state: str,
    fast_time: Play,
    emulator: EmulatorControl,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect(instance_lookup=lookup)

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=20)
        await until(lambda: looks(emulator))
        emulator.move(instance_id, state=unknown_state, bp_status="Approved", closed=closed)
        await gate.fails(errors.InstanceNotFoundError, instance_id, "does not count as success")

    fast_time(scene())
    assert notes(capsys) == ["looking again"]


def test_an_unknown_state_for_less_than_a_minute_is_survived(
    unknown_state: str, fast_time: Play, emulator: EmulatorControl, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=10)
        await until(lambda: looks(emulator))
        for _ in range(3):  # each time the minute begins anew
            emulator.move(instance_id, state=unknown_state, bp_status="Approved")
            await asyncio.sleep(45)
            emulator.move(instance_id, state=WAITING, bp_status="Submitted")
            await asyncio.sleep(15)
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
    assert notes(capsys) == ["looking again"] * 3


def hide(emulator: EmulatorControl, cap: int) -> None:
    """Cap the lists, and fill them with newer instances."""
    emulator.switch(row_cap=cap)
    for _ in range(cap):
        waiting(emulator)


def test_a_row_cap_hides_nothing_that_can_be_read_by_its_id(
    fast_time: Play, emulator: EmulatorControl, connect: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    connect()
    emulator.switch(get_by_id="row")

    async def scene() -> None:
        ids = [waiting(emulator) for _ in range(2)]  # two in one state: the list is asked first
        hide(emulator, 5)
        gates = [Gate(each, poll_interval=20) for each in ids]
        await asyncio.sleep(200)
        assert looks(emulator) > 5
        assert not any(gate.has_fired for gate in gates)
        for each in ids:
            emulator.act(each, "approve")
        await asyncio.gather(*[gate.opens() for gate in gates])

    fast_time(scene())
    assert notes(capsys) == []


@pytest.mark.parametrize(("cap", "told"), [(100, True), (5, False)])
@pytest.mark.parametrize("lookup", ["list", "auto"])
def test_a_row_cap_that_hides_an_instance_for_good_fails_and_is_named(
    lookup: str, cap: int, told: bool, fast_time: Play, emulator: EmulatorControl, connect: Connect
) -> None:
    connect(instance_lookup=lookup)

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=20)
        await until(lambda: looks(emulator))
        hide(emulator, cap)
        end = await gate.end()
        assert type(end) is errors.InstanceNotFoundError
        words = f"the longest list had {cap} rows, so a row cap may hide it"
        assert (words in str(end)) is told

    fast_time(scene())


# Where nothing goes wrong.


def test_a_gate_in_every_position_of_every_switch(
    lookup: str,
    switch: str,
    position: Any,
    fast_time: Play,
    emulator: EmulatorControl,
    connect: Connect,
) -> None:
    emulator.switch(**{"get_by_id": "action" if lookup == "by_id" else "absent", switch: position})
    connect(instance_lookup=lookup, max_attempts=1)
    seen = (switch, position) not in [("see_others", False), ("keep_closed", False)]

    async def scene() -> None:
        for outcome, opens in [("approve", True), ("reject", False)]:
            instance_id = waiting(emulator)
            emulator.advance(30)
            emulator.act(instance_id, outcome)
            gate = Gate(instance_id, poll_interval=30)
            if opens and seen:
                await gate.opens()
            else:
                await gate.fails(errors.WaitFailedError if seen else errors.InstanceNotFoundError)
            emulator.vanish(instance_id)  # a cap of one row hides what is older

    fast_time(scene())


@pytest.mark.parametrize("interval", [1, 3])
def test_latency(
    interval: float,
    emulator: EmulatorControl,
    record_property: Callable[[str, object], None],
) -> None:
    """Counted from the moment at which the instance ends, by the emulator's clock."""

    async def scene() -> list[float]:
        ids = [waiting(emulator) for _ in range(20)]
        gates = [Gate(each, poll_interval=interval) for each in ids]
        await until(lambda: looks(emulator))
        for each in ids:
            emulator.act(each, "approve")
            await asyncio.sleep(interval / len(ids))
        await asyncio.gather(*[gate.opens() for gate in gates])
        ended = [emulator.instance(each)["ended"] for each in ids]
        return [gate.fired_at - at for gate, at in zip(gates, ended, strict=True)]

    latencies = asyncio.run(scene())
    nothing_was_written(emulator)
    record_property("latencies", [round(each, 3) for each in latencies])
    assert max(latencies) <= interval + 2


@pytest.mark.parametrize(("lookup", "get_by_id"), [*LOOKUPS, ("auto", "not_allowed"), ("auto", "action")])
def test_one_waiter_in_one_state_costs_one_request_a_poll(
    lookup: str, get_by_id: str, fast_time: Play, emulator: EmulatorControl, connect: Connect
) -> None:
    connect(instance_lookup=lookup)
    emulator.switch(get_by_id=get_by_id)

    async def scene() -> None:
        instance_id = waiting(emulator)
        gate = Gate(instance_id, poll_interval=10)
        await asyncio.sleep(5)
        before = requests_sent(emulator)
        await asyncio.sleep(200)
        assert requests_sent(emulator) - before == 20
        emulator.act(instance_id, "approve")
        await gate.opens()

    fast_time(scene())
