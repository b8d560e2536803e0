"""The link from a task to its BPM instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink

from airflow_provider_astrobpm._airflow.xcom_keys import INSTANCE_URL

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey


class AstroZeroBpmInstanceLink(BaseOperatorLink):
    """Opens the task's instance in Astro Zero, from its start on.

    Its address is made from the extra ``instance_url`` of the connection; without that there is no link.
    """

    name = "Open in Astro Zero"
    xcom_key = INSTANCE_URL
    """Where Airflow finds the address: the XCom that the task publishes before it waits."""

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address that the task has published, or nothing.

        Airflow asks for it when a task is deferred and when it has ended, and publishes it once more. What the task knows by
        itself is not looked for: where there is none, Airflow would log an error.
        """
        known: str | None = getattr(operator, "instance_url", None)
        if known is not None:
            return known
        from airflow.providers.common.compat.sdk import XCom  # noqa: PLC0415

        url: str | None = XCom.get_value(ti_key=ti_key, key=self.xcom_key)
        return url or ""
