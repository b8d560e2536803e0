"""``AstroZeroHook``: every operation of the BPM API on one Airflow connection."""

from __future__ import annotations

from contextlib import asynccontextmanager, closing
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_astrobpm.bpm import (
    ages,
    api,
    change,
    checks,
    definitions,
    launch,
    listing,
    look,
    search,
    trial,
    wait,
)
from airflow_provider_astrobpm.bpm.client import BpmClient
from airflow_provider_astrobpm.bpm.condition import WaitCondition
from airflow_provider_astrobpm.bpm.errors import AstroZeroError, UnknownVariablesError
from airflow_provider_astrobpm.bpm.settings import HURRY
from airflow_provider_astrobpm.hooks import DEFAULT_CONN_ID, masking, metrics
from airflow_provider_astrobpm.hooks.connection import settings_from

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
    from datetime import timedelta, tzinfo
    from typing import Literal

    from airflow_provider_astrobpm.bpm.adoption import Order, Record
    from airflow_provider_astrobpm.bpm.aio import AsyncBpmClient
    from airflow_provider_astrobpm.bpm.api import Action, Plan
    from airflow_provider_astrobpm.bpm.change import Change, IfClosed, IfMissing, Intent
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.launch import Launched
    from airflow_provider_astrobpm.bpm.sameness import Known
    from airflow_provider_astrobpm.bpm.settings import Settings
    from airflow_provider_astrobpm.bpm.wait import AnyWait, Note, Wait
    from airflow_provider_astrobpm.bpm.wire import BpmDefinition

    Age = str | float | timedelta

T = TypeVar("T")


