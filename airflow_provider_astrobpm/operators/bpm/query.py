"""The operator that lists BPM instances."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.bpm import checks
from airflow_provider_astrobpm.bpm.condition import check_written_states
from airflow_provider_astrobpm.bpm.states import OPEN_STATES
from airflow_provider_astrobpm.tasks.arguments import task_named
from airflow_provider_astrobpm.tasks.base import AstroZeroTask

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Literal

    from airflow.providers.common.compat.sdk import Context


class AstroZeroQueryBpmInstancesOperator(AstroZeroTask):
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
        *AstroZeroTask.template_fields,
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
        with task_named(self.task_id):
            checks.not_one_text(states, "states")
            check_written_states(states, "states")
            self.order_type = checks.choice(order_type, "order_type", ("asc", "desc"))
        self.states = states
        self.bpm_name = bpm_name
        self.business_key = business_key
        self.order_field = order_field
        self._given = checks.given(self, ("bpm_name", "business_key"))

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """List the instances."""
        checks.still_given(self, self._given)
        found = self.hook.query_instances(
            self.states,
            order_field=self.order_field,
            order_type=self.order_type,
            bpm_name=self.bpm_name,
            business_key=self.business_key,
        )
        self._report_many(len(found), Counter(row.state for row in found), (row.id for row in found))
        self.log.info("Found %d instances", len(found))
        return [self.hook.as_dict(row) for row in found]
