"""The token cache: one request for many callers, and renewal before expiry and after a refusal."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_astrobpm.client.errors import (
    AuthenticationError,
    CallError,
    ServerError,
    ThrottledError,
    UnexpectedAnswerError,
)
from airflow_provider_astrobpm.client.operations import Encoding, TokenAnswer
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings, StaticToken
from airflow_provider_astrobpm.client.tokens import (
    RENEWAL_PAUSE_SECONDS,
    TokenCache,
    credential_key,
    request_token,
)
from tests.support.clocks import ManualClock

SETTINGS = Settings("c", "https://host", ClientCredentials("client", "the-secret"))


class Server:
    """Issues numbered tokens."""

    def __init__(self, expires_in: float | None = 600) -> None:
        self.requests = 0
        self.expires_in = expires_in

    def __call__(self) -> TokenAnswer:
        self.requests += 1
        return TokenAnswer(f"token-{self.requests}", self.expires_in)


def test_token_is_used_until_shortly_before_it_expires() -> None:
    clock, server = ManualClock(), Server(expires_in=600)
    cache = TokenCache(clock)
    assert cache.get(SETTINGS, server) == "token-1"
    clock.now = 539
    assert cache.get(SETTINGS, server) == "token-1"
    clock.now = 540
    assert cache.get(SETTINGS, server) == "token-2"


def test_short_lifetime_has_a_short_renewal_margin() -> None:
    clock, server = ManualClock(), Server(expires_in=10)
    cache = TokenCache(clock)
    cache.get(SETTINGS, server)
    clock.now = 8.9
    assert cache.get(SETTINGS, server) == "token-1"
    clock.now = 9
    assert cache.get(SETTINGS, server) == "token-2"


def test_token_without_a_lifetime_is_used_until_it_is_refused() -> None:
    clock, server = ManualClock(), Server(expires_in=None)
    cache = TokenCache(clock)
    cache.get(SETTINGS, server)
    clock.now = 1e9
    assert cache.get(SETTINGS, server) == "token-1"
    assert cache.get(SETTINGS, server, stale="token-1") == "token-2"


def test_known_returns_a_token_while_it_is_valid() -> None:
    clock, key = ManualClock(), credential_key(SETTINGS)
    cache = TokenCache(clock)
    assert cache.known(key) is None
    cache.get(SETTINGS, Server(expires_in=600))
    assert cache.known(key) == "token-1"
    assert cache.known(key, stale="token-1") is None
    clock.now = 540
    assert cache.known(key) is None


def test_refused_token_that_was_already_renewed_is_not_renewed_again() -> None:
    server = Server()
    cache = TokenCache(ManualClock())
    cache.get(SETTINGS, server)
    assert cache.get(SETTINGS, server, stale="token-1") == "token-2"
    assert cache.get(SETTINGS, server, stale="token-1") == "token-2"
    assert server.requests == 2


def test_renewals_for_one_doubt_are_limited() -> None:
    """A server that permanently refuses something with 403 must not cause a token request each time."""
    clock, server = ManualClock(), Server(expires_in=None)
    cache = TokenCache(clock)
    assert cache.get(SETTINGS, server) == "token-1"
    assert cache.get(SETTINGS, server, stale="token-1", doubt="query 403") == "token-2"
    assert (
        cache.get(SETTINGS, server, stale="token-2", doubt="query 403") == "token-3"
    )  # the renewal helped each time
    cache.note_useless_renewal(SETTINGS, "query 403")
    assert cache.get(SETTINGS, server, stale="token-2", doubt="query 403") == "token-3"  # already renewed
    assert cache.get(SETTINGS, server, stale="token-3", doubt="query 403") is None
    assert cache.get(SETTINGS, server, stale="token-3", doubt="start 403") == "token-4"
    assert cache.get(SETTINGS, server, stale="token-4") == "token-5"  # no doubt about this refusal
    clock.now = RENEWAL_PAUSE_SECONDS
    assert cache.get(SETTINGS, server, stale="token-5", doubt="query 403") == "token-6"
    assert server.requests == 6


def test_doubts_are_separate_for_each_credential() -> None:
    other = replace(SETTINGS, credentials=ClientCredentials("another", "secret"))
    cache, server = TokenCache(ManualClock()), Server()
    cache.note_useless_renewal(SETTINGS, "query 403")
    assert cache.get(SETTINGS, server, stale="token", doubt="query 403") is None
    assert cache.get(other, server, stale="token", doubt="query 403") == "token-1"


FORM, JSON = "application/x-www-form-urlencoded", "application/json"


def request(
    known: Encoding | None, *replies: TokenAnswer | CallError
) -> tuple[list[str], TokenAnswer | CallError]:
    """Run the flow of a token request. Return the encodings that were sent, and the result."""
    flow = request_token(ClientCredentials("client", "the-secret"), known)
    sent: list[str] = []
    try:
        step: Any = next(flow)
        for reply in replies:
            sent.append(step.content_type)
            step = flow.throw(reply) if isinstance(reply, CallError) else flow.send(reply)
    except StopIteration as stop:
        return sent, stop.value
    except CallError as error:
        return sent, error
    raise AssertionError(step)


TOKEN = TokenAnswer("token")
CLIENT = AuthenticationError("no", status=400, res_code="unauthorized_client")
BARE = AuthenticationError("no", status=401)
ENCODING = AuthenticationError("no", status=400, res_code="invalid_request")
UNCLEAR = UnexpectedAnswerError("no", status=404)
DOWN = ServerError("down", status=503)
BUSY = ThrottledError("busy", status=429)

# known encoding; answers; encodings that were sent; result
REQUESTS: list[tuple[Encoding | None, list[TokenAnswer | CallError], list[str], TokenAnswer | CallError]] = [
    (None, [TOKEN], [FORM], TOKEN),
    ("form", [TOKEN], [FORM], TOKEN),
    ("json", [TOKEN], [JSON], TOKEN),
    (None, [ENCODING, TOKEN], [FORM, JSON], TOKEN),
    ("form", [ENCODING, TOKEN], [FORM, JSON], TOKEN),
    ("json", [ENCODING, TOKEN], [JSON, FORM], TOKEN),
    (None, [UNCLEAR, TOKEN], [FORM, JSON], TOKEN),
    (None, [DOWN], [FORM], DOWN),
    (None, [BUSY], [FORM], BUSY),
    (None, [CLIENT, ENCODING], [FORM, JSON], CLIENT),
    (None, [CLIENT, UNCLEAR], [FORM, JSON], CLIENT),
    (None, [BARE, DOWN], [FORM, JSON], BARE),
    (None, [UNCLEAR, CLIENT], [FORM, JSON], UNCLEAR),
    # The form was refused for its encoding, which says nothing about the credentials.
    (None, [ENCODING, CLIENT], [FORM, JSON], ENCODING),
    (None, [ENCODING, UNCLEAR], [FORM, JSON], UNCLEAR),
    (None, [ENCODING, DOWN], [FORM, JSON], DOWN),
    # The known encoding works, so its refusal is about the credentials.
    ("json", [ENCODING, UNCLEAR], [JSON, FORM], ENCODING),
    ("form", [CLIENT, DOWN], [FORM, JSON], CLIENT),
]


@pytest.mark.parametrize(("known", "replies", "sent", "end"), REQUESTS)
def test_encoding_of_the_token_request(
    known: Encoding | None,
    replies: list[TokenAnswer | CallError],
    sent: list[str],
    end: TokenAnswer | CallError,
) -> None:
    encodings, ended = request(known, *replies)
    assert encodings == sent
    assert ended is end


def test_working_encoding_is_remembered() -> None:
    cache = TokenCache(ManualClock())
    assert cache.encoding(SETTINGS) is None
    cache.get(SETTINGS, lambda: TokenAnswer("token-1", None, "json"))
    assert cache.encoding(SETTINGS) == "json"
    assert cache.encoding(replace(SETTINGS, base_url="https://another")) is None


def test_each_credential_has_its_own_token() -> None:
    server = Server()
    cache = TokenCache(ManualClock())
    others = [
        SETTINGS,
        replace(SETTINGS, base_url="https://other"),
        replace(SETTINGS, credentials=ClientCredentials("client", "another-secret")),
        replace(SETTINGS, credentials=ClientCredentials("another", "the-secret")),
    ]
    assert len({cache.get(settings, server) for settings in others}) == 4


def test_connections_with_the_same_credential_share_a_token() -> None:
    server = Server()
    cache = TokenCache(ManualClock())
    assert cache.get(SETTINGS, server) == cache.get(replace(SETTINGS, connection="second"), server)


def test_static_token_is_never_renewed() -> None:
    server = Server()
    settings = replace(SETTINGS, credentials=StaticToken("ready"))
    cache = TokenCache(ManualClock())
    assert cache.get(settings, server) == "ready"
    assert cache.get(settings, server, stale="ready") is None
    assert server.requests == 0


def test_repr_shows_no_secret() -> None:
    cache = TokenCache(ManualClock())
    cache.get(SETTINGS, Server())
    shown = f"{SETTINGS!r} {credential_key(SETTINGS)!r} {vars(cache)!r}"
    assert "the-secret" not in shown
    assert "token-1" not in shown


class SlowServer(Server):
    """Answers only after ``go`` is set, and signals each request."""

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
    """Start threads that need a token. Return their future results once the first request is under way."""
    with ThreadPoolExecutor(threads) as pool:
        first = pool.submit(cache.get, SETTINGS, server)
        assert server.asked.wait(10)
        others = [pool.submit(cache.get, SETTINGS, server) for _ in range(threads - 1)]
        server.go.set()
    return [future.result for future in (first, *others)]


def test_200_threads_share_one_request() -> None:
    server = SlowServer()
    results = ask_at_once(TokenCache(ManualClock()), server, threads=200)
    assert {result() for result in results} == {"token-1"}
    assert server.requests == 1


def test_refusal_reaches_all_waiting_callers_and_the_next_caller_requests_again() -> None:
    cache, server = TokenCache(ManualClock()), SlowServer(AuthenticationError("no"))
    results = ask_at_once(cache, server, threads=1)
    with pytest.raises(AuthenticationError):
        results[0]()
    assert cache.get(SETTINGS, server) == "token-2"


def test_stopped_thread_does_not_stop_the_others() -> None:
    cache, server = TokenCache(ManualClock()), SlowServer(SystemExit())
    results = ask_at_once(cache, server, threads=5)
    with pytest.raises(SystemExit):
        results[0]()
    assert {result() for result in results[1:]} == {"token-2"}


SECOND = replace(SETTINGS, connection="second")


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test in an event loop with a timeout."""
    asyncio.run(asyncio.wait_for(main, 30))


