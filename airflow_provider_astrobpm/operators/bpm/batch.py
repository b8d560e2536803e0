"""The operator that starts thousands of BPM instances from one task and waits for all of them."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_astrobpm.client import validation
from airflow_provider_astrobpm.client.errors import AstroZeroError, UnknownEventError
from airflow_provider_astrobpm.client.states import StateClass, class_of
from airflow_provider_astrobpm.task_base import clearing
from airflow_provider_astrobpm.task_base.task_arguments import (
    CheckedLaunches,
    errors_name_task,
    require_exactly_one,
)
from airflow_provider_astrobpm.task_base.waiting_operator import ON_FAILURE, WaitingOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_astrobpm.batches.batch_input import BatchInputSummary, Launch
    from airflow_provider_astrobpm.batches.batch_results import BatchResult
    from airflow_provider_astrobpm.batches.batch_run import BatchRun, BatchStartResult
    from airflow_provider_astrobpm.client.errors import BatchFailedError
    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.task_base.batch_completion import BatchCompletion
    from airflow_provider_astrobpm.task_base.batch_xcoms import PublishedBatch
    from airflow_provider_astrobpm.task_base.waiting_operator import OnFailure
    from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmBatchTrigger
    from airflow_provider_astrobpm.waiting.batch_wait import BatchWait, BatchWaitResult

TEMPLATES = ("launches", "launches_path", "bpm_name", "version", "result_path")
MAX_RETURNED_LAUNCHES = 500
STOPPING = "The task process is stopping"


class AstroZeroStartBpmBatchOperator(WaitingOperator):
    """Start many BPM instances and wait until all of them have ended.

    Each launch is a mapping with some of ``bpm_name``, ``version``, ``variables``, ``business_key``, ``title`` and ``id``, as the
    start operator takes them. The default title names DAG, task, launch and run. The ``id`` is yours; it identifies the launch in
    the result. Each launch has one instance, whatever crashes. A retry searches once for the whole batch, starts the missing
    launches, and starts those again that were refused or have failed. So does clearing a failed task. Clearing a task that waits
    or has succeeded asks for a new batch. See ``docs/batch.md``.

    The task succeeds if at most ``max_failures`` launches have failed. It returns the number of launches with each outcome
    (``total``, ``succeeded``, ``failed``, ``refused``, ``open``, ``not_started``, ``started``), and in ``launches`` the outcomes of the
    first 500. Failed launches come first, with their reasons. Each has its ``id``, or its line number if it has none. XCom ``result``
    is the same, also if the task has failed.

    :param launches: the launches, as a list of mappings.
    :param launches_path: or the path of a file of launches, ``.jsonl``, ``.ndjson`` or ``.csv``, in a storage that Airflow's
        object storage can read.
    :param launches_conn_id: the Airflow connection to read the file with.
    :param bpm_name: the BPM of launches that name none.
    :param version: its version; by default the enabled one.
    :param validate_first: whether the whole input is checked before anything is started.
    :param check_variables: whether the task reads the definitions of the BPMs first, to refuse launches with variables that their
        BPM does not have; Astro Zero ignores those silently. If a definition lists no variables, the check is not possible, and
        the log says so.
    :param max_concurrency: the maximum number of calls to Astro Zero at the same time.
    :param rate_limit: the maximum number of starts per second; by default there is no limit.
    :param wait_for_completion: whether the task waits; if ``False``, it succeeds as soon as everything was started.
    :param deferrable: whether the task waits in the triggerer and holds no worker slot; by default as Airflow's setting
        ``operators.default_deferrable`` says. One trigger waits for the whole batch.
    :param poll_interval: seconds between two polls, at least 1.
    :param timeout: seconds after which the wait fails, counted from when everything was started; by default there is no limit.
        Airflow's ``execution_timeout`` limits the wait as well, also while the task is deferred.
    :param on_timeout: what to do with open instances then: ``"leave"`` them as they are, ``"suspend"`` or ``"terminate"`` them.
    :param max_failures: how many launches may fail: a number, or a share of all launches as a ``float`` below 1.
    :param fail_fast: whether the task fails and starts no more as soon as more launches have failed; by default all are
        started and waited for first.
    :param on_failure: what to do with open instances if more launches have failed: ``"leave"`` or ``"terminate"`` them.
    :param result_path: the path of a file for the outcome of each launch, ``.jsonl``, ``.ndjson`` or ``.csv``; then the result has
        no ``launches``. The task checks that it can write there before it starts anything.
    :param result_conn_id: the Airflow connection to write the file with.
    :param result_variables: whether the outcome of each launch includes its variables. Until then they are in an XCom.
    :param states: states to wait for; by default ``Completed OK``. See ``WaitCondition``.
    :param bp_statuses: business statuses to wait for, such as ``["Approved"]``, alone or together with ``states``.
    :param failed_states: states that fail a launch.
    :param failed_bp_statuses: business statuses that fail a launch at once, even while the instance is open. Without
        ``bp_statuses`` any other status succeeds.
    :param on_suspended: whether the task waits until a suspended instance is resumed (``"wait"``), or the instance fails its launch (``"fail"``).
    :param max_poll_failure_time: seconds for which polls may fail in a row before the task fails.
    :param terminate_on_kill: whether open instances are terminated when a user ends the waiting task: marks it as failed or
        successful, clears it, or fails its run.
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    template_fields: Sequence[str] = (*WaitingOperator.template_fields, *TEMPLATES)
    template_fields_renderers: ClassVar[dict[str, str]] = {"launches": "json"}
    launches: Any = CheckedLaunches()

    def __init__(
        self,
        *,
        launches: Sequence[Mapping[str, Any]] | None = None,
        launches_path: str | None = None,
        launches_conn_id: str | None = None,
        bpm_name: str | None = None,
        version: str | None = None,
        validate_first: bool = True,
        check_variables: bool = False,
        max_concurrency: int = 16,
        rate_limit: float | None = None,
        wait_for_completion: bool = True,
        poll_interval: float | timedelta = 60,
        timeout: float | timedelta | None = None,
        max_failures: float = 0,
        fail_fast: bool = False,
        on_failure: OnFailure = "leave",
        result_path: str | None = None,
        result_conn_id: str | None = None,
        result_variables: bool = False,
        terminate_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        defaults = kwargs.get("default_args")
        self.launches = launches
        self.launches_path = launches_path
        self.launches_conn_id = launches_conn_id
        self.bpm_name = bpm_name
        self.version = version
        self.result_path = result_path
        self.result_conn_id = result_conn_id
        with errors_name_task(self.task_id):
            require_exactly_one(self, defaults, "launches", "launches_path")
            self.validate_first = validation.boolean(validate_first, "validate_first")
            self.check_variables = validation.boolean(check_variables, "check_variables")
            self.max_concurrency = validation.count(max_concurrency, "max_concurrency", least=1)
            self.rate_limit = None if rate_limit is None else validation.rate(rate_limit, "rate_limit")
            self.wait_for_completion = validation.boolean(wait_for_completion, "wait_for_completion")
            self.poll_interval = validation.poll_interval(poll_interval)
            self.timeout = validation.timeout(timeout)
            self.max_failures = validation.number_or_share(max_failures, "max_failures")
            self.fail_fast = validation.boolean(fail_fast, "fail_fast")
            self.result_variables = validation.boolean(result_variables, "result_variables")
            self.on_failure = validation.choice(on_failure, "on_failure", ON_FAILURE)
            self.terminate_on_kill = validation.boolean(terminate_on_kill, "terminate_on_kill")
            self._refuse_unused_wait_arguments(defaults, on_failure="leave")
            if self.check_variables and not self.validate_first:
                raise ValueError("check_variables needs validate_first=True: it checks the whole input first")
            if fail_fast and isinstance(max_failures, float) and not validate_first:
                raise ValueError(
                    "with validate_first=False the number of launches is unknown, so max_failures must be a number and not a share"
                )
        self._provided_args |= validation.provided_arguments(self, TEMPLATES)
        self._launcher: BatchRun | None = None
        self._awaited: BatchWait | None = None
        self._published: PublishedBatch
        self._may_fail: int | None = None
        self._satisfied: Collection[int] = ()
        self._is_stopping = False
        self._ended_by_user = False

    def execute(self, context: Context) -> dict[str, Any]:
        """Start the missing launches of the batch, and wait for all unless the task does not wait."""
        from airflow_provider_astrobpm.batches import batch_input  # noqa: PLC0415
        from airflow_provider_astrobpm.batches.batch_record import BatchRecord  # noqa: PLC0415
        from airflow_provider_astrobpm.batches.batch_results import BatchResult  # noqa: PLC0415
        from airflow_provider_astrobpm.task_base import batch_variables  # noqa: PLC0415
        from airflow_provider_astrobpm.task_base.task_state_record import begin_try  # noqa: PLC0415

        self._begun = begin_try(context, BatchRecord, retries=self.retries or 0)
        try:
            with self._mark_resumable_on_failure(context):
                self._check(context)
                read, survey = self._reader(), None
                if self.validate_first:
                    survey, read = batch_input.validate_all(read)
                    # A batch that a try has begun to start was checked before.
                    if self.check_variables and not self._begun.has_started:
                        batch_variables.check(self.hook, survey.variable_names)
                if survey is not None and survey.total == 0:
                    self.log.info("The batch is empty: nothing is started")
                    return self._publish_result(BatchResult([]), context)
                try:
                    launched = self._launch(read, survey, context)
                except AirflowTaskTimeout:
                    self._apply_on_timeout_to_started()
                    raise
                return self._publish_and_wait(launched, context)
        finally:
            # From now on the result is known or the task is deferred, so a kill of this process terminates nothing.
            self._launcher = self._awaited = None

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Resume with the trigger's event."""
        from airflow_provider_astrobpm.task_base import batch_xcoms  # noqa: PLC0415
        from airflow_provider_astrobpm.waiting import event_payload as events  # noqa: PLC0415

        with self._mark_resumable_on_failure(context):
            self._published = batch_xcoms.published(context)
            self._report_instances(len(self._published.ids), {}, self._published.ids)
            end, error = events.load_batch(event, self._published.awaited)
            if end is None:
                raise error or UnknownEventError(event, "it reports nothing")
            return self._end(end, error, context)

    def _poll_again(self, context: Context, deadline: float | None) -> Any:
        with self._mark_resumable_on_failure(context):
            return super()._poll_again(context, deadline)

    def on_kill(self) -> None:
        """Stop starting, and terminate the open instances of the batch if a user ended the task while it was on a worker."""
        self._is_stopping = True
        if self._launcher is None:
            return
        from airflow_provider_astrobpm.task_base import termination  # noqa: PLC0415

        self._launcher.stop(AstroZeroError(STOPPING))
        self._ended_by_user = termination.was_ended_by_user(self._published.task, "The batch", self.log)
        if self._launcher.under_way:
            self.log.warning(
                "%s starts were in progress; their instances are not terminated", self._launcher.under_way
            )
        if self._ended_by_user and self.terminate_on_kill:
            termination.terminate_batch(
                self.hook.settings, self._open_instances(), self.log, max_concurrency=self.max_concurrency
            )

    def _open_instances(self) -> dict[str, str | None]:
        """Return the ids of the instances that may be open, each with its last polled state."""
        from airflow_provider_astrobpm.client.search import SearchRequest  # noqa: PLC0415

        sought = SearchRequest()
        if self._awaited is not None:
            self._awaited.add_to_query(sought)
        elif self._launcher is not None:
            started = self._launcher.instances.values()
            sought.ids |= {one.id: one.state for one in started if not one.is_closed}
        return sought.ids

    def _check(self, context: Context) -> None:
        """Check everything except the launches. If the task will defer, also check that its trigger can be created."""
        from airflow_provider_astrobpm.task_base import batch_xcoms  # noqa: PLC0415

        self._check_identifiers("bpm_name", "version")
        self._warn_if_any_status_succeeds()
        if self.result_path is not None:
            from airflow_provider_astrobpm.task_base import batch_result_file  # noqa: PLC0415

            batch_result_file.check(self.result_path, conn_id=self.result_conn_id)
        self._published = batch_xcoms.unpublished(context)
        self._check_deferral()

    def _reader(self) -> Callable[[], Iterator[Launch]]:
        """Return a function that reads the launches from the beginning each time it is called."""
        from airflow_provider_astrobpm.batches import batch_input  # noqa: PLC0415
        from airflow_provider_astrobpm.task_base import batch_input_file  # noqa: PLC0415

        named: dict[str, Any] = {
            "bpm_name": self.bpm_name,
            "version": self.version,
            "title_of": self._begun.this.identity.title,
            "zone": self.zone,
        }
        if self.launches_path is not None:
            path, conn_id = validation.non_blank(self.launches_path, "launches_path"), self.launches_conn_id
            return lambda: batch_input.parse_launches(batch_input_file.read(path, conn_id=conn_id), **named)
        # Only once, because the launches of an upstream task may be fetched one by one.
        items = list(batch_input.with_positions(self.launches))
        return lambda: batch_input.parse_launches(items, **named)

    def _launch(
        self, read: Callable[[], Iterator[Launch]], survey: BatchInputSummary | None, context: Context
    ) -> BatchStartResult:
        """Start the missing launches. Without a summary of the input, it is started while it is read."""
        from airflow_provider_astrobpm.batches import batch_record, batch_run  # noqa: PLC0415
        from airflow_provider_astrobpm.batches.batch_results import allowed_failures  # noqa: PLC0415
        from airflow_provider_astrobpm.batches.batch_sender import BatchSender  # noqa: PLC0415
        from airflow_provider_astrobpm.task_base import batch_xcoms, heartbeat, thread_loop  # noqa: PLC0415

        state_record, this, record = self._begun.state_record, self._begun.this, self._begun.record
        settings = self.hook.settings
        order = batch_record.BatchRequest(
            **vars(this),
            keeps_open=not self.terminate_on_kill,
            accepts=self._accepts,
            own_keys=survey.own_keys if survey else {},
            timeout=self._wait_limits.seconds,
            grace=settings.start_grace,
        )
        key = f"{this.identity.batch_prefix}{order.oldest(record)}-"
        self._published = batch_xcoms.publish_key(context, key)
        total = survey.total if survey else None
        may_be_refused = allowed_failures(self.max_failures, total or 0) if self.fail_fast else None

        async def work() -> BatchStartResult:
            async with self.hook.make_async_client(settings) as client:
                self._launcher = launcher = batch_run.BatchRun(
                    order,
                    read,
                    sender=BatchSender(
                        client,
                        max_concurrency=self.max_concurrency,
                        rate_limit=self.rate_limit,
                        grace=settings.start_grace,
                        log=lambda note: note.write_to(self.log),
                    ),
                    remember=state_record.write,
                    total=total,
                    may_be_refused=may_be_refused,
                    with_variables=self.result_variables,
                )
                if self._is_stopping:
                    raise AstroZeroError(STOPPING)
                supervision = asyncio.ensure_future(heartbeat.stop_when_superseded(launcher.stop))
                try:
                    return await launcher.launch(record)
                finally:
                    supervision.cancel()

        return thread_loop.run_in_thread_loop(work)

    def _apply_on_timeout_to_started(self) -> None:
        """Apply ``on_timeout`` to the started instances if ``execution_timeout`` has passed before everything was started."""
        if self.on_timeout == "leave" or self._launcher is None:
            return
        self.log.warning(
            "'execution_timeout' has passed before everything was started; applying 'on_timeout' to the open instances"
        )
        seen = {one.id: one for one in self._launcher.instances.values()}
        self._batch_completion.change(list(seen), seen, self.on_timeout)

    def _publish_and_wait(self, launched: BatchStartResult, context: Context) -> dict[str, Any]:
        """Publish the started instances, and wait for them."""
        from airflow_provider_astrobpm.batches import batch_results  # noqa: PLC0415
        from airflow_provider_astrobpm.task_base import batch_xcoms  # noqa: PLC0415

        self._published = batch = batch_xcoms.publish(context, launched, bpm_name=self.bpm_name)
        self._report_instances(len(batch.ids), {}, batch.ids)
        if not self.wait_for_completion:
            seen = {one.id: one for one in launched.instances.values()}
            result = batch_results.build_result(batch.ids, batch.refusals, None, seen, batch.author_fields)
            return self._publish_result(result, context, result.failure(self.max_failures))
        members = [one for number, one in launched.instances.items() if number not in launched.met]
        self._awaited = awaited = self._new_group_wait(members, launched.record.deadline)
        self._begin_wait(awaited)
        ending = None
        try:
            self._wait_here(awaited, poll_interval=self.poll_interval)
        except AstroZeroError as error:
            ending = error
        return self._end(awaited.so_far(), ending, context)

    def _accepts(self, instance: BpmInstance) -> bool:
        """Return whether a closed instance of an earlier try meets the condition of this task."""
        # A kill of this task may have cancelled the instance.
        if not self.wait_for_completion:
            return class_of(instance.state) is not StateClass.CANCELLED
        return self._meets_condition(instance)

    def _new_group_wait(self, members: Any, deadline: float | None) -> BatchWait:
        from airflow_provider_astrobpm.batches import batch_results  # noqa: PLC0415
        from airflow_provider_astrobpm.waiting import batch_wait  # noqa: PLC0415

        ids, refusals = self._published.ids, self._published.refusals
        most = batch_results.allowed_failures(self.max_failures, len(ids)) - len(refusals)
        self._may_fail = most if self.fail_fast else None
        awaited = batch_wait.BatchWait(
            self._condition(),
            members,
            max_poll_failure_time=self.max_poll_failure_time,
            may_fail=self._may_fail,
            names=self._published.names,
        )
        return self._with_deadline(awaited, deadline)

    def _new_wait(self, context: Context, deadline: float | None) -> BatchWait:
        from airflow_provider_astrobpm.task_base import batch_xcoms  # noqa: PLC0415

        self._published = batch_xcoms.published(context)
        return self._new_group_wait(dict.fromkeys(self._published.awaited), deadline)

    def _trigger_for(self, awaited: BatchWait | None) -> AstroZeroBpmBatchTrigger:
        from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmBatchTrigger  # noqa: PLC0415

        return AstroZeroBpmBatchTrigger(
            may_fail=self._may_fail,
            poll_interval=self.poll_interval,
            terminate_on_kill=self.terminate_on_kill,
            **self._published.trigger_arguments,
            **self._common_trigger_kwargs(awaited),
        )

    def _event_for(self, awaited: BatchWait) -> dict[str, Any]:
        from airflow_provider_astrobpm.waiting import event_payload  # noqa: PLC0415

        error = awaited.ending if isinstance(awaited.ending, Exception) else None
        return event_payload.dump_batch(awaited.so_far(), awaited.ids, error)

    def _end(self, end: BatchWaitResult, error: Exception | None, context: Context) -> dict[str, Any]:
        result, failure = self._batch_completion.complete(self._published, end, error)
        return self._publish_result(result, context, failure)

    @property
    def _batch_completion(self) -> BatchCompletion:
        from airflow_provider_astrobpm.task_base.batch_completion import BatchCompletion  # noqa: PLC0415

        return BatchCompletion(
            hook=self.hook,
            condition=self._condition(),
            max_failures=self.max_failures,
            on_timeout=self.on_timeout,
            on_failure=self.on_failure,
            max_concurrency=self.max_concurrency,
            poll_interval=self.poll_interval,
            max_poll_failure_time=self.max_poll_failure_time,
            log=self.log,
        )

    def _publish_result(
        self, result: BatchResult, context: Context, failure: BatchFailedError | None = None
    ) -> dict[str, Any]:
        """Write the result file if there is one, publish the result, and return it or raise the error of the batch."""
        from airflow_provider_astrobpm.batches import batch_results  # noqa: PLC0415
        from airflow_provider_astrobpm.task_base import batch_result_file, batch_xcoms  # noqa: PLC0415

        settings = self.hook.settings
        rows = (
            end.as_dict(
                url=settings.page_url(end.instance_id) if end.instance_id else None,
                timezone=settings.timezone,
            )
            for end in result
        )
        whole: dict[str, Any] = {"total": len(result), **result.counts, "launches": [], "result_path": None}
        if self.result_path is not None:
            whole["result_path"] = batch_result_file.write(
                self.result_path,
                rows,
                conn_id=self.result_conn_id,
                columns=batch_results.result_columns(with_variables=self.result_variables),
            )
        else:
            whole["launches"] = list(islice(rows, MAX_RETURNED_LAUNCHES))
            if len(result) > MAX_RETURNED_LAUNCHES:
                self.log.warning(
                    "The result has %s of %s launches; set result_path to get all",
                    MAX_RETURNED_LAUNCHES,
                    len(result),
                )
        batch_xcoms.publish_result(context, whole)
        self._report_instances(len(result), result.counts, self._published.ids)
        self.log.info("The batch is over. %s", result)
        if failure is not None:
            self._satisfied = () if self._condition().is_permanent else result.numbers("succeeded")
            raise failure
        batch_xcoms.publish_wait_over(context)
        return whole

    @contextmanager
    def _mark_resumable_on_failure(self, context: Context) -> Iterator[None]:
        """On failure, record that a clear resumes the batch, and add to the error what retry and clear will do."""
        try:
            yield
        except (Exception, AirflowTaskTimeout) as error:
            is_resumable = self._record_failure(context)
            clear = "so does clearing this task" if is_resumable else "clearing this task starts a new batch"
            words = f"A retry starts only the launches of this batch that are not open and have not succeeded; {clear}."
            if is_resumable:
                words += clearing.advice("a new batch starts")
            if not isinstance(error, AstroZeroError):
                self.log.error(words)  # noqa: TRY400 - the error itself is raised, and logged by Airflow
            elif words not in error.advice:
                error.advice = f"{error.advice} {words}".lstrip()
            raise

    def _record_failure(self, context: Context) -> bool:
        """Record that the batch is unfinished, and return whether a clear resumes it."""
        from airflow_provider_astrobpm.batches.batch_record import BatchRecord  # noqa: PLC0415
        from airflow_provider_astrobpm.task_base import batch_xcoms  # noqa: PLC0415
        from airflow_provider_astrobpm.task_base.task_state_record import TaskStateRecord, task_try  # noqa: PLC0415

        try:
            batch_xcoms.publish_wait_over(context)
            state_record = TaskStateRecord(context, BatchRecord)
            record = state_record.read()
            if record is None:
                return False
            this = task_try(context, retries=self.retries or 0, record=record)
            if record.generation == this.generation:
                # If a user ended the task, a clear asks for a new batch.
                record = record.failed(unfinished=not self._ended_by_user, met=self._satisfied)
                state_record.write(record)
        except (Exception, AirflowTaskTimeout):
            self.log.exception("Could not record that the batch is unfinished")
            return False
        return record.unfinished
