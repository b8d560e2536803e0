"""How Sphinx builds the documentation: ``make docs`` writes it to ``build/docs``.

The pages are Markdown that also reads on GitHub, so they contain no Sphinx syntax. This file adds what Sphinx needs while it
reads them: tables of contents from the lists of ``index.md``, and links from the pages to the example DAGs in the reference.
"""

# ruff: noqa: INP001 - Sphinx runs this file by its path

from __future__ import annotations

import atexit
import logging
import os
import re
import shutil
import tempfile
from typing import TYPE_CHECKING

# Before autodoc imports Airflow, which writes its settings into its home.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="astrobpm-docs-")
logging.getLogger("airflow").setLevel(logging.WARNING)
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)

from airflow_provider_astrobpm import __version__  # noqa: E402

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "airflow-provider-astrobpm"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
nitpicky = True
# Names that are documented elsewhere, or not at all: the build asks no other site.
nitpick_ignore_regex = [("py:.*", r"(?!airflow_provider_astrobpm).*")]

myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # HTTP is shown without its version

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
add_module_names = False
python_maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_title = f"{project} {version}"
html_copy_source = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": {"font-stack": "system-ui, sans-serif"},
    "dark_css_variables": {"font-stack": "system-ui, sans-serif"},
}

_SECTION = re.compile(r"^## (?P<caption>.+)\n(?P<body>(?:(?!## ).*\n?)*)", re.MULTILINE)
_ENTRY = re.compile(r"^- \[[^\]]*\]\((?P<page>[^):]+)\)", re.MULTILINE)
_EXAMPLE = re.compile(r"\]\((?:\.\./)+example_dags/?(?:(?P<name>\w+)\.py)?\)")


def contents(index: str) -> str:
    """Return a hidden table of contents for each section of the index, from the pages that it lists."""
    tables = []
    for section in _SECTION.finditer(index):
        pages = "\n".join(entry["page"] for entry in _ENTRY.finditer(section["body"]))
        if pages:
            tables.append(f"```{{toctree}}\n:hidden:\n:caption: {section['caption']}\n\n{pages}\n```\n")
    return "\n".join(tables)


def links_to_examples(page: str) -> str:
    """Return a page whose links to example DAGs lead to the reference, which shows them."""
    return _EXAMPLE.sub(lambda link: f"](#example-{(link['name'] or 'dags').replace('_', '-')})", page)


def _prepare(_app: Sphinx, name: str, text: list[str]) -> None:
    if name == "index":
        text[0] += "\n" + contents(text[0])
    text[0] = links_to_examples(text[0])


def _without_arguments(_app: Sphinx, kind: str, name: str, *_: object) -> tuple[str, None] | None:
    """Leave out the constructor arguments of the provider's errors: users catch errors and do not create them."""
    return ("", None) if kind == "exception" and ".client.errors." in name else None


def setup(app: Sphinx) -> None:
    """Register the preparation of each page after it is read, and of each signature before it is shown."""
    app.connect("source-read", _prepare)
    app.connect("autodoc-process-signature", _without_arguments)
