"""Findings about the business key that a new instance shows. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm.client.key_form import KeyForm, KeyForms
from airflow_provider_astrobpm.doctor.findings import Finding
from airflow_provider_astrobpm.doctor.start_markers import business_key_of
from airflow_provider_astrobpm.starting.business_keys import MAX_KEY_LENGTH

if TYPE_CHECKING:
    from airflow_provider_astrobpm.doctor.observation import InstanceRow, Observation

_LOST = "It is not recognised: a retry after a lost answer finds nothing by this key, and may start a second instance"
_CUT = (
    "The end, which distinguishes tasks, runs and tries, is lost or incomplete: a retry after a lost answer cannot identify its own "
    "instance, and fails with AmbiguousStartError"
)
_RECOGNISED = "This provider recognises its generated keys in this form, and custom keys after the answer to a start has shown the form"


def business_key_finding(row: InstanceRow, key: str, seen: Observation) -> Finding:
    """Return whether the row of a new instance shows its business key, in any recognisable form."""
    shown = business_key_of(row)
    if shown and KeyForm.of(key, shown) is not None:
        how = "" if shown == key else ", changed; see long_key"
        words = f"the row of the new instance shows its business key{how}"
        return Finding.known("business_keys", "carried", words, seen)
    words = (
        "the row of the new instance does not show its business key: after a crashed try, the next try cannot find the instance, "
        "fails, and asks for an operator"
    )
    return Finding.known("business_keys", "not carried", words, seen, fine=False)


def long_key_finding(key: str, instance: InstanceRow, row: InstanceRow | None, *seen: Observation) -> Finding:
    """Return how a business key as long as a task's came back.

    :param key: the key that was sent.
    :param instance: the instance from the answer to the start.
    :param row: its row in a list, if a list shows it.
    """
    name, in_row = "long_key", "the row"
    shown = {"the start's answer": business_key_of(instance), in_row: business_key_of(row) if row else ""}
    changes = {where: describe_change(key, each) for where, each in shown.items() if each}
    if not changes:
        return Finding.unknown(name, "neither the start's answer nor a row shows the key", *seen)
    where, change = list(changes.items())[-1]
    if set(changes.values()) == {"as sent"}:
        if in_row not in changes:
            return Finding.unknown(name, "the start's answer shows it as sent, but no row shows it", *seen)
        words = f"{MAX_KEY_LENGTH} characters came back as sent in {' and '.join(changes)}"
        return Finding.known(name, change, words, *seen)
    words = f"{', '.join(f'{each} in {where}' for where, each in changes.items())}."
    if len(set(changes.values())) > 1:
        words += " The two differ, so the answer is no evidence of how lists show a key."
    return Finding.known(name, change, f"{words} {_meaning(key, shown[where])}", *seen, fine=False)


def describe_change(sent: str, shown: str) -> str:
    """Return how a business key came back, such as ``as sent``, ``cut at 50`` or ``upper case``."""
    form = KeyForm.of(sent, shown)
    if form is None:
        return "changed"
    changes = [
        "prefixed" if form.prefix else "",
        f"{form.case} case" if form.case else "",
        f"cut at {form.length}" if form.length is not None else "",
        "padded" if shown != shown.strip() else "",
    ]
    return " and ".join(filter(None, changes)) or "as sent"


def _meaning(sent: str, shown: str) -> str:
    form = KeyForm.of(sent, shown)
    if form is None or not KeyForms([sent]).resembles(shown):
        return _LOST
    return _RECOGNISED if form.length is None else _CUT
