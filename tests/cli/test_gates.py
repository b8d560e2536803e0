"""``gates``, ``gates --orphans`` and ``terminate --orphans`` against a real database of Airflow and the emulator."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from airflow.sdk import DAG

from airflow_provider_astrobpm._airflow import stored_values, version_compat, waiting_tasks
from airflow_provider_astrobpm.cli import orphan_selection
from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
from airflow_provider_astrobpm.client.errors import AstroZeroError
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.states import OPEN_STATES, STATES
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.operators import bpm as operators
from airflow_provider_astrobpm.sensors.bpm import AstroZeroBpmInstanceSensor
from airflow_provider_astrobpm.starting.business_keys import BatchKey, TaskIdentity
from airflow_provider_astrobpm.starting.orphans import Orphan, OrphanSearch, OrphanVerdict
from airflow_provider_astrobpm.task_base.task_state_record import STORE_KEYS
from airflow_provider_astrobpm.triggers import bpm as triggers
from tests.cli.conftest import MODULE, Run, connection, process
from tests.support.airflow_rows import AirflowRows, airflow_rows

pytestmark = pytest.mark.usefixtures("airflow_database")

BPM, OTHER = "SupplierOnboarding", "PublishApproval"
CONN = "astro_zero_default"
HOUR = 3600.0
SENSOR = "AstroZeroBpmInstanceSensor"
AWAITED, PERHAPS = OrphanVerdict.AWAITED.value, OrphanVerdict.PERHAPS_AWAITED.value


class Scene:
    """Tasks in Airflow's database, and their instances in the emulator."""

    def __init__(self, rows: AirflowRows, emulator: EmulatorControl) -> None:
        self.rows = rows
        self.emulator = emulator

    def instance(self, dag_id: str, run_id: str, task_id: str, index: int = -1, bpm: str = BPM) -> str:
        """Start the instance of a task."""
        key = TaskIdentity(dag_id, run_id, task_id, index).key(1)
        instance_id: str = self.emulator.start(bpm, business_key=key)["id"]
        return instance_id

    def deferred(self, run_id: str, *, hours: float = 1, index: int = -1, bpm: str = BPM, **wait: Any) -> str:
        """Add a deferred start."""
        instance_id = self.instance("gates", run_id, "approve", index, bpm)
        trigger = triggers.AstroZeroBpmInstanceTrigger(
            astro_zero_conn_id=CONN, instance_id=instance_id, bpm_name=bpm, **wait
        )
        self.rows.task(
            "gates", run_id, "approve", "deferred", map_index=index, seconds_ago=hours * HOUR, trigger=trigger
        )
        return instance_id

    def ended(self, run_id: str, state: str | None = "failed", **task: Any) -> str:
        """Add a task that has left its instance open."""
        instance_id = self.instance("gates", run_id, "approve")
        self.rows.task("gates", run_id, "approve", state, **{"xcoms": {"instance_id": instance_id}, **task})
        return instance_id

    def done(self) -> None:
        """Store the rows, and forget the requests so far."""
        self.rows.session.commit()
        self.emulator.requests()


@pytest.fixture
def scene(emulator: EmulatorControl) -> Iterator[Scene]:
    with airflow_rows() as rows:
        yield Scene(rows, emulator)


def newest(emulator: EmulatorControl) -> int:
    return max((entry["number"] for entry in emulator.requests()), default=0)


def queries(emulator: EmulatorControl, since: int) -> int:
    return sum(entry["kind"] == "query" and entry["number"] > since for entry in emulator.requests())


def open_ids(emulator: EmulatorControl) -> set[str]:
    return {one["id"] for one in emulator.instances() if not one["closed"]}


