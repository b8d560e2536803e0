"""Servers that revoke a token when another process requests one: in a thread, in an event loop, and in a batch."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, get_args, get_type_hints

import pytest

from airflow_provider_astrobpm.batches.batch_decision import StartLaunch
from airflow_provider_astrobpm.batches.batch_input import Launch
from airflow_provider_astrobpm.batches.batch_sender import BatchSender
from airflow_provider_astrobpm.batches.bulk_change import BulkChange, change_all
from airflow_provider_astrobpm.batches.send_state import SendState
from airflow_provider_astrobpm.client import errors, operations, process_state
from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
from airflow_provider_astrobpm.client.operations import Operation
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.client.sync_client import BpmClient
from airflow_provider_astrobpm.client.tokens import TokenCache
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.emulator.switches import Switches

BPM = "SupplierOnboarding"
ATTEMPTS = 4
REPORTS = get_args(get_type_hints(Switches)["bad_token"])
Step = Operation[Any] | Callable[[], object]
Play = Callable[..., list[Any]]


@pytest.fixture
def settings(emulator_server: EmulatorServer, emulator: EmulatorControl) -> Settings:
    del emulator  # the fixture resets it
    known = emulator_server.settings
    credentials = ClientCredentials(known.client_id, known.client_secret)
    return Settings("my_conn", emulator_server.url, credentials, connect_timeout=5, max_attempts=ATTEMPTS)


@pytest.fixture
def take_token(settings: Settings) -> Callable[[], object]:
    """Request a token, like another process with the same client id."""
    assert isinstance(settings.credentials, ClientCredentials)
    request = operations.get_token(settings.credentials.client_id, settings.credentials.client_secret)
    return lambda: BpmClient(settings).call(request)


def in_thread(settings: Settings, *steps: Step) -> list[Any]:
    """Run calls on one client, and functions between them. Return the results of the calls."""
    ends: list[Any] = []
    with BpmClient(settings, tokens=TokenCache(), sleep=lambda _seconds: None) as client:
        for step in steps:
            if not isinstance(step, Operation):
                step()
                continue
            try:
                ends.append(client.call(step))
            except errors.CallError as error:
                ends.append(error)
    return ends


async def skip_sleep(_seconds: float) -> None:
    await asyncio.sleep(0)


def in_loop(settings: Settings, *steps: Step) -> list[Any]:
    """Do the same in an event loop."""

    async def main() -> list[Any]:
        ends: list[Any] = []
        async with AsyncBpmClient(settings, tokens=TokenCache(), sleep=skip_sleep) as client:
            for step in steps:
                if not isinstance(step, Operation):
                    await asyncio.to_thread(step)
                    continue
                try:
                    ends.append(await client.call(step))
                except errors.CallError as error:
                    ends.append(error)
        return ends

    return asyncio.run(main())


both = pytest.mark.parametrize("play", [in_thread, in_loop])


@both
@pytest.mark.parametrize("csrf", [False, True])
@pytest.mark.parametrize("report", REPORTS)
def test_calls_survive_a_revoked_token_for_each_form_of_refusal(
    report: str,
    csrf: bool,
    play: Play,
    settings: Settings,
    emulator: EmulatorControl,
    take_token: Callable[[], object],
) -> None:
    emulator.switch(concurrent_tokens=False, bad_token=report, csrf_required=csrf)
    known = emulator.start(BPM)["id"]
    calls = (
        operations.query("Running"),
        operations.start(BPM),
        operations.change_state(known, "suspend"),
        operations.delete(known),
    )
    steps = [each for operation in calls for each in (take_token, operation)]
    steps = [operations.query("Running"), *steps]
    listed, again, started, suspended, deleted = play(replace(settings, csrf=csrf), *steps)
    assert len(listed) == len(again)
    assert suspended.id == known
    if report == "500_602" and not csrf:  # the server may have acted before it failed
        assert [type(each) for each in (started, deleted)] == [errors.ServerError] * 2
        assert (started.was_processed, deleted.was_processed) == (None, None)
        assert len(emulator.instances()) == 1
    else:  # with CSRF, the refused request is the one for the CSRF token
        assert started.name == BPM
        assert deleted is None
        assert [one["id"] for one in emulator.instances()] == [started.id]


@both
@pytest.mark.parametrize("kind", ["query", "start", "action"])
@pytest.mark.parametrize("refused", [2, 2 * ATTEMPTS - 1])
def test_call_survives_a_refused_fresh_token(
    refused: int, kind: str, play: Play, settings: Settings, emulator: EmulatorControl
) -> None:
    known = emulator.start(BPM)["id"]
    calls = {
        "query": operations.query("Running"),
        "start": operations.start(BPM),
        "action": operations.change_state(known, "suspend"),
    }
    emulator.fault(kind, "status", status=401, times=refused)
    (end,) = play(settings, calls[kind])
    assert not isinstance(end, errors.CallError)
    assert emulator.counts()[kind] == refused + 1
    assert len(emulator.instances()) == (2 if kind == "start" else 1)


@both
@pytest.mark.parametrize("kind", ["query", "start"])
def test_permanently_refused_fresh_tokens_fail_the_call(
    kind: str, play: Play, settings: Settings, emulator: EmulatorControl
) -> None:
    emulator.fault(kind, "status", status=401, res_code="405230602", times=1000)
    (end,) = play(settings, {"query": operations.query("Running"), "start": operations.start(BPM)}[kind])
    assert type(end) is errors.TokenRefusedError
    assert (end.was_processed, end.status, end.res_code) == (False, 401, "405230602")
    assert emulator.counts()[kind] == 2 * ATTEMPTS
    assert emulator.counts()["token"] == 1 + ATTEMPTS


@both
@pytest.mark.parametrize("fault", [{"fault": "status"}, {"fault": "html"}])
def test_ambiguous_refusal_costs_one_token(
    fault: dict[str, str], play: Play, settings: Settings, emulator: EmulatorControl
) -> None:
    emulator.fault("query", **fault, status=403, times=1000)
    ends = play(settings, *[operations.query("Running")] * 10)
    assert {type(end) for end in ends} == {errors.RefusedError}
    assert emulator.counts()["token"] == 2
    assert emulator.counts()["query"] == 11


@both
@pytest.mark.parametrize("fault", [{"fault": "status"}, {"fault": "html"}])
def test_start_refused_by_a_gateway_after_the_work_is_not_resent(
    fault: dict[str, str], play: Play, settings: Settings, emulator: EmulatorControl
) -> None:
    """Other calls accept the token, so the token is not at fault."""
    emulator.fault("start", **fault, status=403, work_done=True, times=1000)
    (end,) = play(settings, operations.start(BPM))
    assert type(end) is errors.RefusedError
    assert len(emulator.instances()) == emulator.counts()["start"] == 1
    assert emulator.counts()["token"] == 1


@both
def test_json_only_endpoint_gets_one_request_per_further_token(
    play: Play, settings: Settings, emulator: EmulatorControl, take_token: Callable[[], object]
) -> None:
    emulator.switch(token_body="json")
    play(settings, operations.query("Running"), emulator.revoke_tokens, operations.query("Running"))
    assert emulator.counts()["token"] == 2 + 1


# Many calls at a time.


@contextmanager
def other_processes(take_token: Callable[[], object], every: float) -> Iterator[None]:
    """Simulate other processes that keep requesting tokens."""
    over = threading.Event()

    def take() -> None:
        while not over.wait(every):
            take_token()

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def start_many(settings: Settings, count: int) -> SendState:
    starts = [StartLaunch(Launch(n, BPM, variables={"n": n}), f"key-{n}") for n in range(1, count + 1)]

    async def main() -> SendState:
        async with AsyncBpmClient(settings, tokens=TokenCache()) as client:
            process_state.reset()
            starter = BatchSender(client, log=lambda _note: None, max_concurrency=16)
            return await asyncio.wait_for(starter.start(iter(starts), count), 60)

    return asyncio.run(main())


@pytest.mark.parametrize("csrf", [False, True])
@pytest.mark.parametrize("report", [report for report in REPORTS if report != "500_602"])
def test_batch_starts_each_launch_once(
    report: str,
    csrf: bool,
    settings: Settings,
    emulator: EmulatorControl,
    take_token: Callable[[], object],
) -> None:
    emulator.switch(concurrent_tokens=False, bad_token=report, csrf_required=csrf)
    emulator.fault(
        "start", "delay", seconds=0.05, times=300
    )  # so that tokens are revoked while starts are under way
    with other_processes(take_token, every=0.25):
        came = start_many(replace(settings, csrf=csrf, max_attempts=20, max_wait=0.5), 300)
    assert came.refused == {}
    assert sorted(came.instances) == list(range(1, 301))
    keys = Counter(one["business_key"] for one in emulator.instances())
    assert keys == Counter(f"key-{n}" for n in range(1, 301))


@pytest.mark.parametrize("skip", range(0, 100, 7))
def test_batch_with_csrf_tokens_survives_a_revocation_at_any_time(
    skip: int, settings: Settings, emulator: EmulatorControl
) -> None:
    emulator.switch(csrf_required=True)
    seen = threading.Event()

    def revoke() -> None:
        while not seen.wait(0.001):
            if emulator.counts()["start"] + emulator.counts()["csrf"] > skip:
                emulator.revoke_tokens()
                return

    thread = threading.Thread(target=revoke)
    thread.start()
    try:
        came = start_many(replace(settings, csrf=True), 50)
    finally:
        seen.set()
        thread.join()
    assert came.refused == {}
    assert len(came.instances) == len(emulator.instances()) == 50


@pytest.mark.parametrize("report", ["401", "403_html", "500_602"])
def test_bulk_change_survives_revoked_tokens(
    report: str, settings: Settings, emulator: EmulatorControl, take_token: Callable[[], object]
) -> None:
    emulator.switch(concurrent_tokens=False, bad_token=report)
    ids = [emulator.start(BPM)["id"] for _ in range(200)]

    async def main() -> BulkChange:
        async with AsyncBpmClient(settings, tokens=TokenCache()) as client:
            states = dict.fromkeys(ids)
            return await change_all(client, states, "terminate", log=lambda _note: None)

    with other_processes(take_token, every=0.25):
        change = asyncio.run(main())
    assert sorted(change.done) == sorted(ids), change.note


def test_permanently_refused_fresh_tokens_stop_a_bulk_change(
    settings: Settings, emulator: EmulatorControl
) -> None:
    """The other changes would fail the same way."""
    ids = [emulator.start(BPM)["id"] for _ in range(30)]
    emulator.fault("action", "status", status=401, times=10_000)

    async def main() -> BulkChange:
        async with AsyncBpmClient(settings, tokens=TokenCache(), sleep=skip_sleep) as client:
            return await change_all(client, dict.fromkeys(ids), "suspend", log=lambda _note: None)

    change = asyncio.run(main())
    assert isinstance(change.stopped_by, errors.TokenRefusedError)
    assert len(change.not_tried) == 30
    assert emulator.counts()["action"] <= 16 * 2 * ATTEMPTS
