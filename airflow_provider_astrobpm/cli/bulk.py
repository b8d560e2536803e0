"""Carries a plan out: many instances at a time, a progress bar, and Ctrl-C as a wish to stop."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from airflow_provider_astrobpm.bpm.group_change import GroupChange, change_all
from airflow_provider_astrobpm.bpm.group_set import set_all
from airflow_provider_astrobpm.cli.plan import Outcome
from airflow_provider_astrobpm.cli.running import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_astrobpm.cli.plan import Plan
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook


def carry_out(
    hook: AstroZeroHook, plan: Plan, variables: Mapping[str, Any] | None, *, concurrency: int
) -> Outcome:
    """Change the instances of a plan, and no others.

    :param hook: the hook.
    :param plan: the plan.
    :param variables: the variables to set, if that is the plan.
    :param concurrency: how many are changed at a time at most.
    """
    return asyncio.run(_Bulk(hook, plan, variables, concurrency).run())


class _Bulk:
    def __init__(
        self, hook: AstroZeroHook, plan: Plan, variables: Mapping[str, Any] | None, concurrency: int
    ) -> None:
        self._hook = hook
        self._plan = plan
        self._variables = variables
        self._concurrency = concurrency
        self._stopped = False
        self._so_far = GroupChange(plan.action)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(plan.action.capitalize(), total=len(plan.to_change))

    async def run(self) -> Outcome:
        work = asyncio.ensure_future(self._change())
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._stop, work)
        try:
            with self._bar:
                change = await work
        except asyncio.CancelledError:
            return Outcome(self._plan, self._so_far, interrupted=True)
        finally:
            loop.remove_signal_handler(signal.SIGINT)
        return Outcome(self._plan, change, interrupted=self._stopped)

    async def _change(self) -> GroupChange:
        limits: dict[str, Any] = {
            "max_concurrency": self._concurrency,
            "log": lambda _note: None,  # the bar says it
            "is_stopped": lambda: self._stopped,
            "progress": self._show,
        }
        async with self._hook.make_async_client(self._hook.settings) as client:
            if self._plan.action == "set":
                ids = [one.id for one in self._plan.to_change]
                return await set_all(client, ids, self._variables or {}, **limits)
            last_seen = {one.id: one.state for one in self._plan.to_change}
            return await change_all(client, last_seen, self._plan.action, **limits)

    def _show(self, so_far: GroupChange, through: int) -> None:
        self._so_far = so_far
        self._bar.update(self._task, completed=through)

    def _stop(self, work: asyncio.Future[GroupChange]) -> None:
        """Take Ctrl-C: the first stops what was not begun, the second leaves at once."""
        if self._stopped:
            work.cancel()
            return
        self._stopped = True
        say("Stopping: what is under way comes to its end. Ctrl-C again leaves at once.")
