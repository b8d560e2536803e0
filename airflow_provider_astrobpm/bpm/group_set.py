"""Sets the same variables of many instances, several at a time.

It cannot be verified whether a variable was set: unknown and read-only names are silently ignored (API page 0073), and
reading variables is undocumented. So each result rests on the answer alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.bpm import api
from airflow_provider_astrobpm.bpm.change import may_be_set
from airflow_provider_astrobpm.bpm.group_change import Changer, GroupChange, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_provider_astrobpm.bpm.aio import AsyncBpmClient
    from airflow_provider_astrobpm.bpm.api import Operation
    from airflow_provider_astrobpm.bpm.wait import Note


async def set_all(
    client: AsyncBpmClient,
    ids: Iterable[str],
    variables: Mapping[str, Any],
    *,
    max_concurrency: int = 16,
    log: Callable[[Note], None],
    clock: Callable[[], float] = time.monotonic,
    is_stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[GroupChange, int], None] = lambda _change, _through: None,
) -> GroupChange:
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
        GroupChange("set"),
        log=log,
        clock=clock,
        is_over=is_stopped,
        progress=progress,
        variables=variables,
    )
    return await setter.run(max_concurrency)


@dataclass(kw_only=True)
class _Setter(Changer):
    variables: Mapping[str, Any]

    def operation(self, instance_id: str) -> Operation[None]:
        return api.set_variables(instance_id, self.variables)

    def record_result(self, instance_id: str, _answer: None) -> bool:
        self.change.done.append(instance_id)
        return True

    async def verify_unsettled(self) -> None:
        for instance_id, failure in self.unsettled.items():
            if failure:
                doubt = may_be_set(failure)
                self.fail(instance_id, words_of(failure, doubt), in_doubt=bool(doubt))
