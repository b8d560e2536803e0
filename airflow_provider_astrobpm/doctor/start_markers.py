"""Marks the doctor's starts, and recognises their instances by business key or title in any form. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm.doctor.observation import text
from airflow_provider_astrobpm.starting.business_keys import key_prefix

if TYPE_CHECKING:
    from airflow_provider_astrobpm.doctor.observation import InstanceRow

KEY_PREFIX = "airflow-doctor-"  # of the business key of every start
TITLE = "Airflow's doctor is probing this environment; please ignore, it ends by itself"
MARK_CHARACTERS = 12  # that are unique to a key
RECOGNISABLE_CHARACTERS = 20  # that distinguish a key from others: the prefix, and enough of its mark


def make_key(mark: str) -> str:
    """Return a business key as long and as mixed as a task's: 64 characters, with a hash and a number at the end.

    :param mark: 12 characters that are unique to this key.
    """
    return key_prefix(f"{KEY_PREFIX}{mark}.Approve_Release.scheduled__2026", [mark], suffix=1) + "1"


def title_for(key: str) -> str:
    """Return the title of an instance. It contains the mark of the key, in case lists show no keys."""
    return f"{TITLE} ({key[: len(KEY_PREFIX) + MARK_CHARACTERS]})"


def matches(row: InstanceRow, key: str) -> bool:
    """Return whether a row shows an instance that was started with this key, by its key or its title."""
    mark = title_for(key).rpartition(" ")[2]
    return resembles(text(row, "businessKey"), key) or (
        len(key) >= RECOGNISABLE_CHARACTERS and mark in text(row, "title")
    )


def resembles(shown: str, key: str) -> bool:
    """Return whether a business key is this one, possibly truncated, padded, prefixed or in another case."""
    sent, returned = key.casefold(), shown.casefold()
    returned = returned[max(0, returned.find(sent[:RECOGNISABLE_CHARACTERS])) :].rstrip()
    return min(len(returned), len(sent)) >= RECOGNISABLE_CHARACTERS and (
        sent.startswith(returned) or returned.startswith(sent)
    )


def business_key_of(row: InstanceRow) -> str:
    """Return the business key that a row shows; the empty string if it shows none, or the id instead."""
    key = text(row, "businessKey")
    return "" if key.strip() == row["id"] else key
