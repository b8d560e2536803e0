"""Airflow's masker knows the newest tokens, and does not grow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_astrobpm._airflow import version_compat
from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.tokens import credential_key
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.hooks import masking
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook

RENEWALS = 300


class Masker:
    """Airflow's masker of this process."""

    def __init__(self, masker: Any) -> None:
        self.real = masker

    @property
    def size(self) -> int:
        return len(self.real.patterns)

    def shows(self, text: str) -> bool:
        shown: str = self.real.redact(f"<{text}>")
        assert shown in (f"<{text}>", "<***>")
        return shown != "<***>"


@pytest.fixture
def masker() -> Iterator[Masker]:
    """Airflow's masker, cleared for the test and restored afterwards."""
    real = version_compat.secrets_masker()
    before, replacer = set(real.patterns), real.replacer
    real.reset_masker()
    yield Masker(real)
    real.patterns, real.replacer = before, replacer


@pytest.fixture
def masks(masker: Masker, monkeypatch: pytest.MonkeyPatch) -> masking.TokenMasks:
    """The masked tokens of a fresh process."""
    del masker
    fresh = masking.TokenMasks()
    monkeypatch.setattr(masking, "MASKS", fresh)
    return fresh


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are reported to the supervisor."""
    seen: list[str] = []

    async def amask(secret: str) -> None:
        seen.append(secret)

    monkeypatch.setattr(masking, "mask_secret", seen.append)
    monkeypatch.setattr(masking, "amask_secret", amask)
    return seen


def token(number: int) -> str:
    return f"token-{number}-of-somebody"


@pytest.mark.parametrize("in_loop", [False, True], ids=["sync", "async"])
def test_masker_does_not_grow_with_the_number_of_tokens(
    in_loop: bool, masker: Masker, masks: masking.TokenMasks, reported: list[str]
) -> None:
    async def show_all() -> None:
        for number in range(RENEWALS):
            if in_loop:
                await masks.amask_token(token(number), "key")
            else:
                masks.mask(token(number), "key")
            assert not masker.shows(token(number))
            assert masker.size <= masking.MAX_MASKED_TOKENS

    asyncio.run(show_all())
    newest = [token(RENEWALS - 1 - age) for age in range(masking.MAX_MASKED_TOKENS)]
    assert not any(masker.shows(each) for each in newest)
    assert masker.shows(token(RENEWALS - 1 - masking.MAX_MASKED_TOKENS))
    assert reported == [token(number) for number in range(masking.MAX_REPORTED_TOKENS)]


def test_newest_tokens_of_each_credential_are_masked(
    masker: Masker, masks: masking.TokenMasks, reported: list[str]
) -> None:
    del reported
    for number in range(RENEWALS):
        masks.mask(token(number), "busy")
        if number == 0:
            masks.mask("the-token-of-a-quiet-one", "quiet")
    assert not masker.shows("the-token-of-a-quiet-one")
    assert masker.size == masking.MAX_MASKED_TOKENS + 1


def test_repeated_token_counts_as_the_newest(
    masker: Masker, masks: masking.TokenMasks, reported: list[str]
) -> None:
    for number in range(masking.MAX_MASKED_TOKENS):
        masks.mask(token(number), "key")
    masks.mask(token(0), "key")
    masks.mask(token(99), "key")
    assert not masker.shows(token(0))
    assert masker.shows(token(1))
    assert reported.count(token(0)) == 1


def test_token_shared_by_two_credentials_stays_while_one_has_it(
    masker: Masker, masks: masking.TokenMasks, reported: list[str]
) -> None:
    del reported
    masks.mask("shared-token", "one")
    masks.mask("shared-token", "another")
    for number in range(masking.MAX_MASKED_TOKENS):
        masks.mask(token(number), "one")
    assert not masker.shows("shared-token")
    for number in range(masking.MAX_MASKED_TOKENS):
        masks.mask(f"another-{token(number)}", "another")
    assert masker.shows("shared-token")


def test_token_masked_by_other_code_stays_masked(
    masker: Masker, masks: masking.TokenMasks, reported: list[str]
) -> None:
    del reported
    masker.real.add_mask(token(0))
    masker.real.add_mask("a-secret-of-somebody")
    for number in range(RENEWALS):
        masks.mask(token(number), "key")
    assert not masker.shows(token(0))
    assert not masker.shows("a-secret-of-somebody")
    assert masker.size == masking.MAX_MASKED_TOKENS + 2


def test_adapted_forms_are_removed_with_their_token(
    masker: Masker, masks: masking.TokenMasks, reported: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del reported

    def adaptations(secret: str) -> Iterator[str]:
        yield from (secret, secret[::-1])

    monkeypatch.setattr(masker.real, "_adaptations", adaptations)
    for number in range(RENEWALS):
        masks.mask(token(number), "key")
        assert not masker.shows(token(number)[::-1])
    assert masker.size == 2 * masking.MAX_MASKED_TOKENS


def test_unknown_masker_gets_a_limited_number_of_tokens(
    masks: masking.TokenMasks, reported: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masking, "secrets_masker", object)
    for number in range(RENEWALS):
        masks.mask(token(number), "key")
    assert reported == [token(number) for number in range(masking.MAX_REPORTED_TOKENS)]


def test_cleared_masker_gets_the_token_again(
    masker: Masker, masks: masking.TokenMasks, reported: list[str]
) -> None:
    masks.mask(token(0), "key")
    masker.real.reset_masker()
    masks.mask(token(0), "key")
    assert not masker.shows(token(0))
    assert reported == [token(0), token(0)]


def test_forked_process_reports_to_its_own_supervisor(
    masker: Masker, masks: masking.TokenMasks, reported: list[str]
) -> None:
    for number in range(masking.MAX_REPORTED_TOKENS + 1):
        masks.mask(token(number), "key")
    newest = token(masking.MAX_REPORTED_TOKENS)
    assert newest not in reported
    masks.reset()
    masks.mask(newest, "key")  # some servers issue the same token again
    assert reported[-1] == newest
    assert not masker.shows(newest)


@pytest.mark.usefixtures("reported", "masks")
@pytest.mark.parametrize("in_loop", [False, True], ids=["sync", "async"])
def test_renewed_tokens_of_a_connection_are_masked(
    in_loop: bool, masker: Masker, emulator: EmulatorControl, make_hook: Callable[..., AstroZeroHook]
) -> None:
    hook = make_hook()
    key = credential_key(hook.settings)
    sizes = []

    async def renew() -> None:
        async with hook.async_client() as client:
            for _ in range(3 * masking.MAX_MASKED_TOKENS):
                if in_loop:
                    await client.call(operations.query("Running"))
                else:
                    hook.client.call(operations.query("Running"))
                newest = masking.MASKS._kept[key][-1]
                assert not masker.shows(newest)
                sizes.append(masker.size)
                await asyncio.to_thread(emulator.revoke_tokens)

    asyncio.run(renew())
    assert emulator.counts()["token"] == 3 * masking.MAX_MASKED_TOKENS
    assert sizes[-1] == max(sizes) == sizes[0] + masking.MAX_MASKED_TOKENS - 1
