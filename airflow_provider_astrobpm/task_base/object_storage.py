"""The location of a task's file in Airflow's object storage."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_astrobpm._airflow.version_compat import attached_file_system

if TYPE_CHECKING:
    from collections.abc import Iterable


class FileLocation(NamedTuple):
    """The location of a file.

    Its path may contain the id of an Airflow connection, as in ``s3://aws_default@bucket/launches.jsonl``.
    """

    scheme: str
    """The scheme of its path; empty for a local file."""
    conn_id: str
    """The connection id in its path; empty if there is none."""
    address: str
    """Its path for the storage, without the connection id."""

    @property
    def shown(self) -> str:
        """Its path for people, without the query, which may contain a signature."""
        return self.address.partition("?")[0] if self.scheme else self.address

    @property
    def suffix(self) -> str:
        """The suffix of its name in lower case, such as ``.csv``."""
        return PurePosixPath(self.shown).suffix.lower()

    @property
    def is_local(self) -> bool:
        """Whether the file is on the local machine."""
        return self.scheme in ("", "file", "local")

    def file_system(self, conn_id: str | None) -> Any:
        """Return the fsspec file system of the file.

        :param conn_id: the connection to use; by default the one that the path names.
        """
        return attached_file_system(self.scheme or "file", conn_id or self.conn_id or None)


def file_location(path: str, what: str, suffixes: Iterable[str]) -> FileLocation:
    """Return the location for a path.

    :param path: the path.
    :param what: a description of the file, for the error.
    :param suffixes: the allowed suffixes of its name.
    :raises ValueError: if the path is invalid.
    """
    location = FileLocation(*_parts(path))
    if ":" in location.conn_id:
        raise ValueError(
            f"{location.shown} must be given without a password: "
            "the part before the @ is the id of an Airflow connection"
        )
    if location.suffix not in (allowed := tuple(suffixes)):
        raise ValueError(f"{location.shown} is not a {what}: its name must end in {', '.join(allowed)}")
    return location


def _parts(path: str) -> tuple[str, str, str]:
    """Return the scheme of a path, the connection id before its ``@``, and the path without that id."""
    scheme, separator, rest = path.partition("://")
    if not separator:
        return "", "", path
    host, slash, key = rest.partition("/")
    named, _, host = host.rpartition("@")
    return scheme, named, f"{scheme}://{host}{slash}{key}"