def in_thread(server: Server) -> Callable[[], Awaitable[TokenAnswer]]:
    """Return a coroutine function that requests a token from a blocking server."""

    async def request() -> TokenAnswer:
        return await asyncio.to_thread(server)

    return request


async def asked(server: SlowServer) -> None:
    assert await asyncio.to_thread(server.asked.wait, 10)


class Crowd:
    """Coroutines and threads that use one cache. One of them comes first."""

    def __init__(self, cache: TokenCache, server: SlowServer, pool: ThreadPoolExecutor) -> None:
        self.cache, self.server, self.pool = cache, server, pool

    def ask_in_thread(self, settings: Settings = SETTINGS) -> Future[str | None]:
        return self.pool.submit(self.cache.get, settings, self.server)

    def ask_in_loop(self, settings: Settings = SETTINGS) -> asyncio.Task[str | None]:
        return asyncio.create_task(self.cache.aget(settings, in_thread(self.server)))

    async def ask(self, *, first: str, coroutines: int, threads: int) -> list[str | BaseException | None]:
        """Start the first caller, then all others, then let the server answer. Return the results, starting with the first caller."""
        leader = asyncio.wrap_future(self.ask_in_thread()) if first == "thread" else self.ask_in_loop()
        await asked(self.server)
        others: list[Awaitable[str | None]] = [self.ask_in_loop(SECOND) for _ in range(coroutines)]
        others += [asyncio.wrap_future(self.ask_in_thread(SECOND)) for _ in range(threads)]
        await asyncio.sleep(0)  # now every coroutine waits for the token
        self.server.go.set()
        return await asyncio.gather(leader, *others, return_exceptions=True)


