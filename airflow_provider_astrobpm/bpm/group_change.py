"""Changes thousands of instances, many at a time, judged by outcome as ``change`` judges one.

| after all its attempts, the PUT of an instance              | and then                                    |
|-------------------------------------------------------------|---------------------------------------------|
| was answered with the effect, or with an end                | it is settled                               |
| was accepted and showed no effect, was refused, or failed   | it is looked at when the others are through |
| met refused credentials or tokens, or throttling, or reached no server | nothing more is sent             |

That look is one search for all of them, and what it shows is judged by the table of ``change``. What was accepted and does not
show yet is looked at again, for as long as ``change`` looks at one. Nothing more is sent either when patience has ended, when somebody says stop, or when no answers come back any more: with all their attempts,
thousands of calls to a server that is down would take hours.
"""

from __future__ import annotations

import asyncio
import math
import time
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_astrobpm.bpm import api, checks, search
from airflow_provider_astrobpm.bpm.api import Pause
from airflow_provider_astrobpm.bpm.effect import (
    MOST_FAILED_LOOKS,
    accepted,
    after_all,
    is_settled,
    pauses,
    shows,
)
from airflow_provider_astrobpm.bpm.errors import (
    AstroZeroError,
    AuthenticationError,
    CallError,
    InstanceNotFoundError,
    NotSentError,
    RefusedError,
    ThrottledError,
    TokenRefusedError,
)
from airflow_provider_astrobpm.bpm.wait import Note

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_astrobpm.bpm.aio import AsyncBpmClient
    from airflow_provider_astrobpm.bpm.api import Action, Operation, Plan
    from airflow_provider_astrobpm.bpm.findings import Findings
    from airflow_provider_astrobpm.bpm.instance import BpmInstance

GroupAction = Literal["suspend", "resume", "terminate", "set"]

PROGRESS = 5.0  # seconds between two lines of progress
MOST_LOST = 16  # calls in a row without an answer, after which the server counts as down
NAMED = 3  # failures that a note names
STOPPING = (AuthenticationError, NotSentError, ThrottledError, TokenRefusedError)
DONE: dict[GroupAction, str] = {
    "suspend": "Suspended",
    "resume": "Resumed",
    "terminate": "Terminated",
    "set": "Set the variables of",
}


@dataclass
class GroupChange:
    """What came of it. Each instance is in one of the four lists.

    :param action: what was to be done.
    :param done: the ids of those that are as the action wants them, by this action or already before.
    :param ended: the ids of those that have ended otherwise; there was nothing to do.
    :param failed: why the others are not as the action wants them, by their ids.
    :param in_doubt: the ids of those among the failed that may be as the action wants them all the same: it was accepted and
        does not show, or they are gone.
    :param not_tried: the ids of those that were not sent any more, or were turned away by what stopped it.
    :param instances: those that were seen, as they were seen last.
    :param stopped_by: why nothing more was sent, unless it was for patience.
    """

    action: GroupAction
    done: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    in_doubt: set[str] = field(default_factory=set)
    still_open: set[str] = field(default_factory=set)
    """Those in doubt whose action was accepted, and that were open when they were last looked at."""
    not_tried: list[str] = field(default_factory=list)
    instances: list[BpmInstance] = field(default_factory=list)
    stopped_by: AstroZeroError | None = None

    @property
    def is_complete(self) -> bool:
        """Whether none is otherwise than the action wants it, as far as anybody knows."""
        return not self.not_tried and self.failed.keys() <= self.in_doubt - self.still_open

    @property
    def note(self) -> str:
        """What came of it, as a sentence without its full stop."""
        parts = [f"{self.action}: {len(self.done)} done"]
        if self.ended:
            parts.append(f"{len(self.ended)} had ended already")
        if self.failed:
            parts.append(f"{len(self.failed)} failed ({self._failures()})")
        if self.not_tried:
            why = str(self.stopped_by) if self.stopped_by else "the time for it was over"
            parts.append(f"{len(self.not_tried)} not tried ({why.removesuffix('.')})")
        return ", ".join(parts)

    def _failures(self) -> str:
        """Name the first failures, and each reason once: it may be the one of thousands."""
        by_reason: dict[str, list[str]] = {}
        for instance_id, reason in list(self.failed.items())[:NAMED]:
            by_reason.setdefault(reason, []).append(repr(instance_id))
        named = [f"instance {', '.join(ids)}: {why}" for why, ids in by_reason.items()]
        return "; ".join([*named, "…"] if len(self.failed) > NAMED else named)


