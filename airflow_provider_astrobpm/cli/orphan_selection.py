"""Selects orphans for ``gates --orphans`` and ``terminate --orphans``; ``starting.orphans`` decides which instances are orphans.

The lists of Astro Zero are read first, and Airflow's database after that, so that a task that continues meanwhile is seen.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from airflow_provider_astrobpm._airflow.starting_tasks import read_starting_tasks
from airflow_provider_astrobpm._airflow.stored_values import database_session
from airflow_provider_astrobpm._airflow.waiting_tasks import read_waiting_tasks
from airflow_provider_astrobpm.cli.runner import say
from airflow_provider_astrobpm.cli.selection import Selection, filter_from, matching
from airflow_provider_astrobpm.client.states import OPEN_STATES
from airflow_provider_astrobpm.starting.orphans import Awaited, OrphanSearch, find_orphans, key_beginning

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Sequence

    from airflow_provider_astrobpm._airflow.waiting_tasks import WaitingTask
    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook

JUDGED_SECONDS = 5.0
"""How long a verdict counts while orphans are terminated, which may take minutes."""


def search_orphans(hook: AstroZeroHook, args: argparse.Namespace) -> OrphanSearch:
    """Return the orphans of a connection that match a filter, with one request for each open state.

    :raises AstroZeroError: if a state could not be listed, or Airflow's database cannot be read.
    """
    found = judge(matching(hook, filter_from(args, hook.settings.timezone, args.conn_id), OPEN_STATES))
    if found.note:
        say(found.note)
    return found


def select_orphans(hook: AstroZeroHook, args: argparse.Namespace) -> Selection:
    """Return the orphans that a command changes.

    :raises ValueError: if ids are given too. Nothing was sent then.
    """
    if args.instance_ids:
        raise ValueError("--orphans selects the instances itself; do not combine it with ids")
    return Selection([one.instance for one in search_orphans(hook, args).orphans], [])


class StillOrphans:
    """Tells, for one instance after the other, whether it is still an orphan. Each can be asked for once.

    :param instances: the instances.
    :param clock: returns a monotonic time in seconds.
    """

    def __init__(self, instances: Iterable[BpmInstance], clock: Callable[[], float] = time.monotonic) -> None:
        self._left = {one.id: one for one in instances}
        self._clock = clock
        self._orphans: frozenset[str] = frozenset()
        self._judged_at = -math.inf

    def __call__(self, instance_id: str) -> bool:
        """Return whether an instance is still an orphan.

        :raises AstroZeroError: if Airflow's database cannot be read.
        """
        if self._clock() - self._judged_at >= JUDGED_SECONDS:
            self._orphans = frozenset(one.instance.id for one in judge([*self._left.values()]).orphans)
            self._judged_at = self._clock()
        del self._left[instance_id]
        return instance_id in self._orphans


def judge(instances: Sequence[BpmInstance]) -> OrphanSearch:
    """Return the orphans among some instances, as Airflow's database is now."""
    beginnings = {key for one in instances if (key := key_beginning(one.business_key)) is not None}
    with database_session() as session:
        tasks = read_starting_tasks(session, beginnings) if beginnings else {}
        waiting = read_waiting_tasks(session, soon=True)
    return find_orphans(instances, tasks, awaited_by(waiting), time.time())


def awaited_by(waiting: Sequence[WaitingTask]) -> Awaited:
    """Return what some tasks wait for."""
    keys = (key for one in waiting for key in (one.business_key, one.author_key))
    return Awaited(
        ids=frozenset(id_ for one in waiting for id_ in one.instance_ids or ()),
        keys=frozenset(key for key in keys if key is not None),
        is_complete=not any(one.may_await_any for one in waiting),
    )
