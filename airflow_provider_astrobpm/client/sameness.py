"""Decides whether two rows can belong to the same instance. Pure.

The id alone does not prove it. When an environment is cloned or a backup restored, an id may later belong to another
instance. So the name and the business key are compared too, if both rows show them.

It is undocumented whether lists write names and keys exactly as the answer to a start does. So names are compared without
their namespace, and two keys are equal if one resembles the other (``key_form``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.client.errors import UnexpectedAnswerError
from airflow_provider_astrobpm.client.key_form import KeyForms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_astrobpm.client.instance import BpmInstance

COMPARED = {
    "name": "name",
    "state": "state",
    "bp_status": "business status",
    "suspended": "suspended",
    "is_closed": "ended",
}
"""The fields in which two rows of one list must agree, in addition to the business key."""


class KnownIdentity(NamedTuple):
    """What is known about an instance in addition to its id."""

    names: tuple[str, ...] = ()
    """The names that its BPM may show: the one in the start's answer and the requested one. Empty if any name will do."""
    business_key: str | None = None
    """``None`` if it is unknown."""

    @classmethod
    def of(cls, instance: BpmInstance, *also_called: str) -> KnownIdentity:
        """Return what a row of an instance shows, with other names that its BPM may show."""
        return cls(tuple(dict.fromkeys((instance.name, *also_called))), own_business_key(instance))

    def matches(self, instance: BpmInstance) -> bool:
        """Return whether a row can belong to this instance."""
        has_name = not self.names or without_namespace(instance.name) in map(without_namespace, self.names)
        return has_name and _same_key(self.business_key, own_business_key(instance))

    def updated_from(self, instance: BpmInstance) -> KnownIdentity:
        """Fill in what is still unknown from a row of this instance."""
        return KnownIdentity(self.names or (instance.name,), self.business_key or own_business_key(instance))

    def __str__(self) -> str:
        parts = [
            f"of {' or '.join(map(repr, self.names))}" if self.names else "",
            f"with business key {self.business_key!r}" if self.business_key else "",
        ]
        return " ".join(filter(None, parts))


def own_business_key(instance: BpmInstance) -> str | None:
    """Return the business key of an instance, or ``None``. An instance without a key may show its id in its place."""
    return None if instance.business_key == instance.id else instance.business_key


def without_namespace(name: str) -> str:
    """Return a BPM's name without its namespace, the part before the last double underscore."""
    return name.rpartition("__")[2]


def _same_key(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return True
    return KeyForms([one]).resembles(other) or KeyForms([other]).resembles(one)


def contradictions_within(state: str, rows: Iterable[BpmInstance]) -> dict[str, UnexpectedAnswerError]:
    """Find contradictory rows of the same instance in the list of a state. Return the errors by instance id."""
    first: dict[str, BpmInstance] = {}
    doubts: dict[str, UnexpectedAnswerError] = {}
    for row in rows:
        other = first.setdefault(row.id, row)
        if other is not row and (difference := _difference(other, row)):
            doubts[row.id] = _contradiction(row.id, f"twice in the list of state {state!r}", difference)
    return doubts


def contradiction_between(before: BpmInstance, after: BpmInstance) -> UnexpectedAnswerError | None:
    """Return the error for contradictory rows of one instance in two lists of the same poll, ``before`` in the earlier list.

    Return ``None`` if the instance may just have moved between the lists.
    """
    moves = not (before.is_closed and after.is_closed)  # an ended instance does not change any more
    difference = _difference(before, after, identity_only=moves)
    return _contradiction(after.id, "in two lists", difference) if difference else None


def _difference(one: BpmInstance, other: BpmInstance, *, identity_only: bool = False) -> str | None:
    """Describe the first field that should agree in two rows of one id but does not. Return ``None`` if all agree."""
    keys = own_business_key(one), own_business_key(other)
    if None not in keys and keys[0] != keys[1]:
        return f"business key {keys[0]!r} and {keys[1]!r}"
    for field, word in COMPARED.items():
        values = getattr(one, field), getattr(other, field)
        if values[0] != values[1] and not (identity_only and field != "name"):
            return f"{word} {values[0]!r} and {values[1]!r}"
    return None


def _contradiction(instance_id: str, where: str, difference: str) -> UnexpectedAnswerError:
    error = UnexpectedAnswerError(
        f"Astro Zero shows instance {instance_id!r} {where} with different values: {difference}"
    )
    error.advice = "Nothing is concluded from this; the next poll asks again. If it persists, check the instance in Astro Zero."
    return error
