"""Sets the same variables of many instances, several at a time.

It cannot be verified whether a variable was set: unknown and read-only names are silently ignored (API page 0073), and
reading variables is undocumented. So each result rests on the answer alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.batches.bulk_change import BulkChange, BulkRunner, describe_error
from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.actions import note_on_possible_effect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
    from airflow_provider_astrobpm.client.log_note import LogNote
    from airflow_provider_astrobpm.client.operations import Operation


async def set_all(
    client: AsyncBpmClient,
    ids: Iterable[str],
    variables: Mapping[str, Any],
    *,
    max_concurrency: int = 16,
    log: Callable[[LogNote], None],
    clock: Callable[[], float] = time.monotonic,
    is_stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[BulkChange, int], None] = lambda _change, _through: None,
) -> BulkChange:
    """Set variables of instances. Failures are part of the result and not raised.

    :param client: the client; its retry limits apply to each call.
    :param ids: the instance ids.
    :param variables: names and values, anything that JSON can hold.
    :raises ValueError: for a bad argument; nothing was sent.

    The other parameters are those of ``change_all``.
    """
    setter = _Setter(
        client,
        dict.fromkeys(ids),
        BulkChange("set"),
        log=log,
        clock=clock,
        is_over=is_stopped,
        progress=progress,
        variables=variables,
    )
    return await setter.run(max_concurrency)


@dataclass(kw_only=True)
class _Setter(BulkRunner):
    variables: Mapping[str, Any]

    def operation(self, instance_id: str) -> Operation[None]:
        return operations.set_variables(instance_id, self.variables)

    def record_result(self, instance_id: str, _answer: None) -> bool:
        self.change.done.append(instance_id)
        return True

    async def verify_unsettled(self) -> None:
        for instance_id, failure in self.unsettled.items():
            if failure:
                doubt = note_on_possible_effect(failure)
                self.fail(instance_id, describe_error(failure, doubt), in_doubt=bool(doubt))
