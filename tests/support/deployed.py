"""A deployed Airflow as a test sees it: through its REST API, its logs and its files.

``tests/deployment`` and ``tests/ha`` choose what it runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from airflow_api import AirflowApi, AirflowApiError
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from local_stack import Child, Deployment

PATIENCE = 240.0  # seconds to wait for an expected condition, also on a machine with much other work

PAUSE = 0.25  # seconds between two looks, each of which costs the API server some CPU

Found = TypeVar("Found")
MEASURED = pytest.StashKey[list[str]]()


class DeployedAirflow:
    """A deployment under test.

    :param home: the folder to which it writes.
    :param control: the emulator that it uses.
    """

    def __init__(self, deployment: Deployment, home: Path, control: EmulatorControl) -> None:
        self.home = home
        self.control = control
        self.deployment = deployment
        self.gone: list[Child] = []
        self._api = AirflowApi(deployment.url)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Call the REST API. Return None for a response without a body."""
        try:
            return self._api.call(method, path, body)
        except AirflowApiError as error:
            raise AssertionError(str(error)) from None

    def until_up(self, dags: int, refused: Collection[str] = ()) -> None:
        """Wait until every component is healthy and every DAG is parsed.

        :param dags: the number of DAGs.
        :param refused: the DAG files that this version of Airflow cannot import.
        """

        def parsed() -> bool | None:
            errors = self.call("GET", "/api/v2/importErrors")["import_errors"]
            assert [error for error in errors if Path(error["filename"]).name not in refused] == []
            is_parsed = self.call("GET", "/api/v2/dags")["total_entries"] == dags
            return (is_parsed and len(errors) == len(refused)) or None

        self.until("the deployment is up", lambda: self._api.is_healthy() or None, 2 * PATIENCE)
        self.until("the DAGs are parsed", parsed)

    @property
    def scheduler(self) -> Child:
        (scheduler,) = (child for child in self.deployment.components if child.name == "scheduler")
        return scheduler

    def expect_end(self, component: Child) -> None:
        """Wait until a component has no process left. The caller has told it to end."""
        self.gone.append(component)
        self.until(f"{component.name} has ended", lambda: not component.members() or None)

    def until(
        self, what: str, find: Callable[[], Found | None], seconds: float = PATIENCE, *about: Path
    ) -> Found:
        """Call ``find`` until it returns something other than None, and return that.

        :param what: the awaited condition, for error messages.
        :param about: the folders whose logs an error shows.
        """

        def answer() -> Found | None:
            try:
                return find()
            except TimeoutError:  # on a busy machine the API server may take long for one answer
                return None

        deadline = time.monotonic() + seconds
        while (found := answer()) is None:
            ended = self.unexpectedly_ended()
            assert not ended, f"{ended} ended on its own before {what}\n{self._logs(*about)}"
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}\n{self._logs(*about)}"
            time.sleep(PAUSE)
        return found

    def unexpectedly_ended(self) -> list[str]:
        """Return the components that have ended without being told to."""
        return [
            child.name
            for child in self.deployment.components
            if child.exit_code is not None and child not in self.gone
        ]

    def files_with(self, text: str) -> list[str]:
        """Return every file of the deployment that contains ``text``."""
        return [name for name, content in self._files() if text.encode() in content]

    def _files(self) -> Iterator[tuple[str, bytes]]:
        """Yield the name and the content of each file, except those of PostgreSQL."""
        for path in self.home.rglob("*"):
            name = path.relative_to(self.home)
            if name.parts[0] != "postgres" and path.is_file():
                yield str(name), path.read_bytes()

    def _logs(self, *about: Path) -> str:
        shown = [child.failure("its last lines").args[0] for child in self.deployment.components]
        for folder in about:
            shown += [f"{path.name}:\n{path.read_text()}" for path in sorted(folder.glob("*.log"))]
        return "\n".join(shown)


def seconds_of(stamp: str) -> float:
    """Convert one of Airflow's timestamps to seconds since the epoch."""
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


@pytest.fixture
def measured(
    pytestconfig: pytest.Config, record_property: Callable[[str, object], None]
) -> Callable[[str, float], None]:
    """Return a function that records a duration. All are shown at the end of the test run."""

    def note(what: str, seconds: float) -> None:
        record_property(what, seconds)
        pytestconfig.stash.setdefault(MEASURED, []).append(f"{seconds:6.2f} s  {what}")

    return note


def show_measured(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the recorded durations, and clear them."""
    for line in config.stash.get(MEASURED, []):
        terminalreporter.write_line(line)
    config.stash[MEASURED] = []
