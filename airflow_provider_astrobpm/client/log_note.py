"""A line for the log that code without a logger hands to its caller."""

from __future__ import annotations

from typing import Any, NamedTuple


class LogNote(NamedTuple):
    """A change to log."""

    text: str
    warning: bool = False

    def write_to(self, log: Any) -> None:
        """Write the note to a logger, or to anything with its ``info`` and ``warning``."""
        (log.warning if self.warning else log.info)(self.text)
