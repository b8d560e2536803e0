"""Stops a task process that Airflow has given up, or soon will, although the process is alive.

Airflow begins another try when it misses the heartbeat: because the supervisor of the process has died, or because the process
stood still for too long. Two processes must not start the launches of one batch.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import conf

from airflow_provider_astrobpm.client.errors import AstroZeroError

if TYPE_CHECKING:
    from collections.abc import Callable

CHECK_INTERVAL_SECONDS = 1.0  # between two checks; Airflow tolerates a missing heartbeat for much longer


async def stop_when_superseded(stop: Callable[[Exception], None]) -> None:
    """Wait until another try may replace this process, then call ``stop``.

    :param stop: stops the work of this process; its argument is the reason.
    """
    longest = conf.getfloat("scheduler", "task_instance_heartbeat_timeout", fallback=300) / 2
    supervisor, checked = os.getppid(), time.time()
    while os.getppid() == supervisor:
        await asyncio.sleep(CHECK_INTERVAL_SECONDS)
        before, checked = checked, time.time()
        if checked - before > longest:
            stop(
                AstroZeroError(
                    f"This process stood still for {checked - before:.0f} s, and another try may have begun"
                )
            )
            return
    stop(AstroZeroError("The supervisor of this process has died, and another try takes over"))
