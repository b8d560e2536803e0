"""The trigger that creates an asset event whenever an instance of a process enters a state or a business status.

Airflow cannot write an event and the trigger's stored state in one transaction. So the event comes first: if the triggerer is
killed between the two, which are a few hundredths of a second apart, the event is sent again.
"""

from __future__ import annotations

import asyncio
import random
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_astrobpm._airflow.version_compat import asset_state_store, event_triggers_have_queue
from airflow_provider_astrobpm.client import texts, validation
from airflow_provider_astrobpm.client.backoff import Backoff
from airflow_provider_astrobpm.client.drivers import in_thread
from airflow_provider_astrobpm.hooks import DEFAULT_CONN_ID
from airflow_provider_astrobpm.triggers.read_retries import read_with_retries
from airflow_provider_astrobpm.watching.targets import WatchTargets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import timedelta

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.settings import Settings
    from airflow_provider_astrobpm.watching.watch import Watch

SHARED_STORE = (
    "The asset's state store cannot be used. If several assets share this trigger, because their watchers have equal arguments, "
    "the trigger cannot know which asset's store to use: make the arguments differ, for example the poll_interval"
)
# Airflow writes events one by one, and sends no heartbeat until it has written all events that it took.
MAX_EVENTS_AT_ONCE = 50
DELIVERY_INTERVAL_SECONDS = 1.0
RETRY_DELAY_SECONDS = (
    30.0  # after a failure that may need a person to fix it; or the poll interval, if that is longer
)


class AstroZeroBpmEventTrigger(BaseEventTrigger):
    """Fire an event whenever an instance of a process enters a state or a business status; for ``AssetWatcher``.

    The event's payload is the instance, as the dict that the operators return. The trigger shares its polls with all waits on
    the same endpoint. It needs one request for each watched state; for business statuses, one for each state in which they
    count.

    It keeps what it has reported in the asset's state store (Airflow 3.3), so that a restart neither repeats nor misses an
    entry. Before Airflow 3.3 it remembers that only while it runs: entries are missed while no triggerer runs it. An instance
    that enters and leaves between two polls is never seen. Closed instances stay, so their ends are not missed.

    :param bpm_name: the BPM's name; only its instances count.
    :param states: the states that they may enter. Without ``states`` and ``bp_statuses``, every terminal state counts.
    :param bp_statuses: the business statuses that they may reach.
    :param include_existing: whether to report what the first poll finds there. By default that is only the baseline.
    :param poll_interval: seconds between two polls, at least 1. The smallest interval of all tasks and triggers that poll an
        endpoint counts for all of them.
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    :param queue: the triggerers that may run it are those with this name in ``--queues`` (Airflow 3.4); by default those without
        ``--queues``.
    :raises ValueError: for a bad argument, and for a ``queue`` before Airflow 3.4.
    """

    def __init__(
        self,
        *,
        bpm_name: str,
        states: Sequence[str] | None = None,
        bp_statuses: Sequence[str] | None = None,
        include_existing: bool = False,
        poll_interval: float | timedelta = 60,
        astro_zero_conn_id: str = DEFAULT_CONN_ID,
        queue: str | None = None,
    ) -> None:
        super().__init__(**_queue_argument(queue))  # type: ignore[no-untyped-call, unused-ignore]
        self._targets = WatchTargets.of(bpm_name, states, bp_statuses)
        self.bpm_name = bpm_name
        self.states = states
        self.bp_statuses = bp_statuses
        self.include_existing = include_existing
        self.poll_interval = validation.poll_interval(poll_interval)
        self.astro_zero_conn_id = validation.non_blank(astro_zero_conn_id, "astro_zero_conn_id")

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of this class, and its arguments. Watchers for which both are equal share one trigger.

        The queue is not part of it. Airflow reads the attribute when it registers the trigger, and stores the queue separately.
        """
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "bpm_name": self.bpm_name,
                "states": None if self.states is None else sorted(self.states),
                "bp_statuses": None if self.bp_statuses is None else sorted(self.bp_statuses),
                "include_existing": self.include_existing,
                "poll_interval": self.poll_interval,
                "astro_zero_conn_id": self.astro_zero_conn_id,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch until cancelled. No task waits for this trigger, so errors are logged and retried."""
        from airflow_provider_astrobpm.triggers.base import import_runtime_modules  # noqa: PLC0415

        await in_thread(import_runtime_modules)
        from airflow_provider_astrobpm.client.errors import CallError  # noqa: PLC0415

        watching = _WatchRun(self, self._targets)
        logged: tuple[str, int] | None = None
        try:
            while True:
                try:
                    async for event in watching.events():
                        yield event
                except Exception as error:
                    # Log each series of equal failures once.
                    what = (
                        f"{type(error).__name__} {error.status}"
                        if isinstance(error, CallError)
                        else str(error)
                    )
                    if logged != (found := (what, watching.polls)):
                        logged = found
                        self.log.exception("Could not watch %s; will try again until it works", self._targets)
                again = Backoff(max(RETRY_DELAY_SECONDS, self.poll_interval), factor=1, jitter=0.1)
                await asyncio.sleep(again.pause(1, random.random()))  # noqa: S311 - jitter
        finally:
            self.log.info("Stopped watching %s", self._targets)


