"""How an endpoint changes business keys, and which keys resemble each other."""

from __future__ import annotations

import pytest

from airflow_provider_astrobpm.client.key_form import BusinessKey, KeyForm, KeyForms
from tests.support.memory_server import instance

KEY = "orders.Approve.scheduled__2026-11-24T0-zld2ojgxmkbhmtqy-1"


@pytest.mark.parametrize(
    ("shown", "form"),
    [
        (KEY, KeyForm()),
        (f"{KEY}    ", KeyForm()),
        (KEY.upper(), KeyForm(case="upper")),
        (KEY.lower(), KeyForm(case="lower")),
        (KEY[:50], KeyForm(length=50)),
        (KEY[:20].upper(), KeyForm(case="upper", length=20)),
        (f"ASTRO:{KEY}", KeyForm(prefix="ASTRO:")),
        (f"ASTRO:{KEY}"[:50], KeyForm(prefix="ASTRO:", length=50)),
        (KEY[:-1], KeyForm(length=len(KEY) - 1)),
        (KEY[:-2], KeyForm(length=len(KEY) - 2)),
        (KEY[:8], KeyForm(length=8)),
        (KEY[:7], None),
        ("something else", None),
        ("", None),
    ],
)
def test_form_of_one_key_predicts_the_others(shown: str, form: KeyForm | None) -> None:
    assert KeyForm.of(KEY, shown) == form
    if form is not None:
        assert form.shown(KEY) == shown.strip()


def test_prefix_is_seen_even_at_a_blank_key() -> None:
    assert KeyForm.of(" ", "ASTRO:") == KeyForm(prefix="ASTRO:")


@pytest.mark.parametrize(
    ("form", "keeps"),
    [
        (KeyForm(), True),
        (KeyForm(length=len(KEY)), True),
        (KeyForm(length=len(KEY) - 1), False),
        (KeyForm("A:", length=len(KEY) + 2), True),
        (KeyForm("A:", length=len(KEY) + 1), False),
    ],
)
def test_a_key_that_fits_comes_back_whole(form: KeyForm, keeps: bool) -> None:
    assert form.keeps(KEY) is keeps
    assert form.keeps(f" {KEY} ") is keeps


def test_keys_truncated_to_the_same_text_are_not_recognised() -> None:
    keys = KeyForms([f"{KEY}2", f"{KEY}3", "another"], KeyForm(length=50))
    assert keys.sent(KEY[:50]) is None
    assert keys.sent("another") == "another"


@pytest.mark.parametrize(
    ("shown", "form", "sent"),
    [
        (KEY, None, KEY),
        (f" {KEY} ", None, KEY),
        (KEY.upper(), None, None),
        (KEY.upper(), KeyForm(case="upper"), KEY),
        (KEY[:50], KeyForm(length=50), None),
        (f"A:{KEY}", KeyForm(prefix="A:"), KEY),
        (None, None, None),
    ],
)
def test_changed_key_is_recognised_by_the_known_form(
    shown: str | None, form: KeyForm | None, sent: str | None
) -> None:
    assert KeyForms(["k", KEY], form).sent(shown) == sent


@pytest.mark.parametrize(
    ("shown", "resembles"),
    [
        (KEY, True),
        (KEY.upper(), True),
        (f"  {KEY}", True),
        (f"ASTRO:{KEY}", True),
        (KEY[:16], True),
        (KEY[:15], False),
        (KEY[:50].upper(), True),
        (f"ASTRO:{KEY}"[:50], True),
        (f"ASTRO:{KEY}"[:30].upper(), True),
        (f"ASTRO:{KEY}"[:21], False),
        (KEY[1:], False),
        (f"{KEY}0", False),
        ("order-10", False),
        ("ORDER-1", True),
        ("order-1", True),
        ("reorder-1", False),
        ("", False),
        (None, False),
    ],
)
def test_resembles(shown: str | None, resembles: bool) -> None:
    assert KeyForms(["order-1", "order-2", KEY]).resembles(shown) is resembles


def test_key_after_a_prefix_resembles_if_it_is_long_enough() -> None:
    assert KeyForms(["invoice-77"]).resembles("ASTRO-invoice-77")
    assert not KeyForms(["77"]).resembles("ASTRO-77")


def test_a_key_that_the_endpoint_cuts_off_may_be_short() -> None:
    assert not KeyForms([KEY]).resembles(KEY[:10])
    assert KeyForms([KEY], KeyForm(case="upper", length=10)).resembles(KEY[:10].upper())


@pytest.mark.parametrize("nothing", [None, "", "  "])
def test_nothing_resembles_no_key(nothing: str | None) -> None:
    assert not KeyForms(["xxxx", "x", KEY]).resembles(nothing)


@pytest.mark.parametrize("length", [8, 9])
def test_the_length_of_each_key_counts(length: int) -> None:
    sent = "x" * (length - 1) + "y"
    assert KeyForms([sent]).resembles(f"A:{sent}")
    assert not KeyForms([sent]).resembles(f"A:{sent[1:]}")


@pytest.mark.parametrize(
    ("bpm_name", "shown", "words", "may_identify"),
    [
        (None, {"business_key": "ORDER-17"}, "business key 'order-17'", True),
        (None, {"business_key": "order-18"}, "business key 'order-17'", False),
        ("Approval", {"business_key": "order-17"}, "business key 'order-17' of BPM 'Approval'", True),
        ("Another", {"business_key": "order-17"}, "business key 'order-17' of BPM 'Another'", False),
    ],
)
def test_a_business_key_identifies_an_instance_by_key_and_bpm(
    bpm_name: str | None, shown: dict[str, str], words: str, may_identify: bool
) -> None:
    key = BusinessKey("order-17", bpm_name)
    assert str(key) == words
    assert key.may_identify(instance("1", **shown)) is may_identify
