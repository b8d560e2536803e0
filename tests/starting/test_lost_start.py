"""A start whose answer was lost is searched for in the same way for one start and for a batch."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

import pytest

from airflow_provider_astrobpm.batches.batch_input import Launch
from airflow_provider_astrobpm.batches.batch_record import BatchRecord, BatchRequest
from airflow_provider_astrobpm.batches.batch_run import BatchRun
from airflow_provider_astrobpm.batches.batch_sender import BatchSender
from airflow_provider_astrobpm.client import operations, states
from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
from airflow_provider_astrobpm.client.errors import AmbiguousStartError
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.client.tokens import TokenCache
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.starting.business_keys import TaskIdentity
from airflow_provider_astrobpm.starting.decision import StartRecord, StartRequest
from airflow_provider_astrobpm.starting.instance_starter import InstanceStarter
from tests.support.clocks import ManualClock

Subject = Literal["one", "batch"]
BPM = "SupplierOnboarding"
GRACE = 60
LISTS = len(states.STATES)


class Start:
    """The first try of a task that starts one instance, alone or as a batch of one."""

    def __init__(self, subject: Subject, server: EmulatorServer) -> None:
        self._subject = subject
        known = server.settings
        credentials = ClientCredentials(known.client_id, known.client_secret)
        self._settings = Settings("my_conn", server.url, credentials, connect_timeout=5, max_attempts=3)
        self.clock = ManualClock(time.time())
        self.records: list[StartRecord | BatchRecord] = []

    def run(self) -> Any:
        async def main() -> Any:
            async with AsyncBpmClient(self._settings, tokens=TokenCache(), sleep=self.clock.asleep) as client:
                return await (self._one(client) if self._subject == "one" else self._batch(client))

        return asyncio.run(main())

    async def _one(self, client: AsyncBpmClient) -> Any:
        starter = InstanceStarter(
            StartRequest(
                start=lambda key: operations.start(BPM, business_key=key), bpm_name=BPM, **self._fields
            ),
            find=pytest.fail,
            remember=self.records.append,
            log=lambda _note: None,
            clock=self.clock,
        )
        return await client.run(starter.launch(None))

    async def _batch(self, client: AsyncBpmClient) -> Any:
        run = BatchRun(
            BatchRequest(**self._fields),
            lambda: iter([Launch(1, BPM)]),
            sender=BatchSender(
                client, grace=GRACE, log=lambda _note: None, clock=self.clock, sleep=self.clock.asleep
            ),
            remember=self.records.append,
            total=1,
        )
        return await run.launch(None)

    @property
    def _fields(self) -> dict[str, Any]:
        return {
            "identity": TaskIdentity("dag", "run", "task"),
            "generation": 1,
            "try_number": 1,
            "accepts": lambda one: one.state == states.COMPLETED,
            "grace": GRACE,
        }


@pytest.fixture(params=["one", "batch"])
def start(
    request: pytest.FixtureRequest, emulator_server: EmulatorServer, emulator: EmulatorControl
) -> Start:
    del emulator  # only to reset it
    return Start(request.param, emulator_server)


def test_gives_up_early_if_the_lists_show_no_keys(start: Start, emulator: EmulatorControl) -> None:
    emulator.switch(business_keys_in_rows=False)
    emulator.fault("start", "status", status=502, work_done=True)
    with pytest.raises(AmbiguousStartError, match="; the lists show no business keys here"):
        start.run()
    assert (emulator.counts()["start"], emulator.counts()["query"]) == (1, LISTS)
    assert start.clock.slept == [0.05 * GRACE]
    assert start.records[-1].told, "only a clear starts it again"


def test_blanks_in_place_of_keys_do_not_prove_that_lists_show_keys(
    start: Start, emulator: EmulatorControl
) -> None:
    emulator.switch(business_keys_in_rows=False)
    emulator.distort(emulator.start(BPM)["id"], {"businessKey": " "})
    emulator.fault("start", "status", status=502, work_done=True)
    with pytest.raises(AmbiguousStartError, match="; the lists show no business keys here"):
        start.run()
    assert emulator.counts()["start"] == 1


def test_searches_for_the_whole_grace_if_no_instance_shows(start: Start, emulator: EmulatorControl) -> None:
    emulator.fault("start", "drop_before")
    with pytest.raises(AmbiguousStartError, match="; no instance shows its business key"):
        start.run()
    assert (emulator.counts()["start"], emulator.counts()["query"]) == (1, 4 * LISTS)
    assert sum(start.clock.slept) == pytest.approx(GRACE)
    assert start.records[-1].told


def test_finds_the_instance(start: Start, emulator: EmulatorControl) -> None:
    emulator.fault("start", "drop_after")
    start.run()
    assert (emulator.counts()["start"], emulator.counts()["query"]) == (1, LISTS)
    assert len(emulator.instances()) == 1
    assert not start.records[-1].told
