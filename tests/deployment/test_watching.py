"""Asset events: one for each ended instance, even if the triggerer is killed; and those that Astro Zero itself sends."""

from __future__ import annotations

import inspect
import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.triggers.base import BaseEventTrigger

from airflow_provider_astrobpm.watching import state_codec
from airflow_provider_astrobpm.watching.targets import WatchTargets

if TYPE_CHECKING:
    from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
    from tests.deployment.conftest import Airflow

pytestmark = pytest.mark.deployment

PROCESS = "SupplierOnboarding"
ENDS = ("Completed OK", "Terminated", "User Terminated", "Broken")
GOES_ON = f"Watching instances of '{PROCESS}'"
INSTANCES, KILLS = 20, 3
QUIET = 6.0  # seconds for events that must not come: three polls
GUIDE = Path(__file__).parent.parent.parent / "docs" / "asset-events.md"
HAS_STORE = "asset_state_store" in inspect.getsource(BaseEventTrigger)
has_store = pytest.mark.skipif(
    not HAS_STORE,
    reason="Airflow has no state store before 3.3, so a restart begins again",
)


class Watched:
    """The watched asset in Airflow's database."""

    def __init__(self, airflow: Airflow) -> None:
        self._airflow = airflow
        self._name = state_codec.state_name("watched_zero", WatchTargets.of(PROCESS, None, None))

    @property
    def reported_ids(self) -> list[str]:
        """The ids of the instances in the events, in the order of the events."""
        rows = self._airflow.rows(
            "SELECT asset_event.extra::text FROM asset_event JOIN asset ON asset.id = asset_id WHERE name = 'ended' ORDER BY asset_event.id"
        )
        return [json.loads(extra)["payload"]["id"] for (extra,) in rows]

    @property
    def kept(self) -> int | None:
        """The number of instances that the watch has recorded; None before it has begun."""
        rows = self._airflow.rows(
            "SELECT key, value::text FROM asset_state_store WHERE key LIKE 'astro_bpm.%'"
        )
        store = {key: json.loads(value) for key, value in rows}
        keys = state_codec.shard_keys(self._name, store.get(self._name))
        reported = None if keys is None else state_codec.decode_shards(store[key] for key in keys)
        return None if reported is None else len(reported)

    @property
    def triggers(self) -> int:
        """The number of watching triggers."""
        ((found,),) = self._airflow.rows("SELECT count(*) FROM trigger WHERE classpath LIKE '%EventTrigger'")
        return int(found)

    def gap(self) -> float:
        """Return the seconds between the last event and the time at which it was recorded as reported."""
        query = "SELECT max(updated_at) FROM asset_state_store WHERE key LIKE 'astro_bpm.%'"
        ((reported_at,),) = self._airflow.rows("SELECT max(timestamp) FROM asset_event")
        ((kept,),) = self._airflow.rows(query)
        seconds: float = (kept - reported_at).total_seconds()
        return seconds

    def kill_triggerer(self) -> None:
        """Kill the triggerer.

        The event and the record of the watch are written one after the other, some hundredths of a second apart. A triggerer
        that is killed between them sends the event again; that is documented, and not tested here.
        """
        child = self._airflow.triggerer
        while True:
            child.signal(signal.SIGSTOP)
            if len(self.reported_ids) == self.kept:
                break
            child.signal(signal.SIGCONT)
            time.sleep(0.005)
        child.signal(signal.SIGKILL)
        self._airflow.expect_end(child)


