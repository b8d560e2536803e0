"""The variables of a BPM by its definition, and the cases in which they are unknown."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_astrobpm.client import definitions, operations
from airflow_provider_astrobpm.client.definitions import Variables, chosen, variables_of, why_unknown
from airflow_provider_astrobpm.client.errors import UnknownVariablesError
from airflow_provider_astrobpm.client.validation import nearest
from airflow_provider_astrobpm.client.wire import BpmDefinition

NAMES = ("supplier", "country", "risk_class")


def version(number: str | None, *, active: bool | None = False, name: str = "A") -> BpmDefinition:
    return BpmDefinition(id=f"001L-{name}-{number}", name=name, version=number, active=active)


@pytest.mark.parametrize(
    ("graph", "names"),
    [
        ({"variables": [{"name": "a"}, {"name": "b", "dataType": "Text"}]}, ["a", "b"]),
        ({}, None),
        ({"variables": None}, None),
        ({"variables": []}, None),
        ({"variables": {}}, None),
        ({"variables": "a"}, None),
        ({"variables": {"a": {"name": "a"}}}, None),
        ({"variables": ["a", "b"]}, None),
        ({"variables": [{"name": "a"}, {"label": "b"}]}, None),
        ({"variables": [{"name": "a"}, {"name": " "}]}, None),
        ({"variables": [{"name": "a"}, {"name": 7}]}, None),
        ({"variables": [{"name": "a"}, None]}, None),
        ({"constants": [{"name": "a"}], "dataMappers": [{"name": "b"}]}, None),
    ],
)
def test_variables_of_reads_the_listed_variables(graph: dict[str, Any], names: list[str] | None) -> None:
    listed = variables_of(graph)
    assert (None if listed is None else [one["name"] for one in listed]) == names
    assert bool(why_unknown(graph)) is (names is None)


@pytest.mark.parametrize(
    ("graph", "why"),
    [
        ({"variables": []}, "its definition lists no variables"),
        ({}, "its definition lists no variables"),
        ({"variables": {"a": {}}}, "its definition lists variables in an undocumented form"),
    ],
)
def test_why_unknown_names_the_reason(graph: dict[str, Any], why: str) -> None:
    assert why_unknown(graph) == why


@pytest.mark.parametrize(
    ("listed", "asked", "found"),
    [
        ([version("1"), version("2", active=True)], None, "2"),
        ([version("1"), version("2", active=True)], "1", "1"),
        ([version("1", active=True), version("1", active=True, name="AA")], None, "1"),
        ([version(None, active=True)], None, None),
    ],
)
def test_chosen_returns_the_version_that_runs(
    listed: list[BpmDefinition], asked: str | None, found: str | None
) -> None:
    meant = chosen(listed, "A", asked)
    assert isinstance(meant, BpmDefinition)
    assert (meant.name, meant.version) == ("A", found)


@pytest.mark.parametrize(
    ("listed", "asked", "why"),
    [
        ([], None, "no definition with this name is listed"),
        ([version("1", active=True, name="a")], None, "no definition with this name is listed"),
        (
            [version("1"), version("2")],
            None,
            "no version is listed as enabled (its versions: 1, 2)",
        ),
        ([version("1", active=None)], None, "no version is listed as enabled (its versions: 1)"),
        (
            [version("1", active=True), version("2", active=True)],
            None,
            "several versions are listed as enabled (its versions: 1, 2)",
        ),
        (
            [version("1"), version(None, active=True)],
            "3",
            "no version is listed under this number (its versions: 1, one without a number)",
        ),
    ],
)
def test_chosen_returns_a_reason_if_the_version_is_ambiguous(
    listed: list[BpmDefinition], asked: str | None, why: str
) -> None:
    assert chosen(listed, "A", asked) == why


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("contry", "country"),
        ("Country", "country"),
        ("RISKCLASS", "risk_class"),
        ("suplier", "supplier"),
        ("amount", None),
        ("x", None),
    ],
)
def test_nearest_name(name: str, found: str | None) -> None:
    assert nearest(name, NAMES) == found


def test_check_raises_for_unlisted_names() -> None:
    found = Variables("BPM 'A' version '1'", NAMES)
    found.check(["country", "$Flow.Title", "$Flow.BusinessKey"])
    with pytest.raises(UnknownVariablesError) as caught:
        found.check(["country", "contry", "amount"])
    assert caught.value.unknown == {"contry": "country", "amount": None}
    assert str(caught.value) == (
        "BPM 'A' version '1' has no variable 'contry' (did you mean 'country'?), 'amount'. Nothing was changed. "
        "Astro Zero silently ignores unknown names. The variables of the BPM are 'supplier', 'country', 'risk_class'."
    )
    Variables("BPM 'A'", why_unknown="its definition lists no variables").check(["anything"])


def run(flow: Any, *answers: Any) -> tuple[list[operations.Operation[Any]], Any]:
    """Run a flow with fixed answers. Return its operations and its result."""
    asked: list[operations.Operation[Any]] = []
    reply: Any = None
    queue = list(answers)
    try:
        while True:
            asked.append(flow.send(reply))
            reply = queue.pop(0)
    except StopIteration as stop:
        return asked, stop.value


def test_variables_takes_two_calls() -> None:
    asked, found = run(
        definitions.variables("A"), [version("1"), version("2", active=True)], {"variables": [{"name": "a"}]}
    )
    assert found == Variables("BPM 'A' version '2'", ("a",))
    assert [one.target for one in asked] == [
        "/u-route/baas/bp/v2.0/metadata/definitions?name=A",
        "/u-route/baas/bp/v2.0/metadata/definitions/001L-A-2",
    ]


def test_unlisted_bpm_takes_one_call() -> None:
    asked, found = run(definitions.variables("A", "9"), [version("1")])
    assert len(asked) == 1
    assert (found.bpm, found.names) == ("BPM 'A' version '9'", None)


@pytest.mark.parametrize(("name", "number"), [(" ", None), ("None", None), ("A", "")])
def test_invalid_name_or_version_raises_before_any_call(name: str, number: str | None) -> None:
    with pytest.raises(ValueError, match=r"(bpm_name|version) must"):
        next(definitions.variables(name, number))


@pytest.mark.parametrize("names", ["country", b"country", [" "], [7]])
def test_invalid_names_raise(names: Any) -> None:
    with pytest.raises(ValueError, match="name"):
        definitions.own(names)
