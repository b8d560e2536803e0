"""Provoke the messages about starts and waits, by their quotes in ``docs/troubleshooting*.md``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.operators.bpm import AstroZeroQueryBpmInstancesOperator
from airflow_provider_astrobpm.starting.business_keys import TaskIdentity
from tests.docs.provocations_of_calls import Provocation
from tests.docs.scene import BPM, CONN_ID, Scene, Tries
from tests.support.stores import HAS_TASK_STATE_STORE

ANOTHER = {"name": "Another", "businessKey": "another"}
KEYS = TaskIdentity("orders", "run", "gate")
Event = Callable[[str], Any]


def remembered() -> Tries:
    """Return a task whose tries have a state store; skip the test if Airflow has none."""
    if not HAS_TASK_STATE_STORE:
        pytest.skip("there is no task state store before Airflow 3.3")
    return Tries()


class Silenced(Tries):
    """A task whose XCom at its end is refused by Airflow."""

    def xcom_push(self, key: str, value: Any) -> None:
        """Publish a value, unless it is the last one."""
        if key == "wait_over":
            raise RuntimeError("the API server failed")
        super().xcom_push(key, value)


class Rescheduled(Tries):
    """A task that was rescheduled before."""

    def get_first_reschedule_date(self, _context: Any) -> datetime:
        """Return when it was rescheduled first."""
        return datetime.now(timezone.utc)


# A start in doubt.


def lost(scene: Scene, tries: Tries | None = None, **arguments: Any) -> Tries:
    """Run a try whose start was lost on the way and is in doubt, and begin the next."""
    tries = tries or Tries()
    scene.emulator.fault("start", "drop_before")
    with pytest.raises(errors.AmbiguousStartError):
        scene.start(tries, **arguments)
    tries.again()
    return tries


def timed_out(scene: Scene, tries: Tries | None = None) -> Tries:
    """Run a try that timed out and left its instance open."""
    tries = tries or Tries()
    with pytest.raises(errors.WaitTimeoutError):
        scene.start(tries, timeout=0.001)
    return tries


def start_with_no_answer(scene: Scene) -> None:
    """Start an instance; the connection is cut, and no instance shows."""
    scene.emulator.fault("start", "drop_before")
    scene.start()


def lost_start_and_failing_searches(scene: Scene) -> None:
    """Start an instance; the answer is lost, and searches fail."""
    scene.emulator.fault("start", "drop_after")
    scene.emulator.fault("query", "status", status=503, times=99)
    scene.start()


def lost_start_with_a_shared_key(scene: Scene) -> None:
    """Start an instance with a key that others use too; the answer is lost."""
    scene.started(business_key="order-4711")
    scene.emulator.fault("start", "drop_after")
    scene.start(business_key="order-4711")


def start_whose_key_is_changed(scene: Scene) -> None:
    """Start an instance; business keys come back changed."""
    scene.emulator.switch(key_form="upper")
    scene.start(wait_for_completion=False)


def start_whose_key_is_cut_off(scene: Scene) -> None:
    """Start an instance; business keys are cut off, and the answer is lost."""
    scene.emulator.switch(key_form="cut_20")
    scene.emulator.fault("start", "drop_after")
    scene.start(remembered(), business_key="a business key of 31 characters")


def retry_with_odd_timestamps(scene: Scene) -> None:
    """Retry after a lost answer; timestamps have another format."""
    tries = lost(scene, remembered())
    scene.emulator.switch(start_time_form="slashes")
    scene.started(business_key=KEYS.key(1))
    scene.start(tries)


def retry_with_fewer_retries(scene: Scene) -> None:
    """Retry after the task's retries were changed, without a record; the first try's instance has ended well."""
    tries = Tries(remembers=False)
    scene.start(tries, wait_for_completion=False, bpm_name="Instant")
    tries.max_tries += 3
    tries.again()
    tries.again()
    scene.start(tries, bpm_name="Instant")


def retry_without_keys(scene: Scene) -> None:
    """Retry; the lists show no business keys."""
    scene.emulator.switch(business_keys_in_rows=False)
    scene.started()
    tries = Tries(remembers=False)
    tries.again()
    scene.start(tries)


def retry_with_a_short_list(scene: Scene) -> None:
    """Retry; a list is cut off."""
    scene.emulator.switch(row_cap=100, order_honoured=False)
    for number in range(101):
        scene.started(business_key=f"order-{number}")
    tries = Tries(remembers=False)
    tries.again()
    scene.start(tries)


def retry_with_an_odd_row(scene: Scene) -> None:
    """Retry; the business key of an instance cannot be read."""
    scene.emulator.distort(scene.started(), {"businessKey": {}})
    tries = Tries(remembers=False)
    tries.again()
    scene.start(tries)


def retry_with_failing_searches(scene: Scene) -> None:
    """Retry; searches fail."""
    tries = lost(scene)
    scene.emulator.fault("query", "status", status=403, times=99)
    scene.start(tries)


def retry_among(*names: str) -> Provocation:
    """Retry; instances of these BPMs have the task's key."""

    def provoke(scene: Scene) -> None:
        tries = lost(scene)
        for name in names:
            scene.started(name, business_key=KEYS.key(1))
        scene.start(tries)

    return provoke


