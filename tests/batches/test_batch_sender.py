"""Tests of the starts of a batch against the emulator: many at a time, each at most once, with every fault of the server."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_astrobpm.batches.batch_decision import StartLaunch
from airflow_provider_astrobpm.batches.batch_input import Launch
from airflow_provider_astrobpm.batches.batch_sender import BatchSender
from airflow_provider_astrobpm.batches.send_state import SendState
from airflow_provider_astrobpm.client import process_state
from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
from airflow_provider_astrobpm.client.errors import (
    AmbiguousStartError,
    AuthenticationError,
    NotSentError,
    ServerError,
    ThrottledError,
)
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.client.tokens import TokenCache
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from tests.support.clocks import ManualClock

BPM = "SupplierOnboarding"
ATTEMPTS = 3
AT_ONCE = 4


@pytest.fixture
def settings(emulator_server: EmulatorServer, emulator: EmulatorControl) -> Settings:
    del emulator  # only to reset it
    known = emulator_server.settings
    credentials = ClientCredentials(known.client_id, known.client_secret)
    return Settings("my_conn", emulator_server.url, credentials, connect_timeout=5, max_attempts=ATTEMPTS)


class Counting(AsyncBpmClient):
    """Counts the concurrent starts."""

    under_way = most = 0

    async def call_once(self, operation: Any) -> Any:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            return await super().call_once(operation)
        finally:
            self.under_way -= 1


class Batch:
    """A batch that is started once, with its log."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = ManualClock(time.time())
        self.notes: list[str] = []
        self.most_at_once = 0
        self.starter: BatchSender

    def start(
        self,
        starts: Iterable[StartLaunch],
        total: int | None = None,
        *,
        preexisting_ids: Iterable[str] = (),
        **arguments: Any,
    ) -> SendState:
        async def main() -> SendState:
            async with Counting(self.settings, tokens=TokenCache(), sleep=self.clock.asleep) as client:
                process_state.reset()
                self.starter = starter = BatchSender(
                    client,
                    log=lambda note: self.notes.append(note.text),
                    clock=self.clock,
                    sleep=self.clock.asleep,
                    **{"max_concurrency": AT_ONCE, **arguments},
                )
                try:
                    return await asyncio.wait_for(
                        starter.start(iter(starts), total, preexisting_ids=set(preexisting_ids)), 60
                    )
                finally:
                    self.most_at_once = client.most
                    assert asyncio.all_tasks() == {asyncio.current_task()}, "all workers have finished"

        return asyncio.run(main())


@pytest.fixture
def batch(settings: Settings) -> Batch:
    return Batch(settings)


def starts(count: int, *, bpm_name: Callable[[int], str] = lambda _number: BPM) -> list[StartLaunch]:
    return [StartLaunch(Launch(n, bpm_name(n), variables={"n": n}), f"key-{n}") for n in range(1, count + 1)]


def keys(emulator: EmulatorControl) -> Counter[str]:
    return Counter(each["business_key"] for each in emulator.instances())


def test_starts_each_launch_once_with_the_allowed_concurrency(
    batch: Batch, emulator: EmulatorControl
) -> None:
    came = batch.start(starts(100))
    assert keys(emulator) == Counter(f"key-{n}" for n in range(1, 101))
    assert {n: one.business_key for n, one in came.instances.items()} == {
        n: f"key-{n}" for n in range(1, 101)
    }
    assert came.refused == {}
    assert batch.most_at_once == AT_ONCE
    assert emulator.counts()["query"] == 0
    assert batch.clock.slept == []


def test_accepts_an_empty_batch(batch: Batch, emulator: EmulatorControl) -> None:
    came = batch.start([])
    assert (came.instances, came.refused) == ({}, {})
    assert not any(emulator.counts().values())


def test_a_refusal_does_not_stop_the_other_launches(batch: Batch, emulator: EmulatorControl) -> None:
    came = batch.start(starts(30, bpm_name=lambda number: BPM if number % 3 else "NoSuchBpm"))
    assert sorted(came.refused) == list(range(3, 31, 3))
    assert sorted(came.instances) == [n for n in range(1, 31) if n % 3]
    assert "NoSuchBpm" in str(came.refused[3])
    assert sum(keys(emulator).values()) == 20


@pytest.mark.parametrize(
    ("retry_after", "least", "most"), [(None, 0.5, 1), ("7", 7, 7.5), ("604", 30, 30), ("0", 0.5, 1)]
)
def test_pauses_all_starts_if_one_is_throttled(
    retry_after: str | None, least: float, most: float, batch: Batch, emulator: EmulatorControl
) -> None:
    headers = {"retry_after": retry_after} if retry_after else {}
    emulator.fault("start", "status", status=429, **headers)
    came = batch.start(starts(20))
    assert len(came.instances) == 20
    assert max(keys(emulator).values()) == 1
    assert least <= batch.clock.now - batch.clock.began <= most, (
        "all of them together, not one after the other"
    )
    assert sum(note.startswith("Sending no starts for") for note in batch.notes) == 1


