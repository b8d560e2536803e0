"""The notifier that starts an incident process when something has failed.

DAG files import this module at every parse, so the client and its libraries are imported only when it notifies.
"""

from __future__ import annotations

import time
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.notifier import BaseNotifier

from airflow_provider_astrobpm.bpm import checks
from airflow_provider_astrobpm.bpm import variables as values
from airflow_provider_astrobpm.bpm.errors import AstroZeroError
from airflow_provider_astrobpm.hooks import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_astrobpm.bpm.api import Plan
    from airflow_provider_astrobpm.bpm.incident import Reported
    from airflow_provider_astrobpm.bpm.settings import Settings

# Airflow ends what takes longer than 20 s after a failure, and then nobody would hear why nothing was started. A call
# may need a token, so what one attempt takes counts four times.
SOON_GIVEN_UP = 3.0  # seconds to reach the server, and between two attempts at most
MOST_ATTEMPTS = 2


class AstroZeroStartBpmNotifier(BaseNotifier):
    """Start a process over a failure, once: as ``on_failure_callback`` of a DAG or a task, or for a missed deadline.

    The business key tells one event from another. Where an instance of this BPM carries it already, open or ended, nothing is
    started, and the log says which one that is. Otherwise the start is one POST, which is never sent again when it may have
    been taken. Two notifiers that report the same event at the very same moment do not see each other, and may start two.

    What goes wrong here is logged and never raised: it must not hide the failure that is reported. See
    ``docs/incidents.md``, also for where Airflow runs it and what templates find there.

    :param bpm_name: the BPM's name, as the designer shows it, with its namespace where it has one.
    :param version: the version to run, even if it is not the enabled one; without it the enabled one runs.
    :param variables: values for the BPM's variables: what JSON can hold, dates and times, and more; see
        ``docs/variables.md`` for what is sent.
    :param business_key: the instance's business key; by default one that names what has failed: the try of a task, the
        end of a DAG run since it was last cleared, or the deadline.
    :param title: the instance's title, ``$Flow.Title``; by default one that names DAG, task and run.
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    :param context: the context; Airflow passes it where a deadline was missed.
    """

    template_fields: Sequence[str] = (
        "astro_zero_conn_id",
        "bpm_name",
        "version",
        "variables",
        "business_key",
        "title",
    )

    def __init__(
        self,
        *,
        bpm_name: str,
        version: str | None = None,
        variables: Mapping[str, Any] | None = None,
        business_key: str | None = None,
        title: str | None = None,
        astro_zero_conn_id: str = DEFAULT_CONN_ID,
        context: Context | None = None,
    ) -> None:
        super().__init__()
        self.bpm_name = checks.identifier(bpm_name, "bpm_name")
        self.version = version
        values.check_written(variables)
        self.variables = variables
        self.business_key = business_key
        self.title = title
        self.astro_zero_conn_id = astro_zero_conn_id
        if context is not None:
            self.context = context
        self._given = checks.given(self, ("version", "variables", "business_key", "title"))

    def __call__(self, *arguments: Any) -> None:
        """Report, with templates rendered for this event alone: one notifier serves many."""
        try:
            super(AstroZeroStartBpmNotifier, copy(self)).__call__(*arguments)
        except Exception as error:  # noqa: BLE001 - it must not hide what is reported
            self._give_up(error)

    def __await__(self) -> Generator[Any, None, None]:
        """Report the event of ``context``, in an event loop."""
        try:
            yield from super().__await__()
        except Exception as error:  # noqa: BLE001 - it must not hide what is reported
            self._give_up(error)

    def get_template_env(self, dag: Any = None) -> Any:
        """Return the environment of templates; the DAG that ``dag.test()`` hands over has none."""
        return super().get_template_env(dag if hasattr(dag, "get_template_env") else None)

    def notify(self, context: Context) -> None:
        """Report an event, and hold this thread until that is done."""
        try:
            self._notify(context)
        except Exception as error:  # noqa: BLE001 - it must not hide what is reported
            self._give_up(error)

    async def async_notify(self, context: Context) -> None:
        """Report an event, in an event loop."""
        try:
            await self._async_notify(context)
        except Exception as error:  # noqa: BLE001 - it must not hide what is reported
            self._give_up(error)

    def _notify(self, context: Context) -> None:
        from airflow_provider_astrobpm.bpm.client import BpmClient  # noqa: PLC0415
        from airflow_provider_astrobpm.hooks import masking, metrics  # noqa: PLC0415
        from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook  # noqa: PLC0415

        settings = _hasty(AstroZeroHook(self.astro_zero_conn_id).settings)
        plan = self._plan(context, settings)
        with BpmClient(
            settings,
            on_token=masking.shows_tokens(settings),
            on_retry=self.log.warning,
            meter=metrics.meter(),
        ) as client:
            self._tell(client.run(plan), settings)

    async def _async_notify(self, context: Context) -> None:
        import asyncio  # noqa: PLC0415

        # The first import of the client takes long enough to be noticed on a triggerer's event loop.
        hook = await asyncio.to_thread(_hook, self.astro_zero_conn_id)
        settings = _hasty(await hook.async_settings())
        plan = self._plan(context, settings)
        async with hook.make_async_client(settings) as client:
            self._tell(await client.run(plan), settings)

    def _plan(self, context: Context, settings: Settings) -> Plan[Reported]:
        """Return what is to be done, after a line in the log: Airflow may end this process in the middle of it."""
        from airflow_provider_astrobpm.bpm import api, incident  # noqa: PLC0415
        from airflow_provider_astrobpm.hooks import metrics  # noqa: PLC0415
        from airflow_provider_astrobpm.notifications.context import event_of, title_of  # noqa: PLC0415

        checks.still_given(self, self._given)
        bpm_name = checks.identifier(self.bpm_name, "bpm_name")
        event = None if self.business_key is not None else event_of(context)
        business_key = event.key() if event else checks.identifier(self.business_key, "business_key")
        title = self.title
        if title is None and api.TITLE_VARIABLE not in (self.variables or {}):
            title = title_of(context)
        start = api.start(
            bpm_name,
            version=self.version,
            variables=self.variables,
            business_key=business_key,
            title=title,
            zone=lambda: settings.timezone,
        )
        self.log.info(
            "Reporting %s to BPM %r on connection %r, business key %r",
            event or "an event", bpm_name, self.astro_zero_conn_id, business_key,
        )  # fmt: skip
        return incident.report(
            start,
            bpm_name=bpm_name,
            business_key=business_key,
            since=event.since if event else None,
            grace=settings.start_grace,
            clock=time.time,
            log=lambda note: note.write_to(self.log),
            meter=metrics.meter(),
        )

    def _tell(self, reported: Reported, settings: Settings) -> None:
        words = "Started %s%s" if reported.is_new else "Nothing is started: this was reported before, to %s%s"
        url = settings.url_of(reported.instance.id)
        self.log.info(words, reported.instance, f": {url}" if url else "")

    def _give_up(self, error: Exception) -> None:
        self.log.error(
            "No process was started over this that anybody knows of (%s). %s. If it is needed, start %r yourself.",
            type(error).__name__, str(error).removesuffix("."), self.bpm_name,
            exc_info=None if isinstance(error, (AstroZeroError, ValueError)) else error,
        )  # fmt: skip


def _hook(conn_id: str) -> Any:
    from airflow_provider_astrobpm.bpm import aio, incident  # noqa: F401, PLC0415
    from airflow_provider_astrobpm.hooks import metrics  # noqa: PLC0415
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook  # noqa: PLC0415

    metrics.prepare()
    return AstroZeroHook(conn_id)


def _hasty(settings: Settings) -> Settings:
    """Return the same, with less patience for a server that cannot be reached; one that answers may take its time."""
    return replace(
        settings,
        connect_timeout=min(settings.connect_timeout, SOON_GIVEN_UP),
        max_attempts=min(settings.max_attempts, MOST_ATTEMPTS),
        max_wait=min(settings.max_wait, SOON_GIVEN_UP),
    )
