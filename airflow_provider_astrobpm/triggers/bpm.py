"""The trigger that waits for one BPM instance.

It asks for nothing itself: it joins the poller that all triggers of its process share, and passes on what changes. The
client and its libraries are imported in a thread when the first one runs, because the import would block the event loop,
and because the worker, which only makes triggers, does not need them.
"""

from __future__ import annotations

import asyncio
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_astrobpm.bpm.condition import Outcome, WaitCondition
from airflow_provider_astrobpm.triggers import waiter
from airflow_provider_astrobpm.triggers.kill import TaskInstanceKey, prepare, why_it_was_no_kill

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from airflow_provider_astrobpm.bpm.condition import OnSuspended
    from airflow_provider_astrobpm.bpm.poller import Poller
    from airflow_provider_astrobpm.bpm.wait import Wait

TELLS_OF_KILLS = hasattr(BaseTrigger, "on_kill")
"""Whether Airflow calls ``on_kill`` (from 3.3 on); before that a trigger is only cancelled, whatever the reason."""

_KILLS: set[asyncio.Task[None]] = set()
"""Terminations under way: an event loop itself keeps no task alive."""


class AstroZeroBpmInstanceTrigger(BaseTrigger):
    """Wait for a BPM instance in the triggerer.

    Fires one event, which ``airflow_provider_astrobpm.bpm.event`` makes and reads. All arguments are plain JSON, and
    none is a secret: they are stored in Airflow's database.

    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    :param instance_id: the instance's id.
    :param business_key: the instance's business key, where the id is not known.
    :param bpm_name: with ``business_key``: only instances of this BPM count.
    :param seen: the instance as the task saw it last, as ``msgspec.to_builtins`` makes it.
    :param states: states to wait for; see ``WaitCondition`` for this and the next four.
    :param bp_statuses: business statuses to wait for.
    :param failed_states: states that fail the wait.
    :param failed_bp_statuses: business statuses that fail the wait.
    :param on_suspended: whether a suspended instance is waited through or fails the wait.
    :param poll_interval: seconds between two looks at most.
    :param deadline: when the wait fails, in seconds since the epoch; ``None`` for never.
    :param max_poll_failure_time: seconds for which looks may fail in a row.
    :param terminate_on_kill: whether the instance is terminated when a person ends the task.
    """

    def __init__(
        self,
        *,
        astro_zero_conn_id: str,
        instance_id: str | None = None,
        business_key: str | None = None,
        bpm_name: str | None = None,
        seen: Mapping[str, Any] | None = None,
        states: Sequence[str] | None = None,
        bp_statuses: Sequence[str] | None = None,
        failed_states: Sequence[str] | None = None,
        failed_bp_statuses: Sequence[str] | None = None,
        on_suspended: OnSuspended = "wait",
        poll_interval: float = 60,
        deadline: float | None = None,
        max_poll_failure_time: float = 600,
        terminate_on_kill: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.astro_zero_conn_id = astro_zero_conn_id
        self.instance_id = instance_id
        self.business_key = business_key
        self.bpm_name = bpm_name
        self.seen = seen
        self.states = states
        self.bp_statuses = bp_statuses
        self.failed_states = failed_states
        self.failed_bp_statuses = failed_bp_statuses
        self.on_suspended = on_suspended
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.max_poll_failure_time = max_poll_failure_time
        self.terminate_on_kill = terminate_on_kill
        self._poller: Poller | None = None
        self._awaited: Wait | None = None
        self._has_fired = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of this class, and its arguments."""
        return (
            "airflow_provider_astrobpm.triggers.bpm.AstroZeroBpmInstanceTrigger",
            {
                "astro_zero_conn_id": self.astro_zero_conn_id,
                "instance_id": self.instance_id,
                "business_key": self.business_key,
                "bpm_name": self.bpm_name,
                "seen": self.seen,
                "states": self.states,
                "bp_statuses": self.bp_statuses,
                "failed_states": self.failed_states,
                "failed_bp_statuses": self.failed_bp_statuses,
                "on_suspended": self.on_suspended,
                "poll_interval": self.poll_interval,
                "deadline": self.deadline,
                "max_poll_failure_time": self.max_poll_failure_time,
                "terminate_on_kill": self.terminate_on_kill,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire the one event."""
        try:
            await asyncio.to_thread(_import_what_runs)
            from airflow_provider_astrobpm.bpm import event  # noqa: PLC0415

            payload = event.encode(await self._end_of_wait(), waiter(self.task_instance))
        except asyncio.CancelledError:
            if not TELLS_OF_KILLS:
                await self.on_kill()
            raise
        self._has_fired = True  # from here on Airflow may still call on_kill, though nothing was killed
        yield TriggerEvent(payload)  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Terminate the instance if a person ended the task.

        Airflow cancels this after about a second, so the work is done in a task of its own with a client of its own.
        """
        if self.terminate_on_kill and self.instance_id is not None and not self._has_fired:
            kill = asyncio.get_running_loop().create_task(self._kill(self.instance_id))
            _KILLS.add(kill)
            kill.add_done_callback(_KILLS.discard)
            await asyncio.shield(kill)

    async def _end_of_wait(self) -> Any:
        """Return how the wait ended: the instance or the error."""
        from airflow_provider_astrobpm.bpm.errors import AuthenticationError  # noqa: PLC0415
        from airflow_provider_astrobpm.bpm.poller import POLLERS  # noqa: PLC0415
        from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook  # noqa: PLC0415

        hook = AstroZeroHook(self.astro_zero_conn_id)
        if self.terminate_on_kill and self.task_instance is not None:
            prepare(TaskInstanceKey.of(self.task_instance))
        try:
            self._awaited = awaited = self._wait()
            self._poller = POLLERS.get(await hook.async_settings(), hook.make_async_client)
            while True:
                subscription = self._poller.join(
                    awaited, interval=self.poll_interval, connection=self.astro_zero_conn_id
                )
                async with subscription:
                    while awaited.ending is None:
                        for note in await subscription.notes():
                            note.write_to(self.log)
                if not isinstance(awaited.ending, AuthenticationError):
                    return awaited.ending
                # The secret may have been renewed in the days since the wait began.
                try:
                    settings = await hook.async_settings()
                except Exception:
                    self.log.exception("The connection could not be read again")
                    return awaited.ending
                if POLLERS.key(settings) == POLLERS.key(self._poller.settings):
                    return awaited.ending
                self.log.warning("The connection has changed; the wait goes on with its new settings")
                self._poller = POLLERS.get(settings, hook.make_async_client)
                awaited.resume()
        except Exception as error:
            self.log.exception("The wait could not go on")
            return error

    def _wait(self) -> Wait:
        import msgspec  # noqa: PLC0415

        from airflow_provider_astrobpm.bpm import search, wait  # noqa: PLC0415
        from airflow_provider_astrobpm.bpm.instance import BpmInstance  # noqa: PLC0415

        seen, self.seen = self.seen, None  # kept once, and smaller, by the wait
        return wait.Wait(
            self._condition(),
            instance_id=self.instance_id,
            key=search.key_of(self.business_key, self.bpm_name) if self.business_key else None,
            seen=msgspec.convert(seen, BpmInstance) if seen else None,
            deadline=self.deadline,
            max_poll_failure_time=self.max_poll_failure_time,
        )

    def _condition(self) -> WaitCondition:
        return WaitCondition.of(
            states=self.states,
            bp_statuses=self.bp_statuses,
            failed_states=self.failed_states,
            failed_bp_statuses=self.failed_bp_statuses,
            on_suspended=self.on_suspended,
        )

    def _last_state(self) -> str | None:
        seen = self._awaited.seen if self._awaited else None
        return seen.state if seen else None

    async def _kill(self, instance_id: str) -> None:
        from airflow_provider_astrobpm.bpm import change, search  # noqa: PLC0415
        from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook  # noqa: PLC0415

        try:
            if reason := await self._why_no_kill(instance_id):
                self.log.info("Instance %r is left as it is: %s", instance_id, reason)
                return
            async with AstroZeroHook(self.astro_zero_conn_id).async_client() as client:
                find = search.finder(client.settings)
                instance = await client.run(find(instance_id, self._last_state()))
                if self._condition().judge(instance).outcome is not Outcome.WAITING:
                    self.log.info("Left as it is, for its wait is over: %s", instance)
                    return
                self.log.info("The task was ended by a person; terminating %s", instance)
                done = await client.run(change.change_state(instance_id, "terminate", find=find))
            self.log.info(done.note)
        except Exception:
            self.log.exception(
                "Instance %r was to be terminated and may still be open: terminate it by hand", instance_id
            )

    async def _why_no_kill(self, instance_id: str) -> str | None:
        if self.deadline is not None and time.time() >= self.deadline:
            return "its deadline had passed anyway"
        absent = self._poller.stood_still(within=60) if self._poller is not None else 0.0
        if absent > _longest_absence():
            return f"this triggerer stood still for {absent:.0f} s, and another may have taken the wait over"
        if self.task_instance is None:
            return "nobody knows for which task it was waited"
        return await why_it_was_no_kill(TaskInstanceKey.of(self.task_instance), instance_id)


def _longest_absence() -> float:
    """Return for how many seconds a triggerer may stand still while no other takes over, with some to spare."""
    return float(conf.getfloat("triggerer", "triggerer_health_check_threshold", fallback=30)) / 2


def _import_what_runs() -> None:
    """Import in a thread what every run needs, and what a kill needs in a hurry."""
    for module in (
        "airflow.sdk.execution_time.task_runner",
        "airflow_provider_astrobpm.bpm.event",
        "airflow_provider_astrobpm.bpm.poller",
        "airflow_provider_astrobpm.hooks.astro_zero",
    ):
        import_module(module)
