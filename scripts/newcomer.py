"""``make newcomer``: the steps of a new user, from the wheel of the provider to a gate that opens.

In a scratch folder, the script builds the wheel, installs it with Airflow into an empty environment, copies one example
DAG, and starts the emulator and Airflow from there. Then, in a real browser, it signs in, fills in the connection, tests
it, triggers the DAG, waits until the gate is deferred, follows the link to the instance, approves, and waits until the
next task succeeds. It uses nothing else of the repository. The exit code is 0 only if every step succeeded and no process
is left running.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import Error as BrowserError

from airflow_pages import AirflowPages, ConnectionForm, PageError
from emulator_pages import EmulatorPages
from local_browser import open_page, running_browser
from local_stack import ROOT, Stack, StackError, Stopped, environment, living, parse_emulator
from standalone import start_standalone
from steps import Steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from local_stack import Emulator
    from standalone import Standalone

CONSTRAINTS = ROOT / "constraints" / "airflow-3.3.txt"
EXAMPLE = ROOT / "example_dags" / "approval_gate.py"
USER = "admin"
CONN_ID = "astro_zero_default"
GATE, NEXT_TASK = "request_approval", "publish"

BUILD_SECONDS = 60
INSTALL_SECONDS = 300
START_SECONDS = 120
TASK_SECONDS = 90
SHOWN_LINES = 12  # of each log after a step has failed

_PASSWORDS = "simple_auth_manager_passwords.json.generated"


class Newcomer:
    """The new environment and its processes.

    :param stack: starts and stops the processes; its scratch folder contains all files.
    :param steps: reports the steps.
    :param evidence: the folder for a screenshot and the logs if a step in the browser fails.
    """

    def __init__(self, stack: Stack, steps: Steps, evidence: Path) -> None:
        self._stack = stack
        self._step = steps.step
        self._evidence = evidence
        self._venv = stack.home / "venv"
        self._password = secrets.token_hex()
        self._env = environment(str(self._venv / "bin"))

    def install(self) -> None:
        """Build the wheel, and install it and Airflow into an empty environment."""
        folder = self._stack.home / "dist"
        with self._step("Build the wheel"):
            build = [
                sys.executable,
                "-m",
                "hatchling",
                "build",
                "--target",
                "wheel",
                "--directory",
                str(folder),
            ]
            self._stack.run("hatchling build", build, environment(), BUILD_SECONDS)
            (wheel,) = folder.glob("*.whl")
        with self._step("Install it and Airflow"):
            uv = [sys.executable, "-m", "uv"]
            create = [*uv, "venv", "--quiet", "--python", sys.executable, str(self._venv)]
            self._stack.run("uv venv", create, environment(), BUILD_SECONDS)
            # Compiled, as pip does.
            install = [
                *uv,
                "pip",
                "install",
                "--quiet",
                "--compile-bytecode",
                "--constraints",
                str(CONSTRAINTS),
            ]
            install += ["--python", str(self._venv / "bin" / "python"), "apache-airflow", str(wheel)]
            self._stack.run("uv pip install", install, environment(), INSTALL_SECONDS)

    def start(self) -> tuple[Emulator, Standalone]:
        """Start the emulator as its guide says, and Airflow with the example in its DAGs folder.

        :raises StackError: if one of them does not start, or the provider is not imported from the wheel.
        """
        with self._step("Start the emulator"):
            command = ["python", "-m", "airflow_provider_astrobpm.emulator"]
            child = self._stack.start("emulator", command, self._env, self._stack.home)
            emulator = child.wait_for(
                "emulator's address", lambda: parse_emulator(child.output()), seconds=20
            )
            self._check_origin()
        with self._step("Start Airflow"):
            dags = self._stack.home / "dags"
            dags.mkdir()
            shutil.copy(EXAMPLE, dags)
            # Otherwise Airflow would generate a password and print it.
            (self._stack.home / _PASSWORDS).write_text(json.dumps({USER: self._password}))
            settings = {"AIRFLOW_HOME": str(self._stack.home), "AIRFLOW__CORE__TEST_CONNECTION": "Enabled"}
            airflow = start_standalone(self._stack, {**self._env, **settings})
            airflow.child.wait_for("answer of Airflow", lambda: airflow.answers() or None, START_SECONDS)
        return emulator, airflow

    def see_a_gate_open(self, emulator: Emulator, airflow: Standalone) -> None:
        """Do the other steps in a browser, as a user does.

        :raises PageError: if a page shows unexpected content.
        :raises BrowserError: if expected content does not appear.
        """
        with running_browser() as browser, open_page(browser) as page, self._keeping_evidence(page):
            pages = AirflowPages(page, airflow.url)
            with self._step("Sign in"):
                pages.sign_in(USER, self._password)
            with self._step("Fill in the connection form, and save it"):
                pages.save_connection(pages.fill_connection(_form(emulator)))
            with self._step("Test the connection"):
                pages.test_connection(CONN_ID)
            with self._step("Open the DAG, and unpause it"):
                pages.open_dag(EXAMPLE.stem, START_SECONDS)
                pages.unpause()
            with self._step("Trigger it"):
                run_id = pages.trigger()
            with self._step("Wait until the gate is deferred"):
                pages.wait_for_task(GATE, "Deferred", TASK_SECONDS)
            with self._step("Follow the link to the instance"):
                pages.open_task(GATE)
                people = EmulatorPages(pages.follow_link(), emulator.url)
                people.expect_instance("PublishApproval")
            with self._step("Approve"), self._keeping_evidence(people.page):
                people.decide("approve")
            with self._step("Wait until the next task succeeds"):
                pages.open_run(EXAMPLE.stem, run_id)
                pages.wait_for_task(NEXT_TASK, "Success", TASK_SECONDS)

    def _check_origin(self) -> None:
        """Check that Python imports the provider from the new environment."""
        what = "import airflow_provider_astrobpm as found; print(found.__file__)"
        child = self._stack.start("python", ["python", "-c", what], self._env, self._stack.home)
        child.wait_for_end(20)
        found = child.output().strip()
        if not found or not Path(found).is_relative_to(self._venv):
            raise child.failure(f"the provider comes from {found!r}, not from the new environment")

    @contextmanager
    def _keeping_evidence(self, page: Page) -> Iterator[None]:
        """If a step fails, keep a screenshot of the page and Airflow's logs. In nested blocks, keep the innermost page."""
        try:
            yield
        except (BrowserError, PageError):
            if self._evidence.exists():
                raise
            self._evidence.mkdir(parents=True)
            with suppress(BrowserError):
                page.screenshot(path=self._evidence / "failed.png")
            for log in [self._stack.home / "airflow.log", *(self._stack.home / "logs").rglob("*.log")]:
                kept = self._evidence / log.relative_to(self._stack.home)
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(log, kept)
            raise


