"""Looks up the connection for a wait that has begun. Failed lookups count as failed polls.

Each poke of a rescheduled sensor and each resumption of a deferred task is a new process, which looks up the
connection again. ``triggers.read_retries`` does the same in the triggerer.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.client import moment

if TYPE_CHECKING:
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
    from airflow_provider_astrobpm.waiting.wait import BaseWait


def look_up_connection(hook: AstroZeroHook, awaited: BaseWait[Any], log: Any) -> None:
    """Look up the connection, and retry while the wait tolerates failed polls.

    :param hook: the hook, which caches the connection.
    :param awaited: the wait, which counts the failures and may end with them.
    :param log: the log of the task. It gets one line when lookups begin to fail.
    """
    from airflow_provider_astrobpm.waiting import lookup  # noqa: PLC0415

    while True:
        try:
            _ = hook.settings
        except Exception as error:  # noqa: BLE001 - a secrets backend may raise anything
            failure = error
        else:
            return
        pause = lookup.record_failed_read(
            awaited,
            "the connection",
            failure,
            connection=hook.astro_zero_conn_id,
            now=moment.now(),
            jitter=random.random(),  # noqa: S311
        )
        for note in awaited.notes:
            note.write_to(log)
        awaited.notes.clear()
        if awaited.ending is not None:
            return
        time.sleep(pause)
