"""The counts of clients, waits and batches, compared with those of the emulator."""

from __future__ import annotations

import asyncio
import threading
import timeit
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_astrobpm.batches.batch_decision import StartLaunch
from airflow_provider_astrobpm.batches.batch_input import Launch
from airflow_provider_astrobpm.batches.batch_sender import BatchSender
from airflow_provider_astrobpm.client import metrics, operations, process_state
from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
from airflow_provider_astrobpm.client.metrics import NULL_METER, BufferedMeter, RequestCounts
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.client.sync_client import BpmClient
from airflow_provider_astrobpm.client.tokens import TokenCache
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.waiting import polling
from airflow_provider_astrobpm.waiting.condition import WaitCondition
from airflow_provider_astrobpm.waiting.poller import Poller
from airflow_provider_astrobpm.waiting.wait import InstanceWait

BPM = "SupplierOnboarding"


class Recorder(BufferedMeter):
    """A meter that records its flushes."""

    flushes = 0

    def flush(self) -> None:
        self.flushes += 1

    @property
    def seen(self) -> dict[str, int]:
        """The counts so far, with tags as part of the name."""
        return {
            ".".join((name, *(value for _, value in tags))): n for (name, tags), n in self._counts.items()
        }

    @property
    def waiters(self) -> int:
        return self._gauges.get("waiters", 0)


@pytest.fixture
def settings(emulator_server: EmulatorServer, emulator: EmulatorControl) -> Settings:
    del emulator  # the fixture resets it
    known = emulator_server.settings
    credentials = ClientCredentials(known.client_id, known.client_secret)
    return Settings("my_conn", emulator_server.url, credentials, instance_lookup="list")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def sync_calls(settings: Settings, recorder: Recorder, *steps: Any) -> None:
    """Run calls on the sync client, and functions between them."""
    with BpmClient(settings, tokens=TokenCache(), sleep=lambda _: None, meter=recorder) as client:
        for step in steps:
            step() if callable(step) else client.call(step)


def async_calls(settings: Settings, recorder: Recorder, *steps: Any) -> None:
    """Run calls on the async client, and functions between them."""

    async def skip_sleep(_seconds: float) -> None:
        pass

    async def main() -> None:
        async with AsyncBpmClient(settings, tokens=TokenCache(), sleep=skip_sleep, meter=recorder) as client:
            for step in steps:
                await (asyncio.to_thread(step) if callable(step) else client.call(step))

    asyncio.run(main())


CLIENTS = pytest.mark.parametrize("calls", [sync_calls, async_calls], ids=["sync", "async"])
LISTING = operations.query("Running")


@CLIENTS
def test_call_counts_a_token_and_a_request(
    calls: Callable[..., None], settings: Settings, recorder: Recorder
) -> None:
    calls(settings, recorder, LISTING, LISTING)
    assert recorder.seen == {"token_requests": 1, "requests.token": 1, "requests.query": 2}
    assert recorder.flushes


@CLIENTS
def test_renewed_token_and_resend_are_counted(
    calls: Callable[..., None], settings: Settings, recorder: Recorder, emulator: EmulatorControl
) -> None:
    calls(settings, recorder, LISTING, emulator.revoke_tokens, LISTING)
    assert recorder.seen == {"token_requests": 2, "requests.token": 2, "requests.query": 3}
    assert emulator.counts()["query"] == 3


@CLIENTS
def test_each_attempt_of_a_throttled_call_is_counted(
    calls: Callable[..., None], settings: Settings, recorder: Recorder, emulator: EmulatorControl
) -> None:
    emulator.fault("query", "status", status=429, retry_after=0, times=2)
    calls(settings, recorder, LISTING)
    assert recorder.seen["requests.query"] == 3


@CLIENTS
def test_write_with_a_csrf_token_counts_two_requests(
    calls: Callable[..., None], settings: Settings, recorder: Recorder, emulator: EmulatorControl
) -> None:
    emulator.switch(csrf_required=True)
    calls(replace(settings, csrf=True), recorder, operations.start(BPM))
    assert recorder.seen == {
        "token_requests": 1,
        "requests.token": 1,
        "requests.csrf": 1,
        "requests.start": 1,
    }


@CLIENTS
def test_token_request_resent_as_json_is_counted_once(
    calls: Callable[..., None], settings: Settings, recorder: Recorder, emulator: EmulatorControl
) -> None:
    emulator.switch(token_body="json")
    calls(settings, recorder, LISTING)
    assert (recorder.seen["token_requests"], recorder.seen["requests.token"]) == (1, 2)


