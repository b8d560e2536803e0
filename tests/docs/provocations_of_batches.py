"""Provoke the messages about batches, by their quotes in ``docs/troubleshooting*.md``."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_astrobpm._airflow import user_action
from airflow_provider_astrobpm.batches.batch_input import Launch
from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.starting.business_keys import BatchKey
from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmBatchTrigger
from tests.docs.provocations_of_calls import Provocation
from tests.docs.provocations_of_tasks import KEYS, Silenced, remembered
from tests.docs.scene import BPM, CONN_ID, Scene, Tries

ONE: list[dict[str, Any]] = [{"title": "one"}]
OWN: list[dict[str, Any]] = [{"business_key": "order-4711"}]


def batch(launches: Any = ONE, **arguments: Any) -> Provocation:
    """Run a batch."""
    return lambda scene: scene.batch(launches, **arguments)


def file(name: str, content: str | bytes) -> Provocation:
    """Run a batch of a file of launches."""
    return lambda scene: scene.batch(None, launches_path=scene.written(name, content))


def begun(scene: Scene, launches: Any, tries: Tries | None = None, **arguments: Any) -> Tries:
    """Run a try of a batch that times out, and begin the next."""
    tries = tries or Tries()
    with pytest.raises(errors.BatchFailedError):
        scene.batch(launches, tries, timeout=0.001, **arguments)
    tries.again()
    return tries


def changed(before: Any, after: Any) -> Provocation:
    """Retry a batch with other launches."""
    return lambda scene: scene.batch(after, begun(scene, before))


def changed_keys(scene: Scene) -> None:
    """Retry a batch with other business keys."""
    scene.batch([{"business_key": "order-4712"}], begun(scene, OWN, remembered()))


def lost(kind: str, launches: Any = ONE, times: int = 1) -> Provocation:
    """Run a batch whose answers are lost."""

    def provoke(scene: Scene) -> None:
        scene.emulator.fault("start", kind, times=times)
        scene.batch(launches)

    return provoke


def lost_start_and_failing_searches(scene: Scene) -> None:
    """Run a batch; an answer is lost, and searches fail."""
    scene.emulator.fault("start", "drop_after")
    scene.emulator.fault("query", "status", status=403, times=99)
    scene.batch([*ONE, {"title": "two"}])


def retry_among(*names: str) -> Provocation:
    """Retry a batch; instances of these BPMs have the key of its launch."""

    def provoke(scene: Scene) -> None:
        launch = Launch(1, BPM, title="one")
        key = KEYS.batch_key(BatchKey(1, 1, launch.digest, 1))
        tries = Tries(remembers=False)
        tries.again()
        for name in names:
            scene.started(name, business_key=key)
        scene.batch(ONE, tries)

    return provoke


def retry_without_keys(scene: Scene) -> None:
    """Retry a batch; the lists show no business keys."""
    scene.emulator.switch(business_keys_in_rows=False)
    scene.started()
    tries = Tries(remembers=False)
    tries.again()
    scene.batch(ONE, tries)


def retry_with_a_shared_key(scene: Scene) -> None:
    """Retry a batch with the author's own keys, which others use too."""
    scene.started(business_key="order-4711")
    tries = Tries(remembers=False)
    tries.again()
    scene.batch(OWN, tries)


def throttled(scene: Scene) -> None:
    """Start a batch; the server throttles."""
    scene.connect({"max_attempts": 3})
    scene.emulator.fault("start", "status", status=429)
    scene.batch(ONE, wait_for_completion=False)


def clear_that_ends_nothing(scene: Scene) -> None:
    """Clear a batch that waits; terminations fail."""
    tries = Tries(remembers=False)
    begun(scene, [{"title": str(number)} for number in range(40)], tries)
    tries.max_tries = 10
    scene.emulator.fault("action", "status", status=503, times=999)
    scene.batch(ONE, tries)


def resumed_with_no_xcoms(scene: Scene) -> None:
    """Resume a batch whose XComs are gone."""
    tries = Tries()
    with pytest.raises(TaskDeferred):
        scene.batch(ONE, tries, deferrable=True, timeout=60)
    tries.xcoms = {}
    scene.operator.execute_complete(tries.context, {})


def trigger_with_no_xcoms(scene: Scene) -> None:
    """Run the trigger of a batch whose XComs are gone."""
    scene.environment.setattr(user_action, "published_xcom", lambda *_: None)

    async def wait() -> None:
        trigger = AstroZeroBpmBatchTrigger(
            astro_zero_conn_id=CONN_ID,
            batch_key="k",
            task_key={"dag_id": "orders", "run_id": "run", "task_id": "gate", "map_index": -1},
        )
        await trigger.run().__anext__()

    asyncio.run(wait())


def cleared(scene: Scene) -> None:
    """Clear a batch that waits."""
    tries = Tries(remembers=False)
    begun(scene, ONE, tries)
    tries.max_tries += 1
    scene.batch(ONE, tries, timeout=0.001)


def result_in_the_way(scene: Scene) -> None:
    """Write a result to a path that is a folder."""
    (scene.folder / "result.csv").mkdir()
    scene.batch([{"bpm_name": "Instant"}], result_path=str(scene.folder / "result.csv"))


def late_while_lists_fail(scene: Scene) -> None:
    """Let a batch time out while lists fail."""
    for kind in ("query", "get"):
        scene.emulator.fault(kind, "status", status=503, times=99)
    scene.batch(ONE, timeout=0.001)


