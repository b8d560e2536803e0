"""The command ``watch``: a table that follows instances until they have ended, or a line for each change."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from airflow_provider_astrobpm.bpm import checks, look
from airflow_provider_astrobpm.bpm.condition import WaitCondition
from airflow_provider_astrobpm.bpm.errors import InstanceNotFoundError
from airflow_provider_astrobpm.bpm.instance import BpmInstance
from airflow_provider_astrobpm.bpm.states import OPEN_STATES
from airflow_provider_astrobpm.bpm.wait import Wait
from airflow_provider_astrobpm.cli.arguments import states_named
from airflow_provider_astrobpm.cli.exit_codes import Exit
from airflow_provider_astrobpm.cli.runner import connected, say
from airflow_provider_astrobpm.cli.selection import select

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook


def watch(args: argparse.Namespace) -> Exit:
    """Follow instances until all have ended."""
    checks.seconds(args.poll_interval, "--poll-interval", least=checks.SHORTEST_INTERVAL)
    timeout = None if args.timeout is None else checks.seconds(args.timeout, "--timeout")
    condition = WaitCondition.of(
        states=None if args.until_state is None else states_named(args.until_state, "--until-state")
    )
    with connected(args.conn_id) as hook:
        selection = select(hook, args, OPEN_STATES)
        if selection.missing:
            raise selection.missing[0]
        deadline = None if timeout is None else time.time() + timeout
        waits = [Wait(condition, seen=one, deadline=deadline) for one in selection.instances]
        if not waits:
            say("Nothing to watch: no instance is meant.")
            return Exit.OK
        interrupted = False
        try:
            with terminal() if sys.stdout.isatty() else lines() as show:
                _follow(hook, waits, args.poll_interval, show)
        except KeyboardInterrupt:
            interrupted = True
    for line in _report(waits, interrupted=interrupted):
        say(line)
    return Exit.INTERRUPTED if interrupted else _exit(waits)


def _follow(hook: AstroZeroHook, waits: Sequence[Wait], interval: float, show: Show) -> None:
    failures, now = look.Failures(), hook.client.now
    show(waits, ())
    while still := [wait for wait in waits if wait.ending is None]:
        time.sleep(look.pause(still[0], interval, failures, now(), random.random()))  # noqa: S311 - a jitter
        began = now()
        findings = hook.client.run(look.search_for(still, hook.settings))
        failures.take(findings.failure)
        for wait in still:
            wait.grace = hook.settings.start_grace
            wait.look_found(findings, began.steady, now(), hook.settings.connection)
        # What all of them have to say is said once.
        notes = dict.fromkeys(note.text for wait in still for note in wait.notes)
        for wait in still:
            wait.notes.clear()
        show(waits, notes)


def _report(waits: Sequence[Wait], *, interrupted: bool) -> list[str]:
    """Say how the instances ended."""
    endings = [wait.ending for wait in waits]
    errors = [ending for ending in endings if isinstance(ending, Exception)]
    well = sum(isinstance(ending, BpmInstance) for ending in endings)
    parts = [f"{well} of {len(waits)} ended well"]
    if errors:
        parts.append(f"{len(errors)} did not")
    if (still := endings.count(None)) or interrupted:
        parts.append(f"{still} still open")
    lead = "Interrupted. " if interrupted else ""
    return [*dict.fromkeys(map(str, errors)), f"{lead}{', '.join(parts)}."]


def _exit(waits: Sequence[Wait]) -> Exit:
    errors = [wait.ending for wait in waits if isinstance(wait.ending, Exception)]
    if not errors:
        return Exit.OK
    missing = all(isinstance(error, InstanceNotFoundError) for error in errors)
    return Exit.NOT_FOUND if missing else Exit.FAILED


Show = Callable[["Sequence[Wait]", Iterable[str]], None]
"""Shows how instances are by now: a wait for each of them, and what has changed since the last time, in words."""

BESIDE_ROWS = 6  # lines of a terminal that a table needs for what is no instance
COLUMNS = ("id", "name", "state", "business status", "business key")


@contextmanager
def lines() -> Iterator[Show]:
    """Provide what writes a line for each instance at the beginning, and for each change from then on."""
    began = False

    def show(waits: Sequence[Wait], notes: Iterable[str]) -> None:
        nonlocal began
        if not began:
            notes = [f"Watching {wait.seen}" for wait in waits]
            began = True
        for note in notes:
            sys.stdout.write(f"{time.strftime('%H:%M:%S')} {note}\n")
        sys.stdout.flush()

    yield show


@contextmanager
def terminal() -> Iterator[Show]:
    """Provide what draws a table at each look, and leaves the last one where it is."""
    console = Console()
    with Live(console=console, auto_refresh=False) as live:
        yield lambda waits, _notes: live.update(table(waits, console.height - BESIDE_ROWS), refresh=True)


def table(waits: Sequence[Wait], most_rows: int) -> Table:
    """Return the table of instances, those that are still open first.

    :param waits: a wait for each instance.
    :param most_rows: how many rows there is room for.
    """
    still_open = sum(wait.ending is None for wait in waits)
    shown = sorted(waits, key=lambda wait: wait.ending is not None)[: max(most_rows, 1)]
    hidden = len(waits) - len(shown)
    caption = f"{still_open} of {len(waits)} still open at {time.strftime('%H:%M:%S')}"
    if hidden:
        caption += f"; {hidden} more are not shown"
    if any(wait.failed_looks for wait in waits):
        caption += "; the last look failed"
    drawn = Table(*COLUMNS, caption=caption)
    for wait in shown:
        if (one := wait.seen) is not None:
            state = f"{one.state} (suspended)" if one.suspended else one.state
            cells = (one.id, one.name, state, one.bp_status or "", one.business_key or "")
            drawn.add_row(*map(escape, cells), style=None if wait.ending is None else "dim")
    return drawn
