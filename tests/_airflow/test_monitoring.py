"""The files in ``monitoring/``: well formed, and with no other metrics than those that Prometheus can read."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import promql_parser
import pytest
import yaml

from airflow_provider_astrobpm.client.metrics import METRICS
from tests.support.statsd_mapping import FOLDER, Exported, exported, mapped

RULES = yaml.safe_load((FOLDER / "alert-rules.yml").read_text(encoding="utf-8"))
BOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text(encoding="utf-8"))
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
TARGETS = [target for panel in BOARD["panels"] for target in panel["targets"]]
EXPRESSIONS = [one["expr"] for one in (*ALERTS, *TARGETS)]
LABELS = {one.name: set(one.labels) for one in exported()}
T = TypeVar("T", bound=promql_parser.Expr)
DURATION = r"\d+[smhdw]"


def nodes_of(expression: str, kind: type[T]) -> list[T]:
    """Return the parts of an expression that are of one kind.

    :raises ValueError: if the expression has wrong syntax or types. For example, ``rate`` needs a range.
    """
    found: list[T] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, kind):
            found.append(node)

    # Grafana replaces its variables by durations.
    promql_parser.walk(
        promql_parser.parse(re.sub(r"\$__(rate_)?interval\b", "5m", expression)), pre_visit=visit
    )
    return found


def names_in(expression: str) -> set[str]:
    return {str(one.name) for one in nodes_of(expression, promql_parser.VectorSelector)}


def test_mapping_names_every_metric() -> None:
    assert mapped("airflow.astro_bpm.requests.query") == Exported(
        "astro_bpm_requests_by_kind_total", ("kind",)
    )
    assert mapped("airflow.astro_bpm.waiters.worker__1") == Exported("astro_bpm_waiters", ("hostname",))
    assert mapped("airflow.ti_failures") is None
    expected = {f"astro_bpm_{name}_total" for name, metric in METRICS.items() if metric.type == "counter"}
    assert set(LABELS) == expected | {"astro_bpm_requests_by_kind_total", "astro_bpm_waiters"}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expression_uses_known_metrics_and_labels(expression: str) -> None:
    names = [str(one.name) for one in nodes_of(expression, promql_parser.VectorSelector)]
    assert names
    assert set(names) <= set(LABELS)
    for aggregate in nodes_of(expression, promql_parser.AggregateExpr):
        labels = aggregate.modifier.labels if aggregate.modifier else []
        assert all({*labels} <= LABELS[name] for name in names_in(aggregate.prettify()))
    ranges = nodes_of(expression, promql_parser.MatrixSelector)
    counters = [name for name in names if name.endswith("_total")]
    assert sorted(str(one.vector_selector.name) for one in ranges) == sorted(counters)


def test_every_metric_is_on_the_dashboard() -> None:
    shown: set[str] = set().union(*(names_in(target["expr"]) for target in TARGETS))
    # The sum of the requests is on it by kind.
    assert shown == set(LABELS) - {"astro_bpm_requests_total"}


def test_dashboard_is_well_formed() -> None:
    assert {"uid", "title", "schemaVersion", "panels", "templating"} <= set(BOARD)
    assert "id" not in BOARD, "Grafana gives the number"
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    (source,) = (each for each in BOARD["templating"]["list"] if each["type"] == "datasource")
    places: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        assert panel["datasource"] == {"type": "prometheus", "uid": f"${{{source['name']}}}"}
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not places & cells, "panels overlap"
        places |= cells
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_alert_rule_is_well_formed(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"[A-Z]\w+", rule["alert"])
    assert re.fullmatch(DURATION, rule.get("for", "1m"))
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert all(rule["annotations"][key].endswith(".") for key in ("summary", "description"))
    assert re.search(r"[<>=]=?", rule["expr"]), "an alert compares"


def test_rule_groups_are_well_formed() -> None:
    assert set(RULES) == {"groups"}
    assert all(set(group) <= {"name", "interval", "rules"} for group in RULES["groups"])
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)
