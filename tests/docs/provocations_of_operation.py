"""Provoke the messages of watchers, notifiers, commands and tasks that a user ends, by their quotes in the pages."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from airflow_provider_astrobpm._airflow import user_action
from airflow_provider_astrobpm.emulator.__main__ import main as emulate
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.notifications.bpm import AstroZeroStartBpmNotifier
from airflow_provider_astrobpm.triggers.bpm import (
    AstroZeroBpmEventTrigger,
    AstroZeroBpmInstanceTrigger,
)
from tests.docs.provocations_of_calls import Provocation
from tests.docs.scene import BPM, CONN_ID, Scene, Tries

# A user ended the task.


def ended_on_a_worker(state: str | None, fault: str | None = None) -> Provocation:
    """Let Airflow end the process of a task that waits.

    :param state: the task's state in Airflow then.
    :param fault: the fault of the termination.
    """

    def provoke(scene: Scene) -> None:
        scene.environment.setattr(user_action, "task_state", lambda _: state)
        if fault:
            scene.emulator.fault("action", fault, status=403)

        def end(operator: Any) -> None:
            operator.on_kill()
            raise SystemExit("killed")

        scene.while_waiting = end
        scene.start(timeout=3600)

    return provoke


def ended_while_deferred(state: str | None, fault: str | None = None) -> Provocation:
    """Let a user end a deferred task; the parameters are those above."""

    def provoke(scene: Scene) -> None:
        scene.environment.setattr(user_action, "task_state", lambda _: state)
        scene.environment.setattr(user_action, "published_xcom", lambda *_: None)
        if fault:
            scene.emulator.fault("action", fault, status=403)
        trigger = AstroZeroBpmInstanceTrigger(
            astro_zero_conn_id=CONN_ID, instance_id=scene.started(), terminate_on_kill=True
        )
        trigger.task_instance = Tries()  # type: ignore[assignment]
        asyncio.run(trigger.on_kill())

    return provoke


def wait_on(conn_id: str, **arguments: Any) -> None:
    """Let a trigger wait on a connection."""

    async def wait() -> None:
        events = AstroZeroBpmInstanceTrigger(
            astro_zero_conn_id=conn_id, instance_id="1", poll_interval=1, **arguments
        ).run()
        await anext(events)

    asyncio.run(wait())


def connection_that_is_gone(scene: Scene) -> None:
    """Run a trigger whose ready token is refused, and whose connection is gone by then."""
    settings = scene.hook({"access_token": "an-old-token"}).settings
    answers = iter([settings])

    async def read(_: Any) -> Any:
        if (known := next(answers, None)) is None:
            raise RuntimeError("the connection is gone")
        return known

    scene.environment.setattr("airflow_provider_astrobpm.hooks.astro_zero.AstroZeroHook.async_settings", read)
    wait_on(CONN_ID)


ENDS: dict[str, Provocation] = {
    "This task was ended by a user. …: …": ended_on_a_worker("failed"),
    "…: it may still be open: …": ended_on_a_worker("failed", "status"),
    "The task process is stopping, but no user ended the task (…). Not terminating: …": ended_on_a_worker(
        "running"
    ),
    "A user ended the task; terminating …": ended_while_deferred("failed"),
    "… could not be terminated and may still be open: terminate it by hand": ended_while_deferred(
        "failed", "status"
    ),
    "Instance '…' is not terminated: …": ended_while_deferred("up_for_retry"),
    "The wait could not continue": lambda _: wait_on("of_nobody", max_poll_failure_time=0),
    "The connection could not be read again": connection_that_is_gone,
}

# Asset events.


class BrokenStore:
    """The store of two assets that share one trigger."""

    async def aget(self, _key: str) -> Any:
        """Fail as Airflow's store does."""
        raise ValueError("Task has 2 concrete inlets and outlets")


def watched(words: str, store: Any = None) -> Provocation:
    """Watch until the log has these words."""

    def provoke(scene: Scene) -> None:
        said = asyncio.Event()

        class Log:
            def info(self, text: str, *values: Any) -> None:
                text = text % values if values else text
                sys.stdout.write(f"{text}\n")
                if words in text:
                    said.set()

            warning = info

            def exception(self, text: str, *values: Any) -> None:
                self.info(f"{text % values} {sys.exc_info()[1]}")

        async def watch() -> None:
            trigger = AstroZeroBpmEventTrigger(
                bpm_name="Instant", poll_interval=1, astro_zero_conn_id=CONN_ID
            )
            if store is not None:
                trigger.asset_state_store = store
            trigger._log = Log()  # type: ignore[assignment]
            running = asyncio.ensure_future(anext(trigger.run()))
            await asyncio.wait_for(said.wait(), 30)
            running.cancel()
            await asyncio.wait({running})

        asyncio.run(watch())

    return provoke


