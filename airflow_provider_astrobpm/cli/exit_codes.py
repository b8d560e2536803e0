"""The exit codes of all commands."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    AMBIGUOUS_START = 4
    NOT_CONFIRMED = 5
    INTERRUPTED = 130


MEANINGS: dict[Exit, str] = {
    Exit.OK: "fine, also where there was nothing to do",
    Exit.FAILED: "a call failed, an instance is not, or not for certain, as the command wants it, or what was waited for did not end well",
    Exit.USAGE: "the arguments or the connection cannot be used; nothing was sent that changes anything",
    Exit.NOT_FOUND: "an instance or a definition was not found, or a business key does not say which one is meant",
    Exit.AMBIGUOUS_START: "nobody can know whether an instance was started",
    Exit.NOT_CONFIRMED: "the question was answered with no; nothing was changed",
    Exit.INTERRUPTED: "interrupted (Ctrl-C); what was done and what was not is said",
}


def table() -> str:
    """Return the exit codes and what they mean, for the help."""
    return "\n".join(["exit codes:", *(f"  {code:<5d}{meaning}" for code, meaning in MEANINGS.items())])
