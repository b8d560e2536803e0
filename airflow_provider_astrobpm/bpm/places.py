"""What instances of a process may be watched for entering: states, or business statuses, called *places* together.

A business status counts where ``WaitCondition`` lets it count: in the states that are asked for beside it, otherwise in any
that somebody knows and that is no bad end.

When has an instance left a place in which it is not seen any more, so that it may enter it again?

| the instance                              | the place may be an end           | it may not |
|-------------------------------------------|-----------------------------------|------------|
| is seen with another state or status      | at once                           | at once    |
| is not seen at all: a list may be cut off | after a while, for an end is kept | at once    |
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm import checks, states

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_astrobpm.bpm.instance import BpmInstance

DIGEST_LENGTH = (
    8  # characters of six bits: among a hundred thousand instances one new in a billion is taken for another
)
ENTRY_KEY_LENGTH = DIGEST_LENGTH + 2  # characters of a mark
MAX_BP_STATUSES = 256  # places that the first two of them can tell apart
MISSING_GRACE_SECONDS = 3600.0  # seconds for which what is not seen counts as overlooked rather than as gone


@dataclass(frozen=True)
class Places:
    """The places of a process that are watched. An instance in one of them has a *mark*, a short text that stands for both.

    :param bpm_name: the BPM's name.
    :param states: the states that are watched; with business statuses, those in which these count.
    :param bp_statuses: the business statuses that are watched.
    """

    bpm_name: str
    states: tuple[str, ...]
    bp_statuses: tuple[str, ...]

    @classmethod
    def of(
        cls, bpm_name: object, entered: Collection[str] | None, bp_statuses: Collection[str] | None
    ) -> Places:
        """Check what an author asks for; without states and statuses it is every end.

        :param bpm_name: the BPM's name.
        :param entered: states.
        :param bp_statuses: business statuses.
        :raises ValueError: for a blank name, an unknown state, a blank status, or too many of them.
        """
        name = checks.identifier(bpm_name, "bpm_name")
        asked = frozenset() if entered is None else states.require_known(entered, "states")
        statuses = frozenset() if bp_statuses is None else checks.statuses(bp_statuses, "bp_statuses")
        if len(statuses) > MAX_BP_STATUSES:
            raise ValueError(f"bp_statuses must be {MAX_BP_STATUSES} at most, not {len(statuses)}")
        if not asked and not statuses:
            asked = frozenset(filter(states.is_terminal, states.STATES))
        return cls(name, tuple(sorted(asked)), tuple(sorted(statuses)))

    @property
    def lists(self) -> tuple[str, ...]:
        """The states whose lists show what is in them."""
        return states.lists_that_show(self._counting)

    def entry_keys_of(self, instance: BpmInstance, digest: str) -> list[str]:
        """Return the marks of an instance of this process, one for each of the places in which it is.

        :param digest: its ``instance_digest``.
        """
        shown = instance.shown_states()
        if not shown & self._counting:
            return []
        names = (instance.bp_status,) if self.bp_statuses else shown
        return [f"{self._numbers[name]}{digest}" for name in names if name in self._numbers]

    def has_left(self, mark: str, seen: Collection[str], absent: float) -> bool:
        """Tell whether an instance has left a place in which it is not seen any more.

        :param mark: the mark of both.
        :param seen: the digests of all instances that are seen anywhere.
        :param absent: for how many seconds it has not been seen there.
        """
        return absent >= MISSING_GRACE_SECONDS or mark[2:] in seen or mark[:2] not in self._may_be_ends

    def may_be_hidden(self, mark: str, failed: Collection[str]) -> bool:
        """Return whether an instance may be in its place though no list shows it there, because some lists failed.

        :param mark: the mark of both.
        :param failed: the states whose lists failed.
        """
        if not failed:
            return False
        place = int(mark[:2], 16)
        if self.bp_statuses or place >= len(self.states):
            return True
        return not set(states.lists_that_show({self.states[place]})).isdisjoint(failed)

    @cached_property
    def _counting(self) -> frozenset[str]:
        """The states in which an instance is in one of the places."""
        return frozenset(self.states or states.NO_BAD_END)

    @cached_property
    def _numbers(self) -> dict[str | None, str]:
        """The number of each place, as marks have it."""
        return {name: f"{number:02x}" for number, name in enumerate(self.bp_statuses or self.states)}

    @cached_property
    def _may_be_ends(self) -> frozenset[str]:
        """The numbers of the places in which an instance may be at its end."""
        if self.bp_statuses:
            return frozenset(self._numbers.values() if any(map(states.is_terminal, self._counting)) else ())
        return frozenset(self._numbers[state] for state in self.states if states.is_terminal(state))

    def __str__(self) -> str:
        where = " or ".join(f"state {state!r}" for state in self.states)
        if not self.bp_statuses:
            return f"instances of {self.bpm_name!r} that enter {where}"
        what = " or ".join(map(repr, self.bp_statuses))
        within = f" in {where}" if where else ""
        return f"instances of {self.bpm_name!r} that come to business status {what}{within}"


def instance_digest(instance_id: str) -> str:
    """Return the part of a mark that stands for an instance."""
    return base64.urlsafe_b64encode(hashlib.sha256(instance_id.encode()).digest())[:DIGEST_LENGTH].decode()
