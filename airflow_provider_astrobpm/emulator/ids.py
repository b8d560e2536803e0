"""Ids in the form that Astro Zero uses: 20 characters, of which the first four name the kind of object."""

from __future__ import annotations

import secrets
import string

_ALPHABET = string.ascii_letters + string.digits


def new_instance_id() -> str:
    """Return a new instance id, ``002N...``."""
    return _new("002N")


def new_definition_id() -> str:
    """Return a new definition id, ``001L...``."""
    return _new("001L")


def _new(prefix: str) -> str:
    return f"{prefix}000000" + "".join(secrets.choice(_ALPHABET) for _ in range(10))
