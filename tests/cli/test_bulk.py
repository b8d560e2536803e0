"""Bulk actions: a correct preview, no other instance touched, nothing to do for a second run, and a clean stop on Ctrl-C."""

from __future__ import annotations

import re
import signal
from collections import Counter

import pytest

from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from tests.cli.conftest import MODULE, Run, connection, process, running

BPM = "SupplierOnboarding"
OTHER = "PublishApproval"
WAITING = "Waiting for user interaction"


def started(emulator: EmulatorControl, count: int, bpm: str = BPM) -> set[str]:
    return {emulator.start(bpm)["id"] for _ in range(count)}


def in_state(emulator: EmulatorControl, state: str) -> set[str]:
    return {one["id"] for one in emulator.instances(state=state)}


def changes(emulator: EmulatorControl) -> int:
    counts = emulator.counts()
    return counts["action"] + counts["variables"]


def test_terminate_by_a_filter_changes_exactly_the_previewed_instances(emulator: EmulatorControl) -> None:
    matching, others = started(emulator, 500), started(emulator, 20, OTHER)
    command = ("terminate", "--bpm-name", BPM, "--output", "json")

    refused = process(MODULE, *command)
    assert refused.code == 2
    assert {row["id"] for row in refused.rows} == matching, "the preview is correct"
    assert "Terminate 500 instances? There is no terminal to confirm this on" in refused.err
    assert changes(emulator) == 0

    done = process(MODULE, *command, "--yes")
    assert done.code == 0, done.err
    assert {row["id"] for row in done.rows} == matching
    assert done.err == "Terminate 500 instances.\nTerminated 500 of 500.\n", (
        "no progress bar without a terminal"
    )
    assert in_state(emulator, "Terminated") == matching
    assert in_state(emulator, WAITING) == others
    assert changes(emulator) == 500

    again = process(MODULE, *command, "--yes")
    assert (again.code, again.out, again.err) == (0, "", "Nothing to do: no instance matches.\n")
    assert changes(emulator) == 500


def test_ctrl_c_stops_after_the_changes_in_progress_and_reports_them(emulator: EmulatorControl) -> None:
    matching = started(emulator, 100)
    emulator.fault("action", "delay", seconds=0.3, times=100)
    with running(MODULE, "terminate", "--bpm-name", BPM, "--yes", "--max-concurrency", "4") as terminating:
        while len(in_state(emulator, "Terminated")) < 6:
            assert terminating.popen.poll() is None
        terminating.popen.send_signal(signal.SIGINT)
        done = terminating.end()
    ended = in_state(emulator, "Terminated")
    assert done.code == 130
    assert 6 <= len(ended) < 100
    assert "Stopping after the changes in progress." in done.err
    assert f"Interrupted. Terminated {len(ended)} of 100, {100 - len(ended)} not tried." in done.err
    named = re.search(r"Not tried: (.*) and \d+ more", done.err)
    assert named
    assert set(named[1].split(", ")) <= matching - ended
    assert changes(emulator) == len(ended), "all requests had finished"

    emulator.clear_faults()
    again = process(MODULE, "terminate", "--bpm-name", BPM, "--yes")
    assert (again.code, again.err.splitlines()[-1]) == (
        0,
        f"Terminated {100 - len(ended)} of {100 - len(ended)}.",
    )
    assert in_state(emulator, "Terminated") == matching


