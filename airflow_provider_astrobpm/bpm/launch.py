"""The plan of a start. One start is one POST; what may have been taken is never sent again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm.errors import AmbiguousStartError, CallError

if TYPE_CHECKING:
    from airflow_provider_astrobpm.bpm.api import Operation, Plan
    from airflow_provider_astrobpm.bpm.instance import BpmInstance


def start_once(operation: Operation[BpmInstance], business_key: str | None) -> Plan[BpmInstance]:
    """Start an instance.

    :param operation: the start, from ``api.start``.
    :param business_key: the key it carries, for the error.
    :raises AmbiguousStartError: if nobody can know whether the instance was started.
    :raises CallError: if it was certainly not started.
    """
    try:
        instance: BpmInstance = yield operation
    except CallError as error:
        if error.taken is None:
            raise AmbiguousStartError(error, business_key) from error
        raise
    return instance
