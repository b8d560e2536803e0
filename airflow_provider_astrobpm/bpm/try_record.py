"""What every record of a task's tries holds: to which generation it belongs, and what it proves by being there."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from airflow_provider_astrobpm.bpm.generation import Generation, RecordedTries, generation_of
from airflow_provider_astrobpm.bpm.key_form import KeyForm


class TryRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the tries of a task tell each other, whatever it starts."""

    generation: int
    """The number of the first try since the task was last cleared, as the writer had it."""
    max_tries: int | None = None
    """Airflow's ``max_tries`` of the task then. Only a clear changes it."""
    is_unclear: bool = False
    """Whether the generation is uncertain. What is started or adopted belongs to it, and settles that."""
    intent_of: int | None = None
    """The newest generation of which a try wrote this record before any of its tries sent a start."""
    older_unknown: bool = False
    """Whether earlier tries may have started what no record tells of. The first start or adoption settles that."""
    since: float | None = None
    """When the first try of the task began at the earliest, in seconds since the epoch, if that is known."""
    told: bool = False
    """Whether a person was asked to look for instances before clearing the task."""
    key_example: tuple[str, str] | None = None
    """A business key as it was sent, and as the answer to that start showed it, where the two differ."""

    def tells_of(self, generation: int) -> bool:
        """Return whether this record would tell of a start, had a try of a generation sent one."""
        return not self.older_unknown or generation == self.intent_of

    @property
    def key_form(self) -> KeyForm | None:
        """What the endpoint makes of business keys, if it was seen to change one."""
        return KeyForm.of(*self.key_example) if self.key_example else None


R = TypeVar("R", bound=TryRecord)


def generation_by_record(
    record: TryRecord | None, *, try_number: int, max_tries: int, retries: int
) -> Generation:
    """Return the generation of a try, by what was recorded and by Airflow's numbers; see ``generation_of``."""
    recorded = RecordedTries(record.generation, record.max_tries, not record.is_unclear) if record else None
    return generation_of(try_number=try_number, max_tries=max_tries, retries=retries, recorded=recorded)


def began_at_earliest(
    record: TryRecord | None, *, try_number: int, now: float, due: float | None
) -> float | None:
    """Return when the first try of a task began at the earliest, in seconds since the epoch, if that is known.

    :param record: what earlier tries have written down, if they did.
    :param try_number: the number of this try.
    :param now: the time.
    :param due: when its run was due.
    """
    if try_number <= 1:
        return now
    return due if record is None or record.since is None else record.since


def with_intent(
    record: R | None,
    kind: type[R],
    *,
    generation: int,
    max_tries: int | None,
    try_number: int,
    since: float | None = None,
    is_certain: bool = True,
) -> R:
    """Return what a try writes down before it does anything else.

    :param record: what earlier tries have written down, if they did.
    :param kind: the type of the record.
    :param generation: the generation of the try.
    :param max_tries: Airflow's ``max_tries`` of the task.
    :param try_number: the number of the try.
    :param since: when the first try of the task began at the earliest, if that is known.
    :param is_certain: whether the generation is certain.
    """
    if record is None:
        return kind(
            generation=generation,
            max_tries=max_tries,
            is_unclear=not is_certain,
            intent_of=generation if try_number <= generation else None,
            older_unknown=try_number > 1,
            since=since,
        )
    if record.generation != generation:
        return msgspec.structs.replace(record, intent_of=generation)
    # A record that was lost and written anew does not prove what the tries of its generation have sent before.
    intent_of = record.intent_of if record.older_unknown else generation
    return msgspec.structs.replace(record, intent_of=intent_of, max_tries=max_tries)
