"""Every invalid input gives one clear error with its type, the connection and the server's code, and without secrets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors, states
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.hooks import masking
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook

HookMaker = Callable[..., AstroZeroHook]
Call = Callable[[AstroZeroHook], Any]

READ: Call = lambda hook: hook.query_instances(["Running"])  # noqa: E731
START: Call = lambda hook: hook.start_instance("SupplierOnboarding")  # noqa: E731


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All tokens that hooks use during the test."""
    seen: list[str] = []
    monkeypatch.setattr(masking, "mask_secret", seen.append)
    monkeypatch.setattr(masking, "MASKS", masking.TokenMasks())
    return seen


def check(error: BaseException, *, words: list[str], secrets: list[str]) -> None:
    """Check the message of an error and of all errors chained to it."""
    text = str(error)
    assert "'my_conn'" in text
    for word in words:
        assert word in text
    seen: BaseException | None = error
    while seen is not None:
        for secret in secrets:
            assert secret not in f"{seen!s} {seen!r} {vars(seen)!r}"
        assert not getattr(seen, "request", None), "it holds the request, and so the token"
        seen = seen.__cause__ or seen.__context__


# The request, the error, and words of its message.
REFUSALS: list[tuple[str, Call, type[errors.AstroZeroError], list[str]]] = [
    (
        "unknown process",
        lambda hook: hook.start_instance("NoSuch"),
        errors.RefusedError,
        ["405230020", "'NoSuch'"],
    ),
    (
        "inactive process",
        lambda hook: hook.start_instance("RetiredProcess"),
        errors.RefusedError,
        ["405230021"],
    ),
    (
        "unknown version",
        lambda hook: hook.start_instance("InvoiceCheck", version="9.9.9"),
        errors.RefusedError,
        ["405230022", "version 9.9.9"],
    ),
    ("unknown instance", lambda hook: hook.get_instance("002Nx"), errors.InstanceNotFoundError, ["'002Nx'"]),
    (
        "unknown instance to suspend",
        lambda hook: hook.suspend_instance("002Nx"),
        errors.InstanceNotFoundError,
        ["Could not suspend instance '002Nx'", "405230030"],
    ),
    (
        "unknown instance to terminate, strictly",
        lambda hook: hook.terminate_instance("002Nx", if_closed="fail"),
        errors.InstanceNotFoundError,
        ["'002Nx'"],
    ),
    (
        "unknown instance to delete",
        lambda hook: hook.delete_instance("002Nx"),
        errors.InstanceNotFoundError,
        ["Could not delete instance '002Nx'", "405230030"],
    ),
    (
        "variables of an unknown instance",
        lambda hook: hook.set_variables("002Nx", {"a": 1}),
        errors.RefusedError,
        ["set variables of instance '002Nx'", "405230030"],
    ),
    (
        "unknown definition",
        lambda hook: hook.get_definition("001Lx"),
        errors.RefusedError,
        ["405230040", "'001Lx'"],
    ),
]


@pytest.mark.parametrize("status", [400, 404, 200])
@pytest.mark.parametrize(
    ("call", "kind", "words"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS]
)
def test_refusals_of_the_server(
    call: Call,
    kind: type[errors.AstroZeroError],
    words: list[str],
    status: int,
    make_hook: HookMaker,
    emulator: EmulatorControl,
    emulator_server: EmulatorServer,
    tokens: list[str],
) -> None:
    emulator.switch(refusal_status=status)
    hook = make_hook()
    with pytest.raises(kind) as caught:
        call(hook)
    assert type(caught.value) is kind
    secrets = [emulator_server.settings.client_secret, *tokens]
    assert tokens
    check(caught.value, words=words, secrets=secrets)


# The fault and its parameters, the error of a read, and words of its message.
ANSWERS: list[tuple[str, dict[str, Any], type[errors.CallError], list[str]]] = [
    ("not_json", {}, errors.UnexpectedAnswerError, ["HTTP 200"]),
    ("html", {"status": 200}, errors.UnexpectedAnswerError, ["text/html", "HTTP 200"]),
    ("wrong_shape", {}, errors.UnexpectedAnswerError, ["HTTP 200"]),
    ("other_fields", {"fields": {"id": None}}, errors.UnexpectedAnswerError, ["id"]),
    ("redirect", {}, errors.UnexpectedAnswerError, ["redirect"]),
    (
        "oversize",
        {"size": 200_000},
        errors.UnexpectedAnswerError,
        ["longer than 100000 bytes", "max_response_bytes"],
    ),
    ("truncate", {}, errors.InterruptedCallError, ["the connection was lost"]),
    ("drop_before", {}, errors.InterruptedCallError, ["the connection was lost"]),
    ("drop_after", {}, errors.InterruptedCallError, ["the connection was lost"]),
    ("code_in_200", {"res_code": "405231234"}, errors.RefusedError, ["HTTP 200", "405231234"]),
    ("status", {"status": 500, "res_code": "405231234"}, errors.ServerError, ["HTTP 500", "405231234"]),
    ("status", {"status": 503}, errors.ServerError, ["HTTP 503"]),
    ("status", {"status": 429}, errors.ThrottledError, ["HTTP 429"]),
    ("status", {"status": 404, "res_code": "405231234"}, errors.RefusedError, ["HTTP 404", "405231234"]),
    # The token may be at fault, so another one is requested. Here that request is refused as well.
    (
        "status",
        {"status": 403, "res_code": "405231234"},
        errors.UnexpectedAnswerError,
        ["Could not get a token", "HTTP 403", "405231234"],
    ),
]