def _form(emulator: Emulator) -> ConnectionForm:
    """Return the values that a user types after reading the emulator's output."""
    connection = json.loads(emulator.connection)
    fields = {
        "Host": connection["host"],
        "Client id": connection["login"],
        "Client secret": connection["password"],
        "Port": str(connection["port"]),
        "Scheme": connection["schema"],
    }
    return ConnectionForm(
        CONN_ID, fields, {"Address of an instance": f"{emulator.url}/instances/{{instance_id}}"}
    )


def _check_nothing_runs(home: Path) -> None:
    if left := living(home):
        raise StackError(f"still running: {', '.join(left)}")


def main() -> int:
    """Run all steps, and print how long each one took."""
    parser = argparse.ArgumentParser(description="Try the provider as a new user does.")
    parser.add_argument(
        "--evidence",
        type=Path,
        default=ROOT / "build" / "newcomer",
        metavar="FOLDER",
        help="the folder for a screenshot and the logs if a step fails (default: build/newcomer)",
    )
    evidence: Path = parser.parse_args().evidence
    shutil.rmtree(evidence, ignore_errors=True)
    started = time.monotonic()
    steps = Steps()
    try:
        with Stack() as stack:
            newcomer = Newcomer(stack, steps, evidence)
            newcomer.install()
            newcomer.see_a_gate_open(*newcomer.start())
        _check_nothing_runs(stack.home)
    except Stopped as stopped:
        return int(stopped.code or 0)
    except (StackError, BrowserError, PageError) as error:
        print(f"\nFailed at the step: {steps.current}\n{error}", file=sys.stderr)
        for log in sorted(evidence.rglob("*.log")):
            tail = "\n".join(f"  | {line}" for line in log.read_text().splitlines()[-SHOWN_LINES:])
            print(f"\n{log.relative_to(evidence)}\n{tail}", file=sys.stderr)
        if evidence.exists():
            print(f"\nA screenshot of the page and the complete logs are in {evidence}", file=sys.stderr)
        return 1
    print(f"The gate opened. All steps took {time.monotonic() - started:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
