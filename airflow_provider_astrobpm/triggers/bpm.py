"""Triggers for one BPM instance, for a batch, and (in ``triggers.event``) for all instances that enter a state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm._airflow import user_action
from airflow_provider_astrobpm._airflow.xcom_keys import (
    BATCH_KEY,
    BPM_NAMES,
    INSTANCE_ID,
    INSTANCE_IDS,
    SATISFIED_LAUNCHES,
)
from airflow_provider_astrobpm.triggers import pending_ids
from airflow_provider_astrobpm.triggers.base import WaitingTrigger
from airflow_provider_astrobpm.waiting.condition import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
    from airflow_provider_astrobpm.triggers.event import AstroZeroBpmEventTrigger
    from airflow_provider_astrobpm.waiting.batch_wait import BatchWait
    from airflow_provider_astrobpm.waiting.wait import InstanceWait

__all__ = ["AstroZeroBpmBatchTrigger", "AstroZeroBpmEventTrigger", "AstroZeroBpmInstanceTrigger"]

KILL_TIMEOUT_SECONDS = 600.0  # for terminating all instances of a batch


def __getattr__(name: str) -> Any:
    """Import the trigger of ``triggers.event`` only when it is used: a task that defers does not need it."""
    if name == "AstroZeroBpmEventTrigger":
        from airflow_provider_astrobpm.triggers.event import AstroZeroBpmEventTrigger  # noqa: PLC0415

        return AstroZeroBpmEventTrigger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class AstroZeroBpmInstanceTrigger(WaitingTrigger):
    """Wait for a BPM instance in the triggerer.

    Fires one event, whose payload ``event_payload`` writes and reads.

    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    :param instance_id: the instance's id.
    :param business_key: the instance's business key, if the id is not known.
    :param bpm_name: with ``business_key``: only instances of this BPM count. With ``instance_id``: the name that the task
        asked for, which the instance may show instead of the name it has shown so far.
    :param seen: the instance as the task last saw it, in the form of ``msgspec.to_builtins``.

    The other parameters are those of ``WaitingTrigger``.
    """

    _own_arguments = ("instance_id", "business_key", "bpm_name", "seen")

    def __init__(
        self,
        *,
        astro_zero_conn_id: str,
        instance_id: str | None = None,
        business_key: str | None = None,
        bpm_name: str | None = None,
        seen: Mapping[str, Any] | None = None,
        **waiting: Any,
    ) -> None:
        super().__init__(astro_zero_conn_id=astro_zero_conn_id, **waiting)
        self.instance_id = instance_id
        self.business_key = business_key
        self.bpm_name = bpm_name
        self.seen = seen
        self._awaited: InstanceWait | None = None

    @property
    def _awaited_xcom(self) -> tuple[str, str] | None:
        return None if self.instance_id is None else (INSTANCE_ID, self.instance_id)

    @property
    def _subject(self) -> str:
        return f"Instance {self.instance_id!r}"

    async def _new_wait(self) -> InstanceWait:
        import msgspec  # noqa: PLC0415

        from airflow_provider_astrobpm.client import search  # noqa: PLC0415
        from airflow_provider_astrobpm.client.instance import BpmInstance  # noqa: PLC0415
        from airflow_provider_astrobpm.client.sameness import KnownIdentity  # noqa: PLC0415
        from airflow_provider_astrobpm.waiting import wait  # noqa: PLC0415

        plain, self.seen = self.seen, None  # the wait keeps the instance, in a smaller form
        seen = msgspec.convert(plain, BpmInstance) if plain else None
        names = (self.bpm_name,) if self.bpm_name else ()
        self._awaited = wait.InstanceWait(
            self._condition(),
            instance_id=self.instance_id,
            key=search.checked_business_key(self.business_key, self.bpm_name) if self.business_key else None,
            seen=seen,
            known=KnownIdentity.of(seen, *names) if seen else None,
            deadline=self.deadline,
            max_poll_failure_time=self.max_poll_failure_time,
        )
        return self._awaited

    def _event(self, ending: Any, waiter: str | None) -> dict[str, Any]:
        from airflow_provider_astrobpm.waiting import event_payload  # noqa: PLC0415

        return event_payload.dump(ending, waiter)

    async def _terminate(self, client: AsyncBpmClient) -> str:
        from airflow_provider_astrobpm.client import actions, search  # noqa: PLC0415

        find, instance_id = search.instance_finder(client.settings), str(self.instance_id)
        last = self._awaited.seen if self._awaited else None
        instance = await client.run(find(instance_id, last.state if last else None))
        if self._awaited is not None and not self._awaited.known.matches(instance):
            return f"Not terminated, because its id now shows another instance: {instance}"
        if self._condition().judge(instance).outcome is not Outcome.WAITING:
            return f"Not terminated, because its wait has ended: {instance}"
        self.log.info("A user ended the task; terminating %s", instance)
        return (await client.run(actions.change_state(instance_id, "terminate", find=find))).note


class AstroZeroBpmBatchTrigger(WaitingTrigger):
    """Wait for all instances of a batch in the triggerer.

    It reads the instance ids from the XComs of its task, so its arguments are as short for ten thousand instances as for two.
    Fires one event, whose payload ``event_payload`` writes and reads.

    :param astro_zero_conn_id: the Airflow connection of type ``astro_zero``.
    :param task_key: the waiting task instance: ``dag_id``, ``run_id``, ``task_id`` and ``map_index``.
    :param batch_key: the prefix of the business keys of this generation of the batch.
    :param may_fail: how many instances may fail before the wait ends, even if others are still open; ``None`` for any number.

    The other parameters are those of ``WaitingTrigger``.
    """

    _own_arguments = ("task_key", "batch_key", "may_fail")

    def __init__(
        self,
        *,
        astro_zero_conn_id: str,
        task_key: Mapping[str, Any],
        batch_key: str,
        may_fail: int | None = None,
        **waiting: Any,
    ) -> None:
        super().__init__(astro_zero_conn_id=astro_zero_conn_id, **waiting)
        self.task_key = task_key
        self.batch_key = batch_key
        self.may_fail = may_fail
        self._ids: list[str] = []
        self._names: list[str] = []
        self._awaited: BatchWait | None = None

    @property
    def _awaited_xcom(self) -> tuple[str, str]:
        return BATCH_KEY, self.batch_key

    @property
    def _subject(self) -> str:
        return f"The batch with business keys {self.batch_key}…"

    async def _new_wait(self) -> BatchWait:
        from airflow_provider_astrobpm.waiting import batch_wait  # noqa: PLC0415

        await self._read_ids()
        self._awaited = batch_wait.BatchWait(
            self._condition(),
            dict.fromkeys(self._ids),
            deadline=self.deadline,
            max_poll_failure_time=self.max_poll_failure_time,
            may_fail=self.may_fail,
            names=self._names,
        )
        return self._awaited

    async def _read_ids(self) -> None:
        """Read the instance ids and the BPM names from the task's XComs.

        :raises AstroZeroError: if the ids are not there.
        """
        from asgiref.sync import sync_to_async  # noqa: PLC0415

        from airflow_provider_astrobpm.client.errors import AstroZeroError  # noqa: PLC0415

        task = user_action.TaskInstanceRef(**self.task_key)

        async def read_xcoms() -> list[Any]:
            keys = (INSTANCE_IDS, BATCH_KEY, SATISFIED_LAUNCHES, BPM_NAMES)
            return [await sync_to_async(user_action.published_xcom)(task, key) for key in keys]

        found, batch_key, met, names = await self._read_with_retries(read_xcoms, "the XComs of the task")
        if not isinstance(found, list) or batch_key != self.batch_key:
            raise AstroZeroError(
                f"XCom {INSTANCE_IDS!r} of the task does not say which instances it has started"
            )
        self._ids = pending_ids(found, met)
        self._names = names or []  # tasks of an earlier version published no names

    def _event(self, ending: Any, waiter: str | None) -> dict[str, Any]:
        from airflow_provider_astrobpm.waiting import event_payload  # noqa: PLC0415

        error = ending if isinstance(ending, Exception) else None
        if self._awaited is not None:
            return event_payload.dump_batch(self._awaited.so_far(), self._ids, error, waiter)
        return event_payload.dump(error or RuntimeError(), waiter)

    async def _terminate(self, client: AsyncBpmClient) -> str:
        from airflow_provider_astrobpm.batches import bulk_change  # noqa: PLC0415
        from airflow_provider_astrobpm.client import moment, search  # noqa: PLC0415
        from airflow_provider_astrobpm.waiting import polling  # noqa: PLC0415

        awaited = self._awaited or await self._new_wait()
        if awaited.ending is None:
            search_result = await client.run(polling.query_for_waits([awaited], client.settings))
            if search_result.failure is not None:
                raise search_result.failure
            awaited.record_poll(search_result, moment.now())
        if awaited.ending is not None:
            return f"{self._subject} is not terminated, because its wait has ended"
        sought = search.SearchRequest()
        awaited.add_to_query(sought)
        shown = {one: state for one, state in sought.ids.items() if one in search_result.instances}
        left = len(sought.ids) - len(shown)
        self.log.info("A user ended the task; terminating %s instances of its batch", len(shown))
        change = await bulk_change.change_all(
            client,
            shown,
            "terminate",
            patience=KILL_TIMEOUT_SECONDS,
            grace=0,
            log=lambda note: note.write_to(self.log),
        )
        return f"{change.note}; {left} could not be read and may still be open" if left else change.note
