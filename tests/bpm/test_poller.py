"""The life of a poller: how it ends, when it stood still, who shares one, and what each wait takes."""

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

from airflow_provider_astrobpm.bpm.api import Operation
from airflow_provider_astrobpm.bpm.poller import HEARTBEAT_SECONDS, MIN_STALL_SECONDS, Poller, PollerRegistry
from airflow_provider_astrobpm.bpm.settings import ReadyToken, Settings
from tests.bpm.poller_scene import HOUR, Scene, leave, nothing_learnt
from tests.support.memory_server import Client, Server, instance, settings
from tests.support.virtual_time import VirtualLoop, run

__all__ = ["nothing_learnt"]


class TestHowItEnds:
    @pytest.mark.parametrize("answer_time", [0, 5], ids=["while it sleeps", "in the middle of a look"])
    def test_with_the_last_one_who_waits(self, answer_time: float) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(instance("1"))
            scene.server.answer_time, scene.server.closing_time = answer_time, 3
            waiting = [scene.join(scene.wait(deadline=HOUR)) for _ in range(3)]
            await asyncio.sleep(2)
            await leave(*waiting[:2])
            assert scene.client.closed == 0
            await leave(waiting[2])
            await scene.poller.ended()
            assert scene.client.closed == 1
            assert scene.loop.now == scene.began + 5
            assert not scene.loop.timers()

        run(main())

    @pytest.mark.parametrize("answer_time", [0, 5], ids=["while it sleeps", "in the middle of a look"])
    def test_cancelled_from_outside_it_tells_everybody(self, answer_time: float) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(instance("1"))
            scene.server.answer_time = answer_time
            waiting = [scene.join(scene.wait(), connection=f"conn_{n}") for n in range(2)]
            await asyncio.sleep(2)
            assert scene.poller._task is not None
            scene.poller._task.cancel()
            endings = await asyncio.gather(*waiting)
            assert [str(ending) for ending in endings] == [
                "On connection 'conn_0': The poller was stopped.",
                "On connection 'conn_1': The poller was stopped.",
            ]
            assert scene.client.closed == 1

        run(main())

    def test_who_comes_and_goes_at_once_leaves_nothing(self) -> None:
        async def main() -> None:
            scene = Scene()
            async with scene.poller.join(scene.wait(), interval=10, connection="c"):
                pass
            await scene.poller.ended()
            assert scene.client.closed == 1

        run(main())


class TestStandingStill:
    def test_is_noticed_for_a_while(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(instance("1"))
            waiting = scene.join(scene.wait())
            await asyncio.sleep(100)
            assert not scene.poller.longest_stall(within=60)
            scene.loop.stand_still(HEARTBEAT_SECONDS + MIN_STALL_SECONDS + 1)  # more than may go unnoticed
            assert scene.poller.longest_stall(within=60)  # before anything else has run
            await asyncio.sleep(50)
            assert scene.poller.longest_stall(within=60)
            await asyncio.sleep(20)
            assert not scene.poller.longest_stall(within=60)
            await leave(waiting)

        run(main())

    def test_an_ended_poller_does_not_stand_still(self) -> None:
        async def main() -> None:
            scene = Scene()
            waiting = scene.join(scene.wait())
            await asyncio.sleep(1)
            await leave(waiting)
            await asyncio.sleep(100)
            assert not scene.poller.longest_stall(within=60)

        run(main())

    def test_a_stall_that_the_poller_ends_in_is_noticed(self) -> None:
        async def main() -> None:
            scene = Scene()
            waiting = scene.join(scene.wait())
            await asyncio.sleep(1)
            scene.loop.stand_still(HOUR)
            await leave(waiting)
            assert scene.poller.longest_stall(within=60)

        run(main())


OTHER: dict[str, Any] = {
    "connection": "other_conn",
    "base_url": "https://other.example",
    "credentials": ReadyToken("other"),
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
}


class TestTheRegistry:
    @pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
    def test_connections_share_a_poller_if_looks_are_the_same(self, name: str) -> None:
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
            scene = Scene(pollers=pollers)
            scene.server.put(instance("1", "Completed OK"))
            assert await scene.join(scene.wait()) is scene.server.rows["1"]
            return scene.poller

        assert run(main()) is not run(main())

    def test_an_ended_poller_is_forgotten_and_a_newcomer_gets_one_that_works(self) -> None:
        async def main() -> None:
            pollers = PollerRegistry()
            seen = set()
            for _ in range(3):
                scene = Scene(pollers=pollers)
                scene.server.put(instance("1", "Completed OK"))
                assert await scene.join(scene.wait()) is scene.server.rows["1"]
                seen.add(scene.poller)
                assert pollers._pollers[scene.loop] == {}
            assert len(seen) == 3

        run(main())

    def test_a_newcomer_while_the_last_one_leaves(self) -> None:
        async def main() -> None:
            pollers = PollerRegistry()
            old = Scene(pollers=pollers)
            old.server.closing_time = 5
            waiting = old.join(old.wait())
            await asyncio.sleep(1)
            await leave(waiting)
            new = Scene(pollers=pollers)
            new.server.put(instance("1", "Completed OK"))
            assert await new.join(new.wait(), 1) is new.server.rows["1"]
            await asyncio.sleep(5)
            assert (old.client.closed, new.client.closed) == (1, 1)

        run(main())


def test_it_knows_nothing_of_the_context_of_who_came_first() -> None:
    log: ContextVar[str] = ContextVar("log", default="nobody's")

    class Nosy(Client):
        logs: list[str] = []  # noqa: RUF012 - one test

        async def call(self, operation: Operation[Any]) -> Any:
            self.logs.append(log.get())
            return await super().call(operation)

    async def main() -> None:
        scene = Scene()
        scene.server.put(instance("1"))
        log.set("the first one's")
        scene.poller._client = Nosy(settings(), scene.server)
        waiting = scene.join(scene.wait())
        await asyncio.sleep(1)
        assert Nosy.logs
        assert set(Nosy.logs) == {"nobody's"}
        await leave(waiting)

    run(main())


def test_one_more_who_waits_takes_little_memory() -> None:
    many = 2000

    async def main() -> float:
        scene = Scene()
        rows = [instance(str(number)) for number in range(many + 1)]
        scene.server.put(*rows)
        kept: list[Coroutine[Any, Any, Any]] = []

        async def settle_one(number: int) -> None:
            subscription = scene.poller.join(
                scene.wait(seen=rows[number], deadline=HOUR), interval=60, connection="first_conn"
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
        for subscription in list(scene.poller._subscriptions):
            await subscription.__aexit__()
        return each

    each = run(main())
    print(f"{each:.0f} bytes for each further wait")  # noqa: T201 - pytest -s shows it
    assert each < 2500
