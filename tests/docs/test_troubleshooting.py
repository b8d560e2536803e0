"""Each message that the troubleshooting pages quote is made to appear, and no error of this provider is missing there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm.bpm import errors
from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from airflow_provider_astrobpm.emulator.running import EmulatorServer
from tests.docs.provocations_of_batches import BATCHES
from tests.docs.provocations_of_calls import ARGUMENTS, CALLS, CONNECTION, REFUSALS, Provocation
from tests.docs.provocations_of_operation import COMMANDS, EMULATOR, ENDS, EVENTS, INCIDENTS
from tests.docs.provocations_of_tasks import STARTS, WAITS
from tests.docs.scene import Scene

ROOT = Path(__file__).parent.parent.parent
ENTRY = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
"""The page that leads to the others: by class of the error, and by where the reader is."""
PAGES = {
    path.name: path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs").glob("troubleshooting*.md"))
}

PROVOCATIONS: dict[str, Provocation] = {
    **CONNECTION, **CALLS, **REFUSALS, **ARGUMENTS, **STARTS, **WAITS, **ENDS, **BATCHES, **EVENTS, **INCIDENTS,
    **COMMANDS, **EMULATOR,
}  # fmt: skip

# What another test makes appear: it takes a machine that stands still, a certificate, an old Airflow, or longer.
ELSEWHERE: dict[str, str] = {
    'On this Airflow, tick "Keep task state and resume" when you clear it (REST API: keep_task_state=true); otherwise …': (
        "tests/operators/test_clearing.py::test_of_a_failed_wait_that_a_clear_resumes"
    ),
    "the key is encrypted, which is not supported": (
        "tests/hooks/test_cut_off.py::test_an_encrypted_key_is_refused_without_asking"
    ),
    "the server could not be reached within 'connect_timeout'": (
        "tests/hooks/test_aio_transport.py::test_nobody_accepts"
    ),
    "the request could not be built (…)": "tests/hooks/test_aio_transport.py::test_what_cannot_be_built",
    "the answer was not whole within … s": "tests/hooks/test_cut_off.py::test_an_answer_that_trickles_has_an_end",
    "astro_zero_retry_policy() needs Airflow 3.3 or newer": (
        "tests/policies/test_bpm.py::test_before_airflow_3_3_it_says_what_it_needs"
    ),
    "… instances carry its business key, too many to know later which one this task has started": (
        "tests/bpm/test_adoption.py::test_where_too_many_carry_the_authors_key_nothing_is_started"
    ),
    "Astro Zero shows instance '…' in two lists, with …; this decides nothing": (
        "tests/bpm/test_findings.py::test_two_lists_that_no_move_explains_decide_nothing"
    ),
    "The poller was stopped": "tests/bpm/test_poller.py::test_cancelled_from_outside_it_tells_everybody",
    "The connection has changed; the wait goes on with its new settings": (
        "tests/triggers/test_faults.py::test_a_changed_connection_is_read_anew"
    ),
    "launch … is another one than when the input was checked a moment ago": (
        "tests/bpm/test_launches.py::test_an_input_that_has_changed_since_is_never_taken_for_the_same"
    ),
    "the result could not be written to …: …": (
        "tests/tasks/test_result_file.py::test_error_shows_no_secret"
    ),
    "the XComs of the task could not be read (…)": (
        "tests/triggers/test_lookup.py::test_whose_xcoms_cannot_be_read_for_a_moment_goes_on"
    ),
    "'execution_timeout' has passed before everything was started; applying 'on_timeout' to the open instances": (
        "tests/operators/test_execution_timeout.py::test_ends_a_batch_that_is_still_starting"
    ),
    "This process stood still for … s, and another try may have begun": "tests/tasks/test_orphan.py::test_stops_after_standing_still",
    "The supervisor of this process has died, and another try takes over": (
        "tests/tasks/test_orphan.py::test_stops_when_the_supervisor_has_died"
    ),
    "Interrupted while the start was under way.": (
        "tests/cli/test_commands.py::test_ctrl_c_while_it_is_started_leaves_the_start_in_doubt"
    ),
    "Metrics could not be handed to Airflow, and are no more": (
        "tests/hooks/test_metrics.py::test_metrics_that_cannot_be_handed_over_harm_nothing_and_are_told_once"
    ),
}


def quoted(page: str) -> list[str]:
    """Return the messages that a page quotes: code in a line of a quotation, or in the first cell of a row."""
    found = re.findall(r"^(?:> |\| )(?:`` (.+?) ``|`([^`]+)`)(?= \||$)", page, re.MULTILINE)
    return [one or other for one, other in found]


@pytest.fixture
def scene(
    emulator: EmulatorControl,
    emulator_server: EmulatorServer,
    tmp_path: Path,
    free_port: int,
    emulator_time: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Scene]:
    made = Scene(emulator, emulator_server, tmp_path, free_port, emulator_time, monkeypatch)
    yield made
    made.close()


@pytest.mark.parametrize("message", PROVOCATIONS)
def test_a_message_appears_as_it_is_quoted(
    message: str, scene: Scene, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    raised = ""
    caplog.set_level("INFO")
    try:
        PROVOCATIONS[message](scene)
    except (pytest.fail.Exception, pytest.skip.Exception, AssertionError):
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - every one of them may be the message
        raised = str(error)
    out, err = capsys.readouterr()
    seen = " ".join(f"{raised}\n{out}\n{err}\n{caplog.text}".split())
    pattern = re.escape(message).replace("…", ".+?")
    assert re.search(pattern, seen, re.IGNORECASE), seen


def test_every_quoted_message_is_made_to_appear() -> None:
    shown = [message for page in PAGES.values() for message in quoted(page)]
    assert len(shown) == len(set(shown))
    assert set(shown) == {*PROVOCATIONS, *ELSEWHERE}
    assert not set(PROVOCATIONS) & set(ELSEWHERE)


@pytest.mark.parametrize("test", sorted(set(ELSEWHERE.values())))
def test_what_appears_in_another_test_has_one(test: str) -> None:
    file, _, name = test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.AstroZeroError)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_place(kind: type[errors.AstroZeroError]) -> None:
    assert f"`{kind.__name__}`" in ENTRY


def test_the_entry_links_every_other_page() -> None:
    assert len(PAGES) > 1
    assert {name for name in PAGES if f"]({name})" in ENTRY} == PAGES.keys() - {"troubleshooting.md"}
