"""``BpmInstance``: one model for the two shapes in which Astro Zero sends an instance.

A start or an action answers with one object (API pages 0069 and 0071), a query with rows (0070). The names differ
(``interviewLabel``/``label``, ``nextElem``/``curElement``), and each shape lacks fields that the other has. Fields that this
package does not use are not declared, so they cost nothing and break nothing. ``wire`` reads both shapes.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_astrobpm.client import states

if TYPE_CHECKING:
    from datetime import tzinfo

ROW_FIELDS = {
    "id": "id",
    "name": "name",
    "version": "version",
    "label": "label",
    "title": "title",
    "state": "state",
    "suspended": "suspended",
    "bpStatus": "bp_status",
    "curElement": "current_element",
    "businessKey": "business_key",
    "startTime": "start_time",
    "endTime": "end_time",
}
"""The columns that ``BpmInstance`` needs of a query row, each with its field. All are documented (API page 0070)."""


class BpmInstance(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of a BPM instance. A text that Astro Zero leaves blank is ``None``."""

    id: str
    name: str
    state: str
    """One of the twelve documented states, or an unknown name."""
    version: str | None = None
    bp_status: str | None = None
    """The business status, free text that the model sets."""
    task_outcome: str | None = None
    """The outcome of the last user task. Only the answers to starts and actions have it."""
    suspended: bool = False
    is_closed: bool = False
    """Whether the instance has ended, by Astro Zero's own flag or by its state."""
    business_key: str | None = None
    label: str | None = None
    title: str | None = None
    current_element: str | None = None
    start_time: str | None = None
    """As sent: ``YYYY-MM-DD HH:MM:SS`` in a time zone that the API does not state."""
    end_time: str | None = None

    def as_dict(self, *, url: str | None = None, timezone: tzinfo | None = None) -> dict[str, Any]:
        """Return the plain dict that tasks return (XCom).

        :param url: the URL of the instance's page, if there is one.
        :param timezone: the time zone of the API's timestamps. ``start_time`` and ``end_time`` are always copied unchanged.
            ``start_time_utc`` and ``end_time_utc`` are set only if the time zone is known.
        """
        return {
            "id": self.id,
            "name": self.name,
            "version": self.version,
            "state": self.state,
            "bp_status": self.bp_status,
            "task_outcome": self.task_outcome,
            "suspended": self.suspended,
            "is_closed": self.is_closed,
            "business_key": self.business_key,
            "start_time": self.start_time,
            "end_time": self.end_time,
            "start_time_utc": _in_utc(self.start_time, timezone),
            "end_time_utc": _in_utc(self.end_time, timezone),
            "url": url,
        }

    def shown_states(self) -> frozenset[str]:
        """Return its state, plus ``Suspended`` if an open instance shows that only by its flag."""
        held = self.suspended and not self.is_closed and self.state in states.STATES
        return frozenset((self.state, states.SUSPENDED) if held else (self.state,))

    def __str__(self) -> str:
        status = f", business status {self.bp_status!r}" if self.bp_status else ""
        held = ", suspended" if self.suspended else ""
        return f"instance {self.id!r} of {self.name!r} in state {self.state!r}{status}{held}"


def _in_utc(stamp: str | None, zone: tzinfo | None) -> str | None:
    """Convert a timestamp to UTC, as ISO 8601. Return ``None`` if the result is not certain."""
    if stamp is None or zone is None:
        return None
    try:
        local = datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S").replace(tzinfo=zone)
        # When clocks are put back, one hour occurs twice, and the timestamp may mean either.
        moments = {local.replace(fold=fold).astimezone(timezone.utc) for fold in (0, 1)}
    except (ValueError, OverflowError):
        return None
    return moments.pop().isoformat() if len(moments) == 1 else None