def another_instance(scene: Scene) -> None:
    """Wait for a batch; one id shows another instance."""
    scene.emulator.fault("query", "other_fields", fields={"name": "Another", "businessKey": "z"}, times=99)
    scene.batch(ONE, timeout=60)


BATCHES: dict[str, Provocation] = {
    "its id now shows another instance: one of '…', with business key '…'": another_instance,
    "… of … launches failed, and at most … may ('max_failures'): …": batch([{"bpm_name": "AlwaysBroken"}]),
    "it was still open at the deadline ('timeout')": batch(timeout=0.001),
    "The current states of its instances could not be read: …": late_while_lists_fail,
    "A retry starts only the launches of this batch that are not open and have not succeeded; …": batch(
        timeout=0.001
    ),
    "The batch has changed since an earlier try started it: launch … differs from the launch that started …": changed(
        ONE, [{"title": "two"}]
    ),
    "The batch has changed since an earlier try started it: launch … is missing; it had started …": changed(
        [*ONE, {"title": "two"}], ONE
    ),
    "The batch has changed since an earlier try started it: its launches have other business keys": changed_keys,
    "it is unknown whether an earlier try started launch …: …": retry_without_keys,
    "it is unknown whether an earlier try started one of these for launch …, because others may use their key: …": (
        retry_with_a_shared_key
    ),
    "several instances may be that of launch …: …": retry_among(BPM, BPM),
    "… has the business key of launch …, but is not an instance of '…'": retry_among("PublishApproval"),
    "The answers to … starts were lost; searching for their instances": lost("drop_before"),
    "of … launches: … started, … open, … in doubt, … not sent; in doubt are launch … (business key '…'): …; no instance shows its business key": lost(
        "drop_before", [*ONE, {"title": "two"}]
    ),
    "of … launches: … started, … open, … in doubt, … not sent; in doubt are launch … (business key '…'): …; it could not be searched for: …": lost_start_and_failing_searches,
    "of … launches: … started (… of them found after their answers were lost), …; the lost answers are launch … (instance '…')…: …": lost(
        "drop_after", ONE * 50, times=99
    ),
    "Sending no starts for … s. …": throttled,
    "… launches were refused, so no more are started": batch(
        [{"bpm_name": "NoSuchProcess"}] * 9, fail_fast=True, max_concurrency=1
    ),
    "Instances that this task had started could not be terminated: …": clear_that_ends_nothing,
    "The task was cleared. Terminating … instances that it had started": cleared,
    "Could not record that the batch is unfinished": lambda scene: scene.batch(
        ONE, Silenced(), timeout=0.001
    ),
    "The result has … of … launches; set result_path to get all": batch(
        [{"bpm_name": "Instant"}] * 501, wait_for_completion=False
    ),
    "XComs '…', '…' and '…' do not say what this try has started": resumed_with_no_xcoms,
    "XCom '…' of the task does not say which instances it has started": trigger_with_no_xcoms,
    "the result cannot be written to …: …": result_in_the_way,
    "give exactly one of launches and launches_path": batch(None),
    "launches must be a list of mappings, not …": batch("all"),
    "launch …: it must be a mapping with some of …, not …": batch(["one"]),
    "launch …: it has no field '…'; the fields are …": batch([{"name": "one"}]),
    "launch …: it needs a bpm_name, because the batch has none": batch(bpm_name=None),
    "launch …: its business_key '…' is also that of launch …": batch([*OWN, *OWN]),
    "launch …: its id … is also that of launch …": batch([{"id": "a"}, {"id": "a"}]),
    "launch …: id must be a string or an integer, not …": batch([{"id": 1.5}]),
    "launch … has a business_key of its own, which needs validate_first=True": batch(
        OWN, validate_first=False
    ),
    "with validate_first=False the number of launches is unknown, so max_failures must be a number and not a share": batch(
        fail_fast=True, max_failures=0.5, validate_first=False
    ),
    "a batch in which launches have a business_key of their own may have at most … launches": batch(
        [*ONE * 10_000, *OWN]
    ),
    "there is no file …": batch(None, launches_path="/no/such/launches.csv"),
    "… is not a file of launches: its name must end in …": batch(
        None, launches_path="/no/such/launches.xlsx"
    ),
    "… is not a file for a result: its name must end in …": batch(result_path="/no/such/result.xlsx"),
    "… must be given without a password: the part before the @ is the id of an Airflow connection": batch(
        None, launches_path="s3://key:secret@bucket/launches.csv"
    ),
    "line … of …: it must be a JSON object: …": file("a.jsonl", "{"),
    "line … of …: it is longer than … characters": file("a.jsonl", "x" * (2**22 + 1)),
    "line … of …: after … characters it is not UTF-8": file("a.csv", b"title\n\xff\n"),
    "line … of …: it contains a NUL byte": file("a.csv", "title\n\0\n"),
    "line … of …: the row that begins here is not CSV: …": file("a.csv", 'title\n"a" b\n'),
    "it is empty, and its first line must name the columns": file("a.csv", ""),
    "line … of …: column … has no name": file("a.csv", "title,,\n"),
    "line … of …: column … has the same name as another one, …": file("a.csv", "title,title\n"),
    "line … of …: column … is called …; names are separated only by a comma": file("a.csv", "title;a\n"),
    "line … of …: the header names … columns, and this row has …": file("a.csv", "title\na,b\n"),
    "line … of …: all its cells are empty": file("a.csv", 'title\n""\n'),
    "line … of …: its variables contain …, which is also a column": file(
        "a.csv", 'a,variables\n1,"{""a"": 2}"\n'
    ),
}
