"""Findings about timestamps: their format, their plausibility and their zone. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Literal

from airflow_provider_astrobpm.client import timestamps
from airflow_provider_astrobpm.doctor.findings import Finding
from airflow_provider_astrobpm.doctor.observation import text

if TYPE_CHECKING:
    from airflow_provider_astrobpm.client.settings import Settings
    from airflow_provider_astrobpm.doctor.observation import InstanceRow, Observation

CLOCK_TOLERANCE = timedelta(minutes=3)  # between a timestamp and a correct clock
OFFSET_STEP = timedelta(minutes=15)
DOCUMENTED_FORMAT = "YYYY-MM-DD HH:MM:SS"
_CONSEQUENCE = (
    "a retry cannot use it to exclude instances of older runs: a start whose answer is lost ends in AmbiguousStartError "
    "instead of being resumed"
)

TimestampQuality = Literal["documented", "implausible", "unreadable"]


def is_plausible(ahead: timedelta) -> bool:
    """Return whether a timestamp of the present may be this far ahead of UTC in some time zone."""
    return abs(ahead) <= timestamps.ZONES + CLOCK_TOLERANCE


def assess(stamp: str, at: float) -> TimestampQuality:
    """Return whether a start time is readable and plausible, by the rules of the search for a lost start.

    :param stamp: the start time that the server sent.
    :param at: when the instance started by this machine's clock, in seconds since the epoch.
    """
    if timestamps.read(stamp) is None:
        return "unreadable"
    return "documented" if timestamps.is_clock_credible([stamp], at) else "implausible"


def start_time_finding(
    instance: InstanceRow, row: InstanceRow | None, begun: float, *seen: Observation
) -> Finding:
    """Return whether the start time of a new instance has the documented format and is plausible.

    :param instance: the instance from the answer to the start.
    :param row: its row in a list, if a list shows it.
    :param begun: when it started by this machine's clock, in seconds since the epoch.
    """
    name = "start_time"
    shown = {"the start's answer": text(instance, "startTime"), "the row": text(row or {}, "startTime")}
    judged = {where: assess(stamp, begun) for where, stamp in shown.items() if stamp}
    if not judged:
        if row is None:
            return Finding.unknown(
                name, "the start's answer has no startTime, and no list shows the instance", *seen
            )
        return Finding.known(
            name,
            "absent",
            f"neither the start's answer nor the row has one: {_CONSEQUENCE}",
            *seen,
            fine=False,
        )
    for value in ("unreadable", "implausible"):
        where = next((where for where, found in judged.items() if found == value), None)
        if where is not None:
            what = f"startTime of {where} is {shown[where]!r}"
            words = (
                f"not {DOCUMENTED_FORMAT}"
                if value == "unreadable"
                else f"when it was {_utc(begun)} UTC on this machine"
            )
            return Finding.known(name, value, f"{what}, {words}: {_CONSEQUENCE}", *seen, fine=False)
    if "the row" not in judged:
        reason = "the start's answer has the documented format, but no row shows a start time"
        return Finding.unknown(name, reason, *seen)
    words = f"{DOCUMENTED_FORMAT}, and {shown['the row']} is plausible by this machine's clock"
    return Finding.known(name, "documented", words, *seen)


def timezone_finding(instance: InstanceRow, seen: Observation, settings: Settings) -> Finding:
    """Return the offset from UTC, given that the instance started when its start was answered."""
    stamp = timestamps.read(text(instance, "startTime"))
    if stamp is None:
        return Finding.unknown("timezone", f"startTime is {text(instance, 'startTime')!r}", seen)
    now = datetime.fromtimestamp(seen.server_time or seen.at, timezone.utc)
    ahead = stamp - now.replace(tzinfo=None)
    offset = round(ahead / OFFSET_STEP) * OFFSET_STEP
    if abs(ahead - offset) > CLOCK_TOLERANCE or not is_plausible(offset):
        reason = f"the instance started at {stamp}, when it was {now:%Y-%m-%d %H:%M:%S} UTC"
        return Finding.unknown("timezone", f"{reason}: no zone has this offset", seen)
    hours = offset / timedelta(hours=1)
    words = f"currently UTC{hours:+g} h: the instance started at {stamp}, when it was {now:%H:%M:%S} UTC"
    if settings.timezone is None:
        return Finding.known(
            "timezone", hours, f"{words}; set a zone with daylight saving time by its name", seen
        )
    if now.astimezone(settings.timezone).utcoffset() == offset:
        return Finding.known(
            "timezone", hours, f"{words}, which agrees with the connection's {settings.timezone}", seen
        )
    return Finding.known(
        "timezone", hours, f"{words}, but the connection has {settings.timezone}", seen, fine=False
    )


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, timezone.utc).replace(tzinfo=None, microsecond=0)
