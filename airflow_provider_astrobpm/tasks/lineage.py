"""What a task tells OpenLineage at its end, well or badly: which instances it was about.

Airflow's OpenLineage provider asks operators for it. Where that is not installed nobody asks, and nothing is kept.
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

    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.settings import Settings

INSTANCE = "astroBpm_instance"
"""The run facet about one instance."""
INSTANCES = "astroBpm_instances"
"""The run facet about many."""
MOST_IDS = 20  # instances that the facet about many names


class Facts(NamedTuple):
    """What is told."""

    facet: str
    fields: dict[str, Any]


@cache
def is_wanted() -> bool:
    """Tell whether Airflow's OpenLineage provider is installed."""
    return find_spec("airflow.providers.openlineage") is not None


def of_instance(settings: Settings | None, instance: BpmInstance) -> Facts:
    """Return what is told of an instance.

    :param settings: the environment, if it is known.
    :param instance: the instance as it was seen last.
    """
    return Facts(
        INSTANCE,
        {
            **_place(settings),
            "instanceId": instance.id,
            "bpmName": instance.name,
            "version": instance.version,
            "state": instance.state,
            "businessStatus": instance.bp_status,
            "businessKey": instance.business_key,
            "url": settings.url_of(instance.id) if settings else None,
        },
    )


def of_unseen(
    settings: Settings | None, instance_id: str | None, *, name: str | None, business_key: str | None
) -> Facts:
    """Return what is told of an instance that was not seen.

    :param settings: the environment, if it is known.
    :param instance_id: its id, if that is known.
    :param name: its BPM's name, if that is known.
    :param business_key: its business key, if that is known.
    """
    url = settings.url_of(instance_id) if settings and isinstance(instance_id, str) else None
    known = {"instanceId": instance_id, "bpmName": name, "businessKey": business_key, "url": url}
    return Facts(INSTANCE, {**_place(settings), **known})


def of_many(
    settings: Settings | None, total: int, counts: Mapping[str, int], ids: Iterable[str | None]
) -> Facts:
    """Return what is told of many instances.

    :param settings: the environment, if it is known.
    :param total: how many there are.
    :param counts: how many are in which state, or came to which end.
    :param ids: their ids; the first are told.
    """
    some = list(islice(filter(None, ids), MOST_IDS))
    told = {name: count for name, count in counts.items() if count}
    return Facts(INSTANCES, {**_place(settings), "total": total, "counts": told, "instanceIds": some})


def _place(settings: Settings | None) -> dict[str, str | None]:
    return {"host": urlsplit(settings.base_url).netloc.rpartition("@")[2] if settings else None}


def operator_lineage(facts: Facts | None) -> OperatorLineage[Any, Any]:
    """Return what the OpenLineage provider asks for.

    :param facts: what is told; ``None`` for nothing.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage  # noqa: PLC0415 - only its provider asks

    from airflow_provider_astrobpm.tasks import facets  # noqa: PLC0415

    if facts is None:
        return OperatorLineage()
    kinds = {INSTANCE: facets.AstroBpmInstanceRunFacet, INSTANCES: facets.AstroBpmInstancesRunFacet}
    return OperatorLineage(run_facets={facts.facet: kinds[facts.facet](**facts.fields)})
