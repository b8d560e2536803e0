"""One wait for many instances: each is judged as a wait of its own would judge it, and all share one end.

Finished instances are dropped, so a wait for ten thousand gets cheaper with each poll. Per instance it keeps its id, its state
and eight bytes.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.client.errors import (
    CallError,
    InstanceNotFoundError,
    UnknownEventError,
    WaitTimeoutError,
)
from airflow_provider_astrobpm.client.sameness import own_business_key, without_namespace
from airflow_provider_astrobpm.waiting.condition import Outcome
from airflow_provider_astrobpm.waiting.wait import BaseWait, is_gone

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.moment import Moment
    from airflow_provider_astrobpm.client.search import SearchRequest
    from airflow_provider_astrobpm.client.search_result import SearchResult
    from airflow_provider_astrobpm.waiting.condition import WaitCondition

PROGRESS_INTERVAL_SECONDS = 10.0  # at least, between two progress notes
RATE_WINDOW_SECONDS = 600.0  # over which the rate is measured


class BatchWaitResult(NamedTuple):
    """The outcome for each instance of a batch."""

    succeeded: int
    """How many met the condition."""
    failed: dict[str, str]
    """Why the others failed, by id, in the order in which they failed."""
    open: tuple[str, ...]
    """The ids of undecided instances."""


def rejudge(
    end: BatchWaitResult,
    ids: Collection[str],
    seen: Mapping[str, BpmInstance],
    condition: WaitCondition,
    *,
    others: Mapping[str, BpmInstance] = MappingProxyType({}),
) -> BatchWaitResult:
    """Return the result of a batch after a later poll: more may be decided since, and successes are checked again.

    :param end: the result when the wait ended.
    :param ids: the ids of all members.
    :param seen: the instances that the later poll found, by id; instances that are gone are missing.
    :param condition: what the wait was for.
    :param others: other instances that members' ids show now. Those members have failed, no matter what the event says.
    :raises UnknownEventError: if an instance counts as a success but does not meet the condition.
    """
    failed, still_open = dict(end.failed), []
    for instance_id in ids:
        if instance_id in others:
            failed.setdefault(instance_id, other_instance_reason(others[instance_id]))
    for instance_id in end.open:
        if instance_id in others:
            continue
        verdict = condition.judge(seen[instance_id]) if instance_id in seen else None
        if verdict is None or verdict.outcome is Outcome.WAITING:
            still_open.append(instance_id)
        elif verdict.outcome is Outcome.FAILED:
            failed[instance_id] = verdict.reason
    undecided = {*failed, *still_open}
    succeeded = [one for one in ids if one not in undecided]
    # An instance may have left a state or status that was asked for. It cannot leave its end.
    for instance in [seen[one] for one in succeeded if one in seen] if condition.is_permanent else ():
        if condition.judge(instance).outcome is not Outcome.DONE:
            raise UnknownEventError(str(instance), "it counts as a success")
    return BatchWaitResult(len(succeeded), failed, tuple(still_open))


class BatchWait(BaseWait[BatchWaitResult]):
    """One wait for many instances. It ends when all are decided, or too many have failed.

    :param condition: what to wait for, for each instance.
    :param members: the instances as they were last seen; a mapping by id if not all of them were seen.
    :param may_fail: how many may fail before the wait ends, even if others are still open; ``None`` for any number.
    :param names: the names that their BPMs may show, if they are known.

    The other parameters are those of ``BaseWait``.
    """

    def __init__(
        self,
        condition: WaitCondition,
        members: Iterable[BpmInstance] | Mapping[str, BpmInstance | None],
        *,
        deadline: float | None = None,
        max_poll_failure_time: float = 600,
        may_fail: int | None = None,
        names: Collection[str] = (),
    ) -> None:
        super().__init__(deadline, max_poll_failure_time)
        self._condition = condition
        self._may_fail = may_fail
        seen = members if isinstance(members, Mapping) else {one.id: one for one in members}
        self.ids = tuple(seen)
        """The ids of all members."""
        self._fingerprints = _MemberFingerprints(len(self.ids), names)
        self._open: dict[str, str | None] = dict.fromkeys(seen)
        self._missing: dict[str, tuple[float, int]] = {}
        self._unpolled: dict[str, float] = {}
        self._failed: dict[str, str] = {}
        self._rate = ProgressRate()
        self._logged, self._logged_at = self._progress(), -math.inf
        for instance in seen.values():
            if instance:
                self._judge(instance)
        self._end_if_decided()

    @property
    def size(self) -> int:
        """How many instances are open."""
        return len(self._open)

    def so_far(self) -> BatchWaitResult:
        """Return the result so far, even if the wait ended with an error."""
        succeeded = len(self.ids) - len(self._open) - len(self._failed)
        return BatchWaitResult(succeeded, dict(self._failed), tuple(self._open))

    def end(self, ending: BatchWaitResult | Exception) -> None:
        """End the wait, and log the progress once more."""
        super().end(ending)
        self._note(self._progress())

    def add_to_query(self, sought: SearchRequest) -> None:
        """Add the ids of the open instances."""
        sought.ids.update(self._open)

    def record_poll(self, search_result: SearchResult, now: Moment, connection: str | None = None) -> None:
        """Record the result of a poll, and log the progress if it is due."""
        super().record_poll(search_result, now, connection)
        self._rate.mark(len(self._open), now.steady)
        progress = self._progress()
        if (
            self.ending is None
            and progress != self._logged
            and now.steady - self._logged_at >= PROGRESS_INTERVAL_SECONDS
        ):
            self._logged, self._logged_at = progress, now.steady
            self._note(f"{progress}{self._rate}")

    def record_failed_poll(self, error: CallError, now: Moment) -> None:
        """Record that a poll could query none of the instances."""
        for instance_id in self._open:
            self._unpolled.setdefault(instance_id, now.steady)
        super().record_failed_poll(error, now)

    def _basic_timeout_error(self, deadline: float, now: Moment) -> WaitTimeoutError:
        error = WaitTimeoutError(
            f"{len(self.ids)} instances", deadline, None, argument=self.deadline_argument
        )
        timed_out, _, _ = error.problem.rpartition("; ")  # what follows is about one instance
        error.problem = f"{timed_out}; {len(self._open)} of {len(self.ids)} are still open"
        return error

    def _judge_result(self, search_result: SearchResult, now: float) -> CallError | None:
        missed, self._missing = self._missing, {}
        failing, self._unpolled = self._unpolled, {}
        failure: CallError | None = None
        oldest = math.inf  # when the oldest stretch of failed polls began
        for place, instance_id in enumerate(self.ids):
            if instance_id not in self._open:
                continue
            result = search_result.instance_or_error(instance_id)
            if isinstance(result, CallError):
                since = self._unpolled[instance_id] = failing.get(instance_id, now)
                if since < oldest:
                    failure, oldest = result, since
                if instance_id in missed:
                    self._missing[instance_id] = missed[instance_id]
            elif isinstance(result, InstanceNotFoundError):
                since, polls = missed.get(instance_id, (now, 0))
                if is_gone(polls + 1, now - since, self.grace):
                    # Without the id: thousands may be gone for the same reason, and equal reasons are stored once.
                    self._fail(
                        instance_id,
                        f"it{result.problem.removeprefix(result.sought)}. {result.advice}",
                    )
                else:
                    self._missing[instance_id] = since, polls + 1
            elif self._fingerprints.match(place, result):
                self._judge(result)
            else:
                self._fail(instance_id, other_instance_reason(result))
        self._end_if_decided()
        if self._failing_since is not None and failure is not None:
            self._failing_since = oldest
        return failure

    def _judge(self, instance: BpmInstance) -> None:
        verdict = self._condition.judge(instance)
        if verdict.outcome is Outcome.WAITING:
            self._open[instance.id] = sys.intern(instance.state)  # one string for all rows
        elif verdict.outcome is Outcome.DONE:
            del self._open[instance.id]
        else:
            self._fail(instance.id, verdict.reason)

    def _fail(self, instance_id: str, reason: str) -> None:
        del self._open[instance_id]
        self._failed[instance_id] = reason

    def _end_if_decided(self) -> None:
        if not self._open or (self._may_fail is not None and len(self._failed) > self._may_fail):
            self.end(self.so_far())

    def _progress(self) -> str:
        missing = f", {len(self._missing)} missing" if self._missing else ""
        return f"Closed {len(self.ids) - len(self._open)} of {len(self.ids)}, {len(self._failed)} failed{missing}"


def other_instance_reason(instance: BpmInstance) -> str:
    """Return why a member has failed whose id now shows another instance."""
    return f"its id now shows another instance: one of {instance.name!r}, with business key {instance.business_key!r}"


class _MemberFingerprints:
    """What polls have shown of each member apart from its id: digests of its name and business key, four bytes each.

    Only rows of lists are compared with each other: the answer to a start may show names and keys differently.

    :param count: how many members there are.
    :param names: the names that they may have; empty for any name.
    """

    def __init__(self, count: int, names: Collection[str] = ()) -> None:
        self._may_have = frozenset(map(without_namespace, names))
        self._seen_names: dict[str, int] = {}
        self._names = array("I", bytes(4 * count))
        self._keys = array("I", bytes(4 * count))

    def match(self, place: int, row: BpmInstance) -> bool:
        """Return whether a list row can belong to a member. If so, remember what the row shows."""
        name = self._seen_names.get(row.name)
        if name is None:
            name = self._seen_names[row.name] = self._digest_of_name(without_namespace(row.name))
        key = own_business_key(row)
        key_digest = 0 if key is None else _digest(key)
        if not name or self._names[place] not in (0, name):
            return False
        if key_digest and self._keys[place] not in (0, key_digest):
            return False
        self._names[place] = name
        self._keys[place] = key_digest or self._keys[place]
        return True

    def _digest_of_name(self, name: str) -> int:
        """Return the digest of a name, or 0 if no member may have this name."""
        return 0 if self._may_have and name not in self._may_have else _digest(name)


def _digest(text: str) -> int:
    """Return a 32-bit digest of a text. It is never 0, because 0 means that nothing is known."""
    return (hash(text) & 0xFFFF_FFFF) or 1


class BatchSnapshot(BaseWait["dict[str, BpmInstance]"]):
    """One poll of many instances, regardless of their states. It ends once each was either found or found missing.

    :param ids: the instances, each with the state in which it was last seen, if that is known.
    :param max_poll_failure_time: seconds for which polls may fail in a row.
    """

    def __init__(self, ids: Mapping[str, str | None], *, max_poll_failure_time: float = 600) -> None:
        super().__init__(None, max_poll_failure_time)
        self._left = dict(ids)
        self.seen: dict[str, BpmInstance] = {}
        """The instances found so far, by id."""

    def add_to_query(self, sought: SearchRequest) -> None:
        """Add the ids that no poll has answered yet."""
        sought.ids.update(self._left)

    def _judge_result(self, search_result: SearchResult, now: float) -> CallError | None:
        failure: CallError | None = None
        for instance_id in tuple(self._left):
            result = search_result.instance_or_error(instance_id)
            if isinstance(result, CallError):
                failure = failure or result
                continue
            del self._left[instance_id]
            if not isinstance(result, InstanceNotFoundError):
                self.seen[instance_id] = result
        if failure is None:
            self.end(self.seen)
        return failure


class ProgressRate:
    """Measures how fast a number decreases, and estimates the time until it is 0."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def mark(self, left: int, now: float) -> None:
        """Record how many are left now."""
        if self._marks and now < self._marks[-1][0]:  # the clock was set back
            self._marks.clear()
        self._marks.append((now, left))
        while len(self._marks) > 1 and now - self._marks[1][0] >= RATE_WINDOW_SECONDS:
            self._marks.popleft()

    def __str__(self) -> str:
        """Return the rate and the time left as the end of a sentence, or nothing if they are unknown."""
        (then, before), (now, left) = self._marks[0], self._marks[-1]
        if left >= before or now <= then:
            return ""
        a_minute = (before - left) * 60 / (now - then)
        pace = f"{a_minute:.0f} a minute" if a_minute >= 1 else f"{a_minute * 60:.0f} an hour"
        minutes = left / a_minute
        rest = f"{max(minutes, 1):.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
        return f"; {pace}, about {rest} left"