def test_names_of_the_database_are_those_of_the_code() -> None:
    paths = {f"{one.__module__}.{one.__qualname__}" for one in (
        triggers.AstroZeroBpmInstanceTrigger, triggers.AstroZeroBpmBatchTrigger,
    )}  # fmt: skip
    assert paths == {waiting_tasks.INSTANCE_TRIGGER, waiting_tasks.BATCH_TRIGGER}
    assert stored_values.START_RECORD in STORE_KEYS.values()
    waiting = {"AstroZeroStartBpmInstanceOperator", waiting_tasks.BATCH_OPERATOR}
    assert set(operators.__all__) == waiting | waiting_tasks.OPERATORS_WITHOUT_WAIT
    fields = operators.AstroZeroStartBpmInstanceOperator.template_fields
    assert {waiting_tasks.CONNECTION_FIELD, "bpm_name", "business_key"} <= set(fields)
    assert "instance_id" not in fields


def test_500_waiting_tasks_and_40_orphans(
    scene: Scene, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch, emulator_server: EmulatorServer
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", connection(emulator_server, timezone="UTC"))
    awaited = {scene.deferred(f"run-{number}", hours=1 + number) for number in range(500)}
    orphans = {scene.ended(f"orphan-{number}") for number in range(40)}
    left = {
        *(scene.ended(f"published-{number}", "success") for number in range(5)),
        *(scene.ended(f"retried-{number}", "up_for_retry") for number in range(5)),
        *(scene.ended(f"recent-{number}", changed_ago=60) for number in range(5)),
        *(scene.ended(f"unrecorded-{number}", xcoms={}) for number in range(5)),
        *(scene.instance("gates", f"elsewhere-{number}", "approve") for number in range(5)),
        *(emulator.start(BPM, business_key=f"order-{number}")["id"] for number in range(5)),
    }
    scene.done()

    since = newest(emulator)
    shown = process(MODULE, "gates", "--output", "json")
    assert shown.code == 0, shown.err
    assert {row["instance_id"] for row in shown.rows} == awaited
    assert len(shown.rows) == 500
    waits = [row["waiting_seconds"] for row in shown.rows]
    assert waits == sorted(waits, reverse=True)
    assert {(row["state"], row["bpm_name"]) for row in shown.rows} == {("Waiting for user interaction", BPM)}
    assert queries(emulator, since) == len(OPEN_STATES), "one request for each open state"

    since = newest(emulator)
    preview = process(MODULE, "gates", "--orphans", "--output", "json")
    assert {row["id"] for row in preview.rows} == orphans, preview.err
    assert {row["task_state"] for row in preview.rows} == {"failed"}
    assert queries(emulator, since) == len(OPEN_STATES)

    refused = process(MODULE, "terminate", "--orphans", "--output", "json")
    assert refused.code == 2
    assert {row["id"] for row in refused.rows} == orphans
    assert emulator.counts()["action"] == 0

    done = process(MODULE, "terminate", "--orphans", "--yes")
    assert done.code == 0, done.err
    assert done.err.splitlines()[-2:] == ["Terminate 40 instances.", "Terminated 40 of 40."]
    assert open_ids(emulator) == awaited | left
    assert emulator.counts()["action"] == 40
    again = process(MODULE, "terminate", "--orphans", "--yes")
    assert (again.code, again.err.splitlines()[-1]) == (0, "Nothing to do: no instance matches.")


def test_each_way_of_waiting(
    scene: Scene, run: Run, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadline = time.time() + HOUR
    deferred = scene.deferred("deferred", index=3, hours=30, deadline=deadline, bpm=OTHER)
    held = scene.instance("gates", "held", "approve")
    scene.rows.task(
        "gates", "held", "approve", "running", operator="OwnSubclass", xcoms={"instance_id": held},
        fields={"astro_zero_conn_id": CONN, "bpm_name": BPM, "business_key": None}, seconds_ago=20 * HOUR,
    )  # fmt: skip
    poked = emulator.start(BPM, business_key="order-1")["id"]
    scene.rows.task(
        "gates", "poked", "sense", "up_for_reschedule", operator=SENSOR, seconds_ago=10 * HOUR,
        fields={"astro_zero_conn_id": CONN, "instance_id": None, "business_key": "order-1", "bpm_name": BPM},
    )  # fmt: skip
    scene.rows.task(
        "gates", "unknown", "sense", "running", operator=SENSOR, seconds_ago=5 * HOUR,
        fields={"astro_zero_conn_id": "***", "instance_id": "***", "business_key": None, "bpm_name": None},
    )  # fmt: skip
    identity = TaskIdentity("gates", "batch", "start_all")
    members = [
        emulator.start(OTHER, business_key=identity.batch_key(BatchKey(1, number, "k3xq")))["id"]
        for number in (1, 2, 3)
    ]
    batch = triggers.AstroZeroBpmBatchTrigger(
        astro_zero_conn_id=CONN,
        task_key={"dag_id": "gates", "run_id": "batch", "task_id": "start_all", "map_index": -1},
        batch_key=identity.batch_prefix,
    )
    scene.rows.task(
        "gates", "batch", "start_all", "deferred", operator="AstroZeroStartBpmBatchOperator", trigger=batch,
        xcoms={"instance_ids": [*members, None], "met": [2], "bpm_names": [OTHER]}, seconds_ago=HOUR,
    )  # fmt: skip
    for operator in ("AstroZeroTerminateBpmInstanceOperator", "BashOperator"):
        fields = (
            {"astro_zero_conn_id": CONN, "instance_id": held}
            if "Astro" in operator
            else {"bash_command": "ls"}
        )
        scene.rows.task("gates", operator, "other", "running", operator=operator, fields=fields)
    scene.done()

    emulator.act(members[0], "approve")
    shown = run("gates", "--output", "json")
    assert shown.code == 0, shown.err
    rows = {row["run_id"]: row for row in shown.rows}
    assert list(rows) == ["deferred", "held", "poked", "unknown", "batch"]
    assert [row["held_by"] for row in rows.values()] == ["triggerer", "worker", "none", "worker", "triggerer"]
    assert [row["instance_id"] for row in rows.values()] == [deferred, held, poked, None, None]
    assert [row["state"] for row in rows.values()][:4] == ["Waiting for user interaction"] * 3 + [None]
    assert (rows["deferred"]["map_index"], rows["held"]["map_index"]) == (3, None)
    assert rows["deferred"]["deadline"] is not None
    assert [row["deadline"] for row in rows.values()][1:] == [None, None, None, "none"]
    assert rows["unknown"]["conn_id"] is None
    batch_row = rows["batch"]
    assert (batch_row["instances"], batch_row["open_instances"]) == (2, 1)
    assert batch_row["state"] == "Completed OK: 1, Waiting for user interaction: 1"

    each = run("gates", "--instances", "--output", "json").rows
    assert [row["instance_id"] for row in each if row["run_id"] == "batch"] == [members[0], members[2]]
    older = run("gates", "--older-than", "15h", "--output", "json").rows
    assert [row["run_id"] for row in older] == ["deferred", "held"]
    named = run("gates", "--bpm-name", OTHER, "--output", "json")
    assert [row["run_id"] for row in named.rows] == ["deferred", "batch"]
    assert "skipped 1 of which the process is unknown" in named.err
    monkeypatch.setenv("AIRFLOW_CONN_ANOTHER", os.environ["AIRFLOW_CONN_ASTRO_ZERO_DEFAULT"])
    assert run("gates", "--conn-id", "another", "--output", "json").rows == []
    for form in ("plain", "table"):
        table = run("gates", "--output", form).out
        assert "None" not in table
    table = run("gates", "--output", "plain").out
    assert "approve[3]" in table
    assert "1 of 2 open" in table
    # It is unknown what one of the sensors waits for, so nothing is an orphan.
    scene.ended("orphan")
    scene.done()
    nothing = run("gates", "--orphans", "--output", "json")
    assert nothing.rows == []
    assert "perhaps awaited by a task of which it is unknown what it waits for" in nothing.err


def test_blanks_around_a_business_key_are_not_significant(
    scene: Scene, run: Run, emulator: EmulatorControl
) -> None:
    emulator.switch(key_form="padded")
    instance_id = emulator.start(BPM, business_key="order-1")["id"]
    scene.rows.task(
        "gates", "poked", "sense", "up_for_reschedule", operator=SENSOR,
        fields={"astro_zero_conn_id": CONN, "instance_id": None, "business_key": " order-1", "bpm_name": BPM},
    )  # fmt: skip
    scene.done()
    (row,) = run("gates", "--output", "json").rows
    assert (row["instance_id"], row["business_key"]) == (instance_id, "order-1")
    (listed,) = run("list", "--business-key", "order-1 ", "--output", "json").rows
    (shown,) = run("show", "--business-key", " order-1", "--output", "json").rows
    assert listed["id"] == shown["id"] == instance_id


def test_a_deferred_sensor_that_has_found_its_instance_waits_for_no_other_one(
    scene: Scene, run: Run, emulator: EmulatorControl
) -> None:
    first, _ = (emulator.start(BPM, business_key="order-1")["id"] for _ in range(2))
    seen = {"id": first, "name": BPM, "state": "Running", "business_key": "order-1"}
    _deferred_sensor(scene, business_key="order-1", seen=seen)
    scene.done()
    (row,) = run("gates", "--output", "json").rows
    assert (row["instance_id"], row["state"]) == (first, "Waiting for user interaction")


def test_an_awaited_instance_that_has_ended_costs_one_request_a_state(
    scene: Scene, run: Run, emulator: EmulatorControl
) -> None:
    ended, _ = scene.deferred("ended", bpm=OTHER), scene.deferred("open")
    scene.done()
    emulator.act(ended, "approve")
    since = newest(emulator)
    rows = {row["run_id"]: row for row in run("gates", "--output", "json").rows}
    assert rows["ended"]["state"] == "Completed OK"
    assert queries(emulator, since) == len(STATES)


def test_tasks_are_shown_although_astro_zero_cannot_be_read(
    scene: Scene, run: Run, emulator: EmulatorControl
) -> None:
    instance_id = scene.deferred("deferred")
    scene.done()
    emulator.fault("query", "status", status=400, times=99)
    shown = run("gates", "--output", "json")
    assert shown.code == 1
    assert [(row["instance_id"], row["state"]) for row in shown.rows] == [(instance_id, None)]
    assert "could not be listed" in shown.err
    refused = run("terminate", "--orphans", "--yes")
    assert refused.code == 1


def test_states_that_fail_alike_are_one_warning(
    scene: Scene, run: Run, emulator_server: EmulatorServer, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.deferred("deferred")
    scene.done()
    down = json.loads(connection(emulator_server, max_attempts=1)) | {"port": free_port}
    monkeypatch.setenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", json.dumps(down))
    shown = run("gates", "--output", "json")
    assert shown.code == 1
    assert shown.err.count("could not be listed") == 1, shown.err
    assert all(repr(state) in shown.err for state in OPEN_STATES), shown.err


def test_tasks_are_shown_although_their_connection_is_unknown(scene: Scene, run: Run) -> None:
    _sensor(scene, "r", "running", fields=_sensor_fields(instance_id="i1", astro_zero_conn_id="no_such"))
    scene.done()
    shown = run("gates", "--output", "json")
    assert shown.code == 1
    assert [(row["instance_id"], row["state"]) for row in shown.rows] == [("i1", None)]
    assert "Warning: the states of the instances on connection 'no_such' are unknown: " in shown.err


def test_a_task_that_continues_after_the_preview_keeps_its_instance(
    scene: Scene, run: Run, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.models.taskinstance import TaskInstance  # noqa: PLC0415

    from airflow_provider_astrobpm.cli import change_commands  # noqa: PLC0415

    cleared, orphan = scene.ended("cleared"), scene.ended("orphan")
    scene.done()

    def clear_meanwhile(_count: str, *, yes: bool) -> bool:
        table = TaskInstance.__table__
        scene.rows.session.execute(table.update().where(table.c.run_id == "cleared").values(state="queued"))
        scene.rows.session.commit()
        return yes

    monkeypatch.setattr(change_commands, "_is_confirmed", clear_meanwhile)
    done = run("terminate", "--orphans", "--yes", "--output", "json")
    assert {row["id"] for row in done.rows} == {cleared, orphan}, "the preview"
    assert "Left alone, because their tasks have changed meanwhile: 1 instance." in done.err
    assert open_ids(emulator) == {cleared}


@pytest.fixture
def cleared_after_the_first(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all tasks be cleared right after the first termination."""
    from airflow.models.taskinstance import TaskInstance  # noqa: PLC0415

    send = AsyncBpmClient.call

    async def call(self: AsyncBpmClient, operation: Any) -> Any:
        answer = await send(self, operation)
        if operation.method == "PUT":
            scene.rows.session.execute(TaskInstance.__table__.update().values(state="running"))
            scene.rows.session.commit()
        return answer

    monkeypatch.setattr(AsyncBpmClient, "call", call)
    monkeypatch.setattr(orphan_selection, "JUDGED_SECONDS", 0.0)


@pytest.mark.usefixtures("cleared_after_the_first")
def test_tasks_that_continue_during_the_terminations_keep_their_instances(
    scene: Scene, run: Run, emulator: EmulatorControl
) -> None:
    for number in range(5):
        scene.ended(f"orphan-{number}")
    scene.done()
    done = run("terminate", "--orphans", "--yes", "--max-concurrency", "1")
    assert done.code == 0
    assert done.err.splitlines()[-2:] == [
        "Left alone, because their tasks have changed meanwhile: 4 instances.",
        "Terminated 1 of 5, 4 left alone.",
    ]
    assert len(open_ids(emulator)) == 4


def test_a_database_that_fails_during_the_terminations_stops_them(
    scene: Scene, run: Run, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        scene.ended(f"orphan-{number}")
    scene.done()
    judge, answers = orphan_selection.judge, iter([True, True])

    def fail_after_two(instances: Any) -> Any:
        if not next(answers, False):
            raise AstroZeroError("Airflow's database cannot be read here")
        return judge(instances)

    monkeypatch.setattr(orphan_selection, "judge", fail_after_two)
    monkeypatch.setattr(orphan_selection, "JUDGED_SECONDS", 0.0)
    done = run("terminate", "--orphans", "--yes", "--max-concurrency", "1")
    assert done.code == 1
    assert "Terminated 1 of 3, 2 not tried.\nStopped: Airflow's database cannot be read here" in done.err
    assert len(open_ids(emulator)) == 2


def test_orphans_are_judged_again_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    instances = [BpmInstance(id=f"i{number}", name=BPM, state="Running") for number in range(4)]
    judged: list[list[str]] = []
    now = 0.0

    def all_but_the_last(left: list[BpmInstance]) -> OrphanSearch:
        nonlocal now
        judged.append([one.id for one in left])
        now += 2  # the time that the read takes
        return OrphanSearch([Orphan(one, None) for one in left[:-1]])  # type: ignore[arg-type]

    monkeypatch.setattr(orphan_selection, "judge", all_but_the_last)
    is_orphan = orphan_selection.StillOrphans(instances, clock=lambda: now)
    assert [is_orphan("i0"), is_orphan("i3")] == [True, False]
    now += orphan_selection.JUDGED_SECONDS - 0.1
    assert is_orphan("i1")
    assert judged == [["i0", "i1", "i2", "i3"]]
    now += 0.1
    assert not is_orphan("i2")
    assert judged[1:] == [["i2"]]


@pytest.mark.skipif(
    version_compat.task_state_model() is None, reason="Airflow 3.3 brought the task state store"
)
def test_the_record_of_a_task_names_its_instance_too(scene: Scene, run: Run) -> None:
    instance_id = scene.instance("gates", "recorded", "approve")
    scene.rows.task(
        "gates", "recorded", "approve", "failed", record={"generation": 1, "instance_id": instance_id}
    )
    scene.done()
    assert [row["id"] for row in run("gates", "--orphans", "--output", "json").rows] == [instance_id]


def _sensor(scene: Scene, run_id: str, state: str | None, **task: Any) -> None:
    scene.rows.task("others", run_id, "sense", state, **{"operator": SENSOR, **task})


def _sensor_fields(**fields: str) -> dict[str, str | None]:
    return {
        "astro_zero_conn_id": CONN,
        "instance_id": None,
        "business_key": None,
        "bpm_name": None,
        **fields,
    }


def _deferred_sensor(scene: Scene, **awaited: Any) -> None:
    trigger = triggers.AstroZeroBpmInstanceTrigger(astro_zero_conn_id=CONN, **awaited)
    _sensor(scene, "r", "deferred", trigger=trigger)


def _unreadable_trigger(scene: Scene) -> None:
    from airflow.models.trigger import Trigger  # noqa: PLC0415

    _deferred_sensor(scene, instance_id="another")
    scene.rows.session.execute(Trigger.__table__.update().values(kwargs="of another key"))


def _subclass_that_has_run_before(scene: Scene, state: str | None) -> None:
    _sensor(scene, "before", "success", operator="OwnSensor", fields=_sensor_fields(instance_id="another"))
    _sensor(scene, "r", state, operator="OwnSensor")


class OwnTrigger(triggers.AstroZeroBpmInstanceTrigger):
    """The trigger of a subclass of the sensor."""

    shown: ClassVar[frozenset[str]] = frozenset({"astro_zero_conn_id", "instance_id"})

    def serialize(self) -> tuple[str, dict[str, Any]]:
        _, arguments = super().serialize()
        return "dags.own.OwnTrigger", {name: arguments[name] for name in self.shown}


class SilentTrigger(OwnTrigger):
    """A trigger whose arguments show nothing."""

    shown = frozenset()


def _own_trigger(scene: Scene, trigger: type[OwnTrigger], instance_id: str, **task: Any) -> None:
    waits = trigger(astro_zero_conn_id=CONN, instance_id=instance_id)
    _sensor(scene, "r", "deferred", operator="OwnSensor", trigger=waits, **task)


class OwnSensor(AstroZeroBpmInstanceSensor):
    """A sensor of an author."""


def _subclass_that_has_never_run(scene: Scene, *, is_mapped: bool) -> None:
    _sensor(scene, "r", "queued", operator="OwnSensor")
    with DAG("others") as dag:
        if is_mapped:
            OwnSensor.partial(task_id="sense").expand(instance_id=["a", "b"])
        else:
            OwnSensor(task_id="sense", instance_id="a")
    scene.rows.version(dag)


def _batch(scene: Scene, instance_id: str) -> None:
    identity = TaskIdentity("others", "r", "start_all")
    trigger = triggers.AstroZeroBpmBatchTrigger(
        astro_zero_conn_id=CONN,
        task_key={"dag_id": "others", "run_id": "r", "task_id": "start_all", "map_index": -1},
        batch_key=identity.batch_prefix,
    )
    scene.rows.task(
        "others", "r", "start_all", "deferred", operator=waiting_tasks.BATCH_OPERATOR, trigger=trigger,
        xcoms={"instance_ids": ["another", instance_id]},
    )  # fmt: skip


NEEDS: list[tuple[str, str, Callable[[Scene, str, str], None]]] = [
    ("deferred by id", AWAITED, lambda scene, one, _: _deferred_sensor(scene, instance_id=one)),
    ("deferred by key", AWAITED, lambda scene, _, key: _deferred_sensor(scene, business_key=key)),
    ("unreadable trigger", PERHAPS, lambda scene, *_: _unreadable_trigger(scene)),
    ("batch", AWAITED, lambda scene, one, _: _batch(scene, one)),
    *(
        (f"sensor {state}", AWAITED, lambda scene, one, _, state=state: _sensor(
            scene, "r", state, map_index=3, fields=_sensor_fields(instance_id=one)))
        for state in (None, "scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule")
    ),
    ("sensor by key", AWAITED, lambda scene, _, key: _sensor(
        scene, "r", "up_for_reschedule", fields=_sensor_fields(business_key=key.upper()))),
    # Not rendered yet, or Airflow has deleted the fields: it keeps those of the latest 30 runs.
    *(
        (f"unrendered sensor {state}", PERHAPS, lambda scene, _one, _, state=state: _sensor(scene, "r", state))
        for state in (
            None, "scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule", "deferred",
        )
    ),
    ("cleared sensor of an ended run", PERHAPS, lambda scene, *_: _sensor(scene, "r", None, run_state="failed")),
    ("sensor of a running run", PERHAPS, lambda scene, *_: _sensor(scene, "r", None, try_number=0)),
    ("unrendered subclass", PERHAPS, lambda scene, *_: _subclass_that_has_run_before(scene, "queued")),
    ("cleared subclass", PERHAPS, lambda scene, *_: _subclass_that_has_run_before(scene, None)),
    ("new subclass", PERHAPS, lambda scene, *_: _subclass_that_has_never_run(scene, is_mapped=False)),
    ("new mapped subclass", PERHAPS, lambda scene, *_: _subclass_that_has_never_run(scene, is_mapped=True)),
    ("own trigger", AWAITED, lambda scene, one, _: _own_trigger(scene, OwnTrigger, one)),
    ("own trigger that shows nothing", AWAITED, lambda scene, one, _: _own_trigger(
        scene, SilentTrigger, one, fields=_sensor_fields(instance_id=one))),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "add"), [row[1:] for row in NEEDS], ids=[row[0] for row in NEEDS])
def test_an_instance_for_which_another_task_waits_is_no_orphan(
    scene: Scene, run: Run, reason: str, add: Callable[[Scene, str, str], None]
) -> None:
    instance_id = scene.ended("orphan")
    add(scene, instance_id, TaskIdentity("gates", "orphan", "approve").key(1))
    scene.done()
    shown = run("gates", "--orphans", "--output", "json")
    assert shown.rows == []
    assert f"1 {reason}." in shown.err


def test_an_instance_whose_own_task_may_continue_is_no_orphan(
    scene: Scene, run: Run, emulator: EmulatorControl
) -> None:
    """Although it is named by the task, and its run has ended: a clear may not have shown in the run yet."""
    states = (
        None, "scheduled", "queued", "running", "restarting", "deferred", "up_for_retry", "up_for_reschedule"
    )  # fmt: skip
    for state in states:
        identity = TaskIdentity("gates", f"batch-{state}", "start_all")
        member = emulator.start(BPM, business_key=identity.batch_key(BatchKey(1, 1, "k3xq")))["id"]
        mapped = scene.instance("gates", f"mapped-{state}", "approve", 3)
        scene.ended(f"one-{state}", state, run_state="failed")
        for run_id, task_id, index, xcoms in (
            (f"batch-{state}", "start_all", -1, {"instance_ids": [member]}),
            (f"mapped-{state}", "approve", 3, {"instance_id": mapped}),
        ):
            scene.rows.task("gates", run_id, task_id, state, map_index=index, xcoms=xcoms, run_state="failed")
    scene.done()
    shown = run("gates", "--orphans", "--output", "json")
    assert shown.rows == []
    assert f"{3 * len(states)} {OrphanVerdict.TASK_CONTINUES.value}." in shown.err


@pytest.mark.parametrize("run_state", ["queued", "running"])
def test_an_instance_of_a_run_that_has_not_ended_is_no_orphan(scene: Scene, run: Run, run_state: str) -> None:
    """A later task of the run may wait for it, or terminate it itself."""
    scene.ended("orphan", run_state=run_state)
    scene.done()
    shown = run("gates", "--orphans", "--output", "json")
    assert shown.rows == []
    assert "1 started in a DAG run that has not ended." in shown.err


@pytest.mark.parametrize(
    "add",
    [
        lambda scene: _sensor(scene, "r", "queued", operator="BashOperator", fields={"bash_command": "ls"}),
        lambda scene: _sensor(scene, "r", "queued", operator="BashOperator"),
        lambda scene: _sensor(scene, "r", None, try_number=0, run_state="failed"),
        lambda scene: _sensor(scene, "r", None, operator="BashOperator"),
        lambda scene: _own_trigger(scene, SilentTrigger, "another"),
        lambda scene: _sensor(scene, "r", "success"),
        lambda scene: _sensor(scene, "r", "running", fields=_sensor_fields(instance_id="another")),
        lambda scene: _sensor(scene, "r", "queued", operator="AstroZeroStartBpmInstanceOperator"),
        lambda scene: scene.deferred("r"),
    ],
)
def test_other_tasks_leave_an_orphan(scene: Scene, run: Run, add: Callable[[Scene], None]) -> None:
    instance_id = scene.ended("orphan")
    add(scene)
    scene.done()
    assert [row["id"] for row in run("gates", "--orphans", "--output", "json").rows] == [instance_id]


def test_each_index_of_a_mapped_task_has_its_own_orphans(scene: Scene, run: Run) -> None:
    ids = [scene.instance("gates", "mapped", "approve", index) for index in range(3)]
    for index, state in enumerate(["failed", "success", "failed"]):
        recorded = ids[index] if index < 2 else ids[1]
        scene.rows.task("gates", "mapped", "approve", state, map_index=index, xcoms={"instance_id": recorded})
    scene.done()
    assert [row["id"] for row in run("gates", "--orphans", "--output", "json").rows] == [ids[0]]


def test_a_sensor_that_waits_longer_than_its_rendered_fields_are_kept_is_listed(
    scene: Scene, run: Run
) -> None:
    _sensor(scene, "long", "up_for_reschedule")
    _sensor(scene, "not-yet", None)
    scene.done()
    rows = run("gates", "--output", "json").rows
    assert [(row["run_id"], row["held_by"], row["conn_id"]) for row in rows] == [("long", "none", None)]


def test_the_launches_of_a_failed_batch_are_orphans(
    scene: Scene, run: Run, emulator: EmulatorControl
) -> None:
    identity = TaskIdentity("gates", "batch", "start_all")
    members = [
        emulator.start(BPM, business_key=identity.batch_key(BatchKey(1, number, "k3xq")))["id"]
        for number in (1, 2)
    ]
    scene.rows.task("gates", "batch", "start_all", "failed", xcoms={"instance_ids": members})
    scene.done()
    shown = run("gates", "--orphans", "--bpm-name", BPM, "--output", "json").rows
    assert {row["id"] for row in shown} == set(members)
    assert run("gates", "--orphans", "--bpm-name", OTHER, "--output", "json").rows == []


def test_wrong_use_is_refused(run: Run) -> None:
    for arguments, words in (
        (("gates", "--conn-id", "nosuch"), "The conn_id `nosuch` isn't defined."),
        (("terminate", "--yes"), "--older-than, --younger-than or --orphans."),
        (("suspend", "--yes"), "--older-than or --younger-than."),
        (("terminate", "--orphans", "i1"), "--orphans selects the instances itself"),
        (("gates", "--orphans", "--instances"), "--instances is for waiting tasks"),
        (("gates", "--older-than", "soon"), "--older-than must be an age"),
    ):
        done = run(*arguments)
        assert (done.code, words in done.err) == (2, True), done.err


def test_a_database_that_cannot_be_read_is_an_error(tmp_path: Any) -> None:
    environment = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/empty.db"}
    done = process(MODULE, "gates", imports=True, env=os.environ | environment)
    assert done.code == 1
    assert done.err.startswith("Airflow's database cannot be read here (OperationalError).")
