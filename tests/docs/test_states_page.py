"""The table of ``docs/states.md`` lists every state with its kind, and says whether an instance in it is open."""

from __future__ import annotations

from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.states import OPEN_STATES, STATES
from airflow_provider_astrobpm.waiting.condition import WaitCondition
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "states.md").read_text(encoding="utf-8")
OUTCOMES = {"succeeds": "done", "fails": "failed", "waits": "waiting"}


def rows_below(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    table = PAGE.split(f"# {heading}\n", 1)[1].split("\n| ", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def test_the_table_lists_every_state_with_its_kind() -> None:
    listed = {row[0].strip("`"): (row[1], row[2]) for row in rows_below("The twelve states")}
    assert listed == {
        state: (kind.value, "yes" if state in OPEN_STATES else "no") for state, kind in STATES.items()
    }


def test_a_wait_without_a_condition_ends_as_the_table_says() -> None:
    said = {name.strip(" `"): row[1] for row in rows_below("For a wait") for name in row[0].split(",")}
    for state in [*STATES, "A state of a later version"]:
        instance = BpmInstance(
            id="1", name="P", state=state, is_closed=state in set(STATES) - set(OPEN_STATES)
        )
        other = "any other known state" if state in STATES else "unknown"
        assert WaitCondition().judge(instance).outcome.value == OUTCOMES[said.get(state, said[other])], state