@pytest.mark.parametrize(("fault", "parameters", "kind", "words"), ANSWERS)
@pytest.mark.parametrize("call", [READ, START], ids=["read", "start"])
def test_faulty_answers(
    call: Call,
    fault: str,
    parameters: dict[str, Any],
    kind: type[errors.CallError],
    words: list[str],
    make_hook: HookMaker,
    emulator: EmulatorControl,
    emulator_server: EmulatorServer,
    tokens: list[str],
) -> None:
    emulator.move(emulator.start("SupplierOnboarding")["id"], state="Running")
    emulator.fault("any", fault, skip=1, times=10, **parameters)  # the first request is for the token
    hook = make_hook({"max_response_bytes": 100_000})
    refused_before = parameters.get("status") == 403
    ambiguous = call is START and kind.was_processed is None and not refused_before
    with pytest.raises(errors.AmbiguousStartError if ambiguous else kind) as caught:
        call(hook)
    assert emulator.counts()["start"] <= (1 if ambiguous else 2)
    check(caught.value, words=words, secrets=[emulator_server.settings.client_secret, *tokens])
    assert tokens


def test_wrong_secret(make_hook: HookMaker, emulator_server: EmulatorServer) -> None:
    with pytest.raises(errors.AuthenticationError) as caught:
        START(make_hook(password="a-wrong-secret"))
    check(caught.value, words=["HTTP 400", "unauthorized_client"], secrets=["a-wrong-secret"])


def test_refused_static_token(make_hook: HookMaker) -> None:
    hook = make_hook({"access_token": "a-ready-token"}, login=None, password=None)
    with pytest.raises(errors.AuthenticationError) as caught:
        START(hook)
    check(
        caught.value,
        words=["HTTP 401", "405230602", "the access token was refused"],
        secrets=["a-ready-token"],
    )


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("http://127.0.0.1:{free}", "Connection refused"),
        ("https://no-such-host.invalid", "could not be reached"),
    ],
)
def test_unreachable_server(host: str, words: str, make_hook: HookMaker, free_port: int) -> None:
    hook = make_hook(host=host.format(free=free_port), port=None, schema=None)
    with pytest.raises(errors.NotSentError) as caught:
        START(hook)
    check(caught.value, words=[words, "Could not get a token"], secrets=["emulator-only-secret"])


@pytest.mark.parametrize("extra", ["verify", "client_cert"])
def test_missing_certificate_file(
    extra: str, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_MY_CONN",
        emulator_server.connection_json()[:-1] + f', "extra": {{"{extra}": "/no/such/file.pem"}}}}',
    )
    with pytest.raises(errors.SettingsError, match=f"'my_conn'.*extra '{extra}' names /no/such/file.pem"):
        AstroZeroHook("my_conn").get_conn()


