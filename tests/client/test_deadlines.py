"""Deadlines of a process: each function is called when its time has come, by one thread, unless it was cancelled."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from airflow_provider_astrobpm.client._deadlines import DeadlineThread

PATIENCE = 60.0
LATER = 3600.0


class Calls:
    """What was called, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._more = threading.Condition()

    def note(self, name: str) -> None:
        with self._more:
            self.names.append(name)
            self._more.notify_all()

    def wait_for(self, number: int) -> list[str]:
        with self._more:
            assert self._more.wait_for(lambda: len(self.names) >= number, PATIENCE), self.names
        return self.names


@pytest.fixture
def calls() -> Calls:
    return Calls()


def test_calls_the_earliest_first(calls: Calls) -> None:
    deadlines = DeadlineThread()
    deadlines.call_after(0.06, lambda: calls.note("last"))
    deadlines.call_after(0.03, lambda: calls.note("second"))
    deadlines.call_after(0, lambda: calls.note("first"))
    assert calls.wait_for(3) == ["first", "second", "last"]


def test_an_earlier_deadline_wakes_the_thread(calls: Calls) -> None:
    deadlines = DeadlineThread()
    deadlines.call_after(LATER, lambda: calls.note("later"))
    deadlines.call_after(0, lambda: calls.note("now"))
    assert calls.wait_for(1) == ["now"]


def test_does_not_call_what_was_cancelled(calls: Calls) -> None:
    deadlines = DeadlineThread()
    deadlines.call_after(0.02, lambda: calls.note("cancelled")).cancel()
    deadlines.call_after(0.04, lambda: calls.note("kept"))
    assert calls.wait_for(1) == ["kept"]


def test_one_thread_serves_all_and_ends_when_nothing_is_left(calls: Calls) -> None:
    deadlines = DeadlineThread()
    later = deadlines.call_after(LATER, lambda: None)
    for _ in range(20):
        deadlines.call_after(0, lambda: calls.note(str(threading.get_ident())))
    assert len(set(calls.wait_for(20))) == 1
    deadlines.rest()
    thread = deadlines._thread
    assert thread is not None
    assert thread.is_alive()  # for the one that is left
    later.cancel()
    deadlines.rest()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    deadlines.call_after(0, lambda: calls.note("by another thread"))
    assert calls.wait_for(21)[-1] == "by another thread"


def test_keeps_nothing_of_calls_that_ended_in_time() -> None:
    deadlines = DeadlineThread()
    for _ in range(1000):
        deadlines.call_after(LATER, lambda: None).cancel()
    assert len(deadlines._heap) == 1


def test_a_thread_that_has_ended_is_replaced(calls: Calls) -> None:
    deadlines = DeadlineThread()
    ended = threading.Thread(target=lambda: None)
    ended.start()
    ended.join()
    deadlines._thread = ended
    deadlines.call_after(0, lambda: calls.note("called"))
    assert calls.wait_for(1) == ["called"]


def test_a_forked_process_begins_with_none(calls: Calls) -> None:
    deadlines = DeadlineThread()
    deadlines.call_after(LATER, lambda: None)
    with deadlines._changed:  # as if a thread of the parent held it during the fork
        deadlines.reset()
    deadlines.call_after(0, lambda: calls.note("called"))
    assert calls.wait_for(1) == ["called"]


def test_that_of_the_process_is_reset_by_a_fork() -> None:
    code = (
        "import os; from airflow_provider_astrobpm.client._deadlines import DEADLINES\n"
        "DEADLINES.call_after(3600, lambda: None)\n"
        "child = os.fork()\n"
        "if not child: os._exit(DEADLINES._thread is not None)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=PATIENCE)
