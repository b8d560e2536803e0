"""The HTTP routes of the page: its addresses and its forms."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode

from aiohttp import web

from airflow_provider_astrobpm.emulator.page import forms
from airflow_provider_astrobpm.emulator.page.change_notifier import ChangeNotifier
from airflow_provider_astrobpm.emulator.page.forms import FORMS, FormError
from airflow_provider_astrobpm.emulator.page.instance_details import details
from airflow_provider_astrobpm.emulator.page.overview import FilterError, OverviewFilter, overview
from airflow_provider_astrobpm.emulator.page.render import ASSETS, HEADERS, render
from airflow_provider_astrobpm.emulator.page.request_guard import refused_host, refused_sender
from airflow_provider_astrobpm.emulator.refusals import Refusal

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

    from airflow_provider_astrobpm.emulator.emulator_state import Emulator
    from airflow_provider_astrobpm.emulator.instances import Instance

_RETRY_MS = 500  # before a browser reconnects to a broken event stream


def add_page(app: web.Application, emulator: Emulator) -> None:
    """Add the page to the application that serves an emulator."""
    page = _Page(emulator)
    routes = [
        ("GET", "/", page.show_overview),
        ("GET", "/instances/{id}", page.show_instance),
        ("GET", "/changes", page.stream),
        *(("GET", f"/{name}", page.send_asset) for name in ASSETS),
        ("POST", "/instances", page.start),
        ("POST", f"/instances/{{id}}/{{form:{'|'.join(FORMS)}}}", page.perform),
    ]
    for method, path, handler in routes:
        app.router.add_route(method, path, page.guarded(handler))


class _Page:
    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._changes = ChangeNotifier(emulator)

    def guarded(self, handler: Handler) -> Handler:
        """Wrap a handler to refuse requests from foreign web pages."""

        async def handle(request: web.Request) -> web.StreamResponse:
            allowed = self._emulator.settings.allowed_hosts
            refused = refused_host(request.headers.get("Host", ""), allowed)
            if refused is None and request.method == "POST":
                refused = refused_sender(request.headers)
            if refused is not None:
                return _html("trouble", 403, title="Request refused", message=refused)
            return await handler(request)

        return handle

    async def show_overview(self, request: web.Request) -> web.Response:
        return self._overview(dict(request.query), started=self._find(request.query.get("started", "")))

    def _overview(self, query: dict[str, str], status: int = 200, **values: object) -> web.Response:
        try:
            asked = OverviewFilter.read(query)
        except FilterError as error:
            return _html("trouble", 400, title="Invalid address", message=f"{error}.")
        clock = self._emulator.clock
        shown = {"started": None, "error": None, "typed": {}, "now": clock(), "ahead": clock.ahead, **values}
        return _html("overview", status, **overview(self._emulator.engine, asked), **shown)

    async def show_instance(self, request: web.Request) -> web.Response:
        said = FORMS.get(request.query.get("done", ""), "")
        return self._instance(request.match_info["id"], said=said)

    def _instance(self, instance_id: str, status: int = 200, **values: object) -> web.Response:
        instance = self._find(instance_id)
        if instance is None:
            gone = f"There is no instance {instance_id!r}. It was deleted, or the emulator was reset or restarted."
            return _html("trouble", 404, title="No such instance", message=gone)
        shown = {"said": "", "error": None, "form": "", "typed": {}, "now": self._emulator.clock(), **values}
        names = {"new": forms.NEW_VALUE, "old": forms.SHOWN_VALUE, "text_of": forms.text_of}
        return _html("instance", status, **details(instance, self._emulator.engine), **names, **shown)

    async def send_asset(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(ASSETS[request.path[1:]], headers={**HEADERS, "Cache-Control": "no-cache"})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send an event whenever the page may have changed."""
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(f"retry: {_RETRY_MS}\n\n".encode())
        async with aclosing(self._changes.follow()) as notices:
            async for _ in notices:
                if request.transport is None or request.transport.is_closing():
                    break
                await response.write(b"data: changed\n\n")
        return response

    async def start(self, request: web.Request) -> web.Response:
        fields = await _fields(request)
        try:
            instance = forms.start(self._emulator.engine, fields)
        except FormError as error:
            return self._overview(fields, 422, error=error, typed=fields)
        self._emulator.notify_listeners()
        # The form sends the current filters as fields of the same names.
        kept = {name: fields[name] for name in ("process", "state", "show") if fields.get(name)}
        return _see_other(f"/?{urlencode({**kept, 'started': instance.id})}")

    async def perform(self, request: web.Request) -> web.Response:
        instance_id, form = request.match_info["id"], request.match_info["form"]
        fields = await _fields(request)
        try:
            forms.perform(self._emulator.engine, form, instance_id, fields)
        except FormError as error:
            return self._instance(instance_id, 422, error=error, form=form, typed=fields)
        self._emulator.notify_listeners()
        return _see_other(f"/instances/{quote(instance_id, safe='')}?done={form}")

    def _find(self, instance_id: str) -> Instance | None:
        try:
            return self._emulator.engine.instance(instance_id)
        except Refusal:
            return None


async def _fields(request: web.Request) -> dict[str, str]:
    if request.content_type != "application/x-www-form-urlencoded":
        return {}
    text = (await request.read()).decode(errors="replace")
    return dict(parse_qsl(text, keep_blank_values=True))


def _html(template: str, status: int, **values: object) -> web.Response:
    headers = {**HEADERS, "Content-Type": "text/html; charset=utf-8"}
    return web.Response(status=status, body=render(template, **values), headers=headers)


def _see_other(address: str) -> web.Response:
    return web.Response(status=303, headers={**HEADERS, "Location": address})
