"""The tables of docs/variables.md are true: each example is sent as they say, or refused, and its replacement is sent."""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pendulum
import pytest

from airflow_provider_astrobpm.client.variables import json_ready, unknown_zone

PAGE = Path(__file__).parent.parent.parent / "docs" / "variables.md"


class Colour(Enum):
    RED = "red"


@dataclass
class Order:
    id: str
    day: date


class Results(Sequence[int]):
    """A lazy result like Airflow's: a sequence and nothing more."""

    def __getitem__(self, index: Any) -> Any:
        return [2, 4, 6][index]

    def __len__(self) -> int:
        return 3


def of_pandas(name: str, *bases: type) -> Any:
    """Return a class that looks like one of pandas, which the tests do not install."""
    return type(name, bases, {"__module__": "pandas._libs.tslibs"})


EXAMPLES: dict[str, Any] = {
    "date": date, "datetime": datetime, "time": time, "timedelta": timedelta, "timezone": timezone, "Decimal": Decimal,
    "UUID": UUID, "PurePosixPath": PurePosixPath, "pendulum": pendulum, "numpy": np, "Colour": Colour, "Order": Order,
    "Point": namedtuple("Point", "x y"), "results": Results(),  # noqa: PYI024 - one as a database has
    "pandas": SimpleNamespace(
        Timestamp=of_pandas("Timestamp", datetime),
        NaT=of_pandas("NaTType", datetime)(1, 1, 1),
        NA=of_pandas("NAType")(),
    ),
}  # fmt: skip


def rows(heading: str) -> Iterator[list[str]]:
    """Return the rows of the table under a heading, without backticks."""
    part = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    for line in part.splitlines():
        if line.startswith("| ") and not line.startswith("| type "):
            yield [cell.strip().strip("`") for cell in line.strip("|").split(" | ")]


SENT, REFUSED = list(rows("What is sent")), list(rows("What is refused"))


@pytest.mark.parametrize(("kind", "example", "sent", "why"), SENT, ids=[row[0] for row in SENT])
def test_an_example_is_sent_as_the_table_says(kind: str, example: str, sent: str, why: str) -> None:
    value = eval(example, dict(EXAMPLES))  # noqa: S307 - of our own page
    made = json_ready({"of": [value]}, lambda: ZoneInfo("Asia/Shanghai"))
    assert json.dumps(made) == json.dumps({"of": [json.loads(sent)]})
    assert kind
    assert why


@pytest.mark.parametrize(("kind", "example", "why", "write"), REFUSED, ids=[row[1] for row in REFUSED])
def test_an_example_is_refused_and_its_replacement_is_sent(
    kind: str, example: str, why: str, write: str
) -> None:
    zone = unknown_zone if "connection has no" in kind else lambda: ZoneInfo("Asia/Shanghai")
    value = eval(example, dict(EXAMPLES))  # noqa: S307 - of our own page
    with pytest.raises(ValueError, match=r"^variables\['a'\]\['b'\]\[3\] cannot be sent: it is .*\. Write "):
        json_ready({"a": {"b": [0, 1, 2, value]}}, zone)
    assert json_ready({"of": eval(write, {**EXAMPLES, "value": value})}, zone)  # noqa: S307
    assert why


def test_the_tables_are_read_completely() -> None:
    assert len(SENT) > 25
    assert len(REFUSED) > 10
