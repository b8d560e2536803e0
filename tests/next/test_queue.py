"""A watcher's trigger runs only in a triggerer of its queue."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import Asset, AssetWatcher
from airflow.serialization.decoders import decode_asset_like
from airflow.serialization.encoders import encode_asset_like, encode_trigger
from airflow.serialization.serialized_objects import BaseSerialization
from airflow.triggers.base import BaseEventTrigger

from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmEventTrigger

if TYPE_CHECKING:
    from tests.next.conftest import Airflow

pytestmark = pytest.mark.next


def trigger(**arguments: Any) -> AstroZeroBpmEventTrigger:
    return AstroZeroBpmEventTrigger(bpm_name="SupplierOnboarding", **arguments)


def test_airflow_stores_the_queue_beside_the_arguments() -> None:
    """A triggerer creates the trigger from the arguments alone. An older Airflow would refuse a queue there."""
    encoded = encode_trigger(trigger(queue="people"))
    assert encoded["queue"] == "people"
    assert encoded["kwargs"] == encode_trigger(trigger())["kwargs"]
    assert "queue" not in encode_trigger(trigger())
    again = AstroZeroBpmEventTrigger(
        **BaseSerialization.deserialize(BaseSerialization.serialize(encoded["kwargs"]))
    )
    assert (again.queue, again.serialize()) == (None, trigger().serialize())


def test_a_queue_survives_the_serialization_of_an_asset() -> None:
    asset = Asset("onboarded", watchers=[AssetWatcher(name="ended", trigger=trigger(queue="people"))])
    (watcher,) = decode_asset_like(json.loads(json.dumps(encode_asset_like(asset)))).watchers
    assert watcher.trigger["queue"] == "people"


def test_the_queue_is_no_part_of_the_identity() -> None:
    """So Airflow keeps the queue of a trigger that exists, until another argument changes: docs/asset-events.md."""
    hashes = {BaseEventTrigger.hash(*trigger(queue=queue).serialize()) for queue in (None, "people", "other")}
    assert len(hashes) == 1


def watcher_trigger(airflow: Airflow) -> tuple[Any, ...] | None:
    """Return the queue of the watcher's trigger, and the triggerer that runs it."""
    assert airflow.deployment.database is not None
    with closing(sqlite3.connect(airflow.deployment.database)) as database:
        row: tuple[Any, ...] | None = database.execute(
            "SELECT queue, triggerer_id FROM trigger WHERE classpath LIKE '%AstroZeroBpmEventTrigger'"
        ).fetchone()
    return row


def test_only_a_triggerer_of_the_queue_watches(airflow: Airflow) -> None:
    waits = "SELECT count(*) FROM job WHERE job_type = 'TriggererJob' AND latest_heartbeat IS NOT NULL"
    assert airflow.deployment.database is not None
    airflow.until("the watcher is registered", lambda: watcher_trigger(airflow))
    with closing(sqlite3.connect(airflow.deployment.database)) as database:
        assert database.execute(waits).fetchone() == (1,)
    supplier = airflow.control.start("SupplierOnboarding")
    airflow.control.move(supplier["id"], state="Completed OK")
    assert watcher_trigger(airflow) == ("people", None), "the triggerer of tasks leaves it alone"
    triggerer = airflow.deployment.start_triggerer("--queues", "people")
    path = "/api/v2/dags/watched/dagRuns"

    def ended() -> dict[str, Any] | None:
        runs = [run for run in airflow.call("GET", path)["dag_runs"] if run["state"] == "success"]
        return runs[0] if runs else None

    run = airflow.until("a run for the event", ended, 180)
    (event,) = airflow.call("GET", f"{path}/{run['dag_run_id']}/upstreamAssetEvents")["asset_events"]
    assert event["extra"]["payload"]["id"] == supplier["id"]
    triggerer.stop()
    airflow.expect_end(triggerer)
