"""To which generation a try belongs: the number of the first try since the task was last cleared. No I/O.

Airflow tells a task its ``max_tries``, and only a clear changes it, to the tries made so far plus ``retries``. So
``max_tries - retries + 1`` is the first try, while ``retries`` is what it was at the clear. What an earlier try has
recorded is checked first:

| recorded                               | computed from today's ``retries``               | the generation           |
|----------------------------------------|-------------------------------------------------|--------------------------|
| the same ``max_tries``                 | after the recorded one, and not after this try: | as recorded, uncertain   |
|                                        | ``retries`` has changed, with a clear or not    |                          |
| the same ``max_tries``                 | anything else                                   | as recorded              |
| another ``max_tries``                  | after the recorded one, and not after this try  | as computed              |
| another ``max_tries``                  | anything else: ``retries`` has changed          | this try's, uncertain    |
| no ``max_tries``, by an older version  | before the recorded one, or after this try      | as recorded, uncertain   |
| nothing, and this is the first try     | anything                                        | 1                        |
| nothing                                | before the first try, or after this one         | the nearest, uncertain   |
| nothing, or no ``max_tries``           | anything else                                   | as computed              |

Where the generation is uncertain nothing is terminated, and an instance of any generation is this task's own.
"""

from __future__ import annotations

from typing import NamedTuple


class Generation(NamedTuple):
    """A generation.

    :param number: the number of its first try.
    :param is_certain: whether the sources for it agree.
    """

    number: int
    is_certain: bool = True


class RecordedTries(NamedTuple):
    """What an earlier try has recorded.

    :param generation: its generation.
    :param max_tries: Airflow's ``max_tries`` then; ``None`` if an older version of this provider wrote the record.
    :param is_certain: whether the generation was certain then, or something was started or adopted since.
    """

    generation: int
    max_tries: int | None = None
    is_certain: bool = True


def generation_of(  # noqa: PLR0911 - the table's rows
    *, try_number: int, max_tries: int, retries: int, recorded: RecordedTries | None = None
) -> Generation:
    """Return the generation of a try, by the table above.

    :param try_number: the number of this try.
    :param max_tries: Airflow's ``max_tries`` of the task instance.
    :param retries: the retries of the task as its DAG has them now.
    :param recorded: what an earlier try has recorded, if one did.
    """
    computed = max_tries - retries + 1
    if recorded is None and try_number <= 1:
        return Generation(1)
    if recorded is None:
        nearest = min(max(computed, 1), try_number)
        return Generation(nearest, is_certain=nearest == computed)
    if recorded.max_tries == max_tries:
        # A clear after as many tries as ``retries`` was lowered by leaves ``max_tries`` as it was.
        looks_cleared = recorded.generation < computed <= try_number
        return Generation(recorded.generation, is_certain=recorded.is_certain and not looks_cleared)
    if recorded.max_tries is None:
        if recorded.generation <= computed <= try_number:
            return Generation(computed)
        return Generation(recorded.generation, is_certain=False)
    if recorded.generation < computed <= try_number:
        return Generation(computed)
    return Generation(try_number, is_certain=False)
