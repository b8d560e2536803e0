"""Checks that the BPMs of a batch have the variables that its launches give them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_astrobpm.client.errors import UnknownVariablesError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook


def check(hook: AstroZeroHook, names: Mapping[tuple[str, str | None], Mapping[str, int]]) -> None:
    """Check the names of the variables of all launches, with two calls for each BPM and version.

    :param hook: the hook of the task.
    :param names: the names of the variables, as ``BatchInputSummary`` has them.
    :raises UnknownVariablesError: if a BPM lacks one of the variables; the error names the first launch with it.
    """
    for (bpm_name, version), places in names.items():
        try:
            hook.check_variables(bpm_name, places, version=version)
        except UnknownVariablesError as error:
            first = min(places[name] for name in error.unknown)
            error.advice = f"The first launch with such a name is launch {first}. {error.advice}"
            raise
