"""Shared by the tests of the client: creating instances, and running flows without a server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

import pytest

from airflow_provider_astrobpm.client import states
from airflow_provider_astrobpm.client.drivers import drive
from airflow_provider_astrobpm.client.errors import AstroZeroError
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.operations import Operation, Sleep

Answer = Any  # a result, or an error to be raised


def _make(instance_id: str = "002N1", state: str = "Running", **fields: Any) -> BpmInstance:
    fields.setdefault("name", "Approval")
    fields.setdefault("is_closed", states.is_terminal(state))
    fields.setdefault("suspended", state == states.SUSPENDED)
    return BpmInstance(id=instance_id, state=state, **fields)


@pytest.fixture
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pauses exact: without their random share."""
    monkeypatch.setattr("random.random", lambda: 0.0)


@pytest.fixture(scope="session")
def make() -> Callable[..., BpmInstance]:
    """Create an instance as it is decoded: closed if its state is an ended one."""
    return _make


class Stage:
    """Acts as the server for a flow: answers each operation with a function, and records the operations."""

    def __init__(self, answer: Callable[[Operation[Any]], Answer]) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.paused: list[float] = []

    def run(self, flow: Generator[Any, Any, Any]) -> Any:
        return drive(flow, self._reply)

    def _reply(self, step: Operation[Any] | Sleep) -> Any:
        if isinstance(step, Sleep):
            self.paused.append(step.seconds)
            return None
        self.asked.append(_short(step))
        answer = self.answer(step)
        if isinstance(answer, AstroZeroError):
            raise answer
        return answer


def _short(operation: Operation[Any]) -> str:
    return dict(operation.query)["states"] if operation.kind == "query" else operation.kind


@pytest.fixture(scope="session")
def stage() -> type[Stage]:
    return Stage


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report how many interleavings and histories were tested."""
    tallies: dict[str, Counter[str]] = {"interleavings": Counter(), "histories": Counter()}
    for report in terminalreporter.getreports("passed"):
        numbers = dict(report.user_properties)
        for what, tally in tallies.items():
            if what in numbers:
                tally.update(numbers)
    for what, tally in tallies.items():
        if tally:
            others = [f"{tally[each]:,} {each}" for each in tally if each not in (what, "seconds")]
            terminalreporter.write_line(
                f"{tally[what]:,} {what} without a fault: {', '.join(others)}, {tally['seconds']:.0f} s of work"
            )
