"""Sends the starts of a batch, many at a time, and each launch at most once.

| the POST of a launch                            | so the instance      | and then                                         |
|-------------------------------------------------|----------------------|--------------------------------------------------|
| was answered with an instance                   | was started          |                                                  |
| never reached the server                        | was not started      | all starts pause; then it is resent              |
| was throttled                                   | probably was not     | all starts pause, as the server asks, up to      |
|                                                 |                      | `max_wait`; then it is resent                    |
| was refused                                     | probably was not     | the launch has failed; the others continue       |
| met refused credentials, or a TLS failure       | probably was not     | the batch stops                                  |
| anything else                                   | may be started       | it is searched for after all others are finished |

The batch also stops if pausing does not help, or if start after start is in doubt. A retry sends the starts that were not
sent. The error for a stopped batch counts the launches by outcome.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.batches import batch_account
from airflow_provider_astrobpm.batches.batch_account import BatchCounts, DoubtfulStart, describe_launch
from airflow_provider_astrobpm.client import resend_policy
from airflow_provider_astrobpm.client.errors import CallError, RefusedError, SettingsError
from airflow_provider_astrobpm.client.log_note import LogNote
from airflow_provider_astrobpm.client.metrics import AMBIGUOUS_STARTS, STARTS
from airflow_provider_astrobpm.starting.lost_start import LostStart, recover_lost_starts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator

    from airflow_provider_astrobpm.batches.batch_decision import StartLaunch
    from airflow_provider_astrobpm.batches.batch_input import Launch
    from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.search import EndpointTraits

PROGRESS_SECONDS = 5.0  # from one progress line to the next, at least
MIN_DOUBTS_TO_STOP = 5  # lost answers in a row before the batch stops, or max_concurrency if that is more


@dataclass
class StartedLaunches:
    """The results of the starts.

    :param instances: the started instances, by the numbers of their launches.
    :param refused: the refusals of the server, by the numbers of the launches.
    """

    instances: dict[int, BpmInstance] = field(default_factory=dict)
    refused: dict[int, RefusedError] = field(default_factory=dict)


class BatchSender:
    """Sends the starts of launches.

    :param client: the client. Its ``max_attempts`` and ``max_wait`` apply to all launches together: how often in a row the
        server may turn starts away, and the longest pause in seconds after that, even if ``Retry-After`` asks for more.
    :param max_concurrency: the maximum number of concurrent starts.
    :param rate_limit: the maximum number of starts per second; ``None`` for no limit.
    :param grace: seconds after which a started instance certainly shows in the lists.
    :param endpoint: what this process has learnt about the environment.
    :param log: receives notes for the task log.
    :param clock: returns the time, in seconds since the epoch.
    :param sleep: sleeps for a number of seconds.
    """

    def __init__(
        self,
        client: AsyncBpmClient,
        *,
        max_concurrency: int = 16,
        rate_limit: float | None = None,
        grace: float = 60,
        endpoint: EndpointTraits,
        log: Callable[[LogNote], None],
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._max_concurrency = max_concurrency
        self._interval = 1 / rate_limit if rate_limit else 0.0
        self._grace = grace
        self._endpoint = endpoint
        self._preexisting_ids: frozenset[str] | None = frozenset()
        self._log = log
        self._clock = clock
        self._sleep = sleep
        self.started = StartedLaunches()
        """The results so far."""
        self.under_way = 0
        """The number of starts being sent. A start that ends with an unexpected error stays among them."""
        self.has_reached_server = False
        """Whether the server has answered a start, or may have received one."""
        self.is_unproven = False
        """Whether a start with a custom key was refused or throttled: the server may have carried it out anyway."""
        self._in_doubt: dict[str, tuple[Launch, CallError]] = {}
        self._found: list[tuple[str, CallError]] = []
        self._taken = 0
        self._stopped_by: Exception | None = None
        self._is_stopped_by_doubt = False
        self._next_at = 0.0
        self._paused_at = 0.0
        self._turned_away = 0
        self._doubts_in_a_row = 0
        self._began = 0.0
        self._logged_at = 0.0
        self._counted = 0

    @property
    def is_in_doubt(self) -> bool:
        """Whether an instance may have been started that was not found."""
        return bool(self._in_doubt) or self.under_way > 0

    def stop(self, reason: Exception) -> None:
        """Send no more starts. ``start`` raises the reason once the pending ones are answered. Thread-safe."""
        if (
            self._stopped_by is None or self._is_stopped_by_doubt
        ):  # any other reason says more than lost answers
            self._stopped_by, self._is_stopped_by_doubt = reason, False

    async def start(
        self,
        starts: Iterator[StartLaunch],
        total: int | None = None,
        *,
        preexisting_ids: Collection[str] | None = (),
    ) -> StartedLaunches:
        """Start all launches.

        :param starts: the launches and their keys. Each is taken when it is about to be sent.
        :param total: how many there are, for the log.
        :param preexisting_ids: the ids of preexisting instances with custom keys; ``None`` if unknown.
        :raises AmbiguousStartError: if it is unknown whether some launches were started.
        :raises CallError: if a call stopped the batch.
        :raises Exception: if ``starts`` raises it, after the pending starts have finished.
        """
        self._preexisting_ids = None if preexisting_ids is None else frozenset(preexisting_ids)
        self._began = self._logged_at = self._clock()
        await asyncio.gather(*(self._work(starts, total) for _ in range(self._max_concurrency)))
        self._log_progress(total, last=True)
        if self._in_doubt:
            try:
                await self._recover(total)
            finally:
                self._count_starts()
        if self._stopped_by is not None and not (self._is_stopped_by_doubt and self._is_finished(starts)):
            if isinstance(self._stopped_by, CallError):
                lost = self._found if self._is_stopped_by_doubt else ()
                batch_account.add_counts(self._account(total), self._stopped_by, lost)
            raise self._stopped_by
        return self.started

    def _is_finished(self, starts: Iterator[StartLaunch]) -> bool:
        """Return whether every launch has an instance, or was refused."""
        ended = len(self.started.instances) + len(self.started.refused)
        return ended == self._taken and next(starts, None) is None

    def _account(self, total: int | None) -> BatchCounts:
        return BatchCounts(
            total,
            self.started.instances,
            found=len(self._found),
            refused=len(self.started.refused),
            in_doubt=len(self._in_doubt),
        )

    async def _work(self, starts: Iterator[StartLaunch], total: int | None) -> None:
        """Start one launch after the other."""
        try:
            for launch, key in starts:
                self._taken += 1
                while self._stopped_by is None and not await self._send(launch, key):
                    pass
                self._log_progress(total)
                if self._stopped_by is not None:
                    return
        except Exception as error:  # noqa: BLE001 - raised when the other workers have finished
            self.stop(error)

    async def _send(self, launch: Launch, key: str) -> bool:
        """Send the start of a launch when the pace allows it. Return whether the launch is finished."""
        while (seconds := self._next_at - self._clock()) > 0:
            await self._sleep(seconds)
            if self._stopped_by is not None:
                return False
        sent_at = self._clock()
        if self._interval:
            self._next_at = sent_at + self._interval
        operation = launch.operation(key)
        self.under_way += 1
        try:
            instance = await self._client.call_once(operation)
        except CallError as error:
            self.under_way -= 1
            return self._handle_failure(launch, key, error, sent_at)
        except SettingsError:
            self.under_way -= 1
            raise
        self.under_way -= 1
        self.has_reached_server = True
        self.started.instances[launch.number] = instance
        self._turned_away = self._doubts_in_a_row = 0
        if warning := self._endpoint.learn_key(key, instance):
            self._log(LogNote(warning, warning=True))
        return True

    def _handle_failure(self, launch: Launch, key: str, error: CallError, sent_at: float) -> bool:
        """Handle the failed start of a launch by the table above. Return whether the launch is finished."""
        if not error.never_reached:
            self.has_reached_server = True
            self.is_unproven = self.is_unproven or launch.business_key is not None
        if isinstance(error, RefusedError):
            self.started.refused[launch.number] = error
        elif error.was_processed is None:
            self._doubt(launch, key, error)
        elif resend_policy.may_resend(error, resend_if_in_doubt=False):
            self._pause_all(error, sent_at)
            return False
        else:
            self.stop(error)
            return False
        return True

    def _pause_all(self, error: CallError, sent_at: float) -> None:
        """Pause all starts because the server turned one away. Starts sent before the last pause do not count."""
        if sent_at <= self._paused_at:
            return
        self._turned_away += 1
        if self._turned_away >= self._client.settings.max_attempts:
            self.stop(error)
            return
        now = self._paused_at = self._clock()
        seconds = resend_policy.resend_pause(
            error, self._turned_away, max_wait=self._client.settings.max_wait, now=now
        )
        self._next_at = max(self._next_at, now + seconds)
        self._log(LogNote(f"Sending no starts for {seconds:.0f} s. {error}", warning=True))

    def _doubt(self, launch: Launch, key: str, error: CallError) -> None:
        self._in_doubt[key] = launch, error
        self._client.meter.count(AMBIGUOUS_STARTS)
        self._doubts_in_a_row += 1
        if (
            self._doubts_in_a_row >= max(self._max_concurrency, MIN_DOUBTS_TO_STOP)
            and self._stopped_by is None
        ):
            self._stopped_by, self._is_stopped_by_doubt = error, True

    async def _recover(self, total: int | None) -> None:
        """Find the instances of starts whose answers were lost. Search for as long as they may take to show.

        :raises AmbiguousStartError: if some were not found.
        """
        self._log(
            LogNote(
                f"The answers to {len(self._in_doubt)} starts were lost; searching for their instances",
                warning=True,
            )
        )
        others_may_use_keys = self._preexisting_ids is None
        recovery = await self._client.run(
            recover_lost_starts(
                {
                    key: LostStart(
                        launch.bpm_name,
                        is_ours_alone=not (others_may_use_keys and launch.business_key is not None),
                    )
                    for key, (launch, _) in self._in_doubt.items()
                },
                grace=self._grace,
                posted_at=self._began,
                clock=self._clock,
                existing=self._preexisting_ids or (),
                form=self._endpoint.key_form,
            )
        )
        for key, instance in recovery.instances.items():
            launch, failure = self._in_doubt.pop(key)
            self.started.instances[launch.number] = instance
            self._found.append((describe_launch(launch.number, launch.id, instance=instance.id), failure))
        if self._in_doubt:
            doubts = [
                DoubtfulStart(
                    describe_launch(launch.number, launch.id, business_key=key),
                    key,
                    failure,
                    recovery.doubts[key],
                )
                for key, (launch, failure) in self._in_doubt.items()
            ]
            raise batch_account.in_doubt_error(self._account(total), doubts) from doubts[0].error

    def _log_progress(self, total: int | None, *, last: bool = False) -> None:
        """Log the progress every few seconds."""
        now = self._clock()
        if now - self._logged_at < PROGRESS_SECONDS and not last:
            return
        self._logged_at = now
        self._count_starts()
        done = len(self.started.instances) + len(self.started.refused) + len(self._in_doubt)
        rate = done / max(now - self._began, 0.001)
        left = "" if last or total is None or not done else f", about {(total - done) / rate:.0f} s left"
        refused = f", {len(self.started.refused)} refused" if self.started.refused else ""
        of_all = "" if total is None else f" of {total}"
        self._log(LogNote(f"Started {len(self.started.instances)}{of_all}{refused}; {rate:.0f}/s{left}"))

    def _count_starts(self) -> None:
        """Count the new starts in the metrics. One metrics call for each start would cost too much."""
        more = len(self.started.instances) - self._counted
        self._counted += more
        self._client.meter.count(STARTS, more)
        self._client.flush_request_counts()
