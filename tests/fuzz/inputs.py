"""What every target shares: how it reads its input, and the rules that each of its errors must keep.

An input is text where possible, so that a kept one can be read and edited. Its first line chooses among options, one
character for each choice. The parts of the rest are separated by a line ``~~``. ``{{500|[}}`` stands for 500 times ``[``,
so that a short input can be long, deep or repetitive. ``$SECRET`` stands for the planted secret where the secret may be.
"""

from __future__ import annotations

import json
import re
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

SECRET = "Ca-n4ry/s3cret+of=the.connection"
MAX_INPUT_BYTES = 64 * 1024  # after expansion
MAX_SECONDS = 1.0  # of processor time for an input
MAX_MESSAGE_CHARS = 64 * 1024  # of a message: it may quote what a person gave, but not several times
SEPARATOR = b"\n~~\n"
_REPEATED = re.compile(rb"\{\{(\d{1,5})\|(.{1,64}?)\}\}", re.DOTALL)


class UselessInput(Exception):  # noqa: N818 - no error: the target has nothing to do
    """The input is not even what its part must be, such as JSON."""


class Input:
    """One input of a target, read part by part. What is missing is empty, or the first option.

    :param secret: whether ``$SECRET`` stands for the planted secret; otherwise for itself.
    """

    def __init__(self, data: bytes, *, secret: bool = False) -> None:
        self._secret = SECRET.encode() if secret else b"$SECRET"
        choices, _, rest = data.partition(b"\n")
        self._choices = iter(choices)
        self._room = MAX_INPUT_BYTES
        self._parts = iter(rest.split(SEPARATOR))

    def choose(self, options: Sequence[T]) -> T:
        """Return one of the options; the first one for the character ``0``."""
        return options[(next(self._choices, ord("0")) - ord("0")) % len(options)]

    def body(self) -> bytes:
        """Return the next part."""
        return self._whole(next(self._parts, b""))

    def text(self) -> str:
        """Return the next part as text. Other bytes than UTF-8 become lone surrogates."""
        return self.body().decode(errors="surrogateescape")

    def json(self) -> Any:
        """Return the value of the next part, which is JSON as Airflow stores it.

        :raises UselessInput: if it is not JSON.
        """
        try:
            return json.loads(self.body())
        except (ValueError, RecursionError):
            raise UselessInput from None

    def rest(self) -> list[bytes]:
        """Return all parts that are left."""
        return [self._whole(part) for part in self._parts]

    def _whole(self, part: bytes) -> bytes:
        whole = _REPEATED.sub(self._repeated, part.replace(b"$SECRET", self._secret))[: self._room]
        self._room -= len(whole)
        return whole

    def _repeated(self, found: re.Match[bytes]) -> bytes:
        return found[2] * min(int(found[1]), self._room // len(found[2]))


@contextmanager
def raises_only(*kinds: type[Exception]) -> Iterator[None]:
    """Accept these errors alone, and check that they show no secret and are no longer than a person can use."""
    try:
        yield
    except kinds as error:
        check_error(error)


def check_error(error: BaseException) -> None:
    """Check that an error shows no secret, neither itself nor in the errors that led to it."""
    shown = "".join(traceback.TracebackException.from_exception(error).format_exception_only())
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        shown += f"{cause} {cause!r} {vars(cause)!r}"
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    assert SECRET not in shown, "a message shows the secret"
    assert len(str(error)) <= MAX_MESSAGE_CHARS, f"a message of {len(str(error))} characters"


@contextmanager
def in_time(seconds: float = MAX_SECONDS) -> Iterator[None]:
    """Fail if what runs inside takes too much processor time."""
    begun = time.thread_time()
    yield
    taken = time.thread_time() - begun
    assert taken <= seconds, f"it took {taken:.1f} s"
