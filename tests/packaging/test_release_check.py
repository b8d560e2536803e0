"""What ``make release-check`` decides itself."""

from __future__ import annotations

from email.message import Message

import pytest

from release_check import PLACEHOLDERS, ReleaseError, broken_links, check_version, main

OPEN = "# Changelog\n\n## 1.2.0 (unreleased)\n\nText.\n\n## 1.1.0 (2026-01-01)\n"
DATED = OPEN.replace("unreleased", "2026-02-01")
REPOSITORY = PLACEHOLDERS["REPOSITORY_URL"]


@pytest.mark.parametrize(
    ("version", "changelog", "tag", "message"),
    [
        ("1.2.0", OPEN, None, None),
        ("1.2.0", DATED, None, None),
        ("1.2.0", DATED, "v1.2.0", None),
        ("1.2.0rc1", DATED.replace("1.2.0", "1.2.0rc1"), "v1.2.0rc1", None),
        ("1.2.0", OPEN, "v1.2.0", "Replace 'unreleased' in CHANGELOG.md with the date of 1.2.0"),
        ("1.2.0", DATED, "1.2.0", "The tag 1.2.0 is not v1.2.0"),
        ("1.2.0", DATED, "v1.1.0", "The tag v1.1.0 is not v1.2.0"),
        ("1.1.0", DATED, "v1.1.0", "must begin with a section '## 1.1.0"),
        ("1.2.0", "# Changelog\n", None, "must begin with a section '## 1.2.0"),
        ("1.2.0-rc1", DATED, None, "write 1.2.0rc1"),
    ],
)
def test_version_tag_and_changelog_agree(
    version: str, changelog: str, tag: str | None, message: str | None
) -> None:
    if message is None:
        check_version(version, changelog, tag)
    else:
        with pytest.raises(ReleaseError, match=message):
            check_version(version, changelog, tag)


@pytest.mark.parametrize(
    ("target", "works"),
    [
        ("https://example.org/page", True),
        (f"{REPOSITORY}/blob/v1.2.0/docs/index.md", True),
        (f"{REPOSITORY}/blob/v1.2.0/docs/index.md#begin", True),
        (f"{REPOSITORY}/raw/v1.2.0/docs/index.md", True),
        (f"{REPOSITORY}/blob/v1.2.0/docs", True),
        (f"{REPOSITORY}/issues", True),
        (REPOSITORY, True),
        ("docs/index.md", False),
        ("#begin", False),
        (f"{REPOSITORY}/blob/v1.2.0/docs/absent.md", False),
        (f"{REPOSITORY}/blob/v1.1.0/docs/index.md", False),
        (f"{REPOSITORY}/blob/main/docs/index.md", False),
    ],
)
def test_links_that_a_package_index_cannot_follow_are_found(target: str, works: bool) -> None:
    metadata = Message()
    metadata["Version"] = "1.2.0"
    metadata["Project-URL"] = f"Homepage, {REPOSITORY}"
    metadata.set_payload(f"Read [the page]({target}).")
    assert broken_links(metadata, REPOSITORY, {"docs/index.md"}) == ([] if works else [target])


def test_metadata_without_links_is_refused() -> None:
    metadata = Message()
    metadata["Version"] = "1.2.0"
    metadata.set_payload("")
    assert broken_links(metadata, REPOSITORY, set()) == ["no Project-URL"]


def test_placeholders_are_never_released(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REPOSITORY_URL", "https://github.com/owner/name")
    monkeypatch.delenv("CONTACT_EMAIL", raising=False)
    monkeypatch.setattr("sys.argv", ["release_check.py", "--tag", "v0.0.0"])
    assert main() == 1
    assert capsys.readouterr().err == "\nA release needs CONTACT_EMAIL in the environment\n"
