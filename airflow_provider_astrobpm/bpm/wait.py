"""One wait: what it has seen, what each further poll means for it, and when it wants the next.

A wait keeps the books and decides; it knows neither the server nor the clock. ``AnyWait`` is what it is to those who
poll for it, ``Wait`` the one for one instance. The plans in ``look`` run one wait for a worker that holds its thread,
the poller runs any number of them for the triggerer, and both end alike.

A poll that fails is not a wait that fails: the wait goes on until polls have failed for a whole stretch, and a failed
poll never changes anything at Astro Zero. A poll may fail for one wait and not for another, where one of its lists did.
What is in none of the states counts as gone only after several whole polls and a while.

Stretches are measured on a steady clock; only the deadline is a time of the wall clock.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from airflow_provider_astrobpm.bpm.condition import Outcome
from airflow_provider_astrobpm.bpm.errors import (
    AnotherInstanceError,
    AstroZeroError,
    AuthenticationError,
    CallError,
    InstanceNotFoundError,
    WaitFailedError,
    WaitTimeoutError,
)
from airflow_provider_astrobpm.bpm.moment import utc
from airflow_provider_astrobpm.bpm.sameness import Known

if TYPE_CHECKING:
    from airflow_provider_astrobpm.bpm.condition import WaitCondition
    from airflow_provider_astrobpm.bpm.findings import Findings
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.moment import Moment
    from airflow_provider_astrobpm.bpm.search import BusinessKey, Sought

T = TypeVar("T")

MISSING_LOOKS = 3  # whole polls in a row that find nothing, and
MISSING_TIME = 60.0  # seconds, or ``start_grace`` if that is more, from the first to the last of them


class Note(NamedTuple):
    """Something that changed, for the log."""

    text: str
    warning: bool = False

    def write_to(self, log: Any) -> None:
        """Write it to a log, of Python's own or like one."""
        (log.warning if self.warning else log.info)(self.text)


