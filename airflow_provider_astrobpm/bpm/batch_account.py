"""The error text of a batch that has stopped: how many launches started, failed or are in doubt, and the first reasons. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.bpm.errors import AmbiguousStartError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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


class Doubt(NamedTuple):
    """A launch that may or may not have been started.

    :param launch: the launch, in words.
    :param business_key: the key that its instance carries, if there is one.
    :param error: how its start ended.
    :param why: why searching for it did not tell.
    """

    launch: str
    business_key: str
    error: CallError
    why: str


def named(number: int, its_id: str | int | None, **more: object) -> str:
    """Return a launch in words: its number, and in brackets its author's id if it has one, and more.

    :param number: its place in the batch.
    :param its_id: its id; one that is a number is none, or says no more.
    :param more: what else there is to name; ``None`` is left out.
    """
    parts = [f"id {its_id!r}"] if isinstance(its_id, str) else []
    parts += [f"{name.replace('_', ' ')} {value!r}" for name, value in more.items() if value is not None]
    return f"{number} ({', '.join(parts)})" if parts else str(number)


def in_doubt(account: Account, doubts: Sequence[Doubt]) -> AmbiguousStartError:
    """Return the error of a batch with launches that may or may not have been started.

    :param account: how many launches are what.
    :param doubts: the launches in doubt.
    """
    why = reasons((each.launch, f"{_words(each.error)}; {each.why}") for each in doubts)
    error = AmbiguousStartError(f"{account}; in doubt are {why}", doubts[0].business_key, LOOK)
    error.attempt, error.connection = ATTEMPT, doubts[0].error.connection
    return error


def stopped(account: Account, error: CallError, found: Sequence[tuple[str, CallError]]) -> None:
    """Let the error of the call that stopped a batch tell of the whole batch.

    :param account: how many launches are what.
    :param error: that error.
    :param found: the launches, in words, that were found although the answers to their starts were lost, and how those ended.
    """
    if found:
        why = reasons((launch, _words(lost)) for launch, lost in found)
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
