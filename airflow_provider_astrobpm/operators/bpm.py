"""Operators for BPM instances: start, suspend, resume, terminate, set variables, delete, query.

DAG files import this module at every parse, so the client and its libraries are imported only when a task runs.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout, BaseOperator

from airflow_provider_astrobpm.bpm import checks
from airflow_provider_astrobpm.bpm.condition import (
    ARGUMENTS,
    NOT_GIVEN,
    ON_SUSPENDED,
    WaitCondition,
    check_written_states,
    given_conditions,
)
from airflow_provider_astrobpm.bpm.errors import AmbiguousStartError, InstanceNotFoundError, WaitFailedError
from airflow_provider_astrobpm.bpm.states import OPEN_STATES
from airflow_provider_astrobpm.hooks import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import timedelta
    from typing import Literal

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_astrobpm.bpm.api import Action
    from airflow_provider_astrobpm.bpm.change import IfClosed, IfMissing
    from airflow_provider_astrobpm.bpm.condition import OnSuspended
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook


class _AstroZeroOperator(BaseOperator):
    """An operator with a connection.

    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    template_fields: Sequence[str] = ("astro_zero_conn_id",)
    ui_color = "#d9ecff"

    def __init__(self, *, astro_zero_conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.astro_zero_conn_id = astro_zero_conn_id

    @cached_property
    def hook(self) -> AstroZeroHook:
        """The hook of this task."""
        from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook  # noqa: PLC0415

        return AstroZeroHook(self.astro_zero_conn_id)


class AstroZeroStartBpmInstanceOperator(_AstroZeroOperator):
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
    :param poll_interval: seconds between two looks, at least 1.
    :param timeout: seconds after which the wait fails and leaves the instance as it is; by default it waits for ever.
    :param states: states to wait for; by default ``Completed OK``. See ``WaitCondition``.
    :param bp_statuses: business statuses to wait for, alone or together with ``states``.
    :param failed_states: states that fail the task.
    :param failed_bp_statuses: business statuses that fail the task, such as ``["Rejected"]``.
    :param on_suspended: whether a suspended instance is waited through (``"wait"``) or fails the task (``"fail"``).
    :param max_poll_failure_time: seconds for which looks may fail in a row before the task does.
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    template_fields: Sequence[str] = (
        *_AstroZeroOperator.template_fields,
        "bpm_name",
        "version",
        "variables",
        "business_key",
        "title",
        "states",
        "bp_statuses",
        "failed_states",
        "failed_bp_statuses",
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
        states: Collection[str] = NOT_GIVEN,
        bp_statuses: Collection[str] = NOT_GIVEN,
        failed_states: Collection[str] = NOT_GIVEN,
        failed_bp_statuses: Collection[str] = NOT_GIVEN,
        on_suspended: OnSuspended = "wait",
        max_poll_failure_time: float | timedelta = 600,
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
        asked = given_conditions(
            states=states,
            bp_statuses=bp_statuses,
            failed_states=failed_states,
            failed_bp_statuses=failed_bp_statuses,
        )
        self.states = asked.get("states")
        self.bp_statuses = asked.get("bp_statuses")
        self.failed_states = asked.get("failed_states")
        self.failed_bp_statuses = asked.get("failed_bp_statuses")
        self.on_suspended = checks.choice(on_suspended, "on_suspended", ON_SUSPENDED)
        self.max_poll_failure_time = checks.seconds(max_poll_failure_time, "max_poll_failure_time")
        if asked and not wait_for_completion:
            raise ValueError(f"{', '.join(asked)} means nothing with wait_for_completion=False")
        self._given = checks.given(self, (*ARGUMENTS, "version", "variables", "business_key", "title"))

    def execute(self, context: Context) -> dict[str, Any]:
        """Start the instance, and wait for it if asked to."""
        checks.still_given(self, self._given)
        asked = {argument: getattr(self, argument) for argument in ARGUMENTS}
        condition = WaitCondition.of(**asked, on_suspended=self.on_suspended)
        instance = self._start()
        try:
            return self._follow(instance, condition, context)
        except (Exception, AirflowTaskTimeout, SystemExit) as error:
            if isinstance(error, WaitFailedError) and error.instance.is_closed:
                raise
            reason = str(error).rstrip(".") or type(error).__name__
            raise AirflowFailException(
                f"{reason}. {self._what_now(instance, error)} A retry would start a second instance, so this task is "
                "not retried."
            ) from error

    def _what_now(self, instance: BpmInstance, error: BaseException) -> str:
        where = f"Instance {instance.id!r} on connection {self.astro_zero_conn_id!r}"
        if isinstance(error, InstanceNotFoundError):
            return f"{where} could not be found any more: look for it in Astro Zero, then clear this task."
        return (
            f"{where} was left as it is and may still be open: wait for it with the sensor, or terminate it and clear "
            "this task."
        )

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

    def _follow(self, instance: BpmInstance, condition: WaitCondition, context: Context) -> dict[str, Any]:
        self.log.info("Started %s, business key %r", instance, instance.business_key)
        context["ti"].xcom_push(key="instance_id", value=instance.id)
        if self.wait_for_completion:
            instance = self.hook.wait_for_instance(
                instance,
                condition,
                poll_interval=self.poll_interval,
                timeout=self.timeout,
                max_poll_failure_time=self.max_poll_failure_time,
            )
            self.log.info("The wait is over: %s", instance)
        return self.hook.as_dict(instance)


class _InstanceOperator(_AstroZeroOperator):
    """An operator on one instance.

    :param instance_id: the instance's id.
    """

    template_fields: Sequence[str] = (*_AstroZeroOperator.template_fields, "instance_id")

    def __init__(self, *, instance_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.instance_id = instance_id


class _ChangeStateOperator(_InstanceOperator):
    """An operator that takes an action on one instance."""

    action: ClassVar[Action]

    def __init__(self, *, if_closed: IfClosed = "succeed", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.if_closed = checks.choice(if_closed, "if_closed", checks.SUCCEED_OR_FAIL)

    def execute(self, context: Context) -> dict[str, Any]:
        """Take the action, and return the instance as it is afterwards."""
        change = self.hook.change_state(self.instance_id, self.action, if_closed=self.if_closed)
        return self.hook.as_dict(change.instance)


class AstroZeroSuspendBpmInstanceOperator(_ChangeStateOperator):
    """Suspend a BPM instance: it leaves people's to-do lists and its timers stop (API page 0071).

    An instance that is suspended already is fine. The task returns the instance as a dict, as the start operator does.

    :param instance_id: the instance's id.
    :param if_closed: whether an instance that has ended already is fine (``"succeed"``) or not (``"fail"``).
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    action = "suspend"


class AstroZeroResumeBpmInstanceOperator(_ChangeStateOperator):
    """Resume a suspended BPM instance (API page 0071).

    An instance that is not suspended is fine. The task returns the instance as a dict, as the start operator does.

    :param instance_id: the instance's id.
    :param if_closed: whether an instance that has ended already is fine (``"succeed"``) or not (``"fail"``).
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    action = "resume"


class AstroZeroTerminateBpmInstanceOperator(_ChangeStateOperator):
    """Terminate a BPM instance (API page 0071).

    The task returns the instance as a dict, as the start operator does.

    :param instance_id: the instance's id.
    :param if_closed: whether an instance that has ended already is fine (``"succeed"``) or not (``"fail"``).
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    action = "terminate"


class AstroZeroSetBpmVariablesOperator(_InstanceOperator):
    """Set variables of a BPM instance (API page 0073).

    Astro Zero ignores unknown and read-only variables without a word, so a successful task does not prove that a
    value was stored.

    :param instance_id: the instance's id.
    :param variables: names and values, anything that JSON can hold.
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    template_fields: Sequence[str] = (*_InstanceOperator.template_fields, "variables")
    template_fields_renderers: ClassVar[dict[str, str]] = {"variables": "json"}

    def __init__(self, *, variables: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.variables = variables

    def execute(self, context: Context) -> None:
        """Set the variables."""
        self.hook.set_variables(self.instance_id, self.variables)
        self.log.info("Sent %s to instance %r", ", ".join(map(repr, self.variables)), self.instance_id)


class AstroZeroDeleteBpmInstanceOperator(_InstanceOperator):
    """Delete a BPM instance for good (API page 0072).

    This is for clearing old data. To stop an instance, terminate it.

    :param instance_id: the instance's id.
    :param if_missing: whether it is fine that there is no such instance (``"succeed"``) or not (``"fail"``).
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    def __init__(self, *, if_missing: IfMissing = "fail", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.if_missing = checks.choice(if_missing, "if_missing", checks.SUCCEED_OR_FAIL)

    def execute(self, context: Context) -> None:
        """Delete the instance."""
        self.log.info(self.hook.delete_instance(self.instance_id, if_missing=self.if_missing))


class AstroZeroQueryBpmInstancesOperator(_AstroZeroOperator):
    """List BPM instances by state (API page 0070), one request a state.

    The task returns a list of dicts as the start operator returns one. The states are listed one after another, so an
    instance that moves meanwhile may be missed. How many rows Astro Zero lists at most is undocumented; the newest
    come first.

    :param states: states to list; by default all in which an instance has not ended.
    :param bpm_name: keep only instances of this BPM.
    :param business_key: keep only instances with this business key.
    :param order_field: the column to order each state's instances by.
    :param order_type: ``"asc"`` or ``"desc"``.
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    template_fields: Sequence[str] = (
        *_AstroZeroOperator.template_fields,
        "states",
        "bpm_name",
        "business_key",
    )

    def __init__(
        self,
        *,
        states: Collection[str] = OPEN_STATES,
        bpm_name: str | None = None,
        business_key: str | None = None,
        order_field: str = "startTime",
        order_type: Literal["asc", "desc"] = "desc",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_written_states(states, "states")
        self.states = states
        self.bpm_name = bpm_name
        self.business_key = business_key
        self.order_field = order_field
        self.order_type = checks.choice(order_type, "order_type", ("asc", "desc"))
        self._given = checks.given(self, ("bpm_name", "business_key"))

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """List the instances."""
        checks.still_given(self, self._given)
        for argument in self._given:
            checks.text(getattr(self, argument), argument)
        rows = self.hook.query_instances(
            self.states, order_field=self.order_field, order_type=self.order_type
        )
        chosen = [
            row
            for row in rows
            if self.bpm_name in (None, row.name) and self.business_key in (None, row.business_key)
        ]
        self.log.info("Found %d instances, of which %d were asked for", len(rows), len(chosen))
        return [self.hook.as_dict(row) for row in chosen]
