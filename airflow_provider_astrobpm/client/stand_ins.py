"""Stand-ins: what a transcript contains in place of values that must not leave the site.

A stand-in has the form of its value, because faults of a server show in the form: a key that was cut, padded or converted to
upper case, an id with a blank, a number sent as a text. Equal values have equal stand-ins, and texts with a common beginning
have stand-ins with a common beginning. Texts that differ in a letter from a to z, a digit or ASCII punctuation have different
stand-ins; other characters, numbers and booleans may share one. A value can neither be computed nor guessed from its stand-in
without the salt.
"""

from __future__ import annotations

import json
import math
import string
import unicodedata
from hashlib import blake2b
from typing import Any

from airflow_provider_astrobpm.client import texts

MARK = "~"
"""Precedes the stand-in of a text. A number or boolean is marked by an object with this name only."""
SALT_BYTES = 32
MAX_SHAPED_CHARS = 200  # characters of a text whose form a stand-in shows; of the rest it shows the length
MAX_REMEMBERED = 20_000  # texts whose stand-ins are remembered, because lists repeat the same rows

SEPARATORS = "-_.:"
_KEPT = SEPARATORS + texts.REPLACEMENT
_PUNCTUATION = "".join(each for each in string.punctuation if each not in SEPARATORS)
_ALPHABETS = (string.ascii_lowercase, string.ascii_uppercase, string.digits, _PUNCTUATION)
_FACTORS = {len(each): [n for n in range(1, len(each)) if math.gcd(n, len(each)) == 1] for each in _ALPHABETS}
_INVALID = ("Cc", "Cf", "Cs")  # control characters, invisible ones, and halves of a surrogate pair
_FIRST_IDEOGRAPH, _IDEOGRAPHS = 0x4E00, 20_000
_EXPONENT = "e"


class StandIns:
    """Replaces the values of one recording.

    :param salt: random bytes that are not part of the transcript.
    """

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._remembered: dict[str, str] = {}

    def text(self, value: str) -> str:
        """Return the stand-in of a text, with its length and form. A blank text comes back unchanged.

        Blanks, ``SEPARATORS`` and characters that are not text, such as control characters, stay. Each other character becomes
        one of its kind: a lowercase letter, an uppercase letter, a digit, punctuation, or anything else.
        """
        if not value.strip():
            return value
        known = self._remembered.get(value)
        if known is None:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            known = self._remembered[value] = MARK + self._shaped(value)
        return known

    def secret(self, value: str) -> str:
        """Return the stand-in of a secret, which shows neither its length nor its form."""
        return f"{MARK}secret-{self._digest('secret', value).hex()}"

    def number(self, value: float) -> dict[str, Any]:
        """Return the stand-in of a number, with the same type, sign, number of digits and exponent."""
        if not math.isfinite(value):
            return {MARK: value}
        written, exponent_mark, exponent = json.dumps(value).partition(_EXPONENT)
        digits = written.lstrip("-").partition(".")[0]
        shaped = self._shaped(written, len(written))
        first = written.index(digits)
        if shaped[first] == "0" and (
            len(digits) > 1 or exponent
        ):  # no leading zero, and no zero that hides the exponent
            shaped = f"{shaped[:first]}{shaped[first:].replace('0', '1', 1)}"
        return {MARK: type(value)(shaped + exponent_mark + exponent)}

    def boolean(self, value: bool, name: str) -> dict[str, Any]:
        """Return the stand-in of a boolean. The two values of one name stay different.

        :param name: the name of the field or variable.
        """
        return {MARK: value ^ bool(self._digest("boolean", name)[0] & 1)}

    def _digest(self, purpose: str, value: str) -> bytes:
        raw = f"{purpose}:{value}".encode("utf-8", "surrogatepass")
        return blake2b(raw, key=self._salt, digest_size=8).digest()

    def _shaped(self, value: str, limit: int = MAX_SHAPED_CHARS) -> str:
        """Replace each character by one of its kind, which also depends on all characters before it, but not on their case."""
        state = blake2b(key=self._salt, digest_size=8)
        shaped = []
        for character in value[:limit]:
            shaped.append(_replaced(character, int.from_bytes(state.digest(), "big")))
            state.update(character.casefold().encode("utf-8", "surrogatepass"))
        more = len(value) - limit
        if more > 0:
            shaped.append(f"…{more} more, {self._digest('rest', value).hex()}")
        return "".join(shaped)


def _replaced(character: str, number: int) -> str:
    """Return another character of the same kind. For one number, different ASCII characters get different ones."""
    for alphabet in _ALPHABETS:
        at = alphabet.find(character)
        if at >= 0:
            factors, shift = _FACTORS[len(alphabet)], number >> 16
            return alphabet[(at * factors[number % len(factors)] + shift) % len(alphabet)]
    if character in _KEPT or character.isspace() or unicodedata.category(character) in _INVALID:
        return character
    return chr(_FIRST_IDEOGRAPH + (ord(character) + number) % _IDEOGRAPHS)
