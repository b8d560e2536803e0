"""The command ``watch``: a table that follows instances until they have ended, or a line for each change."""

from __future__ import annotations

import random
import sys
import time
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.bpm import checks, look
from airflow_provider_astrobpm.bpm.condition import WaitCondition
from airflow_provider_astrobpm.bpm.errors import InstanceNotFoundError
from airflow_provider_astrobpm.bpm.instance import BpmInstance
from airflow_provider_astrobpm.bpm.states import OPEN_STATES
from airflow_provider_astrobpm.bpm.wait import Wait
from airflow_provider_astrobpm.cli import views
from airflow_provider_astrobpm.cli.exits import Exit
from airflow_provider_astrobpm.cli.running import say
from airflow_provider_astrobpm.cli.selecting import select
from airflow_provider_astrobpm.cli.session import connected
from airflow_provider_astrobpm.cli.state_names import states_named

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from airflow_provider_astrobpm.cli.views import Show
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook


def watch(args: argparse.Namespace) -> Exit:
    """Follow instances until all have ended."""
    checks.seconds(args.poll_interval, "--poll-interval", least=checks.SHORTEST_INTERVAL)
    timeout = None if args.timeout is None else checks.seconds(args.timeout, "--timeout")
    condition = WaitCondition.of(
        states=None if args.until_state is None else states_named(args.until_state, "--until-state")
    )
    with connected(args.conn_id) as hook:
        selection = select(hook, args, OPEN_STATES)
        if selection.missing:
            raise selection.missing[0]
        deadline = None if timeout is None else time.time() + timeout
        waits = [Wait(condition, seen=one, deadline=deadline) for one in selection.instances]
        if not waits:
            say("Nothing to watch: no instance is meant.")
            return Exit.OK
        interrupted = False
        try:
            with views.terminal() if sys.stdout.isatty() else views.lines() as show:
                _follow(hook, waits, args.poll_interval, show)
        except KeyboardInterrupt:
            interrupted = True
    for line in _report(waits, interrupted=interrupted):
        say(line)
    return Exit.INTERRUPTED if interrupted else _exit(waits)


def _follow(hook: AstroZeroHook, waits: Sequence[Wait], interval: float, show: Show) -> None:
    failures, now = look.Failures(), hook.client.now
    show(waits, ())
    while still := [wait for wait in waits if wait.ending is None]:
        time.sleep(look.pause(still[0], interval, failures, now(), random.random()))  # noqa: S311 - a jitter
        began = now()
        findings = hook.client.run(look.search_for(still, hook.settings))
        failures.take(findings.failure)
        for wait in still:
            wait.grace = hook.settings.start_grace
            wait.look_found(findings, began.steady, now(), hook.settings.connection)
        # What all of them have to say is said once.
        notes = dict.fromkeys(note.text for wait in still for note in wait.notes)
        for wait in still:
            wait.notes.clear()
        show(waits, notes)


def _report(waits: Sequence[Wait], *, interrupted: bool) -> list[str]:
    """Say how the instances ended."""
    endings = [wait.ending for wait in waits]
    errors = [ending for ending in endings if isinstance(ending, Exception)]
    well = sum(isinstance(ending, BpmInstance) for ending in endings)
    parts = [f"{well} of {len(waits)} ended well"]
    if errors:
        parts.append(f"{len(errors)} did not")
    if (still := endings.count(None)) or interrupted:
        parts.append(f"{still} still open")
    lead = "Interrupted. " if interrupted else ""
    return [*dict.fromkeys(map(str, errors)), f"{lead}{', '.join(parts)}."]


def _exit(waits: Sequence[Wait]) -> Exit:
    errors = [wait.ending for wait in waits if isinstance(wait.ending, Exception)]
    if not errors:
        return Exit.OK
    missing = all(isinstance(error, InstanceNotFoundError) for error in errors)
    return Exit.NOT_FOUND if missing else Exit.FAILED