async def change_all(
    client: AsyncBpmClient,
    ids: Mapping[str, str | None],
    action: Action,
    *,
    max_concurrency: int = 16,
    patience: float | None = None,
    grace: float | None = None,
    log: Callable[[Note], None],
    clock: Callable[[], float] = time.monotonic,
    is_stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[GroupChange, int], None] = lambda _change, _through: None,
) -> GroupChange:
    """Suspend, resume or terminate instances. Whatever goes wrong with them is told in what is returned.

    :param client: the client; its attempts and its patience hold for each call.
    :param ids: the instances, each with the state in which it was last seen, if that is known.
    :param action: what to do.
    :param max_concurrency: calls under way at once.
    :param patience: seconds after which nothing more is sent. What is under way then comes to its end.
    :param grace: seconds for which is looked whether what was accepted shows; by default the connection's ``start_grace``. With 0
        there is one look, for those who have no time.
    :param log: is told how far it is, if it takes a while.
    :param clock: the time in seconds, from whatever moment on.
    :param is_stopped: tells whether somebody said stop. Nothing more is sent then, and what is under way comes to its end.
    :param progress: is shown after each answer what has come of it, and told how many are through. Whoever cancels this
        knows so much about them, and no more.
    :raises ValueError: for a bad argument; nothing was sent then.
    """
    checks.choice(action, "action", api.ACTIONS)
    ends = math.inf if patience is None else clock() + patience
    changer = _StateChanger(
        client,
        dict(ids),
        GroupChange(action),
        log=log,
        clock=clock,
        is_over=lambda: is_stopped() or clock() >= ends,
        progress=progress,
        action=action,
        grace=client.settings.start_grace if grace is None else grace,
    )
    return await changer.run(max_concurrency)


@dataclass
class Changer:
    """Sends one call for each of many instances, some at a time, for as long as that makes sense.

    :param client: the client.
    :param ids: the instances, each with the state in which it was last seen, if that is known.
    :param change: takes what comes of it.

    The other parameters are those of ``change_all``.
    """

    client: AsyncBpmClient
    ids: dict[str, str | None]
    change: GroupChange
    log: Callable[[Note], None]
    clock: Callable[[], float]
    is_over: Callable[[], bool]
    progress: Callable[[GroupChange, int], None]
    _lost_in_a_row: int = 0

    def __post_init__(self) -> None:
        self._to_do = iter(self.ids)
        self.unsettled: dict[str, AstroZeroError | None] = {}
        """What its answer has not settled, and how the call failed, if it was not accepted."""
        self._began = self._told_at = self.clock()

    def operation(self, instance_id: str) -> Operation[Any]:
        """Return the call for an instance."""
        raise NotImplementedError

    def settle(self, instance_id: str, answer: Any) -> bool:
        """Take the answer for an instance, and return whether that leaves nothing to wish for."""
        raise NotImplementedError

    async def look(self) -> None:
        """Find out what came of those that their answers have not settled."""
        raise NotImplementedError

    async def run(self, max_concurrency: int) -> GroupChange:
        """Change all, so many at a time, and return what came of it."""
        checks.count(max_concurrency, "max_concurrency", least=1)
        for instance_id in self.ids:
            self.operation(instance_id)  # a bad argument is told before anything is sent
        self.progress(self.change, 0)
        try:
            await asyncio.gather(*(self._work() for _ in range(min(max_concurrency, len(self.ids)))))
        finally:
            self.change.not_tried += self._to_do
        if self.unsettled:
            await self.look()
        return self.change

    async def _work(self) -> None:
        """Change one instance after the other, until there are no more or nothing more is to be sent."""
        while self.change.stopped_by is None and not self.is_over():
            instance_id = next(self._to_do, None)
            if instance_id is None:
                return
            await self._act(instance_id)
            self._tell()

    async def _act(self, instance_id: str) -> None:
        try:
            answer = await self.client.call(self.operation(instance_id))
        except AstroZeroError as error:
            if _stops(error) and _is_not_sent(error):
                self.change.not_tried.append(instance_id)
            else:
                # Without its traceback, which keeps all that was at hand when it was raised: there may be thousands.
                self.unsettled[instance_id] = error.with_traceback(None)
            self._lost_in_a_row = self._lost_in_a_row + 1 if _is_lost(error) else 0
            if _stops(error) or self._lost_in_a_row >= MOST_LOST:
                self.change.stopped_by = self.change.stopped_by or error
        else:
            self._lost_in_a_row = 0
            if not self.settle(instance_id, answer):
                self.unsettled[instance_id] = None

    def fail(self, instance_id: str, words: str, *, in_doubt: bool) -> None:
        """Write down why an instance is not as it should be."""
        self.change.failed[instance_id] = words
        if in_doubt:
            self.change.in_doubt.add(instance_id)

    def _tell(self) -> None:
        """Tell how far it is, and write it down every few seconds."""
        change, now = self.change, self.clock()
        through = len(change.done) + len(change.ended) + len(self.unsettled)
        self.progress(change, through)
        if now - self._told_at < PROGRESS or through in (0, len(self.ids)):
            return
        self._told_at = now
        rate = through / (now - self._began)
        others = f", {len(self.unsettled)} to be looked at" if self.unsettled else ""
        left = "" if change.stopped_by else f", about {(len(self.ids) - through) / rate:.0f} s left"
        so_far = f"{DONE[change.action]} {len(change.done)} of {len(self.ids)}"
        self.log(Note(f"{so_far}{others}; {rate:.0f}/s{left}"))


