"""Ids of 20 characters whose first four tell the kind of object, as Astro Zero has them."""

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
