"""The life of a poller: its end, stalls, sharing, and memory for each wait."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Coroutine
from contextvars import ContextVar
from dataclasses import fields, replace
from datetime import timezone
from typing import Any

import pytest

from airflow_provider_astrobpm.client.operations import Operation
from airflow_provider_astrobpm.client.settings import Settings, StaticToken
from airflow_provider_astrobpm.waiting.poller import (
    HEARTBEAT_SECONDS,
    MIN_STALL_SECONDS,
    Poller,
    PollerRegistry,
)
from tests.support.memory_server import Client, Server, instance, settings
from tests.support.virtual_time import VirtualLoop, run
from tests.waiting.poller_setup import HOUR, PollerSetup, forget_other_tests, leave

__all__ = ["forget_other_tests"]


class TestEnd:
    @pytest.mark.parametrize("answer_time", [0, 5], ids=["while it sleeps", "during a poll"])
    def test_ends_with_the_last_subscriber(self, answer_time: float) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.put(instance("1"))
            setup.server.answer_time, setup.server.closing_time = answer_time, 3
            waiting = [setup.join(setup.wait(deadline=HOUR)) for _ in range(3)]
            await asyncio.sleep(2)
            await leave(*waiting[:2])
            assert setup.client.closed == 0
            await leave(waiting[2])
            await setup.poller.ended()
            assert setup.client.closed == 1
            assert setup.loop.now == setup.began + 5
            assert not setup.loop.timers()

        run(main())

    @pytest.mark.parametrize("answer_time", [0, 5], ids=["while it sleeps", "during a poll"])
    def test_cancellation_ends_every_wait_with_an_error(self, answer_time: float) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.put(instance("1"))
            setup.server.answer_time = answer_time
            waiting = [setup.join(setup.wait(), connection=f"conn_{n}") for n in range(2)]
            await asyncio.sleep(2)
            assert setup.poller._task is not None
            setup.poller._task.cancel()
            endings = await asyncio.gather(*waiting)
            assert [str(ending) for ending in endings] == [
                "On connection 'conn_0': The poller was stopped.",
                "On connection 'conn_1': The poller was stopped.",
            ]
            assert setup.client.closed == 1

        run(main())

    def test_a_subscriber_that_leaves_at_once_leaves_nothing_behind(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            async with setup.poller.join(setup.wait(), interval=10, connection="c"):
                pass
            await setup.poller.ended()
            assert setup.client.closed == 1

        run(main())


class TestStalls:
    def test_a_stall_is_reported_for_a_while(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.put(instance("1"))
            waiting = setup.join(setup.wait())
            await asyncio.sleep(100)
            assert not setup.poller.longest_stall(within=60)
            setup.loop.stand_still(HEARTBEAT_SECONDS + MIN_STALL_SECONDS + 1)  # more than may pass unreported
            assert setup.poller.longest_stall(within=60)  # before anything else has run
            await asyncio.sleep(50)
            assert setup.poller.longest_stall(within=60)
            await asyncio.sleep(20)
            assert not setup.poller.longest_stall(within=60)
            await leave(waiting)

        run(main())

    def test_an_ended_poller_reports_no_stall(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            waiting = setup.join(setup.wait())
            await asyncio.sleep(1)
            await leave(waiting)
            await asyncio.sleep(100)
            assert not setup.poller.longest_stall(within=60)

        run(main())

    def test_a_stall_during_which_the_poller_ends_is_reported(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            waiting = setup.join(setup.wait())
            await asyncio.sleep(1)
            setup.loop.stand_still(HOUR)
            await leave(waiting)
            assert setup.poller.longest_stall(within=60)

        run(main())


OTHER: dict[str, Any] = {
    "connection": "other_conn",
    "base_url": "https://other.example",
    "credentials": StaticToken("other"),
    "verify": False,
    "client_cert": "cert",
    "client_key": "key",
    "proxy": "http://proxy.example",
    "allow_http": True,
    "connect_timeout": 1,
    "read_timeout": 1,
    "answer_timeout": 1,
    "max_attempts": 1,
    "max_wait": 1,
    "max_response_bytes": 1,
    "csrf": True,
    "timezone": timezone.utc,
    "start_grace": 1,
    "instance_lookup": "auto",
    "instance_url": "https://{host}/{instance_id}",
    "record": "/transcripts",
}


class TestRegistry:
    @pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
    def test_connections_share_a_poller_if_polls_would_be_equal(self, name: str) -> None:
        async def main() -> None:
            pollers, known = PollerRegistry(), settings()
            server = Server(VirtualLoop())
            first = pollers.get(known, lambda new: Client(new, server))
            second = pollers.get(replace(known, **{name: OTHER[name]}), lambda new: Client(new, server))
            assert (first is second) == (name in {"connection", "timezone", "start_grace", "instance_url"})
            server.loop.close()

        run(main())

    def test_two_event_loops_have_two_pollers(self) -> None:
        pollers = PollerRegistry()

        async def main() -> Poller:
            setup = PollerSetup(pollers=pollers)
            setup.server.put(instance("1", "Completed OK"))
            assert await setup.join(setup.wait()) is setup.server.rows["1"]
            return setup.poller

        assert run(main()) is not run(main())

    def test_an_ended_poller_is_replaced(self) -> None:
        async def main() -> None:
            pollers = PollerRegistry()
            seen = set()
            for _ in range(3):
                setup = PollerSetup(pollers=pollers)
                setup.server.put(instance("1", "Completed OK"))
                assert await setup.join(setup.wait()) is setup.server.rows["1"]
                seen.add(setup.poller)
                assert pollers._pollers[setup.loop] == {}
            assert len(seen) == 3

        run(main())

    def test_a_new_wait_while_the_last_one_leaves_gets_a_new_poller(self) -> None:
        async def main() -> None:
            pollers = PollerRegistry()
            old = PollerSetup(pollers=pollers)
            old.server.closing_time = 5
            waiting = old.join(old.wait())
            await asyncio.sleep(1)
            await leave(waiting)
            new = PollerSetup(pollers=pollers)
            new.server.put(instance("1", "Completed OK"))
            assert await new.join(new.wait(), 1) is new.server.rows["1"]
            await asyncio.sleep(5)
            assert (old.client.closed, new.client.closed) == (1, 1)

        run(main())


def test_polls_do_not_run_in_the_first_subscribers_context() -> None:
    log: ContextVar[str] = ContextVar("log", default="no task's")

    class Nosy(Client):
        logs: list[str] = []  # noqa: RUF012 - one test

        async def call(self, operation: Operation[Any]) -> Any:
            self.logs.append(log.get())
            return await super().call(operation)

    async def main() -> None:
        setup = PollerSetup()
        setup.server.put(instance("1"))
        log.set("the first task's")
        setup.poller._client = Nosy(settings(), setup.server)
        waiting = setup.join(setup.wait())
        await asyncio.sleep(1)
        assert Nosy.logs
        assert set(Nosy.logs) == {"no task's"}
        await leave(waiting)

    run(main())


def test_memory_for_each_further_wait_is_small() -> None:
    many = 2000

    async def main() -> float:
        setup = PollerSetup()
        rows = [instance(str(number)) for number in range(many + 1)]
        setup.server.put(*rows)
        kept: list[Coroutine[Any, Any, Any]] = []

        async def settle_one(number: int) -> None:
            subscription = setup.poller.join(
                setup.wait(seen=rows[number], deadline=HOUR), interval=60, connection="first_conn"
            )
            waiting = subscription.notes()
            waiting.send(None)  # up to the future at which a trigger's task would wait
            kept.append(waiting)

        await settle_one(0)
        await asyncio.sleep(100)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1, many + 1):
            await settle_one(number)
        await asyncio.sleep(200)
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / many
        tracemalloc.stop()
        for waiting in kept:
            waiting.close()
        for subscription in list(setup.poller._subscriptions):
            await subscription.__aexit__()
        return each

    each = run(main())
    print(f"{each:.0f} bytes for each further wait")  # noqa: T201 - pytest -s shows it
    assert each < 2500
