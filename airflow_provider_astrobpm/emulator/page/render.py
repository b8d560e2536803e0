"""Render the page as HTML, and define the headers that protect it from foreign content."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import jinja2

from airflow_provider_astrobpm.client.states import class_of
from airflow_provider_astrobpm.emulator.clock import timestamp
from airflow_provider_astrobpm.emulator.page.formatting import age, badges, visible, zone

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLDER = Path(__file__).parent
ASSETS = MappingProxyType({each: _FOLDER / "assets" / each for each in ("page.css", "page.js", "icon.svg")})
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
            " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        # Not no-referrer: browsers would then not report the origin of a form.
        "Referrer-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
)


def render(template: str, **values: object) -> bytes:
    """Return a rendered template.

    :param template: its name, without the suffix.
    """
    text = _environment().get_template(f"{template}.html").render(**values)
    return text.encode("utf-8", "replace")  # an unpaired surrogate must not fail the page


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "age": age,
        "badges": badges,
        "class": class_of,
        "shown": visible,
        "timestamp": timestamp,
        "zone": zone,
    }
    return environment