@has_store
def test_twenty_ends_make_twenty_events_despite_kills(
    airflow: Airflow, watched_server: EmulatorServer, measured: Callable[[str, float], None]
) -> None:
    seed = int(os.environ.get("WATCH_SEED", time.time_ns() % 10**6))
    chance = random.Random(seed)
    zero, watched = watched_server.control, Watched(airflow)
    airflow.until("the watch has begun", lambda: watched.kept is not None or None)
    ids = [zero.start(PROCESS)["id"] for _ in range(INSTANCES)]
    left = chance.sample(ids, len(ids))

    def end_some(count: int) -> None:
        for _ in range(count):
            time.sleep(chance.uniform(0, 0.5))
            zero.move(left.pop(), state=chance.choice(ENDS))

    for _ in range(KILLS):
        end_some(chance.randrange(1, 5))
        time.sleep(chance.uniform(0, 3))  # anywhere between two polls, and between a poll and its events
        watched.kill_triggerer()
        end_some(chance.randrange(0, 3))
        airflow.start_triggerer()
        airflow.until("the watch continues", lambda: GOES_ON in airflow.triggerer.output() or None)
    end_some(len(left))
    airflow.until(
        f"all are reported (WATCH_SEED={seed})", lambda: set(watched.reported_ids) == set(ids) or None
    )
    until = time.monotonic() + QUIET
    while time.monotonic() < until:
        assert sorted(watched.reported_ids) == sorted(ids), f"WATCH_SEED={seed}"
        time.sleep(0.2)
    assert len(ids) == INSTANCES == watched.kept
    measured("from an event to what is kept of it, the last of them", watched.gap())


@pytest.mark.together
def test_request_of_the_guide_starts_a_dag(airflow: Airflow) -> None:
    (block,) = re.findall(r"```http\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    head, _, body = block.partition("\n\n")
    method, path = head.splitlines()[0].split()
    asset = airflow.call("GET", "/api/v2/assets?name_pattern=pushed")["assets"][0]
    sent = {**json.loads(body), "asset_id": asset["id"]}
    airflow.call(method, path, sent)

    def event_payload() -> Any:
        runs = airflow.call("GET", "/api/v2/dags/on_pushed/dagRuns")["dag_runs"]
        done = [run["dag_run_id"] for run in runs if run["state"] == "success"]
        if not done:
            return None
        path = f"/api/v2/dags/on_pushed/dagRuns/{done[0]}/taskInstances/read/xcomEntries/return_value"
        return airflow.call("GET", path)["value"]

    found = airflow.until("a run has read the event", event_payload)
    (extra,) = json.loads(found) if isinstance(found, str) else found
    assert extra["payload"] == sent["extra"]["payload"]


@pytest.mark.together
def test_example_runs_for_each_completed_instance(deployed: Airflow) -> None:
    airflow = deployed
    path, control = "/api/v2/dags/onboarded_suppliers", airflow.control
    watched = f"instances of '{PROCESS}' that enter state 'Completed OK'"

    def times(what: str) -> int:
        return airflow.triggerer.output().count(f"{what} {watched}")

    def pause(paused: bool) -> None:
        ended = times("Stopped watching")
        file_token = airflow.call("PATCH", path, {"is_paused": paused})["file_token"]
        airflow.call("PUT", f"/api/v2/parseDagFile/{file_token}")  # watchers come and go when it is parsed
        here = 1 + (not paused)  # the other one has a separate Astro Zero
        airflow.until("watchers come or go", lambda: Watched(airflow).triggers == here or None)
        if paused:
            # Airflow drops the watcher first, and tells the triggerer to stop it within the next seconds.
            airflow.until("the watch has ended", lambda: times("Stopped watching") > ended or None)

    def onboard(supplier: str) -> None:
        instance = control.start(PROCESS, business_key=f"supplier-{supplier}")
        control.move(instance["id"], state="Completed OK", bp_status="Onboarded")

    def loaded() -> list[str]:
        found: list[str] = []
        for run in airflow.call("GET", f"{path}/dagRuns?order_by=run_after")["dag_runs"]:
            if run["state"] == "success":
                task = f"{path}/dagRuns/{run['dag_run_id']}/taskInstances/load_suppliers"
                value = airflow.call("GET", f"{task}/xcomEntries/return_value")["value"]
                found += json.loads(value) if isinstance(value, str) else value
        return found

    pause(False)
    try:
        airflow.until("the watch has begun", lambda: times("Watching") or None)
        onboard("ACME")
        airflow.until("the supplier is loaded", lambda: loaded() == ["supplier-ACME"] or None)
        pause(True)
        onboard("Umbrella")  # while no trigger watches
        pause(False)
        if HAS_STORE:
            both = ["supplier-ACME", "supplier-Umbrella"]
            airflow.until("the other is loaded, too", lambda: loaded() == both or None)
    finally:
        pause(True)  # its polls would count as those of waiting tasks
