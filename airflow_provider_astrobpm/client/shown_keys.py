"""Decides whether lists show business keys. Pure.

It is undocumented whether rows show the business key that a start set. An instance without a key shows its id in that place,
or nothing. If the rows of an endpoint show no key at all, a search by key cannot work there and must say so.

An empty list proves nothing. If a BPM is named, only its own rows count: other BPMs without keys prove nothing either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm.client.errors import KeysNotShownError
from airflow_provider_astrobpm.client.wire import unreadable_in

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from airflow_provider_astrobpm.client.instance import BpmInstance


class ShownKeys:
    """Collects whether the rows of lists show business keys."""

    def __init__(self, *, shows_any: bool = False) -> None:
        self.shows_any = shows_any
        """Whether a row of this endpoint shows a business key, or an unreadable row may."""
        self.is_proven = False
        """Whether a readable row shows a business key."""
        self._names: dict[str, str] = {}

    def add_list(self, rows: Sequence[BpmInstance]) -> None:
        """Add the rows of a list."""
        for row in rows:
            if row.business_key in (None, row.id):
                self._names[row.id] = row.name
            else:
                self.shows_any = self.is_proven = True
        for odd in unreadable_in(rows):
            if "businessKey" in odd.unread or odd.business_key not in (None, odd.id):
                self.shows_any = True

    def has_keyless(self, bpm_names: Collection[str] | None) -> bool:
        """Return whether a row of these BPMs, or with ``None`` of any, shows no business key."""
        return bool(self._names if bpm_names is None else set(self._names.values()).intersection(bpm_names))

    def why_not_found(self, business_key: str, bpm_name: str | None) -> KeysNotShownError | None:
        """Return the error for a search by business key that cannot work here, or ``None`` if it can."""
        if self.shows_any or not self.has_keyless(None if bpm_name is None else [bpm_name]):
            return None
        return KeysNotShownError(business_key, bpm_name, len(self._names))
