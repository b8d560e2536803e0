"""The protocol of one call, without I/O: the generator receives answers, and its next steps are checked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.csrf import CsrfMemory
from airflow_provider_astrobpm.client.errors import (
    AstroZeroError,
    AuthenticationError,
    CallError,
    InterruptedCallError,
    NotSentError,
    RefusedError,
    ServerError,
    ThrottledError,
    TokenRefusedError,
    UnexpectedAnswerError,
)
from airflow_provider_astrobpm.client.protocol import NeedToken, Request, Response, call_flow
from airflow_provider_astrobpm.client.resend_policy import may_resend

TOKEN, FRESH, SECRET = "token-one-123", "token-two-456", "the-client-secret"
INSTANCE = {"id": "1", "name": "A", "state": "Running"}


def ok(result: Any = None) -> Response:
    return answer(200, {"resCode": "0", "resMsg": "Success", "result": result})


def answer(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, headers or {"content-type": "application/json"}, raw)


def run(
    operation: operations.Operation[Any], *replies: Any, csrf: bool | CsrfMemory = False
) -> tuple[Any, list[Any]]:
    """Send replies to the call flow. Return its result and its steps."""
    method = csrf if isinstance(csrf, CsrfMemory) else CsrfMemory() if csrf else None
    talk = call_flow(operation, connection="the_connection", csrf=method)
    asked: list[Any] = []
    try:
        asked.append(next(talk))
        for reply in replies:
            step = talk.throw(reply) if isinstance(reply, Exception) else talk.send(reply)
            asked.append(step)
    except StopIteration as stop:
        return stop.value, asked
    pytest.fail(f"the exchange wants more: {asked[-1]}")


def test_call_requests_a_token_and_sends_it_in_the_header() -> None:
    result, asked = run(operations.change_state("1", "suspend"), TOKEN, ok(INSTANCE))
    assert result.id == "1"
    need, request = asked
    assert need == NeedToken()
    assert isinstance(request, Request)
    assert request.headers["access-token"] == TOKEN
    assert TOKEN not in request.target
    assert TOKEN not in repr(asked)


@pytest.mark.parametrize(
    "refusal",
    [
        answer(401, {"resCode": "405230602", "resMsg": "no"}),
        answer(401, b"<html>who are you</html>", {"content-type": "text/html"}),
        answer(400, {"resCode": "405230602", "resMsg": "no"}),
        answer(403, {"resCode": "405230603", "resMsg": "no"}),
        answer(200, {"resCode": "405230602", "resMsg": "no"}),
    ],
)
class TestRefusedToken:
    def test_is_renewed_once_and_the_call_is_resent(self, refusal: Response) -> None:
        result, asked = run(operations.start("A"), TOKEN, refusal, FRESH, ok(INSTANCE))
        assert result.id == "1"
        assert [type(step) for step in asked] == [NeedToken, Request, NeedToken, Request]
        assert asked[2].stale == TOKEN
        assert asked[3].headers["access-token"] == FRESH

    @pytest.mark.parametrize(
        "operation",
        [operations.start("A"), operations.query("Running"), operations.change_state("1", "resume")],
    )
    def test_refused_fresh_token_is_transient_and_not_a_wrong_secret(
        self, operation: operations.Operation[Any], refusal: Response
    ) -> None:
        words = "an access token that was just issued was refused"
        with pytest.raises(TokenRefusedError, match=words) as caught:
            run(operation, TOKEN, refusal, FRESH, refusal)
        assert "'the_connection'" in str(caught.value)
        assert caught.value.was_processed is False
        assert not isinstance(caught.value, AuthenticationError)
        assert may_resend(caught.value, resend_if_in_doubt=operation.resend_if_in_doubt)

    def test_fails_the_call_if_there_is_no_other_token(self, refusal: Response) -> None:
        with pytest.raises(AuthenticationError) as caught:
            run(operations.start("A"), TOKEN, refusal, None)
        assert caught.value.status == refusal.status


# Answers that may be about the token or about something else: the token is renewed once, and the second answer counts.
POSSIBLY = [
    (answer(403, {"resCode": "405239999", "resMsg": "no"}), RefusedError),
    (answer(403, b"<html>no</html>", {"content-type": "text/html"}), RefusedError),
    (answer(403, b""), RefusedError),
    (answer(500, {"resCode": "405230602", "resMsg": "no"}), ServerError),
    (answer(503, {"resCode": "405230603", "resMsg": "no"}), ServerError),
]


class TestTokenPossiblyAtFault:
    @pytest.mark.parametrize(("reply", "kind"), POSSIBLY)
    def test_is_renewed_once_for_a_read(self, reply: Response, kind: type[CallError]) -> None:
        _, asked = run(operations.query("Running"), TOKEN, reply, FRESH, ok([]))
        assert [type(step) for step in asked] == [NeedToken, Request, NeedToken, Request]
        assert asked[2] == NeedToken(TOKEN, f"query {reply.status}")
        assert asked[3].headers["access-token"] == FRESH

    @pytest.mark.parametrize(("reply", "kind"), POSSIBLY)
    def test_second_answer_counts(self, reply: Response, kind: type[CallError]) -> None:
        doubts: list[str] = []
        talk = call_flow(
            operations.query("Running"), connection="the_connection", note_useless_renewal=doubts.append
        )
        for each in (None, TOKEN, reply, FRESH):
            talk.send(each)
        with pytest.raises(kind) as caught:
            talk.send(reply)
        assert doubts == [f"query {reply.status}"]
        assert (type(caught.value), caught.value.status) == (kind, reply.status)

    @pytest.mark.parametrize(("reply", "kind"), POSSIBLY)
    def test_first_answer_counts_if_there_is_no_other_token(
        self, reply: Response, kind: type[CallError]
    ) -> None:
        with pytest.raises(kind):
            run(operations.query("Running"), TOKEN, reply, None)

    @pytest.mark.parametrize("reply", [reply for reply, kind in POSSIBLY if kind is ServerError])
    @pytest.mark.parametrize("operation", [operations.start("A"), operations.delete("1")])
    def test_start_is_not_resent_after_a_5xx(
        self, operation: operations.Operation[Any], reply: Response
    ) -> None:
        with pytest.raises(ServerError) as caught:
            run(operation, TOKEN, reply)
        assert caught.value.was_processed is None

    @pytest.mark.parametrize(
        ("operation", "reply"),
        [
            (operation, reply)
            for operation in (
                operations.start("A"),
                operations.delete("1"),
                operations.change_state("1", "resume"),
            )
            for reply, kind in POSSIBLY
            if kind is RefusedError or operation.resend_if_in_doubt
        ],
    )
    class TestForAWrite:
        """A safe call shows whether the token is at fault."""

        def test_is_renewed_if_a_safe_call_is_refused_too(
            self, operation: operations.Operation[Any], reply: Response
        ) -> None:
            _, asked = run(operation, TOKEN, reply, reply, FRESH, ok(INSTANCE))
            need, first, probe, need_again, second = asked
            assert (need, need_again) == (NeedToken(), NeedToken(TOKEN))
            assert (probe.method, probe.kind, probe.headers["access-token"]) == ("GET", "query", TOKEN)
            assert (first.method, second.method) == (operation.method, operation.method)

        @pytest.mark.parametrize("probe", [ok([]), answer(503, b""), InterruptedCallError("no answer")])
        def test_refusal_counts_if_a_safe_call_succeeds(
            self, probe: Any, operation: operations.Operation[Any], reply: Response
        ) -> None:
            with pytest.raises((RefusedError, ServerError)) as caught:
                run(operation, TOKEN, reply, probe)
            assert caught.value.attempt == operation.attempt
            assert caught.value.status == reply.status

        def test_refused_fresh_token_is_not_a_refusal_of_the_call(
            self, operation: operations.Operation[Any], reply: Response
        ) -> None:
            with pytest.raises((TokenRefusedError, ServerError)) as caught:
                run(operation, TOKEN, reply, reply, FRESH, reply, reply)
            assert caught.value.is_transient

        def test_is_a_refusal_if_a_safe_call_accepts_the_fresh_token(
            self, operation: operations.Operation[Any], reply: Response
        ) -> None:
            with pytest.raises((RefusedError, ServerError)):
                run(operation, TOKEN, reply, reply, FRESH, reply, ok([]))


UNAUTHORISED = answer(401, {"resCode": "405230602", "resMsg": "no"})
FORBIDDEN = answer(403, b"")


class TestCsrfToken:
    def test_is_fetched_for_a_write(self) -> None:
        _, asked = run(operations.change_state("1", "resume"), TOKEN, ok("csrf-1"), ok(INSTANCE), csrf=True)
        assert asked[1].target == operations.CSRF_PATH
        assert asked[2].headers["csrf-token"] == "csrf-1"

    @pytest.mark.parametrize("operation", [operations.start("A"), operations.change_state("1", "resume")])
    def test_is_fetched_again_for_a_new_access_token(self, operation: operations.Operation[Any]) -> None:
        """A CSRF token belongs to the access token with which it was fetched."""
        replies = (TOKEN, ok("csrf-1"), UNAUTHORISED, FRESH, ok("csrf-2"), ok(INSTANCE))
        _, asked = run(operation, *replies, csrf=True)
        sent = [step for step in asked if isinstance(step, Request)]
        assert [step.headers["access-token"] for step in sent] == [TOKEN, TOKEN, FRESH, FRESH]
        assert [step.headers.get("csrf-token") for step in sent] == [None, "csrf-1", None, "csrf-2"]

    def test_is_fetched_with_a_new_access_token_after_a_refusal(self) -> None:
        _, asked = run(
            operations.start("A"), TOKEN, UNAUTHORISED, FRESH, ok("csrf-2"), ok(INSTANCE), csrf=True
        )
        assert asked[-1].headers["access-token"] == FRESH
        assert asked[-1].headers["csrf-token"] == "csrf-2"

    @pytest.mark.parametrize(
        ("replies", "kind"),
        [
            ([UNAUTHORISED, FRESH, UNAUTHORISED], TokenRefusedError),
            ([FORBIDDEN, FORBIDDEN, FRESH, FORBIDDEN, FORBIDDEN], TokenRefusedError),
            ([FORBIDDEN, ok([])], RefusedError),
        ],
    )
    def test_failure_to_fetch_says_that_the_call_was_not_processed(
        self, replies: list[Any], kind: type[CallError]
    ) -> None:
        with pytest.raises(kind, match="Could not get a CSRF token on connection") as caught:
            run(operations.start("A"), TOKEN, *replies, csrf=True)
        assert caught.value.was_processed is False

    @pytest.mark.parametrize("status", [404, 405, 501])
    def test_is_fetched_by_the_other_method_if_the_first_is_not_offered(self, status: int) -> None:
        """The working method is tried first from then on, until it is no longer offered."""
        gone, known = answer(status, {"resCode": "405230061", "resMsg": "no"}), CsrfMemory()

        def methods(*replies: Any) -> list[str]:
            _, asked = run(operations.start("A"), TOKEN, *replies, ok("csrf"), ok(INSTANCE), csrf=known)
            assert asked[-1].headers["csrf-token"] == "csrf"
            return [step.method for step in asked if getattr(step, "kind", "") == "csrf"]

        assert methods() == ["POST"]
        assert methods(gone) == ["POST", "GET"]
        assert methods() == ["GET"]
        assert methods(UNAUTHORISED, FRESH) == ["GET", "GET"]
        assert methods(gone) == ["GET", "POST"]
        assert methods() == ["POST"]

    @pytest.mark.parametrize("status", [400, 403, 500])
    def test_other_method_is_not_tried_if_the_first_is_offered(self, status: int) -> None:
        replies = [answer(status, {"resCode": "405239999", "resMsg": "no"})]
        replies += [ok([])] if status == 403 else []
        with pytest.raises(CallError):
            run(operations.start("A"), TOKEN, *replies, csrf=True)

    def test_error_shows_the_first_method_if_neither_is_offered(self) -> None:
        first, second = (answer(405, {"resCode": "405230061", "resMsg": words}) for words in ("one", "two"))
        with pytest.raises(RefusedError, match="Could not get a CSRF token") as caught:
            run(operations.start("A"), TOKEN, first, second, csrf=True)
        assert (caught.value.res_msg, caught.value.was_processed, caught.value.never_reached) == (
            "one",
            False,
            True,
        )


def test_a_read_never_fetches_a_csrf_token() -> None:
    _, asked = run(operations.query("Running"), TOKEN, ok([]), csrf=True)
    assert len(asked) == 2


REFUSED = {"resCode": "405239999", "resMsg": "no such BPM"}

# answer, error, whether the server acted, words in the message
ERRORS: list[tuple[Response, type[CallError], bool | None, str]] = [
    (answer(400, REFUSED), RefusedError, False, "resCode '405239999', resMsg 'no such BPM'"),
    (answer(404, REFUSED), RefusedError, False, "HTTP 404"),
    (answer(404, b"nope", {"content-type": "text/plain"}), RefusedError, False, "HTTP 404"),
    (answer(200, REFUSED), RefusedError, False, "HTTP 200, resCode '405239999'"),
    (answer(500, REFUSED), ServerError, None, "HTTP 500, resCode '405239999'"),
    (answer(503, b"<html>"), ServerError, None, "HTTP 503"),
    (answer(500, {"resCode": "405230602", "resMsg": "no"}), ServerError, None, "405230602"),
    (answer(408, b""), InterruptedCallError, None, "HTTP 408"),
    (answer(400, {"resCode": "0"}), UnexpectedAnswerError, None, "HTTP 400"),
    (answer(200, b"[" * 200_000), UnexpectedAnswerError, None, "not the documented JSON"),
    (answer(429, b"", {"retry-after": "7"}), ThrottledError, False, "HTTP 429"),
    (
        answer(302, b"", {"location": "https://login.example/?token=t"}),
        UnexpectedAnswerError,
        None,
        "login.example",
    ),
    (answer(307, b"", {"location": "/elsewhere"}), UnexpectedAnswerError, None, "another path"),
    (answer(302, b"", {"location": "http://[::"}), UnexpectedAnswerError, None, "redirects"),
    (answer(200, {"error": "server_error"}), UnexpectedAnswerError, None, "not the documented JSON"),
    (answer(200, b"<html>hello</html>"), UnexpectedAnswerError, None, "not the documented JSON"),
    (answer(200, b""), UnexpectedAnswerError, None, "0 bytes"),
    (answer(200, b"\xff\xfe"), UnexpectedAnswerError, None, "not the documented JSON"),
    (answer(200, []), UnexpectedAnswerError, None, "not the documented JSON"),
    (answer(200, {"result": INSTANCE}), UnexpectedAnswerError, None, "not the documented JSON"),
    (
        answer(200, {"resCode": False, "result": INSTANCE}),
        UnexpectedAnswerError,
        None,
        "not the documented JSON",
    ),
    (
        ok({"name": "A", "state": "Running"}),
        UnexpectedAnswerError,
        None,
        "does not have the documented form.*id",
    ),
    (ok({**INSTANCE, "id": None}), UnexpectedAnswerError, None, "does not have the documented form.*id"),
    (ok({**INSTANCE, "id": ""}), UnexpectedAnswerError, None, "does not have the documented form.*id"),
    (answer(400, {"resCode": 405239999}), RefusedError, False, "resCode '405239999'"),
    (answer(400, {**REFUSED, "resMsg": {"zh": "没有"}}), RefusedError, False, "没有"),
    (answer(400, {**REFUSED, "resMsg": "no \0such \ud83d"}), RefusedError, False, "no \ufffdsuch \ufffd"),
    (answer(400, b"\xef\xbb\xbf" + json.dumps(REFUSED).encode()), RefusedError, False, "no such BPM"),
    (answer(400, b'{"resCode": "1", "resMsg": "line\nbreak"}'), RefusedError, False, "line break"),
    (ok([INSTANCE]), UnexpectedAnswerError, None, "does not have the documented form"),
    (ok(None), UnexpectedAnswerError, None, "does not have the documented form"),
    (answer(200, {"resCode": "0"}), UnexpectedAnswerError, None, "does not have the documented form"),
]


@pytest.mark.parametrize(("response", "kind", "was_processed", "words"), ERRORS)
def test_error_says_what_was_attempted_where_and_what_the_server_said(
    response: Response, kind: type[CallError], was_processed: bool | None, words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        run(operations.start("Approval"), TOKEN, response)
    assert type(caught.value) is kind
    assert caught.value.was_processed is was_processed
    assert str(caught.value).startswith(
        "Could not start an instance of BPM 'Approval' on connection 'the_connection': "
    )
    assert caught.value.status == response.status


CLEAN = ok([INSTANCE])


@pytest.mark.parametrize(
    "reply",
    [
        answer(200, {"resCode": 0, "result": [INSTANCE]}),
        answer(200, {"resCode": "0", "resMsg": {"en": "Success"}, "result": [INSTANCE]}),
        answer(200, {"resCode": "0", "resMsg": "\ud83d", "result": [INSTANCE]}),
        answer(200, b"\xef\xbb\xbf" + CLEAN.body),
        answer(200, CLEAN.body.replace(b"Success", b"Succ\xffess")),
        answer(200, CLEAN.body.replace(b"Success", b"Succ\tess")),
        answer(200, CLEAN.body.replace(b"Success", b"Succ\0ess")),
    ],
    ids=["number", "message", "half pair", "byte order mark", "no UTF-8", "tab", "raw NUL"],
)
def test_irrelevant_parts_of_an_answer_may_be_malformed(reply: Response) -> None:
    (row,), _ = run(operations.query("Running"), TOKEN, reply)
    assert (row.id, row.state) == ("1", "Running")


@pytest.mark.parametrize(
    "envelope",
    [{}, {"result": None}, {"result": {}}, {"result": ""}, {"result": []}],
    ids=["absent", "null", "object", "text", "array"],
)
@pytest.mark.parametrize(
    "operation", [operations.query("Running"), operations.definitions()], ids=["query", "definitions"]
)
def test_every_form_of_an_empty_list(envelope: dict[str, Any], operation: operations.Operation[Any]) -> None:
    result, _ = run(operation, TOKEN, answer(200, {"resCode": "0", **envelope}))
    assert result == []


def test_token_answer_with_a_byte_order_mark() -> None:
    body = json.dumps({"access_token": TOKEN, "expires_in": 600}).encode()
    result, _ = run(operations.get_token("c", SECRET), answer(200, b"\xef\xbb\xbf" + body))
    assert (result.access_token, result.expires_in) == (TOKEN, 600)


def test_numeric_code_of_a_bad_token_is_recognised() -> None:
    refusal = answer(403, {"resCode": 405230602, "resMsg": "no"})
    result, asked = run(operations.change_state("1", "resume"), TOKEN, refusal, FRESH, ok(INSTANCE))
    assert (result.id, asked[3].headers["access-token"]) == ("1", FRESH)


def test_retry_after_header_is_kept() -> None:
    with pytest.raises(ThrottledError) as caught:
        run(operations.start("A"), TOKEN, answer(429, b"", {"retry-after": "7"}))
    assert caught.value.retry_after == "7"


@pytest.mark.parametrize("status", [400, 401])
def test_refused_credentials(status: int) -> None:
    body = {"error": "unauthorized_client", "error_description": "unknown client"}
    with pytest.raises(AuthenticationError, match="'unauthorized_client', resMsg 'unknown client'") as caught:
        run(operations.get_token("client", SECRET), answer(status, body))
    assert "Could not get a token on connection 'the_connection'" in str(caught.value)
    assert SECRET not in str(caught.value)


PLATFORM, OAUTH = {"resCode": "405230099", "resMsg": "no"}, {"error": "unauthorized_client"}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (status, body)
        for status in (400, 403, 404)
        for body in (b"<html>", PLATFORM, OAUTH)
        if (status, body) != (400, OAUTH)
    ],
)
def test_other_answers_of_a_token_endpoint_are_not_a_wrong_secret(status: int, body: Any) -> None:
    words = f"does not say that the client id or the secret is wrong.*HTTP {status}"
    with pytest.raises(UnexpectedAnswerError, match=words):
        run(operations.get_token("client", SECRET), answer(status, body))


def test_refusal_without_a_body() -> None:
    with pytest.raises(AuthenticationError, match="HTTP 401"):
        run(operations.get_token("client", SECRET), answer(401, b"<html>"))


@pytest.mark.parametrize("form", [SECRET, "the%2Fclient%2Fsecret"])
def test_secret_repeated_by_the_server_is_masked(form: str) -> None:
    body = {"error": "bad", "error_description": f"no client with {form} here"}
    with pytest.raises(AuthenticationError) as caught:
        run(
            operations.get_token("client", SECRET if form == SECRET else "the/client/secret"),
            answer(400, body),
        )
    assert form not in str(caught.value)
    assert "no client with *** here" in str(caught.value)


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "t\u00f6ken", "\u20ac"])
def test_token_that_does_not_fit_a_header_is_refused(token: str) -> None:
    with pytest.raises(UnexpectedAnswerError, match="access_token is not valid in a header") as caught:
        run(operations.get_token("client", SECRET), answer(200, {"access_token": token}))
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize("error", [ServerError("x"), InterruptedCallError("x"), ThrottledError("x")])
def test_failed_token_request_says_that_the_call_was_not_processed(error: CallError) -> None:
    with pytest.raises(type(error)) as caught:
        run(operations.start("A"), error)
    assert (caught.value.was_processed, caught.value.is_transient) == (False, True)
    assert not may_resend(caught.value, resend_if_in_doubt=True)  # the token request has used up its attempts


def test_failed_csrf_request_says_that_the_call_was_not_processed() -> None:
    with pytest.raises(ServerError, match="Could not get a CSRF token") as caught:
        run(operations.start("A"), TOKEN, answer(503, b""), csrf=True)
    assert caught.value.was_processed is False
    assert caught.value.is_transient is True


@pytest.mark.parametrize(
    ("replies", "csrf", "never_reached"),
    [
        ([ServerError("x")], False, True),
        ([TOKEN, answer(503, b"")], True, True),
        ([TOKEN, NotSentError("x")], False, True),
        ([TOKEN, answer(401, b""), ServerError("x")], False, False),
        ([TOKEN, answer(401, b""), NotSentError("x")], False, False),
        ([TOKEN, answer(401, b""), "another", NotSentError("x")], False, False),
        ([TOKEN, ok("csrf"), answer(401, b""), "another", answer(503, b"")], True, False),
        ([TOKEN, answer(400, b"")], False, False),
    ],
    ids=[
        "no token",
        "no CSRF token",
        "no connection",
        "refused, and then no other token",
        "refused, and then no way to the token endpoint",
        "refused, and then no connection",
        "refused, and then no CSRF token",
        "refused",
    ],
)
def test_never_reached_is_set_only_if_nothing_was_sent(
    replies: list[Any], csrf: bool, never_reached: bool
) -> None:
    """A gateway may refuse a request after it took effect, so any sent request may have been processed."""
    with pytest.raises(CallError) as caught:
        run(operations.start("A"), *replies, csrf=csrf)
    assert caught.value.never_reached is never_reached


def test_token_answer_without_a_lifetime() -> None:
    result, _ = run(
        operations.get_token("c", SECRET), answer(200, {"access_token": TOKEN, "token_type": "Bearer"})
    )
    assert (result.access_token, result.expires_in) == (TOKEN, None)
    assert TOKEN not in repr(result)


@pytest.mark.parametrize(
    ("expires_in", "read"),
    [(600, 600), (7.5, 7.5), ("600", 600), (" 600 ", 600), ("7.5", 7.5)]
    + [
        (other, None) for other in (0, -1, "0", "-600", "", "soon", "nan", "inf", None, True, [600], {"s": 1})
    ],
)
def test_lifetime_of_a_token_in_several_forms(expires_in: Any, read: float | None) -> None:
    body = {"access_token": TOKEN, "expires_in": expires_in}
    result, _ = run(operations.get_token("c", SECRET), answer(200, body))
    assert (result.access_token, result.expires_in) == (TOKEN, read)


def test_lifetime_beyond_the_range_of_floats() -> None:
    body = b'{"access_token": "token", "expires_in": 1e999}'
    result, _ = run(operations.get_token("c", SECRET), answer(200, body))
    assert result.expires_in is None


@pytest.mark.parametrize("body", [{}, {"access_token": 5}, []])
def test_token_answer_with_another_shape_is_refused(body: Any) -> None:
    with pytest.raises(UnexpectedAnswerError) as caught:
        run(operations.get_token("c", SECRET), answer(200, body))
    assert TOKEN not in str(caught.value)


def test_transport_error_says_what_was_attempted() -> None:
    with pytest.raises(InterruptedCallError) as caught:
        run(operations.delete("002N1"), TOKEN, InterruptedCallError("no answer came"))
    assert str(caught.value).startswith(
        "Could not delete instance '002N1' on connection 'the_connection': no answer"
    )


def test_server_words_are_shortened_and_the_token_masked() -> None:
    with pytest.raises(RefusedError) as caught:
        run(
            operations.start("A"),
            TOKEN,
            answer(400, {"resCode": "1", "resMsg": f"bad {TOKEN}\nline two " + "x" * 5000}),
        )
    text = str(caught.value)
    assert "bad *** line two" in text
    assert TOKEN not in text
    assert len(text) < 1000


@given(status=st.integers(100, 599), body=st.binary(max_size=60), media=st.text(max_size=10))
def test_any_answer_gives_a_result_or_a_call_error(status: int, body: bytes, media: str) -> None:
    talk = call_flow(operations.start("A"), connection="the_connection")
    reply = Response(status, {"content-type": media}, body)
    try:
        step = next(talk)
        for _ in range(4):  # a token, the start, a safe call, another token
            step = talk.send((None if step.stale else TOKEN) if isinstance(step, NeedToken) else reply)
    except (StopIteration, AstroZeroError):
        return
    else:
        pytest.fail(f"the exchange wants more: {step}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "name", "state", "x"]), inner)
    ),
    max_leaves=6,
)


@given(code=st.sampled_from(["0", "1", "", "405230602"]) | st.integers(), result=JSON)
def test_any_result_gives_a_result_or_a_call_error(code: Any, result: Any) -> None:
    reply = answer(200, {"resCode": code, "result": result})
    try:
        instance, _ = run(operations.start("A"), TOKEN, reply, None)
    except AstroZeroError:
        return
    assert str(code) == "0"
    assert isinstance(result, dict)
    assert instance.id == str(result["id"])


@pytest.mark.parametrize("depth", range(700, 1000, 5))
def test_a_message_of_any_depth_is_the_servers_refusal(depth: int) -> None:
    body = b'{"resCode": "1", "resMsg": %b%b}' % (b"[" * depth, b"]" * depth)
    with pytest.raises(CallError) as caught:
        run(operations.query("Running"), "token", Response(400, {}, body))
    assert type(caught.value) is RefusedError
