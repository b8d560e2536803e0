"""One run of a DAG within a test, by ``dag.test()``: quick, and over at some time even if nobody decides."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.bpm.checks import seconds
from airflow_provider_astrobpm.emulator.remote import EmulatorError
from airflow_provider_astrobpm.testing.fast_polling import fast_polling
from airflow_provider_astrobpm.testing.start_assertions import instance_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_astrobpm.emulator.remote import EmulatorControl

_CHECK_INTERVAL_SECONDS = 0.05  # seconds
MISSED_HEADING = "The test has ordered what did not happen:"


@dataclass(frozen=True)
class DagResult:
    """How a run of a DAG ended.

    :param state: of the run, such as ``success``.
    :param tasks: the state of each task, by its id; of a mapped one by ``id[0]``, ``id[1]`` and so on. ``None`` for one that
        did not run.
    :param dag_run: Airflow's own object of the run.
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
    """Run a DAG once in this thread; the parameters are those of ``AstroZeroEmulator.run``.

    :raises AssertionError: if it still waited when it was given up, or something that was ordered came too late.
    :raises TypeError: if it is no DAG.
    :raises ValueError: for a number of seconds that is none.
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
    """End every wait a while after the first request by refusing credentials.

    :param after: seconds.
    :returns: a list that says then what was open.
    """
    told: list[str] = []
    over = threading.Event()
    before = _counts(control)

    def give_up() -> None:
        still_open = [each for each in control.instances() if not each["closed"]]
        # What the test lets go wrong is no end of a wait, so it would hide the refusal.
        control.clear_faults()
        control.outage(False)
        control.revoke_tokens()
        reason = f"the test has ended every wait after {after:g} s"
        control.fault("token", "status", status=401, times=100_000, res_msg=reason)
        told.extend(instance_lines("Open were", still_open))

    def watch() -> None:
        began: float | None = None  # Airflow may take its time before the first request
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
        yield told
    finally:
        over.set()
        watching.join()
        if told:  # another run can follow
            with suppress(EmulatorError):
                control.clear_faults()


def _counts(control: EmulatorControl) -> dict[str, int] | None:
    """Return how many requests of each kind came in; ``None`` while the test lets the emulator be unreachable."""
    try:
        return control.counts()
    except EmulatorError:
        return None


def _missed(control: EmulatorControl, *, final: bool) -> list[str]:
    try:
        return control.missed(final=final)
    except EmulatorError:  # it is unreachable; the plugin asks once more at the end of the test
        return []


def missed_message(missed: list[str]) -> str:
    """Return what a test is told that has ordered what did not happen."""
    return "\n".join([MISSED_HEADING, *(f"  {each}" for each in missed)])


def _still_waited(open_then: list[str], after: float, missed: list[str]) -> str:
    also = [missed_message(missed)] if missed else []
    advice = (
        "Say before the run what a person does meanwhile, such as"
        " astro_zero_emulator.decides('PublishApproval', 'approve')."
    )
    return "\n".join(
        [f"The run was not over after {after:g} s, so its waits were ended.", *open_then, advice, *also]
    )