class AstroZeroHook(BaseHook):
    """Talk to the BPM API of one Astro Zero environment.

    Every method raises ``ValueError`` for a bad argument, before anything is sent, ``SettingsError`` if the connection
    cannot be used, and ``CallError`` if a call fails; what else it may raise it says. But for ``ValueError``, and Airflow's
    own error for a connection that does not exist, all of them are in ``airflow_provider_astrobpm.bpm.errors``.

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
        """What the connection says, read once."""
        connection = self.get_connection(self.astro_zero_conn_id)
        settings = settings_from(connection)
        masking.mask_settings(settings)
        return settings

    @cached_property
    def client(self) -> BpmClient:
        """The client for this connection."""
        return BpmClient(
            self.settings,
            on_token=masking.shows_tokens(self.settings),
            on_retry=self.log.warning,
            meter=metrics.meter(),
        )

    def zone(self) -> tzinfo | None:
        """Return the zone of the API's timestamps, if the connection names it."""
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
        """Start an instance (API page 0069), by one POST that is never sent again when it may have been taken.

        :param bpm_name: the BPM's name, as the designer shows it, with its namespace where it has one.
        :param version: the version to run, even if it is not the enabled one; without it the enabled one runs.
        :param variables: values for the BPM's variables; see ``docs/variables.md`` for what is sent.
        :param business_key: the instance's business key, ``$Flow.BusinessKey``.
        :param title: the instance's title, ``$Flow.Title``.
        :raises AmbiguousStartError: if nobody can know whether the instance was started.
        """
        operation = api.start(
            bpm_name,
            version=version,
            variables=variables,
            business_key=business_key,
            title=title,
            zone=self.zone,
        )
        return self.client.run(launch.start_once(operation, business_key, self.client.meter))

    def launch(self, order: Order, record: Record | None, *, remember: Callable[[Record], None]) -> Launched:
        """Bring about the one instance of a task: start it, or go on with the one that an earlier try has started.

        :param order: what is to be started, for which try.
        :param record: what earlier tries have written down, if they did.
        :param remember: writes a record down for later tries.
        :raises AmbiguousStartError: if nobody can know whether an instance was started.
        :raises OpenInstanceExistsError: if one carries the author's key, and that was to fail.
        """
        order.start(order.key())  # bad arguments are refused before anything else
        launcher = launch.Launcher(
            order,
            find=self._find,
            remember=remember,
            log=self._log_note,
            clock=self.client.clock,
            endpoint=search.endpoint_at(self.settings.base_url),
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
        """List instances by state (API page 0070): one request a state, because several at once are undocumented.

        The requests are made one after another, so an instance that moves meanwhile may be missed. A row that cannot be read
        and may be one of those asked for is an ``UnexpectedAnswerError``. The instances of all states are ordered here as well,
        for whether an endpoint orders is undocumented; what shows nothing in the column comes last.

        :param states: states to list, in this order.
        :param order_field: the column to order by; ``None`` for the server's own order.
        :param order_type: the direction.
        :param bpm_name: the BPM's name, if only its instances count.
        :param business_key: the business key, if only instances that carry it count.
        :param suspended: whether only suspended instances count, or only others.
        :param older_than: only instances that were started longer ago than this: a text such as ``7d`` or ``1d12h``, a
            ``timedelta``, or seconds. The connection must say its ``timezone``. What shows no credible start time is left out.
        :param younger_than: only instances that were started since.
        :param limit: the most instances to return, the first of the order.
        :raises UnexpectedAnswerError: if rows of one instance contradict each other.
        :raises KeysNotShownError: if a business key is asked for, and no row of any state shows one.
        """
        asked = {"older_than": older_than, "younger_than": younger_than}
        seconds = {name: ages.seconds_of(age, name) for name, age in asked.items() if age is not None}
        if limit is not None:
            checks.count(limit, "limit", least=1)
        wanted = listing.Wanted(
            **listing.checked(bpm_name, business_key),
            suspended=suspended,
            ages=ages.limits(
                seconds.get("older_than"),
                seconds.get("younger_than"),
                timezone=self.settings.timezone,
                connection=self.astro_zero_conn_id,
            )
            if seconds
            else None,
            now=self.client.clock(),
        )
        listed = self.client.run(
            listing.instances(
                states,
                wanted=wanted,
                order=listing.Order(order_field, order_type),
                endpoint=search.endpoint_at(self.settings.base_url),
            )
        )
        if listed.of_unknown_age:
            self.log.warning(
                "Left out %d instances whose start time does not tell for certain how old they are",
                listed.of_unknown_age,
            )
        return listed.instances[:limit]

    def get_instance(self, instance_id: str, *, last_state: str | None = None) -> BpmInstance:
        """Find an instance by its id, as the extra ``instance_lookup`` says.

        :param instance_id: the instance's id.
        :param last_state: the state in which it was last seen, if that is known; it makes the search cheaper.
        :raises InstanceNotFoundError: if it is in none of the states.
        """
        return self.client.run(self._find(instance_id, last_state))

    def find_instance(self, business_key: str, *, bpm_name: str | None = None) -> BpmInstance:
        """Find the instance that carries a business key: the only one, or the only one that is open.

        :param business_key: the business key.
        :param bpm_name: the BPM's name, if only its instances count.
        :raises InstanceNotFoundError: if there is none.
        :raises KeysNotShownError: if no row shows a business key, so nobody can tell.
        :raises SeveralInstancesError: if the key does not say which one is meant.
        """
        endpoint = search.endpoint_at(self.settings.base_url)
        return self.client.run(search.find_by_key(business_key, name=bpm_name, endpoint=endpoint))

    def change_state(
        self,
        instance_id: str,
        action: Action,
        *,
        if_closed: IfClosed = "succeed",
        known: Known = change.NOTHING_KNOWN,
        last_state: str | None = None,
        intent: Intent = change.FIRST_TRY,
    ) -> Change:
        """Suspend, resume or terminate an instance (API page 0071), judged by outcome.

        What an instance already is it need not become: suspending what is suspended, resuming what runs and
        terminating what has ended succeed and say so. What was accepted and does not show at once is looked for again, for
        ``start_grace`` seconds of the connection.

        :param instance_id: the instance's id.
        :param action: ``"suspend"``, ``"resume"`` or ``"terminate"``.
        :param if_closed: whether it is fine that the instance has ended already.
        :param known: what is known of the instance besides its id, so that no other is changed in its place.
        :param last_state: the state in which it was last seen, if that is known; it makes searches cheaper.
        :param intent: what earlier tries of a task say about the same action; for ``if_closed="fail"``.
        :returns: the instance afterwards, and what happened in words.
        :raises InstanceNotFoundError: if there is no such instance.
        :raises InstanceClosedError: if it has ended already, and ``if_closed`` is ``"fail"``.
        :raises EffectNotShownError: if the action was accepted, and its effect does not show in time.
        """
        instance_id = checks.identifier(instance_id, "instance_id")
        plan = change.change_state(
            instance_id,
            action,
            find=partial(self._find, last_state=last_state),
            if_closed=if_closed,
            known=known,
            grace=self.settings.start_grace,
            intent=intent,
        )
        done = self.client.run(plan)
        self.log.info(done.note)
        return done

    def suspend_instance(self, instance_id: str, *, if_closed: IfClosed = "succeed") -> Change:
        """Suspend an instance: people do not see it and its timers stop. See ``change_state``."""
        return self.change_state(instance_id, "suspend", if_closed=if_closed)

    def resume_instance(self, instance_id: str, *, if_closed: IfClosed = "succeed") -> Change:
        """Resume a suspended instance. See ``change_state``."""
        return self.change_state(instance_id, "resume", if_closed=if_closed)

    def terminate_instance(self, instance_id: str, *, if_closed: IfClosed = "succeed") -> Change:
        """Terminate an instance. See ``change_state``."""
        return self.change_state(instance_id, "terminate", if_closed=if_closed)

    def delete_instance(
        self, instance_id: str, *, if_missing: IfMissing = "fail", intent: Intent = change.FIRST_TRY
    ) -> str:
        """Delete an instance for good (API page 0072). This is for clearing old data; to stop one, terminate it.

        :param instance_id: the instance's id.
        :param if_missing: whether it is fine that there is no such instance. For ``"fail"`` it is looked for first.
        :param intent: what earlier tries of a task say about the same deletion; for ``if_missing="fail"``.
        :returns: what happened, in words.
        :raises InstanceNotFoundError: if there is none, and ``if_missing`` is ``"fail"``.
        """
        instance_id = checks.identifier(instance_id, "instance_id")
        grace = self.settings.start_grace
        return self.client.run(
            change.delete(instance_id, find=self._find, if_missing=if_missing, grace=grace, intent=intent)
        )

    def set_variables(self, instance_id: str, variables: Mapping[str, Any]) -> None:
        """Set variables of an instance (API page 0073). Unknown and read-only names are ignored without a word.

        :param instance_id: the instance's id.
        :param variables: names and values; see ``docs/variables.md`` for what is sent.
        :raises CallError: if the call failed; it says where the variables may have been set all the same.
        """
        self.client.run(change.set_variables(instance_id, variables, zone=self.zone))

    def get_definitions(
        self,
        *,
        name: str | None = None,
        like: bool = False,
        active: bool | None = None,
        skip: int | None = None,
        limit: int | None = None,
    ) -> list[BpmDefinition]:
        """List BPM definitions, one row a version (API page 0047).

        :param name: the name to look for; without it all.
        :param like: whether a part of the name is enough.
        :param active: only enabled, or only disabled versions; sent as ``true`` or ``false``, which is undocumented.
        :param skip: rows to leave out at the beginning.
        :param limit: rows to return at most.
        """
        return self.client.call(api.definitions(name=name, like=like, active=active, skip=skip, limit=limit))

    def get_definition(self, definition_id: str) -> dict[str, Any]:
        """Read one BPM definition, the whole graph as Astro Zero sends it (API page 0048)."""
        return self.client.call(api.definition(definition_id))

    def check_variables(self, bpm_name: str, variables: Iterable[str], *, version: str | None = None) -> bool:
        """Check by the definition of a BPM that it has variables of these names (API pages 0047 and 0048).

        Astro Zero ignores the others without a word. Where the definition does not list the variables, that cannot be
        told; a warning says so.

        :param bpm_name: the BPM's name.
        :param variables: the names, or a mapping of them; those of system variables are not checked.
        :param version: the version; without it the enabled one.
        :returns: whether it could be told.
        :raises UnknownVariablesError: if the BPM has no variable of one of the names.
        """
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
            words = f"Whether {told.bpm} has the variables {', '.join(map(repr, names))} cannot be told"
            self.log.warning("%s: %s", words, told.why_unknown)
        return told.names is not None

    def check_variables_of(self, instance: BpmInstance, variables: Iterable[str]) -> bool:
        """Check that the BPM that an instance runs has variables of these names; see ``check_variables``.

        :param instance: the instance.
        :param variables: the names, or a mapping of them.
        :returns: whether it could be told.
        :raises UnknownVariablesError: if the BPM has no variable of one of the names.
        """
        if instance.version is not None:
            return self.check_variables(instance.name, variables, version=instance.version)
        words = f"Whether instance {instance.id!r} has the variables cannot be told"
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
        """Wait until an instance meets a condition, holding this thread.

        :param instance: the instance as it was seen last.
        :param condition: what to wait for; by default that it ends in ``Completed OK``.
        :param poll_interval: seconds between two looks, at least 1.
        :param timeout: seconds after which the wait fails; ``None`` to wait for ever.
        :param max_poll_failure_time: seconds for which looks may fail in a row.
        :raises WaitFailedError: if the instance ended, or came to a state, that the condition does not accept.
        :raises WaitTimeoutError: if the time was over; the instance is left as it is.
        :raises InstanceNotFoundError: if the instance is gone.
        """
        interval = checks.poll_interval(poll_interval)
        deadline = None if timeout is None else self.client.clock() + checks.seconds(timeout, "timeout")
        patience = checks.seconds(max_poll_failure_time, "max_poll_failure_time")
        awaited = wait.Wait(
            condition or WaitCondition(), seen=instance, deadline=deadline, max_poll_failure_time=patience
        )
        return self.run_wait(awaited, poll_interval=interval)

    def run_wait(self, awaited: AnyWait[T], *, poll_interval: float) -> T:
        """Run a wait to its end, holding this thread, and return its good end; see ``wait_for_instance``."""
        self._look_for(awaited, look.wait_for(awaited, poll_interval=poll_interval, **self._looking))
        return awaited.result()

    def look(self, awaited: AnyWait[Any]) -> None:
        """Look once for what a wait is about."""
        self._look_for(awaited, look.once(awaited, **self._looking))

    def look_until_sure(self, awaited: Wait, *, again_after: float) -> None:
        """Look for what a wait is about, and again while looks fail or do not show it.

        :param again_after: seconds after which to look again.
        """
        self._look_for(awaited, look.until_sure(awaited, again_after=again_after, **self._looking))

    def _look_for(self, awaited: AnyWait[Any], plan: Plan[Any]) -> None:
        """Run a plan that looks for a wait, and let the error that may end the wait name the connection."""
        self.client.run(plan)
        if isinstance(awaited.ending, AstroZeroError):
            awaited.ending.connection = awaited.ending.connection or self.settings.connection

    @property
    def _looking(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "log": self._log_note,
            "clock": self.client.now,
            "meter": self.client.meter,
        }

    def _log_note(self, note: Note) -> None:
        note.write_to(self.log)

    def as_dict(self, instance: BpmInstance) -> dict[str, Any]:
        """Return the plain dict that tasks pass on: its address and time zone as the connection says."""
        return instance.as_dict(url=self.settings.url_of(instance.id), timezone=self.settings.timezone)

    def test_connection(self) -> tuple[bool, str]:
        """Get a token and read one definition, or list instances, within seconds and without changing anything."""
        try:
            quick = self.settings.in_a_hurry(max_attempts=1, answer_timeout=HURRY)
            on_token = masking.shows_tokens(quick)
            with closing(BpmClient(quick, on_token=on_token, meter=metrics.meter())) as client:
                seen = client.run(trial.trial(client.clock))
        except (AstroZeroError, ValueError) as error:
            return False, str(error)
        return True, f"Connected to {self.settings.base_url}; {seen}"

    async def async_settings(self) -> Settings:
        """Read the connection anew, without blocking the event loop."""
        settings = settings_from(await get_async_connection(self.astro_zero_conn_id))
        await masking.amask_settings(settings)
        return settings

    @asynccontextmanager
    async def async_client(self) -> AsyncIterator[AsyncBpmClient]:
        """Provide a client for ``async`` code, and close it at the end. It runs the same operations and plans.

        :raises SettingsError: if the connection cannot be used.
        """
        async with self.make_async_client(await self.async_settings()) as client:
            yield client

    @staticmethod
    def make_async_client(settings: Settings) -> AsyncBpmClient:
        """Return a client for ``async`` code whose tokens are masked in Airflow's logs; close it after use."""
        from airflow_provider_astrobpm.bpm.aio import AsyncBpmClient  # noqa: PLC0415 - a worker needs no aiohttp

        return AsyncBpmClient(settings, on_token=masking.ashows_tokens(settings), meter=metrics.meter())

    @property
    def _find(self) -> Callable[..., Plan[BpmInstance]]:
        return search.finder(self.settings)
