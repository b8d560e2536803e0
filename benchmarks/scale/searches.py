"""The process that searches: ``python -m benchmarks.scale.searches NAME URL NUMBER LAST``.

It prints the cost of one search as a line of JSON. Each search is a new process, so that it starts without remains of the
previous one.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import psutil

from airflow_provider_astrobpm.client import async_transport
from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.key_search import KeyMatches, find_matches
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.emulator.emulator_state import CLIENT_ID, CLIENT_SECRET
from airflow_provider_astrobpm.triggers.base import import_runtime_modules
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmInstanceTrigger
from airflow_provider_astrobpm.waiting.poller import Poller
from airflow_provider_astrobpm.watching.targets import WatchTargets
from airflow_provider_astrobpm.watching.watch import Watch
from benchmarks.scale.tenant import PROCESS, identity_of, key_of
from benchmarks.waiting.runner import Ticker, cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CONNECTION = "astro_zero_default"
POLL_INTERVAL_SECONDS = 1.0
SETTLE_SECONDS = 0.5  # in which the ticker shows what the process itself costs
RETRIES_RUN = -1  # the run of a task that has started nothing


@dataclass(frozen=True)
class Searched:
    """The cost of one search.

    :param calls: the answers, with those for tokens.
    :param received: the bytes of their bodies.
    :param seconds: the wall clock time.
    :param cpu: user and system CPU time, in seconds.
    :param memory: resident bytes before.
    :param peak: the maximum of the resident bytes, in addition to ``memory``.
    :param block: the longest delay of the event loop, in seconds.
    """

    calls: int
    received: int
    seconds: float
    cpu: float
    memory: int
    peak: int
    block: float


async def wait_for_the_last(settings: Settings, number: int, last: str) -> None:
    """Wait as a deferred task does whose instance has ended since the last poll."""
    seen = BpmInstance(
        id=last, name=PROCESS, state="Waiting for user interaction", business_key=key_of(number - 1)
    )
    await _wait(instance_id=last, seen=msgspec.to_builtins(seen))


async def wait_for_a_key(settings: Settings, number: int, last: str) -> None:
    """Wait as a deferred task does that knows the business key only."""
    await _wait(business_key=key_of(number - 1), bpm_name=PROCESS)


async def watch(settings: Settings, number: int, last: str) -> None:
    """Watch all instances of the BPM, as an asset event does: the poll at the start, and one more."""
    watched = Watch(WatchTargets.of(PROCESS, ["Completed OK"], None))
    poller = Poller(AsyncBpmClient(settings))
    async with poller.join(watched, interval=POLL_INTERVAL_SECONDS, connection=CONNECTION) as subscription:
        while watched.polls < 2:
            await subscription.notes()
            watched.acknowledge()
            watched.is_saved = watched.polls < 1
    await poller.ended()


async def search_as_a_retry(settings: Settings, number: int, last: str) -> None:
    """Search for the instance of a task that has started none, as thoroughly as its retry does."""
    identity = identity_of(RETRIES_RUN)
    matches = KeyMatches(
        lambda one: identity.read(one.business_key) is not None, resembles=identity.resembles
    )
    async with AsyncBpmClient(settings) as client:
        await client.run(find_matches(matches))
    if matches.instances or matches.resembling:
        raise RuntimeError(f"found {matches.instances or matches.resembling}")


SEARCHES: dict[str, Callable[[Settings, int, str], Awaitable[None]]] = {
    "ended": wait_for_the_last,
    "key": wait_for_a_key,
    "watch": watch,
    "retry": search_as_a_retry,
}


async def _wait(**what: Any) -> None:
    trigger = AstroZeroBpmInstanceTrigger(
        astro_zero_conn_id=CONNECTION,
        bp_statuses=["Approved"],
        poll_interval=POLL_INTERVAL_SECONDS,
        **what,
    )
    async with aclosing(trigger.run()) as events:  # type: ignore[type-var]
        payload = (await anext(events)).payload
    if payload["status"] != "success":
        raise RuntimeError(f"the wait ended with {payload}")


async def measure(
    search: Callable[[Settings, int, str], Awaitable[None]], url: str, number: int, last: str
) -> Searched:
    """Run a search and return its cost."""
    settings = Settings(CONNECTION, url, ClientCredentials(CLIENT_ID, CLIENT_SECRET))
    await asyncio.to_thread(import_runtime_modules)
    sizes = _count_bytes()
    ticker = Ticker()
    ticker.start()
    await asyncio.sleep(SETTLE_SECONDS)
    ticker.take()
    memory, begin, cpu = psutil.Process().memory_info().rss, time.monotonic(), cpu_seconds()
    await search(settings, number, last)
    seconds, cpu = time.monotonic() - begin, cpu_seconds() - cpu
    await asyncio.sleep(SETTLE_SECONDS)  # what was held until now shows with the next tick
    block = ticker.take()
    ticker.stop()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Searched(len(sizes), sum(sizes), seconds, cpu, memory, max(0, peak - memory), block)


def _count_bytes() -> list[int]:
    """Record the size of each answer."""
    sizes: list[int] = []
    send = async_transport.AsyncTransport.send

    async def counted(transport: Any, request: Any) -> Any:
        response = await send(transport, request)
        sizes.append(len(response.body))
        return response

    async_transport.AsyncTransport.send = counted  # type: ignore[method-assign,assignment]
    return sizes


def main() -> None:
    """Run the search that the arguments name."""
    name, url, number, last = sys.argv[1:]
    print(json.dumps(asdict(asyncio.run(measure(SEARCHES[name], url, int(number), last)))))


if __name__ == "__main__":
    main()