def test_a_second_ctrl_c_aborts_at_once_and_reports_unknown_results(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmulatorServer() as server:
        monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", server.connection_json())
        emulator = server.control
        started(emulator, 10)
        emulator.fault("action", "delay", seconds=600, times=10)
        with running(
            MODULE, "terminate", "--bpm-name", BPM, "--yes", "--max-concurrency", "4"
        ) as terminating:
            while changes(emulator) < 4:
                assert terminating.popen.poll() is None
            terminating.popen.send_signal(signal.SIGINT)
            terminating.wait_for_message("Press Ctrl-C again to abort at once.")
            terminating.popen.send_signal(signal.SIGINT)
            done = terminating.end()
        assert done.code == 130
        assert "Interrupted. Terminated 0 of 10, 6 not tried, 4 unknown." in done.err
        assert changes(emulator) == 4


def test_ctrl_c_during_the_search_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmulatorServer() as server:
        monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", server.connection_json())
        emulator = server.control
        started(emulator, 3)
        emulator.fault("query", "delay", seconds=600)
        with running(MODULE, "terminate", "--bpm-name", BPM, "--yes") as terminating:
            while not emulator.counts()["query"]:
                assert terminating.popen.poll() is None
            terminating.popen.send_signal(signal.SIGINT)
            done = terminating.end()
        assert (done.code, done.out, done.err) == (130, "", "Interrupted. Nothing was changed.")
        assert changes(emulator) == 0


def test_suspend_and_resume_skip_instances_already_in_that_state(run: Run, emulator: EmulatorControl) -> None:
    matching = started(emulator, 3)
    done = run("suspend", "--bpm-name", BPM, "--yes")
    assert (done.code, done.err) == (0, "Suspend 3 instances.\nSuspended 3 of 3.\n")
    assert Counter(one["suspended"] for one in emulator.instances()) == {True: 3}
    again = run("suspend", *matching, "--yes")
    assert (again.code, again.err) == (0, "Nothing to do: 3 are suspended already.\n")
    done = run("resume", "--state", "Suspended", "--yes")
    assert (done.code, done.err.splitlines()[-1]) == (0, "Resumed 3 of 3.")
    assert Counter(one["suspended"] for one in emulator.instances()) == {False: 3}


@pytest.mark.parametrize("position", ["unchanged", "Suspended", "state_only"])
def test_state_filter_finds_suspended_instances_in_any_list(
    position: str, run: Run, emulator: EmulatorControl
) -> None:
    emulator.switch(suspend_state=position)
    matching = started(emulator, 2)
    started(emulator, 2, OTHER)
    assert run("suspend", *matching, "--yes").code == 0
    rows = run("list", "--state", "Suspended", "--output", "json").rows
    assert {row["id"] for row in rows} == matching


def test_ids_of_open_ended_and_missing_instances(run: Run, emulator: EmulatorControl) -> None:
    open_ids, ended_ids = started(emulator, 2), started(emulator, 1, "Instant")
    done = run("terminate", *open_ids, *ended_ids, "nope", "--yes", "--output", "json")
    assert done.code == 3
    assert {row["id"] for row in done.rows} == open_ids
    assert "instance 'nope' is in none of the states" in done.err
    assert "Skipped: 1 has ended already." in done.err
    assert done.err.endswith("Terminated 2 of 2.\n")
    assert in_state(emulator, "Terminated") == open_ids


def test_each_failure_is_reported_with_its_reason(
    run: Run, emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", connection(emulator_server, max_attempts=1))
    started(emulator, 5)
    emulator.fault("action", "status", status=403, times=2, res_code="405230999", res_msg="Not yours")
    done = run("terminate", "--bpm-name", BPM, "--yes")
    assert done.code == 1
    lines = [line for line in done.err.splitlines() if line.startswith("Instance ")]
    assert len(lines) == 2
    assert all(f"of {BPM!r}: " in line and "Not yours" in line for line in lines)
    assert done.err.endswith("Terminated 3 of 5, 2 failed.\n")
    assert len(in_state(emulator, "Terminated")) == 3


def test_stops_if_the_server_is_down(
    run: Run, emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", connection(emulator_server, max_attempts=1))
    started(emulator, 30)
    emulator.fault("action", "status", status=429, times=1000)
    done = run("terminate", "--bpm-name", BPM, "--yes", "--max-concurrency", "2")
    assert done.code == 1
    assert "Terminated 0 of 30, 30 not tried.\nStopped: Could not terminate instance" in done.err
    assert changes(emulator) <= 2


def test_set_changes_variables_of_matching_instances_only(run: Run, emulator: EmulatorControl) -> None:
    matching, others = started(emulator, 3), started(emulator, 1, OTHER)
    done = run("set", "--bpm-name", BPM, "--variable", "country=CN", "--variable", "risk_class=3", "--yes")
    assert (done.code, done.err.splitlines()[-1]) == (0, "Set the variables of 3 of 3.")
    for one in matching:
        variables = emulator.instance(one)["variables"]
        assert (variables["country"], variables["risk_class"]) == ("CN", 3)
    assert all("country" not in emulator.instance(one)["variables"] for one in others)


def test_failed_set_reports_no_values(
    run: Run, emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", connection(emulator_server, max_attempts=1))
    started(emulator, 3)
    emulator.fault("variables", "status", status=403, res_msg="Not yours")
    done = run("set", "--bpm-name", BPM, "--variable", "country=a-secret", "--yes")
    assert done.code == 1
    assert "Not yours" in done.err
    assert "a-secret" not in done.err
    assert done.err.endswith("Set the variables of 2 of 3, 1 failed.\n")


def test_action_without_visible_effect_counts_as_unconfirmed(
    run: Run, emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(emulator, 2)
    emulator.switch(action_lag=30)
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", connection(emulator_server, start_grace=0.02))
    done = run("terminate", "--bpm-name", BPM, "--yes")
    assert done.code == 1
    words = "accepted, but shows no effect after 0.02 s: the instance is 'Waiting for user interaction'"
    assert done.err.count(words) == 2
    assert done.err.endswith("Terminated 0 of 2, 2 unconfirmed.\n")
    emulator.advance(31)
    assert run("terminate", "--bpm-name", BPM, "--yes").err == "Nothing to do: no instance matches.\n"