@dataclass(kw_only=True)
class _StateChanger(Changer):
    action: Action
    grace: float
    _looked: float = 0.0

    def operation(self, instance_id: str) -> Operation[BpmInstance]:
        return api.act(instance_id, self.action)

    def settle(self, instance_id: str, instance: BpmInstance) -> bool:
        if not is_settled(instance, self.action):
            return False
        (self.change.done if shows(instance, self.action) else self.change.ended).append(instance_id)
        self.change.instances.append(instance)
        return True

    async def look(self) -> None:
        failed = 0
        for pause in (0.0, *pauses(self.grace)):
            if pause and self.is_over():
                break
            seen = await self._seen(pause)
            self._looked += pause
            self.unsettled = {
                one: failure
                for one, failure in self.unsettled.items()
                if not self._is_through(one, failure, seen[one])
            }
            failed = failed + 1 if all(isinstance(one, CallError) for one in seen.values()) else 0
            if not self.unsettled or failed >= MOST_FAILED_LOOKS:
                break
        for instance_id, failure in self.unsettled.items():
            self._judge(instance_id, failure, seen[instance_id])

    async def _seen(self, pause: float) -> dict[str, BpmInstance | AstroZeroError]:
        """Return how the instances are after a pause that nothing has settled yet, or why that is not known."""
        settings = self.client.settings
        search_for_them = search.find(
            {instance_id: self.ids[instance_id] for instance_id in self.unsettled},
            lookup=settings.instance_lookup,
            endpoint=search.endpoint_at(settings.base_url),
        )
        try:
            findings = await self.client.run(_after(pause, search_for_them))
        except AstroZeroError as error:
            return dict.fromkeys(self.unsettled, error)
        return {one: findings.instance_or_error(one) for one in self.unsettled}

    def _is_through(
        self, instance_id: str, failure: AstroZeroError | None, seen: BpmInstance | AstroZeroError
    ) -> bool:
        """Judge an instance that no further look can tell more of, and return whether it is one."""
        if not isinstance(seen, AstroZeroError) and self.settle(instance_id, seen):
            return True
        may_be_done = failure is None or (isinstance(failure, CallError) and failure.may_be_done)
        if may_be_done and not (failure and isinstance(seen, InstanceNotFoundError)):
            return False
        self._judge(instance_id, failure, seen)
        return True

    def _judge(
        self, instance_id: str, failure: AstroZeroError | None, seen: BpmInstance | AstroZeroError
    ) -> None:
        """Judge by the table of ``change`` how an instance is that is not as the action wants it."""
        if isinstance(seen, InstanceNotFoundError):
            missing = copy(seen)
            missing.problem = f"it{missing.problem.removeprefix(missing.sought)}"
            if failure:  # What the server answered to the action was the first sign of it.
                missing.status, missing.res_code = failure.status, failure.res_code
                missing.res_msg = failure.res_msg
            lead = "" if failure else "accepted, and yet "
            self.fail(instance_id, f"{lead}{words_of(missing)}", in_doubt=True)
            return
        if not isinstance(seen, AstroZeroError):
            self.change.instances.append(seen)
        if isinstance(failure, CallError):
            self.fail(instance_id, words_of(failure, after_all(failure, seen, self._looked)), in_doubt=False)
            return
        self.fail(instance_id, accepted(seen, self._looked), in_doubt=True)
        if not isinstance(seen, AstroZeroError):
            self.change.still_open.add(instance_id)


def _after(pause: float, plan: Plan[Findings]) -> Plan[Findings]:
    """Carry a plan out after a pause in seconds."""
    if pause:
        yield Pause(pause)
    return (yield from plan)


def _stops(error: AstroZeroError) -> bool:
    """Tell whether what ended a call, after all its attempts, would end every other one too."""
    return not isinstance(error, CallError) or error.came_before or isinstance(error, STOPPING)


def _is_not_sent(error: AstroZeroError) -> bool:
    """Tell whether a call that ended so has certainly done nothing, in none of its attempts."""
    return not (isinstance(error, CallError) and error.after_doubt)


def _is_lost(error: AstroZeroError) -> bool:
    """Tell whether Astro Zero itself said nothing; a gateway in front of it may have."""
    return error.res_code is None and not isinstance(error, RefusedError)


def words_of(error: AstroZeroError, then: str = "") -> str:
    """Return what an error says, but for the attempt and the connection: thousands may fail for the one reason."""
    reason = copy(error)
    reason.problem += then
    reason.attempt = reason.connection = None
    return str(reason).removesuffix(".")
