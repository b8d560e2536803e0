"""The instances that a task reports to OpenLineage when it ends, whether it succeeded or failed.

Airflow's OpenLineage provider asks the operators for them. If it is not installed, nothing is kept.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_astrobpm.client.settings import Settings
    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook

RunFacets = dict[str, dict[str, Any]]
"""The fields of run facets that are not built yet, by the names of the facets."""
INSTANCE = "astroBpm_instance"
"""The name of the run facet for one instance."""
INSTANCES = "astroBpm_instances"
"""The name of the run facet for several instances."""
MOST_IDS = 20  # instance ids in the facet for several instances


@cache
def is_installed() -> bool:
    """Return whether Airflow's OpenLineage provider is installed."""
    return find_spec("airflow.providers.openlineage") is not None


def facets_of_instance(hook: AstroZeroHook, instance_id: str | None, **known: str | None) -> RunFacets:
    """Return what is known about one instance; empty without OpenLineage.

    :param known: its other fields, as far as they are known.
    """
    if not is_installed():
        return {}
    settings = _settings(hook)
    url = settings.page_url(instance_id) if settings and isinstance(instance_id, str) else None
    return {INSTANCE: {"host": _host(settings), "instanceId": instance_id, "url": url, **known}}


def facets_of_instances(
    hook: AstroZeroHook, total: int, counts: Mapping[str, int], ids: Iterable[str | None]
) -> RunFacets:
    """Return what is known about several instances; empty without OpenLineage.

    :param counts: the number of instances with each state or outcome.
    :param ids: their ids; only the first ones are reported.
    """
    if not is_installed():
        return {}
    some = list(islice(filter(None, ids), MOST_IDS))
    nonzero = {name: count for name, count in counts.items() if count}
    host = _host(_settings(hook))
    return {INSTANCES: {"host": host, "total": total, "counts": nonzero, "instanceIds": some}}


def _settings(hook: AstroZeroHook) -> Settings | None:
    with suppress(Exception):  # the task itself reports what is wrong with the connection
        return hook.settings
    return None


def _host(settings: Settings | None) -> str | None:
    return urlsplit(settings.base_url).netloc.rpartition("@")[2] if settings else None


def operator_lineage(facets: RunFacets) -> OperatorLineage[Any, Any]:
    """Return the facets as the OpenLineage provider expects them."""
    from airflow.providers.openlineage.extractors import OperatorLineage  # noqa: PLC0415 - it may not be installed

    from airflow_provider_astrobpm.task_base import openlineage_facets  # noqa: PLC0415

    kinds = {
        INSTANCE: openlineage_facets.AstroBpmInstanceRunFacet,
        INSTANCES: openlineage_facets.AstroBpmInstancesRunFacet,
    }
    return OperatorLineage(run_facets={name: kinds[name](**fields) for name, fields in facets.items()})
