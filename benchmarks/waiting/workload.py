"""The input and output of the measured process, both as JSON.

The input is the workload, followed by a line for each trigger with its arguments.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

TASK_INSTANCE = uuid.UUID("019abcde-0000-7000-8000-000000000000")
"""The id of the task instance if one trigger waits for one task. A task that resumes has the id with which it deferred."""


@dataclass(frozen=True)
class Workload:
    """The triggers to run and how to measure them.

    :param count: the number of triggers.
    :param control: the address of the emulator, which counts the requests.
    :param settle: seconds to wait once all triggers run.
    :param min_requests: how many requests prove that each trigger has polled at least once since all triggers ran.
    :param seconds: the duration of the measurement.
    :param time_polls: whether to measure the duration of the poller's polls.
    """

    classpath: str
    count: int
    control: str
    settle: float
    min_requests: int
    seconds: float
    time_polls: bool


@dataclass(frozen=True)
class Cost:
    """The measured cost.

    :param seconds: the wall clock time of the measurement.
    :param requests: the requests that the emulator received during it.
    :param cpu: user and system CPU time, in seconds.
    :param memory: resident bytes afterwards.
    :param peak: the maximum of the resident bytes.
    :param block: the longest delay of the event loop, in seconds.
    :param start_block: the same while the triggers started.
    :param start: seconds until all triggers ran and had polled.
    :param poll: the average duration of a poll of the provider's poller, in seconds; 0 if it was not measured.
    """

    seconds: float
    requests: int
    cpu: float
    memory: int
    peak: int
    block: float
    start_block: float
    start: float
    poll: float
