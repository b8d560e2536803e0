"""All targets by name, and how one is run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz import answers, emulators, events, files, transcripts
from tests.fuzz.inputs import MAX_SECONDS, UselessInput, in_time

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
OUTPUT = HERE.parent.parent / "build" / "fuzz"
FAULTS = HERE / "found"
"""Inputs that have found a fault, by target. Each has been mended."""

TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        answers.answer,
        answers.quote,
        answers.compressed,
        events.event,
        events.record,
        events.stored,
        files.launches,
        files.connection,
        files.argument,
        emulators.script,
        emulators.emulator,
        transcripts.transcript,
        transcripts.replay,
    )
}


def run(name: str, data: bytes, seconds: float = MAX_SECONDS) -> None:
    """Run a target on one input.

    :param name: the target.
    :param seconds: of processor time that it may take.
    :raises Exception: if the product, or its property, fails.
    """
    with in_time(seconds), suppress(UselessInput):
        TARGETS[name](data)


def kept(folder: Path, name: str) -> list[Path]:
    """Return the kept inputs of a target."""
    return sorted(path for path in (folder / name).glob("*") if path.is_file())
