"""The operator that lists BPM instances."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_astrobpm.client import ages, validation
from airflow_provider_astrobpm.client.errors import NoInstancesError
from airflow_provider_astrobpm.client.states import OPEN_STATES
from airflow_provider_astrobpm.task_base.base_operator import AstroZeroBaseOperator
from airflow_provider_astrobpm.task_base.task_arguments import errors_name_task
from airflow_provider_astrobpm.waiting.condition import check_literal_states

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Context

IfNone = Literal["succeed", "skip", "fail"]
IF_NONE: tuple[IfNone, ...] = ("succeed", "skip", "fail")
FILTERS = ("bpm_name", "business_key", "suspended", "older_than", "younger_than", "limit")


class AstroZeroQueryBpmInstancesOperator(AstroZeroBaseOperator):
    """List BPM instances by state (API page 0070), one request a state.

    The task returns a list of dicts like the one that the start operator returns. The states are listed one after another, so
    an instance that changes its state meanwhile may be missed. How many rows Astro Zero lists at most is undocumented. The
    newest instances come first, and those without a credible start time last.

    :param states: states to list; by default all open states.
    :param bpm_name: keep only instances of this BPM.
    :param business_key: keep only instances with this business key. If no row in any state shows a key, the task fails.
    :param suspended: keep only suspended instances (``True``), or only those that are not suspended (``False``).
    :param older_than: keep only instances that were started longer ago than this: a text such as ``"7d"``, ``"12h"`` or
        ``"1d12h"``, a ``timedelta``, or a number of seconds. It needs the ``timezone`` of the connection. An instance of
        uncertain age is left out, with a warning in the log.
    :param younger_than: keep only instances that were started more recently than this; same values as ``older_than``.
    :param limit: the maximum number of instances to return, from the beginning of the order.
    :param if_none: what to do if no instance is found: ``"succeed"`` with an empty list, ``"skip"`` the task, or ``"fail"``.
    :param order_field: the column to order the instances by. Times are ordered as times, and texts by their characters, also if
        Astro Zero does not order them. Only Astro Zero can order by a column that is not in the result.
    :param order_type: ``"asc"`` or ``"desc"``.
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    template_fields: Sequence[str] = (
        *AstroZeroBaseOperator.template_fields,
        "states",
        "bpm_name",
        "business_key",
        "older_than",
        "younger_than",
    )

    def __init__(
        self,
        *,
        states: Collection[str] = OPEN_STATES,
        bpm_name: str | None = None,
        business_key: str | None = None,
        suspended: bool | None = None,
        older_than: str | float | timedelta | None = None,
        younger_than: str | float | timedelta | None = None,
        limit: int | None = None,
        if_none: IfNone = "succeed",
        order_field: str = "startTime",
        order_type: Literal["asc", "desc"] = "desc",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        with errors_name_task(self.task_id):
            validation.reject_single_text(states, "states")
            check_literal_states(states, "states")
            for name, age in (("older_than", older_than), ("younger_than", younger_than)):
                if age is not None and not (isinstance(age, str) and "{" in age):
                    ages.age_seconds(age, name)
            self.order_type = validation.choice(order_type, "order_type", ("asc", "desc"))
            self.suspended = validation.choice(suspended, "suspended", (None, True, False))
            self.limit = None if limit is None else validation.count(limit, "limit", least=1)
            self.if_none = validation.choice(if_none, "if_none", IF_NONE)
        self.states = states
        self.bpm_name = bpm_name
        self.business_key = business_key
        self.older_than = older_than
        self.younger_than = younger_than
        self.order_field = order_field
        self._provided_args = validation.provided_arguments(self, FILTERS)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """List the instances.

        :raises AirflowSkipException: if no instance is found, and ``if_none`` is ``"skip"``.
        :raises NoInstancesError: if no instance is found, and ``if_none`` is ``"fail"``.
        """
        validation.require_still_provided(self, self._provided_args)
        found = self.hook.query_instances(
            self.states,
            order_field=self.order_field,
            order_type=self.order_type,
            **{name: getattr(self, name) for name in FILTERS},
        )
        self._report_instances(len(found), Counter(row.state for row in found), (row.id for row in found))
        self.log.info("Found %d instances", len(found))
        if not found and self.if_none != "succeed":
            error = self._no_instances_error()
            if self.if_none == "skip":
                raise AirflowSkipException(error.problem)
            raise error
        return [self.hook.as_dict(row) for row in found]

    def _no_instances_error(self) -> NoInstancesError:
        asked = {name: getattr(self, name) for name in FILTERS if name != "limit"}
        wanted = ", ".join(f"{name}={value!r}" for name, value in asked.items() if value is not None)
        error = NoInstancesError(sorted(self.states), wanted)
        error.connection = self.astro_zero_conn_id
        return error
