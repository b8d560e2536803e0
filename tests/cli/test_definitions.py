"""``definitions show``, and ``--check-variables`` of ``start`` and ``set``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from tests.cli.conftest import AIRFLOW, Run, process
from tests.cli.test_commands import TAKES_COMMANDS

BPM = "SupplierOnboarding"
NAMES = ["supplier", "country", "risk_class"]


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_show_has_the_variables_of_a_definition(output: str, read: Callable[[str], Any], run: Run) -> None:
    done = run("definitions", "show", "InvoiceCheck", "--output", output)
    (row,) = read(done.out)
    assert (done.code, done.err) == (0, "")
    assert (row["name"], row["version"], row["active"]) == ("InvoiceCheck", "2.0.0", True)
    assert {one["name"]: one["defaultValue"] for one in row["variables"]} == {
        "invoice": "",
        "currency": "EUR",
    }
    assert row["variables"][0]["isCollection"] is False


def test_show_of_a_version(run: Run) -> None:
    (row,) = run("definitions", "show", "InvoiceCheck", "--version", "1.0.0", "--output", "json").rows
    assert [one["name"] for one in row["variables"]] == ["invoice"]


def test_table_and_plain_output_have_two_tables(run: Run) -> None:
    for output in ("table", "plain"):
        shown = run("definitions", "show", BPM, "--output", output).out
        assert re.search(r"^version +\|? *1\.0\.0", shown, re.MULTILINE)
        assert re.search(r"^name +\|? *dataType", shown, re.MULTILINE)
        assert re.search(r"^country +\|? *Text", shown, re.MULTILINE)


@TAKES_COMMANDS
@pytest.mark.usefixtures("airflow_database", "emulator")
def test_airflow_runs_definitions_show() -> None:
    done = process(AIRFLOW, "definitions", "show", BPM, "--output", "json")
    assert [one["name"] for one in done.rows[0]["variables"]] == NAMES


@pytest.mark.parametrize(
    ("position", "why"),
    [
        ("absent", "lists no variables"),
        ("null", "lists no variables"),
        ("empty", "lists no variables"),
        ("unnamed", "lists variables in an undocumented form"),
        ("map", "lists variables in an undocumented form"),
    ],
)
def test_show_reports_unknown_variables(position: str, why: str, run: Run, emulator: EmulatorControl) -> None:
    emulator.switch(definition_variables=position)
    for output in ("json", "table"):
        done = run("definitions", "show", BPM, "--output", output)
        assert done.code == 0
        assert done.err == f"Its variables are unknown: its definition {why}.\n"
    assert run("definitions", "show", BPM, "--output", "json").rows[0]["variables"] is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("SuplierOnboarding",), ("BPM 'SuplierOnboarding' cannot be shown: no definition with this name is listed. "
                                 "The most similar name in the list is 'SupplierOnboarding'.")),
        (("xyz",), "BPM 'xyz' cannot be shown: no definition with this name is listed."),
        (("RetiredProcess",), ("BPM 'RetiredProcess' cannot be shown: no version is listed as enabled "
                              "(its versions: 1.0.0).")),
        (("InvoiceCheck", "--version", "9"), ("BPM 'InvoiceCheck' version '9' cannot be shown: no version is listed under "
                                             "this number (its versions: 1.0.0, 2.0.0).")),
    ],
)  # fmt: skip
def test_show_of_an_unknown_definition(arguments: tuple[str, ...], says: str, run: Run) -> None:
    done = run("definitions", "show", *arguments)
    assert (done.code, done.out, done.err) == (3, "", f"{says}\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show",), "The command is definitions, to list them, or definitions show NAME, to show one"),
        (("list",), "The command is definitions, to list them"),
        (("show", BPM, "x"), "The command is definitions, to list them"),
        (("show", BPM, "--like"), "do not combine them with show"),
        (("--version", "1"), "--version is for show"),
    ],
)
def test_invalid_combinations_are_rejected(
    arguments: tuple[str, ...], says: str, run: Run, emulator: EmulatorControl
) -> None:
    done = run("definitions", *arguments)
    assert done.code == 2
    assert says in done.err
    assert not any(emulator.counts().values())


class TestCheckVariables:
    @pytest.mark.parametrize("option", ["--check", "--check-variables"])
    def test_start_with_an_unknown_variable_is_not_sent(
        self, option: str, run: Run, emulator: EmulatorControl
    ) -> None:
        done = run("start", BPM, option, "--variable", "contry=a-secret", "--variable", "supplier=ACME")
        assert (done.code, done.out) == (2, "")
        assert "has no variable 'contry' (did you mean 'country'?)" in done.err
        assert "'supplier', 'country', 'risk_class'" in done.err
        assert "a-secret" not in done.err
        assert emulator.counts()["start"] == 0

    def test_start_with_known_variables_is_sent(self, run: Run, emulator: EmulatorControl) -> None:
        done = run("start", BPM, "--check", "--variables", '{"country": "CN"}')
        assert (done.code, emulator.counts()["start"]) == (0, 1)
        assert "cannot be told" not in done.err

    def test_check_uses_the_given_version(self, run: Run) -> None:
        arguments = ("start", "InvoiceCheck", "--check", "--variable", "currency=EUR")
        assert run(*arguments).code == 0
        assert "version '1.0.0' has no variable 'currency'" in run(*arguments, "--version", "1.0.0").err

    def test_start_is_sent_with_a_warning_if_the_variables_are_unknown(
        self, run: Run, emulator: EmulatorControl
    ) -> None:
        emulator.switch(definition_variables="absent")
        done = run("start", BPM, "--check", "--variable", "contry=CN")
        assert (done.code, emulator.counts()["start"]) == (0, 1)
        assert done.err.startswith(
            f"Cannot check whether BPM {BPM!r} version '1.0.0' has the variables 'contry': its definition lists no variables"
        )

    @pytest.mark.parametrize("how", [(), ("--dry-run",)])
    def test_set_with_an_unknown_variable_changes_nothing(
        self, how: tuple[str, ...], run: Run, emulator: EmulatorControl
    ) -> None:
        emulator.start(BPM)
        done = run("set", "--bpm-name", BPM, "--check", "--variable", "contry=CN", "--yes", *how)
        assert done.code == 2
        assert "has no variable 'contry'" in done.err
        assert emulator.counts()["variables"] == 0

    def test_set_checks_every_bpm_version(self, run: Run, emulator: EmulatorControl) -> None:
        ids = [emulator.start(name, version=number)["id"] for name, number in
               (("InvoiceCheck", "2.0.0"), ("InvoiceCheck", "2.0.0"), ("InvoiceCheck", "1.0.0"))]  # fmt: skip
        done = run("set", *ids[:2], "--check", "--variable", "currency=CNY", "--yes")
        assert done.code == 0
        assert emulator.counts()["definition"] == 1
        done = run("set", *ids, "--check", "--variable", "currency=USD", "--yes")
        assert done.code == 2
        assert "BPM 'InvoiceCheck' version '1.0.0' has no variable 'currency'" in done.err
        assert emulator.counts()["variables"] == 2
