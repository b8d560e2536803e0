"""Whether two rows can belong to the same instance."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_astrobpm.client.sameness import (
    KnownIdentity,
    contradiction_between,
    contradictions_within,
)
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


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (KnownIdentity(), ""),
        (KnownIdentity(("A",)), "of 'A'"),
        (KnownIdentity(business_key="k"), "with business key 'k'"),
    ],
)
def test_describes_what_is_known(known: KnownIdentity, words: str) -> None:
    assert str(known) == words


DIFFERENCES: list[tuple[dict[str, Any], dict[str, Any], str | None]] = [
    ({}, {}, None),
    ({"name": "B"}, {}, "name 'B' and 'Approval'"),
    ({"bp_status": "Late"}, {}, "business status 'Late' and None"),
    ({"suspended": True}, {}, "suspended True and False"),
    ({"is_closed": True}, {}, "ended True and False"),
    ({"business_key": "k"}, {"business_key": "j"}, "business key 'k' and 'j'"),
    ({"business_key": "k"}, {}, None),
    ({}, {"business_key": "k"}, None),
    ({"business_key": "1"}, {"business_key": "k"}, None),
    ({"business_key": "k", "name": "B"}, {"business_key": "j"}, "business key 'k' and 'j'"),
]


@pytest.mark.parametrize(("one", "other", "difference"), DIFFERENCES)
def test_rows_of_an_instance_in_one_list_agree(
    one: dict[str, Any], other: dict[str, Any], difference: str | None
) -> None:
    rows = [instance("2"), instance("1", **one), instance("1", **other)]
    found = contradictions_within("Running", rows)
    if difference is None:
        assert found == {}
        return
    assert list(found) == ["1"]
    assert found["1"].problem == (
        f"Astro Zero shows instance '1' twice in the list of state 'Running' with different values: {difference}"
    )
    assert found["1"].advice.startswith("Nothing is concluded from this; the next poll asks again.")


@pytest.mark.parametrize(
    ("one", "other", "difference"), [row for row in DIFFERENCES if "is_closed" not in row[0]]
)
@pytest.mark.parametrize(("before", "after"), [(False, False), (False, True), (True, False), (True, True)])
def test_between_two_lists_an_instance_may_move(
    one: dict[str, Any], other: dict[str, Any], difference: str | None, before: bool, after: bool
) -> None:
    """Until it has ended. Its name and its key stay the same."""
    earlier = instance("1", **{"is_closed": before, **one})
    later = instance("1", **{"is_closed": after, **other})
    found = contradiction_between(earlier, later)
    has_moved = not (earlier.is_closed and later.is_closed) and not str(difference).startswith(
        ("name", "business key")
    )
    if difference is None or has_moved:
        assert found is None
    else:
        assert found is not None
        assert (
            found.problem == f"Astro Zero shows instance '1' in two lists with different values: {difference}"
        )
