"""One of several triggerers that wait on one endpoint: ``python -m benchmarks.scale.triggerer``.

It reads its triggers as ``benchmarks.waiting.runner`` does, prints a line when all of them run and have polled, and waits until it
is ended. Its parent measures it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from airflow.sdk.log import configure_logging, reset_logging

from benchmarks.waiting.runner import Runner
from benchmarks.waiting.workload import Workload

if TYPE_CHECKING:
    from benchmarks.waiting.workload import Cost

READY = "ready"


class WaitingRunner(Runner):
    """Airflow's trigger runner, which waits without measuring anything itself."""

    async def _measure(self) -> Cost:
        await self._started()
        print(READY, flush=True)
        return await _forever()


async def _forever() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError


def main() -> None:
    """Run the workload from standard input."""
    work = Workload(**json.loads(sys.stdin.readline()))
    sink = Path(os.devnull).open("wb", buffering=0)  # noqa: SIM115 - Airflow logs to it until the process ends
    reset_logging()  # type: ignore[no-untyped-call]
    configure_logging(json_output=True, output=sink, sending_to_supervisor=True)
    WaitingRunner(work).run()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
