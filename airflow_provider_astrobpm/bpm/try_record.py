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
    intent_of: int | None = None
    """The newest generation of which a try wrote this record before it did anything else. Had a try of that generation sent
    a start, the record would tell of it."""
    older_unknown: bool = False
    """Whether older generations may have started what no record tells of. The first start or adoption settles that."""
    told: bool = False
    """Whether a person was asked to look for instances before clearing the task."""
    key_example: tuple[str, str] | None = None
    """A business key as it was sent, and as the answer to that start showed it, where the two differ."""

    @property
    def key_form(self) -> KeyForm | None:
        """What the endpoint makes of business keys, if it was seen to change one."""
        return KeyForm.of(*self.key_example) if self.key_example else None


R = TypeVar("R", bound=TryRecord)


def generation_by_record(
    record: TryRecord | None, *, try_number: int, max_tries: int, retries: int
) -> Generation:
    """Return the generation of a try, by what was recorded and by Airflow's numbers; see ``generation_of``."""
    recorded = RecordedTries(record.generation, record.max_tries) if record else None
    return generation_of(try_number=try_number, max_tries=max_tries, retries=retries, recorded=recorded)


def with_intent(
    record: R | None, kind: type[R], *, generation: int, max_tries: int | None, try_number: int
) -> R:
    """Return what a try writes down before it does anything else.

    :param record: what earlier tries have written down, if they did.
    :param kind: the type of the record.
    :param generation: the generation of the try.
    :param max_tries: Airflow's ``max_tries`` of the task.
    :param try_number: the number of the try.
    """
    if record is None:
        return kind(
            generation=generation,
            max_tries=max_tries,
            intent_of=generation,
            older_unknown=try_number > 1,
        )
    own = {"max_tries": max_tries} if record.generation == generation else {}
    return msgspec.structs.replace(record, intent_of=generation, **own)
