"""A try of a task, and the base of all records that tries write: the generation, and what the record proves by its existence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec

from airflow_provider_astrobpm.client.key_form import KeyForm
from airflow_provider_astrobpm.starting.generation import Generation, RecordedTries, generation_of

if TYPE_CHECKING:
    from airflow_provider_astrobpm.starting.business_keys import TaskIdentity


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
    since: float | None = None
    """The earliest time at which the task's first try can have begun, in seconds since the epoch; ``None`` if unknown."""
    told: bool = False
    """Whether a person was asked to search for instances before clearing the task."""
    key_example: tuple[str, str] | None = None
    """A business key as sent, and as the answer to that start showed it, if the two differ."""
    posted_at: float | None = None
    """When this generation's first start was about to be sent, in seconds since the epoch; ``None`` if certainly none was."""
    instance_id: str | None = None
    """The instance that was started or adopted, once it is known; ``None`` for a batch."""
    strangers: tuple[str, ...] | None = None
    """The ids of instances that had custom keys before the start; ``None`` if unknown."""
    deadline: float | None = None
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


def generation_by_record(
    record: TryRecord | None, *, try_number: int, max_tries: int, retries: int
) -> Generation:
    """Return the generation of a try from its record and from Airflow's numbers; see ``generation_of``."""
    recorded = RecordedTries(record.generation, record.max_tries, not record.is_unclear) if record else None
    return generation_of(try_number=try_number, max_tries=max_tries, retries=retries, recorded=recorded)


def began_at_earliest(
    record: TryRecord | None, *, try_number: int, now: float, due: float | None
) -> float | None:
    """Return the earliest time at which a task's first try can have begun, in seconds since the epoch, if known.

    :param record: the record of earlier tries, if any.
    :param try_number: the number of this try.
    :param now: the current time.
    :param due: when the DAG run was due.
    """
    if try_number <= 1:
        return now
    return due if record is None or record.since is None else record.since


@dataclass(frozen=True, kw_only=True)
class TaskTry:
    """A try of a task.

    :param identity: the task.
    :param generation: the number of the first try since the task was last cleared.
    :param try_number: the number of this try.
    :param since: the earliest time at which the task's first try can have begun, in seconds since the epoch, if known.
    :param max_tries: Airflow's ``max_tries`` of the task, if known.
    :param generation_is_certain: whether the sources for the generation agree.
    """

    identity: TaskIdentity
    generation: int
    try_number: int
    since: float | None = None
    max_tries: int | None = None
    generation_is_certain: bool = True

    def intent(self, record: R | None, kind: type[R]) -> R:
        """Return the record that this try writes before it does anything else.

        :param record: the record of earlier tries, if any.
        :param kind: the record type.
        """
        if record is None:
            return kind(
                generation=self.generation,
                max_tries=self.max_tries,
                is_unclear=not self.generation_is_certain,
                intent_of=self.generation if self.try_number <= self.generation else None,
                older_unknown=self.try_number > 1,
                since=self.since,
            )
        if record.generation != self.generation:
            return msgspec.structs.replace(record, intent_of=self.generation)
        # A record that was lost and rewritten proves nothing about starts that its generation sent before.
        intent_of = record.intent_of if record.older_unknown else self.generation
        return msgspec.structs.replace(record, intent_of=intent_of, max_tries=self.max_tries)
