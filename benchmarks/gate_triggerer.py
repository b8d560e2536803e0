"""Run the trigger of one gate in a triggerer process until it fires.

It extends the process of ``benchmarks.waiting``, but ends with the first event. It reads the workload and the trigger's
arguments from standard input, and prints the payload of the event.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from airflow.jobs.triggerer_job_runner import messages
from airflow.sdk.execution_time.comms import GetTaskStates, TaskStatesResult
from airflow.sdk.log import configure_logging, reset_logging
from airflow.sdk.serde import serialize

from benchmarks.waiting import runner
from benchmarks.waiting.workload import TASK_INSTANCE, Cost, Workload

MARK = "event: "


class Runner(runner.Runner):
    """The trigger runner of ``benchmarks.waiting``, which ends when its trigger has fired."""

    async def init_comms(self) -> None:
        """Connect to a supervisor that keeps the event."""
        self.payloads: list[Any] = []
        await super().init_comms()
        answer, send = self.supervisor.asend, self.supervisor.send

        async def asend(message: object) -> Any:
            if isinstance(message, messages.TriggerStateChanges):
                plain = message.model_dump(mode="json")  # the form in which the database stores it
                self.payloads += [event[1]["payload"] for event in plain["events"] or ()]
            return await answer(message)

        def respond(message: object) -> Any:
            if isinstance(message, GetTaskStates):
                states = {run_id: {"gate": "deferred"} for run_id in message.run_ids or ()}
                return TaskStatesResult(task_states=states)
            send(message)
            return None

        self.supervisor.asend, self.supervisor.send = asend, respond  # type: ignore[method-assign]
        self.supervisor.instance = TASK_INSTANCE

    async def _measure(self) -> Cost:
        try:
            await self._until(lambda: bool(self.payloads), "the trigger fired")
        except RuntimeError:
            if not self.payloads:  # the trigger ended without an event
                raise
        finally:
            self._ticker.stop()
            os.kill(os.getpid(), signal.SIGTERM)  # this is how a triggerer is stopped
        return Cost(0, 0, 0, 0, 0, 0, 0, 0, 0)


def main() -> None:
    """Run the workload from standard input."""
    work = Workload(**json.loads(sys.stdin.readline()))
    sink = Path(os.devnull).open("wb", buffering=0)  # noqa: SIM115 - Airflow logs to it until the process ends
    reset_logging()  # type: ignore[no-untyped-call]
    configure_logging(json_output=True, output=sink, sending_to_supervisor=True)
    own = Runner(work)
    own.run()  # type: ignore[no-untyped-call]
    if own.measurement.cancelled():
        sys.exit("interrupted")
    own.measurement.result()
    print(f"\n{MARK}{json.dumps(serialize(own.payloads[0]))}")


if __name__ == "__main__":
    main()
