"""The commands against the emulator: their output, requests and exit codes."""

from __future__ import annotations

import importlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import airflow
import pytest
import yaml
from packaging.version import Version
from rich.console import Console as RichConsole

from airflow_provider_astrobpm.cli import watch_command
from airflow_provider_astrobpm.cli.definition import COMMANDS
from airflow_provider_astrobpm.cli.output import Console
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.states import OPEN_STATES, STATES
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.provider_info import get_provider_info
from airflow_provider_astrobpm.waiting.condition import WaitCondition
from airflow_provider_astrobpm.waiting.wait import InstanceWait
from tests.cli.conftest import AIRFLOW, MODULE, Run, connection, process, running
from tests.support.warm_python import warm

BPM = "SupplierOnboarding"
WAITING = "Waiting for user interaction"
SECRET = "emulator-only-secret"

TAKES_COMMANDS = pytest.mark.skipif(
    Version(airflow.__version__) < Version("3.2"), reason="providers cannot add commands to this Airflow"
)


def ids(rows: list[dict[str, object]]) -> set[object]:
    return {row["id"] for row in rows}


@contextmanager
def on_a_terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a command on a new terminal, and yield the other end of the terminal."""
    ours, its = os.openpty()
    environment = os.environ | {"COLUMNS": "200", "LINES": "40", "TERM": "xterm"}
    try:
        with subprocess.Popen(
            warm([*MODULE, *arguments]), stdin=its, stdout=its, stderr=its, env=environment
        ) as popen:
            try:
                yield popen, ours
            finally:
                popen.kill()
    finally:
        os.close(its)
        os.close(ours)


def read_until(terminal: int, words: str) -> str:
    """Read the output of a command until it contains some words."""
    written, deadline = b"", time.monotonic() + 60
    while words.encode() not in written:
        ready, _, _ = select.select([terminal], [], [], deadline - time.monotonic())
        assert ready, written.decode(errors="replace")
        written += os.read(terminal, 65536)
    return written.decode()


class TestReadCommands:
    def test_list_shows_open_instances_with_one_request_per_state(
        self, run: Run, emulator: EmulatorControl
    ) -> None:
        still_open = {emulator.start(BPM)["id"] for _ in range(2)}
        emulator.start("Instant")
        done = run("list", "--output", "json")
        assert (done.code, done.err) == (0, "")
        assert ids(done.rows) == still_open
        assert emulator.counts()["query"] == len(OPEN_STATES)

    def test_list_all_shows_every_state(self, run: Run, emulator: EmulatorControl) -> None:
        everything = {emulator.start(name)["id"] for name in (BPM, "Instant")}
        assert ids(run("list", "--all", "--output", "json").rows) == everything
        assert emulator.counts()["query"] == len(STATES)

    def test_list_requests_only_the_states_of_the_filter(self, run: Run, emulator: EmulatorControl) -> None:
        broken = emulator.break_instance(emulator.start(BPM)["id"])["id"]
        emulator.start(BPM)
        assert ids(run("list", "--state", "Broken", "--output", "json").rows) == {broken}
        assert emulator.counts()["query"] == 1

    def test_list_by_bpm_name_and_business_key(self, run: Run, emulator: EmulatorControl) -> None:
        one = emulator.start(BPM, business_key="k")["id"]
        emulator.start(BPM)
        other = emulator.start("PublishApproval", business_key="k")["id"]
        assert ids(run("list", "--business-key", "k", "--output", "json").rows) == {one, other}
        assert ids(run("list", "--business-key", "k", "--bpm-name", BPM, "--output", "json").rows) == {one}

    @pytest.mark.parametrize(
        "command",
        [("list",), ("show",), ("terminate", "--yes"), ("set", "--variable", "a=1", "--yes"), ("watch",)],
    )
    def test_fails_if_the_lists_show_no_business_keys(
        self, command: tuple[str, ...], run: Run, emulator: EmulatorControl
    ) -> None:
        emulator.start(BPM, business_key="k")
        emulator.switch(business_keys_in_rows=False)
        done = run(*command, "--business-key", "k", "--bpm-name", BPM)
        assert (done.code, done.out) == (1, "")
        assert (
            "none of the 1 listed instances shows a business key. Either the lists of this environment show"
            in done.err
        )
        assert "may have been deleted" not in done.err

    def test_unmatched_business_key_is_not_blamed_on_the_lists(
        self, run: Run, emulator: EmulatorControl
    ) -> None:
        assert run("list", "--business-key", "k", "--output", "json").rows == []
        emulator.start(BPM)
        emulator.move(emulator.start("PublishApproval", business_key="other")["id"], state="Completed OK")
        assert run("list", "--business-key", "k", "--output", "json").rows == []
        assert run("show", "--business-key", "k").code == 3

    @pytest.mark.usefixtures("zone")
    def test_list_by_age(self, run: Run, emulator: EmulatorControl) -> None:
        emulator.start(BPM)
        assert len(run("list", "--younger-than", "1h", "--output", "json").rows) == 1
        assert run("list", "--older-than", "1h", "--output", "json").rows == []

    def test_age_filter_requires_a_time_zone(self, run: Run, emulator: EmulatorControl) -> None:
        done = run("list", "--older-than", "2h")
        assert (done.code, done.out) == (2, "")
        assert "extra 'timezone'" in done.err
        assert not any(emulator.counts().values())

    def test_warns_about_a_list_that_may_be_truncated(self, run: Run, emulator: EmulatorControl) -> None:
        for _ in range(101):
            emulator.start(BPM)
        emulator.switch(row_cap=100)
        done = run("list", "--state", WAITING, "--output", "json")
        assert len(done.rows) == 100
        assert "exactly 100 instances" in done.err

    def test_warns_about_a_row_that_cannot_be_read(self, run: Run, emulator: EmulatorControl) -> None:
        odd, other = (emulator.start(BPM, business_key=key)["id"] for key in ("odd", "other"))
        emulator.distort(odd, {"state": None})
        result = run("list", "--output", "json")
        assert ids(json.loads(result.out)) == {other}
        assert f"the row of instance {odd!r}" in result.err
        assert "its state is null" in result.err
        assert run("list", "--business-key", "other", "--output", "json").err == ""

    def test_output_formats_are_those_of_airflow(self, run: Run, emulator: EmulatorControl) -> None:
        # One business key resembles markup, and one a number.
        keys = {emulator.start(BPM, business_key=key)["id"]: key for key in ("[/x]", "007")}
        table = run("list").out
        assert "[/x]" in table
        assert re.match(r"id +\| name +\| version", table)
        assert "=+=" in table
        plain = run("list", "--output", "plain").out.splitlines()
        assert re.match(r"id +name +version", plain[0])
        assert {line.split("  ")[0]: "  007  " in line for line in plain[1:]} == {
            one: key == "007" for one, key in keys.items()
        }
        as_json, as_yaml = (
            run("list", "--output", "json").rows,
            yaml.safe_load(run("list", "--output", "yaml").out),
        )
        assert as_json == as_yaml
        assert {row["id"]: row["business_key"] for row in as_json} == keys

    @pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
    def test_json_and_yaml_keep_types(
        self, output: str, read: Callable[[str], Any], run: Run, emulator: EmulatorControl
    ) -> None:
        one = emulator.start(BPM, business_key="007")["id"]
        (row,) = read(run("list", "--output", output).out)
        assert (row["suspended"], row["is_closed"], row["end_time"]) == (False, False, None)
        assert (row["business_key"], row["version"]) == ("007", "1.0.0")
        for arguments in (("show", one), ("suspend", one, "--yes"), ("start", "Instant")):
            (row,) = read(run(*arguments, "--output", output).out)
            assert (type(row["suspended"]), type(row["is_closed"])) == (bool, bool), arguments
        versions = read(run("definitions", "--bpm-name", "InvoiceCheck", "--output", output).out)
        assert [row["active"] for row in versions] == [False, True]

    @pytest.mark.parametrize("output", ["json", "yaml"])
    def test_json_and_yaml_keep_numbers(self, output: str, capsys: pytest.CaptureFixture[str]) -> None:
        rows = [{"count": 3, "share": 0.5, "flags": (True, None), "nested": {"big": 10**20}, "text": "1e3"}]
        Console().print_as(rows, output)
        assert yaml.safe_load(capsys.readouterr().out) == [
            {"count": 3, "share": 0.5, "flags": [True, None], "nested": {"big": 10**20}, "text": "1e3"}
        ]

    def test_plain_columns_are_as_wide_as_they_show(self, capsys: pytest.CaptureFixture[str]) -> None:
        Console().print_as(
            [{"name": "供应商", "key": "[b]007", "end": None}, {"name": "x", "key": "", "end": "y" * 300}],
            "plain",
        )
        assert capsys.readouterr().out.splitlines() == [
            "name    key     end",
            "供应商  [b]007",
            f"x               {'y' * 300}",
        ]

    def test_list_without_results(self, run: Run) -> None:
        assert run("list").out == "No data found\n"
        assert run("list", "--output", "plain").out == "No data found\n"
        assert run("list", "--output", "json").rows == []

    def test_show_by_id_or_business_key(self, run: Run, emulator: EmulatorControl) -> None:
        one = emulator.start(BPM, business_key="k")
        for arguments in ((one["id"],), ("--business-key", "k"), ("--business-key", "k", "--bpm-name", BPM)):
            (row,) = run("show", *arguments, "--output", "json").rows
            assert (row["id"], row["state"], row["business_key"]) == (one["id"], WAITING, "k")
        assert re.search(r"bp_status +\| Collecting", run("show", one["id"]).out)

    def test_show_of_a_missing_or_ambiguous_instance(self, run: Run, emulator: EmulatorControl) -> None:
        assert run("show", "nope").code == 3
        emulator.start(BPM, business_key="k")
        emulator.start(BPM, business_key="k")
        done = run("show", "--business-key", "k")
        assert (done.code, done.out) == (3, "")
        assert "2 instances have business key" in done.err

    def test_definitions_by_name_and_enabled_version(self, run: Run) -> None:
        versions = run("definitions", "--bpm-name", "InvoiceCheck", "--output", "json").rows
        assert [row["version"] for row in versions] == ["1.0.0", "2.0.0"]
        (enabled,) = run(
            "definitions", "--bpm-name", "Invoice", "--like", "--enabled", "--output", "json"
        ).rows
        assert enabled["version"] == "2.0.0"


class TestStart:
    def test_start_sends_all_arguments(self, run: Run, emulator: EmulatorControl, tmp_path: Path) -> None:
        file = tmp_path / "variables.json"
        file.write_text('{"country": "DE", "risk_class": 3}', encoding="utf-8")
        done = run(
            *("start", BPM, "--variable", "country=CN", "--variable", "supplier=Müller"),
            *("--variables-file", str(file), "--business-key", "k", "--title", "T", "--output", "json"),
        )
        (row,) = done.rows
        assert done.code == 0
        seen = emulator.instance(row["id"])
        assert {key: seen["variables"][key] for key in ("country", "supplier", "risk_class")} == {
            "country": "CN",
            "supplier": "Müller",
            "risk_class": 3,
        }
        assert (seen["business_key"], seen["title"], seen["version"]) == ("k", "T", "1.0.0")

    def test_start_of_a_version(self, run: Run) -> None:
        (row,) = run("start", "InvoiceCheck", "--version", "1.0.0", "--output", "json").rows
        assert row["version"] == "1.0.0"

    @pytest.mark.parametrize(
        ("bpm", "state", "code"),
        [("NightlyReconciliation", "Completed OK", 0), ("AlwaysBroken", "Broken", 1)],
    )
    def test_start_and_wait_for_completion(self, bpm: str, state: str, code: int, run: Run) -> None:
        done = run("start", bpm, "--wait-for-completion", "--poll-interval", "1", "--output", "json")
        (row,) = done.rows
        assert (done.code, row["state"]) == (code, state)
        assert "Started instance" in done.err

    def test_wait_times_out_and_leaves_the_instance_open(self, run: Run, emulator: EmulatorControl) -> None:
        done = run("start", BPM, "--wait-for-completion", "--poll-interval", "1", "--timeout", "0")
        assert done.code == 1
        assert "timed out" in done.err
        assert not emulator.instances()[0]["closed"]

    def test_ambiguous_start_has_its_own_exit_code_and_is_sent_once(
        self, run: Run, emulator: EmulatorControl
    ) -> None:
        emulator.fault("start", "drop_after")
        done = run("start", BPM, "--business-key", "k")
        assert (done.code, done.out) == (4, "")
        assert "python -m airflow_provider_astrobpm list --all --business-key k --conn-id " in done.err
        assert emulator.counts()["start"] == len(emulator.instances()) == 1

    def test_ctrl_c_during_a_start_leaves_it_in_doubt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with EmulatorServer() as server:
            monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", server.connection_json())
            server.control.fault("start", "delay", seconds=600)
            with running(MODULE, "start", BPM) as starting:
                while not server.control.counts()["start"]:
                    assert starting.popen.poll() is None
                starting.popen.send_signal(signal.SIGINT)
                done = starting.end()
        assert (done.code, done.out) == (4, "")
        assert done.err.startswith("Interrupted while the start request was in progress.")
        assert f"list --all --bpm-name {BPM}" in done.err

    def test_refused_start_fails(self, run: Run) -> None:
        done = run("start", "Nowhere")
        assert (done.code, done.out) == (1, "")
        assert "Could not start an instance of BPM 'Nowhere'" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("show",),
        ("show", "x", "--business-key", "k"),
        ("show", "x", "--bpm-name", BPM),
        ("list", "--all", "--state", "Broken"),
        ("definitions", "--like"),
        ("start", BPM, "--variable", "x"),
        ("start", BPM, "--poll-interval", "0"),
        ("start", BPM, "--timeout", "-1"),
        ("start", " "),
        ("start", BPM, "--business-key", "k", "--variable", "$Flow.BusinessKey=k"),
        ("terminate", "--yes"),
        ("terminate", "x", "--bpm-name", BPM, "--yes"),
        ("terminate", " ", "--yes"),
        ("terminate", "x", "--max-concurrency", "0", "--yes"),
        ("set", "x", "--yes"),
        ("watch",),
        ("watch", "x", "--poll-interval", "0.5"),
        ("list", "--state", "Closed"),
        ("list", "--conn-id", "nowhere"),
        ("frobnicate",),
    ],
    ids=" ".join,
)
def test_invalid_arguments_send_nothing(
    arguments: tuple[str, ...], run: Run, emulator: EmulatorControl
) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err
    assert not any(emulator.counts().values())


def test_error_is_one_sentence_without_the_secret(
    run: Run, emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = json.loads(connection(emulator_server)) | {"password": "not-the-secret"}
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", json.dumps(changed))
    done = run("list", "--conn-id", "wrong")
    assert (done.code, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("Could not get a token on connection 'wrong'")
    assert "not-the-secret" not in done.err


def test_client_warnings_go_to_stderr(
    run: Run, emulator: EmulatorControl, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", connection(emulator_server, max_wait=0.01))
    emulator.fault("query", "status", status=503)
    done = run("list", "--output", "json")
    assert (done.code, done.rows) == (0, [])
    assert "The first of up to 5 attempts failed" in done.err


class TestWatch:
    def test_watches_until_all_instances_have_ended(self, run: Run, emulator: EmulatorControl) -> None:
        one = emulator.start("NightlyReconciliation")["id"]
        done = run("watch", one, "--poll-interval", "1")
        assert done.code == 0
        assert re.search(rf"^\d\d:\d\d:\d\d Watching instance '{one}'", done.out)
        assert "Now instance" in done.out
        assert done.err == "1 of 1 succeeded.\n"

    def test_fails_if_one_instance_fails(self, run: Run, emulator: EmulatorControl) -> None:
        one, other = emulator.start("NightlyReconciliation")["id"], emulator.start("AlwaysBroken")["id"]
        done = run("watch", one, other, "--poll-interval", "1")
        assert done.code == 1
        assert f"The wait for instance {other!r} of 'AlwaysBroken' failed" in done.err
        assert done.err.endswith("1 of 2 succeeded, 1 failed.\n")

    def test_watches_until_a_given_state(self, run: Run, emulator: EmulatorControl) -> None:
        emulator.start(BPM)
        done = run("watch", "--bpm-name", BPM, "--until-state", WAITING, "--poll-interval", "1")
        assert (done.code, done.err) == (0, "1 of 1 succeeded.\n")

    def test_watch_times_out(self, run: Run, emulator: EmulatorControl) -> None:
        one = emulator.start(BPM)["id"]
        done = run("watch", one, "--timeout", "0", "--poll-interval", "1")
        assert done.code == 1
        assert "timed out" in done.err

    def test_failed_polls_do_not_end_the_watch(
        self,
        run: Run,
        emulator: EmulatorControl,
        emulator_server: EmulatorServer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv(
            "AIRFLOW_CONN_ASTRO_ZERO_DEFAULT",
            connection(emulator_server, max_attempts=1, instance_lookup="list"),
        )
        waiting = [emulator.start("NightlyReconciliation")["id"] for _ in range(2)]
        emulator.fault("query", "status", status=503, skip=2)
        done = run("watch", *waiting, "--poll-interval", "1")
        assert done.code == 0
        assert done.out.count("Polls are failing") == 1, "said once, not for each"
        assert done.out.count("Polls succeed again") == 1

    def test_watch_of_a_missing_instance(self, run: Run) -> None:
        assert run("watch", "nope").code == 3
        assert run("watch", "--bpm-name", BPM).err == "Nothing to watch: no instance matches.\n"

    def test_ctrl_c_ends_the_watch(self, emulator: EmulatorControl) -> None:
        one = emulator.start(BPM)["id"]
        with running(MODULE, "watch", one, "--poll-interval", "1") as watching:
            assert watching.popen.stdout
            assert "Watching" in watching.popen.stdout.readline()
            watching.popen.send_signal(signal.SIGINT)
            done = watching.end()
        assert (done.code, done.err) == (130, "Interrupted. 0 of 1 succeeded, 1 still open.")

    def test_table_is_redrawn_on_a_terminal(self, emulator: EmulatorControl) -> None:
        one = emulator.start(BPM)["id"]
        with on_a_terminal("watch", one, "--poll-interval", "1") as (watching, terminal):
            assert "business status" in read_until(terminal, "1 of 1 still open")
            emulator.act(one, "reject")
            read_until(terminal, "0 of 1 still open")
            assert watching.wait(60) == 0

    def test_table_shows_open_instances_first_and_counts_hidden_ones(self) -> None:
        ended = BpmInstance(id="ended", name="A", state="Completed OK", is_closed=True)
        still = BpmInstance(id="still", name="A", state="Running", suspended=True, business_key="[/x]")
        console = RichConsole(width=120)
        with console.capture() as capture:
            console.print(
                watch_command.table([InstanceWait(WaitCondition(), seen=one) for one in (ended, still)], 1)
            )
        shown = capture.get()
        assert "still" in shown
        assert "Running (suspended)" in shown
        assert "[/x]" in shown
        assert "Completed OK" not in shown
        assert "1 of 2 still open" in shown
        assert "1 more not shown" in shown


class TestConfirmation:
    @pytest.mark.parametrize(
        ("answer", "code", "state"), [("n", 5, WAITING), ("", 5, WAITING), ("y", 0, "Terminated")]
    )
    def test_terminate_asks_for_confirmation(
        self, answer: str, code: int, state: str, emulator: EmulatorControl
    ) -> None:
        one = emulator.start(BPM)["id"]
        with on_a_terminal("terminate", "--bpm-name", BPM) as (terminating, terminal):
            asked = read_until(terminal, "Terminate 1 instance? [y/N]")
            assert one in asked
            assert emulator.counts()["action"] == 0
            os.write(terminal, f"{answer}\n".encode())
            read_until(terminal, "Nothing was changed." if code else "Terminated 1 of 1.")
            assert terminating.wait(60) == code
        assert emulator.instance(one)["state"] == state


class TestAirflow:
    def test_module_runs_the_commands(self, emulator: EmulatorControl) -> None:
        emulator.start(BPM)
        own = process(MODULE, "list", "--output", "json", imports=True)
        assert (own.code, own.err, len(own.rows)) == (0, "", 1)

    @TAKES_COMMANDS
    @pytest.mark.usefixtures("airflow_database")
    def test_airflow_runs_the_commands(self, emulator: EmulatorControl) -> None:
        one = emulator.start(BPM)["id"]
        done = process(AIRFLOW, "list", "--output", "json", imports=True)
        assert (done.code, ids(done.rows)) == (0, {one})
        assert process(AIRFLOW, "show", "nope").code == 3
        done = process(AIRFLOW, "terminate", one, "--yes")
        assert done.code == 0
        assert emulator.instance(one)["state"] == "Terminated"

    @TAKES_COMMANDS
    def test_airflow_help_shows_the_commands(self) -> None:
        shown = process((sys.executable, "-m", "airflow"), "--help")
        assert shown.code == 0
        assert "astro-zero" in shown.out
        shown = process(AIRFLOW, "terminate", "--help")
        assert "exit codes:" in shown.out

    @pytest.mark.usefixtures("airflow_database")
    def test_connection_from_the_database_is_used(
        self, emulator: EmulatorControl, emulator_server: EmulatorServer
    ) -> None:
        emulator.start(BPM)
        added = process(
            (sys.executable, "-m", "airflow"),
            *("connections", "add", "in_database", "--conn-json", connection(emulator_server)),
        )
        assert added.code == 0, added.err
        done = process(MODULE, "list", "--conn-id", "in_database", "--output", "json")
        assert done.code == 0, done.err
        assert len(done.rows) == 1

    def test_definitions_do_not_import_the_commands(self) -> None:
        code = (
            "import sys, airflow.cli.cli_config; before = set(sys.modules);"
            "from airflow_provider_astrobpm.cli.definition import get_cli_commands, make_parser;"
            "get_cli_commands(); make_parser();"
            "print(*sorted(set(sys.modules) - before))"
        )
        done = process((sys.executable, "-c", code))
        assert done.code == 0
        own = {name for name in done.out.split() if name.startswith("airflow_provider_astrobpm.")}
        assert own == {
            "airflow_provider_astrobpm." + name
            for name in (
                "client",
                "client.validation",
                "client.states",
                "client.texts",
                "cli",
                "cli.definition",
                "cli.exit_codes",
                "hooks",
            )
        }
        assert not {"requests", "aiohttp", "msgspec", "rich.progress"} & (set(done.out.split()))

    def test_provider_info_names_the_commands(self) -> None:
        (path,) = get_provider_info()["cli"]
        module, _, name = path.rpartition(".")
        (group,) = getattr(importlib.import_module(module), name)()
        assert (group.name, tuple(group.subcommands)) == ("astro-zero", COMMANDS)

    def test_help_shows_the_exit_codes(self, run: Run) -> None:
        for arguments in (("--help",), ("terminate", "--help")):
            done = run(*arguments)
            assert done.code == 0
            assert "130  interrupted" in done.out


@pytest.mark.parametrize(
    "arguments", [("list",), ("start", BPM), ("terminate", "--bpm-name", BPM, "--yes"), ("doctor",)]
)
def test_a_transcript_that_cannot_be_written_is_one_warning(
    arguments: tuple[str, ...], emulator_server: EmulatorServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", connection(emulator_server, record="/proc/nope"))
    done = run(*arguments)
    assert done.err.count("No further requests are recorded on connection 'astro_zero_default': ") == 1
