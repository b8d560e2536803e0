"""The web application: serve the API, the control API and the page, and apply faults."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from airflow_provider_astrobpm.emulator import api_routes, control_api, faults, wire_format
from airflow_provider_astrobpm.emulator.page.page_routes import add_page
from airflow_provider_astrobpm.emulator.page.request_guard import refused_command, refused_host
from airflow_provider_astrobpm.emulator.refusals import ResultCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from airflow_provider_astrobpm.emulator.emulator_state import Emulator
    from airflow_provider_astrobpm.emulator.faults import Fault
    from airflow_provider_astrobpm.emulator.replay import Replay
    from airflow_provider_astrobpm.emulator.request_log import RecordedRequest

    HttpHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES = 64 * 1024 * 1024
_TRICKLE_PARTS = 20
_MAX_OPEN_SECONDS = 3600  # that a replayed connection stays open without an answer
_MISDIRECTED = 421  # RFC 9110: the server does not serve this host


def make_app(emulator: Emulator) -> web.Application:
    """Return the application that serves an emulator."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    base = emulator.settings.base_path
    add_page(app, emulator)
    for command in control_api.COMMANDS:
        app.router.add_route(
            command.method, control_api.PREFIX + command.path, _controlled(emulator, command)
        )
    for route in api_routes.ROUTES:
        app.router.add_route(route.method, base + route.path, _served(emulator, route))
    app.router.add_route("*", "/{anything:.*}", _served(emulator, api_routes.ANYTHING_ELSE))
    return app


def _served(emulator: Emulator, route: api_routes.ApiRoute) -> HttpHandler:
    async def handle(request: web.Request) -> web.StreamResponse:
        refused = refused_host(request.headers.get("Host", ""), emulator.settings.allowed_hosts)
        if refused is not None:
            return _http_response(
                wire_format.enveloped(ResultCode.FOREIGN_HOST, refused, status=_MISDIRECTED)
            )
        call, path = await _received(request), request.raw_path.partition("?")[0]
        entry = emulator.request_log.note(emulator.clock(), route.kind, call.method, path, call.query)
        if emulator.replay is not None:
            return await _replayed(emulator.replay, request, call, entry, emulator.settings.base_path)
        return await answer(request, call, entry)

    async def answer(
        request: web.Request, call: api_routes.ApiCall, entry: RecordedRequest
    ) -> web.StreamResponse:
        if emulator.outage == "cut":
            return _cut(request)
        if emulator.outage == "503":
            entry.status = 503
            return _http_response(wire_format.html(503, "Service Unavailable"))

        def work() -> wire_format.ApiResponse:
            response = api_routes.perform(emulator, route, call)
            emulator.notify_listeners()
            entry.detail = response.detail
            return response

        fault = emulator.faults.take(route.kind, request.raw_path)
        response = work() if fault is None else await _faulty(work, fault)
        if response is None:
            return _cut(request)
        entry.status = response.status
        if fault is not None and fault.fault in ("truncate", "trickle"):
            return await _send_badly(request, response, fault)
        return _http_response(response)

    return handle


async def _received(request: web.Request) -> api_routes.ApiCall:
    query, instance_id = request.raw_path.partition("?")[2], request.match_info.get("id", "")
    return api_routes.ApiCall(request.method, query, request.headers, await request.read(), instance_id)


async def _faulty(
    work: Callable[[], wire_format.ApiResponse], fault: Fault
) -> wire_format.ApiResponse | None:
    """Return the response to a request that fails; ``None`` if the connection must be cut instead."""
    response = work() if fault.work_done else None
    if fault.fault != "trickle":
        await asyncio.sleep(fault.seconds)
    if fault.fault == "drop_before":
        return None
    if replaced := faults.replacement(fault):
        return replaced
    response = response or work()
    return None if fault.fault == "drop_after" else faults.distorted(fault, response)


async def _replayed(
    replay: Replay, request: web.Request, call: api_routes.ApiCall, entry: RecordedRequest, base_path: str
) -> web.StreamResponse:
    target = request.raw_path.removeprefix(base_path)
    played = replay.play(call.method, target, call.headers.get("Content-Type", ""), call.body)
    if played.response is not None:
        entry.status = played.response.status
        return _http_response(played.response)
    if played.keeps_open:
        await asyncio.sleep(_MAX_OPEN_SECONDS)
    return _cut(request)


def _http_response(response: wire_format.ApiResponse) -> web.Response:
    headers = {**response.headers, "Content-Type": response.content_type}
    return web.Response(status=response.status, body=response.body, headers=headers)


def _cut(request: web.Request) -> web.Response:
    """Cut the connection. The returned response is never sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _send_badly(
    request: web.Request, response: wire_format.ApiResponse, fault: Fault
) -> web.StreamResponse:
    """Send a response slowly, or only half of it."""
    stream = web.StreamResponse(status=response.status, headers={"Content-Type": response.content_type})
    stream.content_length = len(response.body)
    await stream.prepare(request)
    if fault.fault == "truncate":
        await stream.write(response.body[: len(response.body) // 2])
        if request.transport is not None:
            request.transport.close()
        return stream
    size = max(1, len(response.body) // _TRICKLE_PARTS)
    for start in range(0, len(response.body), size):
        await stream.write(response.body[start : start + size])
        await asyncio.sleep(fault.seconds / _TRICKLE_PARTS)
    return stream


def _controlled(emulator: Emulator, command: control_api.ControlCommand) -> HttpHandler:
    async def handle(request: web.Request) -> web.StreamResponse:
        refused = refused_command(request.method, request.headers, emulator.settings.allowed_hosts)
        if refused is not None:
            return web.json_response({"error": refused}, status=403)
        status, result = control_api.handle_command(emulator, command, await _received(request))
        emulator.notify_listeners()
        return web.Response(status=status, body=msgspec.json.encode(result), content_type="application/json")

    return handle