@pytest.mark.parametrize("first", ["thread", "coroutine"])
def test_100_coroutines_and_50_threads_share_one_request(first: str) -> None:
    server = SlowServer()

    async def main() -> None:
        with ThreadPoolExecutor(51) as pool:
            tokens = await Crowd(TokenCache(ManualClock()), server, pool).ask(
                first=first, coroutines=100, threads=50
            )
            assert tokens == ["token-1"] * 151

    run(main())
    assert server.requests == 1


@pytest.mark.parametrize("first", ["thread", "coroutine"])
def test_refusal_reaches_coroutines_and_threads(first: str) -> None:
    refusal = AuthenticationError("no")
    refusal.connection = "c"
    server = SlowServer(refusal)

    async def main() -> None:
        with ThreadPoolExecutor(6) as pool:
            crowd = Crowd(TokenCache(ManualClock()), server, pool)
            mine, *theirs = await crowd.ask(first=first, coroutines=5, threads=0)
            assert mine is refusal
            for error in theirs:
                assert isinstance(error, AuthenticationError)
                assert error.connection == "second"

    run(main())
    assert server.requests == 1


def test_coroutine_cancelled_during_its_request_does_not_stop_the_others() -> None:
    server = SlowServer()

    async def never() -> TokenAnswer:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def main() -> None:
        cache = TokenCache(ManualClock())
        with ThreadPoolExecutor(5) as pool:
            crowd = Crowd(cache, server, pool)
            first = asyncio.create_task(cache.aget(SETTINGS, never))
            await started.wait()
            tasks = [crowd.ask_in_loop() for _ in range(5)]
            threads = [asyncio.wrap_future(crowd.ask_in_thread()) for _ in range(5)]
            await asyncio.sleep(0)
            server.go.set()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert await asyncio.gather(*tasks, *threads) == ["token-1"] * 10

    started = asyncio.Event()
    run(main())
    assert server.requests == 1


