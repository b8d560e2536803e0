"""Sends the metrics of this provider, which ``client.metrics`` names, to Airflow's Stats, with the prefix ``astro_bpm.``.

Counts are buffered and passed to Airflow at most once a second, and when a task finishes its work with Astro Zero. Airflow
sends them as its section ``[metrics]`` says, over UDP or in a thread of its own. If a process is killed, its buffered counts
are lost.
"""

from __future__ import annotations

import logging
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_astrobpm.client import process_state
from airflow_provider_astrobpm.client.metrics import METRICS, NULL_METER, POLLS, BufferedMeter

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.client.metrics import Meter

log = logging.getLogger(__name__)

PREFIX = "astro_bpm."
FLUSH_INTERVAL_SECONDS = 1.0
SWITCHES = ("statsd_on", "statsd_datadog_enabled", "otel_on")  # options in Airflow's section [metrics]


class StatsMeter(BufferedMeter):
    """A meter that passes its counts to Airflow's Stats.

    :param clock: returns seconds on a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._flushed_at = clock()
        self._has_failed = False

    def count(self, name: str, amount: int = 1, **tags: str) -> None:
        """Add to a counter, and flush if the flush interval has passed."""
        super().count(name, amount, **tags)
        if self._clock() - self._flushed_at >= FLUSH_INTERVAL_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Pass the counts since the last flush and the current gauges to Airflow."""
        self._flushed_at = self._clock()
        self.flush_from(self)

    def flush_from(self, tally: BufferedMeter) -> None:
        """Pass the counts of a meter to Airflow."""
        counts, gauges = tally.take()
        if self._has_failed:
            return
        try:
            for (name, tags), amount in counts.items():
                self._pass_on("incr", name, amount, dict(tags))
            for name, value in gauges.items():
                self._pass_on("gauge", name, value, {"hostname": self._hostname})
        except Exception:  # a metric must never make a task or a triggerer fail
            self._has_failed = True
            log.warning(
                "Sending metrics to Airflow failed; this process sends no more metrics", exc_info=True
            )

    def prepare(self) -> None:
        """Make Airflow do now what it otherwise does at the first metric of a process: read files, and resolve the host name."""
        try:
            self._stats.timer(f"{PREFIX}{POLLS}")  # never started, so never sent
            _ = self._hostname
        except Exception:  # the next flush reports it
            log.debug("Metrics could not be prepared", exc_info=True)

    def _pass_on(self, method: str, name: str, value: int, tags: dict[str, str]) -> None:
        hand = getattr(self._stats, method)
        hand(f"{PREFIX}{name}", value, **({"tags": tags} if tags else {}))
        # As with Airflow's own metrics: StatsD has no tags, so a second metric has their value in its name.
        if tags and self._has_names_without_tags:
            variable = tags[METRICS[name].tag or ""].replace(".", "__")
            hand(f"{PREFIX}{name}.{variable}", value)

    @cached_property
    def _stats(self) -> Any:
        from airflow.providers.common.compat.sdk import Stats  # noqa: PLC0415 - where metrics are off it is not needed

        return Stats

    @cached_property
    def _hostname(self) -> str:
        from airflow.utils.net import get_hostname  # noqa: PLC0415

        return str(get_hostname())  # type: ignore[no-untyped-call]

    @cached_property
    def _has_names_without_tags(self) -> bool:
        return bool(conf.getboolean("metrics", "legacy_names_on", fallback=True))


METER = StatsMeter()
"""The meter of this process."""

process_state.register(METER.clear, after_fork=True)


def meter() -> Meter:
    """Return the meter of this process, or one that does nothing if Airflow's metrics are off."""
    return METER if is_enabled() else NULL_METER


def is_enabled() -> bool:
    """Return whether Airflow's metrics are on."""
    return any(conf.getboolean("metrics", switch, fallback=False) for switch in SWITCHES)


def flush_buffer(tally: BufferedMeter) -> None:
    """Pass counts to Airflow at once that were not counted with the meter of this process.

    :param tally: the counts.
    """
    if is_enabled():
        StatsMeter().flush_from(tally)


def prepare() -> None:
    """Prepare Airflow's metrics. Call it in a thread: otherwise the first metric would block the event loop."""
    if is_enabled():
        METER.prepare()
