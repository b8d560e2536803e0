"""The output of scripts while they run."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from steps import Steps


def _steps(*, terminal: bool) -> tuple[Steps, io.StringIO]:
    written = io.StringIO()
    return Steps(
        Console(file=written, force_terminal=terminal, width=80, highlight=False, markup=False)
    ), written


def test_in_a_pipe_a_step_prints_its_name_before_it_ends() -> None:
    steps, written = _steps(terminal=False)
    with steps.step("Start [all] of it"):
        assert written.getvalue() == "Start [all] of it ... "
    with steps.step("Stop it"):
        pass
    assert re.fullmatch(r"Start \[all\] of it \.\.\. \d\.\d s\nStop it \.\.\. \d\.\d s\n", written.getvalue())


@pytest.mark.parametrize("terminal", [True, False])
def test_a_failed_step_is_remembered_and_prints_no_seconds(terminal: bool) -> None:
    steps, written = _steps(terminal=terminal)
    with pytest.raises(OSError, match="gone"), steps.step("Start it"):
        raise OSError("gone")
    assert steps.current == "Start it"
    assert not re.search(r"\d\.\d s", written.getvalue())
    assert written.getvalue().endswith("\n") or terminal


def test_on_a_terminal_a_step_leaves_one_line() -> None:
    steps, written = _steps(terminal=True)
    with steps.step("Start [all] of it"):
        pass
    assert "0:00:00" in written.getvalue()
    assert re.search(r"Start \[all\] of it: \d\.\d s\n$", written.getvalue())
