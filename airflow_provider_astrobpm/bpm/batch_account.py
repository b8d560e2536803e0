"""What is told of a batch that came to a stop: how many launches are what, and the first reasons. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.bpm.errors import AmbiguousStartError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_astrobpm.bpm.errors import CallError
    from airflow_provider_astrobpm.bpm.instance import BpmInstance

MOST_REASONS = 5  # that an error names
MOST_NAMED = 3  # launches that it names for each of them
ATTEMPT = "start the batch"
LOOK = (
    "What is in doubt may or may not have been started, so it was not started again. Look for instances with those "
    "business keys, and terminate them or wait for them with the sensor; then clear this task."
)


class Account(NamedTuple):
    """How many launches of a batch are what.

    :param total: how many were to be started, if that is known.
    :param instances: what was started, by the numbers of the launches.
    :param found: how many of those were found after the answers to their starts were lost.
    :param refused: how many were refused.
    :param in_doubt: how many may have been started, and were not found.
    """

    total: int | None
    instances: Mapping[int, BpmInstance]
    found: int = 0
    refused: int = 0
    in_doubt: int = 0

    def __str__(self) -> str:
        started = len(self.instances)
        found = f" ({self.found} of them found after their answers were lost)" if self.found else ""
        still_open = sum(not one.is_closed for one in self.instances.values())
        refused = f", {self.refused} refused" if self.refused else ""
        whole = f"{started} started{found}, {still_open} open{refused}, {self.in_doubt} in doubt"
        if self.total is None:
            return f"of the launches so far: {whole}"
        left = self.total - started - self.refused - self.in_doubt
        return f"of {self.total} launches: {whole}, {left} not sent"


def in_doubt(account: Account, doubts: Mapping[int, tuple[str, CallError, str]]) -> AmbiguousStartError:
    """Return the error of a batch in which nobody can know whether some launches were started.

    :param account: how many launches are what.
    :param doubts: by the numbers of the launches in doubt: their business keys, how their starts ended, and why searching
        did not tell.
    """
    key, first, _ = next(iter(doubts.values()))
    why = reasons(
        (f"{number} (business key {its_key!r})", f"{_words(error)}; {doubt}")
        for number, (its_key, error, doubt) in doubts.items()
    )
    error = AmbiguousStartError(f"{account}; in doubt are {why}", key, LOOK)
    error.locate(ATTEMPT, first.connection or "")
    error.connection = first.connection
    return error


def stopped(account: Account, error: CallError, found: Mapping[int, tuple[BpmInstance, CallError]]) -> None:
    """Let the error of the call that stopped a batch tell of the whole batch.

    :param account: how many launches are what.
    :param error: that error.
    :param found: what was found although the answers were lost, and how their starts had ended, by the numbers of the
        launches.
    """
    if found:
        why = reasons(
            (f"{number} (instance {one.id!r})", _words(lost)) for number, (one, lost) in found.items()
        )
        error.problem = f"{account}; the answers that were lost are {why}"
        error.status = error.res_code = error.res_msg = None
        error.advice = "Nothing is in doubt. Look at the server's own logs if it lasts."
    else:
        error.problem += f"; {account}"
    error.attempt = ATTEMPT


def reasons(told: Iterable[tuple[str, str]]) -> str:
    """Name each reason once, with the first launches that have it.

    :param told: each launch in words, and its reason.
    """
    by_reason: dict[str, list[str]] = {}
    for who, reason in told:
        by_reason.setdefault(reason.removesuffix("."), []).append(who)
    parts = []
    for reason, names in list(by_reason.items())[:MOST_REASONS]:
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        parts.append(f"launch {', '.join(names[:MOST_NAMED])}{more}: {reason}")
    others = len(by_reason) - MOST_REASONS
    return "; ".join([*parts, f"and {others} more reasons"] if others > 0 else parts)


def _words(error: CallError) -> str:
    return f"{error.problem} (HTTP {error.status})" if error.status is not None else error.problem