def cut_off_list(scene: Scene) -> None:
    """Watch; a list is cut off."""
    scene.emulator.switch(row_cap=100)
    for _ in range(101):
        scene.started("Instant")
    watched("may be truncated")(scene)


EVENTS: dict[str, Provocation] = {
    "Could not watch …; will try again until it works": watched("Could not watch", BrokenStore()),
    "The asset's state store cannot be used. …": watched("state store cannot", BrokenStore()),
    "Watching …; … are already there and are not reported": watched("are already there"),
    "The list of state '…' has exactly … rows and may be truncated: …": cut_off_list,
    "bp_statuses must be … at most, not …": lambda _: AstroZeroBpmEventTrigger(
        bpm_name="A", bp_statuses=[str(number) for number in range(257)]
    ),
}

# Incidents.


def report(context: Any = None, **arguments: Any) -> None:
    """Report a failure, as Airflow does."""
    ti = SimpleNamespace(dag_id="orders", run_id="r1", task_id="load", map_index=-1, try_number=1)
    known = {"ti": ti, "run_id": "r1", "dag": None} if context is None else context
    AstroZeroStartBpmNotifier(**{"bpm_name": BPM, **arguments})(known)


def report_twice(_: Scene) -> None:
    """Report one failure twice."""
    report()
    report()


def report_where_keys_do_not_show(scene: Scene) -> None:
    """Report a failure; the lists show no business keys."""
    scene.started()
    scene.emulator.switch(business_keys_in_rows=False)
    report()


def report_with_no_answer(scene: Scene) -> None:
    """Report a failure; the start is lost, and no instance shows."""
    scene.emulator.fault("start", "drop_before")
    report()


INCIDENTS: dict[str, Provocation] = {
    "Could not confirm that a process was started (…). …": lambda _: report(bpm_name="NoSuchProcess"),
    "Nothing was started: this was already reported to …": report_twice,
    "It is unknown whether this was reported before: …. Reporting it": report_where_keys_do_not_show,
    "It was not started again. Search for an instance of '…' with business key '…'; if there is none, start it yourself.": (
        report_with_no_answer
    ),
    "the context does not name its DAG run; give the notifier a business_key": lambda _: report({}),
}

# The command line.


def command(*arguments: str) -> Provocation:
    """Run a command."""
    return lambda scene: scene.command(*arguments)


def with_file(content: str) -> Provocation:
    """Set the variables of a file."""
    return lambda scene: scene.command(
        "set", "1", "--variables-file", scene.written("variables.json", content)
    )


def start_with_no_answer(scene: Scene) -> None:
    """Start an instance; the answer is lost."""
    scene.emulator.fault("start", "drop_after")
    scene.command("start", BPM)


def many(*arguments: str, row_cap: int | None = None, **switches: Any) -> Provocation:
    """Run a command with one instance, or with one more than a list shows."""

    def provoke(scene: Scene) -> None:
        for _ in range(101 if row_cap else 1):
            scene.started()
        scene.emulator.switch(row_cap=row_cap, **switches)
        with suppress(AssertionError):  # some succeed
            scene.command(*arguments)

    return provoke


def without_a_terminal(scene: Scene) -> None:
    """Terminate instances without a terminal for the question."""
    scene.started()
    scene.command("terminate", "--bpm-name", BPM)


def of_two_ages(scene: Scene) -> None:
    """List instances with an impossible age."""
    scene.connect({"timezone": "UTC"})
    scene.command("list", "--older-than", "7d", "--younger-than", "1d")


def list_with_an_odd_row(scene: Scene) -> None:
    """List instances, one of which shows no state."""
    scene.emulator.distort(scene.started(), {"state": None})
    scene.command("list")


def list_with_contradictory_rows(scene: Scene) -> None:
    """List instances, one of which is shown twice, with different values."""
    scene.started()
    scene.emulator.fault(
        "query", "twice", target="Waiting for user interaction", fields={"bpStatus": "Approved"}
    )
    scene.command("list")


def list_with_odd_start_times(scene: Scene) -> None:
    """List instances by their age, one of which shows no credible start time."""
    scene.connect({"timezone": "UTC"})
    scene.started()
    scene.emulator.switch(start_time_form="dash")
    scene.command("list", "--older-than", "1d")


