"""``make release-check``: everything that a release does, except the upload.

It builds the wheel and the source archive into ``dist/``, checks both and their metadata, installs each into an empty environment,
and writes the SBOM of the wheel's environment. It also checks the tag, the changelog, and the files that configure GitHub's and Read
the Docs' services.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

from airflow_provider_astrobpm import __version__
from steps import Steps

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
SBOM = ROOT / "build" / "release" / "sbom.cdx.json"
CONSTRAINTS = ROOT / "constraints" / "airflow-3.3.txt"
PROGRAMS = Path(sys.executable).parent
PYROMA_BEST = 10
COMMAND_SECONDS = 300

PLACEHOLDERS = {
    "REPOSITORY_URL": "https://github.com/OWNER/NAME",
    "CONTACT_EMAIL": "contributors@example.org",
}
"""What a check without a tag uses for the addresses that only a release knows."""

SCHEMAS = {
    "github-workflows": ".github/workflows/*.yml",
    "dependabot": ".github/dependabot.yml",
    "github-issue-forms": ".github/ISSUE_TEMPLATE/[!c]*.yml",
    "github-issue-config": ".github/ISSUE_TEMPLATE/config.yml",
    "readthedocs": ".readthedocs.yaml",
}
"""The files that configure services, by the name of their schema in check-jsonschema."""

HEADING = re.compile(r"^## (?P<version>\S+) \((?P<date>unreleased|\d{4}-\d{2}-\d{2})\)$", re.MULTILINE)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
# Each command runs in the new environment, in an empty folder.
USES = (
    ["python", "-c", "import airflow_provider_astrobpm as p; print(p.__version__, p.__file__)"],
    ["python", "-m", "airflow_provider_astrobpm", "--help"],
    ["python", "-m", "airflow_provider_astrobpm.emulator", "--help"],
)


class ReleaseError(Exception):
    """Something is not ready to be released; the message says what."""


def check_version(version: str, changelog: str, tag: str | None) -> None:
    """Check that version, tag and changelog agree.

    :param version: the package's version.
    :param changelog: the text of the changelog.
    :param tag: the tag to release, or None if only a check runs.
    :raises ReleaseError: if they do not agree.
    """
    if str(Version(version)) != version:
        raise ReleaseError(f"The version {version} is not in its normal form: write {Version(version)}")
    newest = HEADING.search(changelog)
    if newest is None or newest["version"] != version:
        raise ReleaseError(f"CHANGELOG.md must begin with a section '## {version} (unreleased or a date)'")
    if tag is None:
        return
    if tag != f"v{version}":
        raise ReleaseError(f"The tag {tag} is not v{version}, the version in airflow_provider_astrobpm")
    if newest["date"] == "unreleased":
        raise ReleaseError(f"Replace 'unreleased' in CHANGELOG.md with the date of {version}")


def broken_links(metadata: Message, repository_url: str, files: set[str]) -> list[str]:
    """Return the links of a package's metadata that a package index page could not follow.

    :param metadata: the metadata, with the README as its payload.
    :param repository_url: the address of the repository.
    :param files: the paths of the repository's files.
    """
    urls = [line.split(", ", 1)[1] for line in metadata.get_all("Project-URL", [])]
    if not urls:
        return ["no Project-URL"]
    targets = urls + [link["target"] for link in LINK.finditer(str(metadata.get_payload()))]
    start = re.compile(
        rf"{re.escape(repository_url)}(?:/(?:blob|raw)/v{re.escape(metadata['Version'])}/|/issues$|$)"
    )
    broken = []
    for target in targets:
        own = start.match(target)
        path = target[own.end() :].partition("#")[0] if own else ""
        if not target.startswith("https://") or (
            target.startswith(repository_url) and (own is None or (path and not _exists(path, files)))
        ):
            broken.append(target)
    return broken


def _exists(path: str, files: set[str]) -> bool:
    return path in files or any(file.startswith(f"{path.rstrip('/')}/") for file in files)


class Release:
    """The steps of a release.

    :param tag: the tag to release, or None if only a check runs.
    :param scratch: an empty folder.
    """

    def __init__(self, tag: str | None, scratch: Path) -> None:
        self._tag = tag
        self._scratch = scratch
        missing = [name for name in PLACEHOLDERS if not os.environ.get(name)]
        if tag and missing:
            raise ReleaseError(f"A release needs {' and '.join(missing)} in the environment")
        self._env = {**os.environ, **{name: PLACEHOLDERS[name] for name in missing}, "NO_COLOR": "1"}
        self._wheel = self._source = Path()

    def check_repository(self) -> None:
        """Check the version, the tag, and the files that configure services."""
        check_version(__version__, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), self._tag)
        for schema, pattern in SCHEMAS.items():
            found = sorted(str(path) for path in ROOT.glob(pattern))
            if not found:
                raise ReleaseError(f"{pattern} is missing")
            self._run(PROGRAMS / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", *found)
        self._run(PROGRAMS / "zizmor", "--offline", "--no-progress", ROOT / ".github")

    def build(self) -> None:
        """Build the wheel and the source archive into ``dist/``."""
        shutil.rmtree(DIST, ignore_errors=True)
        self._run(sys.executable, "-m", "hatchling", "build")
        (self._wheel,), (self._source,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")

    def check_packages(self) -> None:
        """Check the contents of the packages and their metadata."""
        self._run(PROGRAMS / "twine", "check", "--strict", self._wheel, self._source)
        self._run(PROGRAMS / "check-wheel-contents", self._wheel)
        self._run(PROGRAMS / "pyroma", "--min", str(PYROMA_BEST), self._source)
        with zipfile.ZipFile(self._wheel) as wheel, tarfile.open(self._source) as source:
            (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            in_wheel = wheel.read(name).decode()
            files = {path.partition("/")[2] for path in source.getnames()}
        if broken := broken_links(Parser().parsestr(in_wheel), self._env["REPOSITORY_URL"], files):
            raise ReleaseError(
                "Links of the README that do not work on a package index: " + ", ".join(broken)
            )

    def install(self) -> None:
        """Install each package into an empty environment, use it, and write the SBOM of the wheel's environment."""
        for package in (self._source, self._wheel):
            venv = self._scratch / package.suffix[1:]
            python = venv / "bin" / "python"
            uv = (sys.executable, "-m", "uv")
            self._run(*uv, "venv", "--quiet", "--python", sys.executable, venv)
            into = ("--quiet", "--python", python)
            self._run(*uv, "pip", "install", *into, "--constraints", CONSTRAINTS, package)
            self._run(*uv, "pip", "check", *into)
            for program, *arguments in USES:
                printed = self._run(venv / "bin" / program, *arguments, folder=self._scratch)
                if arguments[0] == "-c" and not printed.startswith(f"{__version__} {venv}"):
                    raise ReleaseError(f"{package.name} is not what Python imports: {printed}")
        SBOM.parent.mkdir(parents=True, exist_ok=True)
        kind = ("--pyproject", ROOT / "pyproject.toml", "--mc-type", "library", "--output-reproducible")
        self._run(PROGRAMS / "cyclonedx-py", "environment", *kind, "--output-file", SBOM, python)

    def _run(self, *command: str | Path, folder: Path = ROOT) -> str:
        try:
            done = subprocess.run(
                [str(part) for part in command],
                cwd=folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ReleaseError(f"{command[0]} took longer than {COMMAND_SECONDS} s") from error
        if done.returncode:
            shown = " ".join(str(part) for part in command)
            raise ReleaseError(f"{shown}\nended with exit code {done.returncode}:\n{done.stdout}")
        return done.stdout


def main() -> int:
    """Run all steps, and print how long each one took."""
    parser = argparse.ArgumentParser(description="Do everything that a release does, except the upload.")
    parser.add_argument(
        "--tag", help="the tag to release, such as v0.1.0; without it the addresses are placeholders"
    )
    tag: str | None = parser.parse_args().tag
    steps = Steps()
    try:
        with tempfile.TemporaryDirectory(prefix="release-check-") as scratch:
            release = Release(tag, Path(scratch))
            with steps.step("Check version, changelog and settings"):
                release.check_repository()
            with steps.step("Build the packages"):
                release.build()
            with steps.step("Check the packages"):
                release.check_packages()
            with steps.step("Install each into an empty environment"):
                release.install()
    except ReleaseError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    print(
        f"dist/ is ready{'' if tag else ', with placeholders: do not upload it'}. SBOM: {SBOM.relative_to(ROOT)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
