"""Report the steps of a script: on a terminal with the elapsed seconds, elsewhere in plain lines."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Iterator


class Steps:
    """Print the steps of a script, each with the seconds that it took.

    :param console: the console to print to.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, markup=False, soft_wrap=True)
        self.current = ""
        """The latest step; after a failure, the step that failed."""

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Print a step when it begins, and the seconds that it took when it ends.

        :param what: the name of the step, such as "Start Airflow".
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
        """Print part of a line immediately, so that a log shows the current step."""
        self.console.print(text, end="")
        self.console.file.flush()
