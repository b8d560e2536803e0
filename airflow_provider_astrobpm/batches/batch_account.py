"""Builds the error text of a batch that has stopped: counts of launches by outcome, and the first reasons. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.client.errors import AmbiguousStartError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_astrobpm.batches.batch_input import Launch
    from airflow_provider_astrobpm.client.errors import CallError
    from airflow_provider_astrobpm.client.instance import BpmInstance

MAX_REASONS = 5  # named in one error
MAX_LAUNCHES_PER_REASON = 3  # named for each reason
ACTION = "start the batch"
DOUBT_ADVICE = (
    "A launch in doubt may or may not have been started, so it was not started again. Search for instances with those "
    "business keys, and terminate them or wait for them with the sensor; then clear this task."
)


class BatchCounts(NamedTuple):
    """The launches of a batch, counted by outcome.

    :param total: how many were to be started; ``None`` if unknown.
    :param instances: the started instances, by the numbers of their launches.
    :param found: how many of those were found after the answers to their starts were lost.
    :param in_doubt: how many may have been started but were not found.
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


def describe_launch(number: int, its_id: str | int | None, **more: object) -> str:
    """Describe a launch by its number, with its id and more details, unless they are ``None``, in brackets.

    :param its_id: its id. Only a string is shown: a number is a line or list position and adds nothing.
    """
    parts = [f"id {its_id!r}"] if isinstance(its_id, str) else []
    parts += [f"{name.replace('_', ' ')} {value!r}" for name, value in more.items() if value is not None]
    return f"{number} ({', '.join(parts)})" if parts else str(number)


def in_doubt_error(
    account: BatchCounts, lost: Mapping[str, tuple[Launch, CallError]], doubts: Mapping[str, str]
) -> AmbiguousStartError:
    """Return the error for a batch in which it is unknown whether some launches were started.

    :param lost: the launches in doubt by business key, each with the error of its start.
    :param doubts: why the search for their instances was inconclusive, by business key.
    """
    why = group_reasons(
        (describe_launch(one.number, one.id, business_key=key), f"{_describe(error)}; {doubts[key]}")
        for key, (one, error) in lost.items()
    )
    key, (_, first) = next(iter(lost.items()))
    error = AmbiguousStartError(f"{account}; in doubt are {why}", key, DOUBT_ADVICE)
    error.attempt, error.connection = ACTION, first.connection
    error.__cause__ = first
    # One failure that may not be transient makes the whole doubt one that may not be.
    error.failed_call = next((one for _, one in lost.values() if not one.is_transient), first)
    return error


def add_counts(account: BatchCounts, error: CallError, found: Sequence[tuple[str, CallError]]) -> None:
    """Add the state of the whole batch to the error of the call that stopped it.

    :param found: the launches, in words, that were found although the answers to their starts were lost, each with that error.
    """
    if found:
        why = group_reasons((launch, _describe(lost)) for launch, lost in found)
        error.problem = f"{account}; the lost answers are {why}"
        error.status = error.res_code = error.res_msg = None
        error.advice = "Nothing is in doubt. If it lasts, check the server's own logs."
    else:
        error.problem += f"; {account}"
    error.attempt = ACTION


def group_reasons(launches: Iterable[tuple[str, str]]) -> str:
    """Name each reason once, with the first of the launches, in words, that it applies to."""
    by_reason: dict[str, list[str]] = {}
    for who, reason in launches:
        by_reason.setdefault(reason.removesuffix("."), []).append(who)
    parts = []
    for reason, names in list(by_reason.items())[:MAX_REASONS]:
        rest = len(names) - MAX_LAUNCHES_PER_REASON
        more = f" and {rest} more" if rest > 0 else ""
        parts.append(f"launch {', '.join(names[:MAX_LAUNCHES_PER_REASON])}{more}: {reason}")
    others = len(by_reason) - MAX_REASONS
    return "; ".join([*parts, f"and {others} more reasons"] if others > 0 else parts)


def _describe(error: CallError) -> str:
    return f"{error.problem} (HTTP {error.status})" if error.status is not None else error.problem
