"""What all triggers that wait have in common: they look for nothing themselves, fire once, and tell a kill from the rest.

A trigger joins the poller that all triggers of its process share, and passes on what changes. The client and its libraries
are imported in a thread when the first one runs, because the import would block the event loop, and because the worker,
which only makes triggers, does not need them.
"""

from __future__ import annotations

import asyncio
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import conf
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_astrobpm._airflow.version_compat import triggers_have_on_kill
from airflow_provider_astrobpm.bpm.condition import ARGUMENTS, WaitCondition
from airflow_provider_astrobpm.triggers import waiter
from airflow_provider_astrobpm.triggers.kill import TaskInstanceKey, prepare, why_it_was_no_kill
from airflow_provider_astrobpm.triggers.patience import patiently

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from airflow_provider_astrobpm.bpm.aio import AsyncBpmClient
    from airflow_provider_astrobpm.bpm.condition import OnSuspended
    from airflow_provider_astrobpm.bpm.poller import Poller
    from airflow_provider_astrobpm.bpm.wait import AnyWait

T = TypeVar("T")

_KILLS: set[asyncio.Task[None]] = set()
"""Terminations under way: an event loop itself keeps no task alive."""


class WaitingTrigger(BaseTrigger):
    """A trigger that waits. All its arguments are plain JSON, and none is a secret: Airflow stores them in its database.

    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    :param states: states to wait for; see ``WaitCondition`` for this and the next four.
    :param bp_statuses: business statuses to wait for.
    :param failed_states: states that fail the wait.
    :param failed_bp_statuses: business statuses that fail the wait.
    :param on_suspended: whether a suspended instance is waited through or fails the wait.
    :param poll_interval: seconds between two looks at most.
    :param deadline: when the wait fails, in seconds since the epoch; ``None`` for never.
    :param deadline_argument: the argument of the task that set the deadline.
    :param max_poll_failure_time: seconds for which looks may fail in a row.
    :param terminate_on_kill: whether what it waits for is terminated when a person ends the task.
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
            *ARGUMENTS,
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
    """The arguments that a trigger has beside those of all."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire the one event."""
        try:
            await asyncio.to_thread(import_what_runs)
            payload = self._event(await self._end_of_wait(), waiter(self.task_instance))
        except asyncio.CancelledError:
            if not triggers_have_on_kill():
                await self.on_kill()
            raise
        self._has_fired = True  # from here on Airflow may still call on_kill, though nothing was killed
        yield TriggerEvent(payload)  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Terminate what it waits for if a person ended the task.

        Airflow cancels this after about a second, so the work is done in a task of its own with a client of its own.
        """
        if self.terminate_on_kill and self._sign is not None and not self._has_fired:
            kill = asyncio.get_running_loop().create_task(self._kill())
            _KILLS.add(kill)
            kill.add_done_callback(_KILLS.discard)
            await asyncio.shield(kill)

    # What a trigger decides for itself.

    @property
    def _sign(self) -> tuple[str, str] | None:
        """The XCom by which the task shows for what it waits, and what it says of this wait; ``None`` for none."""
        raise NotImplementedError

    @property
    def _waits_for(self) -> str:
        """What it waits for, in words, as the beginning of a sentence."""
        raise NotImplementedError

    async def _new_wait(self) -> AnyWait[Any]:
        raise NotImplementedError

    def _event(self, ending: Any, waiter: str | None) -> dict[str, Any]:
        """Return what the event carries.

        :param ending: how the wait ended: its good end, or the error.
        """
        raise NotImplementedError

    async def _terminate(self, client: AsyncBpmClient) -> str:
        """Terminate what it waits for, if its wait is not over, and return what came of it in words."""
        raise NotImplementedError

    # What they share.

    async def _end_of_wait(self) -> Any:
        """Return how the wait ended: its good end, or the error."""
        from airflow_provider_astrobpm.bpm.errors import CallError  # noqa: PLC0415
        from airflow_provider_astrobpm.bpm.poller import POLLERS  # noqa: PLC0415
        from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook  # noqa: PLC0415

        hook = AstroZeroHook(self.astro_zero_conn_id)
        if self.terminate_on_kill and self.task_instance is not None:
            prepare(TaskInstanceKey.of(self.task_instance))
        try:
            awaited = await self._new_wait()
            awaited.deadline_argument = self.deadline_argument
            settings = await self._patiently(hook.async_settings, "the connection", awaited)
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
                # The secret may have been renewed in the days since the wait began. How the server reports that it does
                # not know the old one is not documented, so any failed poll may be about that.
                try:
                    settings = await hook.async_settings()
                except Exception:
                    self.log.exception("The connection could not be read again")
                    return awaited.ending
                if POLLERS.key(settings) == POLLERS.key(self._poller.settings):
                    return awaited.ending
                self.log.warning("The connection has changed; the wait goes on with its new settings")
                self._poller = POLLERS.get(settings, hook.make_async_client)
                awaited.grace = settings.start_grace
                awaited.resume()
        except Exception as error:
            self.log.exception("The wait could not go on")
            return error

    async def _patiently(
        self, read: Callable[[], Awaitable[T]], what: str, awaited: AnyWait[Any] | None = None
    ) -> T:
        """Return what is read, with the patience of the wait; the parameters are those of ``patience.patiently``."""
        from airflow_provider_astrobpm.bpm.wait import AnyWait  # noqa: PLC0415

        books: AnyWait[Any] = awaited or AnyWait(None, self.max_poll_failure_time)
        return await patiently(read, what, awaited=books, connection=self.astro_zero_conn_id, log=self.log)

    def _condition(self) -> WaitCondition:
        asked: dict[str, Any] = {argument: getattr(self, argument) for argument in ARGUMENTS}
        return WaitCondition.of(**asked, on_suspended=self.on_suspended)

    async def _kill(self) -> None:
        from airflow_provider_astrobpm.bpm.meter import KILLS  # noqa: PLC0415
        from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook  # noqa: PLC0415

        try:
            if reason := await self._why_no_kill():
                self.log.info("%s left as it is: %s", self._waits_for, reason)
                return
            async with AstroZeroHook(self.astro_zero_conn_id).async_client() as client:
                client.meter.count(KILLS)
                self.log.info(await self._terminate(client))
        except Exception:
            self.log.exception(
                "%s was to be terminated and may still be open: terminate it by hand", self._waits_for
            )

    async def _why_no_kill(self) -> str | None:
        if self.deadline is not None and time.time() >= self.deadline:
            return "its deadline had passed anyway"
        absent = self._poller.stood_still(within=60) if self._poller is not None else 0.0
        if absent > _longest_absence():
            return f"this triggerer stood still for {absent:.0f} s, and another may have taken the wait over"
        if self.task_instance is None or self._sign is None:
            return "nobody knows for which task it was waited"
        return await why_it_was_no_kill(TaskInstanceKey.of(self.task_instance), *self._sign)


def _longest_absence() -> float:
    """Return for how many seconds a triggerer may stand still while no other takes over, with some to spare."""
    return float(conf.getfloat("triggerer", "triggerer_health_check_threshold", fallback=30)) / 2


def import_what_runs() -> None:
    """Import in a thread what every run needs, and what a kill needs in a hurry."""
    for module in (
        "airflow.sdk.execution_time.task_runner",
        "airflow_provider_astrobpm.bpm.event",
        "airflow_provider_astrobpm.bpm.group_change",
        "airflow_provider_astrobpm.bpm.lookup",
        "airflow_provider_astrobpm.bpm.poller",
        "airflow_provider_astrobpm.hooks.astro_zero",
    ):
        import_module(module)
    import_module("airflow_provider_astrobpm.hooks.metrics").prepare()
