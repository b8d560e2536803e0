"""Whether two rows can belong to the same instance."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_astrobpm.client.sameness import KnownIdentity
from tests.support.memory_server import instance

LONG = "orders.approve.scheduled__2026-11-24T0-zld2ojgxmkbhmtqy-1"


@pytest.mark.parametrize(
    ("known", "shown", "same"),
    [
        ({}, {"name": "B"}, False),
        ({"name": "ns__Approval"}, {}, True),
        ({}, {"name": "ns__Approval"}, True),
        ({"name": "ns__Approval"}, {"name": "ns__Another"}, False),
        ({"business_key": "k"}, {"business_key": "k"}, True),
        ({"business_key": "k"}, {"business_key": "another"}, False),
        ({"business_key": "k"}, {}, True),
        ({}, {"business_key": "k"}, True),
        ({"business_key": "1"}, {"business_key": "k"}, True),
        ({"business_key": "k"}, {"business_key": "1"}, True),
        ({"business_key": "Order 4711"}, {"business_key": " ORDER 4711"}, True),
        ({"business_key": "order-1"}, {"business_key": "order-12"}, False),
        ({"business_key": LONG}, {"business_key": LONG[:50]}, True),
        ({"business_key": LONG}, {"business_key": f"T01-{LONG}"}, True),
        ({"business_key": LONG}, {"business_key": LONG[:40] + "x" * 10}, False),
        ({"business_key": LONG}, {"business_key": LONG[:10]}, False),
    ],
)
def test_matches_by_name_and_key(known: dict[str, Any], shown: dict[str, Any], same: bool) -> None:
    one, other = instance("1", **known), instance("1", "Completed OK", **shown)
    assert KnownIdentity.of(one).matches(other) is same
    assert KnownIdentity.of(other).matches(one) is same


def test_unknown_fields_are_filled_in() -> None:
    known = KnownIdentity.of(instance("1", business_key="1"), "Asked For")
    assert str(known) == "of 'Approval' or 'Asked For'"
    known = known.updated_from(instance("1", name="Asked For", business_key="k"))
    assert str(known) == "of 'Approval' or 'Asked For' with business key 'k'"
    assert known.updated_from(instance("1")) == known
    assert known.matches(instance("1", name="Approval"))
    assert not known.matches(instance("1", name="A Third"))
    assert KnownIdentity().matches(instance("1"))
