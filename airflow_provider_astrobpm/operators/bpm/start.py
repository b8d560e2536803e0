"""The operator that starts a BPM instance and waits for its end."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_astrobpm._airflow.xcom_keys import BUSINESS_KEY, INSTANCE_ID, INSTANCE_URL, WAIT_OVER
from airflow_provider_astrobpm.bpm import checks
from airflow_provider_astrobpm.bpm import variables as values
from airflow_provider_astrobpm.bpm.errors import (
    AmbiguousStartError,
    AnotherInstanceError,
    AstroZeroError,
    InstanceNotFoundError,
    WaitFailedError,
    WaitTimeoutError,
)
from airflow_provider_astrobpm.bpm.identity import IF_OPEN_INSTANCE_EXISTS
from airflow_provider_astrobpm.bpm.sameness import Known
from airflow_provider_astrobpm.links.bpm import AstroZeroBpmInstanceLink
from airflow_provider_astrobpm.tasks import clearing
from airflow_provider_astrobpm.tasks.arguments import CheckedVariables, task_named
from airflow_provider_astrobpm.tasks.waiting import WaitingTask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_astrobpm.bpm.adoption import Record
    from airflow_provider_astrobpm.bpm.api import Operation
    from airflow_provider_astrobpm.bpm.identity import IfOpenInstanceExists
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.launch import Launched
    from airflow_provider_astrobpm.bpm.wait import Wait
    from airflow_provider_astrobpm.tasks.kill import AtStake
    from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmInstanceTrigger
    from airflow_provider_astrobpm.triggers.kill import TaskInstanceKey


class AstroZeroStartBpmInstanceOperator(WaitingTask):
    """Start a BPM instance and wait until it has come to a good end.

    The task succeeds when the instance ends in ``Completed OK``, or as ``states`` and ``bp_statuses`` ask, and fails
    on any other end. It returns the instance as a dict (``id``, ``name``, ``version``, ``state``, ``bp_status``,
    ``task_outcome``, ``suspended``, ``is_closed``, ``business_key``, ``start_time``, ``end_time``, ``start_time_utc``, ``end_time_utc``, ``url``); its id is
    in XCom ``instance_id`` as soon as it has started.

    One task has one instance. The start is one POST, which is never sent again when it may have been taken; a retry finds
    what an earlier try has started by its id or its business key, and goes on with it. Clearing the task asks for a new
    one. See ``docs/guarantees.md``.

    :param bpm_name: the BPM's name, as the designer shows it, with its namespace where it has one.
    :param version: the version to run, even if it is not the enabled one; without it the enabled one runs.
    :param variables: values for the BPM's variables: what JSON can hold, dates and times, and more; see
        ``docs/variables.md`` for what is sent.
    :param check_variables: whether the definition of the BPM is read first, to refuse variables that it does not have:
        Astro Zero ignores them without a word. It costs two requests, and the token needs the right to view BPMs. Where the
        definition lists no variables it cannot be told, and the log says so.
    :param business_key: the instance's business key, ``$Flow.BusinessKey``; by default one that names this task and is
        used by no other.
    :param if_open_instance_exists: what to do where an open instance carries the author's own ``business_key``:
        ``"start"`` another one, ``"adopt"`` it as this task's, or ``"fail"``.
    :param title: the instance's title, ``$Flow.Title``; by default one that names DAG, task and run.
    :param wait_for_completion: whether to wait at all; without it the task succeeds as soon as the instance started.
    :param deferrable: whether the task waits in the triggerer and holds no worker slot; by default as Airflow's setting
        ``operators.default_deferrable`` says.
    :param poll_interval: seconds between two looks, at least 1. Deferred tasks share their looks: the smallest interval
        of those that wait on one endpoint counts for all of them.
    :param timeout: seconds after which the wait fails; by default it waits for ever. Airflow's ``execution_timeout`` is one
        more end of the same deadline, also while the task is deferred.
    :param on_timeout: what becomes of the instance then: ``"leave"`` it as it is, ``"suspend"`` or ``"terminate"`` it.
    :param states: states to wait for; by default ``Completed OK``. See ``WaitCondition``.
    :param bp_statuses: business statuses to wait for, such as ``["Approved"]``, alone or together with ``states``.
    :param failed_states: states that fail the task.
    :param failed_bp_statuses: business statuses that fail the task at once, even while the instance is open. Without
        ``bp_statuses`` any other status succeeds.
    :param on_suspended: whether a suspended instance is waited through (``"wait"``) or fails the task (``"fail"``).
    :param max_poll_failure_time: seconds for which looks may fail in a row before the task does.
    :param terminate_on_kill: whether the instance is terminated when a person ends the waiting task: marks it as failed
        or successful, clears it, or fails its run.
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    template_fields: Sequence[str] = (
        *WaitingTask.template_fields,
        "bpm_name",
        "version",
        "variables",
        "business_key",
        "title",
    )
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
        with task_named(self.task_id):
            self.check_variables = checks.truth(check_variables, "check_variables")
            self.wait_for_completion = checks.truth(wait_for_completion, "wait_for_completion")
            self.poll_interval = checks.poll_interval(poll_interval)
            self.timeout = checks.timeout(timeout)
            self.terminate_on_kill = checks.truth(terminate_on_kill, "terminate_on_kill")
            self.if_open_instance_exists = checks.choice(
                if_open_instance_exists, "if_open_instance_exists", IF_OPEN_INSTANCE_EXISTS
            )
            if business_key is None:
                self._refuse_idle(defaults, "without a business_key", {"if_open_instance_exists": "start"})
            self._refuse_idle_of_wait(defaults)
        self._given |= checks.given(self, ("version", "variables", "business_key", "title"))
        self._at_stake: tuple[AtStake, TaskInstanceKey] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Start the instance, or go on with what an earlier try has started, and wait for it if asked to."""
        self._check_identifiers("bpm_name", "version", "business_key")
        if self.title is not None:
            self.title = checks.rendered(self.title, "title")
        if self.variables is not None:
            self.variables = values.plain(self.variables, self.zone)
        self._say_what_opens_the_gate()
        self._trigger_for(None)
        try:
            try:
                launched = self._launch(context)
            except AmbiguousStartError as error:
                clearing.add_advice(error)
                raise
            instance = launched.instance
            self._report(instance)
            with self._says_what_stays_open(context, instance.id):
                self._publish(instance, context)
                if not self.wait_for_completion:
                    return self.hook.as_dict(instance)
                return self._wait_for(instance, launched.record.deadline, context)
        finally:
            # What ends this process from now on is no end of the task: its result is known, or it is deferred.
            self._at_stake = None

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Resume with the trigger's event."""
        instance_id = _published_instance(context)
        self._report_unseen(instance_id, name=self.bpm_name)
        with self._says_what_stays_open(context, instance_id):
            try:
                instance = self._ending_of(event, instance_id)
            except WaitTimeoutError as error:
                instance = self._after_timeout(error, instance_id)
            return self._done(instance, context)

    def on_kill(self) -> None:
        """Terminate the instance if a person ended the task while it was on a worker."""
        if self._at_stake is not None and self.terminate_on_kill:
            from airflow_provider_astrobpm.tasks.kill import terminate  # noqa: PLC0415

            terminate(self.hook.settings, *self._at_stake, self.log)

    def _launch(self, context: Context) -> Launched:
        from airflow_provider_astrobpm.bpm import adoption, api  # noqa: PLC0415
        from airflow_provider_astrobpm.tasks.kill import AtStake  # noqa: PLC0415
        from airflow_provider_astrobpm.tasks.memory import begin  # noqa: PLC0415
        from airflow_provider_astrobpm.triggers.kill import TaskInstanceKey  # noqa: PLC0415

        begun = begin(context, adoption.Record, retries=self.retries or 0)
        memory, this, known = begun.memory, begun.this, begun.record
        has_started = (
            known is not None and known.generation == this.generation and known.posted_at is not None
        )
        if self.check_variables and self.variables is not None and not has_started:
            names = values.named(self.variables)
            self.hook.check_variables(self.bpm_name, names, version=self.version)

        title = self.title
        if title is None and api.TITLE_VARIABLE not in (self.variables or {}):
            title = this.task.title()

        def operation(business_key: str) -> Operation[BpmInstance]:
            return api.start(
                self.bpm_name,
                version=self.version,
                variables=self.variables,
                business_key=business_key,
                title=title,
            )

        task = TaskInstanceKey.of(context["ti"])
        order = adoption.Order(
            start=operation,
            bpm_name=self.bpm_name,
            identity=this.task,
            generation=this.generation,
            try_number=this.number,
            business_key=self.business_key,
            if_open_instance_exists=self.if_open_instance_exists,
            keeps_open=not self.terminate_on_kill,
            accepts=self._accepts,
            timeout=self._limits.seconds,
            grace=self.hook.settings.start_grace,
            since=this.since,
            max_tries=this.max_tries,
            generation_is_certain=this.generation_is_certain,
        )

        def remember(record: Record) -> None:
            # A kill that comes between the start and its answer knows the key alone. Others may use the author's.
            key = order.key(record.launch)
            if record.instance_id or (record.posted_at is not None and self.business_key is None):
                self._at_stake = AtStake(key, record.instance_id), task
            else:
                self._at_stake = None
            memory.write(record)

        launched = self.hook.launch(order, known, remember=remember)
        self._at_stake = AtStake(order.key(launched.record.launch), launched.instance.id), task
        return launched

    def _accepts(self, instance: BpmInstance) -> bool:
        """Tell whether an instance that an earlier try has started is as this task wants it, though it has ended."""
        return self._has_ended_well(instance) if self.wait_for_completion else True

    def _publish(self, instance: BpmInstance, context: Context) -> None:
        """Let everybody see which instance it is, before anything else can go wrong."""
        url = self.hook.settings.url_of(instance.id)
        self.instance_url = url or ""
        seen = {INSTANCE_ID: instance.id, BUSINESS_KEY: instance.business_key, INSTANCE_URL: url}
        for key, value in seen.items():
            if value is not None:
                context["ti"].xcom_push(key=key, value=value)
        if url:
            self.log.info("The instance is shown at %s", url)

    def _wait_for(self, instance: BpmInstance, deadline: float | None, context: Context) -> dict[str, Any]:
        from airflow_provider_astrobpm.bpm import wait  # noqa: PLC0415

        awaited = wait.Wait(
            self._condition(),
            seen=instance,
            known=Known.of(instance, self.bpm_name),
            max_poll_failure_time=self.max_poll_failure_time,
        )
        self._begin(self._bounded(awaited, deadline))
        try:
            ended = self._hold_on(awaited, poll_interval=self.poll_interval)
        except WaitTimeoutError as error:
            ended = self._after_timeout(error, instance.id)
        return self._done(ended, context)

    def _done(self, instance: BpmInstance, context: Context) -> dict[str, Any]:
        self._report(instance)
        context["ti"].xcom_push(key=WAIT_OVER, value=instance.id)
        self.log.info("The wait is over: %s", instance)
        return self.hook.as_dict(instance)

    def _new_wait(self, context: Context, deadline: float | None) -> Wait:
        from airflow_provider_astrobpm.bpm import wait  # noqa: PLC0415

        awaited = wait.Wait(
            self._condition(),
            instance_id=_published_instance(context),
            known=self._known,
            max_poll_failure_time=self.max_poll_failure_time,
        )
        return self._bounded(awaited, deadline)

    def _trigger_for(self, awaited: Wait | None) -> AstroZeroBpmInstanceTrigger:
        return self._trigger(
            awaited,
            instance_id=awaited.instance_id if awaited else None,
            bpm_name=self.bpm_name,
            poll_interval=self.poll_interval,
            terminate_on_kill=self.terminate_on_kill,
        )

    @contextmanager
    def _says_what_stays_open(self, context: Context, instance_id: str | None) -> Iterator[None]:
        """Let a failure say which instance it leaves open and what will become of it, and write that down."""
        try:
            yield
        except (Exception, AirflowTaskTimeout) as error:
            seen = error.instance if isinstance(error, (WaitFailedError, WaitTimeoutError)) else None
            self._report(seen)
            if seen is None or not seen.is_closed:
                # A wait that has failed over the instance itself would fail again, were it to go on.
                if isinstance(error, WaitFailedError):
                    goes_on = error.instance.suspended
                else:
                    goes_on = not isinstance(error, AnotherInstanceError)
                remembered = self._remember_what_stays_open(context, instance_id, goes_on=goes_on)
                words = self._what_stays_open(instance_id, error, adopts=remembered and goes_on)
                if isinstance(error, AstroZeroError):
                    error.advice = f"{error.advice} {words}".lstrip()
                else:
                    self.log.error(words)  # noqa: TRY400 - the error itself is raised, and logged by Airflow
            raise

    def _remember_what_stays_open(self, context: Context, instance_id: str | None, *, goes_on: bool) -> bool:
        import msgspec  # noqa: PLC0415

        from airflow_provider_astrobpm.bpm.adoption import Record  # noqa: PLC0415
        from airflow_provider_astrobpm.tasks.memory import Memory  # noqa: PLC0415

        try:
            context["ti"].xcom_push(key=WAIT_OVER, value=instance_id)
            memory = Memory(context, Record)
            record = memory.read()
            if record is None or record.instance_id != instance_id:
                return False
            memory.write(msgspec.structs.replace(record, left_open=goes_on))
        except (Exception, AirflowTaskTimeout):
            self.log.exception("That the instance stays open could not be written down")
            return False
        return True

    def _what_stays_open(self, instance_id: str | None, error: BaseException, *, adopts: bool) -> str:
        seen = error.instance if isinstance(error, (WaitFailedError, WaitTimeoutError)) else None
        first = "Resume it: then a retry" if seen is not None and seen.suspended else "A retry"
        if isinstance(error, InstanceNotFoundError):
            then = "A retry goes on with it if it shows again. "
            if adopts:
                then += "So does clearing this task; clearing it once more starts a new one all the same."
                then += clearing.advice("the first clear starts a new one")
            else:
                then += "Clearing this task starts a new one."
        elif isinstance(error, AnotherInstanceError):
            then = "A retry does not go on with what has its id now; clearing this task starts a new one."
        elif adopts or not self.terminate_on_kill:
            then = f"{first} goes on waiting for it, and so does clearing this task."
            if adopts and (self.terminate_on_kill or self.business_key is not None):
                then += clearing.advice("the task no longer knows this instance, and may start another one")
        else:
            then = f"{first} goes on with it; clearing this task terminates it and starts a new one."
        return f"Instance {instance_id!r} on connection {self.astro_zero_conn_id!r} may still be open. {then}"


def _published_instance(context: Context) -> str | None:
    """Return the id that this try published before it waited."""
    ti = context["ti"]
    instance_id: str | None = ti.xcom_pull(task_ids=ti.task_id, key=INSTANCE_ID, map_indexes=ti.map_index)
    return instance_id
