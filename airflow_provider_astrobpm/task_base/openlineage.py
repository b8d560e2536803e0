"""The instances that a task reports to OpenLineage when it ends, whether it succeeded or failed.

Airflow's OpenLineage provider asks the operators for them. If it is not installed, nothing is kept.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.settings import Settings

INSTANCE = "astroBpm_instance"
"""The name of the run facet for one instance."""
INSTANCES = "astroBpm_instances"
"""The name of the run facet for several instances."""
MOST_IDS = 20  # instance ids in the facet for several instances


class LineageFacts(NamedTuple):
    """A run facet before it is built: its name and its fields."""

    facet: str
    fields: dict[str, Any]


@cache
def is_installed() -> bool:
    """Return whether Airflow's OpenLineage provider is installed."""
    return find_spec("airflow.providers.openlineage") is not None


def facts_of_instance(settings: Settings | None, instance: BpmInstance) -> LineageFacts:
    """Return the facts about one instance.

    :param settings: the settings of the connection, if they could be read.
    :param instance: the last polled instance.
    """
    return LineageFacts(
        INSTANCE,
        {
            **_host(settings),
            "instanceId": instance.id,
            "bpmName": instance.name,
            "version": instance.version,
            "state": instance.state,
            "businessStatus": instance.bp_status,
            "businessKey": instance.business_key,
            "url": settings.page_url(instance.id) if settings else None,
        },
    )


def facts_of_unpolled_instance(
    settings: Settings | None, instance_id: str | None, *, name: str | None, business_key: str | None
) -> LineageFacts:
    """Return the facts about an instance that no poll has returned.

    :param settings: the settings of the connection, if they could be read.
    :param instance_id: its id, if known.
    :param name: the name of its BPM, if known.
    :param business_key: its business key, if known.
    """
    url = settings.page_url(instance_id) if settings and isinstance(instance_id, str) else None
    known = {"instanceId": instance_id, "bpmName": name, "businessKey": business_key, "url": url}
    return LineageFacts(INSTANCE, {**_host(settings), **known})


def facts_of_instances(
    settings: Settings | None, total: int, counts: Mapping[str, int], ids: Iterable[str | None]
) -> LineageFacts:
    """Return the facts about several instances.

    :param settings: the settings of the connection, if they could be read.
    :param total: the number of instances.
    :param counts: the number of instances with each state or outcome.
    :param ids: their ids; only the first ones are reported.
    """
    some = list(islice(filter(None, ids), MOST_IDS))
    nonzero = {name: count for name, count in counts.items() if count}
    return LineageFacts(
        INSTANCES, {**_host(settings), "total": total, "counts": nonzero, "instanceIds": some}
    )


def _host(settings: Settings | None) -> dict[str, str | None]:
    return {"host": urlsplit(settings.base_url).netloc.rpartition("@")[2] if settings else None}


def operator_lineage(facts: LineageFacts | None) -> OperatorLineage[Any, Any]:
    """Return the facts as the OpenLineage provider expects them.

    :param facts: the facts; ``None`` for none.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage  # noqa: PLC0415 - it may not be installed

    from airflow_provider_astrobpm.task_base import openlineage_facets  # noqa: PLC0415

    if facts is None:
        return OperatorLineage()
    kinds = {
        INSTANCE: openlineage_facets.AstroBpmInstanceRunFacet,
        INSTANCES: openlineage_facets.AstroBpmInstancesRunFacet,
    }
    return OperatorLineage(run_facets={facts.facet: kinds[facts.facet](**facts.fields)})
