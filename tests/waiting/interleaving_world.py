"""What can happen in an interleaving: the instances, conditions, faults and waits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.key_form import BusinessKey
from airflow_provider_astrobpm.waiting.condition import WaitCondition
from airflow_provider_astrobpm.waiting.poller import Subscription
from airflow_provider_astrobpm.waiting.wait import InstanceWait
from tests.support.memory_server import FROZEN, UNHEARD_OF, Client, PollRecord

CONDITIONS = (
    WaitCondition(),
    WaitCondition.of(bp_statuses=["Approved"], failed_bp_statuses=["Rejected"]),
    WaitCondition.of(on_suspended="fail"),
    WaitCondition.of(states=["Terminated", "Broken"]),
    WaitCondition.of(states=["Waiting for user interaction"], failed_states=["Broken", "Suspended"]),
    WaitCondition.of(states=["Suspended"]),
    WaitCondition.of(states=["Running"], bp_statuses=["Approved"]),
)
# The five instances that may exist, and everything that waits may search for.
FIELDS: dict[str, dict[str, Any]] = {
    "1": {"business_key": "K1"},
    "2": {"business_key": "K1", "name": "Another"},
    "3": {"business_key": "K2"},
    "4": {"business_key": "K2"},
    "5": {},
}
IDS = tuple(FIELDS)
KEYS = (BusinessKey("K1", "Approval"), BusinessKey("K1"), BusinessKey("K2"))
ROWS: tuple[dict[str, Any], ...] = (
    {"state": "Running"},
    {"state": "Waiting for user interaction"},
    {"state": "Completed OK"},
    {"state": "Running", "bp_status": "Approved"},
    {"state": "Waiting for user interaction", "bp_status": "Rejected"},
    {"state": "Broken"},
    {"state": "Suspended"},
    {"state": "Running", "suspended": True},
    {"state": "Terminated", "bp_status": "Approved"},
    {"state": "Paused", "is_closed": True},
    {"state": "CompletedOkWait"},
    {"state": FROZEN, "bp_status": "Approved"},
    {"state": UNHEARD_OF},
)


def _fault(kind: type[errors.CallError], **fields: Any) -> Callable[[], Exception]:
    def make() -> Exception:
        error = kind("injected")
        for name, value in fields.items():
            setattr(error, name, value)
        return error

    return make


PASSING_FAULTS = ("server error", "interrupted", "unexpected answer", "too long", "refused")
"""Faults of a single list that do not end a poll."""
FAULTS: dict[str, Callable[[], Exception]] = {
    "server error": _fault(errors.ServerError),
    "not sent": _fault(errors.NotSentError),
    "interrupted": _fault(errors.InterruptedCallError),
    "unexpected answer": _fault(errors.UnexpectedAnswerError),
    "too long": _fault(errors.UnexpectedAnswerError, unreadable=False),
    "refused": _fault(errors.RefusedError),
    "throttled": _fault(errors.ThrottledError),
    "throttled for 30 s": _fault(errors.ThrottledError, retry_after="30"),
    "throttled for a day": _fault(errors.ThrottledError, retry_after="86400"),
    "token unreachable": _fault(errors.InterruptedCallError, failed_fetching_token=True),
    "a fresh token refused": _fault(errors.TokenRefusedError),
    "refused credentials": _fault(errors.AuthenticationError, failed_fetching_token=True),
    "defect": lambda: LookupError("injected"),
}


class Waiter:
    """A wait like that of a trigger, and what the model knows about it."""

    def __init__(
        self, connection: str, condition: WaitCondition, awaited: InstanceWait, interval: float
    ) -> None:
        self.connection = connection
        self.condition = condition
        self.wait = awaited
        self.given = awaited.seen
        self.key = awaited._key
        self.interval = interval
        self.renews = False
        self.client: Client
        self.first_poll = 0
        self.earlier: list[PollRecord] = []
        self.id_before: str | None = None
        """The id that it queried in the latest poll, if it knew one."""
        self.joined = math.inf
        self.joined_at = 0.0
        self.jumps = 0
        self.subscription: Subscription | None = None
        self.task: asyncio.Task[None]

    def polls(self) -> list[PollRecord]:
        """Return the finished polls that were made for it."""
        return [poll for poll in self.client.polls[self.first_poll :] if poll.ended is not None]

    def means(self, row: BpmInstance) -> bool:
        """Return whether this may be the instance that it waits for."""
        if self.key is None:
            return row.id == self.wait.instance_id
        return row.business_key == self.key.value and self.key.bpm_name in (None, row.name)
