"""Draw plots of the benchmarks, from the tables in ``docs/performance.md``.

The SVGs have two sets of colours. The reader's browser chooses the one for a light or a dark page.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter

from performance_tables import number, table_with

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The colours on a light and on a dark page. Plots are drawn with the light ones, which are replaced afterwards.
COLOURS = {
    "paper": ("#ffffff", "#16181c"),
    "ink": ("#24292f", "#e6edf3"),
    "grid": ("#d8dee4", "#343a42"),
    "ours": ("#0b62c4", "#6cb6ff"),
    "http": ("#b35900", "#f0a35e"),
    "alone": ("#6e7781", "#9aa4af"),
}
TRIGGERS = {"this provider": "ours", "http provider": "http", "Airflow alone": "alone"}
LOWEST = "Airflow alone"  # its label is below its line, because the line rises
MAPPED = "mapped tasks of the http provider"

_SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.size": 11,
    "svg.fonttype": "none",  # keep text as text: screen readers can read it, and it uses the font of the page
    "svg.hashsalt": "astro-zero",  # the same tables produce the same file
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw_waiting(page: str) -> str:
    """Plot requests and CPU time against the number of waiting tasks.

    :param page: the text of ``docs/performance.md``.
    :return: an SVG.
    :raises TableError: if the page has no such table.
    """
    rows = table_with(page, "waiting", "tasks", "trigger", "requests", "CPU").rows
    figure, (requests, cpu) = _figure(2, height=3.6)
    for trigger, name in TRIGGERS.items():
        points = [row for row in rows if row["trigger"] == trigger]
        tasks = [number(row["tasks"]) for row in points]
        for axes, column in ((requests, "requests"), (cpu, "CPU")):
            values = [number(row[column]) for row in points]
            if not any(values):  # Airflow alone sends no requests
                continue
            axes.plot(tasks, values, color=_light(name), marker="o", markersize=5, linewidth=2)
            axes.annotate(
                trigger,
                (tasks[-1], values[-1]),
                xytext=(-4, -40 if trigger == LOWEST else 8),
                textcoords="offset points",
                horizontalalignment="right",
                color=_light(name),
            )
    for axes, title in ((requests, "Requests in 60 s"), (cpu, "CPU seconds in 60 s")):
        axes.set_title(title, loc="left", color=_light("ink"), fontweight="bold", fontsize=12)
        axes.set_xlabel("tasks that wait", color=_light("ink"))
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.margins(y=0.15)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.minorticks_off()
        axes.set_xticks(sorted({number(row["tasks"]) for row in rows}))
        axes.grid(color=_light("grid"), linewidth=0.8)
    return _svg(figure, "Requests and CPU in 60 s against the number of tasks that wait")


def draw_batch(page: str) -> str:
    """Plot how fast one task starts its launches, compared with mapped tasks that start one each.

    :param page: the text of ``docs/performance.md``.
    :return: an SVG.
    :raises TableError: if the page has no such table.
    """
    table = table_with(page, "batch", "starts a second", "the run takes")
    first = table.columns[0]
    launches = first.removesuffix(" by")
    figure, (rate, run) = _figure(2, height=2.1)
    for axes, column, title in (
        (rate, "starts a second", f"Starts a second, {launches}"),
        (run, "the run takes", "Seconds that the run takes"),
    ):
        names = [row[first] for row in table.rows]
        values = [number(row[column]) for row in table.rows]
        colours = [_light("http" if name == MAPPED else "ours") for name in names]
        bars = axes.barh([_short(name) for name in names], values, color=colours, height=0.55)
        axes.bar_label(bars, [f"{value:,g}" for value in values], padding=5, color=_light("ink"))
        axes.set_title(title, loc="left", color=_light("ink"), fontweight="bold", fontsize=12)
        axes.invert_yaxis()
        axes.margins(x=0.2)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    run.set_yticklabels([])
    return _svg(figure, f"{launches}: starts a second, and seconds that the run takes")


def draw_scale(page: str) -> str:
    """Plot queries against the number of triggerers, and the longest block against the number of ended instances.

    :param page: the text of ``docs/performance.md``.
    :return: an SVG.
    :raises TableError: if the page has no such tables.
    """
    shared = table_with(page, "scale", "by the formula", "CPU")
    searched = table_with(page, "scale", "ended instances", "longest block")
    first, second = shared.columns[:2]
    figure, (queries, block) = _figure(2, height=3.6)
    triggerers = [number(row[first]) for row in shared.rows]
    for column, name, style in (("by the formula", "alone", "--"), (second, "ours", "")):
        values = [number(row[column]) for row in shared.rows]
        queries.plot(
            triggerers,
            values,
            style,
            color=_light(name),
            marker="" if style else "o",
            linewidth=2,
            label=column,
        )
    searches = list(dict.fromkeys(row["search"] for row in searched.rows))
    for search, name, marker in zip(searches, ("ours", "http", "alone", "ink"), "os^D", strict=True):
        rows = [row for row in searched.rows if row["search"] == search]
        ended = [number(row["ended instances"]) for row in rows]
        values = [number(row["longest block"]) for row in rows]
        block.plot(
            ended, values, color=_light(name), marker=marker, markersize=5, linewidth=1.5, label=search
        )
    block.set_xscale("log")
    block.set_xticks(sorted({number(row["ended instances"]) for row in searched.rows}))
    queries.set_xticks(triggerers)
    for axes, title, label in (
        (queries, second.capitalize(), "triggerers"),
        (block, "Longest block of the event loop in ms", "ended instances"),
    ):
        axes.set_title(title, loc="left", color=_light("ink"), fontweight="bold", fontsize=12)
        axes.set_xlabel(label, color=_light("ink"))
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.minorticks_off()
        axes.grid(color=_light("grid"), linewidth=0.8)
        axes.legend(frameon=False, labelcolor=_light("ink"), fontsize=9)
    return _svg(figure, "Queries against triggerers, and the longest block against ended instances")


def _short(name: str) -> str:
    """Break a name into two lines."""
    return name.replace(" of ", "\nof ", 1)


def _figure(panels: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels side by side, in the colours of a light page.

    :param height: the height in inches of 72 points.
    """
    with mpl.rc_context(_SETTINGS):
        layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.15, wspace=0.06)
        figure = Figure(figsize=(9.6, height), layout=layout, facecolor=_light("paper"))
        found = list(figure.subplots(1, panels))
    for axes in found:
        axes.set_facecolor(_light("paper"))
        axes.tick_params(colors=_light("ink"))
        for spine in axes.spines.values():
            spine.set_color(_light("grid"))
    return figure, found


def _light(name: str) -> str:
    return COLOURS[name][0]


def _svg(figure: Figure, title: str) -> str:
    """Return a figure as SVG, with its colours replaced by variables that differ on a dark page."""
    target = io.StringIO()
    with mpl.rc_context(_SETTINGS):
        figure.savefig(target, format="svg", metadata={"Title": title, "Date": None, "Creator": None})
    drawn = target.getvalue()
    for name, (light, _) in COLOURS.items():
        drawn = drawn.replace(light, f"var(--{name})")
    light, dark = (
        "".join(f"--{name}:{colours[which]};" for name, colours in COLOURS.items()) for which in (0, 1)
    )
    style = f"<style>:root{{{light}}}@media (prefers-color-scheme: dark){{:root{{{dark}}}}}</style>"
    head, tag, rest = drawn.partition("<defs>")
    return "\n".join(line.rstrip() for line in f"{head}{style}\n {tag}{rest}".splitlines()) + "\n"
