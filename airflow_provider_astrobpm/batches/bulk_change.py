"""Changes thousands of instances, several at a time. Each change is judged by its outcome, as in ``actions``.

| the PUT of an instance, after all attempts                  | and then                                       |
|-------------------------------------------------------------|------------------------------------------------|
| was answered with the effect, or with a closed instance     | the instance is settled                        |
| was accepted but showed no effect, was refused, or failed   | it is verified after all others are finished   |
| met refused credentials or tokens, or throttling, or could  | no further PUTs are sent                       |
| not reach the server                                        |                                                |

Verifying takes one search for all of them, judged by the table of ``actions``. An accepted action that does not show yet is
searched for again, for as long as ``actions`` does for one. No further PUTs are sent either after a timeout, after a stop
request, or when no answers arrive any more: with all their attempts, thousands of calls to a server that is down would take
hours.
"""

from __future__ import annotations

import asyncio
import math
import time
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_astrobpm.client import operations, search, validation
from airflow_provider_astrobpm.client.effect import (
    MAX_FAILED_CHECKS,
    check_delays,
    describe_accepted,
    describe_after_failure,
    has_effect,
    is_settled,
)
from airflow_provider_astrobpm.client.errors import (
    AstroZeroError,
    AuthenticationError,
    CallError,
    InstanceNotFoundError,
    NotSentError,
    RefusedError,
    ThrottledError,
    TokenRefusedError,
)
from airflow_provider_astrobpm.client.log_note import LogNote
from airflow_provider_astrobpm.client.operations import Sleep

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.operations import Action, Flow, Operation
    from airflow_provider_astrobpm.client.search_result import SearchResult

BulkAction = Literal["suspend", "resume", "terminate", "set"]

PROGRESS_SECONDS = 5.0  # from one progress line to the next, at least
MAX_LOST_CALLS = 16  # calls in a row without an answer, after which the server counts as down
MAX_NAMED_FAILURES = 3  # failures named in a note
STOPPING_ERRORS = (AuthenticationError, NotSentError, ThrottledError, TokenRefusedError)
DONE_WORDS: dict[BulkAction, str] = {
    "suspend": "Suspended",
    "resume": "Resumed",
    "terminate": "Terminated",
    "set": "Set the variables of",
}


@dataclass
class BulkChange:
    """The results so far. Each instance is in one of the four lists.

    :param action: the action.
    :param done: the ids of the instances that are as the action wants them, because of it or already before.
    :param ended: the ids of the instances that closed in another way, so there was nothing to do.
    :param failed: why the other instances are not as the action wants them, by their ids.
    :param in_doubt: the ids of those failed ones on which the action may have worked anyway: it was accepted but does not
        show, or they have disappeared.
    :param not_tried: the ids of the instances for which nothing was sent, or whose call stopped the run.
    :param instances: the instances that were seen, as last seen.
    :param stopped_by: why nothing more was sent; ``None`` after a timeout.
    """

    action: BulkAction
    done: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    in_doubt: set[str] = field(default_factory=set)
    still_open: set[str] = field(default_factory=set)
    """The ids of those in doubt that accepted the action and were still open when last seen."""
    not_tried: list[str] = field(default_factory=list)
    instances: list[BpmInstance] = field(default_factory=list)
    stopped_by: AstroZeroError | None = None

    @property
    def is_complete(self) -> bool:
        """Whether, as far as known, every instance is as the action wants it or has closed."""
        return not self.not_tried and self.failed.keys() <= self.in_doubt - self.still_open

    @property
    def note(self) -> str:
        """The results as a sentence without its full stop."""
        parts = [f"{self.action}: {len(self.done)} done"]
        if self.ended:
            parts.append(f"{len(self.ended)} had already ended")
        if self.failed:
            parts.append(f"{len(self.failed)} failed ({self._failures()})")
        if self.not_tried:
            why = str(self.stopped_by) if self.stopped_by else "timed out"
            parts.append(f"{len(self.not_tried)} not tried ({why.removesuffix('.')})")
        return ", ".join(parts)

    def _failures(self) -> str:
        """Name the first failures, each reason once: thousands may share it."""
        by_reason: dict[str, list[str]] = {}
        for instance_id, reason in list(self.failed.items())[:MAX_NAMED_FAILURES]:
            by_reason.setdefault(reason, []).append(repr(instance_id))
        named = [f"instance {', '.join(ids)}: {why}" for why, ids in by_reason.items()]
        return "; ".join([*named, "…"] if len(self.failed) > MAX_NAMED_FAILURES else named)


