"""The operator that starts a BPM instance and waits for its end."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_astrobpm._airflow.xcom_keys import (
    BUSINESS_KEY,
    INSTANCE_ID,
    INSTANCE_URL,
    WAIT_FINISHED,
)
from airflow_provider_astrobpm.client import validation
from airflow_provider_astrobpm.client import variables as values
from airflow_provider_astrobpm.client.errors import (
    AmbiguousStartError,
    AnotherInstanceError,
    AstroZeroError,
    InstanceNotFoundError,
    WaitFailedError,
    WaitTimeoutError,
)
from airflow_provider_astrobpm.client.sameness import KnownIdentity
from airflow_provider_astrobpm.links.bpm import AstroZeroBpmInstanceLink
from airflow_provider_astrobpm.starting.business_keys import IF_OPEN_INSTANCE_EXISTS
from airflow_provider_astrobpm.task_base import clearing
from airflow_provider_astrobpm.task_base.task_arguments import CheckedVariables, errors_name_task
from airflow_provider_astrobpm.task_base.waiting_operator import WaitingOperator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_astrobpm._airflow.user_action import TaskInstanceRef
    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.operations import Operation
    from airflow_provider_astrobpm.starting.business_keys import IfOpenInstanceExists
    from airflow_provider_astrobpm.starting.decision import StartRecord
    from airflow_provider_astrobpm.starting.instance_starter import StartResult
    from airflow_provider_astrobpm.task_base.termination import KillTarget
    from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmInstanceTrigger
    from airflow_provider_astrobpm.waiting.wait import InstanceWait

OPTIONAL_TEMPLATES = ("version", "variables", "business_key", "title")


class AstroZeroStartBpmInstanceOperator(WaitingOperator):
    """Start a BPM instance and wait until it succeeds.

    The task succeeds when the instance ends in ``Completed OK``, or meets ``states`` and ``bp_statuses``. Any other end fails
    the task. The task returns the instance as a dict (``id``, ``name``, ``version``, ``state``, ``bp_status``,
    ``task_outcome``, ``suspended``, ``is_closed``, ``business_key``, ``start_time``, ``end_time``, ``start_time_utc``, ``end_time_utc``, ``url``). XCom
    ``instance_id`` has its id as soon as it has started.

    One task has one instance. The start is one POST. It is not resent if the server may have processed it. A retry finds the
    instance of an earlier try by its id or its business key, and resumes it. Clearing the task asks for a new instance. See
    ``docs/guarantees.md``.

    :param bpm_name: the name of the BPM as the designer shows it, with its namespace if it has one.
    :param version: the version to run, which need not be the enabled one; by default the enabled one.
    :param variables: values for the variables of the BPM: JSON values, dates and times, and more; ``docs/variables.md`` says
        what is sent.
    :param check_variables: whether the task reads the definition of the BPM first, to refuse variables that the BPM does not
        have; Astro Zero ignores those silently. This costs two requests, and the token needs the right to view BPMs. If the
        definition lists no variables, the check is not possible, and the log says so.
    :param business_key: the business key of the instance, ``$Flow.BusinessKey``; by default a key that only this task uses.
    :param if_open_instance_exists: what to do if an open instance has the given ``business_key``: ``"start"`` another one,
        ``"adopt"`` the open one, or ``"fail"``.
    :param title: the title of the instance, ``$Flow.Title``; by default it names DAG, task and run.
    :param wait_for_completion: whether the task waits; if ``False``, it succeeds as soon as the instance started.
    :param deferrable: whether the task waits in the triggerer and holds no worker slot; by default as Airflow's setting
        ``operators.default_deferrable`` says.
    :param poll_interval: seconds between two polls, at least 1. Deferred tasks on one endpoint share their polls, at the
        smallest interval of all of them.
    :param timeout: seconds after which the wait fails; by default there is no limit. Airflow's ``execution_timeout`` limits
        the wait as well, also while the task is deferred.
    :param on_timeout: what to do with the instance then: ``"leave"`` it as it is, ``"suspend"`` or ``"terminate"`` it.
    :param states: states to wait for; by default ``Completed OK``. See ``WaitCondition``.
    :param bp_statuses: business statuses to wait for, such as ``["Approved"]``, alone or together with ``states``.
    :param failed_states: states that fail the task.
    :param failed_bp_statuses: business statuses that fail the task at once, even while the instance is open. Without
        ``bp_statuses`` any other status succeeds.
    :param on_suspended: whether the task waits until a suspended instance is resumed (``"wait"``), or the instance fails the task (``"fail"``).
    :param max_poll_failure_time: seconds for which polls may fail in a row before the task fails.
    :param terminate_on_kill: whether the instance is terminated when a user ends the waiting task: marks it as failed or
        successful, clears it, or fails its run.
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    template_fields: Sequence[str] = (*WaitingOperator.template_fields, "bpm_name", *OPTIONAL_TEMPLATES)
    template_fields_renderers: ClassVar[dict[str, str]] = {"variables": "json"}
    operator_extra_links = (AstroZeroBpmInstanceLink(),)
    variables: Any = CheckedVariables()

    def __init__(
        self,
        *,
        bpm_name: str,
        version: str | None = None,
        variables: Mapping[str, Any] | None = None,
        business_key: str | None = None,
        title: str | None = None,
        check_variables: bool = False,
        wait_for_completion: bool = True,
        poll_interval: float | timedelta = 60,
        timeout: float | timedelta | None = None,
        terminate_on_kill: bool = True,
        if_open_instance_exists: IfOpenInstanceExists = "start",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.bpm_name = bpm_name
        self.version = version
        self.variables = variables
        self.business_key = business_key
        self.title = title
        defaults = kwargs.get("default_args")
        with errors_name_task(self.task_id):
            self.check_variables = validation.boolean(check_variables, "check_variables")
            self.wait_for_completion = validation.boolean(wait_for_completion, "wait_for_completion")
            self.poll_interval = validation.poll_interval(poll_interval)
            self.timeout = validation.timeout(timeout)
            self.terminate_on_kill = validation.boolean(terminate_on_kill, "terminate_on_kill")
            self.if_open_instance_exists = validation.choice(
                if_open_instance_exists, "if_open_instance_exists", IF_OPEN_INSTANCE_EXISTS
            )
            if business_key is None:
                self._refuse_unused(defaults, "without a business_key", {"if_open_instance_exists": "start"})
            self._refuse_unused_wait_arguments(defaults)
        self._provided_args |= validation.provided_arguments(self, OPTIONAL_TEMPLATES)
        self._kill_target: tuple[KillTarget, TaskInstanceRef] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Start the instance, or resume the one of an earlier try, and wait for it unless the task does not wait."""
        self._check_identifiers("bpm_name", "version", "business_key")
        if self.title is not None:
            self.title = validation.rendered_text(self.title, "title")
        if self.variables is not None:
            self.variables = values.json_ready(self.variables, self.zone)
        self._warn_if_any_status_succeeds()
        self._check_deferral()
        try:
            try:
                launched = self._launch(context)
            except AmbiguousStartError as error:
                clearing.add_clear_advice(error)
                raise
            instance = launched.instance
            self._report_instance(instance)
            with self._annotate_open_instance(context, instance.id):
                self._publish(instance, context)
                if not self.wait_for_completion:
                    return self.hook.as_dict(instance)
                return self._wait_for(instance, launched.record.deadline, context)
        finally:
            # From now on the result is known or the task is deferred, so a kill of this process terminates nothing.
            self._kill_target = None

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Resume with the trigger's event."""
        instance_id = self._awaited_id(context)
        self._report_unpolled(instance_id, name=self.bpm_name)
        with self._annotate_open_instance(context, instance_id):
            try:
                instance = self._instance_in_event(event, instance_id)
            except WaitTimeoutError as error:
                instance = self._apply_on_timeout(error, instance_id)
            return self._done(instance, context)

    def on_kill(self) -> None:
        """Terminate the instance if a user ended the task while it was on a worker."""
        if self._kill_target is not None and self.terminate_on_kill:
            from airflow_provider_astrobpm.task_base.termination import terminate_instance  # noqa: PLC0415

            terminate_instance(self.hook.settings, *self._kill_target, self.log)

    def _launch(self, context: Context) -> StartResult:
        from airflow_provider_astrobpm._airflow.user_action import TaskInstanceRef  # noqa: PLC0415
        from airflow_provider_astrobpm.client import operations  # noqa: PLC0415
        from airflow_provider_astrobpm.starting import decision  # noqa: PLC0415
        from airflow_provider_astrobpm.task_base.task_state_record import begin_try  # noqa: PLC0415
        from airflow_provider_astrobpm.task_base.termination import KillTarget  # noqa: PLC0415

        begun = begin_try(context, decision.StartRecord, retries=self.retries or 0)
        state_record, this, known = begun.state_record, begun.this, begun.record
        if self.check_variables and self.variables is not None and not begun.has_started:
            names = values.named(self.variables)
            self.hook.check_variables(self.bpm_name, names, version=self.version)

        title = self.title
        if title is None and operations.TITLE_VARIABLE not in (self.variables or {}):
            title = this.identity.title()

        @cache  # the hook checks the operation before the start asks for it
        def operation(business_key: str) -> Operation[BpmInstance]:
            return operations.start(
                self.bpm_name,
                version=self.version,
                variables=self.variables,
                business_key=business_key,
                title=title,
            )

        task = TaskInstanceRef.of(context["ti"])
        order = decision.StartRequest(
            start=operation,
            bpm_name=self.bpm_name,
            **vars(this),
            business_key=self.business_key,
            if_open_instance_exists=self.if_open_instance_exists,
            keeps_open=not self.terminate_on_kill,
            accepts=self._accepts,
            timeout=self._wait_limits.seconds,
            grace=self.hook.settings.start_grace,
        )

        def remember(record: StartRecord) -> None:
            # A kill between the start and its response knows only the key. A key that the author gave is not unique.
            key = order.key(record.launch)
            if record.instance_id or (record.posted_at is not None and self.business_key is None):
                self._kill_target = KillTarget(key, record.instance_id), task
            else:
                self._kill_target = None
            state_record.write(record)

        launched = self.hook.launch(order, known, remember=remember)
        self._kill_target = KillTarget(order.key(launched.record.launch), launched.instance.id), task
        return launched

    def _accepts(self, instance: BpmInstance) -> bool:
        """Return whether a closed instance of an earlier try meets the condition of this task."""
        return self._meets_condition(instance) if self.wait_for_completion else True

    def _publish(self, instance: BpmInstance, context: Context) -> None:
        """Publish the instance before anything else can fail."""
        url = self.hook.settings.page_url(instance.id)
        self.instance_url = url or ""
        seen = {INSTANCE_ID: instance.id, BUSINESS_KEY: instance.business_key, INSTANCE_URL: url}
        for key, value in seen.items():
            if value is not None:
                context["ti"].xcom_push(key=key, value=value)
        if url:
            self.log.info("The instance is shown at %s", url)

    def _wait_for(self, instance: BpmInstance, deadline: float | None, context: Context) -> dict[str, Any]:
        known = KnownIdentity.of(instance, self.bpm_name)
        awaited = self._instance_wait(deadline, known, seen=instance)
        self._begin_wait(awaited)
        try:
            ended = self._wait_here(awaited, poll_interval=self.poll_interval)
        except WaitTimeoutError as error:
            ended = self._apply_on_timeout(error, instance.id)
        return self._done(ended, context)

    def _done(self, instance: BpmInstance, context: Context) -> dict[str, Any]:
        self._report_instance(instance)
        context["ti"].xcom_push(key=WAIT_FINISHED, value=instance.id)
        self.log.info("The wait is over: %s", instance)
        return self.hook.as_dict(instance)

    def _new_wait(self, context: Context, deadline: float | None) -> InstanceWait:
        return self._instance_wait(deadline, self._known, instance_id=self._awaited_id(context))

    def _awaited_id(self, context: Context) -> str | None:
        """Return the id of the instance for which this try was deferred, or which it published before."""
        ti = context["ti"]
        published: str | None = ti.xcom_pull(task_ids=ti.task_id, key=INSTANCE_ID, map_indexes=ti.map_index)
        return self._deferred_for or published

    def _instance_wait(self, deadline: float | None, known: KnownIdentity, **instance: Any) -> InstanceWait:
        from airflow_provider_astrobpm.waiting import wait  # noqa: PLC0415

        awaited = wait.InstanceWait(
            self._condition(), known=known, max_poll_failure_time=self.max_poll_failure_time, **instance
        )
        return self._with_deadline(awaited, deadline)

    def _trigger_for(self, awaited: InstanceWait | None) -> AstroZeroBpmInstanceTrigger:
        return self._trigger(
            awaited,
            instance_id=awaited.instance_id if awaited else None,
            bpm_name=self.bpm_name,
            poll_interval=self.poll_interval,
            terminate_on_kill=self.terminate_on_kill,
        )

    @contextmanager
    def _annotate_open_instance(self, context: Context, instance_id: str | None) -> Iterator[None]:
        """On failure, record that the instance may be open, and add to the error what retry and clear will do with it."""
        try:
            yield
        except (Exception, AirflowTaskTimeout) as error:
            seen = error.instance if isinstance(error, (WaitFailedError, WaitTimeoutError)) else None
            self._report_instance(seen)
            if seen is None or not seen.is_closed:
                # A wait that failed because of the instance itself would fail again if it were resumed.
                if isinstance(error, WaitFailedError):
                    is_resumable = error.instance.suspended
                else:
                    is_resumable = not isinstance(error, AnotherInstanceError)
                recorded = self._record_open_instance(context, instance_id, is_resumable=is_resumable)
                words = self._open_instance_advice(instance_id, error, seen, adopts=recorded and is_resumable)
                if isinstance(error, AstroZeroError):
                    error.advice = f"{error.advice} {words}".lstrip()
                else:
                    self.log.error(words)  # noqa: TRY400 - the error itself is raised, and logged by Airflow
            raise

    def _record_open_instance(self, context: Context, instance_id: str | None, *, is_resumable: bool) -> bool:
        import msgspec  # noqa: PLC0415

        from airflow_provider_astrobpm.starting.decision import StartRecord  # noqa: PLC0415
        from airflow_provider_astrobpm.task_base.task_state_record import TaskStateRecord  # noqa: PLC0415

        try:
            context["ti"].xcom_push(key=WAIT_FINISHED, value=instance_id)
            state_record = TaskStateRecord(context, StartRecord)
            record = state_record.read()
            if record is None or record.instance_id != instance_id:
                return False
            state_record.write(msgspec.structs.replace(record, left_open=is_resumable))
        except (Exception, AirflowTaskTimeout):
            self.log.exception("Could not record that the instance stays open")
            return False
        return True

    def _open_instance_advice(
        self, instance_id: str | None, error: BaseException, seen: BpmInstance | None, *, adopts: bool
    ) -> str:
        first = "Resume it; then a retry" if seen is not None and seen.suspended else "A retry"
        if isinstance(error, InstanceNotFoundError):
            then = "A retry resumes it if it appears again. "
            if adopts:
                then += "So does clearing this task; clearing it a second time starts a new one."
                then += clearing.advice("the first clear starts a new one")
            else:
                then += "Clearing this task starts a new one."
        elif isinstance(error, AnotherInstanceError):
            then = "A retry does not resume the instance that has its id now; clearing this task starts a new one."
        elif adopts or not self.terminate_on_kill:
            then = f"{first} keeps waiting for it, and so does clearing this task."
            if adopts and (self.terminate_on_kill or self.business_key is not None):
                then += clearing.advice("the task no longer knows this instance, and may start another one")
        else:
            then = f"{first} keeps waiting for it; clearing this task terminates it and starts a new one."
        return f"Instance {instance_id!r} on connection {self.astro_zero_conn_id!r} may still be open. {then}"
