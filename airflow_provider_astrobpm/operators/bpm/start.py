"""The operator that starts a BPM instance and waits for its end."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout

from airflow_provider_astrobpm.bpm import checks
from airflow_provider_astrobpm.bpm.condition import ARGUMENTS
from airflow_provider_astrobpm.bpm.errors import (
    AmbiguousStartError,
    InstanceNotFoundError,
    WaitFailedError,
    WaitTimeoutError,
)
from airflow_provider_astrobpm.tasks.waiting import WaitingTask
from airflow_provider_astrobpm.triggers import XCOM_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.wait import Wait
    from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmInstanceTrigger
    from airflow_provider_astrobpm.triggers.kill import TaskInstanceKey


class AstroZeroStartBpmInstanceOperator(WaitingTask):
    """Start a BPM instance and wait until it has come to a good end.

    The task succeeds when the instance ends in ``Completed OK``, or as ``states`` and ``bp_statuses`` ask, and fails
    on any other end. It returns the instance as a dict (``id``, ``name``, ``version``, ``state``, ``bp_status``,
    ``task_outcome``, ``suspended``, ``is_closed``, ``business_key``, ``start_time``, ``end_time``, ``url``); its id is
    in XCom ``instance_id`` as soon as it has started.

    The start is one POST. It is not sent again when it may have been taken. A task that fails while its instance may
    still be open is not retried by Airflow, because a retry would start a second one; only a worker that dies is: where
    that matters, set ``retries=0``.

    :param bpm_name: the BPM's name, as the designer shows it, with its namespace where it has one.
    :param version: the version to run, even if it is not the enabled one; without it the enabled one runs.
    :param variables: values for the BPM's variables, anything that JSON can hold.
    :param business_key: the instance's business key, ``$Flow.BusinessKey``.
    :param title: the instance's title, ``$Flow.Title``.
    :param wait_for_completion: whether to wait at all; without it the task succeeds as soon as the instance started.
    :param deferrable: whether the task waits in the triggerer and holds no worker slot; by default as Airflow's setting
        ``operators.default_deferrable`` says.
    :param poll_interval: seconds between two looks, at least 1. Deferred tasks share their looks: the smallest interval
        of those that wait on one endpoint counts for all of them.
    :param timeout: seconds after which the wait fails; by default it waits for ever.
    :param on_timeout: what becomes of the instance then: ``"leave"`` it as it is, ``"suspend"`` or ``"terminate"`` it.
    :param states: states to wait for; by default ``Completed OK``. See ``WaitCondition``.
    :param bp_statuses: business statuses to wait for, alone or together with ``states``.
    :param failed_states: states that fail the task.
    :param failed_bp_statuses: business statuses that fail the task, such as ``["Rejected"]``.
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

    def __init__(
        self,
        *,
        bpm_name: str,
        version: str | None = None,
        variables: Mapping[str, Any] | None = None,
        business_key: str | None = None,
        title: str | None = None,
        wait_for_completion: bool = True,
        poll_interval: float | timedelta = 60,
        timeout: float | timedelta | None = None,
        terminate_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.bpm_name = bpm_name
        self.version = version
        self.variables = variables
        self.business_key = business_key
        self.title = title
        self.wait_for_completion = wait_for_completion
        self.poll_interval = checks.poll_interval(poll_interval)
        self.timeout = None if timeout is None else checks.seconds(timeout, "timeout")
        self.terminate_on_kill = terminate_on_kill
        if self._asked and not wait_for_completion:
            raise ValueError(f"{', '.join(self._asked)} means nothing with wait_for_completion=False")
        self._given = checks.given(self, (*ARGUMENTS, "version", "variables", "business_key", "title"))
        self._waiting_for: tuple[str, TaskInstanceKey] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Start the instance, and wait for it if asked to."""
        checks.still_given(self, self._given)
        self._condition()
        self._trigger_for(None)
        instance = self._start()
        with self._no_second_start(instance.id):
            self.log.info("Started %s, business key %r", instance, instance.business_key)
            context["ti"].xcom_push(key=XCOM_KEY, value=instance.id)
            if not self.wait_for_completion:
                return self.hook.as_dict(instance)
            return self._wait_for(instance, context)

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Resume with the trigger's event."""
        instance_id = _published_instance(context)
        with self._no_second_start(instance_id):
            try:
                instance = self._ending_of(event)
            except WaitTimeoutError as error:
                instance = self._after_timeout(error, instance_id)
            return self._done(instance)

    def on_kill(self) -> None:
        """Terminate the instance if a person ended the task while it waited on a worker."""
        if self._waiting_for is not None and self.terminate_on_kill:
            from airflow_provider_astrobpm.tasks.kill import terminate  # noqa: PLC0415

            terminate(self.hook.settings, *self._waiting_for, self.log)

    def _start(self) -> BpmInstance:
        try:
            return self.hook.start_instance(
                self.bpm_name,
                version=self.version,
                variables=self.variables,
                business_key=self.business_key,
                title=self.title,
            )
        except AmbiguousStartError as error:
            raise AirflowFailException(str(error)) from error
        except (AirflowTaskTimeout, SystemExit) as error:
            raise AirflowFailException(
                f"{error}: this came while an instance of BPM {self.bpm_name!r} was being started, and nobody knows "
                "whether it was. It is not started again: look for it, then clear this task."
            ) from error

    def _wait_for(self, instance: BpmInstance, context: Context) -> dict[str, Any]:
        from airflow_provider_astrobpm.bpm import wait  # noqa: PLC0415
        from airflow_provider_astrobpm.triggers.kill import TaskInstanceKey  # noqa: PLC0415

        awaited = wait.Wait(
            self._condition(),
            seen=instance,
            deadline=None if self.timeout is None else time.time() + self.timeout,
            max_poll_failure_time=self.max_poll_failure_time,
        )
        if self.deferrable and awaited.ending is None:
            self._defer(awaited, self._trigger_for(awaited))
        self._waiting_for = instance.id, TaskInstanceKey.of(context["ti"])
        try:
            ended = self.hook.run_wait(awaited, poll_interval=self.poll_interval)
        except WaitTimeoutError as error:
            ended = self._after_timeout(error, instance.id)
        finally:
            self._waiting_for = None
        return self._done(ended)

    def _done(self, instance: BpmInstance) -> dict[str, Any]:
        self.log.info("The wait is over: %s", instance)
        return self.hook.as_dict(instance)

    def _new_wait(self, context: Context, deadline: float | None) -> Wait:
        from airflow_provider_astrobpm.bpm import wait  # noqa: PLC0415

        return wait.Wait(self._condition(), instance_id=_published_instance(context), deadline=deadline)

    def _trigger_for(self, awaited: Wait | None) -> AstroZeroBpmInstanceTrigger:
        """Return the trigger for a wait; before the start, where there is none yet, to prove that it can be made."""
        return self._trigger(
            awaited,
            instance_id=awaited.instance_id if awaited else None,
            poll_interval=self.poll_interval,
            terminate_on_kill=self.terminate_on_kill,
        )

    @contextmanager
    def _no_second_start(self, instance_id: str | None) -> Iterator[None]:
        """Keep Airflow from a retry, which would start a second instance, while the first may still be open."""
        try:
            yield
        except (Exception, AirflowTaskTimeout, SystemExit) as error:
            seen = error.instance if isinstance(error, (WaitFailedError, WaitTimeoutError)) else None
            if seen is not None and seen.is_closed:
                raise
            reason = str(error).rstrip(".") or type(error).__name__
            raise AirflowFailException(
                f"{reason}. {self._what_now(instance_id, error)} A retry would start a second instance, so this task "
                "is not retried."
            ) from error

    def _what_now(self, instance_id: str | None, error: BaseException) -> str:
        where = f"Instance {instance_id!r} on connection {self.astro_zero_conn_id!r}"
        if isinstance(error, InstanceNotFoundError):
            return f"{where} could not be found any more: look for it in Astro Zero, then clear this task."
        return f"{where} may still be open: wait for it with the sensor, or terminate it and clear this task."


def _published_instance(context: Context) -> str | None:
    """Return the id that this try published before it waited."""
    ti = context["ti"]
    instance_id: str | None = ti.xcom_pull(task_ids=ti.task_id, key=XCOM_KEY, map_indexes=ti.map_index)
    return instance_id
