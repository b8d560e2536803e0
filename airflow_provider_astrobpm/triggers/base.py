"""Base class of the triggers that wait: they fire once, and distinguish a kill by a user from other cancellations.

Triggers do not poll. They join the poller that all triggers of the process share, and log what changes. The client and its
libraries are imported in a thread when the first trigger runs: the import would block the event loop, and a worker, which only
creates triggers, does not need them.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import conf
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_astrobpm._airflow.user_action import TaskInstanceRef, warm_up, why_not_user_action
from airflow_provider_astrobpm._airflow.version_compat import triggers_have_on_kill
from airflow_provider_astrobpm.client import process_state
from airflow_provider_astrobpm.client.drivers import in_thread
from airflow_provider_astrobpm.triggers import task_instance_id
from airflow_provider_astrobpm.triggers.read_retries import read_with_retries
from airflow_provider_astrobpm.waiting.condition import CONDITION_ARGUMENTS, WaitCondition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
    from airflow_provider_astrobpm.waiting.condition import OnSuspended
    from airflow_provider_astrobpm.waiting.poller import Poller
    from airflow_provider_astrobpm.waiting.wait import BaseWait

T = TypeVar("T")

RUNNING_KILLS: set[asyncio.Task[None]] = set()
"""Terminations that are running. The event loop itself keeps only weak references to tasks."""

process_state.register(RUNNING_KILLS.clear)


class WaitingTrigger(BaseTrigger):
    """A trigger that waits. All arguments are plain JSON without secrets, because Airflow stores them in its database.

    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    :param states: states to wait for; see ``WaitCondition`` for this and the next four.
    :param bp_statuses: business statuses to wait for.
    :param failed_states: states that fail the wait.
    :param failed_bp_statuses: business statuses that fail the wait.
    :param on_suspended: ``"wait"`` keeps waiting for a suspended instance, ``"fail"`` fails the wait.
    :param poll_interval: seconds between two polls at most.
    :param deadline: when the wait fails, in seconds since the epoch; ``None`` for never.
    :param deadline_argument: the argument of the task that set the deadline.
    :param max_poll_failure_time: seconds for which polls may fail in a row.
    :param terminate_on_kill: whether to terminate the awaited instances when a user ends the task.
    """

    def __init__(
        self,
        *,
        astro_zero_conn_id: str,
        states: Sequence[str] | None = None,
        bp_statuses: Sequence[str] | None = None,
        failed_states: Sequence[str] | None = None,
        failed_bp_statuses: Sequence[str] | None = None,
        on_suspended: OnSuspended = "wait",
        poll_interval: float = 60,
        deadline: float | None = None,
        deadline_argument: str = "timeout",
        max_poll_failure_time: float = 600,
        terminate_on_kill: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.astro_zero_conn_id = astro_zero_conn_id
        self.states = states
        self.bp_statuses = bp_statuses
        self.failed_states = failed_states
        self.failed_bp_statuses = failed_bp_statuses
        self.on_suspended = on_suspended
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.deadline_argument = deadline_argument
        self.max_poll_failure_time = max_poll_failure_time
        self.terminate_on_kill = terminate_on_kill
        self._poller: Poller | None = None
        self._has_fired = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of this class, and its arguments."""
        common = (
            "astro_zero_conn_id",
            *CONDITION_ARGUMENTS,
            "on_suspended",
            "poll_interval",
            "deadline",
            "deadline_argument",
            "max_poll_failure_time",
            "terminate_on_kill",
        )
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {argument: getattr(self, argument) for argument in (*common, *self._own_arguments)},
        )

    _own_arguments: tuple[str, ...] = ()
    """The arguments of a subclass, in addition to the common ones."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire one event."""
        try:
            await in_thread(import_runtime_modules)
            payload = self._event(await self._end_of_wait(), task_instance_id(self.task_instance))
        except asyncio.CancelledError:
            if not triggers_have_on_kill():
                await self.on_kill()
            raise
        self._has_fired = True  # from here on Airflow may call on_kill even if no user ended the task
        yield TriggerEvent(payload)  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Terminate what it waits for if a user ended the task.

        Airflow cancels this call after about a second, so the work runs in its own task with its own client.
        """
        if self.terminate_on_kill and self._awaited_xcom is not None and not self._has_fired:
            kill = asyncio.get_running_loop().create_task(self._kill())
            RUNNING_KILLS.add(kill)
            kill.add_done_callback(RUNNING_KILLS.discard)
            await asyncio.shield(kill)

    # To be implemented by subclasses.

    @property
    @abstractmethod
    def _awaited_xcom(self) -> tuple[str, str] | None:
        """The XCom in which the task publishes what it waits for, and the value for this wait; ``None`` if there is none."""

    @property
    @abstractmethod
    def _subject(self) -> str:
        """What the trigger waits for, as the subject of a log line."""

    @abstractmethod
    async def _new_wait(self) -> BaseWait[Any]:
        """Return the wait of this trigger."""

    @abstractmethod
    def _event(self, ending: Any, waiter: str | None) -> dict[str, Any]:
        """Return the payload of the event.

        :param ending: how the wait ended: the success value, or the error.
        """

    @abstractmethod
    async def _terminate(self, client: AsyncBpmClient) -> str:
        """Terminate what it waits for, unless its wait has ended, and return the result as a log line."""

    # Shared by all subclasses.

    async def _end_of_wait(self) -> Any:
        """Return how the wait ended: the success value, or the error."""
        from airflow_provider_astrobpm.client.errors import CallError  # noqa: PLC0415
        from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook  # noqa: PLC0415
        from airflow_provider_astrobpm.waiting.poller import POLLERS  # noqa: PLC0415

        hook = AstroZeroHook(self.astro_zero_conn_id)
        if self.terminate_on_kill and self.task_instance is not None:
            warm_up(TaskInstanceRef.of(self.task_instance))
        try:
            awaited = await self._new_wait()
            awaited.deadline_argument = self.deadline_argument
            settings = await self._read_with_retries(hook.async_settings, "the connection", awaited)
            self._poller = POLLERS.get(settings, hook.make_async_client)
            awaited.grace = settings.start_grace
            while True:
                subscription = self._poller.join(
                    awaited, interval=self.poll_interval, connection=self.astro_zero_conn_id
                )
                async with subscription:
                    while awaited.ending is None:
                        for note in await subscription.notes():
                            note.write_to(self.log)
                if not isinstance(awaited.ending, CallError):
                    return awaited.ending
                # The secret may have been changed since the wait began. It is not documented how the server refuses the old
                # one, so any failed poll may mean that.
                try:
                    settings = await hook.async_settings()
                except Exception:
                    self.log.exception("The connection could not be read again")
                    return awaited.ending
                if POLLERS.poll_settings(settings) == POLLERS.poll_settings(self._poller.settings):
                    return awaited.ending
                self.log.warning("The connection has changed; still waiting, with the new settings")
                self._poller = POLLERS.get(settings, hook.make_async_client)
                awaited.grace = settings.start_grace
                awaited.resume()
        except Exception as error:
            self.log.exception("The wait could not continue")
            return error

    async def _read_with_retries(
        self, read: Callable[[], Awaitable[T]], what: str, awaited: BaseWait[Any] | None = None
    ) -> T:
        """Read something, and retry while the wait tolerates failures; see ``read_with_retries`` for the parameters."""
        from airflow_provider_astrobpm.waiting.lookup import LookupWait  # noqa: PLC0415

        wait: BaseWait[Any] = awaited or LookupWait(self.max_poll_failure_time)
        return await read_with_retries(
            read, what, awaited=wait, connection=self.astro_zero_conn_id, log=self.log
        )

    def _condition(self) -> WaitCondition:
        asked: dict[str, Any] = {argument: getattr(self, argument) for argument in CONDITION_ARGUMENTS}
        return WaitCondition.of(**asked, on_suspended=self.on_suspended)

    async def _kill(self) -> None:
        from airflow_provider_astrobpm.client.metrics import KILLS  # noqa: PLC0415
        from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook  # noqa: PLC0415

        try:
            if reason := await self._why_not_killed():
                self.log.info("%s is not terminated: %s", self._subject, reason)
                return
            async with AstroZeroHook(self.astro_zero_conn_id).async_client() as client:
                client.meter.count(KILLS)
                self.log.info(await self._terminate(client))
        except Exception:
            self.log.exception(
                "%s could not be terminated and may still be open: terminate it by hand", self._subject
            )

    async def _why_not_killed(self) -> str | None:
        if self.deadline is not None and time.time() >= self.deadline:
            return "its deadline had already passed"
        stall = self._poller.longest_stall(within=60) if self._poller is not None else 0.0
        if stall > _max_tolerated_stall():
            return f"this triggerer stalled for {stall:.0f} s, and another one may have taken over the wait"
        if self.task_instance is None or self._awaited_xcom is None:
            return "it is unknown which task waited for it"
        return await why_not_user_action(TaskInstanceRef.of(self.task_instance), *self._awaited_xcom)


def _max_tolerated_stall() -> float:
    """Return for how many seconds a triggerer may stall before another one may take over, with a safety margin."""
    return float(conf.getfloat("triggerer", "triggerer_health_check_threshold", fallback=30)) / 2


def import_runtime_modules() -> None:
    """Import, in a thread, the modules that every run needs and that a kill has no time to import."""
    for module in (
        "airflow.sdk.execution_time.task_runner",
        "airflow_provider_astrobpm.client.async_client",
        "airflow_provider_astrobpm.waiting.event_payload",
        "airflow_provider_astrobpm.batches.bulk_change",
        "airflow_provider_astrobpm.waiting.lookup",
        "airflow_provider_astrobpm.waiting.poller",
        "airflow_provider_astrobpm.hooks.astro_zero",
    ):
        import_module(module)
    import_module("airflow_provider_astrobpm._airflow.stats").prepare()
