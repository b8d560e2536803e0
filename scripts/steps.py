"""What a script is doing, told while it lasts: on a terminal with the seconds that pass, elsewhere in plain lines."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Iterator


class Steps:
    """The steps of a script, each printed with the seconds that it took.

    :param console: where they are printed.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, markup=False, soft_wrap=True)
        self.current = ""
        """The step that has begun last; where one fails, that one."""

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Say that something is being done, and how long it took once it is done.

        :param what: what it is, such as "Start Airflow".
        """
        self.current = what
        started = time.monotonic()
        if self.console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
            with Progress(*columns, console=self.console, transient=True) as progress:
                progress.add_task(what, total=None)
                yield
            self.console.print(f"{what}: {time.monotonic() - started:.1f} s")
            return
        self._write(f"{what} ... ")
        try:
            yield
        except BaseException:
            self._write("\n")
            raise
        self._write(f"{time.monotonic() - started:.1f} s\n")

    def _write(self, text: str) -> None:
        """Print a part of a line at once, so that a log shows what is being waited for."""
        self.console.print(text, end="")
        self.console.file.flush()
