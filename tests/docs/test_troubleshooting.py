"""Each message that the troubleshooting pages quote appears, and the pages name every error of this provider."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from tests.docs.provocations_of_batches import BATCHES
from tests.docs.provocations_of_calls import ARGUMENTS, CALLS, CONNECTION, REFUSALS, Provocation
from tests.docs.provocations_of_operation import COMMANDS, EMULATOR, ENDS, EVENTS, INCIDENTS
from tests.docs.provocations_of_tasks import STARTS, WAITS
from tests.docs.scene import Scene

ROOT = Path(__file__).parent.parent.parent
ENTRY = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
"""The page that leads to the others, by the class of the error and by what the reader sees."""
PAGES = {
    path.name: path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs").glob("troubleshooting*.md"))
}

PROVOCATIONS: dict[str, Provocation] = {
    **CONNECTION, **CALLS, **REFUSALS, **ARGUMENTS, **STARTS, **WAITS, **ENDS, **BATCHES, **EVENTS, **INCIDENTS,
    **COMMANDS, **EMULATOR,
}  # fmt: skip

# Messages that another test provokes, because they need a frozen machine, a certificate, an old Airflow, or more time.
ELSEWHERE: dict[str, str] = {
    'On this Airflow, tick "Keep task state and resume" when you clear it (REST API: keep_task_state=true); otherwise …': (
        "tests/operators/test_clearing.py::test_of_a_failed_wait_that_a_clear_resumes"
    ),
    "the key is encrypted, which is not supported": (
        "tests/hooks/test_cut_off.py::test_encrypted_key_is_refused_without_a_prompt"
    ),
    "the server could not be reached within 'connect_timeout'": (
        "tests/hooks/test_async_transport.py::test_connect_timeout"
    ),
    "the request could not be built (…)": "tests/hooks/test_async_transport.py::test_invalid_request_raises",
    "the answer was not complete within … s": "tests/hooks/test_cut_off.py::test_trickling_answer_times_out",
    "astro_zero_retry_policy() needs Airflow 3.3 or newer": (
        "tests/policies/test_bpm.py::test_before_airflow_3_3_raises_an_error_with_advice"
    ),
    "queue needs Airflow 3.4 or newer": (
        "tests/triggers/test_event.py::test_before_airflow_3_4_a_queue_is_refused_with_advice"
    ),
    "… instances have its business key, too many to recognise later which one this task has started": (
        "tests/starting/test_decision.py::test_refuses_if_too_many_instances_have_the_custom_key"
    ),
    "Astro Zero shows instance '…' in two lists with different values: …": (
        "tests/client/test_search_result.py::test_rows_that_a_move_cannot_explain_are_a_contradiction"
    ),
    "The poller was stopped": "tests/waiting/test_poller.py::test_cancellation_ends_every_wait_with_an_error",
    "The connection has changed; still waiting, with the new settings": (
        "tests/triggers/faults/test_credentials.py::test_reads_a_changed_connection_again"
    ),
    "launch … has changed since the input was validated a moment ago": (
        "tests/batches/test_batch_input.py::test_raises_if_the_input_has_changed_since"
    ),
    "the result could not be written to …: …": (
        "tests/task_base/test_batch_result_file.py::test_error_shows_no_secret"
    ),
    "the XComs of the task could not be read (…)": (
        "tests/triggers/test_lookup.py::test_survives_xcoms_that_cannot_be_read_for_a_moment"
    ),
    "'execution_timeout' has passed before everything was started; applying 'on_timeout' to the open instances": (
        "tests/operators/test_execution_timeout.py::test_ends_a_batch_that_is_still_starting"
    ),
    "This process stood still for … s, and another try may have begun": "tests/task_base/test_heartbeat.py::test_stops_after_standing_still",
    "The supervisor of this process has died, and another try takes over": (
        "tests/task_base/test_heartbeat.py::test_stops_when_the_supervisor_has_died"
    ),
    "Interrupted while the start request was in progress.": (
        "tests/cli/test_commands.py::test_ctrl_c_during_a_start_leaves_it_in_doubt"
    ),
    "Airflow's database cannot be read here (…)": "tests/cli/test_gates.py::test_a_database_that_cannot_be_read_is_an_error",
    "--orphans selects the instances itself; do not combine it with ids": "tests/cli/test_gates.py::test_wrong_use_is_refused",
    "--instances is for waiting tasks; do not combine it with --orphans": "tests/cli/test_gates.py::test_wrong_use_is_refused",
    "Left alone, because their tasks have changed meanwhile: …": (
        "tests/cli/test_gates.py::test_a_task_that_continues_after_the_preview_keeps_its_instance"
    ),
    "No further requests are recorded on connection '…': …": (
        "tests/client/test_transcript_writer.py::test_full_disk_is_logged_once"
    ),
    "--record: … cannot be created: …": "tests/cli/test_doctor.py::test_an_existing_file_is_not_overwritten",
    "… cannot be read: No such file or directory": "tests/emulator/test_replay.py::test_paths_without_a_transcript_are_refused",
    "… has no transcript, which is a file *.jsonl.": "tests/emulator/test_replay.py::test_paths_without_a_transcript_are_refused",
    "… is not a transcript: …": "tests/emulator/test_replay.py::test_other_files_are_refused",
    "… has no recorded exchange": "tests/emulator/test_replay.py::test_transcripts_without_an_exchange_are_refused",
    "… ends within line …: its process was killed while it wrote.": (
        "tests/emulator/test_replay.py::test_a_transcript_that_was_cut_at_its_end_is_read_with_a_note"
    ),
    "… was cut, so later exchanges are missing: …": (
        "tests/emulator/test_replay.py::test_a_transcript_that_was_cut_at_its_end_is_read_with_a_note"
    ),
    "Differs: …": "tests/emulator/test_replay.py::test_the_command_line_replays_and_reports",
    "… other open instances with such a key left alone: …": (
        "tests/cli/test_gates.py::test_an_instance_for_which_another_task_waits_is_no_orphan"
    ),
    "Warning: skipped … of which the process is unknown.": "tests/cli/test_gates.py::test_each_way_of_waiting",
    "Warning: the states of the instances on connection '…' are unknown: …": (
        "tests/cli/test_gates.py::test_tasks_are_shown_although_their_connection_is_unknown"
    ),
    "Warning: the instances in … could not be listed: …": (
        "tests/cli/test_gates.py::test_tasks_are_shown_although_astro_zero_cannot_be_read"
    ),
    "Sending metrics to Airflow failed; this process sends no more metrics": (
        "tests/_airflow/test_stats.py::test_failing_stats_are_logged_once_and_harmless"
    ),
}


def quoted(page: str) -> list[str]:
    """Return the messages that a page quotes: code in a line of a quotation, or in the first cell of a table row."""
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
    except (Exception, SystemExit) as error:  # noqa: BLE001 - any of them may have the message
        raised = str(error)
    out, err = capsys.readouterr()
    seen = " ".join(f"{raised}\n{out}\n{err}\n{caplog.text}".split())
    pattern = re.escape(message).replace("…", ".+?")
    assert re.search(pattern, seen, re.IGNORECASE), seen


def test_every_quoted_message_has_a_provocation() -> None:
    shown = [message for page in PAGES.values() for message in quoted(page)]
    assert len(shown) == len(set(shown))
    assert set(shown) == {*PROVOCATIONS, *ELSEWHERE}
    assert not set(PROVOCATIONS) & set(ELSEWHERE)


def warnings_of_commands() -> Iterator[str]:
    """Yield the warnings that commands print, with an ellipsis in place of each value."""
    for path in (ROOT / "airflow_provider_astrobpm" / "cli").glob("*.py"):
        for text in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(text, ast.JoinedStr):
                shown = "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "…" for part in text.values
                )
                if shown.startswith("Warning: "):
                    yield shown


def test_the_pages_quote_every_warning_of_a_command() -> None:
    quotations = {*PROVOCATIONS, *ELSEWHERE}
    found = set(warnings_of_commands())
    assert len(found) > 5
    for warning in found:
        pattern = re.escape(warning.removesuffix(".")).replace("…", ".+") + r"\.?"
        assert any(re.fullmatch(pattern, one) for one in quotations), warning


@pytest.mark.parametrize("test", sorted(set(ELSEWHERE.values())))
def test_each_other_test_that_provokes_a_message_exists(test: str) -> None:
    file, _, name = test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.AstroZeroError)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_entry_names_every_error(kind: type[errors.AstroZeroError]) -> None:
    assert f"`{kind.__name__}`" in ENTRY


def test_the_entry_links_every_other_page() -> None:
    assert len(PAGES) > 1
    assert {name for name in PAGES if f"]({name})" in ENTRY} == PAGES.keys() - {"troubleshooting.md"}
