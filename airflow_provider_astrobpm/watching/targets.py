"""Watch targets: the states or business statuses of a process that instances may be watched for entering.

A business status counts where ``WaitCondition`` counts it: in the states that were given with it, otherwise in any known state
that is not a failure.

An instance can enter a target again only after it has left it. When has an instance that is no longer seen on a target left it?

| the instance                        | a target that may be an end                 | any other target |
|-------------------------------------|---------------------------------------------|------------------|
| is seen in another state or status  | at once                                     | at once          |
| is not seen: the list may be capped | after a grace period, because ends are kept | at once          |
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.client import states, validation

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_astrobpm.client.instance import BpmInstance

DIGEST_LENGTH = 8  # characters of six bits: of a hundred thousand instances, one new one in a billion is mistaken for another
ENTRY_KEY_LENGTH = DIGEST_LENGTH + 2  # characters
MAX_BP_STATUSES = 256  # that the two characters before the digest can number


@dataclass(frozen=True)
class WatchTargets:
    """The watch targets of a process. An *entry key* is a short text for one instance on one target.

    :param states: the watched states; with business statuses, the states in which these count.
    :param bp_statuses: the watched business statuses.
    """

    bpm_name: str
    states: tuple[str, ...]
    bp_statuses: tuple[str, ...]

    @classmethod
    def of(
        cls, bpm_name: object, entered: Collection[str] | None, bp_statuses: Collection[str] | None
    ) -> WatchTargets:
        """Check an author's arguments. Without states and statuses, every terminal state is a target.

        :raises ValueError: for a blank name, an unknown state, a blank status, or too many of them.
        """
        name = validation.identifier(bpm_name, "bpm_name")
        asked = frozenset() if entered is None else states.require_known(entered, "states")
        statuses = frozenset() if bp_statuses is None else validation.statuses(bp_statuses, "bp_statuses")
        if len(statuses) > MAX_BP_STATUSES:
            raise ValueError(f"bp_statuses must be {MAX_BP_STATUSES} at most, not {len(statuses)}")
        if not asked and not statuses:
            asked = frozenset(filter(states.is_terminal, states.STATES))
        return cls(name, tuple(sorted(asked)), tuple(sorted(statuses)))

    @property
    def lists(self) -> tuple[str, ...]:
        """The states whose lists show instances on a target."""
        return states.states_to_list(self._counting)

    def entry_keys_of(self, instance: BpmInstance, digest: str) -> list[str]:
        """Return the entry keys of an instance of this process with an ``instance_digest``: one for each target that it is on."""
        shown = instance.shown_states()
        if not shown & self._counting:
            return []
        names = (instance.bp_status,) if self.bp_statuses else shown
        return [f"{self._numbers[name]}{digest}" for name in names if name in self._numbers]

    def has_left(self, entry_key: str, seen: Collection[str]) -> bool:
        """Return whether an instance that is no longer seen on a target has left it; ``seen`` has all digests in any list."""
        return entry_key[2:] in seen or entry_key[:2] not in self._may_be_ends

    def may_be_hidden(self, entry_key: str, failed: Collection[str]) -> bool:
        """Return whether an instance may still be on its target, unseen because the lists of some states failed."""
        if not failed:
            return False
        number = int(entry_key[:2], 16)
        if self.bp_statuses or number >= len(self.states):
            return True
        return not set(states.states_to_list({self.states[number]})).isdisjoint(failed)

    @cached_property
    def _counting(self) -> frozenset[str]:
        """The states in which an instance can be on a target."""
        return frozenset(self.states or states.NOT_FAILED_STATES)

    @cached_property
    def _numbers(self) -> dict[str | None, str]:
        """The number of each target in entry keys, by its name."""
        return {name: f"{number:02x}" for number, name in enumerate(self.bp_statuses or self.states)}

    @cached_property
    def _may_be_ends(self) -> frozenset[str]:
        """The numbers of the targets that an instance may never leave."""
        if self.bp_statuses:
            return frozenset(self._numbers.values() if any(map(states.is_terminal, self._counting)) else ())
        return frozenset(self._numbers[state] for state in self.states if states.is_terminal(state))

    def __str__(self) -> str:
        where = " or ".join(f"state {state!r}" for state in self.states)
        if not self.bp_statuses:
            return f"instances of {self.bpm_name!r} that enter {where}"
        what = " or ".join(map(repr, self.bp_statuses))
        within = f" in {where}" if where else ""
        return f"instances of {self.bpm_name!r} that reach business status {what}{within}"


def instance_digest(instance_id: str) -> str:
    """Return the part of an entry key that stands for the instance."""
    return base64.urlsafe_b64encode(hashlib.sha256(instance_id.encode()).digest())[:DIGEST_LENGTH].decode()