@pytest.mark.parametrize("first", ["thread", "coroutine"])
def test_coroutine_cancelled_while_waiting_does_not_stop_the_others(first: str) -> None:
    server = SlowServer()

    async def main() -> None:
        with ThreadPoolExecutor(6) as pool:
            crowd = Crowd(TokenCache(ManualClock()), server, pool)
            leader = asyncio.wrap_future(crowd.ask_in_thread()) if first == "thread" else crowd.ask_in_loop()
            await asked(server)
            waiting = [crowd.ask_in_loop() for _ in range(5)]
            await asyncio.sleep(0)
            for task in waiting[:4]:
                task.cancel()
            await asyncio.wait(waiting[:4])
            assert all(task.cancelled() for task in waiting[:4])
            server.go.set()
            assert set(await asyncio.gather(leader, waiting[4])) == {"token-1"}

    run(main())
    assert server.requests == 1


def test_dropped_coroutine_does_not_block_the_others() -> None:
    class Never:
        def __await__(self) -> Any:
            yield

    async def request() -> TokenAnswer:
        await Never()
        raise AssertionError

    cache, server = TokenCache(ManualClock()), Server()
    asking = cache.aget(SETTINGS, request)
    with suppress(StopIteration):
        asking.send(None)
    del asking
    gc.collect()
    assert cache.get(SETTINGS, server) == "token-1"


def test_event_loop_is_not_blocked_by_a_requesting_thread() -> None:
    server = SlowServer()

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            crowd = Crowd(TokenCache(ManualClock()), server, pool)
            leader = crowd.ask_in_thread()
            await asked(server)
            mine = crowd.ask_in_loop()
            for _ in range(100):
                await asyncio.sleep(0)
            assert not mine.done()
            server.go.set()  # set by this loop; if the loop were blocked, this would never happen
            assert (await mine, leader.result(10)) == ("token-1", "token-1")

    run(main())


def test_two_event_loops_share_one_request() -> None:
    server = SlowServer()
    cache = TokenCache(ManualClock())

    def loop() -> str | None:
        return asyncio.run(asyncio.wait_for(cache.aget(SETTINGS, in_thread(server)), 30))

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(loop)
        assert server.asked.wait(10)
        second = pool.submit(loop)
        server.go.set()
        assert (first.result(30), second.result(30)) == ("token-1", "token-1")
    assert server.requests == 1


def test_coroutine_renews_a_refused_token_once_and_a_static_one_never() -> None:
    server = Server()

    async def request() -> TokenAnswer:
        return server()

    async def main() -> None:
        cache = TokenCache(ManualClock())
        assert await cache.aget(SETTINGS, request) == "token-1"
        assert await cache.aget(SETTINGS, request, stale="token-1") == "token-2"
        assert await cache.aget(SETTINGS, request, stale="token-1") == "token-2"
        ready = replace(SETTINGS, credentials=StaticToken("ready"))
        assert await cache.aget(ready, request) == "ready"
        assert await cache.aget(ready, request, stale="ready") is None

    run(main())
    assert server.requests == 2


def test_request_from_before_a_clear_does_not_end_a_later_one() -> None:
    cache, forgotten, server = TokenCache(ManualClock()), SlowServer(AuthenticationError("no")), SlowServer()
    with ThreadPoolExecutor(3) as pool:
        old = pool.submit(cache.get, SETTINGS, forgotten)
        assert forgotten.asked.wait(10)
        cache.clear()
        new = pool.submit(cache.get, SETTINGS, server)
        assert server.asked.wait(10)
        forgotten.go.set()
        assert isinstance(old.exception(10), AuthenticationError)
        third = pool.submit(cache.get, SETTINGS, server)
        server.go.set()
        assert (new.result(10), third.result(10)) == ("token-1", "token-1")
    assert server.requests == 1


def test_fork_forgets_requests_under_way() -> None:
    cache, server = TokenCache(ManualClock()), Server()
    cache.get(SETTINGS, server)
    cache.clear()
    assert cache.get(SETTINGS, server) == "token-2"
