"""The token cache: requested once however many ask, renewed before its end, and when it was refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from airflow_provider_astrobpm.bpm.api import TokenAnswer
from airflow_provider_astrobpm.bpm.errors import AuthenticationError
from airflow_provider_astrobpm.bpm.settings import ClientCredentials, ReadyToken, Settings
from airflow_provider_astrobpm.bpm.token import TokenCache, credential_key

SETTINGS = Settings("c", "https://host", ClientCredentials("client", "the-secret"))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Server:
    """Hands out tokens by number."""

    def __init__(self, expires_in: float | None = 600) -> None:
        self.requests = 0
        self.expires_in = expires_in

    def __call__(self) -> TokenAnswer:
        self.requests += 1
        return TokenAnswer(f"token-{self.requests}", self.expires_in)


def test_a_token_serves_until_shortly_before_its_end() -> None:
    clock, server = Clock(), Server(expires_in=600)
    cache = TokenCache(clock)
    assert cache.get(SETTINGS, server) == "token-1"
    clock.now = 539
    assert cache.get(SETTINGS, server) == "token-1"
    clock.now = 540
    assert cache.get(SETTINGS, server) == "token-2"


def test_a_short_life_has_a_short_margin() -> None:
    clock, server = Clock(), Server(expires_in=10)
    cache = TokenCache(clock)
    cache.get(SETTINGS, server)
    clock.now = 8.9
    assert cache.get(SETTINGS, server) == "token-1"
    clock.now = 9
    assert cache.get(SETTINGS, server) == "token-2"


def test_a_token_without_a_life_serves_until_it_is_refused() -> None:
    clock, server = Clock(), Server(expires_in=None)
    cache = TokenCache(clock)
    cache.get(SETTINGS, server)
    clock.now = 1e9
    assert cache.get(SETTINGS, server) == "token-1"
    assert cache.get(SETTINGS, server, stale="token-1") == "token-2"


def test_a_refused_token_that_was_renewed_meanwhile_is_not_renewed_again() -> None:
    server = Server()
    cache = TokenCache(Clock())
    cache.get(SETTINGS, server)
    assert cache.get(SETTINGS, server, stale="token-1") == "token-2"
    assert cache.get(SETTINGS, server, stale="token-1") == "token-2"
    assert server.requests == 2


def test_each_credential_has_its_own() -> None:
    server = Server()
    cache = TokenCache(Clock())
    others = [
        SETTINGS,
        replace(SETTINGS, base_url="https://other"),
        replace(SETTINGS, credentials=ClientCredentials("client", "another-secret")),
        replace(SETTINGS, credentials=ClientCredentials("another", "the-secret")),
    ]
    assert len({cache.get(settings, server) for settings in others}) == 4


def test_two_connections_to_the_same_account_share_one() -> None:
    server = Server()
    cache = TokenCache(Clock())
    assert cache.get(SETTINGS, server) == cache.get(replace(SETTINGS, connection="second"), server)


def test_a_ready_token_is_never_renewed() -> None:
    server = Server()
    settings = replace(SETTINGS, credentials=ReadyToken("ready"))
    cache = TokenCache(Clock())
    assert cache.get(settings, server) == "ready"
    assert cache.get(settings, server, stale="ready") is None
    assert server.requests == 0


def test_no_secret_shows() -> None:
    cache = TokenCache(Clock())
    cache.get(SETTINGS, Server())
    shown = f"{SETTINGS!r} {credential_key(SETTINGS)!r} {vars(cache)!r}"
    assert "the-secret" not in shown
    assert "token-1" not in shown


class SlowServer(Server):
    """Answers only when it is told to; says when it is asked."""

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__()
        self.asked, self.go = threading.Event(), threading.Event()
        self.error = error

    def __call__(self) -> TokenAnswer:
        answer = super().__call__()
        self.asked.set()
        assert self.go.wait(10)
        if self.error and answer.access_token == "token-1":
            raise self.error
        return answer


def ask_at_once(cache: TokenCache, server: SlowServer, threads: int) -> list[Callable[[], str | None]]:
    """Let threads ask; return their results to come, after the first request is on its way."""
    with ThreadPoolExecutor(threads) as pool:
        first = pool.submit(cache.get, SETTINGS, server)
        assert server.asked.wait(10)
        others = [pool.submit(cache.get, SETTINGS, server) for _ in range(threads - 1)]
        server.go.set()
    return [future.result for future in (first, *others)]


def test_two_hundred_threads_cause_one_request() -> None:
    server = SlowServer()
    results = ask_at_once(TokenCache(Clock()), server, threads=200)
    assert {result() for result in results} == {"token-1"}
    assert server.requests == 1


def test_a_refusal_reaches_everyone_who_waited_and_the_next_one_asks_again() -> None:
    cache, server = TokenCache(Clock()), SlowServer(AuthenticationError("no"))
    results = ask_at_once(cache, server, threads=1)
    with pytest.raises(AuthenticationError):
        results[0]()
    assert cache.get(SETTINGS, server) == "token-2"


def test_a_thread_that_was_stopped_does_not_stop_the_others() -> None:
    cache, server = TokenCache(Clock()), SlowServer(SystemExit())
    results = ask_at_once(cache, server, threads=5)
    with pytest.raises(SystemExit):
        results[0]()
    assert {result() for result in results[1:]} == {"token-2"}


def test_a_fork_forgets_what_was_under_way() -> None:
    cache, server = TokenCache(Clock()), Server()
    cache.get(SETTINGS, server)
    cache.clear()
    assert cache.get(SETTINGS, server) == "token-2"