def retry_with_a_shared_key(scene: Scene) -> None:
    """Retry with the author's own key, which others use too."""
    tries = lost(scene, business_key="order-4711")
    scene.started(business_key="order-4711")
    scene.start(tries, business_key="order-4711")


def retry_after_its_instance_is_gone(scene: Scene) -> None:
    """Retry; the instance has vanished."""
    tries = timed_out(scene, remembered())
    scene.emulator.vanish(tries.xcoms["instance_id"])
    tries.again()
    scene.start(tries)


def retry_with_another_process(scene: Scene) -> None:
    """Retry after the DAG was changed to another process."""
    tries = timed_out(scene, remembered())
    tries.again()
    scene.start(tries, bpm_name="PublishApproval")


def time_out_without_a_record(scene: Scene) -> None:
    """Time out; Airflow refuses the last XCom."""
    scene.start(Silenced(), timeout=0.001)


def start_though_one_is_open(scene: Scene) -> None:
    """Start an instance with a key that an open instance has."""
    scene.started(business_key="order-4711")
    scene.start(business_key="order-4711", if_open_instance_exists="fail")


def retry_with_a_broken_record(scene: Scene) -> None:
    """Retry; the record in the task's store has another format."""
    tries = remembered()
    tries.store["astro_zero_launch"] = {"generation": "seven"}
    scene.start(tries)


def retry(scene: Scene) -> None:
    """Retry a task whose instance is open."""
    tries = timed_out(scene)
    tries.again()
    scene.start(tries, timeout=0.001)


def clear(scene: Scene) -> None:
    """Clear a task whose instance is open, without a record of the reason."""
    tries = timed_out(scene, Tries(remembers=False))
    tries.clear()
    scene.start(tries, timeout=0.001)


def retry_where_the_id_shows_another(scene: Scene) -> None:
    """Retry; the id of the instance now shows another instance."""
    tries = timed_out(scene, remembered())
    tries.again()
    scene.emulator.fault("query", "other_fields", fields=ANOTHER, times=99)
    scene.start(tries)


STARTS: dict[str, Provocation] = {
    "an earlier try started an instance with business key '…', but its id now shows a different one: …": (
        retry_where_the_id_shows_another
    ),
    "The answer to the start was lost; searching for the instance. …": start_with_no_answer,
    "…; no instance shows its business key. The instance may or may not have been started, so it was not "
    "started again.": start_with_no_answer,
    "…; it could not be searched for: …": lost_start_and_failing_searches,
    "…; it may be one of the instances that show its business key: …": lost_start_with_a_shared_key,
    "Business key '…' came back as '…'. …": start_whose_key_is_changed,
    "… shows business key '…', which may be the sent key, changed by the server": start_whose_key_is_cut_off,
    "… has its business key, but its start time '…' does not show whether this run of the DAG has started it, or a "
    "deleted one with the same id": retry_with_odd_timestamps,
    "'retries' was changed, so it is unclear whether … was started before the task was last cleared": retry_with_fewer_retries,
    "it is unknown whether an earlier try started an instance: …": retry_without_keys,
    "the lists show no business keys here": retry_without_keys,
    "the list of state '…' may be cut off at its … rows": retry_with_a_short_list,
    "a row of the lists cannot be read, because …, and it may belong to this instance": retry_with_an_odd_row,
    "It is unknown whether an earlier try has started an instance. A retry searches again.": retry_with_failing_searches,
    "several instances may be this task's: …": retry_among(BPM, BPM),
    "its business key belongs to …, which is not an instance of '…'": retry_among("PublishApproval"),
    "… has this task's business key, but is not an instance of '…'": retry_with_another_process,
    "it is unknown whether an earlier try started one of these, because others may use their key: …": retry_with_a_shared_key,
    "an earlier try started instance '…', which is now in none of the states": retry_after_its_instance_is_gone,
    "an open instance already has business key '…': instance '…'": start_though_one_is_open,
    "The record of an earlier try ('…' in the task state store) cannot be read: …": retry_with_a_broken_record,
    "Adopted instance '…' of '…' in state '…': …": retry,
    "The task was cleared. Terminating the instance it had started: …": clear,
}

