"""The lines of Airflow that this provider supports: their pins, and the Pythons on which they run.

``make constraints`` resolves ``constraints/`` from them, and ``make test-matrix`` runs the wheel on each of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEWEST_PYTHON = 14
"""The newest Python that the provider allows is 3.14."""


@dataclass(frozen=True)
class Line:
    """One line of Airflow.

    :param name: its first two numbers.
    :param oldest: the oldest Python, as the number after ``3.``.
    :param newest: the newest one that Airflow declares.
    :param tried_on: the one on which ``make test-matrix`` tries it, if the machine has it.
    :param pins: the version, and pins that Airflow's own bounds lack: they allow newer releases that break its tasks or its API.
    :param may_fail: whether a failure does not fail the run, because the line is a pre-release.
    """

    name: str
    oldest: int
    newest: int
    tried_on: int
    pins: tuple[str, ...]
    may_fail: bool = False

    @property
    def constraints(self) -> Path:
        """The file with the pinned versions of all packages."""
        return ROOT / "constraints" / f"airflow-{self.name}.txt"

    @property
    def floor(self) -> str:
        """The oldest Python, such as ``3.10``."""
        return f"3.{self.oldest}"

    @property
    def pythons(self) -> str:
        """The Pythons, in words."""
        return f"{self.floor} to 3.{self.newest}"

    def python(self) -> str:
        """Return the path of the Python on which the line is tried: ``tried_on``, otherwise the newest that the machine has.

        :raises LookupError: if the machine has none.
        """
        others = range(self.newest, self.oldest - 1, -1)
        for minor in dict.fromkeys((self.tried_on, *others)):
            if found := find_python(minor):
                return found
        raise LookupError(f"Airflow {self.name} needs Python {self.pythons}, and none of them is on the PATH")


LINES: dict[str, Line] = {
    line.name: line
    for line in (
        # name, oldest, newest and tried Python, pins
        Line("3.0", 10, 12, 10, ("apache-airflow==3.0.6", "fastapi<0.132", "pyjwt<2.11")),
        Line("3.1", 10, 13, 11, ("apache-airflow==3.1.8",)),
        Line("3.2", 10, 14, 12, ("apache-airflow==3.2.2", "fastapi<0.137", "svcs<26")),
        Line("3.3", 10, 14, 13, ("apache-airflow==3.3.2",)),
        # Each package of a pre-release is named, because otherwise pre-releases are ignored.
        Line(
            "3.4",
            11,
            14,
            14,
            ("apache-airflow==3.4.0b2", "apache-airflow-core==3.4.0b2", "apache-airflow-task-sdk==1.4.0b2"),
            may_fail=True,
        ),
    )
}


def find_python(minor: int) -> str | None:
    """Return the path of Python 3.``minor``, if this process runs on it or if it is on the PATH.

    :param minor: the number after ``3.``.
    """
    if sys.version_info[:2] == (3, minor):
        return sys.executable
    command = shutil.which(f"python3.{minor}")
    if command is None:
        return None
    # pyenv has a program for each version on the PATH, which works only for versions that are selected.
    env = {**os.environ, "PYENV_VERSION": f"3.{minor}"}
    asked = subprocess.run(
        [command, "-c", "import sys; print(sys.executable)"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or None if asked.returncode == 0 else None
