"""Shows how watched instances are: a table that is drawn anew on a terminal, and lines everywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from airflow_provider_astrobpm.bpm.wait import Wait

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
