"""How an endpoint changes business keys. It is undocumented whether they come back as they were sent.

A changed key is recognised in two ways. The answer to a start shows how its key was changed; a ``KeyForm`` made from that
pair predicts the change of any other key. Without such an answer, a key that resembles the sent one is a reason for doubt.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from airflow_provider_astrobpm.client.instance import BpmInstance

SHORTEST_CUT = 16  # characters of a truncated key; a shorter one resembles too many keys
MIN_SUFFIX_CHARS = 8  # characters of a key after a prefix that the server added


class KeyForm(NamedTuple):
    """How an endpoint changes business keys. Surrounding blanks are never significant.

    :param prefix: the prefix that it adds.
    :param case: ``upper``, ``lower``, or empty if it keeps the case.
    :param length: the number of characters that it keeps; ``None`` if it keeps all.
    """

    prefix: str = ""
    case: str = ""
    length: int | None = None

    @classmethod
    def of(cls, sent: str, shown: str) -> Self | None:
        """Return the form that turns the sent key into the shown one, or ``None`` if there is none."""
        core = shown.strip()
        for case in ("", "upper", "lower"):
            key = _in_case(sent.strip(), case)
            if core.endswith(key):
                return cls(core.removesuffix(key), case)
            for kept in range(len(key) - 1, MIN_SUFFIX_CHARS - 1, -1):
                if core.endswith(key[:kept]):
                    return cls(core[:-kept], case, len(core))
        return None

    def keeps(self, key: str) -> bool:
        """Return whether a key comes back whole. A truncated key cannot be distinguished from others with the same beginning."""
        return self.length is None or len(self.prefix) + len(key.strip()) <= self.length

    def shown(self, key: str) -> str:
        """Return a key as the endpoint shows it, without surrounding blanks."""
        return f"{self.prefix}{_in_case(key.strip(), self.case)}"[: self.length].strip()


class KeyForms:
    """Recognises business keys that an endpoint may have changed.

    :param keys: the keys as they are sent.
    :param form: how the endpoint changes keys, if that is known.
    """

    def __init__(self, keys: Iterable[str], form: KeyForm | None = None) -> None:
        sent = list(keys)
        self._exact = {key.strip(): key for key in sent}
        self._shown: dict[str, str] = {}
        self._cut_off: set[str] = set()
        if form is not None:
            for key in sent:
                if form.keeps(key):
                    self._shown[form.shown(key)] = key
                else:
                    self._cut_off.add(form.shown(key).casefold())
        self._folded = sorted(key.strip().casefold() for key in sent)
        self._heads = {key[:SHORTEST_CUT] for key in self._folded if len(key) >= SHORTEST_CUT}
        self._lengths = sorted({len(key) for key in self._folded if len(key) >= MIN_SUFFIX_CHARS})

    def sent(self, shown: str | None) -> str | None:
        """Return the sent key that a shown key certainly is, or ``None``."""
        if shown is None:
            return None
        core = shown.strip()
        return self._exact.get(core) or self._shown.get(core)

    def resembles(self, shown: str | None) -> bool:
        """Return whether a shown key may be one of these in another case, with a prefix, truncated, or a combination."""
        folded = (shown or "").strip().casefold()
        if not folded:
            return False
        if folded in self._cut_off or self._has(folded):
            return True
        if any(self._has(folded[-length:]) for length in self._lengths):
            return True
        return any(
            folded[at : at + SHORTEST_CUT] in self._heads and self._has_beginning(folded[at:])
            for at in range(len(folded))
        )

    def _has_beginning(self, folded: str) -> bool:
        at = bisect_left(self._folded, folded)
        return at < len(self._folded) and self._folded[at].startswith(folded)

    def _has(self, folded: str) -> bool:
        at = bisect_left(self._folded, folded)
        return at < len(self._folded) and self._folded[at] == folded


def _in_case(key: str, case: str) -> str:
    return {"upper": key.upper, "lower": key.lower}.get(case, lambda: key)()


class BusinessKey(NamedTuple):
    """Identifies an instance whose id is unknown."""

    value: str
    bpm_name: str | None = None
    """The BPM's name, if only its instances count."""

    def __str__(self) -> str:
        return f"business key {self.value!r}" + (f" of BPM {self.bpm_name!r}" if self.bpm_name else "")

    def may_identify(self, instance: BpmInstance) -> bool:
        """Return whether an instance may be the one with this key, which some lists may show in another form."""
        is_named = self.bpm_name in {None, instance.name}
        return is_named and KeyForms([self.value]).resembles(instance.business_key)
