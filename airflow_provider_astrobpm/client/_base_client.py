"""What the sync and the async client share: the generators of their calls, which their drivers run."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_astrobpm.client.metrics import TOKEN_REQUESTS
from airflow_provider_astrobpm.client.protocol import call_flow
from airflow_provider_astrobpm.client.resend_policy import resending
from airflow_provider_astrobpm.client.tokens import credential_key, request_token

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from airflow_provider_astrobpm.client.csrf import CsrfMemory
    from airflow_provider_astrobpm.client.metrics import Meter
    from airflow_provider_astrobpm.client.operations import Flow, Operation, Sleep, TokenAnswer
    from airflow_provider_astrobpm.client.protocol import CallFlow, NeedToken, Request
    from airflow_provider_astrobpm.client.settings import Settings
    from airflow_provider_astrobpm.client.tokens import TokenCache
    from airflow_provider_astrobpm.client.transcript_writer import TranscriptWriter

    CallStep = NeedToken | Request | Sleep

T = TypeVar("T")


class BaseClient:
    """The state of a client, and its calls without their I/O. For the parameters see ``BpmClient``."""

    clock: Callable[[], float] = staticmethod(time.time)

    def __init__(
        self, settings: Settings, tokens: TokenCache, on_retry: Callable[[str], None], meter: Meter
    ) -> None:
        self.settings = settings
        self.meter = meter
        self._tokens = tokens
        self._key = credential_key(settings)
        self._secrets = settings.secrets()
        self._on_retry = on_retry
        self._last_token: str | None = None

    def _call_once(self, operation: Operation[T]) -> CallFlow[T]:
        return call_flow(
            operation,
            connection=self.settings.connection,
            csrf=self._csrf_memory(),
            secrets=(*self._secrets, *self._tokens.recent_tokens(self._key)),
            note_useless_renewal=partial(self._tokens.note_useless_renewal, self.settings),
        )

    def _csrf_memory(self) -> CsrfMemory | None:
        return self._tokens.csrf_memory(self.settings)

    def _call_resent(self, operation: Operation[T]) -> Generator[CallStep, Any, T]:
        attempt = partial(self._call_once, operation)
        return resending(attempt, operation, self.settings, on_retry=self._on_retry, clock=self.clock)

    def _token_flow(self) -> Flow[TokenAnswer]:
        self.meter.count(TOKEN_REQUESTS)
        return request_token(self.settings.credentials, self._tokens.encoding(self.settings))  # type: ignore[arg-type]

    def _folder_writer(self) -> TranscriptWriter | None:
        """Return the writer of transcripts if the settings name a folder for them."""
        if self.settings.record is None:
            return None
        from airflow_provider_astrobpm.client.transcript_writer import folder_writer  # noqa: PLC0415

        return folder_writer(self.settings, self.settings.record)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings.connection!r}, {self.settings.base_url!r})"
