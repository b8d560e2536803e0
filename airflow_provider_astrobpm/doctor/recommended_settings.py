"""Connection extras that follow from the findings of a report. An unknown finding sets nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_astrobpm.client.settings import Settings
    from airflow_provider_astrobpm.doctor.findings import Finding

GRACE_LAG_FACTOR = 2  # the grace must be at least this many times the observed lag
FIXED_OFFSET_HOURS = range(-12, 15)  # offsets that have a zone in Etc/


def recommended_extras(findings: Mapping[str, Finding], settings: Settings) -> dict[str, Any]:
    """Return the extras to set, in the format of the connection.

    :param findings: the findings by name.
    :param settings: the current settings of the connection; a zone that fits is kept.
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
    """Return whether the connection's ``start_grace`` is long enough for an observed lag.

    :param lag: seconds until a new instance was visible in the lists.
    """
    return lag * GRACE_LAG_FACTOR <= settings.start_grace


def _zone(finding: Finding, settings: Settings) -> str | None:
    """Return a zone with the observed offset; ``None`` for an offset with a fraction of an hour, which no ``Etc/`` zone has."""
    if settings.timezone is not None and finding.fine:
        return str(settings.timezone)
    if not isinstance(finding.value, (int, float)) or finding.value not in FIXED_OFFSET_HOURS:
        return None
    hours = int(finding.value)
    return f"Etc/GMT{-hours:+d}" if hours else "Etc/UTC"  # these names have the opposite sign
