"""What is concluded from the business key that a new instance shows. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm.identity import LONGEST_KEY
from airflow_provider_astrobpm.bpm.key_form import KeyForm, KeyForms
from airflow_provider_astrobpm.doctor.findings import Finding
from airflow_provider_astrobpm.doctor.start_markers import business_key_of

if TYPE_CHECKING:
    from airflow_provider_astrobpm.doctor.observation import Observation, Row

_LOST = (
    "It is not recognised: a retry after a lost answer finds nothing by it, and may start a second instance"
)
_CUT = (
    "The end, which tells tasks, runs and tries apart, is lost or incomplete: a retry after a lost answer cannot be certain which "
    "instance is its own, and fails with AmbiguousStartError"
)
_RECOGNISED = "It is recognised in the keys that this provider makes, and in a key of your own once the answer to a start has shown it"


def business_key_finding(row: Row, key: str, seen: Observation) -> Finding:
    """Report whether the row of a new instance carries its business key, in whatever form."""
    if business_key_of(row) and KeyForm.of(key, business_key_of(row)) is not None:
        how = "" if business_key_of(row) == key else ", changed; see long_key"
        return Finding.known(
            "business_keys", "carried", f"the row of the new instance carries its business key{how}", seen
        )
    words = (
        "the row of the new instance does not carry its business key: what a crashed try has started is not found, and such "
        "a task fails and asks for a person"
    )
    return Finding.known("business_keys", "not carried", words, seen, fine=False)


def long_key_finding(key: str, instance: Row, row: Row | None, *seen: Observation) -> Finding:
    """Report how a business key as long as that of a task came back.

    :param key: as it was sent.
    :param instance: the instance as the start's answer shows it.
    :param row: the same as a list shows it, if one does.
    """
    shown = {"the start's answer": business_key_of(instance), "the row": business_key_of(row) if row else ""}
    changes = {where: describe_change(key, each) for where, each in shown.items() if each}
    change = changes.get("the row") or changes.get("the start's answer")
    if change is None:
        return Finding.unknown("long_key", "neither the start's answer nor a row shows the key", *seen)
    if set(changes.values()) == {"as sent"}:
        if "the row" not in changes:
            return Finding.unknown(
                "long_key", "the start's answer shows it as it was sent, but no row shows it", *seen
            )
        where = " and ".join(changes)
        return Finding.known(
            "long_key", change, f"{LONGEST_KEY} characters came back as sent in {where}", *seen
        )
    parts = ", ".join(f"{each} in {where}" for where, each in changes.items())
    differ = (
        " The two differ, so the answer does not tell how lists show a key."
        if len(set(changes.values())) > 1
        else ""
    )
    meaning = _meaning(key, shown["the row"] or shown["the start's answer"])
    return Finding.known("long_key", change, f"{parts}.{differ} {meaning}", *seen, fine=False)


def describe_change(sent: str, shown: str) -> str:
    """Return how a business key came back, in a few words: ``as sent``, ``cut at 50``, ``upper case`` and so on."""
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