@pytest.mark.parametrize("name", ["drop_after", "truncate"])
def test_finds_instances_whose_answers_were_lost(name: Any, batch: Batch, emulator: EmulatorControl) -> None:
    emulator.fault("start", name, times=3)
    came = batch.start(starts(20))
    assert sorted(came.instances) == list(range(1, 21))
    assert max(keys(emulator).values()) == 1
    assert emulator.counts()["start"] == 20


def test_does_not_restart_a_lost_start_that_shows_no_instance(
    batch: Batch, emulator: EmulatorControl
) -> None:
    emulator.fault("start", "drop_before", times=2)
    with pytest.raises(
        AmbiguousStartError,
        match="of 20 launches: 18 started, 18 open, 2 in doubt, 0 not sent; in doubt are launch .*: the connection was lost.*; "
        "no instance shows its business key",
    ) as caught:
        batch.start(starts(20), 20, grace=40)
    assert str(caught.value).startswith("Could not start the batch on connection 'my_conn': ")
    lost = {f"key-{n}" for n in range(1, 21)} - set(keys(emulator))
    assert all(f"business key {key!r}" in str(caught.value) for key in lost), "each is named, with its key"
    assert emulator.counts()["start"] == 20
    assert len(keys(emulator)) == 18
    assert batch.clock.now - batch.clock.began == pytest.approx(40), "searched for the whole grace"


def test_does_not_adopt_a_preexisting_instance_with_its_key(batch: Batch, emulator: EmulatorControl) -> None:
    preexisting = emulator.start(BPM, business_key="key-1")["id"]
    other = emulator.start("PublishApproval", business_key="key-1")["id"]
    emulator.fault("start", "drop_before")
    with pytest.raises(AmbiguousStartError):
        batch.start(starts(1), preexisting_ids=[preexisting])
    assert {each["id"] for each in emulator.instances()} == {preexisting, other}


def test_stops_after_many_lost_answers_in_a_row(batch: Batch, emulator: EmulatorControl) -> None:
    emulator.fault("start", "status", status=500, times=1000)
    with pytest.raises(AmbiguousStartError) as caught:
        batch.start(starts(100), 100)
    assert isinstance(caught.value.__cause__, ServerError)
    sent = emulator.counts()["start"]
    assert sent <= 2 * AT_ONCE
    said = str(caught.value)
    assert (
        f"of 100 launches: 0 started, 0 open, {sent} in doubt, {100 - sent} not sent; in doubt are launch "
        in said
    )
    assert "the server failed (HTTP 500); no instance shows its business key" in said
    assert f" and {sent - 3} more: " in said


def test_raises_the_error_of_the_server_after_lost_starts_were_found(
    batch: Batch, emulator: EmulatorControl
) -> None:
    emulator.fault("start", "status", status=502, times=1000, work_done=True)
    with pytest.raises(ServerError) as caught:
        batch.start(starts(100), 100)
    assert (sent := emulator.counts()["start"]) == sum(keys(emulator).values()) <= 2 * AT_ONCE
    said = str(caught.value)
    assert said.startswith(
        f"Could not start the batch on connection 'my_conn': of 100 launches: {sent} started ({sent} of them found "
        f"after their answers were lost), {sent} open, 0 in doubt, {100 - sent} not sent; "
        "the lost answers are launch "
    )
    assert f" and {sent - 3} more: the server failed (HTTP 502). Nothing is in doubt." in said
    assert sum(each["id"] in said for each in emulator.instances()) == 3, "the first are named"


def test_can_be_stopped_while_it_searches_for_lost_starts(batch: Batch, emulator: EmulatorControl) -> None:
    """Even if all are found, because another try may be running by now."""
    emulator.fault("start", "status", status=502, times=1000, work_done=True)
    reason = RuntimeError("another try is running")
    sleep = batch.clock.asleep

    async def stopping(seconds: float) -> None:
        batch.starter.state.stop(reason)
        await sleep(seconds)

    batch.clock.asleep = stopping  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="another try is running"):
        batch.start(starts(8), 8, max_concurrency=8)
    assert len(keys(emulator)) == 8


