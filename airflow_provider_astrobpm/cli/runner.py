"""Runs a command: provides its hook, maps its outcome to an exit code, and prints an error as one sentence on stderr.

Airflow's own log output is suppressed during a command, as in Airflow's own commands, because it would appear between the
rows on stdout. ``--verbose`` enables it.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.utils.cli import suppress_logs_and_warning

from airflow_provider_astrobpm.cli.exit_codes import Exit
from airflow_provider_astrobpm.client.errors import (
    AmbiguousStartError,
    AstroZeroError,
    InstanceNotFoundError,
    SettingsError,
    SeveralInstancesError,
    UnknownVariablesError,
)
from airflow_provider_astrobpm.client.transcript_writer import folder_writer
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

# The first match counts.
EXITS: tuple[tuple[type[Exception], Exit], ...] = (
    (SettingsError, Exit.USAGE),
    (UnknownVariablesError, Exit.USAGE),
    (AirflowNotFoundException, Exit.USAGE),
    (InstanceNotFoundError, Exit.NOT_FOUND),
    (SeveralInstancesError, Exit.NOT_FOUND),
    (AmbiguousStartError, Exit.AMBIGUOUS_START),
    (AstroZeroError, Exit.FAILED),
    (UnicodeError, Exit.FAILED),  # the result could not be printed
    (ValueError, Exit.USAGE),
)


def run(function: str, args: argparse.Namespace) -> None:
    """Run a command, and exit with its code unless that is 0.

    :param function: the function of the command as ``module.name``, relative to this package.
    :param args: the arguments of the command.
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
    """Return the text of an error as a sentence, with a capital letter and a full stop."""
    return f"{words[:1].upper()}{words[1:]}{'' if words.endswith(('.', '?', '!')) else '.'}"


def say(words: str) -> None:
    """Print a message to stderr; stdout is for the result of a command."""
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


@contextmanager
def connected(conn_id: str) -> Iterator[AstroZeroHook]:
    """Provide the hook for a command, and close its client afterwards.

    :param conn_id: the Airflow connection.
    """
    hook = CommandLineHook(conn_id)
    if (folder := hook.settings.record) is not None:
        folder_writer(hook.settings, folder, warn=say)  # its log is suppressed
    try:
        yield hook
    finally:
        if "client" in vars(hook):
            hook.client.close()


class CommandLineHook(AstroZeroHook):
    """A hook that finds connections in Airflow's database, and prints warnings to stderr."""

    @classmethod
    def get_connection(cls, conn_id: str) -> Any:
        """Return a connection from any of Airflow's sources, including its database.

        Outside of tasks, Airflow's hooks search only the environment and the secrets backends.
        """
        from airflow.models.connection import Connection  # noqa: PLC0415 - imports Airflow's database models

        return Connection.get_connection_from_secrets(conn_id)

    @property
    def log(self) -> Any:
        """The log of the hook and its client: warnings go to stderr, other messages are dropped."""
        return _WarningsOnly()


class _WarningsOnly:
    """A logger that prints its warnings to stderr and drops the rest."""

    def warning(self, words: str, *parts: object) -> None:
        """Print a warning."""
        say(words % parts if parts else words)

    def info(self, words: str, *parts: object) -> None:
        """Do nothing."""
