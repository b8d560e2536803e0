"""The base of all records that tries write: the generation, and what the record proves by its existence."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from airflow_provider_astrobpm.client.key_form import KeyForm

LATEST_SECONDS = 253_402_300_799  # since the epoch: the end of the year 9999, where dates end
Seconds = Annotated[float, msgspec.Meta(ge=0, le=LATEST_SECONDS)]
"""Seconds since the epoch."""


class TryRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one try of a task writes down for later tries, regardless of what the task starts."""

    generation: int
    """The number of the first try since the task was last cleared, as the writer computed it."""
    max_tries: int | None = None
    """Airflow's ``max_tries`` of the task at that time. Only a clear changes it."""
    is_unclear: bool = False
    """Whether the generation is uncertain. A start or an adoption settles it: the instance belongs to this generation."""
    intent_of: int | None = None
    """The newest generation in which a try wrote this record before any try of that generation sent a start."""
    older_unknown: bool = False
    """Whether earlier tries may have started something without recording it. The first start or adoption settles it."""
    since: Seconds | None = None
    """The earliest time at which the task's first try can have begun, in seconds since the epoch; ``None`` if unknown."""
    told: bool = False
    """Whether a person was asked to search for instances before clearing the task."""
    key_example: tuple[str, str] | None = None
    """A business key as sent, and as the answer to that start showed it, if the two differ."""
    posted_at: Seconds | None = None
    """When this generation's first start was about to be sent, in seconds since the epoch; ``None`` if certainly none was."""
    unproven: bool = False
    """Whether a start with a custom key was refused or throttled: the server may have carried it out anyway."""
    instance_id: str | None = None
    """The instance that was started or adopted, once it is known; ``None`` for a batch."""
    strangers: tuple[str, ...] | None = None
    """The ids of instances that had custom keys before the start; ``None`` if unknown."""
    deadline: Seconds | None = None
    """When the wait fails, in seconds since the epoch."""

    @property
    def settled_at(self) -> float | None:
        """When the last start had been answered, in seconds since the epoch; ``None`` if an answer may be missing."""
        return None if self.instance_id is None else self.posted_at

    @property
    def mentions_start(self) -> bool:
        """Whether an instance may exist that a start in this record has made."""
        return self.posted_at is not None

    def has_begun(self, generation: int) -> bool:
        """Return whether a try of this generation has begun to send starts."""
        return self.generation == generation and self.posted_at is not None

    def covers(self, generation: int) -> bool:
        """Return whether a start sent by a try of this generation would show in the record."""
        return not self.older_unknown or generation == self.intent_of

    @property
    def key_form(self) -> KeyForm | None:
        """How the endpoint changes business keys, if it was seen to change one."""
        return KeyForm.of(*self.key_example) if self.key_example else None


R = TypeVar("R", bound=TryRecord)
