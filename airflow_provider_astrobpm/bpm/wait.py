"""One wait: what it has seen, what each further look means for it, and when it wants the next.

A wait keeps the books and decides; it knows neither the server nor the clock. ``AnyWait`` is what it is to those who
look for it, ``Wait`` the one for one instance. The plans in ``look`` run one wait for a worker that holds its thread,
the poller runs any number of them for the triggerer, and both end alike.

A look that fails is not a wait that fails: the wait goes on until looks have failed for a whole stretch, and a failed
look never changes anything at Astro Zero. What is in none of the states counts as gone only after several whole looks
and a while.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from airflow_provider_astrobpm.bpm.condition import Outcome
from airflow_provider_astrobpm.bpm.errors import (
    AuthenticationError,
    CallError,
    InstanceNotFoundError,
    SeveralInstancesError,
    WaitFailedError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from airflow_provider_astrobpm.bpm.condition import WaitCondition
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.search import BusinessKey, Findings, Sought

T = TypeVar("T")

MISSING_LOOKS = 3  # whole looks in a row that find nothing, and
MISSING_TIME = 60.0  # seconds from the first to the last of them, after which an instance is gone


class Note(NamedTuple):
    """Something that changed, for the log."""

    text: str
    warning: bool = False

    def write_to(self, log: Any) -> None:
        """Write it to a log, of Python's own or like one."""
        (log.warning if self.warning else log.info)(self.text)


class AnyWait(Generic[T]):
    """A wait as those who look for it know it: what it looks for, and how it bears with looks that fail.

    :param deadline: when the wait fails, in seconds since the epoch; ``None`` for never.
    :param max_poll_failure_time: seconds for which looks may fail in a row.
    """

    __slots__ = (
        "_failing_since",
        "_max_poll_failure_time",
        "deadline",
        "deadline_argument",
        "ending",
        "failed_looks",
        "notes",
    )

    def __init__(self, deadline: float | None, max_poll_failure_time: float) -> None:
        self._max_poll_failure_time = max_poll_failure_time
        self._failing_since: float | None = None
        self.deadline = deadline
        self.deadline_argument = "timeout"
        """The argument that set the deadline, for the error of a wait that is over then."""
        self.failed_looks = 0
        """How many looks have failed in a row."""
        self.notes: list[Note] = []
        """What changed and was not logged yet."""
        self.ending: T | Exception | None = None
        """How the wait ended: its good end, or the error; ``None`` while it goes on."""

    @property
    def size(self) -> int:
        """How many instances each look is about."""
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
        self.ending, self._failing_since, self.failed_looks = None, None, 0

    def has_news(self) -> bool:
        """Tell whether something came up that whoever waits has to deal with."""
        return bool(self.notes) or self.ending is not None

    def seek(self, sought: Sought) -> None:
        """Add what the wait looks for."""
        raise NotImplementedError

    def next_look_by(self) -> float | None:
        """Return when the wait wants a look at the latest, in seconds since the epoch: where its patience ends."""
        if self.ending is not None:
            return None
        ends = [] if self.deadline is None else [self.deadline]
        if self._failing_since is not None:
            ends.append(self._failing_since + self._max_poll_failure_time)
        return min(ends, default=None)

    def look_found(self, findings: Findings, now: float) -> None:
        """Take what a look has found."""
        if self._failing_since is not None:
            self._note("Polls succeed again")
        self._failing_since, self.failed_looks = None, 0
        self._take(findings, now)
        self.check_deadline(now)

    def look_failed(self, error: CallError, began: float, now: float) -> None:
        """Take that a look which began then failed."""
        self.failed_looks += 1
        if self._failing_since is None:
            self._failing_since = began
            if not isinstance(error, AuthenticationError):
                self._note(f"Polls fail from now on; the wait goes on. {error}", warning=True)
        stretch = now - self._failing_since
        if isinstance(error, AuthenticationError):
            self.end(error)  # Asking again with the same credentials helps nobody.
        elif stretch >= self._max_poll_failure_time:
            last = copy(error)
            last.problem += f"; polls have failed for {stretch:.0f} s ('max_poll_failure_time')"
            self.end(last)
        self.check_deadline(now)

    def check_deadline(self, now: float) -> None:
        """End the wait if its time is up."""
        if self.ending is None and self.deadline is not None and now >= self.deadline:
            self.end(self.timed_out(self.deadline))

    def timed_out(self, deadline: float) -> WaitTimeoutError:
        """Return the error for a deadline that has passed."""
        raise NotImplementedError

    def _take(self, findings: Findings, now: float) -> None:
        """Judge what a look has found."""
        raise NotImplementedError

    def _note(self, text: str, *, warning: bool = False) -> None:
        self.notes.append(Note(text, warning))


class Wait(AnyWait["BpmInstance"]):
    """One wait for one instance, which is its good end.

    :param condition: what to wait for.
    :param instance_id: the instance's id, where that is known.
    :param key: its business key, where it is not.
    :param seen: the instance as it was seen last, if it was.

    The other parameters are those of ``AnyWait``.
    """

    __slots__ = ("_condition", "_key", "_missing_looks", "_missing_since", "instance_id", "seen")

    def __init__(
        self,
        condition: WaitCondition,
        *,
        instance_id: str | None = None,
        key: BusinessKey | None = None,
        seen: BpmInstance | None = None,
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
        if seen:
            self._judge(seen)

    @property
    def key(self) -> BusinessKey:
        """The business key that the instance is sought by while its id is not known."""
        if self._key is None:
            raise RuntimeError("a wait is for an instance id or a business key")
        return self._key

    def seek(self, sought: Sought) -> None:
        """Add the instance's id, or its business key while the id is not known."""
        if self.instance_id is None:
            sought.keys.add(self.key)
        else:
            sought.ids[self.instance_id] = self.seen.state if self.seen else None

    def is_unsure(self) -> bool:
        """Tell whether the last look did not show the instance, though it should have."""
        return self.ending is None and (self._failing_since is not None or self._missing_since is not None)

    def timed_out(self, deadline: float) -> WaitTimeoutError:
        """Return the error for a deadline that has passed."""
        sought = f"instance {self.instance_id!r}" if self.instance_id else f"an instance with {self._key}"
        return WaitTimeoutError(sought, deadline, self.seen, argument=self.deadline_argument)

    def _take(self, findings: Findings, now: float) -> None:
        try:
            if self.instance_id is not None:
                instance = findings.instance(self.instance_id)
            else:
                instance = findings.carrier(self.key)
        except InstanceNotFoundError as error:
            self._look_missed(error, now)
        except SeveralInstancesError as error:
            self.end(error)
        else:
            self._look_saw(instance)

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
        if is_gone(self._missing_looks, now - self._missing_since):
            self.end(error)

    def _look_saw(self, instance: BpmInstance) -> None:
        self._missing_since, self._missing_looks = None, 0
        if instance == self.seen:
            return
        if str(instance) != str(self.seen):
            self._note(f"Now {instance}" if self.seen else f"Seen: {instance}")
        self.instance_id, self.seen = instance.id, instance
        self._judge(instance)

    def _judge(self, instance: BpmInstance) -> None:
        verdict = self._condition.judge(instance)
        if verdict.outcome is Outcome.DONE:
            self.end(instance)
        elif verdict.outcome is Outcome.FAILED:
            self.end(WaitFailedError(instance, verdict.reason))


def is_gone(looks: int, seconds: float) -> bool:
    """Tell whether an instance counts as gone.

    :param looks: how many whole looks in a row did not show it.
    :param seconds: the time from the first to the last of them.
    """
    return looks >= MISSING_LOOKS and seconds >= MISSING_TIME
