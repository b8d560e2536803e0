"""The tree of errors, and copies of errors."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.instance import BpmInstance

INSTANCE = BpmInstance(id="1", name="A", state="Broken", is_closed=True)
CAUSE = errors.InterruptedCallError("cut", status=200, res_code="7", res_msg="words")

ERRORS = [
    CAUSE,
    errors.SettingsError("host is empty", "my_conn"),
    errors.AmbiguousStartError(CAUSE, "k"),
    errors.InstanceNotFoundError("instance '1'", most_rows=500, refusal=CAUSE),
    errors.SeveralInstancesError("business key 'k'", [INSTANCE, INSTANCE]),
    errors.InstanceClosedError(INSTANCE),
    errors.WaitFailedError(INSTANCE, "it ended"),
    errors.WaitTimeoutError("instance '1'", 60, INSTANCE),
    errors.UnknownEventError({"status": "?"}, "no such status"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling_and_copying(error: errors.AstroZeroError) -> None:
    error.add_context("do it", "my_conn")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again).keys() == vars(error).keys()


def test_docstring_draws_the_tree_of_errors() -> None:
    tree: list[tuple[int, str]] = []

    def walk(kind: type[errors.AstroZeroError], depth: int) -> None:
        tree.append((depth, kind.__name__))
        for child in kind.__subclasses__():
            walk(child, depth + 1)

    walk(errors.AstroZeroError, 0)
    drawn = [
        (len(match["indent"]) // 2, match["name"])
        for match in re.finditer(r"^ {4}(?P<indent> *)(?P<name>\w+)", errors.__doc__ or "", re.MULTILINE)
    ]
    assert drawn == tree
