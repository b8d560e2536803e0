"""State of one wait: the last instance seen, how each poll result is judged, and when the next poll is due.

A wait records and decides. It does not know the server or the clock. ``BaseWait`` is what pollers use, ``InstanceWait`` waits
for one instance. On a worker a flow of ``polling`` runs one wait and holds the thread. In the triggerer the poller runs any
number of waits. Both produce the same result.

A failed poll does not fail the wait: the wait continues until polls have failed for ``max_poll_failure_time``. A poll changes
nothing at Astro Zero. If only some lists fail, the poll fails only for the waits that need them. An instance that no list
shows counts as gone only after several complete polls and some time.

Durations are measured on a steady clock. Only the deadline is a wall-clock time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from typing import TYPE_CHECKING, Generic, TypeVar

from airflow_provider_astrobpm.client.errors import (
    AnotherInstanceError,
    AstroZeroError,
    AuthenticationError,
    CallError,
    InstanceNotFoundError,
    WaitFailedError,
    WaitTimeoutError,
)
from airflow_provider_astrobpm.client.log_note import LogNote
from airflow_provider_astrobpm.client.moment import utc
from airflow_provider_astrobpm.client.sameness import KnownIdentity
from airflow_provider_astrobpm.waiting.condition import Outcome

if TYPE_CHECKING:
    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.key_form import BusinessKey
    from airflow_provider_astrobpm.client.moment import Moment
    from airflow_provider_astrobpm.client.search import SearchRequest
    from airflow_provider_astrobpm.client.search_result import SearchResult
    from airflow_provider_astrobpm.waiting.condition import WaitCondition

T = TypeVar("T")

MIN_MISSING_POLLS = 3  # complete polls in a row that do not show the instance
MIN_MISSING_SECONDS = 60.0  # from the first to the last of them; ``start_grace`` if that is more


class BaseWait(ABC, Generic[T]):
    """Base class of waits: what to query, and how long polls may fail.

    :param deadline: when the wait fails, in seconds since the epoch; ``None`` for never.
    :param max_poll_failure_time: seconds for which polls may fail in a row.
    """

    __slots__ = (
        "_failing_since",
        "_max_poll_failure_time",
        "deadline",
        "deadline_argument",
        "ending",
        "failed_polls",
        "failure",
        "grace",
        "notes",
    )

    def __init__(self, deadline: float | None, max_poll_failure_time: float) -> None:
        self._max_poll_failure_time = max_poll_failure_time
        self._failing_since: float | None = None
        self.grace = MIN_MISSING_SECONDS
        """Seconds after which a started instance must show in the lists. The poller sets it."""
        self.deadline = deadline
        self.deadline_argument = "timeout"
        """The argument that set the deadline, for the error of a wait that times out."""
        self.failed_polls = 0
        """How many polls have failed in a row."""
        self.failure: CallError | None = None
        """How the latest poll failed; ``None`` after a poll that succeeded."""
        self.notes: list[LogNote] = []
        """Changes that have not been logged yet."""
        self.ending: T | Exception | None = None
        """How the wait ended: the success value, or the error; ``None`` while it continues."""

    @property
    def size(self) -> int:
        """How many instances each poll judges."""
        return 1

    def result(self) -> T:
        """Return the success value, or raise the error that ended the wait."""
        ending = self.ended()
        if isinstance(ending, Exception):
            raise ending
        return ending

    def ended(self) -> T | Exception:
        """Return how the wait ended."""
        if self.ending is None:
            raise RuntimeError("the wait has not ended")
        return self.ending

    def end(self, ending: T | Exception) -> None:
        """End the wait."""
        self.ending = ending

    def resume(self) -> None:
        """Continue after an error that was handled."""
        self.ending = None
        self._polls_succeed()

    @property
    def known(self) -> KnownIdentity:
        """What is known about the awaited instance apart from its id."""
        return KnownIdentity()

    def has_news(self) -> bool:
        """Return whether there is something for the waiting task: a note to log, or the end of the wait."""
        return bool(self.notes) or self.ending is not None

    @abstractmethod
    def add_to_query(self, sought: SearchRequest) -> None:
        """Add what the wait needs to a query."""

    def rows_to_sort(self, search_result: SearchResult) -> int:
        """Return how many rows ``sort_rows`` would read; 0 if this wait needs no lists."""
        return 0

    def sort_rows(self, search_result: SearchResult) -> None:
        """Do the part of ``record_poll`` that reads whole lists. It may run in another thread before that, and changes nothing else."""

    def seconds_left(self, now: Moment) -> float | None:
        """Return the seconds until a time limit of the wait, when it must be polled at the latest; ``None`` without limit."""
        if self.ending is not None:
            return None
        ends = [] if self.deadline is None else [self.deadline - now.wall]
        if self._failing_since is not None:
            ends.append(self._failing_since + self._max_poll_failure_time - now.steady)
        return min(ends, default=None)

    def record_poll(self, search_result: SearchResult, now: Moment, connection: str | None = None) -> None:
        """Record the result of a poll, which may have failed for this wait.

        :param search_result: what the poll found.
        :param now: when the poll ended.
        :param connection: the connection id for errors, because several connections may share a poll.
        """
        said = len(self.notes)
        error = self._judge_result(search_result, now.steady)
        if error is None:
            if self._failing_since is not None:
                self.notes.insert(said, LogNote("Polls succeed again"))
            self._polls_succeed()
            self.check_deadline(now)
        elif self.ending is None:
            if connection not in (None, error.connection):
                error = copy(error)
                error.connection = connection
            self._fail_poll(error, now)

    def record_failed_poll(self, error: CallError, now: Moment) -> None:
        """Record a poll that could not query anything for this wait.

        :param error: why it failed.
        :param now: when it ended.
        """
        self._fail_poll(error, now)

    def _fail_poll(self, error: CallError, now: Moment) -> None:
        self.failed_polls += 1
        self.failure = error
        if self._failing_since is None:
            # Not since it began: if the process was stopped meanwhile, one failed poll would end the wait.
            self._failing_since = now.steady
            if not isinstance(error, AuthenticationError):
                self._note(f"Polls are failing; still waiting. {error}", warning=True)
        stretch = now.steady - self._failing_since
        if isinstance(error, AuthenticationError):
            self.end(error)  # The same credentials would be refused again.
        elif stretch >= self._max_poll_failure_time:
            last = copy(error)
            last.problem += f"; polls have failed for {stretch:.0f} s ('max_poll_failure_time')"
            self.end(last)
        self.check_deadline(now)

    def check_deadline(self, now: Moment) -> None:
        """End the wait if its deadline has passed."""
        if self.ending is None and self.deadline is not None and now.wall >= self.deadline:
            self.end(self.timeout_error(self.deadline, now))

    def timeout_error(self, deadline: float, now: Moment) -> WaitTimeoutError:
        """Return the error for a deadline that has passed."""
        error = self._basic_timeout_error(deadline, now)
        if self._failing_since is not None:
            since = utc(now.wall_time_of(self._failing_since))
            error.problem += f"; polls have failed since {since}: {str(self.failure).removesuffix('.')}"
        return error

    def _basic_timeout_error(self, deadline: float, now: Moment) -> WaitTimeoutError:
        """Return the error for a passed deadline, without the part about failing polls."""
        return WaitTimeoutError("an answer", deadline, None, argument=self.deadline_argument)

    @abstractmethod
    def _judge_result(self, search_result: SearchResult, now: float) -> CallError | None:
        """Judge the result of a poll, and return the error if the poll failed for this wait or for a part of it.

        :param now: when the poll ended, on the steady clock.
        """

    def _polls_succeed(self) -> None:
        self._failing_since, self.failure, self.failed_polls = None, None, 0

    def _note(self, text: str, *, warning: bool = False) -> None:
        self.notes.append(LogNote(text, warning))


class InstanceWait(BaseWait["BpmInstance"]):
    """A wait for one instance. On success it returns that instance.

    :param condition: what to wait for.
    :param instance_id: the instance's id, if it is known.
    :param key: its business key, if the id is not known.
    :param seen: the instance as it was last seen, if it was.
    :param known: what else is known about it, so that another instance is not mistaken for it. The default is what ``seen``
        shows.

    The other parameters are those of ``BaseWait``.
    """

    __slots__ = ("_condition", "_key", "_known", "_missing_polls", "_missing_since", "instance_id", "seen")

    def __init__(
        self,
        condition: WaitCondition,
        *,
        instance_id: str | None = None,
        key: BusinessKey | None = None,
        seen: BpmInstance | None = None,
        known: KnownIdentity | None = None,
        deadline: float | None = None,
        max_poll_failure_time: float = 600,
    ) -> None:
        super().__init__(deadline, max_poll_failure_time)
        self._condition = condition
        self._missing_since: float | None = None
        self._missing_polls = 0
        self.instance_id = seen.id if seen else instance_id
        self._key = key
        self.seen = seen
        known = known or KnownIdentity()
        self._known = known.updated_from(seen) if seen else known
        if seen:
            self._judge(seen)

    @property
    def key(self) -> BusinessKey:
        """The business key to search by while the id is unknown."""
        if self._key is None:
            raise RuntimeError("a wait needs an instance id or a business key")
        return self._key

    @property
    def known(self) -> KnownIdentity:
        """What is known about the instance apart from its id."""
        return self._known

    def add_to_query(self, sought: SearchRequest) -> None:
        """Add the instance's id to the query, or its business key while the id is unknown."""
        if self.instance_id is None:
            sought.keys.add(self.key)
        else:
            sought.ids[self.instance_id] = self.seen.state if self.seen else None

    def is_inconclusive(self) -> bool:
        """Return whether the last poll failed, or did not show an instance that it should have shown."""
        return self.ending is None and (self._failing_since is not None or self._missing_since is not None)

    def _basic_timeout_error(self, deadline: float, now: Moment) -> WaitTimeoutError:
        sought = f"instance {self.instance_id!r}" if self.instance_id else f"an instance with {self._key}"
        error = WaitTimeoutError(sought, deadline, self.seen, argument=self.deadline_argument)
        if self._missing_since is not None:
            error.problem += (
                f"; it has been in none of the states since {utc(now.wall_time_of(self._missing_since))}"
            )
        return error

    def _judge_result(self, search_result: SearchResult, now: float) -> CallError | None:
        result: BpmInstance | AstroZeroError
        if self.instance_id is not None:
            result = search_result.instance_or_error(self.instance_id)
        else:
            result = search_result.match_or_error(self.key)
        if isinstance(result, CallError):
            return result
        if isinstance(result, InstanceNotFoundError):
            self._record_missing(result, now)
        elif isinstance(result, AstroZeroError):
            self.end(result)
        else:
            self._record_seen(result)
        return None

    def _record_missing(self, error: InstanceNotFoundError, now: float) -> None:
        self._missing_polls += 1
        if self.instance_id is None:
            if self._missing_polls == 1:
                self._note(f"{error.problem}; it may still be started")
            return
        if self._missing_since is None:
            self._missing_since = now
            self._note(f"{error.problem}; polling again", warning=True)
        if is_gone(self._missing_polls, now - self._missing_since, self.grace):
            self.end(error)

    def _record_seen(self, instance: BpmInstance) -> None:
        self._missing_since, self._missing_polls = None, 0
        if instance == self.seen:
            return
        if not self._known.matches(instance):
            self.end(AnotherInstanceError(instance, self._known))
            return
        if str(instance) != str(self.seen):
            self._note(f"Now {instance}" if self.seen else f"Found {instance}")
        self.instance_id, self.seen = instance.id, instance
        self._known = self._known.updated_from(instance)
        self._judge(instance)

    def _judge(self, instance: BpmInstance) -> None:
        verdict = self._condition.judge(instance)
        if verdict.outcome is Outcome.DONE:
            self.end(instance)
        elif verdict.outcome is Outcome.FAILED:
            self.end(WaitFailedError(instance, verdict.reason))


def is_gone(polls: int, seconds: float, grace: float) -> bool:
    """Return whether an instance counts as gone.

    :param polls: how many complete polls in a row did not show it.
    :param seconds: the seconds from the first to the last of them.
    :param grace: seconds after which a started instance must show in the lists.
    """
    return polls >= MIN_MISSING_POLLS and seconds >= max(MIN_MISSING_SECONDS, grace)