ARGUMENTS: list[tuple[Call, str]] = [
    (lambda hook: hook.start_instance(""), "bpm_name"),
    (lambda hook: hook.start_instance(7.5), "bpm_name"),  # type: ignore[arg-type]
    (
        lambda hook: hook.start_instance("A", variables={"a": object()}),
        "variables.'a'. cannot be sent: it is of type object",
    ),
    (lambda hook: hook.query_instances(["Finished"]), "'Finished'"),
    (lambda hook: hook.query_instances("Running"), "states must be a list of texts, not 'Running'"),
    (lambda hook: hook.query_instances([]), "states must not be empty"),
    (
        lambda hook: hook.get_instance("\ud800"),
        "instance_id must be a text without NUL characters and lone surrogates",
    ),
    (lambda hook: hook.suspend_instance("002N\0"), "instance_id must be a text without NUL"),
    (lambda hook: hook.start_instance("A", title="a\0b"), "title must be a text without NUL"),
    (lambda hook: hook.start_instance("A", version="1\ud83d"), "version must be a text without NUL"),
    (
        lambda hook: hook.start_instance("A", variables={"a\0": 1}),
        "each name in variables must be a text without",
    ),
    (
        lambda hook: hook.start_instance("A", variables={"a": {"b": ["\0"]}}),
        r"variables\['a'\]\['b'\]\[0\] cannot be sent: it is a text with a NUL",
    ),
    (
        lambda hook: hook.start_instance("A", variables={"a": {"\udc00": 1}}),
        r"variables\['a'\] cannot be sent: it is a mapping with a key that is a text with a NUL",
    ),
    (
        lambda hook: hook.set_variables("1", {"b": "\0"}),
        "variables.'b'. cannot be sent: it is a text with a NUL",
    ),
    (
        lambda hook: hook.start_instance("None"),
        "bpm_name must not be 'None': a template renders this",
    ),
    (lambda hook: hook.start_instance("A", business_key=" None "), "business_key must not be ' None '"),
    (lambda hook: hook.start_instance("A", business_key="k\ufffd"), "business_key must not contain U\\+FFFD"),
    (lambda hook: hook.start_instance("A", version="undefined"), "version must not be 'undefined'"),
    (lambda hook: hook.get_instance("null"), "instance_id must not be 'null'"),
    (lambda hook: hook.find_instance("None"), "business_key must not be 'None'"),
    (lambda hook: hook.find_instance("k", bpm_name="None"), "bpm_name must not be 'None'"),
    (lambda hook: hook.delete_instance("None", if_missing="succeed"), "instance_id must not be 'None'"),
    (lambda hook: hook.terminate_instance("[]"), "instance_id must not be '\\[\\]'"),
    (lambda hook: hook.set_variables("{}", {"a": 1}), "instance_id must not be '{}'"),
    (lambda hook: hook.query_instances(["None"]), "each of states must not be 'None'"),
    (lambda hook: hook.query_instances(["Running"], business_key="None"), "business_key must not be 'None'"),
    (
        lambda hook: hook.query_instances(["Running"], bpm_name=""),
        "bpm_name must be a text that is not blank",
    ),
    (lambda hook: hook.get_definitions(name="None"), "name must not be 'None'"),
    (lambda hook: hook.get_definition("None"), "definition_id must not be 'None'"),
    (lambda hook: hook.get_definitions(limit="5"), "limit must be a whole number"),  # type: ignore[arg-type]
    (lambda hook: hook.get_instance(""), "instance_id"),
    (lambda hook: hook.find_instance(""), "business_key"),
    (lambda hook: hook.suspend_instance(".."), "instance_id"),
    (lambda hook: hook.delete_instance(" "), "instance_id"),
    (lambda hook: hook.set_variables("1", {}), "variables"),
    (lambda hook: hook.get_definitions(limit=0), "limit"),
    (lambda hook: hook.terminate_instance("1", if_closed="maybe"), "if_closed"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "words"), ARGUMENTS)
def test_invalid_arguments_send_nothing(
    call: Call, words: str, make_hook: HookMaker, emulator: EmulatorControl
) -> None:
    hook = make_hook()
    with pytest.raises(ValueError, match=words) as caught:
        call(hook)
    assert "connection" not in str(caught.value)
    assert "emulator-only-secret" not in str(caught.value)
    assert not any(emulator.counts().values())


@pytest.mark.parametrize(
    "options",
    [
        {"poll_interval": 0.5},
        {"poll_interval": -1},
        {"timeout": -1},
        {"max_poll_failure_time": "10"},
    ],
)
def test_invalid_intervals(options: dict[str, Any], make_hook: HookMaker, emulator: EmulatorControl) -> None:
    hook = make_hook()
    instance = START(hook)
    emulator.reset_counts()
    with pytest.raises(ValueError, match="^[a-z_]+ must be a number of seconds"):
        hook.wait_for_instance(instance, **options)
    assert not any(emulator.counts().values())


def test_unknown_state_fails_the_wait(make_hook: HookMaker, emulator: EmulatorControl) -> None:
    hook = make_hook()
    instance = START(hook)
    unknown = instance.__class__(id=instance.id, name=instance.name, state="Completed Well", is_closed=True)
    with pytest.raises(errors.WaitFailedError, match="'Completed Well'"):
        hook.wait_for_instance(unknown)
    assert "Completed Well" not in states.STATES


def test_no_secret_is_in_any_log(
    make_hook: HookMaker,
    emulator: EmulatorControl,
    emulator_server: EmulatorServer,
    tokens: list[str],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("urllib3", "requests", "tenacity", "airflow"):
        caplog.set_level(logging.DEBUG, logger=name)
    hook = make_hook({"csrf": True})
    instance = START(hook)
    emulator.revoke_tokens()
    hook.suspend_instance(instance.id)
    emulator.fault("query", "status", status=503, times=1)
    READ(hook)
    logged = caplog.text + "".join(capsys.readouterr())
    assert "urllib3" in logged
    assert "The first of up to 2 attempts failed" in logged
    assert len(tokens) >= 2
    secrets = [emulator_server.settings.client_secret, *tokens]
    assert not [secret for secret in secrets if secret in logged]
