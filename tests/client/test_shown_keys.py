"""A search by business key raises an error if no row shows a key, and only then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_astrobpm.client import search
from airflow_provider_astrobpm.client.errors import (
    AstroZeroError,
    InstanceNotFoundError,
    KeysNotShownError,
    ServerError,
)
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.operations import Operation
from airflow_provider_astrobpm.client.search import EndpointTraits
from airflow_provider_astrobpm.client.shown_keys import ShownKeys
from airflow_provider_astrobpm.client.wire import Rows, UnreadableRow

Make = Callable[..., BpmInstance]
KEYLESS, WITH_ID, KEYED = {"business_key": None}, {"business_key": "1"}, {"business_key": "other"}

# the rows, the BPM's name, whether a search by key cannot work
TABLE: list[tuple[list[dict[str, Any]], str | None, bool]] = [
    ([], None, False),
    ([], "Approval", False),
    ([KEYLESS], None, True),
    ([KEYLESS], "Approval", True),
    ([WITH_ID], "Approval", True),
    ([KEYED], "Approval", False),
    ([KEYLESS, {**KEYED, "name": "Foreign"}], "Approval", False),
    ([{**KEYLESS, "name": "Foreign"}], "Approval", False),
    ([{**KEYLESS, "name": "Foreign"}, KEYLESS], "Approval", True),
]


@pytest.mark.parametrize(("rows", "name", "blind"), TABLE)
def test_why_not_found_follows_the_table(
    rows: list[dict[str, Any]], name: str | None, blind: bool, make: Make
) -> None:
    shown = ShownKeys()
    shown.add_list([make(str(number), **row) for number, row in enumerate(rows, 1)])
    error = shown.why_not_found("k", name)
    assert (error is not None) is blind
    if error:
        assert f"none of the {len(rows)} listed instances shows a business key" in str(error)
        assert "Use the instance_id" in str(error)


@pytest.mark.parametrize(
    ("odd", "blind"),
    [
        ({"unread": {"businessKey"}}, False),
        ({"unread": {"state"}, "business_key": "other"}, False),
        ({"unread": {"state"}, "business_key": "1"}, True),
    ],
)
def test_unreadable_row_may_show_a_key(odd: dict[str, Any], blind: bool, make: Make) -> None:
    shown = ShownKeys()
    unread = frozenset(odd.pop("unread"))
    shown.add_list(Rows([make("2")], [UnreadableRow(reason="odd", unread=unread, id="1", **odd)]))
    assert (shown.why_not_found("k", None) is not None) is blind


def server(*rows: BpmInstance, fails: str = "") -> Callable[[Operation[Any]], Any]:
    def answer(operation: Operation[Any]) -> Any:
        state = dict(operation.query)["states"]
        return ServerError("down") if state == fails else [row for row in rows if row.state == state]

    return answer


@pytest.mark.parametrize(
    ("rows", "fails", "kind"),
    [
        ([], "", InstanceNotFoundError),
        ([{}], "", KeysNotShownError),
        ([{}, {"business_key": "other", "state": "Completed OK"}], "", InstanceNotFoundError),
        ([{"name": "Foreign"}], "", InstanceNotFoundError),
        ([{}], "Broken", ServerError),  # a state that could not be listed may show a key
    ],
)
def test_search_by_key_raises_if_no_row_shows_a_key(
    rows: list[dict[str, Any]], fails: str, kind: type[AstroZeroError], make: Make, stage: Any
) -> None:
    made = [make(f"00{number}", **row) for number, row in enumerate(rows)]
    with pytest.raises(kind):
        stage(server(*made, fails=fails)).run(search.find_by_key("k", name="Approval"))


def test_instance_whose_key_is_its_id_is_found_by_it(make: Make, stage: Any) -> None:
    row = make("1", business_key="1")
    assert stage(server(row)).run(search.find_by_key("1")) == row


def test_endpoint_remembers_that_it_shows_keys(make: Make, stage: Any) -> None:
    endpoint = EndpointTraits()
    stage(server(make("1", business_key="k"))).run(search.find_by_key("k", endpoint=endpoint))
    with pytest.raises(InstanceNotFoundError):
        stage(server(make("2"))).run(search.find_by_key("k", endpoint=endpoint))
