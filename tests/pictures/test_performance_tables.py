"""The tables in docs/performance.md, which the benchmarks write and the plots read."""

from __future__ import annotations

from pathlib import Path

import pytest

from performance_tables import Table, TableError, number, table_with, tables_of

PAGE = (Path(__file__).parents[2] / "docs" / "performance.md").read_text(encoding="utf-8")
SMALL = """
| not | measured |
|--:|--:|
| 1 | 2 |
<!-- waiting: begin -->
Words.

| tasks | CPU |
|--:|:--|
| 1,000 | 0.22 s |
| 5,000 | 1 s |

| other |
|--:|
| 1 |
<!-- waiting: end -->
"""


def test_tables_are_read_between_the_markers() -> None:
    first, second = tables_of(SMALL, "waiting")
    rows = ({"tasks": "1,000", "CPU": "0.22 s"}, {"tasks": "5,000", "CPU": "1 s"})
    assert first == Table(("tasks", "CPU"), rows)
    assert second == Table(("other",), ({"other": "1"},))
    assert table_with(SMALL, "waiting", "CPU") is not None


@pytest.mark.parametrize(
    ("cell", "value"), [("12", 12), ("10,687", 10_687), ("0.22 s", 0.22), ("3288 ms", 3288), ("93%", 93)]
)
def test_number_ignores_the_unit(cell: str, value: float) -> None:
    assert number(cell) == value


@pytest.mark.parametrize("cell", ["", "none", "s 1"])
def test_number_refuses_a_cell_without_a_number(cell: str) -> None:
    with pytest.raises(TableError, match="not a number"):
        number(cell)


@pytest.mark.parametrize(
    ("page", "name", "column", "words"),
    [
        (SMALL, "batch", "CPU", "the markers of 'batch' are missing"),
        (SMALL, "waiting", "memory", "0 tables of 'waiting' have the columns memory"),
        (SMALL.replace("| other |", "| CPU |"), "waiting", "CPU", "2 tables of 'waiting'"),
        (SMALL.replace("| 5,000 |", "| 5,000 | 7 |"), "waiting", "CPU", "more or fewer cells"),
    ],
)
def test_a_missing_table_is_reported(page: str, name: str, column: str, words: str) -> None:
    with pytest.raises(TableError, match=words):
        table_with(page, name, column)


def test_the_page_has_the_tables_of_the_waiting_plot() -> None:
    rows = table_with(PAGE, "waiting", "tasks", "trigger", "requests", "CPU").rows
    triggers = {row["trigger"] for row in rows}
    assert triggers == {"this provider", "http provider", "Airflow alone"}
    for trigger in triggers:
        tasks = [number(row["tasks"]) for row in rows if row["trigger"] == trigger]
        assert tasks == sorted(set(tasks))
        assert len(tasks) > 1
    assert all(number(row["requests"]) >= 0 and number(row["CPU"]) > 0 for row in rows)


def test_the_page_has_the_tables_of_the_batch_plot() -> None:
    table = table_with(PAGE, "batch", "starts a second", "the run takes")
    ours, mapped = table.rows
    launches = table.columns[0]
    assert launches.endswith(" launches by")
    assert (ours[launches], mapped[launches]) == (
        "one task of this operator",
        "mapped tasks of the http provider",
    )
    assert all(number(row[column]) > 0 for row in (ours, mapped) for column in table.columns[1:])


def test_the_page_has_the_cost_of_one_gate() -> None:
    gates = table_with(PAGE, "gate", "one gate with", "task processes", "CPU").rows
    ours, http, idle = (float(row["CPU"].split()[0]) for row in gates)
    assert idle < ours <= http / 2