def test_wait_with_two_polls_on_a_worker(
    settings: Settings, recorder: Recorder, emulator: EmulatorControl
) -> None:
    instance_id = emulator.start(BPM)["id"]
    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        if len(sleeps) == 2:
            emulator.move(instance_id, state="Completed OK")

    with BpmClient(settings, tokens=TokenCache(), sleep=sleep, meter=recorder) as client:
        awaited = InstanceWait(WaitCondition(), instance_id=instance_id)
        worker = polling.WorkerPolling(settings=settings, log=print, clock=client.now, meter=client.meter)
        client.run(worker.run_wait(awaited, 60))
    assert awaited.result().state == "Completed OK"
    assert (recorder.seen["polls"], "poll_errors" in recorder.seen) == (2, False)
    assert recorder.seen["requests.query"] == emulator.counts()["query"]


def test_failed_polls_on_a_worker(settings: Settings, recorder: Recorder, emulator: EmulatorControl) -> None:
    instance_id = emulator.start(BPM)["id"]
    emulator.move(instance_id, state="Completed OK")
    emulator.fault("query", "status", status=503, times=2)
    once = replace(settings, max_attempts=1)
    with BpmClient(once, tokens=TokenCache(), sleep=lambda _: None, meter=recorder) as client:
        awaited = InstanceWait(WaitCondition(), instance_id=instance_id)
        worker = polling.WorkerPolling(settings=once, log=print, clock=client.now, meter=client.meter)
        client.run(worker.poll_until_conclusive(awaited, 1))
    assert (recorder.seen["polls"], recorder.seen["poll_errors"]) == (2, 1)


def test_two_waits_in_the_triggerer_share_their_polls(
    settings: Settings, recorder: Recorder, emulator: EmulatorControl
) -> None:
    ids = [emulator.start(BPM)["id"] for _ in range(2)]
    waiters: list[int] = []

    async def wait_with(poller: Poller, instance_id: str) -> None:
        awaited = InstanceWait(WaitCondition(), instance_id=instance_id)
        async with poller.join(awaited, interval=1, connection="my_conn") as subscription:
            while awaited.ending is None:
                await subscription.notes()
                waiters.append(recorder.waiters)

    async def main() -> None:
        emulator.fault("query", "status", status=503)
        client = AsyncBpmClient(replace(settings, max_attempts=1), tokens=TokenCache(), meter=recorder)
        poller = Poller(client, jitter=lambda: 0.0)
        waits = [asyncio.ensure_future(wait_with(poller, one)) for one in ids]
        while recorder.seen.get("polls", 0) < 2:  # noqa: ASYNC110 - a counter cannot be awaited
            await asyncio.sleep(0.01)
        for one in ids:
            await asyncio.to_thread(emulator.move, one, state="Completed OK")
        await asyncio.gather(*waits)
        await poller.ended()

    asyncio.run(main())
    seen = recorder.seen
    assert seen["poll_errors"] == 1
    assert seen["polls"] >= 3
    assert seen["requests.query"] == emulator.counts()["query"]
    assert max(waiters) == 2
    assert recorder.waiters == 0
    assert recorder.flushes >= seen["polls"]


def test_batch_counts_starts_with_lost_answers(
    settings: Settings, recorder: Recorder, emulator: EmulatorControl
) -> None:
    emulator.fault("start", "drop_after", skip=2)
    starts = [StartLaunch(Launch(number, BPM), f"key-{number}") for number in range(1, 8)]

    async def main() -> int:
        async with AsyncBpmClient(settings, tokens=TokenCache(), meter=recorder) as client:
            process_state.reset()
            starter = BatchSender(client, max_concurrency=2, grace=0.1, log=lambda _: None)
            return len((await starter.start(iter(starts))).instances)

    assert asyncio.run(main()) == 7
    seen = recorder.seen
    assert (seen["starts"], seen["ambiguous_starts"], seen["requests.start"]) == (7, 1, 7)


def test_buffered_meter_is_thread_safe() -> None:
    tally = BufferedMeter()

    def count() -> None:
        for _ in range(5000):
            tally.count("requests", kind="get")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert tally.take() == ({("requests", (("kind", "get"),)): 20_000}, {})
    assert tally.take() == ({}, {})


def test_zero_counts_are_dropped_and_gauges_stay() -> None:
    tally = BufferedMeter()
    tally.count("starts", 0)
    tally.gauge("waiters", 3)
    tally.gauge("waiters", -1)
    assert [tally.take(), tally.take()] == [({}, {"waiters": 2})] * 2


def test_batch_request_costs_one_increment() -> None:
    requests = RequestCounts()
    times = 100_000
    seconds = min(timeit.repeat("requests['start'] += 1", globals={"requests": requests}, number=times))
    assert requests == {"start": 5 * times}
    assert seconds / times < 2e-6, "some 0.05 µs on an idle machine"
    requests.flush_to(NULL_METER)
    assert requests == {}


def test_every_metric_is_described() -> None:
    names = {value for name, value in vars(metrics).items() if name.isupper() and isinstance(value, str)}
    assert names == set(metrics.METRICS)
    assert all(metric.meaning.endswith(".") for metric in metrics.METRICS.values())
