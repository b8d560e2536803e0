"""The notifier that starts an incident process after a failure.

DAG files import this module at every parse, so the client and its libraries are imported only when it notifies.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.notifier import BaseNotifier

from airflow_provider_astrobpm.client import validation
from airflow_provider_astrobpm.client import variables as values
from airflow_provider_astrobpm.client.errors import AstroZeroError
from airflow_provider_astrobpm.hooks import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_astrobpm.client.operations import Flow
    from airflow_provider_astrobpm.client.settings import Settings
    from airflow_provider_astrobpm.starting.incident import IncidentResult

# Airflow stops a callback 20 s after a failure. A slower one could not even log why nothing was started. A call may need a
# token first, so one attempt can take four times as long.
GIVE_UP_SECONDS = 3.0  # to connect, and between two attempts, at most
MAX_ATTEMPTS = 2
OPTIONAL_TEMPLATES = ("version", "variables", "business_key", "title")


class AstroZeroStartBpmNotifier(BaseNotifier):
    """Start a process once for a failure: as ``on_failure_callback`` of a DAG or a task, or for a missed deadline.

    The business key identifies the incident. If an instance of this BPM already has the key, open or closed, nothing is
    started, and the log names that instance. Otherwise the start is one POST. It is never resent if the server may have
    processed it. Two notifiers that report the same incident at the same moment do not see each other and may start two.

    Errors of the notifier are logged and never raised, because they must not hide the failure that it reports. See
    ``docs/incidents.md``, also for where Airflow runs the notifier and which values its templates can use.

    :param bpm_name: the BPM's name, as the designer shows it, with its namespace if it has one.
    :param version: the version to run, even if it is not the enabled one; without it the enabled one runs.
    :param variables: values for the BPM's variables: what JSON can hold, dates and times, and more; see
        ``docs/variables.md`` for what is sent.
    :param business_key: the instance's business key; by default a key made from the failed try of a task, the end of a
        DAG run since it was last cleared, or the missed deadline.
    :param title: the instance's title, ``$Flow.Title``; by default one that names DAG, task and run.
    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    :param context: the context; Airflow passes it for a missed deadline.
    """

    template_fields: Sequence[str] = ("astro_zero_conn_id", "bpm_name", *OPTIONAL_TEMPLATES)

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
        self.bpm_name = validation.identifier(bpm_name, "bpm_name")
        self.version = version
        values.check_unrendered(variables)
        self.variables = variables
        self.business_key = business_key
        self.title = title
        self.astro_zero_conn_id = astro_zero_conn_id
        if context is not None:
            self.context = context
        self._provided_args = validation.provided_arguments(self, OPTIONAL_TEMPLATES)

    def __call__(self, *arguments: Any) -> None:
        """Report an incident. Render the templates on a copy, because one notifier serves many incidents."""
        with self._failures_logged():
            super(AstroZeroStartBpmNotifier, copy(self)).__call__(*arguments)

    def __await__(self) -> Generator[Any, None, None]:
        """Report the incident of ``context``, in an event loop."""
        with self._failures_logged():
            yield from super().__await__()

    def get_template_env(self, dag: Any = None) -> Any:
        """Return the template environment. The DAG that ``dag.test()`` passes has none."""
        return super().get_template_env(dag if hasattr(dag, "get_template_env") else None)

    def notify(self, context: Context) -> None:
        """Report an incident, blocking this thread."""
        with self._failures_logged():
            from airflow_provider_astrobpm._airflow import stats  # noqa: PLC0415
            from airflow_provider_astrobpm.client.sync_client import BpmClient  # noqa: PLC0415
            from airflow_provider_astrobpm.hooks import masking  # noqa: PLC0415
            from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook  # noqa: PLC0415

            settings = _with_short_timeouts(AstroZeroHook(self.astro_zero_conn_id).settings)
            flow = self._report_flow(context, settings)
            with BpmClient(
                settings,
                on_token=masking.token_masker(settings),
                on_retry=self.log.warning,
                meter=stats.meter(),
            ) as client:
                self._log_result(client.run(flow), settings)

    async def async_notify(self, context: Context) -> None:
        """Report an incident, in an event loop."""
        with self._failures_logged():
            import asyncio  # noqa: PLC0415

            # The first import of the client is slow enough to block a triggerer's event loop noticeably.
            hook = await asyncio.to_thread(_hook, self.astro_zero_conn_id)
            settings = _with_short_timeouts(await hook.async_settings())
            flow = self._report_flow(context, settings)
            async with hook.make_async_client(settings) as client:
                self._log_result(await client.run(flow), settings)

    def _report_flow(self, context: Context, settings: Settings) -> Flow[IncidentResult]:
        """Log and return the flow of the report. Logged first, because Airflow may stop this process at any time."""
        from airflow_provider_astrobpm._airflow import stats  # noqa: PLC0415
        from airflow_provider_astrobpm.client import operations  # noqa: PLC0415
        from airflow_provider_astrobpm.notifications.context import incident_key, incident_title  # noqa: PLC0415
        from airflow_provider_astrobpm.starting import incident  # noqa: PLC0415

        validation.require_still_provided(self, self._provided_args)
        bpm_name = validation.identifier(self.bpm_name, "bpm_name")
        event = None if self.business_key is not None else incident_key(context)
        business_key = event.key() if event else validation.identifier(self.business_key, "business_key")
        title = self.title
        if title is None and operations.TITLE_VARIABLE not in (self.variables or {}):
            title = incident_title(context)
        start = operations.start(
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
        return incident.report_incident(
            start,
            bpm_name=bpm_name,
            business_key=business_key,
            since=event.since if event else None,
            grace=settings.start_grace,
            clock=time.time,
            log=lambda note: note.write_to(self.log),
            meter=stats.meter(),
        )

    def _log_result(self, reported: IncidentResult, settings: Settings) -> None:
        words = (
            "Started %s%s" if reported.is_new else "Nothing was started: this was already reported to %s%s"
        )
        url = settings.page_url(reported.instance.id)
        self.log.info(words, reported.instance, f": {url}" if url else "")

    @contextmanager
    def _failures_logged(self) -> Iterator[None]:
        """Log an error instead of raising it, because it must not hide the failure that is reported."""
        try:
            yield
        except Exception as error:
            self.log.error(  # noqa: TRY400 - a traceback only if the error is not this provider's
                "Could not confirm that a process was started (%s). %s. If it is needed, start %r yourself.",
                type(error).__name__, str(error).removesuffix("."), self.bpm_name,
                exc_info=None if isinstance(error, (AstroZeroError, ValueError)) else error,
            )  # fmt: skip


def _hook(conn_id: str) -> Any:
    from airflow_provider_astrobpm._airflow import stats  # noqa: PLC0415
    from airflow_provider_astrobpm.client import async_client  # noqa: F401, PLC0415
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook  # noqa: PLC0415
    from airflow_provider_astrobpm.starting import incident  # noqa: F401, PLC0415

    stats.prepare()
    return AstroZeroHook(conn_id)


def _with_short_timeouts(settings: Settings) -> Settings:
    """Return the settings with short limits for a server that cannot be reached; one that answers may take its time."""
    return replace(
        settings,
        connect_timeout=min(settings.connect_timeout, GIVE_UP_SECONDS),
        max_attempts=min(settings.max_attempts, MAX_ATTEMPTS),
        max_wait=min(settings.max_wait, GIVE_UP_SECONDS),
    )
