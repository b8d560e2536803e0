"""The metrics of this provider in Airflow's own: what ``bpm.meter`` names, under ``astro_bpm.`` in Airflow's Stats.

They are added up here and handed to Airflow at most once a second, and at the end of a task's work with Astro Zero.
Airflow sends them where its section ``[metrics]`` says: over UDP, or in a thread of its own. What a process has not handed
over when it is killed is lost.
"""

from __future__ import annotations

import logging
import os
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_astrobpm.bpm.meter import METRICS, NO_METER, POLLS, Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.bpm.meter import Meter, Tags

log = logging.getLogger(__name__)

PREFIX = "astro_bpm."
INTERVAL = 1.0  # seconds for which counts are added up
SWITCHES = ("statsd_on", "statsd_datadog_enabled", "otel_on")  # of Airflow's section [metrics]


class StatsMeter(Tally):
    """A meter that hands over to Airflow's Stats.

    :param clock: seconds on a clock that only goes forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._handed_over_at = clock()
        self._has_failed = False

    def count(self, name: str, amount: int = 1, **tags: str) -> None:
        """Add to a counter, and hand all over when it is time."""
        super().count(name, amount, **tags)
        if self._clock() - self._handed_over_at >= INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Hand over what was counted since the last time, and the gauges as they are."""
        self._handed_over_at = self._clock()
        self._hand_over_all(*self.take())

    def take_over(self, tally: Tally) -> None:
        """Hand over what another one has counted."""
        self._hand_over_all(*tally.take())

    def _hand_over_all(self, counts: dict[tuple[str, Tags], int], gauges: dict[str, int]) -> None:
        if self._has_failed:
            return
        try:
            for (name, tags), amount in counts.items():
                self._hand_over("incr", name, amount, dict(tags))
            for name, value in gauges.items():
                self._hand_over("gauge", name, value, {"hostname": self._hostname})
        except Exception:  # a metric must never be what a task or a triggerer fails over
            self._has_failed = True
            log.warning("Metrics could not be handed to Airflow, and are no more", exc_info=True)

    def prepare(self) -> None:
        """Let Airflow do what it does for the first metric of a process: it reads files, and looks a host name up."""
        try:
            self._stats.timer(f"{PREFIX}{POLLS}")  # is never started, and so never sent
            _ = self._hostname
        except Exception:  # it is told by whoever hands something over
            log.debug("Metrics could not be prepared", exc_info=True)

    def _hand_over(self, method: str, name: str, value: int, tags: dict[str, str]) -> None:
        hand = getattr(self._stats, method)
        hand(f"{PREFIX}{name}", value, **({"tags": tags} if tags else {}))
        # As Airflow does for its own: StatsD knows no tags, so what they tell is in a second name too.
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

os.register_at_fork(after_in_child=METER.clear)


def meter() -> Meter:
    """Return the meter of this process; one that does nothing where Airflow has no metrics."""
    return METER if are_on() else NO_METER


def are_on() -> bool:
    """Tell whether Airflow has metrics."""
    return any(conf.getboolean("metrics", switch, fallback=False) for switch in SWITCHES)


def hand_over(tally: Tally) -> None:
    """Hand over at once what was counted apart from the meter of this process.

    :param tally: the counts.
    """
    if are_on():
        StatsMeter().take_over(tally)


def prepare() -> None:
    """Do in a thread what would otherwise hold the event loop up at the first metric."""
    if are_on():
        METER.prepare()
