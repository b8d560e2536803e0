"""Which extras of the connection follow from the points of a report. What was not told sets nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_astrobpm.bpm.settings import Settings
    from airflow_provider_astrobpm.doctor.findings import Finding

GRACE_LAG_FACTOR = 2  # as many times the lag that was seen has the grace to be
FIXED_OFFSET_HOURS = range(-12, 15)  # hours for which there is a zone of a fixed offset


def recommended_extras(findings: Mapping[str, Finding], settings: Settings) -> dict[str, Any]:
    """Return the extras to set, as the connection takes them.

    :param points: the points by their names.
    :param settings: what the connection says now; a zone that fits stays.
    """
    values = {name: finding.value for name, finding in findings.items() if finding.value is not None}
    extras: dict[str, Any] = {}
    if (by_id := values.get("get_by_id")) is not None:
        extras["instance_lookup"] = "auto" if by_id in ("action", "row") else "list"
    if (csrf := values.get("csrf")) is not None:
        extras["csrf"] = csrf == "needed"
    if "timezone" in values and (zone := _zone(findings["timezone"], settings)):
        extras["timezone"] = zone
    lag = values.get("start_lag")
    if isinstance(lag, (int, float)) and not is_within_grace(lag, settings):
        extras["start_grace"] = math.ceil(lag * GRACE_LAG_FACTOR)
    return extras


def is_within_grace(lag: float, settings: Settings) -> bool:
    """Tell whether the connection's grace is long enough for a lag that was seen.

    :param lag: seconds after which a new instance showed in the lists.
    """
    return lag * GRACE_LAG_FACTOR <= settings.start_grace


def _zone(finding: Finding, settings: Settings) -> str | None:
    """Return a zone of the offset that was seen; there is none by an offset of part of an hour."""
    if settings.timezone is not None and finding.fine:
        return str(settings.timezone)
    if not isinstance(finding.value, (int, float)) or finding.value not in FIXED_OFFSET_HOURS:
        return None
    hours = int(finding.value)
    return f"Etc/GMT{-hours:+d}" if hours else "Etc/UTC"  # the sign of these names is turned round
