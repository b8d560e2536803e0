"""Computes the generation of a try: the number of the first try since the task was last cleared. No I/O.

Airflow passes ``max_tries`` to a task. Only a clear changes it, to the number of tries so far plus ``retries``. So the
first try is ``max_tries - retries + 1`` as long as ``retries`` has not changed since the clear. What an earlier try has
recorded is checked first:

| recorded                               | computed from today's ``retries``               | the generation           |
|----------------------------------------|-------------------------------------------------|--------------------------|
| the same ``max_tries``                 | later than recorded, not later than this try:   | as recorded, uncertain   |
|                                        | ``retries`` has changed, with or without a clear|                          |
| the same ``max_tries``                 | anything else                                   | as recorded              |
| a different ``max_tries``              | later than recorded, not later than this try    | as computed              |
| a different ``max_tries``              | anything else: ``retries`` has changed          | this try's, uncertain    |
| no ``max_tries`` (an older version)    | earlier than recorded, or later than this try   | as recorded, uncertain   |
| nothing, and this is the first try     | anything                                        | 1                        |
| nothing                                | earlier than the first try, or later than this  | the nearest, uncertain   |
| nothing, or no ``max_tries``           | anything else                                   | as computed              |

While the generation is uncertain, nothing is terminated, and an instance of any generation counts as this task's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from airflow_provider_astrobpm.starting.try_record import TryRecord


class Generation(NamedTuple):
    """The generation of a try.

    :param number: the number of the generation's first try.
    :param is_certain: whether the sources for the number agree.
    """

    number: int
    is_certain: bool = True


def generation_of(  # noqa: PLR0911 - the table's rows
    recorded: TryRecord | None, *, try_number: int, max_tries: int, retries: int
) -> Generation:
    """Return the generation of a try, by the table above.

    :param recorded: what an earlier try has recorded, if any.
    :param retries: the retries that the DAG gives the task now.
    """
    computed = max_tries - retries + 1
    if recorded is None and try_number <= 1:
        return Generation(1)
    if recorded is None:
        nearest = min(max(computed, 1), try_number)
        return Generation(nearest, is_certain=nearest == computed)
    if recorded.max_tries == max_tries:
        # If ``retries`` was lowered by as many as tries were made, a clear leaves ``max_tries`` as it was.
        looks_cleared = recorded.generation < computed <= try_number
        return Generation(recorded.generation, is_certain=not (recorded.is_unclear or looks_cleared))
    if recorded.max_tries is None:
        if recorded.generation <= computed <= try_number:
            return Generation(computed)
        return Generation(recorded.generation, is_certain=False)
    if recorded.generation < computed <= try_number:
        return Generation(computed)
    return Generation(try_number, is_certain=False)
