"""What Airflow's masker is told, so that it comes out as ``***`` should anybody log it.

The secrets of a connection are told once. Tokens are others every few minutes, and Airflow's masker forgets nothing: each text
that it knows makes each line of each log and each further text dearer. So it knows the newest tokens of each credential, and
older ones are taken out again. An older one may be under way still; no message of this provider shows it, because each call masks
what it carries itself.

The supervisor of a task or a triggerer masks what its process writes, with a masker of its own, and nobody can take anything out
of that one. So a process tells it of a bounded number of tokens.
"""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING, Any

from airflow.sdk.log import mask_secret

from airflow_provider_astrobpm._airflow.version_compat import amask_secret, secrets_masker
from airflow_provider_astrobpm.bpm.token import credential_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from airflow_provider_astrobpm.bpm.settings import Settings

KEPT = 3  # tokens of a credential that this process masks: the newest, and those with which calls may be under way
TOLD = 50  # tokens of which a process tells its supervisor in its whole life


class TokenMasks:
    """The tokens that Airflow's masker knows. Threads and event loops share it."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget all: Airflow may have emptied the masker, and the supervisor is another one (after a fork)."""
        self._lock = threading.Lock()
        self._told = 0
        self._kept: dict[Hashable, list[str]] = {}
        self._of_others: set[str] = set()
        """Tokens that somebody else has told the masker of, and that stay therefore."""

    def show(self, token: str, key: Hashable) -> None:
        """Mask a token from now on, and no longer one that it has replaced some time ago.

        :param token: the token, before its first use.
        :param key: whose it is, as ``credential_key`` tells it.
        """
        if self._admit(token, key):
            mask_secret(token)

    async def ashow(self, token: str, key: Hashable) -> None:
        """Do what ``show`` does, without blocking the event loop; the parameters are those of ``show``."""
        if self._admit(token, key):
            await amask_secret(token)

    def _admit(self, token: str, key: Hashable) -> bool:
        """Let this process mask a token; return whether the supervisor is to be told of it."""
        with self._lock:
            kept = self._kept.setdefault(key, [])
            patterns = getattr(masker := secrets_masker(), "patterns", None)
            if not isinstance(patterns, set):  # no masker that is known here: nothing can be taken out of it
                self._told += 1
                return self._told <= TOLD
            if token in kept:
                kept.remove(token)
                if re.escape(token) in patterns:
                    kept.append(token)
                    return False
            self._told += 1
            if re.escape(token) in patterns and not any(token in each for each in self._kept.values()):
                self._of_others.add(token)
            kept.append(token)
            for old in kept[:-KEPT]:
                if sum(old in each for each in self._kept.values()) == 1:
                    self._forget(old, masker)
            del kept[:-KEPT]
            masker.add_mask(token)  # and that makes one pattern of all of them anew
            return self._told <= TOLD

    def _forget(self, token: str, masker: Any) -> None:
        if token in self._of_others:
            self._of_others.discard(token)
            return
        # A deployment may have an adapter that masks other forms of a secret too.
        adapted = getattr(masker, "_adaptations", lambda text: (text,))
        for form in adapted(token):
            masker.patterns.discard(re.escape(form))


MASKS = TokenMasks()
"""Those of this process."""

os.register_at_fork(after_in_child=MASKS.begin_anew)


def shows_tokens(settings: Settings) -> Callable[[str], None]:
    """Return the ``on_token`` of a client.

    :param settings: whose tokens.
    """
    key = credential_key(settings)
    return lambda token: MASKS.show(token, key)


def ashows_tokens(settings: Settings) -> Callable[[str], Awaitable[None]]:
    """Return the ``on_token`` of a client in an event loop.

    :param settings: whose tokens.
    """
    key = credential_key(settings)
    return lambda token: MASKS.ashow(token, key)


def mask_settings(settings: Settings) -> None:
    """Mask the secrets of a connection, of which Airflow knows the password alone.

    :param settings: what the connection says.
    """
    for secret in settings.secrets():
        mask_secret(secret)


async def amask_settings(settings: Settings) -> None:
    """Do what ``mask_settings`` does, without blocking the event loop.

    :param settings: what the connection says.
    """
    for secret in settings.secrets():
        await amask_secret(secret)