class AnyWait(Generic[T]):
    """A wait as those who poll for it know it: what it looks for, and how it bears with polls that fail.

    :param deadline: when the wait fails, in seconds since the epoch; ``None`` for never.
    :param max_poll_failure_time: seconds for which polls may fail in a row.
    """

    __slots__ = (
        "_failing_since",
        "_max_poll_failure_time",
        "deadline",
        "deadline_argument",
        "ending",
        "failed_looks",
        "failure",
        "grace",
        "notes",
    )

    def __init__(self, deadline: float | None, max_poll_failure_time: float) -> None:
        self._max_poll_failure_time = max_poll_failure_time
        self._failing_since: float | None = None
        self.grace = MISSING_TIME
        """Seconds after which an instance that was started certainly shows in the lists; whoever polls sets it."""
        self.deadline = deadline
        self.deadline_argument = "timeout"
        """The argument that set the deadline, for the error of a wait that is over then."""
        self.failed_looks = 0
        """How many polls have failed in a row."""
        self.failure: CallError | None = None
        """How the last of them has failed, while they do."""
        self.notes: list[Note] = []
        """What changed and was not logged yet."""
        self.ending: T | Exception | None = None
        """How the wait ended: its good end, or the error; ``None`` while it goes on."""

    @property
    def size(self) -> int:
        """How many instances each poll is about."""
        return 1

    def result(self) -> T:
        """Return the good end, or raise the error that the wait ended with."""
        ending = self.ended()
        if isinstance(ending, Exception):
            raise ending
        return ending

    def ended(self) -> T | Exception:
        """Return how the wait ended."""
        if self.ending is None:
            raise RuntimeError("the wait is not over")
        return self.ending

    def end(self, ending: T | Exception) -> None:
        """End the wait."""
        self.ending = ending

    def resume(self) -> None:
        """Go on after an error that has been dealt with."""
        self.ending = None
        self._polls_succeed()

    @property
    def known(self) -> Known:
        """What is known of the one instance that is waited for, besides its id."""
        return Known()

    def has_news(self) -> bool:
        """Return whether something came up that whoever waits has to deal with."""
        return bool(self.notes) or self.ending is not None

    def seek(self, sought: Sought) -> None:
        """Add what the wait looks for."""
        raise NotImplementedError

    def seconds_left(self, now: Moment) -> float | None:
        """Return after how many seconds the wait wants a poll at the latest: where its patience ends."""
        if self.ending is not None:
            return None
        ends = [] if self.deadline is None else [self.deadline - now.wall]
        if self._failing_since is not None:
            ends.append(self._failing_since + self._max_poll_failure_time - now.steady)
        return min(ends, default=None)

    def look_found(
        self, findings: Findings, began: float, now: Moment, connection: str | None = None
    ) -> None:
        """Take what a poll has found for this wait, or how it has failed for it.

        :param findings: what was found.
        :param began: when the poll began, by the steady clock.
        :param now: this moment.
        :param connection: the connection id for errors: several connections may share a poll.
        """
        said = len(self.notes)
        error = self._take(findings, began, now.steady)
        if error is None:
            if self._failing_since is not None:
                self.notes.insert(said, Note("Polls succeed again"))
            self._polls_succeed()
            self.check_deadline(now)
        elif self.ending is None:
            if connection not in (None, error.connection):
                error = copy(error)
                error.connection = connection
            self._fail_poll(error, began, now)

    def look_failed(self, error: CallError, began: float, now: Moment) -> None:
        """Take that nothing could be polled for this wait.

        :param error: why.
        :param began: when that was tried, by the steady clock.
        :param now: this moment.
        """
        self._fail_poll(error, began, now)

    def _fail_poll(self, error: CallError, began: float, now: Moment) -> None:
        self.failed_looks += 1
        self.failure = error
        if self._failing_since is None:
            self._failing_since = began
            if not isinstance(error, AuthenticationError):
                self._note(f"Polls fail from now on; the wait goes on. {error}", warning=True)
        stretch = now.steady - self._failing_since
        if isinstance(error, AuthenticationError):
            self.end(error)  # Asking again with the same credentials helps nobody.
        elif stretch >= self._max_poll_failure_time:
            last = copy(error)
            last.problem += f"; polls have failed for {stretch:.0f} s ('max_poll_failure_time')"
            self.end(last)
        self.check_deadline(now)

    def check_deadline(self, now: Moment) -> None:
        """End the wait if its time is up."""
        if self.ending is None and self.deadline is not None and now.wall >= self.deadline:
            self.end(self.timed_out(self.deadline, now))

    def timed_out(self, deadline: float, now: Moment) -> WaitTimeoutError:
        """Return the error for a deadline that has passed."""
        error = self._timed_out(deadline, now)
        if self._failing_since is not None:
            since = utc(now.wall_time_of(self._failing_since))
            error.problem += f"; polls have failed since {since}: {str(self.failure).removesuffix('.')}"
        return error

    def _timed_out(self, deadline: float, now: Moment) -> WaitTimeoutError:
        """Return this error without what is to be said of polls that fail."""
        raise NotImplementedError

    def _take(self, findings: Findings, began: float, now: float) -> CallError | None:
        """Judge what a poll has found, and return the error if it has failed for this wait, or for a part of it.

        :param began: when the poll began, by the steady clock.
        :param now: when it ended.
        """
        raise NotImplementedError

    def _polls_succeed(self) -> None:
        self._failing_since, self.failure, self.failed_looks = None, None, 0

    def _note(self, text: str, *, warning: bool = False) -> None:
        self.notes.append(Note(text, warning))


