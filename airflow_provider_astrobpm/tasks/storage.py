"""Where a task's file is, and the storage of Airflow's to read or write it with."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_astrobpm._airflow.version_compat import attached_file_system

if TYPE_CHECKING:
    from collections.abc import Iterable


class Place(NamedTuple):
    """Where a file is.

    The id of an Airflow connection may stand in its path, as in ``s3://aws_default@bucket/launches.jsonl``.
    """

    scheme: str
    """What its path begins with; empty for one of the machine's own."""
    named: str
    """The connection that its path names, if it does."""
    address: str
    """Its path for the storage, without that."""

    @property
    def shown(self) -> str:
        """Its path for people: the query may hold a signature."""
        return self.address.partition("?")[0] if self.scheme else self.address

    @property
    def suffix(self) -> str:
        """What its name ends in, in lower case."""
        return PurePosixPath(self.shown).suffix.lower()

    @property
    def is_local(self) -> bool:
        """Whether it is on the machine itself."""
        return self.scheme in ("", "file", "local")

    def attached(self, conn_id: str | None) -> Any:
        """Return the fsspec file system that it is on.

        :param conn_id: the connection to reach it with; without one, the one that the path names.
        """
        return attached_file_system(self.scheme or "file", conn_id or self.named or None)


def place_of(path: str, what: str, suffixes: Iterable[str]) -> Place:
    """Return the place that a path tells.

    :param path: the path.
    :param what: what must be there, in words.
    :param suffixes: what its name may end in.
    :raises ValueError: if it cannot be right.
    """
    place = Place(*_parts(path))
    if ":" in place.named:
        raise ValueError(
            f"{place.shown} must be given without a password: "
            "what stands before the @ is the id of an Airflow connection"
        )
    if place.suffix not in (allowed := tuple(suffixes)):
        raise ValueError(f"{place.shown} is no {what}: its name must end in {', '.join(allowed)}")
    return place


def _parts(path: str) -> tuple[str, str, str]:
    """Return the scheme of a path, what stands before its ``@``, and the path without that."""
    scheme, separator, rest = path.partition("://")
    if not separator:
        return "", "", path
    host, slash, key = rest.partition("/")
    named, _, host = host.rpartition("@")
    return scheme, named, f"{scheme}://{host}{slash}{key}"
