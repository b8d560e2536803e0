"""One poll loop for all waits on an endpoint in one event loop.

One poll asks for all waits at once. They share the client, and therefore its connections and its token. A wait wakes up its task
only when something has changed; until then a poll costs it one comparison.

A poller starts with its first subscriber and ends with its last. A later subscriber starts a new poller.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from contextvars import Context
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from airflow_provider_astrobpm.client import process_state
from airflow_provider_astrobpm.client.drivers import in_thread
from airflow_provider_astrobpm.client.errors import AstroZeroError
from airflow_provider_astrobpm.client.metrics import WAITERS, count_poll
from airflow_provider_astrobpm.client.moment import Moment
from airflow_provider_astrobpm.client.validation import MIN_POLL_INTERVAL_SECONDS
from airflow_provider_astrobpm.waiting import polling

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
    from airflow_provider_astrobpm.client.log_note import LogNote
    from airflow_provider_astrobpm.client.search_result import SearchResult
    from airflow_provider_astrobpm.client.settings import Settings
    from airflow_provider_astrobpm.waiting.wait import BaseWait

E = TypeVar("E", bound=AstroZeroError)

MAX_LATENESS_SECONDS = 10.0  # after its deadline, when a wait ends even if its last poll has not returned
HEARTBEAT_SECONDS = 1.0  # between two heartbeats of the event loop
MIN_STALL_SECONDS = 1.0  # by which a heartbeat must be late to count as a stall
STALL_MEMORY_SECONDS = 60.0  # after which a longer stall is forgotten in favor of a shorter one
MAX_WAKEUPS_AT_ONCE = 50  # subscribers woken before other tasks of the event loop may run
MAX_JUDGED_AT_ONCE = 5000  # instances judged before other tasks of the event loop may run
MAX_ROWS_SORTED_INLINE = 1000  # longer lists are sorted for a wait in a thread


class Subscription:
    """A wait that a poller polls for. As an async context manager it leaves the poller on exit."""

    __slots__ = ("_poller", "_timer", "_waiter", "connection", "interval", "wait")

    def __init__(self, poller: Poller, awaited: BaseWait[Any], interval: float, connection: str) -> None:
        self.wait = awaited
        self.interval = interval
        self.connection = connection
        self._poller = poller
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def notes(self) -> list[LogNote]:
        """Wait for news and return the notes to log. The list is empty if the news is only that the wait ended."""
        while not self.wait.has_news():
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        notes, self.wait.notes = self.wait.notes, []
        return notes

    def wake(self) -> None:
        """Wake up ``notes``, so that it checks for news."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        """End the wait with an error, unless it has ended already."""
        if self.wait.ending is None:
            self.wait.end(self.with_own_connection(error) if isinstance(error, AstroZeroError) else error)
        self.wake()

    def with_own_connection(self, error: E) -> E:
        """Return a copy of the error with this subscriber's connection id."""
        copied = copy(error)
        copied.connection = self.connection
        return copied

    def watch_deadline(self, loop: asyncio.AbstractEventLoop, now: Callable[[], Moment]) -> None:
        """Make sure that the wait ends soon after its deadline, even if a poll takes long."""
        if self.wait.deadline is not None:
            late = max(0.0, self.wait.deadline - now().wall) + MAX_LATENESS_SECONDS
            self._timer = loop.call_later(late, self._end_late, loop, now)

    def _end_late(self, loop: asyncio.AbstractEventLoop, now: Callable[[], Moment]) -> None:
        self.wait.check_deadline(now())
        if self.wait.ending is None:  # the clock was set back
            self.watch_deadline(loop, now)
        else:
            self.wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if isinstance(self.wait.ending, AstroZeroError):
            self.wait.ending.connection = self.wait.ending.connection or self.connection
        self._poller.leave(self)


