"""A DAG run in a test: its result, the time limit for its waits, and the messages about what went wrong."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.emulator.control_client import EmulatorError
from airflow_provider_astrobpm.testing.start_assertions import instance_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
    from airflow_provider_astrobpm.emulator.replay import Replay

_CHECK_INTERVAL_SECONDS = 0.05


@dataclass(frozen=True)
class DagResult:
    """The result of a DAG run.

    :param state: the state of the run, such as ``success``.
    :param tasks: task id to state; a mapped task has the keys ``id[0]``, ``id[1]`` and so on. ``None`` for a task that did
        not run.
    :param dag_run: Airflow's DAG run object.
    """

    state: str
    tasks: dict[str, str | None]
    dag_run: Any = field(repr=False, compare=False)


@contextmanager
def waits_ended_after(
    control: EmulatorControl, after: float, replay: Replay | None = None
) -> Iterator[list[str]]:
    """End every wait ``after`` seconds from the first request, by refusing the credentials.

    :param replay: the replay that answers. It also ends when a request differs.
    :returns: a list to which the lines about the open instances are added then.
    """
    open_lines: list[str] = []
    over = threading.Event()
    before: dict[str, int] | None = None
    with suppress(EmulatorError):  # the test may make the emulator unreachable
        before = control.counts()

    def give_up() -> None:
        reason = f"the test has ended every wait after {after:g} s"
        if replay is not None:
            replay.end(reason if not replay.differences else "the test has ended every wait at a difference")
        still_open = [each for each in control.instances() if not each["closed"]]
        # Faults and outages of the test would hide the refusal.
        control.clear_faults()
        control.outage(False)
        control.revoke_tokens()
        control.fault("token", "status", status=401, times=100_000, res_msg=reason)
        open_lines.extend(instance_lines("Open instances", still_open))

    def watch() -> None:
        began: float | None = None  # Airflow may need some time before the first request
        while not over.wait(_CHECK_INTERVAL_SECONDS):
            with suppress(EmulatorError):
                if began is None:
                    began = None if control.counts() == before else time.monotonic()
                elif time.monotonic() - began >= after or (replay is not None and replay.differences):
                    give_up()
                    return

    watching = threading.Thread(target=watch, name="astro-zero-give-up", daemon=True)
    watching.start()
    try:
        yield open_lines
    finally:
        over.set()
        watching.join()
        if open_lines:  # another run can follow
            with suppress(EmulatorError):
                control.clear_faults()


def replay_message(replay: Replay, limit: str) -> str:
    """Return the error message for a run that the replay has not brought to its end.

    :param limit: the message about the time limit, if no request differed.
    """
    first = (
        "A request differed from the recorded ones, so the run was ended." if replay.differences else limit
    )
    differences = (f"Differs: {each}" for each in replay.differences)
    return "\n".join([first, *differences, *replay.transcript.notes, *replay.summary()])


def missed_message(missed: list[str]) -> str:
    """Return the error message for planned actions that did not happen."""
    return "\n".join(["These planned actions did not happen:", *(f"  {each}" for each in missed)])
