"""What the processes that are measured answer, as JSON, and how they find it out about themselves."""

from __future__ import annotations

import re
import resource
from dataclasses import dataclass
from pathlib import Path

DAG_ID, RUN_ID = "launch", "scheduled__2026-11-25T00:00:00+00:00"
COST = "cost"
"""The XCom in which the operator's task tells what it took."""


@dataclass(frozen=True)
class Cost:
    """What a process took for its launches.

    :param seconds: of the wall clock.
    :param cpu: seconds of processor time, user and system.
    :param idle: resident bytes of the same process with all its imports, before it had begun.
    :param peak: the most resident bytes that there ever were.
    """

    seconds: float
    cpu: float
    idle: int
    peak: int

    @property
    def memory(self) -> int:
        """Bytes at most beyond those of the idle process."""
        return self.peak - self.idle


def cpu() -> float:
    """Return the seconds of processor time that this process has taken so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def memory() -> int:
    """Return the resident bytes of this process."""
    return _status("VmRSS")


def peak() -> int:
    """Return the most resident bytes that this process has had; unlike ``getrusage`` without those of its parent."""
    return _status("VmHWM")


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError(f"this system does not tell {name}")
    return int(found[1]) * 1024