# A wait that has failed.


def broken_instance(scene: Scene) -> None:
    """Wait for an instance that breaks."""
    scene.start(bpm_name="AlwaysBroken")


def in_state(state: str, **arguments: Any) -> Provocation:
    """Wait for an instance in this state."""

    def provoke(scene: Scene) -> None:
        one = scene.started()
        scene.emulator.move(one, state=state)
        scene.sense(instance_id=one, **arguments)

    return provoke


def of_status(status: str, **arguments: Any) -> Provocation:
    """Wait for an instance with this business status."""

    def provoke(scene: Scene) -> None:
        one = scene.started()
        scene.emulator.move(one, bp_status=status)
        scene.sense(instance_id=one, **arguments)

    return provoke


def suspended(scene: Scene) -> None:
    """Wait for an instance that was suspended."""
    one = scene.started()
    scene.hook().suspend_instance(one)
    scene.sense(instance_id=one, on_suspended="fail")


def time_out(**arguments: Any) -> Provocation:
    """Wait until the deadline."""
    return lambda scene: scene.start(**{"timeout": 0.001, **arguments})


def no_limit(scene: Scene) -> None:
    """Wait without any limit."""
    with pytest.raises(TaskDeferred):
        scene.start(timeout=None, deferrable=True)


def connection_away(scene: Scene) -> None:
    """Let a rescheduled sensor poke again after its connection was deleted."""
    one = scene.started()
    scene.environment.delenv(f"AIRFLOW_CONN_{CONN_ID.upper()}")
    scene.sense(Rescheduled(), instance_id=one, mode="reschedule", timeout=3600, max_poll_failure_time=0)


def time_out_with_a_failing_action(scene: Scene) -> None:
    """Wait until the deadline; the instance then cannot be terminated."""
    scene.emulator.fault("action", "status", status=403)
    scene.start(timeout=0.001, on_timeout="terminate")


def vanished(scene: Scene) -> None:
    """Wait for an instance that does not exist."""
    scene.sense(instance_id="002N-of-nobody", timeout=3600, poke_interval=20)


def another_instance(scene: Scene) -> None:
    """Wait for an instance whose id shows another one."""
    scene.emulator.fault("query", "other_fields", fields=ANOTHER, times=99)
    scene.start(timeout=60)


def contradiction(scene: Scene) -> None:
    """Wait for an instance that its list shows twice."""
    one = scene.started()
    scene.emulator.fault("query", "twice", fields={"state": "Completed OK"}, times=99)
    scene.sense(instance_id=one, max_poll_failure_time=0)


def unreadable(scene: Scene) -> None:
    """Wait for an instance whose row shows no state."""
    one = scene.started()
    scene.emulator.distort(one, {"state": None})
    scene.sense(instance_id=one, max_poll_failure_time=0)


def time_out_after(happens: Callable[[Scene, str], object]) -> Provocation:
    """Wait until the deadline; the last polls show nothing."""

    def provoke(scene: Scene) -> None:
        one = scene.hook().get_instance(scene.started())
        happens(scene, one.id)
        scene.hook().wait_for_instance(one, poll_interval=1, timeout=30)

    return provoke


def capped(scene: Scene) -> None:
    """Search for an instance; lists are cut off."""
    scene.emulator.switch(row_cap=100)
    for _ in range(101):
        scene.started()
    scene.hook({"instance_lookup": "list"}).get_instance("002N-of-nobody")


def two_of_a_key(scene: Scene) -> None:
    """Wait for a key that two open instances have."""
    for _ in range(2):
        scene.started(business_key="order-4711")
    scene.sense(business_key="order-4711")


def no_key_yet(scene: Scene) -> None:
    """Wait for a key that no instance has."""
    scene.sense(business_key="order-4711")


def without_keys(**arguments: Any) -> Provocation:
    """Wait for a key; the lists show none."""

    def provoke(scene: Scene) -> None:
        scene.emulator.switch(business_keys_in_rows=False)
        scene.started(business_key="order-4711")
        scene.sense(business_key="order-4711", **arguments)

    return provoke


def none_found(_: Scene) -> None:
    """Query without a match, and fail."""
    AstroZeroQueryBpmInstancesOperator(task_id="query", bpm_name=BPM, if_none="fail").execute({})


def no_credible_age(scene: Scene) -> None:
    """Query by age; start times have another format."""
    scene.connect({"timezone": "UTC"})
    scene.emulator.switch(start_time_form="slashes")
    scene.started()
    AstroZeroQueryBpmInstancesOperator(task_id="query", older_than="7d", if_none="fail").execute({})


