"""``AstroZeroHook``: every operation of the BPM API on one Airflow connection.

A task that resumes after a deferral reads the connection and sends no request. So the methods import the client and whatever
else they need. The import of the client and its libraries takes several times the CPU time of everything else in such a task.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, closing
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_astrobpm._airflow import stats
from airflow_provider_astrobpm.client import actions, operations, validation
from airflow_provider_astrobpm.client.errors import AstroZeroError, UnknownVariablesError
from airflow_provider_astrobpm.client.settings import SHORT_TIMEOUT_SECONDS
from airflow_provider_astrobpm.hooks import DEFAULT_CONN_ID, masking
from airflow_provider_astrobpm.hooks.connection import settings_from
from airflow_provider_astrobpm.waiting.condition import WaitCondition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
    from datetime import timedelta, tzinfo
    from typing import Literal

    from airflow_provider_astrobpm.client.actions import IfClosed, IfMissing, Intent, StateChange
    from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.log_note import LogNote
    from airflow_provider_astrobpm.client.operations import Action, Flow
    from airflow_provider_astrobpm.client.sameness import KnownIdentity
    from airflow_provider_astrobpm.client.settings import Settings
    from airflow_provider_astrobpm.client.sync_client import BpmClient
    from airflow_provider_astrobpm.client.wire import BpmDefinition
    from airflow_provider_astrobpm.starting.decision import StartRecord, StartRequest
    from airflow_provider_astrobpm.starting.instance_starter import StartResult
    from airflow_provider_astrobpm.waiting.polling import WorkerPolling
    from airflow_provider_astrobpm.waiting.wait import BaseWait, InstanceWait

    Age = str | float | timedelta

T = TypeVar("T")


class AstroZeroHook(BaseHook):
    """Access the BPM API of one Astro Zero environment.

    Every method raises ``ValueError`` for an invalid argument, before anything is sent, ``SettingsError`` if the connection
    cannot be used, and ``CallError`` if a call fails. A method's docstring lists the other errors that it raises. All of them
    are in ``airflow_provider_astrobpm.client.errors``, except ``ValueError`` and Airflow's own error for a missing connection.

    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    """

    conn_name_attr = "astro_zero_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = "astro_zero"
    hook_name = "Huawei Cloud Astro Zero"

    def __init__(self, astro_zero_conn_id: str = DEFAULT_CONN_ID) -> None:
        super().__init__()
        self.astro_zero_conn_id = astro_zero_conn_id

    @cached_property
    def settings(self) -> Settings:
        """The settings of the connection, read once."""
        connection = self.get_connection(self.astro_zero_conn_id)
        settings = settings_from(connection)
        masking.mask_settings(settings)
        return settings

    @cached_property
    def client(self) -> BpmClient:
        """The client for this connection."""
        from airflow_provider_astrobpm.client.sync_client import BpmClient  # noqa: PLC0415

        return BpmClient(
            self.settings,
            on_token=masking.token_masker(self.settings),
            on_retry=self.log.warning,
            meter=stats.meter(),
        )

    def zone(self) -> tzinfo | None:
        """Return the time zone of the API's timestamps, if the connection names it."""
        return self.settings.timezone

    def get_conn(self) -> BpmClient:
        """Return the client for this connection."""
        return self.client

    def start_instance(
        self,
        bpm_name: str,
        *,
        version: str | None = None,
        variables: Mapping[str, Any] | None = None,
        business_key: str | None = None,
        title: str | None = None,
    ) -> BpmInstance:
        """Start an instance (API page 0069) with one POST, which is never resent when the server may have acted on it.

        :param bpm_name: the BPM's name as the designer shows it, with its namespace if it has one.
        :param version: the version to run, even if it is not the enabled one; without it, the enabled version runs.
        :param variables: values for the BPM's variables; see ``docs/variables.md`` for the types that can be sent.
        :param business_key: the instance's business key, ``$Flow.BusinessKey``.
        :param title: the instance's title, ``$Flow.Title``.
        :raises AmbiguousStartError: if it is unknown whether the instance was started.
        """
        from airflow_provider_astrobpm.starting import instance_starter  # noqa: PLC0415

        operation = operations.start(
            bpm_name,
            version=version,
            variables=variables,
            business_key=business_key,
            title=title,
            zone=self.zone,
        )
        return self.client.run(instance_starter.start_once(operation, business_key, self.client.meter))

    def launch(
        self, order: StartRequest, record: StartRecord | None, *, remember: Callable[[StartRecord], None]
    ) -> StartResult:
        """Start the one instance of a task, or adopt the instance that an earlier try started.

        :param order: what to start, and for which try.
        :param record: the record of earlier tries, if there is one.
        :param remember: stores a record for later tries.
        :raises AmbiguousStartError: if it is unknown whether an instance was started.
        :raises OpenInstanceExistsError: if an open instance has the author's key, and ``if_open_instance_exists`` is ``"fail"``.
        """
        from airflow_provider_astrobpm.client import search  # noqa: PLC0415
        from airflow_provider_astrobpm.starting import instance_starter  # noqa: PLC0415

        order.start(order.key())  # refuses invalid arguments before anything else
        launcher = instance_starter.InstanceStarter(
            order,
            find=self._find,
            remember=remember,
            log=self._log_note,
            clock=self.client.clock,
            endpoint=search.traits_of_endpoint(self.settings.base_url),
            meter=self.client.meter,
        )
        return self.client.run(launcher.launch(record))

    def query_instances(
        self,
        states: Collection[str],
        *,
        order_field: str | None = "startTime",
        order_type: Literal["asc", "desc"] = "desc",
        bpm_name: str | None = None,
        business_key: str | None = None,
        suspended: bool | None = None,
        older_than: Age | None = None,
        younger_than: Age | None = None,
        limit: int | None = None,
    ) -> list[BpmInstance]:
        """List instances by state (API page 0070), with one request per state, because several at once are undocumented.

        The requests are made one after another, so an instance that moves in the meantime may be missed. An unreadable row that may
        be among the requested instances raises ``UnexpectedAnswerError``. The instances of all states are also ordered here, because
        it is undocumented whether an endpoint orders; rows without a value in the column come last.

        :param states: the states to list, in this order.
        :param order_field: the column to order by; ``None`` for the server's default.
        :param order_type: the direction.
        :param bpm_name: the BPM's name, if only its instances count.
        :param business_key: the business key, if only instances with it count.
        :param suspended: ``True`` for suspended instances only, ``False`` for the others only, ``None`` for all.
        :param older_than: only instances that were started longer ago than this: a text such as ``7d`` or ``1d12h``, a
            ``timedelta``, or seconds. The connection must have the extra ``timezone``. Instances without a credible start time are
            left out.
        :param younger_than: only instances that were started more recently than this.
        :param limit: the maximum number of instances to return, from the beginning of the order.
        :raises UnexpectedAnswerError: if rows of one instance contradict each other.
        :raises KeysNotShownError: if a business key is given, and no row of any state shows one.
        """
        from airflow_provider_astrobpm.client import ages, listing, search  # noqa: PLC0415

        asked = {"older_than": older_than, "younger_than": younger_than}
        seconds = {name: ages.age_seconds(age, name) for name, age in asked.items() if age is not None}
        if limit is not None:
            validation.count(limit, "limit", least=1)
        wanted = listing.ListingFilter(
            **listing.checked(bpm_name, business_key),
            suspended=suspended,
            ages=ages.limits(
                seconds.get("older_than"),
                seconds.get("younger_than"),
                timezone=self.settings.timezone,
                connection=self.astro_zero_conn_id,
            ),
            now=self.client.clock(),
        )
        listed = self.client.run(
            listing.instances(
                states,
                wanted=wanted,
                order_field=order_field,
                order_type=order_type,
                endpoint=search.traits_of_endpoint(self.settings.base_url),
            )
        )
        if listed.of_unknown_age:
            self.log.warning(
                "Left out %d instances of unknown age, because their start times are not conclusive",
                listed.of_unknown_age,
            )
        return listed.instances[:limit]

    def get_instance(self, instance_id: str, *, last_state: str | None = None) -> BpmInstance:
        """Find an instance by its id, by the method that the extra ``instance_lookup`` selects.

        :param instance_id: the instance's id.
        :param last_state: the state in which it was last seen, if known; it makes the search cheaper.
        :raises InstanceNotFoundError: if it is in none of the states.
        """
        return self.client.run(self._find(instance_id, last_state))

    def find_instance(self, business_key: str, *, bpm_name: str | None = None) -> BpmInstance:
        """Find the instance with a business key: the only one, or the only open one.

        :param business_key: the business key.
        :param bpm_name: the BPM's name, if only its instances count.
        :raises InstanceNotFoundError: if there is none.
        :raises KeysNotShownError: if no row shows a business key, so a search by key cannot work.
        :raises SeveralInstancesError: if several instances have the key.
        """
        from airflow_provider_astrobpm.client import search  # noqa: PLC0415

        endpoint = search.traits_of_endpoint(self.settings.base_url)
        return self.client.run(search.find_by_key(business_key, name=bpm_name, endpoint=endpoint))

    def change_state(
        self,
        instance_id: str,
        action: Action,
        *,
        if_closed: IfClosed = "succeed",
        known: KnownIdentity = actions.NOTHING_KNOWN,
        last_state: str | None = None,
        intent: Intent = actions.FIRST_TRY,
    ) -> StateChange:
        """Suspend, resume or terminate an instance (API page 0071), and check the result by its state afterwards.

        An action whose effect is already there succeeds and says so: suspending a suspended instance, resuming a running one, and
        terminating an ended one. If an accepted action has no visible effect yet, the instance is checked again, for up to
        ``start_grace`` seconds of the connection.

        :param instance_id: the instance's id.
        :param action: ``"suspend"``, ``"resume"`` or ``"terminate"``.
        :param if_closed: whether to succeed if the instance has already ended.
        :param known: what is known about the instance in addition to its id, so that no other instance is changed.
        :param last_state: the state in which it was last seen, if known; it makes searches cheaper.
        :param intent: what earlier tries of a task recorded about the same action; for ``if_closed="fail"``.
        :returns: the instance afterwards, and what happened, in words.
        :raises InstanceNotFoundError: if there is no such instance.
        :raises InstanceClosedError: if it has already ended, and ``if_closed`` is ``"fail"``.
        :raises EffectNotShownError: if the action was accepted, but its effect does not show in time.
        """
        instance_id = validation.identifier(instance_id, "instance_id")
        flow = actions.change_state(
            instance_id,
            action,
            find=partial(self._find, last_state=last_state),
            if_closed=if_closed,
            known=known,
            grace=self.settings.start_grace,
            intent=intent,
        )
        done = self.client.run(flow)
        self.log.info(done.note)
        return done

    def suspend_instance(self, instance_id: str, *, if_closed: IfClosed = "succeed") -> StateChange:
        """Suspend an instance: users no longer see it, and its timers stop. See ``change_state``."""
        return self.change_state(instance_id, "suspend", if_closed=if_closed)

    def resume_instance(self, instance_id: str, *, if_closed: IfClosed = "succeed") -> StateChange:
        """Resume a suspended instance. See ``change_state``."""
        return self.change_state(instance_id, "resume", if_closed=if_closed)

    def terminate_instance(self, instance_id: str, *, if_closed: IfClosed = "succeed") -> StateChange:
        """Terminate an instance. See ``change_state``."""
        return self.change_state(instance_id, "terminate", if_closed=if_closed)

    def delete_instance(
        self, instance_id: str, *, if_missing: IfMissing = "fail", intent: Intent = actions.FIRST_TRY
    ) -> str:
        """Delete an instance permanently (API page 0072). This is for removing old data; to stop an instance, terminate it.

        :param instance_id: the instance's id.
        :param if_missing: whether to succeed if there is no such instance. With ``"fail"`` it is searched for first.
        :param intent: what earlier tries of a task recorded about the same deletion; for ``if_missing="fail"``.
        :returns: what happened, in words.
        :raises InstanceNotFoundError: if there is none, and ``if_missing`` is ``"fail"``.
        """
        instance_id = validation.identifier(instance_id, "instance_id")
        grace = self.settings.start_grace
        return self.client.run(
            actions.delete(instance_id, find=self._find, if_missing=if_missing, grace=grace, intent=intent)
        )

    def set_variables(self, instance_id: str, variables: Mapping[str, Any]) -> None:
        """Set variables of an instance (API page 0073). Astro Zero silently ignores unknown and read-only names.

        :param instance_id: the instance's id.
        :param variables: names and values; see ``docs/variables.md`` for the types that can be sent.
        :raises CallError: if the call failed; it says so if the variables may have been set anyway.
        """
        self.client.run(actions.set_variables(instance_id, variables, zone=self.zone))

    def get_definitions(
        self,
        *,
        name: str | None = None,
        like: bool = False,
        active: bool | None = None,
        skip: int | None = None,
        limit: int | None = None,
    ) -> list[BpmDefinition]:
        """List BPM definitions, one row per version (API page 0047).

        :param name: the name to search for; without it, all are listed.
        :param like: whether the name may be a part of the BPM's name.
        :param active: whether to list only enabled or only disabled versions; sent as ``true`` or ``false``, which is undocumented.
        :param skip: the number of rows to skip.
        :param limit: the maximum number of rows.
        """
        return self.client.call(
            operations.definitions(name=name, like=like, active=active, skip=skip, limit=limit)
        )

    def get_definition(self, definition_id: str) -> dict[str, Any]:
        """Read one BPM definition: the whole graph as Astro Zero sends it (API page 0048)."""
        return self.client.call(operations.definition(definition_id))

    def check_variables(self, bpm_name: str, variables: Iterable[str], *, version: str | None = None) -> bool:
        """Check by its definition that a BPM has variables with these names (API pages 0047 and 0048).

        Astro Zero silently ignores unknown names. If the definition does not list its variables, the check is not possible, and a
        warning says so.

        :param bpm_name: the BPM's name.
        :param variables: the names, or a mapping with the names as keys; system variables are not checked.
        :param version: the version; without it, the enabled one.
        :returns: whether the check was possible.
        :raises UnknownVariablesError: if the BPM has no variable with one of the names.
        """
        from airflow_provider_astrobpm.client import definitions  # noqa: PLC0415

        names = definitions.own(variables)
        if not names:
            return True
        told = self.client.run(definitions.variables(bpm_name, version))
        try:
            told.check(names)
        except UnknownVariablesError as error:
            error.connection = self.settings.connection
            raise
        if told.names is None:
            words = f"Cannot check whether {told.bpm} has the variables {', '.join(map(repr, names))}"
            self.log.warning("%s: %s", words, told.why_unknown)
        return told.names is not None

    def check_variables_of(self, instance: BpmInstance, variables: Iterable[str]) -> bool:
        """Check that the BPM of an instance has variables with these names; see ``check_variables``.

        :param instance: the instance.
        :param variables: the names, or a mapping with the names as keys.
        :returns: whether the check was possible.
        :raises UnknownVariablesError: if the BPM has no variable with one of the names.
        """
        if instance.version is not None:
            return self.check_variables(instance.name, variables, version=instance.version)
        words = f"Cannot check the variables of instance {instance.id!r}"
        self.log.warning("%s: %s", words, "it does not show its version")
        return False

    def wait_for_instance(
        self,
        instance: BpmInstance,
        condition: WaitCondition | None = None,
        *,
        poll_interval: float | timedelta = 60,
        timeout: float | timedelta | None = None,
        max_poll_failure_time: float | timedelta = 600,
    ) -> BpmInstance:
        """Wait until an instance meets a condition. Blocks the calling thread.

        :param instance: the instance as last seen.
        :param condition: what to wait for; by default, until the instance ends in ``Completed OK``.
        :param poll_interval: seconds between two polls, at least 1.
        :param timeout: seconds after which the wait fails; ``None`` to wait forever.
        :param max_poll_failure_time: seconds for which consecutive polls may fail.
        :raises WaitFailedError: if the instance ended, or entered a state, that the condition does not accept.
        :raises WaitTimeoutError: if the wait timed out; the instance is not changed.
        :raises InstanceNotFoundError: if the instance no longer exists.
        """
        from airflow_provider_astrobpm.waiting import wait  # noqa: PLC0415

        interval = validation.poll_interval(poll_interval)
        deadline = None if timeout is None else self.client.clock() + validation.seconds(timeout, "timeout")
        patience = validation.seconds(max_poll_failure_time, "max_poll_failure_time")
        awaited = wait.InstanceWait(
            condition or WaitCondition(), seen=instance, deadline=deadline, max_poll_failure_time=patience
        )
        return self.run_wait(awaited, poll_interval=interval)

    def run_wait(self, awaited: BaseWait[T], *, poll_interval: float) -> T:
        """Run a wait to its end and return its result, or raise its error. Blocks the calling thread; see ``wait_for_instance``."""
        self._poll_for(awaited, self._polling.run_wait(awaited, poll_interval))
        return awaited.result()

    def poll_once(self, awaited: BaseWait[Any]) -> None:
        """Poll once for a wait."""
        self._poll_for(awaited, self._polling.poll_once(awaited))

    def poll_until_conclusive(self, awaited: InstanceWait, *, again_after: float) -> None:
        """Poll for a wait, and poll again while polls fail or do not show its instance.

        :param again_after: seconds until the next poll.
        """
        self._poll_for(awaited, self._polling.poll_until_conclusive(awaited, again_after))

    def _poll_for(self, awaited: BaseWait[Any], flow: Flow[Any]) -> None:
        """Run a flow that polls for a wait. If the wait ends with an error, add the connection to the error."""
        self.client.run(flow)
        if isinstance(awaited.ending, AstroZeroError):
            awaited.ending.connection = awaited.ending.connection or self.settings.connection

    @property
    def _polling(self) -> WorkerPolling:
        from airflow_provider_astrobpm.waiting.polling import WorkerPolling  # noqa: PLC0415

        return WorkerPolling(
            settings=self.settings, log=self._log_note, clock=self.client.now, meter=self.client.meter
        )

    def _log_note(self, note: LogNote) -> None:
        note.write_to(self.log)

    def as_dict(self, instance: BpmInstance) -> dict[str, Any]:
        """Return the plain dict that tasks return, with the URL and time zone of the connection."""
        return instance.as_dict(url=self.settings.page_url(instance.id), timezone=self.settings.timezone)

    def test_connection(self) -> tuple[bool, str]:
        """Get a token and list one definition, or instances, within seconds and without changing anything."""
        from airflow_provider_astrobpm.client import connection_check  # noqa: PLC0415
        from airflow_provider_astrobpm.client.sync_client import BpmClient  # noqa: PLC0415

        try:
            quick = self.settings.with_short_timeouts(max_attempts=1, answer_timeout=SHORT_TIMEOUT_SECONDS)
            on_token = masking.token_masker(quick)
            with closing(BpmClient(quick, on_token=on_token, meter=stats.meter())) as client:
                seen = client.run(connection_check.check_connection(client.clock))
        except (AstroZeroError, ValueError) as error:
            return False, str(error)
        return True, f"Connected to {self.settings.base_url}; {seen}"

    async def async_settings(self) -> Settings:
        """Read the connection again, without blocking the event loop."""
        settings = settings_from(await get_async_connection(self.astro_zero_conn_id))
        await masking.amask_settings(settings)
        return settings

    @asynccontextmanager
    async def async_client(self) -> AsyncIterator[AsyncBpmClient]:
        """Provide a client for ``async`` code, and close it at the end. It runs the same operations and flows.

        :raises SettingsError: if the connection cannot be used.
        """
        async with self.make_async_client(await self.async_settings()) as client:
            yield client

    @staticmethod
    def make_async_client(settings: Settings) -> AsyncBpmClient:
        """Return a client for ``async`` code, with its tokens masked in Airflow's logs. Close it after use."""
        from airflow_provider_astrobpm.client.async_client import AsyncBpmClient  # noqa: PLC0415 - a worker needs no aiohttp

        return AsyncBpmClient(settings, on_token=masking.async_token_masker(settings), meter=stats.meter())

    @property
    def _find(self) -> Callable[..., Flow[BpmInstance]]:
        from airflow_provider_astrobpm.client import search  # noqa: PLC0415

        return search.instance_finder(self.settings)
