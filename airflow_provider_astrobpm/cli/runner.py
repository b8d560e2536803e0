"""Runs a command: whatever comes of it becomes an exit code, and an error of the provider one sentence on stderr.

What Airflow itself logs meanwhile is left out, as in Airflow's own commands: it would come between the rows on stdout.
``--verbose`` lets it through.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.utils.cli import suppress_logs_and_warning

from airflow_provider_astrobpm.bpm.errors import (
    AmbiguousStartError,
    AstroZeroError,
    InstanceNotFoundError,
    SettingsError,
    SeveralInstancesError,
    UnknownVariablesError,
)
from airflow_provider_astrobpm.cli.exit_codes import Exit
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

# The first that fits counts.
EXITS: tuple[tuple[type[Exception], Exit], ...] = (
    (SettingsError, Exit.USAGE),
    (UnknownVariablesError, Exit.USAGE),
    (AirflowNotFoundException, Exit.USAGE),
    (InstanceNotFoundError, Exit.NOT_FOUND),
    (SeveralInstancesError, Exit.NOT_FOUND),
    (AmbiguousStartError, Exit.AMBIGUOUS_START),
    (AstroZeroError, Exit.FAILED),
    (UnicodeError, Exit.FAILED),  # what came of it could not be printed
    (ValueError, Exit.USAGE),
)


def run(function: str, args: argparse.Namespace) -> None:
    """Run a command, and exit with its code unless that is 0.

    :param function: where its function is: ``module.name``, within this package.
    :param args: its arguments.
    """
    module, _, name = function.rpartition(".")
    codes: list[int | None] = []

    def command(args: argparse.Namespace) -> None:
        codes.append(getattr(import_module(f"{__package__}.{module}"), name)(args))

    try:
        suppress_logs_and_warning(command)(args)
        code = codes.pop()
    except KeyboardInterrupt:
        say("Interrupted.")
        code = Exit.INTERRUPTED
    except tuple(kind for kind, _ in EXITS) as error:
        say(_sentence(str(error)))
        code = exit_of(error)
    if code:
        sys.exit(int(code))


def exit_of(error: Exception) -> Exit:
    """Return the exit code for an error."""
    return next(code for kind, code in EXITS if isinstance(error, kind))


def _sentence(words: str) -> str:
    """Return what an error says with a capital letter and an end."""
    return f"{words[:1].upper()}{words[1:]}{'' if words.endswith(('.', '?', '!')) else '.'}"


def say(words: str) -> None:
    """Tell the person something that is not the command's result."""
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


@contextmanager
def connected(conn_id: str) -> Iterator[AstroZeroHook]:
    """Provide the hook of a command, and close its client at the end.

    :param conn_id: the Airflow connection.
    """
    hook = CommandLineHook(conn_id)
    try:
        yield hook
    finally:
        if "client" in vars(hook):
            hook.client.close()


class CommandLineHook(AstroZeroHook):
    """The hook as a command needs it."""

    @classmethod
    def get_connection(cls, conn_id: str) -> Any:
        """Return a connection from wherever Airflow keeps it, its database included.

        Outside of tasks Airflow's own hooks look into the environment and the secrets backends alone.
        """
        from airflow.models.connection import Connection  # noqa: PLC0415 - brings the whole database in

        return Connection.get_connection_from_secrets(conn_id)

    @property
    def log(self) -> Any:
        """What the hook and its client write to: warnings go to stderr, and there is nobody for the rest."""
        return Warnings()


class Warnings:
    """A log that tells the person its warnings, as they are."""

    def warning(self, words: str, *parts: object) -> None:
        """Tell a warning."""
        say(words % parts if parts else words)

    def info(self, words: str, *parts: object) -> None:
        """Be silent."""
