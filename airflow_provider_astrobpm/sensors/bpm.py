"""The sensor that waits for a BPM instance which something else started.

DAG files import this module at every parse, so the client and its libraries are imported only when a task runs.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_astrobpm.bpm import checks
from airflow_provider_astrobpm.bpm.condition import (
    ARGUMENTS,
    NOT_GIVEN,
    ON_SUSPENDED,
    WaitCondition,
    given_conditions,
)
from airflow_provider_astrobpm.bpm.errors import InstanceNotFoundError
from airflow_provider_astrobpm.hooks import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_astrobpm.bpm.condition import OnSuspended
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook


class AstroZeroBpmInstanceSensor(BaseSensorOperator):
    """Wait until a BPM instance has come to a good end, or to the states or business statuses asked for.

    The instance is given by its id, or by its business key; one that is sought by its key need not exist yet, but
    one that has ended counts, so a key should be one that no earlier run had. The task succeeds when the instance ends in ``Completed OK``, or as ``states`` and ``bp_statuses`` ask, and fails on
    any other end, with ``soft_fail`` too: that one turns only a time-out into a skip. It returns the instance as a
    dict, as the start operator does. A look that fails after the attempts that the connection allows fails the task; let
    Airflow retry it.

    :param instance_id: the instance's id.
    :param business_key: the instance's business key, where the id is not known. If several instances carry it, the
        only open one is meant; if that does not decide, the task fails and lists them.
    :param bpm_name: with ``business_key``: only instances of this BPM count.
    :param states: states to wait for; by default ``Completed OK``. See ``WaitCondition``.
    :param bp_statuses: business statuses to wait for, alone or together with ``states``.
    :param failed_states: states that fail the task.
    :param failed_bp_statuses: business statuses that fail the task, such as ``["Rejected"]``.
    :param on_suspended: whether a suspended instance is waited through (``"wait"``) or fails the task (``"fail"``).
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    template_fields: Sequence[str] = (
        "astro_zero_conn_id",
        "instance_id",
        "business_key",
        "bpm_name",
        "states",
        "bp_statuses",
        "failed_states",
        "failed_bp_statuses",
    )
    ui_color = "#d9ecff"

    def __init__(
        self,
        *,
        instance_id: str | None = None,
        business_key: str | None = None,
        bpm_name: str | None = None,
        states: Collection[str] = NOT_GIVEN,
        bp_statuses: Collection[str] = NOT_GIVEN,
        failed_states: Collection[str] = NOT_GIVEN,
        failed_bp_statuses: Collection[str] = NOT_GIVEN,
        on_suspended: OnSuspended = "wait",
        astro_zero_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (instance_id is None) == (business_key is None):
            raise ValueError("give exactly one of instance_id and business_key")
        if bpm_name is not None and business_key is None:
            raise ValueError("bpm_name narrows a business_key; an instance_id needs no narrowing")
        self.instance_id = instance_id
        self.business_key = business_key
        self.bpm_name = bpm_name
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
        self.astro_zero_conn_id = astro_zero_conn_id
        self._given = checks.given(self, (*ARGUMENTS, "instance_id", "business_key", "bpm_name"))
        self._seen: BpmInstance | None = None

    @cached_property
    def hook(self) -> AstroZeroHook:
        """The hook of this task."""
        from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook  # noqa: PLC0415

        return AstroZeroHook(self.astro_zero_conn_id)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once.

        :raises WaitFailedError: if the instance came to an end, or a state, that does not succeed.
        :raises InstanceNotFoundError: if there is no instance with this id.
        :raises SeveralInstancesError: if the business key does not say which one is meant.
        """
        from airflow_provider_astrobpm.bpm.wait import judged  # noqa: PLC0415

        checks.still_given(self, self._given)
        asked = {argument: getattr(self, argument) for argument in ARGUMENTS}
        condition = WaitCondition.of(**asked, on_suspended=self.on_suspended)
        instance = self._look()
        if instance is None:
            return PokeReturnValue(is_done=False)
        if str(instance) != str(self._seen):
            self.log.info("Seen: %s", instance)
        self._seen = instance
        if not judged(instance, condition):
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self.hook.as_dict(instance))

    def _look(self) -> BpmInstance | None:
        """Return the instance as it is now; ``None`` if its business key is not there yet."""
        if self._seen is not None:
            return self.hook.get_instance(self._seen.id, last_state=self._seen.state, patient=True)
        if self.instance_id is not None:
            return self.hook.get_instance(self.instance_id, patient=True)
        try:
            return self.hook.find_instance(
                checks.text(self.business_key, "business_key"), bpm_name=self.bpm_name
            )
        except InstanceNotFoundError as error:
            self.log.info("%s; it may still be started", error.problem)
            return None
