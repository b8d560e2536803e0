"""The state of a batch while its starts are sent: it receives results, and says what is sent next and when. No I/O.

| the POST of a launch                            | so the instance      | and then                                         |
|-------------------------------------------------|----------------------|--------------------------------------------------|
| was answered with an instance                   | was started          |                                                  |
| never reached the server                        | was not started      | all starts pause; then it is resent              |
| was throttled                                   | probably was not     | all starts pause, as the server asks, up to      |
|                                                 |                      | `max_wait`; then it is resent                    |
| was refused                                     | probably was not     | the launch has failed; the others continue       |
| met refused credentials, or a TLS failure       | probably was not     | the batch stops                                  |
| anything else                                   | may be started       | it is searched for after all others are finished |

The batch also stops if pausing does not help, or if start after start is in doubt. A retry sends the starts that were not sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.batches import batch_account
from airflow_provider_astrobpm.batches.batch_account import BatchCounts, describe_launch
from airflow_provider_astrobpm.client import resend_policy
from airflow_provider_astrobpm.client.errors import CallError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.batches.batch_input import Launch
    from airflow_provider_astrobpm.client.errors import AmbiguousStartError
    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.starting.lost_start import Recovery

MIN_DOUBTS_TO_STOP = 5  # lost answers in a row before the batch stops, or max_concurrency if that is more


@dataclass(kw_only=True)
class SendState:
    """What is known of the starts of a batch.

    :param max_concurrency: the maximum number of concurrent starts.
    :param max_attempts: how often in a row the server may turn starts away.
    :param max_wait: the longest pause in seconds after that, even if ``Retry-After`` asks for more.
    :param interval: the minimum seconds from one start to the next.
    """

    max_concurrency: int
    max_attempts: int
    max_wait: float
    interval: float = 0.0
    total: int | None = None
    """The number of launches, if known."""
    instances: dict[int, BpmInstance] = field(default_factory=dict)
    """The started instances, by the numbers of their launches."""
    refused: dict[int, RefusedError] = field(default_factory=dict)
    """The refusals of the server, by the numbers of the launches."""
    taken: int = 0
    """The number of launches taken from the input."""
    under_way: int = 0
    """The number of starts being sent. A start that ends with an unexpected error stays among them."""
    has_reached_server: bool = False
    """Whether the server has answered a start, or may have received one."""
    is_unproven: bool = False
    """Whether a start with a custom key was refused or throttled: the server may have carried it out anyway."""
    in_doubt: dict[str, tuple[Launch, CallError]] = field(default_factory=dict)
    """The launches whose answers were lost, by business key, each with its error."""
    stopped_by: Exception | None = None
    """Why no more starts are sent."""
    _found: list[tuple[str, CallError]] = field(default_factory=list)
    _is_stopped_by_doubt: bool = False
    _next_at: float = 0.0
    _paused_at: float = 0.0
    _turned_away: int = 0
    _doubts_in_a_row: int = 0

    def stop(self, reason: Exception) -> None:
        """Send no more starts. Thread-safe."""
        # Any other reason says more than lost answers.
        if self.stopped_by is None or self._is_stopped_by_doubt:
            self.stopped_by, self._is_stopped_by_doubt = reason, False

    def delay(self, now: float) -> float:
        """Return the seconds until the next start may be sent."""
        return self._next_at - now

    def sending(self, now: float) -> None:
        """Note that a start is being sent."""
        self.under_way += 1
        if self.interval:
            self._next_at = now + self.interval

    def succeeded(self, launch: Launch, instance: BpmInstance) -> None:
        """Note the answer to a start."""
        self.under_way -= 1
        self.has_reached_server = True
        self.instances[launch.number] = instance
        self._turned_away = self._doubts_in_a_row = 0

    def failed(
        self, launch: Launch, key: str, error: CallError, *, sent_at: float, now: float
    ) -> float | None:
        """Note the failure of a start, by the table above.

        :returns: ``None`` if the start is not sent again. Otherwise the seconds of the pause that begins now; 0 if it has begun.
        """
        self.under_way -= 1
        if not error.never_reached:
            self.has_reached_server = True
            self.is_unproven = self.is_unproven or launch.business_key is not None
        if isinstance(error, RefusedError):
            self.refused[launch.number] = error
        elif error.was_processed is None:
            self.in_doubt[key] = launch, error
            self._doubts_in_a_row += 1
            are_too_many = self._doubts_in_a_row >= max(self.max_concurrency, MIN_DOUBTS_TO_STOP)
            if self.stopped_by is None and are_too_many:
                self.stopped_by, self._is_stopped_by_doubt = error, True
        elif resend_policy.may_resend(error):  # not a start in doubt
            return self._pause(error, sent_at, now)
        else:
            self.stop(error)
        return None

    def _pause(self, error: CallError, sent_at: float, now: float) -> float | None:
        if sent_at <= self._paused_at:
            return 0.0  # it was sent before the last pause
        self._turned_away += 1
        if self._turned_away >= self.max_attempts:
            self.stop(error)
            return None
        self._paused_at = now
        seconds = resend_policy.resend_pause(error, self._turned_away, max_wait=self.max_wait, now=now)
        self._next_at = max(self._next_at, now + seconds)
        return seconds

    def recovered(self, recovery: Recovery) -> AmbiguousStartError | None:
        """Note which of the starts in doubt were found. Return the error for those that were not."""
        for key, instance in recovery.instances.items():
            launch, failure = self.in_doubt.pop(key)
            self.instances[launch.number] = instance
            self._found.append((describe_launch(launch.number, launch.id, instance=instance.id), failure))
        if not self.in_doubt:
            return None
        return batch_account.in_doubt_error(self.counts, self.in_doubt, recovery.doubts)

    def ending(self, *, is_input_over: Callable[[], bool]) -> Exception | None:
        """Return the error with which the batch ends, if it has stopped.

        :param is_input_over: returns whether the input has no further launch.
        """
        error = self.stopped_by
        has_ended = len(self.instances) + len(self.refused) == self.taken
        if self._is_stopped_by_doubt and has_ended and is_input_over():
            return None  # every launch has an instance, or was refused
        if isinstance(error, CallError):
            batch_account.add_counts(self.counts, error, self._found if self._is_stopped_by_doubt else ())
        return error

    @property
    def counts(self) -> BatchCounts:
        """The launches, counted by outcome."""
        return BatchCounts(
            self.total,
            self.instances,
            found=len(self._found),
            refused=len(self.refused),
            in_doubt=len(self.in_doubt),
        )
