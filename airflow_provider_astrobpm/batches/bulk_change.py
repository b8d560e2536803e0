"""Changes thousands of instances, several at a time. ``changes`` judges each as it judges a single one.

Each instance gets one call. Those whose answers are inconclusive are read after all others are finished, with one search for
all of them, which is repeated for as long as ``actions`` repeats it for one.

No further calls are sent after refused credentials or tokens, after throttling, if the server cannot be reached, after a
timeout or a stop request, and when no answers arrive any more: with all their attempts, thousands of calls to a server that is
down would take hours.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_astrobpm.client import operations, search, validation
from airflow_provider_astrobpm.client.actions import check_effects
from airflow_provider_astrobpm.client.changes import CHANGES, ChangeAttempt, ChangeOutcome
from airflow_provider_astrobpm.client.errors import (
    AstroZeroError,
    AuthenticationError,
    CallError,
    NotSentError,
    RefusedError,
    ThrottledError,
    TokenRefusedError,
)
from airflow_provider_astrobpm.client.log_note import LogNote

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
    from airflow_provider_astrobpm.client.changes import ChangeName, ChangeResult, Seen
    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.operations import Action, Flow, Operation

PROGRESS_SECONDS = 5.0  # from one progress line to the next, at least
MAX_LOST_CALLS = 16  # calls in a row without an answer, after which the server counts as down
MAX_NAMED_FAILURES = 3  # failures named in a note
STOPPING_ERRORS = (AuthenticationError, NotSentError, ThrottledError, TokenRefusedError)


@dataclass
class BulkChange:
    """The results so far. Each instance is in one of the five lists.

    :param done: the ids of the instances that are as the change wants them, because of it or already before.
    :param ended: the ids of the instances that closed in another way, so there was nothing to do.
    :param failed: why the other instances are not as the change wants them, by their ids.
    :param in_doubt: the ids of those failed ones on which the change may have worked anyway: it was accepted but does not
        show, or they have disappeared.
    :param still_open: the ids of those in doubt that accepted the change and were still open when last seen.
    :param not_tried: the ids of the instances for which nothing was sent, or whose call stopped the run.
    :param left_alone: the ids of the instances that were not to be changed any more when it was their turn.
    :param instances: the instances that were seen, as last seen.
    :param stopped_by: why nothing more was sent; ``None`` after a timeout.
    """

    action: ChangeName
    done: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    in_doubt: set[str] = field(default_factory=set)
    still_open: set[str] = field(default_factory=set)
    not_tried: list[str] = field(default_factory=list)
    left_alone: list[str] = field(default_factory=list)
    instances: list[BpmInstance] = field(default_factory=list)
    stopped_by: AstroZeroError | None = None

    def record(self, instance_id: str, result: ChangeResult) -> None:
        """Add the result of an instance."""
        if result.instance is not None:
            self.instances.append(result.instance)
        if result.outcome is ChangeOutcome.DONE:
            self.done.append(instance_id)
        elif result.outcome is ChangeOutcome.ENDED:
            self.ended.append(instance_id)
        else:
            self.failed[instance_id] = result.reason
        if result.outcome is ChangeOutcome.IN_DOUBT:
            self.in_doubt.add(instance_id)
            if result.instance is not None:
                self.still_open.add(instance_id)

    @property
    def is_complete(self) -> bool:
        """Whether, as far as known, every instance is as the change wants it or has closed."""
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
    action: ChangeName,
    *,
    variables: Mapping[str, Any] | None = None,
    max_concurrency: int = 16,
    patience: float | None = None,
    grace: float | None = None,
    log: Callable[[LogNote], None],
    clock: Callable[[], float] = time.monotonic,
    is_stopped: Callable[[], bool] = lambda: False,
    is_wanted: Callable[[str], bool] = lambda _id: True,
    progress: Callable[[BulkChange, int], None] = lambda _change, _through: None,
) -> BulkChange:
    """Suspend, resume or terminate instances, or set their variables. Failures are part of the result and not raised.

    :param client: the client; its retry limits apply to each call.
    :param ids: the instance ids, each with the state in which it was last seen, if known.
    :param variables: for ``set``: names and values, anything that JSON can hold.
    :param patience: seconds after which nothing more is sent. Pending calls are finished.
    :param grace: seconds to search for the effect of accepted changes; by default the connection's ``start_grace``. With 0
        there is only one search.
    :param log: receives notes about the progress, if it takes a while.
    :param clock: returns a monotonic time in seconds.
    :param is_stopped: returns whether to stop. Then nothing more is sent, and pending calls are finished.
    :param is_wanted: returns whether an instance is still to be changed; called right before its call. An ``AstroZeroError``
        that it raises stops the run.
    :param progress: called after each answer with the results so far and the number of finished instances. If this call is
        cancelled, its last report is all that is known.
    :raises ValueError: for a bad argument; nothing was sent.
    """
    validation.choice(action, "action", (*operations.ACTIONS, "set"))
    validation.count(max_concurrency, "max_concurrency", least=1)

    def operation(instance_id: str) -> Operation[Any]:
        if action == "set":
            return operations.set_variables(instance_id, variables or {})
        return operations.change_state(instance_id, cast("Action", action))

    for instance_id in ids:
        operation(instance_id)  # raises for a bad argument before anything is sent
    ends = math.inf if patience is None else clock() + patience
    return await _BulkRunner(
        client,
        dict(ids),
        operation,
        BulkChange(action),
        log=log,
        clock=clock,
        is_over=lambda: is_stopped() or clock() >= ends,
        is_wanted=is_wanted,
        progress=progress,
    ).run(max_concurrency, client.settings.start_grace if grace is None else grace)


@dataclass
class _BulkRunner:
    """Sends one call for each of many instances, several at a time, until a further call makes no sense."""

    client: AsyncBpmClient
    ids: Mapping[str, str | None]
    operation: Callable[[str], Operation[Any]]
    change: BulkChange
    log: Callable[[LogNote], None]
    clock: Callable[[], float]
    is_over: Callable[[], bool]
    is_wanted: Callable[[str], bool]
    progress: Callable[[BulkChange, int], None]
    _lost_in_a_row: int = 0

    def __post_init__(self) -> None:
        self._to_do = iter(self.ids)
        self._unsettled: dict[str, ChangeAttempt] = {}
        self._began = self._logged_at = self.clock()

    async def run(self, max_concurrency: int, grace: float) -> BulkChange:
        """Change all instances, at most so many at a time, and check for the effect for so many seconds."""
        self.progress(self.change, 0)
        try:
            await asyncio.gather(*(self._work() for _ in range(min(max_concurrency, len(self.ids)))))
        finally:
            self.change.not_tried += self._to_do
        if self._unsettled:
            await self.client.run(
                check_effects(
                    self._unsettled, self._find, grace, record=self.change.record, is_over=self.is_over
                )
            )
        return self.change

    async def _work(self) -> None:
        """Change one instance after the other, until none is left or nothing more should be sent."""
        while self.change.stopped_by is None and not self.is_over():
            instance_id = next(self._to_do, None)
            if instance_id is None:
                return
            if self._is_wanted(instance_id):
                await self._act(instance_id)
            self._report_progress()

    def _is_wanted(self, instance_id: str) -> bool:
        """Return whether to change an instance, and otherwise record that nothing was sent for it."""
        change = self.change
        try:
            if self.is_wanted(instance_id):
                return True
        except AstroZeroError as error:
            change.stopped_by = change.stopped_by or error
            change.not_tried.append(instance_id)
        else:
            change.left_alone.append(instance_id)
        return False

    async def _act(self, instance_id: str) -> None:
        change = self.change
        answer: BpmInstance | CallError | None
        try:
            answer = await self.client.call(self.operation(instance_id))
        except AstroZeroError as error:
            self._lost_in_a_row = self._lost_in_a_row + 1 if _is_lost(error) else 0
            affects_all = _affects_all(error)
            if affects_all or self._lost_in_a_row >= MAX_LOST_CALLS:
                change.stopped_by = change.stopped_by or error
            if not isinstance(error, CallError) or (affects_all and not error.earlier_attempt_in_doubt):
                # The call has certainly done nothing, in any of its attempts.
                change.not_tried.append(instance_id)
                return
            # Drop the traceback, because it keeps all local variables alive, and there may be thousands.
            answer = error.with_traceback(None)
        else:
            self._lost_in_a_row = 0
        attempt = ChangeAttempt(instance_id, change.action, answer)
        if attempt.needs_check:
            self._unsettled[instance_id] = attempt
        else:
            change.record(instance_id, attempt.judge())

    def _find(self, ids: Collection[str]) -> Flow[Mapping[str, Seen]]:
        settings = self.client.settings
        try:
            found = yield from search.find(
                {one: self.ids[one] for one in ids},
                lookup=settings.instance_lookup,
                endpoint=search.traits_of_endpoint(settings.base_url),
            )
        except AstroZeroError as error:
            return dict.fromkeys(ids, error)
        return {one: found.instance_or_error(one) for one in ids}

    def _report_progress(self) -> None:
        """Report the progress, and log it every few seconds."""
        change, now, total = self.change, self.clock(), len(self.ids)
        ended = (change.done, change.ended, change.failed, change.left_alone, self._unsettled)
        through = sum(map(len, ended))
        self.progress(change, through)
        if now - self._logged_at < PROGRESS_SECONDS or through in (0, total):
            return
        self._logged_at = now
        rate = through / (now - self._began)
        others = f", {len(self._unsettled)} to verify" if self._unsettled else ""
        left = "" if change.stopped_by else f", about {(total - through) / rate:.0f} s left"
        so_far = f"{CHANGES[change.action].done} {len(change.done)} of {total}"
        self.log(LogNote(f"{so_far}{others}; {rate:.0f}/s{left}"))


def _affects_all(error: AstroZeroError) -> bool:
    """Return whether the error of a call, after all its attempts, would also hit every other call."""
    return (
        not isinstance(error, CallError) or error.failed_fetching_token or isinstance(error, STOPPING_ERRORS)
    )


def _is_lost(error: AstroZeroError) -> bool:
    """Return whether Astro Zero itself has not answered; a gateway in front of it may have."""
    return error.res_code is None and not isinstance(error, RefusedError)
