"""Whether lists show business keys. Pure.

Whether rows carry the business key that a start has set is undocumented. Without a key of its own an instance shows its id in that
place, or nothing. So an endpoint whose rows show none at all cannot be searched by a key, and whoever does so has to be told.

An empty list proves nothing. Where a BPM is named, its own rows count: that those of others lack keys proves nothing either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm.errors import KeysNotShownError
from airflow_provider_astrobpm.bpm.wire import unreadable_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_astrobpm.bpm.instance import BpmInstance


class ShownKeys:
    """What the rows of lists show of business keys.

    :param shows_any: whether it is known already that rows show keys here.
    """

    def __init__(self, *, shows_any: bool = False) -> None:
        self.shows_any = shows_any
        """Whether a row shows a business key, or one that cannot be read may."""
        self._names: dict[str, str] = {}

    def take(self, rows: Sequence[BpmInstance]) -> None:
        """Take a list."""
        for row in rows:
            if row.business_key in (None, row.id):
                self._names[row.id] = row.name
            else:
                self.shows_any = True
        for odd in unreadable_in(rows):
            if "businessKey" in odd.unread or odd.business_key not in (None, odd.id):
                self.shows_any = True

    def why_not_found(self, business_key: str, bpm_name: str | None) -> KeysNotShownError | None:
        """Return why nothing can be found by a business key here; ``None`` where nothing speaks against it.

        :param business_key: the key.
        :param bpm_name: the BPM's name, if only its instances count.
        """
        if self.shows_any or (not self._names if bpm_name is None else bpm_name not in self._names.values()):
            return None
        return KeysNotShownError(business_key, bpm_name, len(self._names))
