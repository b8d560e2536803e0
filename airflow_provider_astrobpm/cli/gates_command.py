"""The command ``gates``: the tasks of this Airflow that wait for instances, and with ``--orphans`` what is open without one."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import msgspec
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_astrobpm._airflow.stored_values import database_session
from airflow_provider_astrobpm._airflow.waiting_tasks import WaitingTask, read_waiting_tasks
from airflow_provider_astrobpm.cli import output
from airflow_provider_astrobpm.cli.exit_codes import Exit
from airflow_provider_astrobpm.cli.orphan_selection import search_orphans
from airflow_provider_astrobpm.cli.runner import CommandLineHook, connected, say
from airflow_provider_astrobpm.cli.selection import warn_if_truncated
from airflow_provider_astrobpm.client import search, states, validation
from airflow_provider_astrobpm.client.ages import UNITS, parse_age
from airflow_provider_astrobpm.client.errors import AstroZeroError
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.sameness import KnownIdentity
from airflow_provider_astrobpm.hooks import DEFAULT_CONN_ID

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
    from airflow_provider_astrobpm.starting.orphans import Orphan

COLUMNS = ("dag_id", "run_id", "task", "waiting", "deadline", "bpm_name", "state", "bp_status", "instance")
ORPHAN_COLUMNS = ("id", "name", "state", "bp_status", "start_time", "dag_id", "run_id", "task", "task_state")
HIDDEN = ("task", "waiting", "instance")  # columns of the narrow formats that summarise other fields
CLOSED_STATES = tuple(state for state in states.STATES if state not in states.OPEN_STATES)


def gates(args: argparse.Namespace) -> Exit:
    """List the waiting tasks, the longest wait first, or the orphans."""
    if args.orphans:
        return _list_orphans(args)
    if args.bpm_name is not None:
        validation.identifier(args.bpm_name, "--bpm-name")
    least = 0.0 if args.older_than is None else parse_age(args.older_than, "--older-than")
    if args.conn_id is not None:
        CommandLineHook.get_connection(args.conn_id)  # raises if there is none
    now = time.time()
    with database_session() as session:
        waiting = read_waiting_tasks(session)
    waiting = [
        one
        for one in waiting
        if args.conn_id in (None, one.conn_id) and (one.since is None or now - one.since >= least)
    ]
    connections = {one.conn_id for one in waiting if one.conn_id is not None}
    glances: dict[str | None, Glance] = {conn_id: _glance(conn_id, waiting) for conn_id in connections}
    rows = [
        row
        for one in sorted(waiting, key=lambda one: (one.since is None, one.since))
        for row in _rows(one, glances.get(one.conn_id, Glance()), now, each=args.instances)
    ]
    if args.bpm_name is not None:
        unknown = sum(row["bpm_name"] is None for row in rows)
        rows = [row for row in rows if row["bpm_name"] == args.bpm_name]
        if unknown:
            say(f"Warning: skipped {unknown} of which the process is unknown.")
    output.print_rows(rows, args.output, COLUMNS, hidden=HIDDEN)
    return Exit.FAILED if any(glance.failed for glance in glances.values()) else Exit.OK


@dataclass
class Glance:
    """What one search at Astro Zero has shown about the instances of a connection.

    :param page_url: returns the URL of an instance's page; ``None`` if there is none, or if the connection cannot be used.
    :param rows: the instances by their ids, without those whose rows contradict each other.
    :param failed: whether a state could not be listed.
    """

    page_url: Callable[[str], str | None] = lambda _instance_id: None
    rows: dict[str, BpmInstance] = field(default_factory=dict)
    failed: bool = False

    def instance(
        self, instance_id: str, names: tuple[str, ...], seen: dict[str, Any] | None
    ) -> BpmInstance | None:
        """Return an instance, or ``None`` if the lists do not show it, or show another one under its id."""
        row = self.rows.get(instance_id)
        if row is None or seen is None:
            return row
        known = KnownIdentity.of(msgspec.convert(seen, BpmInstance), *names)
        return row if known.matches(row) else None

    def with_key(self, business_key: str, names: tuple[str, ...]) -> BpmInstance | None:
        """Return the only open instance with a business key, or the only one; ``None`` if there is none or there are several."""
        key = business_key.strip()
        rows = [
            row for row in self.rows.values() if row.business_key == key and (not names or row.name in names)
        ]
        still_open = [row for row in rows if not row.is_closed]
        return (still_open or rows)[0] if 1 in (len(still_open), len(rows)) else None


def _glance(conn_id: str, waiting: Sequence[WaitingTask]) -> Glance:
    """Search for all instances for which tasks with this connection wait, with at most one request for each state."""
    glance = Glance()
    mine = [one for one in waiting if one.conn_id == conn_id]
    try:
        with connected(conn_id) as hook:
            glance.page_url = hook.settings.page_url
            _list(hook, states.OPEN_STATES, glance)
            if not glance.failed and _is_incomplete(glance, mine):
                _list(hook, CLOSED_STATES, glance)
    except (AstroZeroError, AirflowNotFoundException, ValueError) as error:
        glance.failed = True
        say(f"Warning: the states of the instances on connection {conn_id!r} are unknown: {error}")
    return glance


def _list(hook: AstroZeroHook, to_list: Sequence[str], glance: Glance) -> None:
    result = hook.client.run(search.find({}, lists=to_list))
    failed: dict[str, list[str]] = {}
    for state in to_list:
        if state in result.lists:
            warn_if_truncated(state, result.lists[state])
        else:
            failed.setdefault(str(result.failure_of(state)), []).append(repr(state))
    for reason, names in failed.items():
        say(f"Warning: the instances in {', '.join(names)} could not be listed: {reason}")
    glance.failed = bool(failed)
    glance.rows |= {one: row for one, row in result.rows.items() if one not in result.contradictions}


def _is_incomplete(glance: Glance, waiting: Iterable[WaitingTask]) -> bool:
    """Return whether an awaited instance has not been seen: it may have ended since its task polled last."""
    return any(
        any(one not in glance.rows for one in task.instance_ids)
        if task.instance_ids is not None
        else task.business_key is not None and glance.with_key(task.business_key, task.bpm_names) is None
        for task in waiting
    )


def _rows(task: WaitingTask, glance: Glance, now: float, *, each: bool) -> Iterator[dict[str, Any]]:
    """Yield the row of a task, or with ``each`` a row for each instance for which it waits."""
    shown = _instances(task, glance)
    if each and task.is_batch and shown:
        for instance_id, instance in shown.items():
            yield _row(task, {instance_id: instance}, glance, now, is_batch=False)
    else:
        yield _row(task, shown, glance, now, is_batch=task.is_batch)


def _instances(task: WaitingTask, glance: Glance) -> dict[str, BpmInstance | None]:
    """Return the instances for which a task waits, by id; ``None`` for those that the lists do not show."""
    if task.instance_ids is not None:
        seen = None if task.seen is None else dict(task.seen)
        return {one: glance.instance(one, task.bpm_names, seen) for one in task.instance_ids}
    if task.business_key is None or (found := glance.with_key(task.business_key, task.bpm_names)) is None:
        return {}
    return {found.id: found}


def _row(
    task: WaitingTask,
    shown: dict[str, BpmInstance | None],
    glance: Glance,
    now: float,
    *,
    is_batch: bool,
) -> dict[str, Any]:
    place = task.place
    rows = [row for row in shown.values() if row is not None]
    one = rows[0] if rows and not is_batch else None
    instance_id = next(iter(shown), None) if not is_batch else None
    names = {row.name for row in rows} or set(task.bpm_names[:1])
    is_counted = is_batch and task.instance_ids is not None
    counts = Counter(row.state for row in rows)
    open_count = sum(not row.is_closed for row in rows)
    waited = None if task.since is None else now - task.since
    state = one.state if one else None
    if is_batch:
        state = ", ".join(f"{name}: {count}" for name, count in counts.most_common()) or None
    return {
        "dag_id": place.dag_id,
        "run_id": place.run_id,
        "task_id": place.task_id,
        "map_index": task.map_index if task.map_index >= 0 else None,
        "iteration": task.iteration,
        "task": task_name(place.task_id, task.map_index, task.iteration),
        "held_by": task.held_by,
        "since": _utc(task.since),
        "waiting_seconds": None if waited is None else round(waited),
        "waiting": _duration(waited),
        "deadline": _utc(task.deadline) if task.deadline is not None else ("none" if task.has_deadline else None),
        "conn_id": task.conn_id,
        "bpm_name": names.pop() if len(names) == 1 else None,
        "instance_id": instance_id,
        "business_key": (one.business_key if one else None) or task.business_key,
        "state": state,
        "suspended": one.suspended if one else None,
        "bp_status": one.bp_status if one else None,
        "instances": len(task.instance_ids or ()) if is_counted else None,
        "open_instances": open_count if is_counted and len(rows) == len(shown) else None,
        "instance": f"{open_count} of {len(shown)} open" if is_counted else instance_id,
        "url": glance.page_url(instance_id) if instance_id else None,
    }  # fmt: skip


def task_name(task_id: str, map_index: int, iteration: int | None) -> str:
    """Return the name of a task instance for people: ``approve``, ``approve[3]``, ``approve (iteration 1)``."""
    if iteration is not None:
        return f"{task_id} (iteration {iteration})"
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


def _utc(moment: float | None) -> str | None:
    return (
        None if moment is None else datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="seconds")
    )


def _duration(seconds: float | None) -> str | None:
    """Return a duration in its two largest units: ``3d4h``."""
    if seconds is None:
        return None
    left = int(max(seconds, 0))
    parts: list[str] = []
    for unit, size in UNITS.items():
        if left >= size and len(parts) < 2:
            parts.append(f"{left // size}{unit}")
            left %= size
    return "".join(parts) or "0s"


def _list_orphans(args: argparse.Namespace) -> Exit:
    if args.instances:
        raise ValueError("--instances is for waiting tasks; do not combine it with --orphans")
    args.conn_id = args.conn_id or DEFAULT_CONN_ID
    with connected(args.conn_id) as hook:
        found = search_orphans(hook, args)
        rows = [_orphan_row(hook, orphan) for orphan in found.orphans]
        output.print_rows(rows, args.output, ORPHAN_COLUMNS, hidden=("task",))
    return Exit.OK


def _orphan_row(hook: AstroZeroHook, orphan: Orphan) -> dict[str, Any]:
    one = orphan.task.identity
    iteration = one.region.place if one.region else None
    return {
        **output.instance_row(hook, orphan.instance),
        "dag_id": one.dag_id,
        "run_id": one.run_id,
        "task_id": one.task_id,
        "map_index": one.map_index if one.map_index >= 0 else None,
        "iteration": iteration,
        "task": task_name(one.task_id, one.map_index, iteration),
        "task_state": orphan.task.state,
    }
