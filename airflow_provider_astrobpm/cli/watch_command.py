"""The command ``watch``: shows instances until they have ended, in a live table or with one line per change."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from airflow_provider_astrobpm.cli.exit_codes import Exit
from airflow_provider_astrobpm.cli.option_values import states_named
from airflow_provider_astrobpm.cli.runner import connected, say
from airflow_provider_astrobpm.cli.selection import select
from airflow_provider_astrobpm.client import validation
from airflow_provider_astrobpm.client.errors import InstanceNotFoundError
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.states import OPEN_STATES
from airflow_provider_astrobpm.waiting import polling
from airflow_provider_astrobpm.waiting.condition import WaitCondition
from airflow_provider_astrobpm.waiting.wait import InstanceWait

if TYPE_CHECKING:
    import argparse

    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook


def watch(args: argparse.Namespace) -> Exit:
    """Watch instances until all have ended or reached a state."""
    validation.seconds(args.poll_interval, "--poll-interval", least=validation.MIN_POLL_INTERVAL_SECONDS)
    timeout = None if args.timeout is None else validation.seconds(args.timeout, "--timeout")
    condition = WaitCondition.of(
        states=None if args.until_state is None else states_named(args.until_state, "--until-state")
    )
    with connected(args.conn_id) as hook:
        selection = select(hook, args, OPEN_STATES)
        if selection.missing:
            raise selection.missing[0]
        deadline = None if timeout is None else time.time() + timeout
        waits = [InstanceWait(condition, seen=one, deadline=deadline) for one in selection.instances]
        if not waits:
            say("Nothing to watch: no instance matches.")
            return Exit.OK
        interrupted = False
        try:
            with table_view() if sys.stdout.isatty() else nullcontext(print_notes) as show:
                _follow(hook, waits, args.poll_interval, show)
        except KeyboardInterrupt:
            interrupted = True
    return _report(waits, interrupted=interrupted)


def _follow(hook: AstroZeroHook, waits: Sequence[InstanceWait], interval: float, show: WaitView) -> None:
    failures, now = polling.PollFailures(), hook.client.now
    notes: dict[str, None] = {}  # a note that is the same for all instances is shown once
    polls = polling.WorkerPolling(
        settings=hook.settings, log=lambda note: notes.setdefault(note.text), clock=now
    )
    show(waits, [f"Watching {wait.seen}" for wait in waits])
    while still := [wait for wait in waits if wait.ending is None]:
        time.sleep(polling.next_delay(still[0], interval, failures, now(), random.random()))  # noqa: S311 - jitter
        failures.record(hook.client.run(polls.poll_once(*still)))
        show(waits, notes)
        notes.clear()


def _report(waits: Sequence[InstanceWait], *, interrupted: bool) -> Exit:
    """Print how the instances ended, and return the exit code."""
    endings = [wait.ending for wait in waits]
    errors = [ending for ending in endings if isinstance(ending, Exception)]
    for words in dict.fromkeys(map(str, errors)):
        say(words)
    succeeded = sum(isinstance(ending, BpmInstance) for ending in endings)
    parts = [f"{succeeded} of {len(waits)} succeeded"]
    if errors:
        parts.append(f"{len(errors)} failed")
    if (still := endings.count(None)) or interrupted:
        parts.append(f"{still} still open")
    say(f"{'Interrupted. ' if interrupted else ''}{', '.join(parts)}.")
    if interrupted:
        return Exit.INTERRUPTED
    if not errors:
        return Exit.OK
    missing = all(isinstance(error, InstanceNotFoundError) for error in errors)
    return Exit.NOT_FOUND if missing else Exit.FAILED


WaitView = Callable[[Sequence[InstanceWait], Iterable[str]], None]
"""Shows the current state of instances: their waits, and messages about what changed since the last call."""

LINES_AROUND_TABLE = 6  # of a terminal, for everything but the rows


def print_notes(_waits: Sequence[InstanceWait], notes: Iterable[str]) -> None:
    """Print one line per message."""
    for note in notes:
        sys.stdout.write(f"{time.strftime('%H:%M:%S')} {note}\n")
    sys.stdout.flush()


@contextmanager
def table_view() -> Iterator[WaitView]:
    """Provide a view that redraws a table after each poll, and leaves the last table on the screen."""
    console = Console()
    with Live(console=console, auto_refresh=False) as live:
        yield lambda waits, _notes: live.update(
            table(waits, console.height - LINES_AROUND_TABLE), refresh=True
        )


def table(waits: Sequence[InstanceWait], max_rows: int) -> Table:
    """Return the table of instances, open instances first.

    :param waits: one wait per instance.
    :param max_rows: the number of rows that fit.
    """
    still_open = sum(wait.ending is None for wait in waits)
    shown = sorted(waits, key=lambda wait: wait.ending is not None)[: max(max_rows, 1)]
    hidden = len(waits) - len(shown)
    caption = f"{still_open} of {len(waits)} still open at {time.strftime('%H:%M:%S')}"
    if hidden:
        caption += f"; {hidden} more not shown"
    if any(wait.failed_polls for wait in waits):
        caption += "; the last poll failed"
    drawn = Table("id", "name", "state", "business status", "business key", caption=caption)
    for wait in shown:
        if (one := wait.seen) is not None:
            state = f"{one.state} (suspended)" if one.suspended else one.state
            cells = (one.id, one.name, state, one.bp_status or "", one.business_key or "")
            drawn.add_row(*map(escape, cells), style=None if wait.ending is None else "dim")
    return drawn
