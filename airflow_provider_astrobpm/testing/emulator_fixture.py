"""``AstroZeroEmulator``: the emulator that the fixture ``astro_zero_emulator`` gives to a test."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.client.validation import seconds
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl, EmulatorError
from airflow_provider_astrobpm.emulator.engine import MACHINE_USER
from airflow_provider_astrobpm.hooks import DEFAULT_CONN_ID
from airflow_provider_astrobpm.testing.dag_run import (
    DagResult,
    missed_message,
    replay_message,
    waits_ended_after,
)
from airflow_provider_astrobpm.testing.fast_polling import fast_polling
from airflow_provider_astrobpm.testing.start_assertions import (
    ExpectedInstance,
    instance_lines,
    matching,
    mismatch_message,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import timedelta

    from airflow_provider_astrobpm.emulator.replay import Replay
    from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer


class AstroZeroEmulator(EmulatorControl):
    """An emulator for one test, with connections to it. It extends ``EmulatorControl``.

    Instances are dicts with the keys ``id``, ``name``, ``version``, ``state``, ``bp_status``, ``bp_step``, ``element``,
    ``task_outcome``, ``business_key``, ``title``, ``created_by``, ``variables``, ``suspended``, ``closed``, ``started``,
    ``ended`` and ``outcomes``. The last has the outcomes that a person may choose now.

    :param server: the emulator.
    :param set_variable: sets an environment variable until the test ends.
    """

    def __init__(self, server: EmulatorServer, set_variable: Callable[[str, str], None]) -> None:
        super().__init__(server.control.url)
        self._server = server
        self._set_variable = set_variable
        self._connections: dict[str, dict[str, object]] = {}
        self.is_checked = False
        """Whether the plugin has checked, at the end of the test, that every planned action happened."""

    def connect(self, conn_id: str = DEFAULT_CONN_ID, **extras: object) -> None:
        """Point an Airflow connection to this emulator until the test ends.

        The connection is an environment variable, so hooks, ``dag.test()`` and child processes of the test see it.

        :param conn_id: the connection id. ``astro_zero_default`` points to the emulator already.
        :param extras: extras of the connection, such as ``max_attempts=1``. They replace the recorded ones of a replay.
        :raises ValueError: for an invalid connection id.
        :raises TypeError: for an extra that cannot be encoded as JSON.
        """
        if not re.fullmatch(r"[\w.-]+", conn_id):
            raise ValueError(f"a connection id consists of letters, digits, _, . and -, not {conn_id!r}")
        # Encoded first: if it fails, pytest may show this function's variables, and so far none of them is a secret.
        json.dumps(extras)
        connection = json.loads(self._server.connection_json())
        connection["extra"] = connection.get("extra", {}) | extras
        self._set_variable(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        self._connections[conn_id] = extras

    def unreachable(self) -> AbstractContextManager[None]:
        """Refuse connections while a ``with`` block runs, as a server that is down does."""
        return self._server.unreachable()

    def replay(self, path: str | Path) -> Replay:
        """Answer from a transcript until the test ends; see the guide to bug reports.

        Every connection to this emulator gets the recorded extras, except those that ``connect`` was given.

        :param path: the transcript, or a folder of transcripts.
        :returns: the replay. Its ``differences`` are the requests that differ, and ``unused()`` the entries that no request used.
        :raises TranscriptError: if it cannot be read, or is no transcript.
        """
        replay = self._server.replay(Path(path))
        for conn_id, extras in self._connections.items():
            self.connect(conn_id, **extras)
        return replay

    def process(
        self,
        name: str,
        steps: Sequence[Mapping[str, Any]],
        *,
        variables: Mapping[str, Any] | None = None,
        read_only: Sequence[str] = (),
        version: str = "1.0.0",
    ) -> None:
        """Add a process, or replace the process of the same name.

        :param steps: its steps, as in a script: ``{"state": "Running", "for": 2}``, ``{"state": "Waiting for user
            interaction", "wait": "person", "outcomes": {"approve": {"bp_status": "Approved"}}}``, and optionally at the end
            ``{"end": {"state": "Broken"}}``.
        :param variables: the declared variables with their initial values. A start silently ignores others.
        :param read_only: the declared variables that callers cannot set.
        :param version: becomes the active one.
        :raises EmulatorError: for invalid steps.
        """
        process = {
            "name": name,
            "version": version,
            "variables": dict(variables or {}),
            "read_only": list(read_only),
            "steps": [dict(step) for step in steps],
        }
        self.add_processes(json.dumps({"processes": [process]}, ensure_ascii=False))

    def script(self, source: str | Path) -> None:
        """Add the processes of a script.

        :param source: YAML text, or the path of a file.
        :raises EmulatorError: if the script is invalid.
        """
        self.add_processes(source.read_text(encoding="utf-8") if isinstance(source, Path) else source)

    # Actions of people. The first four are planned in advance, because a run blocks its test while it waits.

    def decides(
        self,
        name: str,
        *outcomes: str,
        where: Mapping[str, Any] | None = None,
        business_key: str | None = None,
        by: str = "someone",
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        """Plan that a person decides whenever an instance of a process waits for one.

        If several calls match an instance, only the latest one applies to it.

        :param name: the process.
        :param outcomes: the outcomes that the person chooses, one for each time that an instance waits. After the last one
            no one decides.
        :param where: match only instances whose variables have these values.
        :param business_key: match only instances with this business key.
        :param by: the name of the person.
        :param variables: the values that the person enters.
        :raises EmulatorError: for an unknown process, or an outcome that it does not have.
        """
        self.react(
            name, outcomes=outcomes, where=where, business_key=business_key, by=by, variables=variables
        )

    def breaks(
        self,
        name: str,
        *,
        where: Mapping[str, Any] | None = None,
        business_key: str | None = None,
        after: float | timedelta = 0,
        optional: bool = False,
    ) -> None:
        """Plan that each instance of a process breaks after its start. ``decides`` describes how instances are matched.

        The instance breaks at that moment even if nothing reads it, and before the end of the process if both are due at the
        same moment. If that cannot happen, because the instance ended first or none was started, the test fails.

        :param after: how long after the start, in seconds or as a ``timedelta``, by the emulator's clock.
        :param optional: whether it is fine that no such instance is started.
        :raises EmulatorError: for an unknown process.
        """
        self.react(name, "break", where=where, business_key=business_key, after=after, optional=optional)

    def suspends(
        self,
        name: str,
        *,
        where: Mapping[str, Any] | None = None,
        business_key: str | None = None,
        after: float | timedelta = 0,
        optional: bool = False,
    ) -> None:
        """Plan that each instance of a process is suspended after its start; see ``breaks``."""
        self.react(name, "suspend", where=where, business_key=business_key, after=after, optional=optional)

    def terminates(
        self,
        name: str,
        *,
        where: Mapping[str, Any] | None = None,
        business_key: str | None = None,
        after: float | timedelta = 0,
        optional: bool = False,
    ) -> None:
        """Plan that each instance of a process is terminated after its start; see ``breaks``."""
        self.react(name, "terminate", where=where, business_key=business_key, after=after, optional=optional)

    def complete(
        self,
        name: str,
        outcome: str,
        *,
        business_key: str | None = None,
        by: str = "someone",
        variables: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Complete, now, the task at which the only open instance of a process waits, and return the instance.

        :param outcome: the outcome that the person ``by`` chooses.
        :param business_key: the business key of the instance, if several of the process are open.
        :param variables: the values that the person enters.
        :raises AssertionError: if not exactly one open instance matches.
        :raises EmulatorError: if the instance does not offer the outcome.
        """
        __tracebackhide__ = True
        open_ones = [
            each for each in self.instances(name=name, business_key=business_key) if not each["closed"]
        ]
        if len(open_ones) != 1:
            asked = name if business_key is None else f"{name} with business key {business_key!r}"
            shown = instance_lines("All instances", self.instances())
            raise AssertionError(
                "\n".join([f"Expected one open instance of {asked}, found {len(open_ones)}", *shown])
            )
        return self.act(open_ones[0]["id"], outcome, by=by, variables=variables)

    def run(
        self,
        dag: Any,
        *,
        give_up_after: float = 60,
        timeout: float | None = None,
        max_poll_failure_time: float | None = None,
        **options: Any,
    ) -> DagResult:
        """Run a DAG once with ``dag.test()``, and return its result.

        During the run this provider's tasks poll every second, regardless of their ``poll_interval``, and no task is
        retried.

        :param dag: the DAG.
        :param give_up_after: seconds after the first request of the run at which open waits are ended.
        :param timeout: seconds that replace the ``timeout`` of this provider's tasks. A task with neither a ``timeout`` nor
            an ``execution_timeout`` gets none.
        :param max_poll_failure_time: seconds that replace the same argument of this provider's tasks.
        :param options: other arguments of ``dag.test()``, such as ``run_conf``.
        :raises AssertionError: if a wait had to be ended, with a list of the open instances; if an action planned by
            ``breaks``, ``suspends`` or ``terminates`` came too late; or if a request differed from the recorded ones in a
            replay, which ends the run.
        :raises TypeError: if ``dag`` is not a DAG.
        :raises ValueError: for an invalid number of seconds.
        """
        __tracebackhide__ = True
        if not hasattr(dag, "tasks"):
            name = getattr(dag, "__name__", "the_dag")
            raise TypeError(
                f"run() takes a DAG, not {dag!r}. If @dag decorates that function, call it: run({name}())."
            )
        give_up_after = seconds(give_up_after, "give_up_after")
        given = {"timeout": timeout, "max_poll_failure_time": max_poll_failure_time}
        limits = {name: seconds(value, name) for name, value in given.items() if value is not None}
        replay = self._server.current_replay
        with fast_polling(dag, **limits), waits_ended_after(self, give_up_after, replay) as open_then:
            dag_run = dag.test(**options)
        state = str(dag_run.state)
        message = f"The run did not finish within {give_up_after:g} s, so its waits were ended."
        if replay is not None and (replay.differences or (open_then and state != "success")):
            raise AssertionError(replay_message(replay, message))
        if open_then and state != "success":
            advice = (
                "Plan before the run what a person does, such as"
                " astro_zero_emulator.decides('PublishApproval', 'approve')."
            )
            missed = self._missed_so_far(final=True)
            also = [missed_message(missed)] if missed else []
            raise AssertionError("\n".join([message, *open_then, advice, *also]))
        if missed := self._missed_so_far(final=False):
            raise AssertionError(missed_message(missed))
        tasks = {
            ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]": ti.state and str(ti.state)
            for ti in dag_run.get_task_instances()
        }
        return DagResult(state, tasks, dag_run)

    def _missed_so_far(self, *, final: bool) -> list[str]:
        try:
            return self.missed(final=final)
        except EmulatorError:  # it is unreachable; the plugin checks again at the end of the test
            return []

    def assert_all_happened(self) -> None:
        """Check that every action that ``breaks``, ``suspends`` and ``terminates`` planned has happened.

        The plugin does this at the end of each test that has not failed.

        :raises AssertionError: if one did not happen; the message says which and why.
        """
        __tracebackhide__ = True
        if missed := self.missed():
            raise AssertionError(missed_message(missed))

    def started(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the instances that were started through the API, oldest first, except deleted ones.

        :param name: the process; by default all processes.
        """
        return [each for each in self.instances(name=name) if each["created_by"] == MACHINE_USER]

    def assert_started(
        self,
        name: str,
        *,
        times: int = 1,
        variables: Mapping[str, Any] | None = None,
        business_key: str | None = None,
        title: str | None = None,
        version: str | None = None,
        state: str | None = None,
        bp_status: str | None = None,
    ) -> list[dict[str, Any]]:
        """Check how many instances of a process were started through the API, and return them.

        The other arguments are fields that the instances have now.

        :param name: the process.
        :param times: the expected number of matching instances.
        :param variables: variables that they have; they may have others.
        :raises AssertionError: if the number differs; the message lists the started instances.
        """
        __tracebackhide__ = True
        given = {
            "business_key": business_key,
            "title": title,
            "version": version,
            "state": state,
            "bp_status": bp_status,
        }
        fields = {field: value for field, value in given.items() if value is not None}
        expected = ExpectedInstance(name, fields, variables or {})
        started = self.started()
        if problem := mismatch_message(expected, times, started):
            raise AssertionError(problem)
        return matching(expected, started)

    def assert_nothing_started(self) -> None:
        """Check that no instance was started through the API.

        :raises AssertionError: if one was; the message lists them.
        """
        __tracebackhide__ = True
        if started := self.started():
            raise AssertionError("\n".join(instance_lines("Expected no start. Started instances", started)))