def outage(scene: Scene) -> None:
    """Wait while the server is down."""
    one = scene.hook().get_instance(scene.started())
    scene.emulator.outage()
    scene.hook().wait_for_instance(one, poll_interval=1, max_poll_failure_time=30)


def short_outage(scene: Scene) -> None:
    """Wait while the server is down for a moment."""
    one = scene.hook().get_instance(scene.started())
    scene.emulator.fault("query", "status", status=503)
    scene.hook().wait_for_instance(one, poll_interval=1, timeout=30)


def unknown_event(scene: Scene) -> None:
    """Resume with an event that this provider does not send."""
    scene.resume(lambda _: {"status": "fine"})


def crashed_trigger(scene: Scene) -> None:
    """Let the trigger fail over something that is no error of this provider."""
    from airflow_provider_astrobpm.waiting import event_payload  # noqa: PLC0415

    scene.resume(lambda _: event_payload.dump(RuntimeError("anything")))


def failed_deferral(scene: Scene) -> None:
    """Resume after Airflow has given the trigger up."""
    scene.resume(failure="Trigger failure")


def late_deferral(scene: Scene) -> None:
    """Resume after Airflow has waited long enough."""
    scene.resume(failure="Trigger timeout")


def event_of_another(scene: Scene) -> None:
    """Resume with an event for which another task waits."""
    with pytest.raises(TaskDeferred):
        scene.resume(lambda _: {"status": "success", "waiter": "another"}, ti_id="this")


WAITS: dict[str, Provocation] = {
    "The wait for instance '…' of '…' failed: it ended in state '…'…; the wait was for …": broken_instance,
    "it is in state '…', one of failed_states": in_state("Paused", failed_states=["Paused"]),
    "its business status is '…', one of failed_bp_statuses": of_status("No", failed_bp_statuses=["No"]),
    'it is suspended, and on_suspended is "fail"': suspended,
    "Any business status except … opens this gate, even a misspelt or a new one. …": of_status(
        "No", failed_bp_statuses=["No"]
    ),
    "The wait for … timed out at … UTC ('timeout'); last seen: …": time_out(),
    "The wait for … timed out at … UTC ('execution_timeout'); …": time_out(
        timeout=None, execution_timeout=timedelta(seconds=0.1)
    ),
    "Neither 'timeout' nor 'execution_timeout' is set, so this task may wait forever": no_limit,
    "the connection could not be read (…)": connection_away,
    "By 'on_timeout': …": time_out(on_timeout="suspend"),
    "By 'on_timeout' '…' was tried. …": time_out_with_a_failing_action,
    "Instance '…' on connection '…' may still be open. …": time_out(),
    "Could not record that the instance stays open": time_out_without_a_record,
    "…'timeout'); it was never seen": no_key_yet,
    "no instance with … was found in the states …": none_found,
    "Left out … instances of unknown age, because their start times are not conclusive": no_credible_age,
    "cannot search for business key '…': none of the … listed instances shows a business key": without_keys(),
    "cannot search for business key '…' of BPM '…': none of the … listed instances shows a business key": without_keys(
        bpm_name=BPM
    ),
    "…; it may still be started": no_key_yet,
    "instance '…' is in none of the states": vanished,
    "…; polling again": vanished,
    "…; the longest list had … rows, so a row cap may hide it": capped,
    "instance '…' could not be read by its id": lambda scene: scene.hook(
        {"instance_lookup": "by_id"}
    ).get_instance("002N-of-nobody"),
    "an instance with business key '…' is in none of the states": lambda scene: scene.hook().find_instance(
        "none"
    ),
    "instance '…' is not the same as before: it was of '…' with business key '…', and now it is instance '…' of '…' …": (
        another_instance
    ),
    "Astro Zero shows instance '…' twice in the list of state '…' with different values: …": contradiction,
    "the row of instance '…' in the list of state '…' cannot be read, because …": unreadable,
    "…; polls have failed since … UTC: …": time_out_after(lambda scene, _: scene.emulator.outage()),
    "…; it has been in none of the states since … UTC": time_out_after(
        lambda scene, one: scene.emulator.vanish(one)
    ),
    "… instances have business key '…': …": two_of_a_key,
    "Polls are failing; still waiting. …": short_outage,
    "Polls succeed again": short_outage,
    "…; polls have failed for … s ('max_poll_failure_time')": outage,
    "The task does not understand its trigger's event (…): …": unknown_event,
    "The trigger failed with …": crashed_trigger,
    "The trigger failed: …": failed_deferral,
    "No triggerer ended the wait at its deadline; polling once more": late_deferral,
    "Airflow has given this task the event of another one; polling instead": event_of_another,
}
