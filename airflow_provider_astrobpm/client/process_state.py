"""What a process remembers from one task to the next: each module keeps its own part, and registers here how to forget it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_FORGETTERS: list[Callable[[], object]] = []


def register(forget: Callable[[], object], *, after_fork: bool = False) -> None:
    """Register a function that forgets what a module remembers.

    :param forget: the function.
    :param after_fork: whether a forked process must not use what its parent remembers.
    """
    _FORGETTERS.append(forget)
    if after_fork:
        os.register_at_fork(after_in_child=forget)


def reset() -> None:
    """Forget everything, as if this process had just begun. For tests, between which nothing runs."""
    for forget in _FORGETTERS:
        forget()
