"""Notices that Airflow has given a task's process up, or soon will, while the process itself lives on.

That is so when the process that supervises it has died, and when it stood still for long: Airflow misses its heartbeat, and
begins another try. Two processes must not start the launches of one batch.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import conf

from airflow_provider_astrobpm.bpm.errors import AstroZeroError

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL = 1.0  # seconds between two looks; Airflow waits for a heartbeat for much longer


async def stop_when_given_up(stop: Callable[[Exception], None]) -> None:
    """Wait until this process should not go on, and stop what must not then.

    :param stop: stops it, for a reason.
    """
    longest = conf.getfloat("scheduler", "task_instance_heartbeat_timeout", fallback=300) / 2
    supervisor, looked = os.getppid(), time.time()
    while os.getppid() == supervisor:
        await asyncio.sleep(INTERVAL)
        before, looked = looked, time.time()
        if looked - before > longest:
            stop(
                AstroZeroError(
                    f"This process stood still for {looked - before:.0f} s, and another try may go on"
                )
            )
            return
    stop(AstroZeroError("The process that supervises this one has died, and another try goes on"))