class Wait(AnyWait["BpmInstance"]):
    """One wait for one instance, which is its good end.

    :param condition: what to wait for.
    :param instance_id: the instance's id, where that is known.
    :param key: its business key, where it is not.
    :param seen: the instance as it was seen last, if it was.
    :param known: what else is known of it, so that no other instance is taken for it; by default what ``seen`` shows.

    The other parameters are those of ``AnyWait``.
    """

    __slots__ = ("_condition", "_key", "_known", "_missing_looks", "_missing_since", "instance_id", "seen")

    def __init__(
        self,
        condition: WaitCondition,
        *,
        instance_id: str | None = None,
        key: BusinessKey | None = None,
        seen: BpmInstance | None = None,
        known: Known | None = None,
        deadline: float | None = None,
        max_poll_failure_time: float = 600,
    ) -> None:
        super().__init__(deadline, max_poll_failure_time)
        self._condition = condition
        self._missing_since: float | None = None
        self._missing_looks = 0
        self.instance_id = seen.id if seen else instance_id
        self._key = key
        self.seen = seen
        known = known or Known()
        self._known = known.with_more(seen) if seen else known
        if seen:
            self._judge(seen)

    @property
    def key(self) -> BusinessKey:
        """The business key that the instance is sought by while its id is not known."""
        if self._key is None:
            raise RuntimeError("a wait is for an instance id or a business key")
        return self._key

    @property
    def known(self) -> Known:
        """What is known of the instance besides its id."""
        return self._known

    def seek(self, sought: Sought) -> None:
        """Add the instance's id, or its business key while the id is not known."""
        if self.instance_id is None:
            sought.keys.add(self.key)
        else:
            sought.ids[self.instance_id] = self.seen.state if self.seen else None

    def is_unsure(self) -> bool:
        """Return whether the last poll did not show the instance, though it should have."""
        return self.ending is None and (self._failing_since is not None or self._missing_since is not None)

    def _timed_out(self, deadline: float, now: Moment) -> WaitTimeoutError:
        sought = f"instance {self.instance_id!r}" if self.instance_id else f"an instance with {self._key}"
        error = WaitTimeoutError(sought, deadline, self.seen, argument=self.deadline_argument)
        if self._missing_since is not None:
            error.problem += (
                f"; it has been in none of the states since {utc(now.wall_time_of(self._missing_since))}"
            )
        return error

    def _take(self, findings: Findings, began: float, now: float) -> CallError | None:
        result: BpmInstance | AstroZeroError
        if self.instance_id is not None:
            result = findings.instance_or_error(self.instance_id)
        else:
            result = findings.carrier_or_error(self.key)
        if isinstance(result, CallError):
            return result
        if isinstance(result, InstanceNotFoundError):
            self._look_missed(result, now)
        elif isinstance(result, AstroZeroError):
            self.end(result)
        else:
            self._look_saw(result)
        return None

    def _look_missed(self, error: InstanceNotFoundError, now: float) -> None:
        if self.instance_id is None:
            if self._missing_looks == 0:
                self._note(f"{error.problem}; it may still be started")
            self._missing_looks += 1
            return
        if self._missing_since is None:
            self._missing_since = now
            self._note(f"{error.problem}; looking again", warning=True)
        self._missing_looks += 1
        if is_gone(self._missing_looks, now - self._missing_since, self.grace):
            self.end(error)

    def _look_saw(self, instance: BpmInstance) -> None:
        self._missing_since, self._missing_looks = None, 0
        if instance == self.seen:
            return
        if not self._known.is_of(instance):
            self.end(AnotherInstanceError(instance, self._known))
            return
        if str(instance) != str(self.seen):
            self._note(f"Now {instance}" if self.seen else f"Seen: {instance}")
        self.instance_id, self.seen = instance.id, instance
        self._known = self._known.with_more(instance)
        self._judge(instance)

    def _judge(self, instance: BpmInstance) -> None:
        verdict = self._condition.judge(instance)
        if verdict.outcome is Outcome.DONE:
            self.end(instance)
        elif verdict.outcome is Outcome.FAILED:
            self.end(WaitFailedError(instance, verdict.reason))


def is_gone(looks: int, seconds: float, grace: float) -> bool:
    """Return whether an instance counts as gone.

    :param looks: how many whole polls in a row did not show it.
    :param seconds: the time from the first to the last of them.
    :param grace: seconds after which an instance that was started certainly shows in the lists.
    """
    return looks >= MISSING_LOOKS and seconds >= max(MISSING_TIME, grace)
