"""The sensor that waits for a BPM instance that another task or system has started.

DAG files import this module at every parse, so the client and its libraries are imported only when a task runs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_provider_astrobpm._airflow.xcom_keys import INSTANCE_URL
from airflow_provider_astrobpm.client import validation
from airflow_provider_astrobpm.client.errors import WaitFailedError, WaitTimeoutError
from airflow_provider_astrobpm.links.bpm import AstroZeroBpmInstanceLink
from airflow_provider_astrobpm.task_base.connection_lookup import look_up_connection
from airflow_provider_astrobpm.task_base.deadline import alarm_as_deadline
from airflow_provider_astrobpm.task_base.task_arguments import (
    errors_name_task,
    is_default,
    require_exactly_one,
)
from airflow_provider_astrobpm.task_base.waiting_operator import WaitingOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.key_form import BusinessKey
    from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmInstanceTrigger
    from airflow_provider_astrobpm.waiting.wait import InstanceWait

MAX_POLL_PAUSE_SECONDS = 20.0  # between two polls of one poke, while polls fail or do not return the instance


class AstroZeroBpmInstanceSensor(WaitingOperator, BaseSensorOperator):
    """Wait until a BPM instance succeeds, or until it reaches given states or business statuses.

    The instance is given by its id or by its business key. An instance with the key need not exist yet. A closed instance
    counts as well, so use a key that no earlier run has used. The task succeeds when the instance ends in ``Completed OK``, or
    meets ``states`` and ``bp_statuses``. Any other end fails the task, also with ``soft_fail``, which turns only a time-out into
    a skip. The task returns the instance as a dict, as the start operator does.

    If the lists show instances but none of them has a business key, the task fails at once, because a search by key cannot succeed.

    A kill never terminates the instance, because the sensor did not start it.

    :param instance_id: the id of the instance.
    :param business_key: the business key of the instance, if its id is not known. If several instances have the key, the only
        open one counts. If none or several are open, the task fails and lists them.
    :param bpm_name: with ``business_key``: only instances of this BPM count.
    :param deferrable: whether the task waits in the triggerer and holds no worker slot, in every ``mode``; by default as
        Airflow's setting ``operators.default_deferrable`` says. It has no effect with ``silent_fail``.
    :param poke_interval: seconds between two polls, at least 1 if the task is deferred. Deferred tasks on one endpoint share
        their polls, at the smallest interval of all of them.
    :param timeout: seconds after which the task fails and is not retried, or is skipped with ``soft_fail``. Airflow's
        ``execution_timeout`` limits the wait as well, in every mode.
    :param on_timeout: what to do with the instance then: ``"leave"`` it as it is, ``"suspend"`` or ``"terminate"`` it.
    :param states: states to wait for; by default ``Completed OK``. See ``WaitCondition``.
    :param bp_statuses: business statuses to wait for, such as ``["Approved"]``, alone or together with ``states``.
    :param failed_states: states that fail the task.
    :param failed_bp_statuses: business statuses that fail the task at once, even while the instance is open. Without
        ``bp_statuses`` any other status succeeds.
    :param on_suspended: whether the task waits until a suspended instance is resumed (``"wait"``), or the instance fails the task (``"fail"``).
    :param max_poll_failure_time: seconds for which polls may fail in a row before the task fails.
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    template_fields: Sequence[str] = (
        *WaitingOperator.template_fields,
        "instance_id",
        "business_key",
        "bpm_name",
    )
    operator_extra_links = (AstroZeroBpmInstanceLink(),)

    def __init__(
        self,
        *,
        instance_id: str | None = None,
        business_key: str | None = None,
        bpm_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        defaults = kwargs.get("default_args")
        with errors_name_task(kwargs.get("task_id")):
            for name in ("poke_interval", "timeout"):  # Airflow's own error does not say what to write
                if isinstance(kwargs.get(name), str):
                    validation.seconds(kwargs[name], name)
        super().__init__(**kwargs)
        self.instance_id = instance_id
        self.business_key = business_key
        self.bpm_name = bpm_name
        with errors_name_task(self.task_id):
            require_exactly_one(self, defaults, "instance_id", "business_key")
            if bpm_name is not None and self.business_key is None:
                if not is_default(defaults, "bpm_name", bpm_name):
                    raise ValueError(
                        "bpm_name has no effect with an instance_id; it narrows a search by business_key"
                    )
                self.bpm_name = None
        self._provided_args |= validation.provided_arguments(
            self, ("instance_id", "business_key", "bpm_name")
        )
        self._awaited: InstanceWait | None = None
        self._published: str | None = None

    def execute(self, context: Context) -> Any:
        """Poll once, and wait if the instance has not met the condition yet."""
        self._report_unpolled(self.instance_id, name=self.bpm_name, business_key=self.business_key)
        began = None
        if self.mode == "reschedule":
            began = context["ti"].get_first_reschedule_date(context)
        if began is None:
            self._warn_if_any_status_succeeds()
        self._awaited = awaited = self._new_wait(
            context, self._deadline(began.timestamp() if began else time.time())
        )
        if began is not None and not self.silent_fail:
            look_up_connection(self.hook, awaited, self.log)
            if awaited.ending is not None:
                return self._end(awaited.result)
        if not self.deferrable or self.silent_fail:
            return self._poke_until_end(context, awaited)
        self._check_deferral()
        self._publish(self.instance_id, context)
        with alarm_as_deadline(awaited, connection=self.astro_zero_conn_id):
            self.hook.poll_once(awaited)
        self._publish(awaited.instance_id, context)
        if awaited.ending is None:
            self._defer(awaited)
        return self._end(awaited.result)

    def _poke_until_end(self, context: Context, awaited: InstanceWait) -> Any:
        try:
            with alarm_as_deadline(awaited, connection=self.astro_zero_conn_id):
                return super().execute(context)
        except (AirflowSensorTimeout, AirflowSkipException) as error:
            if error.__cause__ is not None or awaited.deadline is None:
                raise
            # Airflow checked the clock shortly after the last poke, and found that the wait has timed out.
            timeout_error = awaited.timeout_error(awaited.deadline, self.hook.client.now())
            timeout_error.connection = self.astro_zero_conn_id
            awaited.end(timeout_error)
        return self._end(awaited.result)

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Resume with the trigger's event."""
        self._report_unpolled(self.instance_id, name=self.bpm_name, business_key=self.business_key)

        def ending() -> BpmInstance:
            try:
                instance = self._instance_in_event(event, self.instance_id or self._deferred_for, self._key)
            except (WaitFailedError, WaitTimeoutError) as error:
                self._publish(error.instance.id if error.instance else None, context)
                raise
            self._publish(instance.id, context)
            return instance

        return self._end(ending)

    def _end(self, ending: Callable[[], BpmInstance]) -> dict[str, Any]:
        """Return the result of a task that may have been deferred, with ``soft_fail`` and ``never_fail`` as in a poke."""
        try:
            return self._result(ending)
        except AirflowSensorTimeout as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(str(error)) from error
            raise
        except Exception as error:
            if self.never_fail:
                raise AirflowSkipException(str(error)) from error
            raise

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll once, and again while polls fail or do not return the instance.

        :raises WaitFailedError: if the instance has failed the condition.
        :raises InstanceNotFoundError: if there is no instance with this id.
        :raises SeveralInstancesError: if several instances have the business key.
        :raises CallError: if polls failed for too long, or the credentials were refused.
        :raises AirflowSensorTimeout: if the wait has timed out.
        """
        if self._awaited is None:
            self._awaited = self._new_wait(context, self._deadline(time.time()))
        self._publish(self.instance_id, context)
        pause = min(max(self.poke_interval, validation.MIN_POLL_INTERVAL_SECONDS), MAX_POLL_PAUSE_SECONDS)
        with alarm_as_deadline(self._awaited, connection=self.astro_zero_conn_id):
            self.hook.poll_until_conclusive(self._awaited, again_after=pause)
        self._publish(self._awaited.instance_id, context)
        if self._awaited.ending is None:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self._result(self._awaited.result))

    def _publish(self, instance_id: str | None, context: Context) -> None:
        """Publish the address of the instance as soon as its id is known."""
        if instance_id in (None, self._published):
            return
        self._published = instance_id
        if instance_id is not None and (url := self.hook.settings.page_url(instance_id)):
            self.instance_url = url
            context["ti"].xcom_push(key=INSTANCE_URL, value=url)

    def _get_next_poke_interval(self, *arguments: Any, **options: Any) -> float:
        """Return the seconds until the next poke. The last poke comes at the deadline, not an interval later."""
        interval: float = super()._get_next_poke_interval(*arguments, **options)
        if self._awaited is None or self._awaited.deadline is None:
            return interval
        return max(0.0, min(interval, self._awaited.deadline - time.time()))

    def _result(self, ending: Callable[[], BpmInstance]) -> dict[str, Any]:
        """Return the result of the task when its wait is over, or raise its error.

        :param ending: returns the instance that met the condition, or raises the error of the wait.
        """
        try:
            instance = ending()
        except WaitFailedError as error:
            self._report_instance(error.instance)
            raise
        except WaitTimeoutError as error:
            self._report_instance(error.instance)
            sought = error.instance.id if error.instance else self.instance_id
            try:
                instance = self._apply_on_timeout(error, sought)
            except WaitTimeoutError:
                raise AirflowSensorTimeout(str(error)) from error
        self._report_instance(instance)
        self.log.info("The wait is over: %s", instance)
        return self.hook.as_dict(instance)

    def _trigger_for(self, awaited: InstanceWait | None) -> AstroZeroBpmInstanceTrigger:
        return self._trigger(
            awaited,
            instance_id=self.instance_id,
            business_key=self.business_key,
            bpm_name=self.bpm_name,
            poll_interval=max(self.poke_interval, validation.MIN_POLL_INTERVAL_SECONDS),
        )

    def _new_wait(self, context: Context, deadline: float | None) -> InstanceWait:
        from airflow_provider_astrobpm.waiting import wait  # noqa: PLC0415

        condition = self._condition()
        if self.instance_id is not None:
            self.instance_id = validation.identifier(self.instance_id, "instance_id")
        awaited = wait.InstanceWait(
            condition,
            instance_id=self.instance_id,
            key=self._key,
            known=self._known,
            max_poll_failure_time=self.max_poll_failure_time,
        )
        return self._with_deadline(awaited, deadline)

    @property
    def _key(self) -> BusinessKey | None:
        """The business key to search by, checked; ``None`` if the id was given."""
        from airflow_provider_astrobpm.client import search  # noqa: PLC0415

        if self.instance_id is not None:
            return None
        self.business_key = validation.identifier(self.business_key, "business_key")
        return search.checked_business_key(self.business_key, self.bpm_name)

    def _deadline(self, began: float) -> float | None:
        """Return the deadline of a wait that began at ``began``, both in seconds since the epoch."""
        seconds = self._wait_limits.seconds
        return None if seconds is None else began + seconds
