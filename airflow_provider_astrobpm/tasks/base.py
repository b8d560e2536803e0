"""A task with a connection to Astro Zero.

DAG files import this module at every parse, so the client and its libraries are imported only when a task runs.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_astrobpm.hooks import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook


class AstroZeroTask(BaseOperator):
    """A task with a connection.

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