COMMANDS: dict[str, Provocation] = {
    "the age of an instance is unknown on connection '…': Astro Zero's timestamps have no time zone.": command(
        "list", "--older-than", "7d"
    ),
    "… must be an age such as 90s, 15m, 2h, 7d or 1d12h, not …": command("list", "--older-than", "a week"),
    "no instance is both older than … and younger than …": of_two_ages,
    "name the instances by their ids, or give a filter: …": command("suspend", "--yes"),
    "give either ids or a filter, not both": command("suspend", "1", "--bpm-name", "A"),
    "give either the id of an instance or its --business-key": command("show"),
    "--bpm-name is for --business-key; do not combine it with an id": command("show", "1", "--bpm-name", "A"),
    "give --all or --state, not both": command("list", "--all", "--state", "Running"),
    "--like requires --bpm-name": command("definitions", "--like"),
    "There is no terminal to confirm this on, so nothing was changed; use --yes": without_a_terminal,
    "Check for it before you retry: python -m airflow_provider_astrobpm list --all …": start_with_no_answer,
    "Warning: Astro Zero listed exactly … instances in state '…'. The list may be truncated, and instances may be missing.": many(
        "list", row_cap=100
    ),
    "Warning: skipped the row of instance '…' in state '…', which cannot be read: …": list_with_an_odd_row,
    "Warning: skipped … because the lists contradict each other.": list_with_contradictory_rows,
    "Warning: skipped … because the start time does not prove the age.": list_with_odd_start_times,
    "--variable must be NAME=VALUE": command("set", "1", "--variable", "country"),
    "variable '…' is given twice": command("set", "1", "--variable", "a=1", "--variable", "a=2"),
    "give the variables to set: --variable, --variables or --variables-file": command("set", "1"),
    "give the name of the BPM once: start NAME, or start --bpm-name NAME": command("start"),
    "--state '…' is ambiguous: it may be '…' or '…'. Give more of the name": command(
        "list", "--state", "waiting"
    ),
    "--state must be a state, not '…'. Did you mean '…'? The states are …": command(
        "list", "--state", "runing"
    ),
    "the command is definitions, to list them, or definitions show NAME, to show one": command(
        "definitions", "show"
    ),
    "--bpm-name, --like and --enabled filter a list; do not combine them with show": command(
        "definitions", "show", BPM, "--enabled"
    ),
    "--version is for show: definitions show NAME --version VERSION": command(
        "definitions", "--version", "1"
    ),
    "BPM '…' cannot be shown: …. The most similar name in the list is '…'.": command(
        "definitions", "show", "SuplierOnboarding"
    ),
    "Its variables are unknown: its definition lists no variables.": many(
        "definitions", "show", BPM, definition_variables="absent"
    ),
    "--variables is not JSON; write it such as …": command("set", "1", "--variables", "a=1"),
    "--variables must be a JSON object of variables and their values; write it such as …": command(
        "set", "1", "--variables", "[]"
    ),
    "--variables-file cannot be read: …": command("set", "1", "--variables-file", "/no/such/file.json"),
    "--variables-file '…' is not JSON": with_file("{"),
    "--variables-file '…' must be a JSON object of variables and their values": with_file("[]"),
}

# The emulator.


def port_in_use(scene: Scene) -> None:
    """Start an emulator at a port that is in use."""
    emulate(["--port", scene.server.url.rpartition(":")[2]])


def process_file(content: str) -> Provocation:
    """Start an emulator with a process file."""
    return lambda scene: emulate(["--processes", scene.written("processes.yaml", content)])


EMULATOR: dict[str, Provocation] = {
    "Cannot listen on … port …: …": port_in_use,
    "unknown switch '…'; known are …": lambda _: emulate(["--switch", "get_by_ids=row"]),
    "switch … has no position '…'; it has …": lambda _: emulate(["--switch", "get_by_id=rows"]),
    "a switch is given as NAME=POSITION, not '…'": lambda _: emulate(["--switch", "get_by_id"]),
    "…: not YAML: …": process_file("{"),
    "…: unknown state '…'; known are …": process_file("processes: [{name: A, steps: [{state: Finished}]}]"),
    "the emulator at … did not answer …": lambda scene: EmulatorControl(
        f"http://127.0.0.1:{scene.free_port}"
    ).instances(),
    "the emulator at … refused …: …": lambda scene: scene.emulator.act("002N-of-nobody", "approve"),
}
