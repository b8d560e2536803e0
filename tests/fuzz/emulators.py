"""Targets that read what a person gives the emulator: process scripts, commands, forms and switches."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import msgspec

from airflow_provider_astrobpm.emulator import api_routes, control_api, faults
from airflow_provider_astrobpm.emulator.api_routes import ApiCall
from airflow_provider_astrobpm.emulator.clock import VirtualClock
from airflow_provider_astrobpm.emulator.emulator_state import Emulator, EmulatorSettings
from airflow_provider_astrobpm.emulator.engine import Engine
from airflow_provider_astrobpm.emulator.page import forms
from airflow_provider_astrobpm.emulator.page.forms import FormError
from airflow_provider_astrobpm.emulator.process_scripts import ScriptError, parse_script
from airflow_provider_astrobpm.emulator.refusals import Refusal
from airflow_provider_astrobpm.emulator.switches import SwitchError, Switches, parse_switch
from tests.fuzz.inputs import Input, raises_only

MAX_CALLS = 12  # of one input


def script(data: bytes) -> None:
    """Read a process script. It is valid and its processes can be started, or a ``ScriptError`` says where it is wrong."""
    source = Input(data)
    with raises_only(ScriptError):
        processes = parse_script(source.text(), "script.yaml")
        engine = Engine(VirtualClock(), processes, Switches())
        for process in processes[:3]:
            try:
                instance = engine.start(process.name, process.version, {}, "someone")
            except Refusal:
                continue
            msgspec.json.encode(engine.instance(instance.id).variables)
    with raises_only(SwitchError):
        name, position = parse_switch(source.text())
        Switches().changed(**{name: position})


@lru_cache(maxsize=1)
def _settings() -> EmulatorSettings:
    return EmulatorSettings()


def emulator(data: bytes) -> None:
    """Call the API, the control API and the forms of the page, one after another.

    Each call is answered, whatever the calls before it have set. Answers are JSON, and the emulator can be reset.
    """
    subject = Emulator(_settings())
    token = subject.tokens.issue(concurrent=True)
    newest = ""
    for part in Input(data).rest()[:MAX_CALLS]:
        head, _, body = part.partition(b"\n")
        method, _, target = head.decode("latin-1").partition(" ")
        path, _, query = target.replace("ID", newest or "ID").partition("?")
        if method == "FORM":
            _fill_in(subject, path, body, newest)
        elif path.startswith(control_api.PREFIX):
            newest = _command(subject, method, path, query, body) or newest
        else:
            _call(subject, method, path, query, body, token)
    subject.reset()
    assert _command(subject, "GET", f"{control_api.PREFIX}/instances", "", b"") == ""


def _route(routes: Any, method: str, path: str, prefix: str = "") -> tuple[Any, str] | None:
    for route in routes:
        before, marker, after = (prefix + route.path).partition("{id}")
        matches = path.startswith(before) and path.endswith(after) if marker else path == before
        one = path[len(before) : len(path) - len(after)] if marker else ""
        if route.method == method and matches and "/" not in one:
            return route, one
    return None


def _command(subject: Emulator, method: str, path: str, query: str, body: bytes) -> str:
    found = _route(control_api.COMMANDS, method, path, control_api.PREFIX)
    if found is None:
        return ""
    status, result = control_api.handle_command(subject, found[0], ApiCall(method, query, {}, body, found[1]))
    assert status in (200, 400, 404)
    answer = msgspec.json.decode(msgspec.json.encode(result))
    return str(answer.get("id", "")) if isinstance(answer, dict) and status == 200 else ""


def _call(subject: Emulator, method: str, path: str, query: str, body: bytes, token: str) -> None:
    found = _route(api_routes.ROUTES, method, path)
    if found is None:
        return
    headers = {"access-token": token, "Content-Type": "application/json"}
    call = ApiCall(method, query, headers, body, found[1])
    fault = subject.faults.take(found[0].kind, path)
    response = api_routes.perform(subject, found[0], call)
    if fault is not None:
        response = faults.replacement(fault) or faults.distorted(fault, response)
    elif response.content_type.startswith("application/json"):
        json.loads(response.body.removeprefix(b"\xef\xbb\xbf"))
    assert 100 <= response.status <= 599


def _fill_in(subject: Emulator, form: str, body: bytes, newest: str) -> None:
    lines = (line.partition("=") for line in body.decode(errors="replace").split("&"))
    fields = {name: value for name, _, value in lines}
    with raises_only(FormError):
        if form == "start":
            forms.start(subject.engine, fields)
        elif form in forms.FORMS:
            forms.perform(subject.engine, form, newest, fields)
