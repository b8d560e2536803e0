"""What a command talks through: a hook that finds its connection and speaks as a command line has to."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.cli.running import say
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook

if TYPE_CHECKING:
    from collections.abc import Iterator


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
