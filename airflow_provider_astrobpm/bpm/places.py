"""What instances of a process may be watched for entering: states and business statuses, called *places* together.

When has an instance left a place in which it is not seen any more, so that it may enter it again?

| the place is      | it has left                                                                                |
|-------------------|--------------------------------------------------------------------------------------------|
| an open state     | at once                                                                                    |
| a state of an end | after a while: what has ended stays, and a list that is cut off must not let it enter anew |
| a business status | at once if it is seen with another one, else after that while                              |
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

DIGEST = (
    8  # characters of six bits: among a hundred thousand instances one new in a billion is taken for another
)
MARK = DIGEST + 2  # characters of a mark
MOST = 256  # places that the first two of them can tell apart
WHILE = 3600.0  # seconds for which what is not seen counts as overlooked rather than as gone


@dataclass(frozen=True)
class Places:
    """The places of a process that are watched. An instance in one of them has a *mark*, a short text that stands for both.

    :param bpm_name: the BPM's name.
    :param states: states.
    :param bp_statuses: business statuses.
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
        name = checks.text(bpm_name, "bpm_name")
        asked = frozenset() if entered is None else states.require_known(entered, "states")
        statuses = frozenset() if bp_statuses is None else checks.texts(bp_statuses, "bp_statuses")
        if len(asked) + len(statuses) > MOST:
            raise ValueError(
                f"states and bp_statuses must be {MOST} at most, not {len(asked) + len(statuses)}"
            )
        if not asked and not statuses:
            asked = frozenset(filter(states.is_terminal, states.STATES))
        return cls(name, tuple(sorted(asked)), tuple(sorted(statuses)))

    @property
    def lists(self) -> tuple[str, ...]:
        """The states whose lists show what is in them. An instance may have a business status in any state."""
        return tuple(states.STATES) if self.bp_statuses else self.states

    def marks_of(self, instance: BpmInstance, digest: str) -> list[str]:
        """Return the marks of an instance of this process, one for each of the places in which it is.

        :param digest: its ``digest_of``.
        """
        of_state, of_status = self._numbers
        found = (of_state.get(instance.state), of_status.get(instance.bp_status or ""))
        return [f"{number}{digest}" for number in found if number is not None]

    def has_left(self, mark: str, seen: Collection[str], absent: float) -> bool:
        """Tell whether an instance has left a place in which it is not seen any more.

        :param mark: the mark of both.
        :param seen: the digests of all instances that are seen anywhere.
        :param absent: for how many seconds it has not been seen there.
        """
        number = int(mark[:2], 16)
        if number < len(self.states):
            return absent >= WHILE or not states.is_terminal(self.states[number])
        return absent >= WHILE or mark[2:] in seen

    @cached_property
    def _numbers(self) -> tuple[dict[str, str], dict[str, str]]:
        """The number of each state, and of each status, as marks have it."""
        texts = [f"{number:02x}" for number in range(len(self.states) + len(self.bp_statuses))]
        middle = len(self.states)
        of_state = dict(zip(self.states, texts[:middle], strict=True))
        return of_state, dict(zip(self.bp_statuses, texts[middle:], strict=True))

    def __str__(self) -> str:
        names = [f"state {state!r}" for state in self.states]
        names += [f"business status {status!r}" for status in self.bp_statuses]
        return f"instances of {self.bpm_name!r} that enter {' or '.join(names)}"


def digest_of(instance_id: str) -> str:
    """Return the part of a mark that stands for an instance."""
    return base64.urlsafe_b64encode(hashlib.sha256(instance_id.encode()).digest())[:DIGEST].decode()
