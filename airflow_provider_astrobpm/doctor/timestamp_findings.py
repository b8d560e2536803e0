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


def is_plausible(ahead: timedelta) -> bool:
    """Return whether a timestamp of the present may be this far ahead of UTC in some time zone."""
    return abs(ahead) <= timestamps.ZONES + CLOCK_TOLERANCE


def assess(stamp: str, at: float) -> Literal["documented", "implausible", "unreadable"]:
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
    name, in_row = "start_time", "the row"
    shown = {"the start's answer": text(instance, "startTime"), in_row: text(row or {}, "startTime")}
    judged = {where: assess(stamp, begun) for where, stamp in shown.items() if stamp}
    if not judged and row is None:
        reason = "the start's answer has no startTime, and no list shows the instance"
        return Finding.unknown(name, reason, *seen)
    if not judged:
        words = f"neither the start's answer nor the row has one: {_CONSEQUENCE}"
        return Finding.known(name, "absent", words, *seen, fine=False)
    here = f"{datetime.fromtimestamp(begun, timezone.utc):%Y-%m-%d %H:%M:%S} UTC on this machine"
    flaws = {"unreadable": f"not {DOCUMENTED_FORMAT}", "implausible": f"when it was {here}"}
    for value, flaw in flaws.items():
        where = next((where for where, found in judged.items() if found == value), None)
        if where is not None:
            words = f"startTime of {where} is {shown[where]!r}, {flaw}: {_CONSEQUENCE}"
            return Finding.known(name, value, words, *seen, fine=False)
    if in_row not in judged:
        reason = "the start's answer has the documented format, but no row shows a start time"
        return Finding.unknown(name, reason, *seen)
    words = f"{DOCUMENTED_FORMAT}, and {shown[in_row]} is plausible by this machine's clock"
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
    zone = settings.timezone
    if zone is None:
        advice = "; set a zone with daylight saving time by its name"
        return Finding.known("timezone", hours, f"{words}{advice}", seen)
    fine = now.astimezone(zone).utcoffset() == offset
    verdict = f"which agrees with the connection's {zone}" if fine else f"but the connection has {zone}"
    return Finding.known("timezone", hours, f"{words}, {verdict}", seen, fine=fine)
