"""What the process that measures is told, and what it answers, both as JSON.

Below the order comes a line for each trigger, with its arguments.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Order:
    """What to run.

    :param count: how many triggers.
    :param control: where the emulator that counts the requests listens.
    :param settle: seconds to let pass once all triggers run.
    :param looks: how many requests must have come in since all triggers ran, so that each has looked at least once.
    :param seconds: how long to measure.
    :param time_looks: whether to measure how long the provider's poller takes to look.
    """

    classpath: str
    count: int
    control: str
    settle: float
    looks: int
    seconds: float
    time_looks: bool


@dataclass(frozen=True)
class Cost:
    """What it took.

    :param seconds: how long was measured, of the wall clock.
    :param requests: what came in at the emulator meanwhile.
    :param cpu: seconds of processor time, user and system.
    :param memory: resident bytes afterwards.
    :param peak: the most resident bytes that there ever were.
    :param block: the longest that the event loop was late, in seconds.
    :param start_block: the same while the triggers started.
    :param start: seconds until all triggers ran and had looked.
    :param look: seconds that a look of the provider's poller took, on average; 0 if that was not asked for.
    """

    seconds: float
    requests: int
    cpu: float
    memory: int
    peak: int
    block: float
    start_block: float
    start: float
    look: float
