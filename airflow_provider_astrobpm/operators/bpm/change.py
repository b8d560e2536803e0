"""Operators on one BPM instance: suspend, resume, terminate, set variables, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_astrobpm.client import validation
from airflow_provider_astrobpm.client import variables as values
from airflow_provider_astrobpm.task_base.base_operator import AstroZeroBaseOperator
from airflow_provider_astrobpm.task_base.recorded_action import recorded_action
from airflow_provider_astrobpm.task_base.task_arguments import CheckedVariables, errors_name_task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_astrobpm.client.actions import IfClosed, IfMissing
    from airflow_provider_astrobpm.client.operations import Action


class _InstanceOperator(AstroZeroBaseOperator):
    """An operator on one instance."""

    template_fields: Sequence[str] = (*AstroZeroBaseOperator.template_fields, "instance_id")

    def __init__(self, *, instance_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.instance_id = instance_id


class _ChangeStateOperator(_InstanceOperator):
    """An operator that takes an action on one instance."""

    action: ClassVar[Action]

    def __init__(self, *, if_closed: IfClosed = "succeed", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with errors_name_task(self.task_id):
            self.if_closed = validation.choice(if_closed, "if_closed", validation.SUCCEED_OR_FAIL)

    def execute(self, context: Context) -> dict[str, Any]:
        """Take the action, and return the instance afterwards."""
        self._report_unpolled(self.instance_id)
        with recorded_action(
            context, self.action, self.instance_id, counts=self.if_closed == "fail"
        ) as intent:
            change = self.hook.change_state(
                self.instance_id, self.action, if_closed=self.if_closed, intent=intent
            )
        self._report_instance(change.instance)
        return self.hook.as_dict(change.instance)


class AstroZeroSuspendBpmInstanceOperator(_ChangeStateOperator):
    """Suspend a BPM instance: its tasks leave people's to-do lists, and its timers stop (API page 0071).

    The task also succeeds if the instance is suspended already. It returns the instance as a dict, as the start operator does.

    :param instance_id: the instance's id.
    :param if_closed: whether the task succeeds (``"succeed"``) or fails (``"fail"``) if the instance has ended already.
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    action = "suspend"


class AstroZeroResumeBpmInstanceOperator(_ChangeStateOperator):
    """Resume a suspended BPM instance (API page 0071).

    The task also succeeds if the instance is not suspended. It returns the instance as a dict, as the start operator does.

    :param instance_id: the instance's id.
    :param if_closed: whether the task succeeds (``"succeed"``) or fails (``"fail"``) if the instance has ended already.
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    action = "resume"


class AstroZeroTerminateBpmInstanceOperator(_ChangeStateOperator):
    """Terminate a BPM instance (API page 0071).

    The task returns the instance as a dict, as the start operator does. It fails if the termination was accepted but is not
    visible within the ``start_grace`` seconds of the connection.

    :param instance_id: the instance's id.
    :param if_closed: whether the task succeeds (``"succeed"``) or fails (``"fail"``) if the instance has ended already.
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    action = "terminate"


class AstroZeroSetBpmVariablesOperator(_InstanceOperator):
    """Set variables of a BPM instance (API page 0073).

    Astro Zero ignores unknown and read-only variables silently, so a successful task does not prove that a value was
    stored.

    :param instance_id: the instance's id.
    :param variables: names and values: JSON values, dates and times, and more; ``docs/variables.md`` says what is sent.
    :param check_variables: whether the task reads the instance and the definition of its BPM first, to refuse variables that
        the BPM does not have. If the definition lists no variables, the check is not possible, and the log says so.
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    template_fields: Sequence[str] = (*_InstanceOperator.template_fields, "variables")
    template_fields_renderers: ClassVar[dict[str, str]] = {"variables": "json"}
    variables: Any = CheckedVariables()

    def __init__(self, *, variables: Mapping[str, Any], check_variables: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.variables = variables
        with errors_name_task(self.task_id):
            self.check_variables = validation.boolean(check_variables, "check_variables")

    def execute(self, context: Context) -> None:
        """Set the variables."""
        self._report_unpolled(self.instance_id)
        if self.check_variables:
            names = values.named(self.variables)
            self.hook.check_variables_of(self.hook.get_instance(self.instance_id), names)
        self.hook.set_variables(self.instance_id, self.variables)
        self.log.info("Sent %s to instance %r", ", ".join(map(repr, self.variables)), self.instance_id)


class AstroZeroDeleteBpmInstanceOperator(_InstanceOperator):
    """Delete a BPM instance permanently (API page 0072).

    Use this to remove old data. To stop an instance, terminate it.

    :param instance_id: the instance's id.
    :param if_missing: whether the task succeeds (``"succeed"``) or fails (``"fail"``) if there is no such instance.
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    def __init__(self, *, if_missing: IfMissing = "fail", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with errors_name_task(self.task_id):
            self.if_missing = validation.choice(if_missing, "if_missing", validation.SUCCEED_OR_FAIL)

    def execute(self, context: Context) -> None:
        """Delete the instance."""
        self._report_unpolled(self.instance_id)
        with recorded_action(context, "delete", self.instance_id, counts=self.if_missing == "fail") as intent:
            self.log.info(
                self.hook.delete_instance(self.instance_id, if_missing=self.if_missing, intent=intent)
            )
