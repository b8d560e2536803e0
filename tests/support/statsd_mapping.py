"""What Prometheus' statsd_exporter makes of the provider's metrics with ``monitoring/statsd-mapping.yml``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import yaml

from airflow_provider_astrobpm._airflow.stats import PREFIX
from airflow_provider_astrobpm.client.metrics import METRICS

FOLDER = Path(__file__).parent.parent.parent / "monitoring"
DROPPED = "dropped"


class Exported(NamedTuple):
    """A metric as Prometheus reads it."""

    name: str
    labels: tuple[str, ...] = ()


def mapped(statsd_name: str) -> Exported | None:
    """Return the metric of a name as Airflow sends it, by the first mapping that matches; ``None`` if none does."""
    for mapping in yaml.safe_load((FOLDER / "statsd-mapping.yml").read_text(encoding="utf-8"))["mappings"]:
        glob = re.escape(mapping["match"]).replace(r"\*", r"([^.]+)")
        if match := re.fullmatch(glob, statsd_name):
            name = mapping["name"].replace("${1}", match[1] if match.groups() else "")
            return Exported(name, tuple(mapping.get("labels", ())))
    return None


def exported() -> set[Exported]:
    """Return all metrics that Prometheus can read: those of the provider, with their second names."""
    names = [name if not metric.tag else f"{name}.value" for name, metric in METRICS.items()]
    found = {mapped(f"airflow.{PREFIX}{name}") for name in (*METRICS, *names)}
    assert None not in found
    return {one for one in found if one and one.name != DROPPED}