async def change_all(
    client: AsyncBpmClient,
    ids: Mapping[str, str | None],
    action: Action,
    *,
    max_concurrency: int = 16,
    patience: float | None = None,
    grace: float | None = None,
    log: Callable[[LogNote], None],
    clock: Callable[[], float] = time.monotonic,
    is_stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[BulkChange, int], None] = lambda _change, _through: None,
) -> BulkChange:
    """Suspend, resume or terminate instances. Failures are part of the result and not raised.

    :param client: the client; its retry limits apply to each call.
    :param ids: the instance ids, each with the state in which it was last seen, if known.
    :param action: the action.
    :param max_concurrency: the maximum number of concurrent calls.
    :param patience: seconds after which nothing more is sent. Pending calls are finished.
    :param grace: seconds to search for the effect of accepted actions; by default the connection's ``start_grace``. With 0
        there is only one search.
    :param log: receives notes about the progress, if it takes a while.
    :param clock: returns a monotonic time in seconds.
    :param is_stopped: returns whether to stop. Then nothing more is sent, and pending calls are finished.
    :param progress: called after each answer with the results so far and the number of finished instances. If this call is
        cancelled, its last report is all that is known.
    :raises ValueError: for a bad argument; nothing was sent.
    """
    validation.choice(action, "action", operations.ACTIONS)
    ends = math.inf if patience is None else clock() + patience
    changer = _StateChanger(
        client,
        dict(ids),
        BulkChange(action),
        log=log,
        clock=clock,
        is_over=lambda: is_stopped() or clock() >= ends,
        progress=progress,
        action=action,
        grace=client.settings.start_grace if grace is None else grace,
    )
    return await changer.run(max_concurrency)


@dataclass
class BulkRunner:
    """Sends one call for each of many instances, several at a time, until a further call makes no sense.

    :param client: the client.
    :param ids: the instance ids, each with the state in which it was last seen, if known.
    :param change: collects the results.

    The other parameters are those of ``change_all``.
    """

    client: AsyncBpmClient
    ids: dict[str, str | None]
    change: BulkChange
    log: Callable[[LogNote], None]
    clock: Callable[[], float]
    is_over: Callable[[], bool]
    progress: Callable[[BulkChange, int], None]
    _lost_in_a_row: int = 0

    def __post_init__(self) -> None:
        self._to_do = iter(self.ids)
        self.unsettled: dict[str, AstroZeroError | None] = {}
        """The instances whose answer was inconclusive, each with the error of its call; ``None`` if it was accepted."""
        self._began = self._logged_at = self.clock()

    def operation(self, instance_id: str) -> Operation[Any]:
        """Return the call for an instance."""
        raise NotImplementedError

    def record_result(self, instance_id: str, answer: Any) -> bool:
        """Record the answer for an instance. Return whether it settles the instance."""
        raise NotImplementedError

    async def verify_unsettled(self) -> None:
        """Find out the results for the unsettled instances."""
        raise NotImplementedError

    async def run(self, max_concurrency: int) -> BulkChange:
        """Change all instances, at most so many at a time."""
        validation.count(max_concurrency, "max_concurrency", least=1)
        for instance_id in self.ids:
            self.operation(instance_id)  # raises for a bad argument before anything is sent
        self.progress(self.change, 0)
        try:
            await asyncio.gather(*(self._work() for _ in range(min(max_concurrency, len(self.ids)))))
        finally:
            self.change.not_tried += self._to_do
        if self.unsettled:
            await self.verify_unsettled()
        return self.change

    async def _work(self) -> None:
        """Change one instance after the other, until none is left or nothing more should be sent."""
        while self.change.stopped_by is None and not self.is_over():
            instance_id = next(self._to_do, None)
            if instance_id is None:
                return
            await self._act(instance_id)
            self._report_progress()

    async def _act(self, instance_id: str) -> None:
        try:
            answer = await self.client.call(self.operation(instance_id))
        except AstroZeroError as error:
            if _affects_all(error) and _is_not_sent(error):
                self.change.not_tried.append(instance_id)
            else:
                # Drop the traceback, because it keeps all local variables alive, and there may be thousands.
                self.unsettled[instance_id] = error.with_traceback(None)
            self._lost_in_a_row = self._lost_in_a_row + 1 if _is_lost(error) else 0
            if _affects_all(error) or self._lost_in_a_row >= MAX_LOST_CALLS:
                self.change.stopped_by = self.change.stopped_by or error
        else:
            self._lost_in_a_row = 0
            if not self.record_result(instance_id, answer):
                self.unsettled[instance_id] = None

    def fail(self, instance_id: str, words: str, *, in_doubt: bool) -> None:
        """Record why an instance is not as the action wants it."""
        self.change.failed[instance_id] = words
        if in_doubt:
            self.change.in_doubt.add(instance_id)

    def _report_progress(self) -> None:
        """Report the progress, and log it every few seconds."""
        change, now = self.change, self.clock()
        through = len(change.done) + len(change.ended) + len(self.unsettled)
        self.progress(change, through)
        if now - self._logged_at < PROGRESS_SECONDS or through in (0, len(self.ids)):
            return
        self._logged_at = now
        rate = through / (now - self._began)
        others = f", {len(self.unsettled)} to verify" if self.unsettled else ""
        left = "" if change.stopped_by else f", about {(len(self.ids) - through) / rate:.0f} s left"
        so_far = f"{DONE_WORDS[change.action]} {len(change.done)} of {len(self.ids)}"
        self.log(LogNote(f"{so_far}{others}; {rate:.0f}/s{left}"))


