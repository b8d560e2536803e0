"""Adds to the package's metadata what only the person who publishes it knows: addresses, and a contact.

The code does not know the address of its repository. A release sets it, and an address for mail to the contributors:
``REPOSITORY_URL=https://github.com/OWNER/NAME CONTACT_EMAIL=NAME@HOST make build``. With the first, the links and pictures of the
README become absolute, so that they work on a package index page.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

AUTHORS = "The contributors"
RELATIVE_TARGET = re.compile(
    r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?!https?:|#|mailto:)(?P<target>[^)\s]+)\)"
)


def with_absolute_links(readme: str, repository_url: str, version: str) -> str:
    """Return a README whose links and pictures lead to the files of a version's tag.

    :param readme: the Markdown text.
    :param repository_url: the address of the repository on GitHub.
    :param version: the version; its tag is ``v`` and the version.
    """

    def absolute(match: re.Match[str]) -> str:
        kind = "raw" if match["picture"] else "blob"
        target = f"{repository_url}/{kind}/v{version}/{match['target']}"
        return f"{match['picture']}[{match['text']}]({target})"

    return RELATIVE_TARGET.sub(absolute, readme)


def project_urls(repository_url: str, version: str) -> dict[str, str]:
    """Return the links that a package index shows beside the README.

    :param repository_url: the address of the repository on GitHub.
    :param version: the version; its tag is ``v`` and the version.
    """
    files = f"{repository_url}/blob/v{version}"
    return {
        "Homepage": repository_url,
        "Documentation": f"{files}/docs/index.md",
        "Changelog": f"{files}/CHANGELOG.md",
        "Issues": f"{repository_url}/issues",
        "Source": repository_url,
    }


class ReleaseMetadata(MetadataHookInterface):
    """Provides the fields ``readme``, ``authors`` and ``urls``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set these fields in the metadata of the package."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        if repository_url := os.environ.get("REPOSITORY_URL", "").rstrip("/"):
            package = Path(self.root, "airflow_provider_astrobpm", "__init__.py").read_text(encoding="utf-8")
            (version,) = re.findall(r'^__version__ = "(.+)"$', package, re.MULTILINE)
            text = with_absolute_links(text, repository_url, version)
            metadata["urls"] = project_urls(repository_url, version)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["authors"] = [{"name": AUTHORS}]
        if email := os.environ.get("CONTACT_EMAIL"):
            metadata["authors"] = [{"name": AUTHORS, "email": email}]
