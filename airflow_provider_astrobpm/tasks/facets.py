"""The run facets of OpenLineage that tasks report. Only importable where OpenLineage's client is installed."""

from __future__ import annotations

from attrs import define
from openlineage.client.facet_v2 import RunFacet


@define(kw_only=True)
class AstroBpmInstanceRunFacet(RunFacet):
    """The BPM instance that a task was about. The names are those of the event."""

    host: str | None = None
    """Host and port of the connection."""
    instanceId: str | None = None  # noqa: N815 - the name in the event, as are the others below
    bpmName: str | None = None  # noqa: N815
    version: str | None = None
    state: str | None = None
    """Its state as it was seen last."""
    businessStatus: str | None = None  # noqa: N815
    businessKey: str | None = None  # noqa: N815
    url: str | None = None
    """Its address for people, where the connection has a template."""


@define(kw_only=True)
class AstroBpmInstancesRunFacet(RunFacet):
    """The BPM instances that a task was about, where there may be many."""

    host: str | None = None
    """Host and port of the connection."""
    total: int
    counts: dict[str, int]
    """How many came to which end in a batch, or are in which state in a list."""
    instanceIds: list[str]  # noqa: N815
    """The first of them."""
