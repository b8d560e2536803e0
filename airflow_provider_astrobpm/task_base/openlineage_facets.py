"""The OpenLineage run facets that tasks report. Import this only where OpenLineage's client is installed."""

from __future__ import annotations

from attrs import define
from openlineage.client.facet_v2 import RunFacet


@define(kw_only=True)
class AstroBpmInstanceRunFacet(RunFacet):
    """The BPM instance of a task. The field names are those in the OpenLineage event."""

    host: str | None = None
    """Host and port of the connection."""
    instanceId: str | None = None  # noqa: N815 - the name in the event, as below
    bpmName: str | None = None  # noqa: N815
    version: str | None = None
    state: str | None = None
    """Its last polled state."""
    businessStatus: str | None = None  # noqa: N815
    businessKey: str | None = None  # noqa: N815
    url: str | None = None
    """Its address for people, if the connection has a template."""


@define(kw_only=True)
class AstroBpmInstancesRunFacet(RunFacet):
    """The BPM instances of a task that has several."""

    host: str | None = None
    """Host and port of the connection."""
    total: int
    counts: dict[str, int]
    """The number of launches with each outcome, or of listed instances in each state."""
    instanceIds: list[str]  # noqa: N815
    """The ids of the first instances."""
