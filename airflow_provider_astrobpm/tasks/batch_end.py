"""What a task does when the wait for its batch is over: look what has become of each instance, judge, and act on the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.bpm import batch_result, group_change, group_wait
from airflow_provider_astrobpm.bpm.condition import Outcome
from airflow_provider_astrobpm.bpm.errors import (
    AstroZeroError,
    BatchFailedError,
    UnknownEventError,
    WaitTimeoutError,
)
from airflow_provider_astrobpm.bpm.sameness import Known
from airflow_provider_astrobpm.bpm.states import StateClass, class_of
from airflow_provider_astrobpm.tasks import loop
from airflow_provider_astrobpm.tasks.deadline import despite_the_alarm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_astrobpm.bpm.api import Action
    from airflow_provider_astrobpm.bpm.batch_result import BatchResult
    from airflow_provider_astrobpm.bpm.condition import WaitCondition
    from airflow_provider_astrobpm.bpm.group_change import GroupChange
    from airflow_provider_astrobpm.bpm.group_wait import GroupEnd
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
    from airflow_provider_astrobpm.tasks.batch_xcoms import PublishedBatch
    from airflow_provider_astrobpm.tasks.waiting import OnFailure, OnTimeout

LATE = "it was still open at the deadline ({!r})"


@dataclass(frozen=True, kw_only=True)
class BatchEnd:
    """The end of a batch.

    :param hook: the hook of the task.
    :param condition: what was waited for.
    :param max_failures: how many launches may fail, or which share.
    :param on_timeout: what becomes of what is open at the deadline.
    :param on_failure: what becomes of what is open when more have failed than may.
    :param max_concurrency: calls under way at once.
    :param poll_interval: seconds between two looks, should the first one fail.
    :param max_poll_failure_time: seconds for which looks may fail in a row.
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

    def conclude(
        self, batch: PublishedBatch, end: GroupEnd, error: Exception | None
    ) -> tuple[BatchResult, BatchFailedError | None]:
        """Return what became of each launch, and the error of the batch if it has failed.

        :param batch: what was started; those of its instances that were not waited for have met the condition before.
        :param end: what had become of the others when the wait ended.
        :param error: what ended the wait before all were decided, if anything did.
        :raises AstroZeroError: that error, if it was not the deadline; or why a success could not be confirmed.
        :raises UnknownEventError: if a success is none, or nothing says why an instance was not decided.
        """
        if error is not None and not isinstance(error, WaitTimeoutError):
            raise error
        ids, refusals = batch.ids, batch.refusals
        started = [one for one in ids if one is not None]
        has_failed = batch_result.result_of(ids, refusals, end, {}).failure(self.max_failures) is not None
        # What has failed already, or has no time left, does not wait for lists that fail: what is open is acted on.
        seen, unseen = self._seen(started, patient=error is None and not has_failed)
        # Such an instance is none of this batch's, and must not be acted on.
        own = Known(tuple(batch.names))
        others = {one: seen.pop(one) for one in started if one in seen and not own.is_of(seen[one])}
        end = group_wait.judged_again(end, batch.awaited, seen, self.condition, others=others)
        notes = [f"How its instances are now could not be read: {unseen}"] if unseen else []
        if error is not None and (late := end.open):
            if self.on_timeout != "leave":
                change = self.change(late, seen, self.on_timeout)
                notes.append(f"By 'on_timeout': {change.note}.")
            reason = LATE.format(error.argument)
            failed = {one: reason for one in late if not self._ended_well(seen.get(one))}
            end = end._replace(failed=end.failed | failed, open=())
        failure = batch_result.result_of(ids, refusals, end, seen, batch.said).failure(self.max_failures)
        if failure is None and unseen is not None:
            raise unseen  # a success that nothing confirms opens no gate
        if failure is None and end.open:
            raise UnknownEventError(end, "it tells of no end")
        if failure is not None and self.on_failure == "terminate":
            ours = [one for one in self._may_be_open(started, end) if one not in others]
            change = self.change(ours, seen, "terminate")
            notes.append(f"By 'on_failure': {change.note}.")
        if failure is not None:
            failure.advice = " ".join(notes)
            failure.connection = self.hook.astro_zero_conn_id
            failure.__cause__ = error
        return batch_result.result_of(ids, refusals, end, seen, batch.said), failure

    def _may_be_open(self, started: Sequence[str], end: GroupEnd) -> list[str]:
        """Return the instances that may be open, whether or not they were seen."""
        if not self.condition.is_lasting:
            return list(started)
        return [one for one in started if one in end.failed or one in end.open]

    def _ended_well(self, instance: BpmInstance | None) -> bool:
        """Tell whether an instance came to its good end in the last moment, which is none of our own doing."""
        return (
            instance is not None
            and class_of(instance.state) is StateClass.SUCCEEDED
            and self.condition.judge(instance).outcome is Outcome.DONE
        )

    def _seen(
        self, ids: Sequence[str], *, patient: bool
    ) -> tuple[dict[str, BpmInstance], AstroZeroError | None]:
        """Poll what has become of the instances, and return those that polls have shown, and why not all of them.

        :param patient: whether to poll for as long as polls may fail. Otherwise it polls once.
        """
        if not ids:
            return {}, None
        roll = group_wait.Roll(dict.fromkeys(ids), max_poll_failure_time=self.max_poll_failure_time)
        if not patient:
            try:
                self.hook.look(roll)
            except AstroZeroError as error:
                return {}, error
            return roll.seen, roll.failure
        self.hook.look(roll)
        if roll.ending is None:
            self.hook.run_wait(roll, poll_interval=self.poll_interval)
        return roll.result(), None

    def change(self, ids: Sequence[str], seen: dict[str, BpmInstance], action: Action) -> GroupChange:
        """Suspend or terminate those of some instances that are open, and take note of how they are then.

        :param ids: the instances.
        :param seen: those that were seen, by their ids, as they were seen last.
        :param action: what to do.
        """
        still_open = {
            one: seen[one].state if one in seen else None
            for one in ids
            if one not in seen or not seen[one].is_closed
        }

        async def work() -> GroupChange:
            async with self.hook.make_async_client(self.hook.settings) as client:
                return await group_change.change_all(
                    client,
                    still_open,
                    action,
                    max_concurrency=self.max_concurrency,
                    log=lambda note: note.write_to(self.log),
                )

        change = despite_the_alarm(lambda: loop.run(work))
        self.log.info(change.note)
        seen |= {one.id: one for one in change.instances}
        return change
