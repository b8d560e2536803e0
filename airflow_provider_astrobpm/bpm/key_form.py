"""What an endpoint makes of business keys: whether they come back as they were sent is undocumented.

A changed key is recognised in two ways. The answer to a start shows what became of its key; a ``KeyForm`` made of that
pair says what becomes of any other. Where no answer is known, a key that resembles the one sent is a reason for doubt.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

SHORTEST_CUT = 16  # characters of a key that was cut off; fewer resemble too many
SHORTEST_SUFFIX = 8  # characters of a key behind a prefix that the server has added


class KeyForm(NamedTuple):
    """What an endpoint makes of a business key. Blanks around it never count.

    :param prefix: what it puts in front.
    :param case: ``upper``, ``lower``, or empty where it keeps the case.
    :param length: the characters that it keeps; ``None`` where it keeps all.
    """

    prefix: str = ""
    case: str = ""
    length: int | None = None

    @classmethod
    def of(cls, sent: str, shown: str) -> Self | None:
        """Return the form that makes the second key of the first; ``None`` where none does."""
        core = shown.strip()
        for case in ("", "upper", "lower"):
            key = _in_case(sent.strip(), case)
            if core.endswith(key):
                return cls(core[: -len(key)], case)
            for kept in range(len(key) - 1, min(SHORTEST_SUFFIX, len(key)) - 1, -1):
                if core.endswith(key[:kept]):
                    return cls(core[:-kept], case, len(core))
        return None

    def keeps(self, key: str) -> bool:
        """Return whether a key comes back whole. Of one that is cut off, the others with that beginning cannot be told."""
        return self.length is None or len(self.prefix) + len(key.strip()) <= self.length

    def shown(self, key: str) -> str:
        """Return how a key comes back, without blanks around it."""
        return f"{self.prefix}{_in_case(key.strip(), self.case)}"[: self.length].strip()


AS_SENT = KeyForm()


class KeyForms:
    """Recognises keys that an endpoint may have changed.

    :param keys: the keys as they were, or would be, sent.
    :param form: what the endpoint makes of keys, where that is known.
    """

    def __init__(self, keys: Iterable[str], form: KeyForm | None = None) -> None:
        sent = list(keys)
        self._exact = {key.strip(): key for key in sent}
        self._shown: dict[str, str] = {}
        self._cut_off: set[str] = set()
        for key in sent if form else ():
            if form and form.keeps(key):
                self._shown[form.shown(key)] = key
            elif form:
                self._cut_off.add(form.shown(key).casefold())
        self._folded = sorted(key.strip().casefold() for key in sent)
        self._heads = {key[:SHORTEST_CUT] for key in self._folded if len(key) >= SHORTEST_CUT}
        self._lengths = sorted({len(key) for key in self._folded if len(key) >= SHORTEST_SUFFIX})

    def sent(self, shown: str | None) -> str | None:
        """Return the key that was sent, if the one shown is certainly that key."""
        if shown is None:
            return None
        core = shown.strip()
        return self._exact.get(core) or self._shown.get(core)

    def resembles(self, shown: str | None) -> bool:
        """Return whether a key may be one of these in another case, behind a prefix, cut off, or several of that."""
        folded = (shown or "").strip().casefold()
        if not folded:
            return False
        if folded in self._cut_off or self._has(folded):
            return True
        if any(self._has(folded[-length:]) for length in self._lengths if length < len(folded)):
            return True
        begins = range(len(folded) - SHORTEST_CUT + 1)
        return any(
            folded[at : at + SHORTEST_CUT] in self._heads and self._has_beginning(folded[at:])
            for at in begins
        )

    def _has_beginning(self, folded: str) -> bool:
        at = bisect_left(self._folded, folded)
        return at < len(self._folded) and self._folded[at].startswith(folded)

    def _has(self, folded: str) -> bool:
        at = bisect_left(self._folded, folded)
        return at < len(self._folded) and self._folded[at] == folded


def _in_case(key: str, case: str) -> str:
    return {"upper": key.upper, "lower": key.lower}.get(case, lambda: key)()
