"""The link from a task to its BPM instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink

from airflow_provider_astrobpm._airflow.xcom_keys import INSTANCE_URL

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey


class AstroZeroBpmInstanceLink(BaseOperatorLink):
    """Opens the task's instance in Astro Zero, as soon as it has started.

    The connection's extra ``instance_url`` is the template of the address. Without it there is no link.
    """

    name = "Open in Astro Zero"
    xcom_key = INSTANCE_URL
    """The XCom with the address. The task publishes it before it waits."""

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address that the task has published, or an empty text.

        Airflow calls this when a task is deferred and when it has ended, and publishes the result again. If the task itself knows
        its address, the XCom is not read: Airflow would log an error if there is none.
        """
        known: str | None = getattr(operator, "instance_url", None)
        if known is not None:
            return known
        from airflow.providers.common.compat.sdk import XCom  # noqa: PLC0415

        url: str | None = XCom.get_value(ti_key=ti_key, key=self.xcom_key)
        return url or ""
