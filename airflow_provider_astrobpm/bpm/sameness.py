"""Whether two rows can be of one instance. Pure.

An id alone does not prove it: where an environment was cloned or a backup was restored, an id may come to belong to
another instance. So the name and the business key are compared too, where both rows show them.

Whether lists write names and keys exactly as the answer to a start does is undocumented. So a name counts without its
namespace, and two keys are the same if one of them resembles the other (``key_form``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.bpm.errors import UnexpectedAnswerError
from airflow_provider_astrobpm.bpm.key_form import KeyForms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_astrobpm.bpm.instance import BpmInstance

COMPARED = {
    "name": "name",
    "state": "state",
    "bp_status": "business status",
    "suspended": "suspended",
    "is_closed": "ended",
}
"""The fields in which two rows of one list must agree, besides the business key."""


class Known(NamedTuple):
    """What is known of an instance besides its id."""

    names: tuple[str, ...] = ()
    """The names that its BPM may show: that of a start's answer, and the one that was asked for. Any where there are none."""
    business_key: str | None = None
    """``None`` where it is not known."""

    @classmethod
    def of(cls, instance: BpmInstance, *also_called: str) -> Known:
        """Return what an instance shows.

        :param also_called: other names that its BPM may show.
        """
        return cls(tuple(dict.fromkeys((instance.name, *also_called))), key_of(instance))

    def is_of(self, instance: BpmInstance) -> bool:
        """Return whether an instance can be the one that this is known of."""
        has_name = not self.names or bare(instance.name) in map(bare, self.names)
        return has_name and _same_key(self.business_key, key_of(instance))

    def with_more(self, instance: BpmInstance) -> Known:
        """Return what is known once an instance was seen that this is known of."""
        return Known(self.names or (instance.name,), self.business_key or key_of(instance))

    def __str__(self) -> str:
        parts = [
            f"of {' or '.join(map(repr, self.names))}" if self.names else "",
            f"with business key {self.business_key!r}" if self.business_key else "",
        ]
        return " ".join(filter(None, parts))


def key_of(instance: BpmInstance) -> str | None:
    """Return the business key that an instance shows. Without a key of its own, an instance may show its id instead."""
    return None if instance.business_key == instance.id else instance.business_key


def bare(name: str) -> str:
    """Return a BPM's name without its namespace, which stands in front of two underscores."""
    return name.rpartition("__")[2]


def _same_key(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return True
    return KeyForms([one]).resembles(other) or KeyForms([other]).resembles(one)


def doubts_within(state: str, rows: Iterable[BpmInstance]) -> dict[str, UnexpectedAnswerError]:
    """Return why instances are in doubt that one list shows more than once, by their ids.

    :param state: the state that was listed.
    :param rows: the list.
    """
    first: dict[str, BpmInstance] = {}
    doubts: dict[str, UnexpectedAnswerError] = {}
    for row in rows:
        other = first.setdefault(row.id, row)
        if other is not row and (difference := _difference(other, row)):
            doubts[row.id] = _contradiction(row.id, f"twice in the list of state {state!r}", difference)
    return doubts


def doubt_between(before: BpmInstance, after: BpmInstance) -> UnexpectedAnswerError | None:
    """Return why an instance is in doubt that two lists of one poll show; ``None`` where it may just have moved.

    :param before: the row of the earlier list.
    :param after: the row of the later one.
    """
    moves = not (before.is_closed and after.is_closed)  # an end is followed by no other
    difference = _difference(before, after, identity_only=moves)
    return _contradiction(after.id, "in two lists", difference) if difference else None


def _difference(one: BpmInstance, other: BpmInstance, *, identity_only: bool = False) -> str | None:
    """Return in words in which field two rows of one id differ that must agree."""
    if None not in (key_of(one), key_of(other)) and key_of(one) != key_of(other):
        return f"business key {one.business_key!r} and {other.business_key!r}"
    for field, word in COMPARED.items():
        values = getattr(one, field), getattr(other, field)
        if values[0] != values[1] and not (identity_only and field != "name"):
            return f"{word} {values[0]!r} and {values[1]!r}"
    return None


def _contradiction(instance_id: str, where: str, difference: str) -> UnexpectedAnswerError:
    error = UnexpectedAnswerError(
        f"Astro Zero shows instance {instance_id!r} {where}, with {difference}; this decides nothing"
    )
    error.advice = "The next poll asks again. If it lasts, look at the instance in Astro Zero."
    return error
