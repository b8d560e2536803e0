"""Badges: the states that an instance shows, each with a CSS class for its meaning. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.client.states import SUSPENDED, class_of

if TYPE_CHECKING:
    from airflow_provider_astrobpm.emulator.engine import Engine
    from airflow_provider_astrobpm.emulator.instances import Instance


@dataclass(frozen=True)
class Badge:
    """A state, as the page shows it.

    :param kind: the CSS class for what the state means to a wait, such as ``waiting-for-people``.
    """

    state: str
    kind: str


def badge(state: str) -> Badge:
    """Return the badge of a state."""
    return Badge(state, class_of(state).value.replace(" ", "-"))


def badges(instance: Instance, engine: Engine) -> tuple[Badge, ...]:
    """Return the state that the API shows, plus ``Suspended`` if the instance is suspended in another state."""
    shown = engine.shown_state(instance)
    held = instance.suspended and shown != SUSPENDED
    return (badge(shown), badge(SUSPENDED)) if held else (badge(shown),)
