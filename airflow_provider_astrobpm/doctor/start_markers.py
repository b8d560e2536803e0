"""How the doctor recognises what it has started: by business key or title, however the server shows them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm.identity import key_prefix
from airflow_provider_astrobpm.doctor.observation import text

if TYPE_CHECKING:
    from airflow_provider_astrobpm.doctor.observation import Row

KEY_PREFIX = "airflow-doctor-"  # begins the business key of whatever is started
TITLE = "Airflow's doctor looks at this environment; please ignore, it ends by itself"
MARK_CHARACTERS = 12  # characters that are a key's own
RECOGNISABLE_CHARACTERS = 20  # characters of a key that tell it from others: the lead, and enough of its mark


def make_key(mark: str) -> str:
    """Return a business key as long and as mixed as that of a task: 64 characters, and a hash and a number at its end.

    :param mark: 12 characters that no other key has.
    """
    return key_prefix(f"{KEY_PREFIX}{mark}.Approve_Release.scheduled__2026", [mark], suffix=1) + "1"


def title_for(key: str) -> str:
    """Return the title of an instance; it names the mark of the key, should keys not be shown."""
    return f"{TITLE} ({key[: len(KEY_PREFIX) + MARK_CHARACTERS]})"


def matches(row: Row, key: str) -> bool:
    """Return whether a row is of an instance that was started with this key, by its key or its title."""
    mark = title_for(key).rpartition(" ")[2]
    return resembles(text(row, "businessKey"), key) or (
        len(key) >= RECOGNISABLE_CHARACTERS and mark in text(row, "title")
    )


def resembles(shown: str, key: str) -> bool:
    """Return whether a business key is this one, though it may be cut, padded, prefixed or in another case."""
    sent, come = key.casefold(), shown.casefold()
    come = come[max(0, come.find(sent[:RECOGNISABLE_CHARACTERS])) :].rstrip()
    return min(len(come), len(sent)) >= RECOGNISABLE_CHARACTERS and (
        sent.startswith(come) or come.startswith(sent)
    )


def business_key_of(row: Row) -> str:
    """Return the business key that an instance shows; the empty text where it shows none, or its id in place of it."""
    key = text(row, "businessKey")
    return "" if key.strip() == row["id"] else key