def _queue_argument(queue: str | None) -> dict[str, str]:
    """Return the arguments of Airflow's base class for a queue."""
    if queue is None:
        return {}
    validation.non_blank(queue, "queue")
    if not event_triggers_have_queue():
        raise ValueError(
            "queue needs Airflow 3.4 or newer, where an asset watcher's trigger can be assigned to some of the triggerers; "
            "leave it out"
        )
    return {"queue": queue}


class _WatchRun:
    """The watch of one trigger. It survives failures."""

    def __init__(self, trigger: AstroZeroBpmEventTrigger, targets: WatchTargets) -> None:
        from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook  # noqa: PLC0415
        from airflow_provider_astrobpm.triggers.watch_state import WatchState  # noqa: PLC0415
        from airflow_provider_astrobpm.watching import state_codec  # noqa: PLC0415

        self._trigger = trigger
        self._targets = targets
        self._hook = AstroZeroHook(trigger.astro_zero_conn_id)
        name = state_codec.state_name(trigger.astro_zero_conn_id, targets)
        self._store = asset_state_store(trigger)
        self._state = WatchState(name, self._store)
        self._watch: Watch | None = None

    @property
    def polls(self) -> int:
        """How many polls have read all lists."""
        return self._watch.polls if self._watch else 0

    async def events(self) -> AsyncIterator[TriggerEvent]:
        """Yield events until something fails, and raise that error."""
        from airflow_provider_astrobpm.waiting.poller import POLLERS  # noqa: PLC0415

        watch = self._watch = self._watch or await self._new_watch()
        settings = await read_with_retries(
            self._hook.async_settings,
            "the connection",
            awaited=watch,
            connection=self._trigger.astro_zero_conn_id,
            log=self._trigger.log,
        )
        poller = POLLERS.get(settings, self._hook.make_async_client)
        async with poller.join(
            watch, interval=self._trigger.poll_interval, connection=self._trigger.astro_zero_conn_id
        ) as subscription:
            while watch.ending is None:
                for note in await subscription.notes():
                    note.write_to(self._trigger.log)
                watch.acknowledge()
                async for event in self._report(watch, settings):
                    yield event
                if not watch.is_saved:
                    await self._save(watch)
        error = watch.ending
        watch.resume()
        raise error

    async def _new_watch(self) -> Watch:
        from airflow_provider_astrobpm.client.errors import AstroZeroError  # noqa: PLC0415
        from airflow_provider_astrobpm.watching.watch import Watch  # noqa: PLC0415

        try:
            entry_keys = await self._state.read()
        except ValueError as error:
            # With several assets, Airflow's store needs to know which one is meant, and does not list them.
            raise AstroZeroError(SHARED_STORE) from error
        if entry_keys is not None:
            self._trigger.log.info(
                "Watching %s; resumed with %s entries already reported", self._targets, len(entry_keys)
            )
        return Watch(self._targets, entry_keys, include_existing=self._trigger.include_existing)

    async def _report(self, watch: Watch, settings: Settings) -> AsyncIterator[TriggerEvent]:
        """Fire an event for each new entry, and store each as reported once Airflow has taken it."""
        if not watch.entries:
            return
        if self._store is not None:
            # Another triggerer that considered this one dead may have reported some entries.
            watch.mark_reported(await self._state.read_additions())
        while some := dict(islice(watch.entries.items(), MAX_EVENTS_AT_ONCE)):
            async for event in self._report_some(watch, some, settings):
                yield event

    async def _report_some(
        self, watch: Watch, entries: Mapping[str, BpmInstance], settings: Settings
    ) -> AsyncIterator[TriggerEvent]:
        from airflow_provider_astrobpm.watching.delivery import DeliveryTracker  # noqa: PLC0415

        tracker = DeliveryTracker()
        for key, instance in entries.items():
            plain = texts.storable(
                instance.as_dict(url=settings.page_url(instance.id), timezone=settings.timezone)
            )
            payload = plain if self._store is None else tracker.payload(key, plain)
            yield TriggerEvent(payload)  # type: ignore[no-untyped-call]
        if self._store is None:
            watch.mark_reported(entries)
            await self._save(watch)
            if watch.entries:
                await asyncio.sleep(DELIVERY_INTERVAL_SECONDS)
        failure: Exception | None = None
        async for entry_keys in tracker.delivered():
            watch.mark_reported(entry_keys)
            try:
                await self._save(watch)
            except Exception as error:  # noqa: BLE001 - Airflow takes the other events all the same; raised below
                failure = failure or error
        if failure is not None:
            raise failure

    async def _save(self, watch: Watch) -> None:
        watch.is_saved = True  # unless a poll changes something meanwhile
        try:
            await self._state.write(frozenset(watch.entry_keys))
        except BaseException:
            watch.is_saved = False
            raise
