"""Whether a user ended a task: the table in the module's docstring is what the code decides, for every state of Airflow."""

from __future__ import annotations

from itertools import product

import pytest
from airflow.utils.state import TaskInstanceState

from airflow_provider_astrobpm._airflow import user_action
from airflow_provider_astrobpm._airflow.user_action import Published, TaskVerdict

STATES = (None, *(each.value for each in TaskInstanceState), "a state of a later Airflow")


def rows() -> list[tuple[str, str, str]]:
    """Return the rows of the table: states, what is published, and the verdict."""
    lines = iter((user_action.__doc__ or "").splitlines())
    for line in lines:
        if line.startswith("| the task instance is"):
            break
    assert next(lines).startswith("|---")
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        states, published, verdict = (cell.strip() for cell in line.strip("|").split("|"))
        found.append((states, published, verdict))
    return found


def documented(state: str | None, published: Published) -> str:
    """Return the verdict of the first row that applies."""
    for states, shown, verdict in rows():
        is_state = {"deleted": state is None, "in another state": True}.get(
            states, state in states.split(", ")
        )
        if is_state and (shown.startswith("anything") or published.value in shown.split(", ")):
            return verdict
    raise AssertionError(f"no row for {state!r} and {published.value!r}")


@pytest.mark.parametrize(("state", "published"), list(product(STATES, Published)))
def test_decides_as_the_table_says(state: str | None, published: Published) -> None:
    verdict = user_action.judge(state, published)
    assert verdict.name.lower().replace("_", " ") == documented(state, published)


def test_every_verdict_is_in_the_table() -> None:
    assert {verdict.upper().replace(" ", "_") for *_, verdict in rows()} == set(TaskVerdict.__members__)


def test_a_worker_terminates_only_for_states_that_a_user_sets() -> None:
    ended = {state for state in STATES if user_action.judge(state) is TaskVerdict.ENDED_BY_USER}
    assert ended == {None, "failed", "success", "skipped", "upstream_failed", "removed", "restarting"}


@pytest.mark.parametrize("state", ["awaiting_input", "a state of a later Airflow"])
def test_an_unknown_state_is_no_user_action_for_a_trigger(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_action, "task_state", lambda _task: state)
    monkeypatch.setattr(user_action, "published_xcom", lambda _task, _key: None)
    task = user_action.TaskInstanceRef("dag", "run", "task", -1)
    assert user_action._observe(task, "instance_id", "mine") is TaskVerdict.UNKNOWN_STATE
