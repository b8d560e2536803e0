"""The options of the commands: named like the arguments of operators, and never abbreviated."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_astrobpm.cli.definition import COMMANDS, make_parser
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.operators.bpm import (
    AstroZeroQueryBpmInstancesOperator,
    AstroZeroSetBpmVariablesOperator,
    AstroZeroStartBpmBatchOperator,
    AstroZeroStartBpmInstanceOperator,
)
from tests.cli.conftest import AIRFLOW, MODULE, Run, process
from tests.cli.test_commands import TAKES_COMMANDS

BPM = "SupplierOnboarding"

# Options without a counterpart among the arguments: sources of values, output, filters.
COMMAND_LINE_ONLY = {
    *("help", "verbose", "output", "yes", "dry_run", "all", "enabled", "conn_id"),
    *("variable", "variables_file", "state", "until_state", "older_than", "younger_than", "start"),
    "orphans",
}


def parsers() -> dict[str, argparse.ArgumentParser]:
    (action,) = (each for each in make_parser()._actions if isinstance(each, argparse._SubParsersAction))
    return dict(action.choices)


def long_options(parser: argparse.ArgumentParser) -> set[str]:
    return {text for action in parser._actions for text in action.option_strings if text.startswith("--")}


def abbreviations(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.Action, str]]:
    """Return every proper prefix of an option that is not itself an option."""
    known = long_options(parser)
    for action in parser._actions:
        for text in action.option_strings:
            for length in range(3, len(text)):
                if text.startswith("--") and text[:length] not in known:
                    yield action, text[:length]


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_abbreviated_options_are_rejected(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for action, text in abbreviations(parsers()[command]):
        value = ["{}"] if action.nargs is None else []
        with pytest.raises(SystemExit) as end:
            make_parser().parse_args([command, text, *value])
        assert end.value.code == 2, text
        assert "unrecognized arguments" in capsys.readouterr().err, text


@pytest.mark.parametrize("program", [MODULE, pytest.param(AIRFLOW, marks=TAKES_COMMANDS)])
def test_abbreviated_options_are_rejected_on_the_real_command_line(
    program: tuple[str, ...], emulator: EmulatorControl
) -> None:
    done = process(program, "start", BPM, "--variables-fil", "/no/such/file")
    assert done.code == 2
    assert "unrecognized arguments: --variables-fil" in done.err
    done = process(program, "terminate", "--bpm", BPM, "--yes")
    assert done.code == 2
    assert not any(emulator.counts().values())


@pytest.mark.parametrize("program", [MODULE, pytest.param(AIRFLOW, marks=TAKES_COMMANDS)])
def test_both_programs_accept_the_same_options(program: tuple[str, ...], emulator: EmulatorControl) -> None:
    done = process(program, "start", BPM, "--variables", '{"risk_class": 3}', "--output", "json")
    assert done.code == 0, done.err
    assert emulator.instance(done.rows[0]["id"])["variables"]["risk_class"] == 3
    done = process(program, "list", "--bpm-name", BPM, "--state", "WAITING FOR USER", "--output", "json")
    assert len(done.rows) == 1
    shown = process(program, "list", "--help").out
    assert "--bpm-name" in shown


def shown_options(command: str) -> set[str]:
    """Return the names of the options that the help of a command shows."""
    return {
        action.option_strings[0].lstrip("-").replace("-", "_")
        if len(action.option_strings) == 1
        else action.dest
        for action in parsers()[command]._actions
        if action.option_strings and action.help != argparse.SUPPRESS
    }


def arguments_of(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("command", "functions"),
    [
        ("start", [AstroZeroStartBpmInstanceOperator.__init__]),
        ("list", [AstroZeroQueryBpmInstancesOperator.__init__]),
        ("show", [AstroZeroHook.find_instance]),
        ("set", [AstroZeroSetBpmVariablesOperator.__init__, AstroZeroQueryBpmInstancesOperator.__init__,
                 AstroZeroStartBpmBatchOperator.__init__]),
        ("terminate", [AstroZeroQueryBpmInstancesOperator.__init__, AstroZeroStartBpmBatchOperator.__init__]),
        ("watch", [AstroZeroQueryBpmInstancesOperator.__init__, AstroZeroHook.wait_for_instance]),
        ("definitions", [AstroZeroHook.check_variables, AstroZeroHook.get_definitions]),
    ],
)  # fmt: skip
def test_options_are_named_like_arguments(command: str, functions: list[Any]) -> None:
    known = set().union(*map(arguments_of, functions))
    assert shown_options(command) - COMMAND_LINE_ONLY <= known


@pytest.mark.parametrize(
    ("synonym", "name"),
    [
        ("list --states Running --state New", "list --state Running --state New"),
        ("list --astro-zero-conn-id c", "list --conn-id c"),
    ],
)
def test_synonyms_of_options(synonym: str, name: str) -> None:
    parser = make_parser()
    assert parser.parse_args(synonym.split()) == parser.parse_args(name.split())


def test_defaults_of_options() -> None:
    args = make_parser().parse_args(["watch", "x"])
    assert (args.bpm_name, args.poll_interval, args.state) == (None, 10.0, None)
    assert make_parser().parse_args(["suspend"]).max_concurrency == 8


def test_start_requires_the_bpm_name_exactly_once(run: Run, emulator: EmulatorControl) -> None:
    assert run("start", "--bpm-name", "Instant").code == 0
    for arguments in ((), (BPM, "--bpm-name", BPM)):
        done = run("start", *arguments)
        assert (done.code, done.err) == (
            2,
            "Give the name of the BPM once: start NAME, or start --bpm-name NAME.\n",
        )
    assert emulator.counts()["start"] == 1


def test_ambiguous_state_is_rejected_before_any_request(run: Run, emulator: EmulatorControl) -> None:
    for command in (("list",), ("terminate", "--yes"), ("watch",)):
        done = run(*command, "--state", "waiting")
        assert done.code == 2
        assert (
            "is ambiguous: it may be 'Waiting for user interaction' or 'Waiting for page event'" in done.err
        )
    assert run("watch", "x", "--until-state", "runing").err.startswith(
        "--until-state must be a state, not 'runing'. Did you mean 'Running'?"
    )
    assert not any(emulator.counts().values())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("suspend",), "Suspend 3 instances."),
        (("terminate", "--yes"), "Terminate 3 instances."),
        (("set", "--variables", '{"country": "CN"}'), "Set the variables of 3 instances to new values of 'country'."),
    ],
)  # fmt: skip
def test_dry_run_lists_the_instances_and_changes_nothing(
    arguments: tuple[str, ...], says: str, run: Run, emulator: EmulatorControl
) -> None:
    matching = {emulator.start(BPM)["id"] for _ in range(3)}
    emulator.start("PublishApproval")
    before = emulator.instances()
    done = run(*arguments, "--bpm-name", BPM, "--dry-run", "--output", "json")
    assert (done.code, {row["id"] for row in done.rows}) == (0, matching)
    assert done.err == f"Dry run, nothing was changed. Without --dry-run: {says}\n"
    assert emulator.instances() == before
    counts = emulator.counts()
    assert counts["action"] == counts["variables"] == 0


def test_dry_run_reports_skipped_and_missing_ids(run: Run, emulator: EmulatorControl) -> None:
    one = emulator.start(BPM)["id"]
    done = run("resume", one, "nope", "--dry-run")
    assert (done.code, done.out) == (3, "")
    assert "Nothing to do: 1 is not suspended." in done.err
    done = run("suspend", one, "nope", "--dry-run")
    assert done.code == 3
    assert "'nope' is in none of the states" in done.err
    assert "Without --dry-run: Suspend 1 instance." in done.err
