"""The cost that measured processes report as JSON, and how they measure it."""

from __future__ import annotations

import re
import resource
from dataclasses import dataclass
from pathlib import Path

DAG_ID, RUN_ID = "launch", "scheduled__2026-11-25T00:00:00+00:00"
COST = "cost"
"""The XCom in which the operator's task reports its cost."""


@dataclass(frozen=True)
class Cost:
    """The cost of a process for its launches.

    :param seconds: wall clock time.
    :param cpu: user and system CPU time, in seconds.
    :param idle: resident bytes of the process with all imports, before it begins.
    :param peak: the maximum of its resident bytes.
    """

    seconds: float
    cpu: float
    idle: int
    peak: int

    @property
    def memory(self) -> int:
        """The maximum of the bytes in addition to those of the idle process."""
        return self.peak - self.idle


def cpu() -> float:
    """Return the CPU time of this process so far, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def memory() -> int:
    """Return the resident bytes of this process."""
    return _status("VmRSS")


def peak() -> int:
    """Return the maximum of this process's resident bytes. Unlike ``getrusage``, this excludes its parent's."""
    return _status("VmHWM")


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError(f"this system does not report {name}")
    return int(found[1]) * 1024
