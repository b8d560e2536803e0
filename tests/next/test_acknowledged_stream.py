"""The facts for which the asset watcher does not use Airflow's acknowledged streams: docs/architecture.md, "Decisions"."""

from __future__ import annotations

import ast
import inspect
import textwrap

import pytest
from airflow.jobs.triggerer_job_runner import TriggerRunnerSupervisor
from airflow.triggers.base import BaseEventTrigger

pytestmark = pytest.mark.next


def test_a_producer_is_made_from_the_arguments_alone() -> None:
    factory = BaseEventTrigger.create_shared_stream_producer
    assert inspect.ismethod(factory)
    assert list(inspect.signature(factory).parameters) == ["kwargs"]


@pytest.mark.parametrize("name", ["run", "run_once", "handle_events", "on_trigger_event"])
def test_an_event_that_the_database_refuses_ends_the_triggerer(name: str) -> None:
    """Nothing on the way from the loop to the database catches the error, so no later request of a trigger is answered."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(TriggerRunnerSupervisor, name))))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Try)]


def test_a_confirmation_comes_with_the_next_exchange() -> None:
    """``run_once`` answers the message that brings an event before it writes the event."""
    source = inspect.getsource(TriggerRunnerSupervisor.run_once)
    assert source.index("_service_subprocess") < source.index("handle_events")
    assert "events_persisted" in inspect.getsource(TriggerRunnerSupervisor._handle_request)