@dataclass(kw_only=True)
class _StateChanger(BulkRunner):
    action: Action
    grace: float
    _searched_seconds: float = 0.0

    def operation(self, instance_id: str) -> Operation[BpmInstance]:
        return operations.change_state(instance_id, self.action)

    def record_result(self, instance_id: str, instance: BpmInstance) -> bool:
        if not is_settled(instance, self.action):
            return False
        (self.change.done if has_effect(instance, self.action) else self.change.ended).append(instance_id)
        self.change.instances.append(instance)
        return True

    async def verify_unsettled(self) -> None:
        failed = 0
        for pause in (0.0, *check_delays(self.grace)):
            if pause and self.is_over():
                break
            seen = await self._seen(pause)
            self._searched_seconds += pause
            self.unsettled = {
                one: failure
                for one, failure in self.unsettled.items()
                if not self._is_finished(one, failure, seen[one])
            }
            failed = failed + 1 if all(isinstance(one, CallError) for one in seen.values()) else 0
            if not self.unsettled or failed >= MAX_FAILED_CHECKS:
                break
        for instance_id, failure in self.unsettled.items():
            self._judge(instance_id, failure, seen[instance_id])

    async def _seen(self, pause: float) -> dict[str, BpmInstance | AstroZeroError]:
        """Return the unsettled instances after a pause, or why they are unknown."""
        settings = self.client.settings
        search_for_them = search.find(
            {instance_id: self.ids[instance_id] for instance_id in self.unsettled},
            lookup=settings.instance_lookup,
            endpoint=search.traits_of_endpoint(settings.base_url),
        )
        try:
            findings = await self.client.run(_after(pause, search_for_them))
        except AstroZeroError as error:
            return dict.fromkeys(self.unsettled, error)
        return {one: findings.instance_or_error(one) for one in self.unsettled}

    def _is_finished(
        self, instance_id: str, failure: AstroZeroError | None, seen: BpmInstance | AstroZeroError
    ) -> bool:
        """Record the result of an instance if a further search cannot change it. Return whether that is so."""
        if not isinstance(seen, AstroZeroError) and self.record_result(instance_id, seen):
            return True
        may_have_been_processed = failure is None or (
            isinstance(failure, CallError) and failure.may_have_been_processed
        )
        if may_have_been_processed and not (failure and isinstance(seen, InstanceNotFoundError)):
            return False
        self._judge(instance_id, failure, seen)
        return True

    def _judge(
        self, instance_id: str, failure: AstroZeroError | None, seen: BpmInstance | AstroZeroError
    ) -> None:
        """Record the result of an instance that is not as the action wants it, by the table of ``actions``."""
        if isinstance(seen, InstanceNotFoundError):
            missing = copy(seen)
            missing.problem = f"it{missing.problem.removeprefix(missing.sought)}"
            if failure:  # The server's answer to the action was the first sign that the instance is missing.
                missing.status, missing.res_code = failure.status, failure.res_code
                missing.res_msg = failure.res_msg
            lead = "" if failure else "accepted, but "
            self.fail(instance_id, f"{lead}{describe_error(missing)}", in_doubt=True)
            return
        if not isinstance(seen, AstroZeroError):
            self.change.instances.append(seen)
        if isinstance(failure, CallError):
            self.fail(
                instance_id,
                describe_error(failure, describe_after_failure(failure, seen, self._searched_seconds)),
                in_doubt=False,
            )
            return
        self.fail(instance_id, describe_accepted(seen, self._searched_seconds), in_doubt=True)
        if not isinstance(seen, AstroZeroError):
            self.change.still_open.add(instance_id)


def _after(pause: float, plan: Flow[SearchResult]) -> Flow[SearchResult]:
    """Run a plan after a pause in seconds."""
    if pause:
        yield Sleep(pause)
    return (yield from plan)


def _affects_all(error: AstroZeroError) -> bool:
    """Return whether the error of a call, after all its attempts, would also hit every other call."""
    return (
        not isinstance(error, CallError) or error.failed_fetching_token or isinstance(error, STOPPING_ERRORS)
    )


def _is_not_sent(error: AstroZeroError) -> bool:
    """Return whether the failed call has certainly done nothing, in any of its attempts."""
    return not (isinstance(error, CallError) and error.earlier_attempt_in_doubt)


def _is_lost(error: AstroZeroError) -> bool:
    """Return whether Astro Zero itself has not answered; a gateway in front of it may have."""
    return error.res_code is None and not isinstance(error, RefusedError)


def describe_error(error: AstroZeroError, then: str = "") -> str:
    """Describe an error without its action and connection, because thousands of calls may fail for the same reason."""
    reason = copy(error)
    reason.problem += then
    reason.attempt = reason.connection = None
    return str(reason).removesuffix(".")
