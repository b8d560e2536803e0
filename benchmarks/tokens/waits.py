"""A process with many waiting triggers, like a triggerer.

It reads the instance ids and the poll interval from standard input, and prints the result of each wait as a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import aclosing

from airflow_provider_astrobpm.client.errors import AstroZeroError
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmInstanceTrigger
from airflow_provider_astrobpm.waiting import event_payload


async def _wait(instance_id: str, poll_interval: float) -> None:
    trigger = AstroZeroBpmInstanceTrigger(
        astro_zero_conn_id="astro_zero_default",
        instance_id=instance_id,
        bp_statuses=["Approved"],
        poll_interval=poll_interval,
    )
    async with aclosing(trigger.run()) as events:  # type: ignore[type-var]
        payload = (await anext(events)).payload
    end = event_payload.load(json.loads(json.dumps(payload)))  # as the task receives it
    error = str(end) if isinstance(end, AstroZeroError) else None
    found = None if isinstance(end, AstroZeroError) else end.id
    print("\n" + json.dumps({"waited_for": instance_id, "found": found, "error": error}), flush=True)


async def _wait_for_all(ids: list[str], poll_interval: float) -> None:
    await asyncio.gather(*(_wait(one, poll_interval) for one in ids))


def main() -> None:
    """Wait for all instances."""
    workload = json.loads(sys.stdin.readline())
    asyncio.run(_wait_for_all(workload["ids"], workload["poll_interval"]))


if __name__ == "__main__":
    main()
