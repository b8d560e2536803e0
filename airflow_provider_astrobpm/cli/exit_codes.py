"""The exit codes of all commands."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit code of a command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    AMBIGUOUS_START = 4
    NOT_CONFIRMED = 5
    INTERRUPTED = 130


MEANINGS: dict[Exit, str] = {
    Exit.OK: "success, also if there was nothing to do",
    Exit.FAILED: "a call failed, the requested change is unconfirmed, or the wait ended in failure",
    Exit.USAGE: "the arguments or the connection are invalid; nothing was changed",
    Exit.NOT_FOUND: "an instance or a definition was not found, or several instances have the business key",
    Exit.AMBIGUOUS_START: "it is unknown whether an instance was started",
    Exit.NOT_CONFIRMED: "the confirmation was declined; nothing was changed",
    Exit.INTERRUPTED: "interrupted (Ctrl-C); the messages say what was done and what was not",
}


def table() -> str:
    """Return the exit codes and their meanings, for ``--help``."""
    return "\n".join(["exit codes:", *(f"  {code:<5d}{meaning}" for code, meaning in MEANINGS.items())])
