"""Completes a batch when its wait is over: polls every instance, judges the batch, and acts on the open instances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.batches import batch_results, bulk_change
from airflow_provider_astrobpm.client.errors import (
    AstroZeroError,
    BatchFailedError,
    UnknownEventError,
    WaitTimeoutError,
)
from airflow_provider_astrobpm.client.sameness import KnownIdentity
from airflow_provider_astrobpm.client.states import StateClass, class_of
from airflow_provider_astrobpm.task_base import thread_loop
from airflow_provider_astrobpm.task_base.deadline import repeat_after_alarm
from airflow_provider_astrobpm.waiting import batch_wait
from airflow_provider_astrobpm.waiting.condition import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_astrobpm.batches.batch_results import BatchResult
    from airflow_provider_astrobpm.batches.bulk_change import BulkChange
    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.operations import Action
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
    from airflow_provider_astrobpm.task_base.batch_xcoms import PublishedBatch
    from airflow_provider_astrobpm.task_base.waiting_operator import OnFailure, OnTimeout
    from airflow_provider_astrobpm.waiting.batch_wait import BatchWaitResult
    from airflow_provider_astrobpm.waiting.condition import WaitCondition

OPEN_AT_DEADLINE = "it was still open at the deadline ({!r})"


@dataclass(frozen=True, kw_only=True)
class BatchCompletion:
    """Completes a batch.

    :param hook: the hook of the task.
    :param condition: the condition that the batch waited for.
    :param max_failures: the number or the share of launches that may fail.
    :param on_timeout: what to do with instances that are open at the deadline.
    :param on_failure: what to do with open instances if more launches failed than may.
    :param max_concurrency: the maximum number of calls at the same time.
    :param poll_interval: seconds between two polls, if the first one fails.
    :param max_poll_failure_time: seconds for which polls may fail in a row.
    :param log: the log of the task.
    """

    hook: AstroZeroHook
    condition: WaitCondition
    max_failures: float
    on_timeout: OnTimeout
    on_failure: OnFailure
    max_concurrency: int
    poll_interval: float
    max_poll_failure_time: float
    log: Any

    def complete(
        self, batch: PublishedBatch, end: BatchWaitResult, error: Exception | None
    ) -> tuple[BatchResult, BatchFailedError | None]:
        """Return the outcome of each launch, and the error of the batch if it has failed.

        :param batch: the started instances. Those that were not awaited have met the condition before.
        :param end: the outcomes of the others when the wait ended.
        :param error: the error that ended the wait early, if any.
        :raises AstroZeroError: ``error``, unless it is the deadline; or the reason why a success could not be confirmed.
        :raises UnknownEventError: if a reported success is not one, or an instance is open without a reason.
        """
        if error is not None and not isinstance(error, WaitTimeoutError):
            raise error
        ids, refusals = batch.ids, batch.refusals
        started = [one for one in ids if one is not None]
        has_failed = batch_results.build_result(ids, refusals, end, {}).failure(self.max_failures) is not None
        # A batch that has failed or timed out does not wait for lists that fail: it acts on the open instances now.
        seen, unseen = self._polled(started, patient=error is None and not has_failed)
        # An instance of another BPM under the same id is not part of this batch, and must not be acted on.
        own = KnownIdentity(tuple(batch.names))
        others = {one: seen.pop(one) for one in started if one in seen and not own.matches(seen[one])}
        end = batch_wait.rejudge(end, batch.awaited, seen, self.condition, others=others)
        notes = [f"The current states of its instances could not be read: {unseen}"] if unseen else []
        if error is not None and (late := end.open):
            if self.on_timeout != "leave":
                change = self.change(late, seen, self.on_timeout)
                notes.append(f"By 'on_timeout': {change.note}.")
            reason = OPEN_AT_DEADLINE.format(error.argument)
            failed = {one: reason for one in late if not self._has_succeeded(seen.get(one))}
            end = end._replace(failed=end.failed | failed, open=())
        failure = batch_results.build_result(ids, refusals, end, seen, batch.author_fields).failure(
            self.max_failures
        )
        if failure is None and unseen is not None:
            raise unseen  # an unconfirmed success must not open a gate
        if failure is None and end.open:
            raise UnknownEventError(end, "it reports no outcome")
        if failure is not None and self.on_failure == "terminate":
            ours = [one for one in self._may_be_open(started, end) if one not in others]
            change = self.change(ours, seen, "terminate")
            notes.append(f"By 'on_failure': {change.note}.")
        if failure is not None:
            failure.advice = " ".join(notes)
            failure.connection = self.hook.astro_zero_conn_id
            failure.__cause__ = error
        return batch_results.build_result(ids, refusals, end, seen, batch.author_fields), failure

    def _may_be_open(self, started: Sequence[str], end: BatchWaitResult) -> list[str]:
        """Return the instances that may be open, including those that no poll returned."""
        if not self.condition.is_permanent:
            return list(started)
        return [one for one in started if one in end.failed or one in end.open]

    def _has_succeeded(self, instance: BpmInstance | None) -> bool:
        """Return whether an instance succeeded at the last moment. Success is never the effect of our own action."""
        return (
            instance is not None
            and class_of(instance.state) is StateClass.SUCCEEDED
            and self.condition.judge(instance).outcome is Outcome.DONE
        )

    def _polled(
        self, ids: Sequence[str], *, patient: bool
    ) -> tuple[dict[str, BpmInstance], AstroZeroError | None]:
        """Poll the instances, and return those that were read, and the error if not all were.

        :param patient: whether to poll again while polls fail, for ``max_poll_failure_time``; otherwise poll once.
        """
        if not ids:
            return {}, None
        snapshot = batch_wait.BatchSnapshot(
            dict.fromkeys(ids), max_poll_failure_time=self.max_poll_failure_time
        )
        if not patient:
            try:
                self.hook.poll_once(snapshot)
            except AstroZeroError as error:
                return {}, error
            return snapshot.seen, snapshot.failure
        self.hook.poll_once(snapshot)
        if snapshot.ending is None:
            self.hook.run_wait(snapshot, poll_interval=self.poll_interval)
        return snapshot.result(), None

    def change(self, ids: Sequence[str], seen: dict[str, BpmInstance], action: Action) -> BulkChange:
        """Suspend or terminate the open instances among these, and update ``seen`` with the result.

        :param ids: the ids of the instances.
        :param seen: the last polled instances, by id.
        :param action: the action.
        """
        still_open = {
            one: seen[one].state if one in seen else None
            for one in ids
            if one not in seen or not seen[one].is_closed
        }

        async def work() -> BulkChange:
            async with self.hook.make_async_client(self.hook.settings) as client:
                return await bulk_change.change_all(
                    client,
                    still_open,
                    action,
                    max_concurrency=self.max_concurrency,
                    log=lambda note: note.write_to(self.log),
                )

        change = repeat_after_alarm(lambda: thread_loop.run_in_thread_loop(work))
        self.log.info(change.note)
        seen |= {one.id: one for one in change.instances}
        return change