class Poller:
    """The poll loop. It belongs to the event loop that is running when it is created.

    :param client: the client that it uses, and closes when it ends.
    :param clock: returns the time, in seconds since the epoch.
    :param jitter: returns a random number from 0 to 1.
    :param on_end: called when no further wait can join.
    """

    def __init__(
        self,
        client: AsyncBpmClient,
        *,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._jitter = jitter
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._subscriptions: dict[Subscription, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._has_begun = False
        self._has_ended = False
        self._wake = asyncio.Event()
        self._due = 0.0
        self._polled_at = 0.0
        self._retry_after_until = 0.0
        self._failures = polling.PollFailures()
        self._heart: asyncio.TimerHandle | None = None
        self._stall = 0.0
        self._stalled_at = 0.0

    @property
    def settings(self) -> Settings:
        """The environment, as given by the first subscriber's connection."""
        return self._client.settings

    def join(self, awaited: BaseWait[Any], *, interval: float, connection: str) -> Subscription:
        """Poll for a wait from now on.

        :param awaited: the wait.
        :param interval: seconds between two polls at most. The smallest interval of all subscribers counts.
        :param connection: the connection id for errors that end the wait.
        """
        subscription = Subscription(self, awaited, interval, connection)
        now = self._loop.time()
        if self._task is None:
            # The first poll comes at a random time, so that pollers that start together spread out.
            self._due = now + interval * self._jitter()
            # In a context of its own: with the first subscriber's context, all logs would go to that subscriber's task.
            self._task = Context().run(self._loop.create_task, self._run())
            self._beat()
        else:
            self._due = min(self._due, max(now + interval, self._retry_after_until))
        self._subscriptions[subscription] = None
        self._client.meter.gauge(WAITERS, 1)
        subscription.watch_deadline(self._loop, self._now)
        self._wake.set()
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Stop polling for a wait. The poller ends with its last wait."""
        if self._subscriptions.pop(subscription, subscription) is None:
            self._client.meter.gauge(WAITERS, -1)
        if not self._subscriptions and self._task is not None and not self._has_ended:
            self._end()
            if self._has_begun:  # a task cancelled before its first step would not close the client
                self._task.cancel()

    def longest_stall(self, within: float) -> float:
        """Return the longest recent stall of this process in seconds: 0 if the last one is more than ``within`` seconds ago."""
        self._record_stall()
        return self._stall if self._loop.time() - self._stalled_at <= within else 0.0

    async def ended(self) -> None:
        """Wait until the poller has ended and closed its client."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        self._has_begun = True
        try:
            while not self._has_ended:
                await self._sleep()
                await self._poll()
        finally:
            self._end()
            for subscription in list(self._subscriptions):
                subscription.fail(AstroZeroError("The poller was stopped"))
            await self._client.close()

    def _end(self) -> None:
        self._has_ended = True
        self._record_stall()
        if self._heart is not None:
            self._heart.cancel()
            self._heart = None
        self._on_end()

    def _beat(self) -> None:
        self._record_stall()
        self._heart = self._loop.call_later(HEARTBEAT_SECONDS, self._beat)

    def _record_stall(self) -> None:
        now = self._loop.time()
        late = now - self._heart.when() if self._heart is not None else 0.0
        if late > MIN_STALL_SECONDS and (
            late >= self._stall or now - self._stalled_at > STALL_MEMORY_SECONDS
        ):
            self._stall, self._stalled_at = late, now

    async def _sleep(self) -> None:
        """Sleep until the next poll."""
        while (seconds := self._seconds_to_poll()) > 0:
            self._wake.clear()
            alarm = self._loop.call_later(seconds, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                alarm.cancel()

    def _seconds_to_poll(self) -> float:
        now = self._loop.time()
        seconds = self._due - now
        moment = self._now()
        ends = [left for each in self._subscriptions if (left := each.wait.seconds_left(moment)) is not None]
        seconds = min([seconds, *ends])
        return max(seconds, self._polled_at + MIN_POLL_INTERVAL_SECONDS - now)

    async def _poll(self) -> None:
        """Poll once for all subscribers."""
        asked = [each for each in self._subscriptions if each.wait.ending is None]
        began = self._loop.time()
        defect: Exception | None = None
        search_result: SearchResult | None = None
        try:
            flow = polling.query_for_waits((each.wait for each in asked), self._client.settings)
            search_result = await self._client.run(flow)
        except Exception as error:  # noqa: BLE001 - whatever the error, the waits must end with it
            defect = error
        count_poll(self._client.meter, failed=search_result is None or search_result.has_gaps)
        self._client.meter.flush()
        self._failures.record(search_result.failure if search_result else None)
        self._polled_at = self._loop.time()
        interval = min((each.interval for each in self._subscriptions), default=0.0)
        now = self._clock()
        self._retry_after_until = self._polled_at + (polling.retry_after_delay(self._failures.last, now) or 0)
        # After a failure the pause counts from the end of the poll, to spare the server.
        pause = polling.poll_delay(interval, self._failures, now, self._jitter())
        self._due = (self._polled_at if self._failures.last else began) + pause
        await self._record(asked, search_result, defect)

    async def _record(
        self,
        asked: list[Subscription],
        search_result: SearchResult | None,
        defect: Exception | None,
    ) -> None:
        now = self._now()
        woken = judged = 0
        for each in asked:
            if each not in self._subscriptions or each.wait.ending is not None:
                continue
            if search_result is not None and each.wait.rows_to_sort(search_result) > MAX_ROWS_SORTED_INLINE:
                await in_thread(each.wait.sort_rows, search_result)
                if each not in self._subscriptions or each.wait.ending is not None:
                    continue
            judged += each.wait.size
            if search_result is not None:
                each.wait.record_poll(search_result, now, each.connection)
            elif defect is not None:
                each.fail(defect)
            if each.wait.has_news():
                each.wake()
                woken += 1
            if woken >= MAX_WAKEUPS_AT_ONCE or judged >= MAX_JUDGED_AT_ONCE:
                woken = judged = 0
                await asyncio.sleep(0)

    def _now(self) -> Moment:
        return Moment(self._clock(), self._loop.time())


class PollerRegistry:
    """The pollers of this process, one for each event loop and endpoint."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Settings, Poller]] = (
            WeakKeyDictionary()
        )

    def get(self, settings: Settings, make_client: Callable[[Settings], AsyncBpmClient]) -> Poller:
        """Return the poller of the running event loop for an environment.

        Connections share a poller if their settings agree on everything that a poll depends on.

        :param settings: the environment.
        :param make_client: makes the client for a new poller.
        """
        key = self.poll_settings(settings)
        with self._lock:
            pollers = self._pollers.setdefault(asyncio.get_running_loop(), {})
        if key not in pollers:
            poller = Poller(make_client(settings), on_end=lambda: self._forget(pollers, key, poller))
            pollers[key] = poller
        return pollers[key]

    @staticmethod
    def poll_settings(settings: Settings) -> Settings:
        """Return the settings with only the fields that a poll depends on."""
        return replace(settings, connection="", timezone=None, start_grace=0, instance_url=None)

    def clear(self) -> None:
        """Forget all pollers."""
        with self._lock:
            self._pollers.clear()

    @staticmethod
    def _forget(pollers: dict[Settings, Poller], key: Settings, poller: Poller) -> None:
        if pollers.get(key) is poller:
            del pollers[key]


POLLERS = PollerRegistry()
"""The pollers of this process."""

process_state.register(POLLERS.clear)
