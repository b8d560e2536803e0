"""Run a DAG in a test with ``dag.test()``: with fast polling, and with a time limit for its waits."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.client.validation import seconds
from airflow_provider_astrobpm.emulator.control_client import EmulatorError
from airflow_provider_astrobpm.testing.fast_polling import fast_polling
from airflow_provider_astrobpm.testing.start_assertions import instance_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_astrobpm.emulator.control_client import EmulatorControl

_CHECK_INTERVAL_SECONDS = 0.05  # seconds
MISSED_HEADING = "These planned actions did not happen:"


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


def run(
    dag: Any,
    control: EmulatorControl,
    *,
    give_up_after: float,
    timeout: float | None,
    max_poll_failure_time: float | None,
    options: dict[str, Any],
) -> DagResult:
    """Run a DAG once in this thread. The parameters are those of ``AstroZeroEmulator.run``.

    :raises AssertionError: if the run was still waiting at the time limit, or a planned action came too late.
    :raises TypeError: if ``dag`` is not a DAG.
    :raises ValueError: for an invalid number of seconds.
    """
    __tracebackhide__ = True
    if not hasattr(dag, "tasks"):
        name = getattr(dag, "__name__", "the_dag")
        raise TypeError(
            f"run() takes a DAG, not {dag!r}. If @dag decorates that function, call it: run({name}())."
        )
    give_up_after = seconds(give_up_after, "give_up_after")
    timeout = None if timeout is None else seconds(timeout, "timeout")
    if max_poll_failure_time is not None:
        max_poll_failure_time = seconds(max_poll_failure_time, "max_poll_failure_time")
    with (
        fast_polling(dag, timeout=timeout, max_poll_failure_time=max_poll_failure_time),
        _waits_ended_after(control, give_up_after) as open_then,
    ):
        dag_run = dag.test(**options)
    state = str(dag_run.state)
    if open_then and state != "success":
        raise AssertionError(_still_waited(open_then, give_up_after, _missed(control, final=True)))
    if missed := _missed(control, final=False):
        raise AssertionError(missed_message(missed))
    tasks = {
        ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]": ti.state and str(ti.state)
        for ti in dag_run.get_task_instances()
    }
    return DagResult(state, tasks, dag_run)


@contextmanager
def _waits_ended_after(control: EmulatorControl, after: float) -> Iterator[list[str]]:
    """End every wait some time after the first request, by refusing the credentials.

    :param after: seconds.
    :returns: a list to which the lines about the open instances are added then.
    """
    open_lines: list[str] = []
    over = threading.Event()
    before = _counts(control)

    def give_up() -> None:
        still_open = [each for each in control.instances() if not each["closed"]]
        # Faults and outages of the test would hide the refusal.
        control.clear_faults()
        control.outage(False)
        control.revoke_tokens()
        reason = f"the test has ended every wait after {after:g} s"
        control.fault("token", "status", status=401, times=100_000, res_msg=reason)
        open_lines.extend(instance_lines("Open instances", still_open))

    def watch() -> None:
        began: float | None = None  # Airflow may need some time before the first request
        while not over.wait(_CHECK_INTERVAL_SECONDS):
            with suppress(EmulatorError):  # it is unreachable
                if began is None:
                    began = time.monotonic() if _counts(control) not in (before, None) else None
                elif time.monotonic() - began >= after:
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


def _counts(control: EmulatorControl) -> dict[str, int] | None:
    """Return the number of requests by kind; ``None`` while the test makes the emulator unreachable."""
    try:
        return control.counts()
    except EmulatorError:
        return None


def _missed(control: EmulatorControl, *, final: bool) -> list[str]:
    try:
        return control.missed(final=final)
    except EmulatorError:  # it is unreachable; the plugin checks again at the end of the test
        return []


def missed_message(missed: list[str]) -> str:
    """Return the error message for planned actions that did not happen."""
    return "\n".join([MISSED_HEADING, *(f"  {each}" for each in missed)])


def _still_waited(open_then: list[str], after: float, missed: list[str]) -> str:
    also = [missed_message(missed)] if missed else []
    advice = (
        "Plan before the run what a person does, such as"
        " astro_zero_emulator.decides('PublishApproval', 'approve')."
    )
    return "\n".join(
        [f"The run did not finish within {after:g} s, so its waits were ended.", *open_then, advice, *also]
    )
