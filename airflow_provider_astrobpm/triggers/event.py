"""The trigger that lets an asset have an event whenever an instance of a process enters a state or a business status.

Airflow writes an event and what a trigger keeps of it one after the other, never both at once. So the event comes first:
a triggerer that is killed between the two, which are some hundredths of a second apart, tells of it once more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_astrobpm._airflow.version_compat import asset_state_store
from airflow_provider_astrobpm.bpm import checks, texts
from airflow_provider_astrobpm.bpm.places import Places
from airflow_provider_astrobpm.hooks import DEFAULT_CONN_ID
from airflow_provider_astrobpm.triggers.patience import patiently

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import timedelta

    from airflow_provider_astrobpm.bpm.settings import Settings
    from airflow_provider_astrobpm.bpm.watch import Entry, Watch

SHARED = (
    "The asset's state store cannot be used. If several assets are watched by this one trigger, because theirs have equal "
    "arguments, it cannot tell in whose store to keep what it has reported: let their arguments differ, by the poll_interval "
    "for example"
)
# Airflow writes events down one by one, and gives no sign of life before it is through with all that it has taken.
AT_A_TIME = 50
TAKEN_EVERY = 1.0  # seconds
PAUSE = 30.0  # seconds, at least, from a failure that a person may have to mend to the next attempt


class AstroZeroBpmEventTrigger(BaseEventTrigger):
    """Fire an event whenever an instance of a process enters a state or a business status; for ``AssetWatcher``.

    The event's payload is the instance, as the dict that the operators return. It looks together with all who wait on the
    same endpoint, one request for each state that it watches; for business statuses that is all of them, because an
    instance may have one in any state.

    What it has reported it keeps in the asset's state store (Airflow 3.3), so that a restart neither repeats nor omits
    anything. Before Airflow 3.3 it knows that only as long as it runs: what enters while no triggerer runs it is not
    reported. An instance that enters and leaves between two looks is never seen; what has ended stays.

    :param bpm_name: the BPM's name; only its instances count.
    :param states: states that they may enter; without these and ``bp_statuses`` every end counts.
    :param bp_statuses: business statuses that they may come to.
    :param include_existing: whether the first look reports what it finds there; by default it only begins with that.
    :param poll_interval: seconds between two looks, at least 1. The smallest interval of all who look at an endpoint
        counts for all of them.
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    :raises ValueError: for a bad argument.
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
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._places = Places.of(bpm_name, states, bp_statuses)
        self.bpm_name = bpm_name
        self.states = states
        self.bp_statuses = bp_statuses
        self.include_existing = include_existing
        self.poll_interval = checks.poll_interval(poll_interval)
        self.astro_zero_conn_id = checks.text(astro_zero_conn_id, "astro_zero_conn_id")

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of this class, and its arguments. Watchers for which both are equal share one trigger."""
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
        """Watch, for as long as it is wanted. Nobody waits for it who could be told of an error, so it goes on after each."""
        from airflow_provider_astrobpm.triggers.base import import_what_runs  # noqa: PLC0415

        await asyncio.to_thread(import_what_runs)
        from airflow_provider_astrobpm.bpm.errors import CallError  # noqa: PLC0415

        watching = _Watching(self, self._places)
        told: tuple[str, int] | None = None
        try:
            while True:
                try:
                    async for event in watching.events():
                        yield event
                except Exception as error:
                    # Once for each stretch of failures.
                    what = (
                        f"{type(error).__name__} {error.status}"
                        if isinstance(error, CallError)
                        else str(error)
                    )
                    if told != (found := (what, watching.looks)):
                        told = found
                        self.log.exception(
                            "Could not watch %s; trying again for as long as it takes", self._places
                        )
                await asyncio.sleep(max(PAUSE, self.poll_interval))
        finally:
            self.log.info("Watching %s ends here", self._places)


class _Watching:
    """The watch of one trigger, over whatever fails meanwhile."""

    def __init__(self, trigger: AstroZeroBpmEventTrigger, places: Places) -> None:
        from airflow_provider_astrobpm.bpm import cursor  # noqa: PLC0415
        from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook  # noqa: PLC0415
        from airflow_provider_astrobpm.triggers.memory import WatchMemory  # noqa: PLC0415

        self._trigger = trigger
        self._places = places
        self._hook = AstroZeroHook(trigger.astro_zero_conn_id)
        name = cursor.name_of(trigger.astro_zero_conn_id, places)
        self._store = asset_state_store(trigger)
        self._memory = WatchMemory(name, self._store)
        self._watch: Watch | None = None

    @property
    def looks(self) -> int:
        """How many looks have succeeded so far."""
        return self._watch.looks if self._watch else 0

    async def events(self) -> AsyncIterator[TriggerEvent]:
        """Yield the events until something fails, and raise that."""
        from airflow_provider_astrobpm.bpm.poller import POLLERS  # noqa: PLC0415

        watch = self._watch = self._watch or await self._new_watch()
        settings = await patiently(
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
                watch.noticed()
                async for event in self._report(watch, settings):
                    yield event
                if not watch.is_written:
                    await self._write(watch)
        error = watch.ending
        watch.resume()
        raise error

    async def _new_watch(self) -> Watch:
        from airflow_provider_astrobpm.bpm.errors import AstroZeroError  # noqa: PLC0415
        from airflow_provider_astrobpm.bpm.watch import Watch  # noqa: PLC0415

        try:
            marks = await self._memory.read()
        except ValueError as error:
            # Airflow's store of several assets has to be told which of them is meant, and does not say which there are.
            raise AstroZeroError(SHARED) from error
        if marks is not None:
            self._trigger.log.info("Watching %s goes on; %s are known", self._places, len(marks))
        return Watch(self._places, marks, include_existing=self._trigger.include_existing)

    async def _report(self, watch: Watch, settings: Settings) -> AsyncIterator[TriggerEvent]:
        """Fire an event for each entry that was not reported yet, and write down each as soon as Airflow has it."""
        if not watch.entries:
            return
        if self._store is not None:
            # A triggerer that took this one for dead may have reported some.
            watch.reported(await self._memory.read() or ())
        while some := watch.entries[:AT_A_TIME]:
            async for event in self._report_some(watch, some, settings):
                yield event

    async def _report_some(
        self, watch: Watch, entries: list[Entry], settings: Settings
    ) -> AsyncIterator[TriggerEvent]:
        from airflow_provider_astrobpm.triggers.taking import Taking  # noqa: PLC0415

        taking = Taking()
        for mark, instance in entries:
            plain = texts.storable(
                instance.as_dict(url=settings.url_of(instance.id), timezone=settings.timezone)
            )
            payload = plain if self._store is None else taking.payload(mark, plain)
            yield TriggerEvent(payload)  # type: ignore[no-untyped-call]
        if self._store is None:
            watch.reported({entry.mark for entry in entries})
            await self._write(watch)
            if watch.entries:
                await asyncio.sleep(TAKEN_EVERY)
        failure: Exception | None = None
        async for marks in taking.taken():
            watch.reported(marks)
            try:
                await self._write(watch)
            except Exception as error:  # noqa: BLE001 - Airflow takes the others all the same; it is raised below
                failure = failure or error
        if failure is not None:
            raise failure

    async def _write(self, watch: Watch) -> None:
        await self._memory.write(watch.marks)
        watch.is_written = True