@pytest.mark.parametrize("count", [8, 4])
def test_succeeds_if_every_lost_start_was_found(count: int, batch: Batch, emulator: EmulatorControl) -> None:
    """Eight started and open launches must not fail because of the error of one call."""
    emulator.fault("start", "status", status=502, times=1000, work_done=True)
    came = batch.start(starts(count), count, max_concurrency=count)
    assert sorted(came.instances) == list(range(1, count + 1))
    assert set(keys(emulator).values()) == {1}


@pytest.mark.parametrize("names", [[BPM], [BPM, "Instant"]])
def test_gives_up_early_if_the_lists_show_no_keys(
    names: list[str], batch: Batch, emulator: EmulatorControl
) -> None:
    """Even if one of its BPMs has no row in the lists, which alone proves nothing."""
    emulator.switch(business_keys_in_rows=False, keep_closed=False)
    emulator.fault("start", "status", status=502, times=1000, work_done=True)
    with pytest.raises(AmbiguousStartError) as caught:
        batch.start(starts(8, bpm_name=lambda number: names[number % len(names)]), 8, max_concurrency=8)
    assert emulator.counts()["query"] == 12, "one list of each state"
    assert batch.clock.slept == [3], "a twentieth of the grace"
    said = str(caught.value)
    assert said.count("; the lists show no business keys here") == 1, "the reason is named once"
    assert "of 8 launches: 0 started, 0 open, 8 in doubt, 0 not sent; in doubt are launch " in said


def test_stops_if_the_server_turns_every_start_away(batch: Batch, emulator: EmulatorControl) -> None:
    emulator.fault("start", "status", status=429, times=1000)
    with pytest.raises(ThrottledError, match="100 launches: 0 started, 0 open, 0 in doubt, 100 not sent"):
        batch.start(starts(100), 100)
    assert emulator.counts()["start"] <= ATTEMPTS * AT_ONCE
    assert not keys(emulator)


def test_raises_the_stop_reason_after_lost_starts_were_found(batch: Batch, emulator: EmulatorControl) -> None:
    emulator.fault("start", "drop_after", times=2)
    emulator.fault("start", "status", status=429, retry_after="1", times=1000)
    with pytest.raises(ThrottledError) as caught:
        batch.start(starts(20), 20)
    said = str(caught.value)
    assert (
        "of 20 launches: 2 started (2 of them found after their answers were lost), 2 open, 0 in doubt, 18 not"
        in said
    )
    assert "HTTP 429" in said
    assert caught.value.retry_after == "1"


def test_reports_launches_so_far_if_the_total_is_unknown(batch: Batch, emulator: EmulatorControl) -> None:
    emulator.fault("start", "status", status=429, times=1000, skip=5)
    with pytest.raises(ThrottledError, match="of the launches so far: 5 started, 5 open, 0 in doubt"):
        batch.start(starts(20))


def test_the_error_names_the_id_of_the_author(batch: Batch, emulator: EmulatorControl) -> None:
    emulator.fault("start", "drop_before")
    with pytest.raises(
        AmbiguousStartError, match=r"launch 1 \(id 'A17', business key 'key-1'\): the connection"
    ):
        batch.start([StartLaunch(Launch(1, BPM, id="A17"), "key-1")], 1)


def test_stops_if_the_server_is_down(settings: Settings, free_port: int) -> None:
    batch = Batch(replace(settings, base_url=f"http://127.0.0.1:{free_port}"))
    with pytest.raises(NotSentError):
        batch.start(starts(100))
    assert len(batch.clock.slept) == ATTEMPTS - 1


def test_stops_at_once_if_credentials_are_refused(settings: Settings, emulator: EmulatorControl) -> None:
    batch = Batch(replace(settings, credentials=ClientCredentials("wrong", "wrong")))
    with pytest.raises(AuthenticationError):
        batch.start(starts(100))
    assert emulator.counts()["start"] == 0
    assert batch.clock.slept == []


def test_a_broken_input_stops_it_after_the_starts_under_way(batch: Batch, emulator: EmulatorControl) -> None:
    def broken() -> Iterator[StartLaunch]:
        yield from starts(10)
        raise ValueError("line 11")

    with pytest.raises(ValueError, match="line 11"):
        batch.start(broken())
    assert sum(keys(emulator).values()) == emulator.counts()["start"] == 10


def test_keeps_to_the_rate_limit(batch: Batch) -> None:
    batch.start(starts(21), rate_limit=10)
    assert batch.clock.now - batch.clock.began == pytest.approx(2)


def test_logs_its_progress(batch: Batch) -> None:
    batch.start(starts(120), rate_limit=10, total=120)
    progress = [note for note in batch.notes if note.startswith("Started ")]
    assert 2 <= len(progress) <= 4
    assert "of 120" in progress[0]
    assert progress[0].endswith("s left")
    assert progress[-1].startswith("Started 120 of 120; ")
