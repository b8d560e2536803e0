"""The error messages that pages show in full are those that readers see, apart from ids and line breaks."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from airflow_provider_astrobpm.client.errors import AstroZeroError
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.testing.emulator_fixture import AstroZeroEmulator
from airflow_provider_astrobpm.waiting.condition import WaitCondition
from tests.docs.pages import pages


def reject(hook: AstroZeroHook, emulator: AstroZeroEmulator) -> None:
    emulator.decides("PublishApproval", "reject")
    condition = WaitCondition.of(bp_statuses=["Approved"])
    hook.wait_for_instance(hook.start_instance("PublishApproval"), condition, poll_interval=1)


def start_what_is_not_there(hook: AstroZeroHook, emulator: AstroZeroEmulator) -> None:
    emulator.fault(
        "start", "status", status=400, res_code="405230020", res_msg="BPM PublishApproval does not exist"
    )
    hook.start_instance("PublishApproval")


def same_words(message: str) -> str:
    return " ".join(re.sub(r"'002N\w+'", "'an id'", message).split())


@pytest.mark.parametrize(
    ("path", "first_words", "provoke"),
    [
        ("docs/quick-start.md", "On connection", reject),
        ("docs/troubleshooting.md", "Could not start", start_what_is_not_there),
    ],
)
def test_a_message_is_the_one_that_the_provider_raises(
    path: str,
    first_words: str,
    provoke: Callable[[AstroZeroHook, AstroZeroEmulator], None],
    emulator: AstroZeroEmulator,
) -> None:
    (shown,) = (
        block.text
        for page in pages()
        if page.path == path
        for block in page.blocks()
        if block.language == "text" and block.text.startswith(first_words)
    )
    hook = AstroZeroHook()
    with pytest.raises(AstroZeroError) as caught:
        provoke(hook, emulator)
    hook.client.close()
    assert same_words(str(caught.value)) == same_words(shown)
