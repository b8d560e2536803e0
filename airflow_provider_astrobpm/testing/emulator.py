"""``AstroZeroEmulator``: what the fixture ``astro_zero_emulator`` hands to a test."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.emulator.engine import MACHINE_USER
from airflow_provider_astrobpm.emulator.remote import EmulatorControl
from airflow_provider_astrobpm.hooks import DEFAULT_CONN_ID
from airflow_provider_astrobpm.testing import dag_run
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

    from airflow_provider_astrobpm.emulator.running import EmulatorServer
    from airflow_provider_astrobpm.testing.dag_run import DagResult


class AstroZeroEmulator(EmulatorControl):
    """An emulator for one test, with connections to it. It has every method of ``EmulatorControl``, and these.

    Instances are dicts: ``id``, ``name``, ``version``, ``state``, ``bp_status``, ``bp_step``, ``element``,
    ``task_outcome``, ``business_key``, ``title``, ``created_by``, ``variables``, ``suspended``, ``closed``, ``started``,
    ``ended`` and ``outcomes``, which is what a person may choose now.

    :param server: the emulator.
    :param set_variable: sets an environment variable until the test ends.
    """

    def __init__(self, server: EmulatorServer, set_variable: Callable[[str, str], None]) -> None:
        super().__init__(server.control.url)
        self._server = server
        self._set_variable = set_variable
        self.is_checked = False
        """Whether the plugin has checked, at the end of the test, that everything has happened."""

    def connect(self, conn_id: str = DEFAULT_CONN_ID, **extras: object) -> None:
        """Let an Airflow connection lead to this emulator until the test ends.

        It is an environment variable, so it holds for hooks, for ``dag.test()`` and for processes that the test starts.

        :param conn_id: the connection id. ``astro_zero_default`` leads to the emulator already.
        :param extras: extras of the connection, such as ``max_attempts=1``.
        :raises ValueError: for an id that no connection can have.
        :raises TypeError: for an extra that JSON cannot hold.
        """
        if not re.fullmatch(r"[\w.-]+", conn_id):
            raise ValueError(f"a connection id is of letters, digits, _, . and -, not {conn_id!r}")
        # First, because pytest may show the variables of a function that fails: none of them is a secret until here.
        extra = json.dumps(extras)
        connection = {**json.loads(self._server.connection_json()), "extra": extra}
        self._set_variable(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))

    def unreachable(self) -> AbstractContextManager[None]:
        """Refuse connections while a ``with`` block runs, as a server that is down does."""
        return self._server.unreachable()

    # What there is to start.

    def process(
        self,
        name: str,
        steps: Sequence[Mapping[str, Any]],
        *,
        variables: Mapping[str, Any] | None = None,
        read_only: Sequence[str] = (),
        version: str = "1.0.0",
    ) -> None:
        """Offer a process, in place of one that has the same name.

        :param name: its name.
        :param steps: its steps, as a script has them: ``{"state": "Running", "for": 2}``, ``{"state": "Waiting for user
            interaction", "wait": "person", "outcomes": {"approve": {"bp_status": "Approved"}}}``, and last maybe
            ``{"end": {"state": "Broken"}}``.
        :param variables: the variables that it declares, with their first values. Others are left out without a word.
        :param read_only: those of them that callers cannot set.
        :param version: its version; it becomes the active one.
        :raises EmulatorError: for steps that cannot be.
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
        """Offer the processes of a script.

        :param source: YAML text, or the path of a file.
        :raises EmulatorError: if it is no valid script.
        """
        self.add_processes(source.read_text(encoding="utf-8") if isinstance(source, Path) else source)

    # What a person does. The first four are said in advance: a run blocks its test while it waits.

    def decides(
        self,
        name: str,
        *outcomes: str,
        where: Mapping[str, Any] | None = None,
        business_key: str | None = None,
        by: str = "somebody",
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        """Let a person decide whenever an instance of a process waits for one.

        What is said last about an instance counts for it alone.

        :param name: the process.
        :param outcomes: what the person chooses, one for each time that an instance waits; after the last one nobody
            decides any more.
        :param where: only for instances whose variables have these values.
        :param business_key: only for instances that carry it.
        :param by: who the person is.
        :param variables: what the person fills in.
        :raises EmulatorError: for an unknown process, and for an outcome that it does not have.
        """
        self.react(
            name,
            outcomes=outcomes,
            where=where,
            business_key=business_key,
            by=by,
            variables=variables,
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
        """Let each instance of a process break after its start.

        It happens at that moment, whoever looks, and before the end of the process where both are due at the same moment. If it
        cannot happen, because an instance has ended before or none was started, the test fails and says so.

        :param name: the process.
        :param where: only instances whose variables have these values.
        :param business_key: only instances that carry it.
        :param after: how long after the start, as seconds or as a ``timedelta``, by the emulator's clock.
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
        """Let each instance of a process be suspended after its start; see ``breaks``."""
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
        """Let each instance of a process be terminated after its start; see ``breaks``."""
        self.react(name, "terminate", where=where, business_key=business_key, after=after, optional=optional)

    def complete(
        self,
        name: str,
        outcome: str,
        *,
        business_key: str | None = None,
        by: str = "somebody",
        variables: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Complete the task at which the only open instance of a process waits, now, and return the instance.

        :param name: the process.
        :param outcome: what the person chooses.
        :param business_key: the instance's, where several of the process are open.
        :param by: who the person is.
        :param variables: what the person fills in.
        :raises AssertionError: if it is not one instance that is meant.
        :raises EmulatorError: if the outcome is not on offer.
        """
        __tracebackhide__ = True
        open_ones = [
            each for each in self.instances(name=name, business_key=business_key) if not each["closed"]
        ]
        if len(open_ones) != 1:
            asked = name if business_key is None else f"{name} with business key {business_key!r}"
            shown = instance_lines("There are", self.instances())
            raise AssertionError("\n".join([f"{len(open_ones)} open instances of {asked}, not one.", *shown]))
        return self.act(open_ones[0]["id"], outcome, by=by, variables=variables)

    # A run.

    def run(
        self,
        dag: Any,
        *,
        give_up_after: float = 60,
        timeout: float | None = None,
        max_poll_failure_time: float | None = None,
        **options: Any,
    ) -> DagResult:
        """Run a DAG once by ``dag.test()``, and return how it ended.

        While it runs, this provider's tasks look every second, whatever their ``poll_interval`` is, and no task is
        retried.

        :param dag: the DAG.
        :param give_up_after: seconds from the first request of the run on, after which waits are ended that nobody has ended.
        :param timeout: seconds in place of the ``timeout`` of this provider's tasks; one that has neither a ``timeout`` nor
            an ``execution_timeout`` gets none.
        :param max_poll_failure_time: seconds in place of the argument of the same name of this provider's tasks.
        :param options: what else ``dag.test()`` takes, such as ``run_conf``.
        :raises AssertionError: if it had to be given up, the message lists what was open; or if something that was ordered
            by ``breaks``, ``suspends`` or ``terminates`` came too late.
        :raises TypeError: if it is no DAG.
        :raises ValueError: for a number of seconds that is none.
        """
        __tracebackhide__ = True
        return dag_run.run(
            dag,
            self,
            give_up_after=give_up_after,
            timeout=timeout,
            max_poll_failure_time=max_poll_failure_time,
            options=options,
        )

    def assert_all_happened(self) -> None:
        """Check that all happened which ``breaks``, ``suspends`` and ``terminates`` have ordered.

        The plugin does so at the end of each test that has not failed.

        :raises AssertionError: if something did not; the message says what, and why.
        """
        __tracebackhide__ = True
        if missed := self.missed():
            raise AssertionError(dag_run.missed_message(missed))

    # What was done.

    def started(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the instances that were started through the API, oldest first; those that were deleted are gone.

        :param name: the process; without it, of all.
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

        :param name: the process.
        :param times: how many instances have to be as the other arguments say.
        :param variables: variables that they have; they may have others.
        :param business_key: their business key.
        :param title: their title.
        :param version: the version of the process.
        :param state: their state now.
        :param bp_status: their business status now.
        :raises AssertionError: if it is another number; the message shows what was started.
        """
        __tracebackhide__ = True
        fields = {
            "business_key": business_key,
            "title": title,
            "version": version,
            "state": state,
            "bp_status": bp_status,
        }
        asked = {field: value for field, value in fields.items() if value is not None}
        expected = ExpectedInstance(name, asked, variables or {})
        started = self.started()
        if problem := mismatch_message(expected, times, started):
            raise AssertionError(problem)
        return matching(expected, started)

    def assert_nothing_started(self) -> None:
        """Check that no instance was started through the API.

        :raises AssertionError: if one was; the message shows which.
        """
        __tracebackhide__ = True
        if started := self.started():
            raise AssertionError(
                "\n".join(instance_lines("Nothing was to be started. Started were", started))
            )
