"""Registers secrets with Airflow's masker, which replaces them with ``***`` in logs.

The secrets of a connection are registered once. Tokens change every few minutes, and Airflow's masker never forgets: each
registered text makes every log line and every further registration slower. So the masker knows only the newest tokens of each
credential, and older ones are removed again. A call with an older token may still be under way; messages of this provider do
not show that token, because each call masks its own secrets.

The supervisor of a task or triggerer masks the output of its process with a masker of its own, from which nothing can be
removed. So a process reports only a limited number of tokens to it.
"""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING, Any

from airflow.sdk.log import mask_secret

from airflow_provider_astrobpm._airflow.version_compat import amask_secret, secrets_masker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from airflow_provider_astrobpm.client.settings import Settings

MAX_MASKED_TOKENS = 3  # tokens of a credential that this process masks: the newest, and older ones with which calls may be under way
MAX_REPORTED_TOKENS = 50  # tokens that a process reports to its supervisor in its lifetime


class TokenMasks:
    """The tokens registered with Airflow's masker. Threads and event loops may share it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all tokens. After a fork, Airflow may have cleared the masker, and the supervisor is another process."""
        self._lock = threading.Lock()
        self._report_count = 0
        self._kept: dict[Hashable, list[str]] = {}
        self._registered_elsewhere: set[str] = set()
        """Tokens that other code registered with the masker, and that therefore stay."""

    def mask(self, token: str, key: Hashable) -> None:
        """Mask a token. Stop masking older tokens of its credential, except for the most recent ones.

        :param token: the token, before its first use.
        :param key: the ``credential_key`` of its credential.
        """
        if self._admit(token, key):
            mask_secret(token)

    async def amask_token(self, token: str, key: Hashable) -> None:
        """Do the same as ``mask`` without blocking the event loop. The parameters are those of ``mask``."""
        if self._admit(token, key):
            await amask_secret(token)

    def _admit(self, token: str, key: Hashable) -> bool:
        """Mask a token in this process. Return whether to report it to the supervisor."""
        with self._lock:
            kept = self._kept.setdefault(key, [])
            patterns = getattr(masker := secrets_masker(), "patterns", None)
            if not isinstance(patterns, set):  # an unknown masker, from which nothing can be removed
                self._report_count += 1
                return self._report_count <= MAX_REPORTED_TOKENS
            if token in kept:
                kept.remove(token)
                if re.escape(token) in patterns:
                    kept.append(token)
                    return False
            self._report_count += 1
            if re.escape(token) in patterns and not any(token in each for each in self._kept.values()):
                self._registered_elsewhere.add(token)
            kept.append(token)
            for old in kept[:-MAX_MASKED_TOKENS]:
                if sum(old in each for each in self._kept.values()) == 1:
                    self._forget(old, masker)
            del kept[:-MAX_MASKED_TOKENS]
            masker.add_mask(token)  # also rebuilds the pattern of all texts
            return self._report_count <= MAX_REPORTED_TOKENS

    def _forget(self, token: str, masker: Any) -> None:
        if token in self._registered_elsewhere:
            self._registered_elsewhere.discard(token)
            return
        # A deployment may have an adapter that masks further forms of a secret.
        adapted = getattr(masker, "_adaptations", lambda text: (text,))
        for form in adapted(token):
            masker.patterns.discard(re.escape(form))


MASKS = TokenMasks()
"""The masked tokens of this process."""

os.register_at_fork(after_in_child=MASKS.reset)


def token_masker(settings: Settings) -> Callable[[str], None]:
    """Return the ``on_token`` of a client.

    :param settings: the settings with the credential.
    """
    from airflow_provider_astrobpm.client.tokens import credential_key  # noqa: PLC0415

    key = credential_key(settings)
    return lambda token: MASKS.mask(token, key)


def async_token_masker(settings: Settings) -> Callable[[str], Awaitable[None]]:
    """Return the ``on_token`` of a client in an event loop.

    :param settings: the settings with the credential.
    """
    from airflow_provider_astrobpm.client.tokens import credential_key  # noqa: PLC0415

    key = credential_key(settings)
    return lambda token: MASKS.amask_token(token, key)


def mask_settings(settings: Settings) -> None:
    """Mask the secrets of a connection. By itself, Airflow masks only the password.

    :param settings: the settings of the connection.
    """
    for secret in settings.secrets():
        mask_secret(secret)


async def amask_settings(settings: Settings) -> None:
    """Do the same as ``mask_settings`` without blocking the event loop.

    :param settings: the settings of the connection.
    """
    for secret in settings.secrets():
        await amask_secret(secret)
