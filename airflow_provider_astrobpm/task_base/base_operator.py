"""The base class of all operators and the sensor: a task with a connection to Astro Zero.

DAG files import this module at every parse, so the client and its libraries are imported only when a task runs.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_astrobpm.hooks import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import tzinfo

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
    from airflow_provider_astrobpm.task_base.openlineage import RunFacets


class AstroZeroBaseOperator(BaseOperator):
    """Base class of a task that uses an Astro Zero connection.

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

    def zone(self) -> tzinfo | None:
        """Return the zone of the API's timestamps, if the connection names it."""
        return self.hook.zone()

    _run_facets: RunFacets = {}  # noqa: RUF012 - replaced, never changed
    """What OpenLineage reports about the task, if its provider is installed."""

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the OpenLineage facets of this task after its end. Airflow's OpenLineage provider calls this."""
        from airflow_provider_astrobpm.task_base import openlineage  # noqa: PLC0415

        return openlineage.operator_lineage(self._run_facets)

    def _report_instance(self, instance: BpmInstance | None) -> None:
        """Set the instance that OpenLineage reports, with its last polled state. ``None`` changes nothing."""
        if instance is not None:
            self._report_unpolled(
                instance.id,
                name=instance.name,
                business_key=instance.business_key,
                version=instance.version,
                state=instance.state,
                businessStatus=instance.bp_status,
            )

    def _report_unpolled(
        self,
        instance_id: str | None,
        *,
        name: str | None = None,
        business_key: str | None = None,
        **polled: str | None,
    ) -> None:
        """Set the instance that OpenLineage reports if no poll ever returns it."""
        from airflow_provider_astrobpm.task_base import openlineage  # noqa: PLC0415

        self._run_facets = openlineage.facets_of_instance(
            self.hook, instance_id, bpmName=name, businessKey=business_key, **polled
        )

    def _report_instances(self, total: int, counts: Mapping[str, int], ids: Iterable[str | None]) -> None:
        """Set the instances that OpenLineage reports."""
        from airflow_provider_astrobpm.task_base import openlineage  # noqa: PLC0415

        self._run_facets = openlineage.facets_of_instances(self.hook, total, counts, ids)
