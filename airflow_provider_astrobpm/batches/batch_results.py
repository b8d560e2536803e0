"""Computes the outcome of each launch of a batch, and whether the batch has failed. No I/O.

| outcome       | the launch                                                             | counts as a failure |
|---------------|------------------------------------------------------------------------|---------------------|
| `failed`      | was started, and its instance failed or has disappeared                | yes                 |
| `refused`     | was refused by the server                                              | yes                 |
| `open`        | was started, and the wait ended before its instance was decided        |                     |
| `not_started` | was not reached before the batch ended                                 |                     |
| `started`     | was started, and the task did not wait for it                          |                     |
| `succeeded`   | was started, and its instance succeeded                                |                     |
"""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from airflow_provider_astrobpm.batches.batch_account import describe_launch, group_reasons
from airflow_provider_astrobpm.batches.batch_input import AuthorFields
from airflow_provider_astrobpm.client.errors import BatchFailedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import tzinfo

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.waiting.batch_wait import BatchWaitResult

LaunchOutcome = Literal["failed", "refused", "open", "not_started", "started", "succeeded"]
OUTCOMES: tuple[LaunchOutcome, ...] = get_args(LaunchOutcome)
FAILURES: tuple[LaunchOutcome, ...] = ("failed", "refused")

RESULT_COLUMNS = (
    "number", "id", "title", "outcome", "reason", "business_key", "bpm_name", "instance_id", "state", "bp_status",
    "start_time", "end_time", "start_time_utc", "end_time_utc", "url",
)  # fmt: skip
"""The columns of a launch in the result."""
VARIABLES_COLUMN = "variables"
"""An additional column, if the task asks for it."""


def result_columns(*, with_variables: bool) -> tuple[str, ...]:
    """Return the columns of a launch in the result."""
    return (*RESULT_COLUMNS, VARIABLES_COLUMN) if with_variables else RESULT_COLUMNS


def allowed_failures(value: float, total: int) -> int:
    """Return how many launches may fail.

    :param value: their number, or a fraction of all launches, below 1.
    """
    # Use the decimal fraction as written: 0.29 of 100 allows 29, but the binary fraction would allow 28.
    return value if isinstance(value, int) else math.floor(Fraction(str(value)) * total)


class LaunchResult(NamedTuple):
    """The outcome of one launch."""

    number: int
    outcome: LaunchOutcome
    reason: str | None = None
    instance_id: str | None = None
    instance: BpmInstance | None = None
    """Its instance as last seen; ``None`` if it was never seen."""
    author_fields: AuthorFields | None = None
    """The author's fields of the launch, if known."""

    def as_dict(self, *, url: str | None, timezone: tzinfo | None) -> dict[str, Any]:
        """Return the launch as a result row: the fields of ``RESULT_COLUMNS``, and the variables if they are known."""
        seen: dict[str, Any] = self.instance.as_dict(timezone=timezone) if self.instance else {}
        author_fields = self.author_fields or AuthorFields(self.number)
        own = {
            "number": self.number,
            "id": author_fields.id,
            "title": author_fields.title or (self.instance.title if self.instance else None),
            "outcome": self.outcome,
            "reason": self.reason,
            "bpm_name": seen.get("name"),
            "instance_id": self.instance_id,
            "url": url,
        }
        row = {column: own.get(column, seen.get(column)) for column in RESULT_COLUMNS}
        return row if author_fields.variables is None else {**row, VARIABLES_COLUMN: author_fields.variables}

    def __str__(self) -> str:
        return describe_launch(
            self.number, self.author_fields.id if self.author_fields else None, instance=self.instance_id
        )


class BatchResult:
    """The outcome of a batch, from that of each launch."""

    def __init__(self, ends: Iterable[LaunchResult]) -> None:
        self._ends = sorted(ends, key=lambda end: (OUTCOMES.index(end.outcome), end.number))
        counted = Counter(end.outcome for end in self._ends)
        self.counts: dict[str, int] = {outcome: counted[outcome] for outcome in reversed(OUTCOMES)}
        """The number of launches by outcome."""

    def __iter__(self) -> Iterator[LaunchResult]:
        """Iterate over the launches: failed ones first, then by outcome and number."""
        return iter(self._ends)

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def failures(self) -> int:
        """The number of launches that have failed."""
        return sum(self.counts[outcome] for outcome in FAILURES)

    def numbers(self, outcome: LaunchOutcome) -> list[int]:
        """Return the numbers of the launches with an outcome."""
        return [end.number for end in self._ends if end.outcome == outcome]

    def failure(self, max_failures: float) -> BatchFailedError | None:
        """Return the error of the batch if too many launches have failed.

        :param max_failures: how many may fail, as a number or a fraction.
        """
        if self.failures <= allowed_failures(max_failures, len(self)):
            return None
        return BatchFailedError(
            f"{self.failures} of {len(self)} launches failed, and at most {max_failures} may ('max_failures'): "
            f"{group_reasons((str(end), end.reason or '') for end in self._ends[: self.failures])}"
        )

    def __str__(self) -> str:
        counts = [f"{count} {outcome.replace('_', ' ')}" for outcome, count in self.counts.items() if count]
        return f"{len(self)} launches: {', '.join(counts) or 'none'}"


def build_result(
    ids: Sequence[str | None],
    refusals: Mapping[int, str],
    end: BatchWaitResult | None,
    seen: Mapping[str, BpmInstance],
    author_fields: Sequence[AuthorFields] = (),
) -> BatchResult:
    """Compute the outcome of a batch.

    :param ids: the instance id of each launch, in order; ``None`` for a launch without one.
    :param refusals: why launches were refused, by their numbers.
    :param end: how the wait for them ended; ``None`` if the task did not wait.
    :param seen: the instances as last seen, by their ids.
    """
    still_open = set(end.open) if end else set()

    def end_of(number: int, instance_id: str | None) -> LaunchResult:
        of_author = author_fields[number - 1] if number <= len(author_fields) else None
        if instance_id is None:
            refusal = refusals.get(number)
            outcome: LaunchOutcome = "not_started" if refusal is None else "refused"
            return LaunchResult(number, outcome, refusal, author_fields=of_author)
        of_it = instance_id, seen.get(instance_id), of_author
        if end is None:
            return LaunchResult(number, "started", None, *of_it)
        if (reason := end.failed.get(instance_id)) is not None:
            return LaunchResult(number, "failed", reason, *of_it)
        return LaunchResult(number, "open" if instance_id in still_open else "succeeded", None, *of_it)

    return BatchResult(end_of(number, instance_id) for number, instance_id in enumerate(ids, 1))
