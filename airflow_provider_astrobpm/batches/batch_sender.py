"""Sends the starts of a batch, many at a time, and each launch at most once. ``send_state`` decides what is sent when."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.batches.send_state import SendState
from airflow_provider_astrobpm.client import search
from airflow_provider_astrobpm.client.errors import CallError, SettingsError
from airflow_provider_astrobpm.client.log_note import LogNote
from airflow_provider_astrobpm.client.metrics import AMBIGUOUS_STARTS, STARTS
from airflow_provider_astrobpm.starting.lost_start import LostStart, recover_lost_starts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator

    from airflow_provider_astrobpm.batches.batch_decision import StartLaunch
    from airflow_provider_astrobpm.batches.batch_input import Launch
    from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
    from airflow_provider_astrobpm.client.search import EndpointTraits

PROGRESS_SECONDS = 5.0  # from one progress line to the next, at least


@dataclass
class BatchSender:
    """Sends the starts of launches.

    :param client: the client. Its ``max_attempts`` and ``max_wait`` apply to all launches together.
    :param rate_limit: the maximum number of starts per second; ``None`` for no limit.
    :param grace: seconds after which a started instance certainly shows in the lists.
    """

    client: AsyncBpmClient
    _: KW_ONLY
    max_concurrency: int = 16
    rate_limit: float | None = None
    grace: float = 60
    log: Callable[[LogNote], None]
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _began: float = 0.0
    _logged_at: float = 0.0
    _counted: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        settings = self.client.settings
        self.state = SendState(
            max_concurrency=self.max_concurrency,
            max_attempts=settings.max_attempts,
            max_wait=settings.max_wait,
            interval=1 / self.rate_limit if self.rate_limit else 0.0,
        )
        """What is known of the starts so far."""
        self.endpoint: EndpointTraits = search.traits_of_endpoint(settings.base_url)
        """What this process has learnt about the environment."""

    async def start(
        self,
        starts: Iterator[StartLaunch],
        total: int | None = None,
        *,
        preexisting_ids: Collection[str] | None = (),
    ) -> SendState:
        """Start all launches.

        :param starts: the launches and their keys. Each is taken when it is about to be sent.
        :param total: how many there are, for the log.
        :param preexisting_ids: the ids of preexisting instances with custom keys; ``None`` if unknown.
        :raises AmbiguousStartError: if it is unknown whether some launches were started.
        :raises CallError: if a call stopped the batch.
        :raises Exception: if ``starts`` raises it, after the pending starts have finished.
        """
        state = self.state
        state.total = total
        self._began = self._logged_at = self.clock()
        await asyncio.gather(*(self._work(starts) for _ in range(state.max_concurrency)))
        self._log_progress(last=True)
        if state.in_doubt:
            try:
                await self._recover(preexisting_ids)
            finally:
                self._count_starts()
        if state.stopped_by and (error := state.ending(is_input_over=lambda: next(starts, None) is None)):
            raise error
        return state

    async def _work(self, starts: Iterator[StartLaunch]) -> None:
        """Start one launch after the other."""
        try:
            for launch, key in starts:
                self.state.taken += 1
                while self.state.stopped_by is None and not await self._send(launch, key):
                    pass
                self._log_progress()
                if self.state.stopped_by is not None:
                    return
        except Exception as error:  # noqa: BLE001 - raised when the other workers have finished
            self.state.stop(error)

    async def _send(self, launch: Launch, key: str) -> bool:
        """Send the start of a launch when the pace allows it. Return whether the launch is finished."""
        state = self.state
        while (seconds := state.delay(self.clock())) > 0:
            await self.sleep(seconds)
            if state.stopped_by is not None:
                return False
        operation = launch.operation(key)
        sent_at = self.clock()
        state.sending(sent_at)
        try:
            instance = await self.client.call_once(operation)
        except CallError as error:
            pause = state.failed(launch, key, error, sent_at=sent_at, now=self.clock())
            if pause:
                self.log(LogNote(f"Sending no starts for {pause:.0f} s. {error}", warning=True))
            return pause is None
        except SettingsError:
            state.under_way -= 1
            raise
        state.succeeded(launch, instance)
        if warning := self.endpoint.learn_key(key, instance):
            self.log(LogNote(warning, warning=True))
        return True

    async def _recover(self, preexisting_ids: Collection[str] | None) -> None:
        """Find the instances of starts whose answers were lost, or raise the error for those that were not found."""
        in_doubt = self.state.in_doubt
        words = f"The answers to {len(in_doubt)} starts were lost; searching for their instances"
        self.log(LogNote(words, warning=True))
        recovery = await self.client.run(
            recover_lost_starts(
                {
                    key: LostStart(
                        launch.bpm_name,
                        is_ours_alone=preexisting_ids is not None or launch.business_key is None,
                    )
                    for key, (launch, _) in in_doubt.items()
                },
                grace=self.grace,
                posted_at=self._began,
                clock=self.clock,
                existing=frozenset(preexisting_ids or ()),
                form=self.endpoint.key_form,
            )
        )
        if error := self.state.recovered(recovery):
            raise error

    def _log_progress(self, *, last: bool = False) -> None:
        """Log the progress every few seconds."""
        now = self.clock()
        if now - self._logged_at < PROGRESS_SECONDS and not last:
            return
        self._logged_at = now
        self._count_starts()
        counts = self.state.counts
        started, total = len(counts.instances), counts.total
        done = started + counts.refused + counts.in_doubt
        rate = done / max(now - self._began, 0.001)
        left = "" if last or total is None or not done else f", about {(total - done) / rate:.0f} s left"
        refused = f", {counts.refused} refused" if counts.refused else ""
        of_all = "" if total is None else f" of {total}"
        self.log(LogNote(f"Started {started}{of_all}{refused}; {rate:.0f}/s{left}"))

    def _count_starts(self) -> None:
        """Count what is new in the metrics. One metrics call for each start would cost too much."""
        counts = self.state.counts
        for what, number in (
            (STARTS, len(counts.instances)),
            (AMBIGUOUS_STARTS, counts.in_doubt + counts.found),
        ):
            self.client.meter.count(what, number - self._counted[what])
            self._counted[what] = number
        self.client.flush_request_counts()
