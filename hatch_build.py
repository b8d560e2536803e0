"""Makes the links and pictures of ``README.md`` absolute in the package's metadata, so that they work on a package index page.

The address of the repository is not known to the code. A release sets it: ``REPOSITORY_URL=https://github.com/OWNER/NAME make build``.
Without it, the README is used as it is.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

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
        target = f"{repository_url.rstrip('/')}/{kind}/v{version}/{match['target']}"
        return f"{match['picture']}[{match['text']}]({target})"

    return RELATIVE_TARGET.sub(absolute, readme)


class ReadmeHook(MetadataHookInterface):
    """Provides the field ``readme``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set ``readme`` in the metadata of the package."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        if repository_url := os.environ.get("REPOSITORY_URL"):
            package = Path(self.root, "airflow_provider_astrobpm", "__init__.py").read_text(encoding="utf-8")
            (version,) = re.findall(r'^__version__ = "(.+)"$', package, re.MULTILINE)
            text = with_absolute_links(text, repository_url, version)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
