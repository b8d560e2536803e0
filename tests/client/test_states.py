"""What the twelve states mean, and what an unknown one does not."""

from __future__ import annotations

import pytest

from airflow_provider_astrobpm.client import states
from airflow_provider_astrobpm.client.states import StateClass


@pytest.mark.parametrize("state", [*states.STATES, "Perfectly Fine", "completed ok", ""])
def test_an_unknown_state_is_open_and_never_a_success(state: str) -> None:
    kind = states.class_of(state)
    if state not in states.STATES:
        assert kind is StateClass.UNCLEAR
    assert (kind is StateClass.SUCCEEDED) is (state == "Completed OK")
    assert states.is_terminal(state) is (state in {"Completed OK", "Terminated", "User Terminated", "Broken"})


@pytest.mark.parametrize(
    ("wanted", "listed"),
    [
        (set(), ()),
        ({"Broken", "Completed OK"}, ("Completed OK", "Broken")),
        ({"Suspended"}, states.OPEN_STATES),
        ({"Suspended", "Broken"}, (*states.OPEN_STATES, "Broken")),
        ({"Perfectly Fine"}, ()),
    ],
)
def test_a_suspended_instance_may_be_in_the_list_of_any_open_state(
    wanted: set[str], listed: tuple[str, ...]
) -> None:
    found = states.states_to_list(wanted)
    assert set(found) == set(listed)
    assert list(found) == [state for state in states.STATES if state in found]


def test_state_names_are_spelled_as_the_server_spells_them() -> None:
    assert states.require_known(["Broken", "New", "Broken"], "states") == {"Broken", "New"}
    for bad, words in (
        (["completed ok"], "^failed_states must be one of .* not 'completed ok'"),
        ("Broken", "^failed_states must be a list of texts, not 'Broken'"),
        ([], "^failed_states must not be empty"),
    ):
        with pytest.raises(ValueError, match=words):
            states.require_known(bad, "failed_states")
