"""Tests of bulk changes: the reported result of each instance is true, with every fault of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_astrobpm.batches.bulk_change import MAX_LOST_CALLS, BulkChange, change_all
from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
from airflow_provider_astrobpm.client.errors import (
    AuthenticationError,
    NotSentError,
    ServerError,
    SettingsError,
    ThrottledError,
    UnexpectedAnswerError,
)
from airflow_provider_astrobpm.client.operations import Action
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.client.tokens import TokenCache
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer

BPM = "SupplierOnboarding"
WAITING = "Waiting for user interaction"
ENDS = ("Completed OK", "Broken", "Terminated", "User Terminated")
ATTEMPTS = 3
AT_ONCE = 4


@pytest.fixture
def settings(emulator_server: EmulatorServer, emulator: EmulatorControl) -> Settings:
    del emulator  # only to reset it
    known = emulator_server.settings
    credentials = ClientCredentials(known.client_id, known.client_secret)
    return Settings(
        "my_conn",
        emulator_server.url,
        credentials,
        connect_timeout=5,
        max_attempts=ATTEMPTS,
        instance_lookup="list",
    )


class Counting(AsyncBpmClient):
    """Counts the concurrent changes, and lets each take time on a virtual clock."""

    under_way = most = 0
    now = 1e9
    seconds_a_call = 0.0
    before_a_look: Callable[[], None] = staticmethod(lambda: None)

    async def call(self, operation: Any) -> Any:
        if operation.method == "GET":
            self.before_a_look()
        if operation.method != "PUT":
            return await super().call(operation)
        self.now += self.seconds_a_call
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            return await super().call(operation)
        finally:
            self.under_way -= 1


class Group:
    """A group of instances to change, with the log."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.seconds_a_call = 0.0
        self.before_a_look: Callable[[], None] = lambda: None
        self.while_it_sleeps: Callable[[float], object] = lambda _seconds: None
        self.slept: list[float] = []
        self.notes: list[str] = []
        self.most_at_once = 0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.while_it_sleeps(seconds)
        await asyncio.sleep(0)

    def change(
        self, ids: Iterable[str] | Mapping[str, str | None], action: Action = "terminate", **arguments: Any
    ) -> BulkChange:
        wanted = ids if isinstance(ids, Mapping) else dict.fromkeys(ids, WAITING)

        async def main() -> BulkChange:
            async with Counting(self.settings, tokens=TokenCache(), sleep=self.sleep) as client:
                client.seconds_a_call = self.seconds_a_call
                client.before_a_look = self.before_a_look
                try:
                    return await asyncio.wait_for(
                        change_all(
                            client,
                            wanted,
                            action,
                            log=lambda note: self.notes.append(note.text),
                            clock=lambda: client.now,
                            **{"max_concurrency": AT_ONCE, **arguments},
                        ),
                        60,
                    )
                finally:
                    self.most_at_once = client.most
                    assert asyncio.all_tasks() == {asyncio.current_task()}, "all workers have finished"

        change = asyncio.run(main())
        listed = [*change.done, *change.ended, *change.failed, *change.not_tried]
        assert sorted(listed) == sorted(wanted), "each is reported once"
        seen = [one.id for one in change.instances]
        assert len(set(seen)) == len(seen)
        assert {*change.done, *change.ended} <= set(seen) <= {*change.done, *change.ended, *change.failed}
        return change


@pytest.fixture
def group(settings: Settings) -> Group:
    return Group(settings)


def started(emulator: EmulatorControl, count: int, bpm: str = BPM) -> list[str]:
    return [emulator.start(bpm, by="machine")["id"] for _ in range(count)]


def states(emulator: EmulatorControl) -> dict[str, str]:
    return {each["id"]: each["state"] for each in emulator.instances()}


def closed(emulator: EmulatorControl) -> set[str]:
    return {each["id"] for each in emulator.instances() if each["closed"]}


def requests(emulator: EmulatorControl) -> dict[str, int]:
    return {kind: count for kind, count in emulator.counts().items() if count and kind != "token"}


def test_terminates_all_with_one_request_each(group: Group, emulator: EmulatorControl) -> None:
    ids = started(emulator, 50)
    change = group.change(ids)
    assert set(states(emulator).values()) == {"Terminated"}
    assert change.note == "terminate: 50 done"
    assert sorted(change.done) == sorted(ids)
    assert {one.state for one in change.instances} == {"Terminated"}
    assert group.most_at_once == AT_ONCE
    assert requests(emulator) == {"action": 50}
    assert group.notes == []


def test_suspends_and_resumes_all(group: Group, emulator: EmulatorControl) -> None:
    ids = started(emulator, 10)
    assert group.change(ids, "suspend").note == "suspend: 10 done"
    assert all(each["suspended"] for each in emulator.instances())
    emulator.reset_counts()
    again = group.change(ids, "suspend")
    assert sorted(again.done) == sorted(ids), "they are already suspended, although the server refuses"
    assert requests(emulator) == {"action": 10, "query": 1}
    assert group.change(ids, "resume").note == "resume: 10 done"
    assert not any(each["suspended"] for each in emulator.instances())


def test_accepts_an_empty_selection(group: Group, emulator: EmulatorControl) -> None:
    assert group.change([]) == BulkChange("terminate")
    assert not any(emulator.counts().values())


@pytest.mark.parametrize(("action", "done"), [("terminate", 6), ("suspend", 4)])
def test_an_instance_that_has_ended_is_no_failure(
    action: Action, done: int, group: Group, emulator: EmulatorControl
) -> None:
    ids = started(emulator, 8)
    for instance_id, state in zip(ids[:4], ENDS, strict=True):
        emulator.move(instance_id, state=state)
    change = group.change(ids, action)
    assert change.note == f"{action}: {done} done, {8 - done} had already ended"
    assert set(change.ended) == set(ids[: 8 - done])
    assert {one.id: one.state for one in change.instances} == states(emulator)


def test_a_refusal_has_a_reason_and_does_not_stop_the_others(group: Group, emulator: EmulatorControl) -> None:
    ids = started(emulator, 20)
    emulator.fault("action", "status", status=403, res_code="405230099", res_msg="not yours", times=2)
    change = group.change(ids)
    assert len(change.done) == 18
    why = f"the server refused, and the instance is '{WAITING}' (HTTP 403, resCode '405230099', resMsg 'not yours')"
    assert set(change.failed) == set(ids) - closed(emulator)
    assert all(reason.startswith(why) for reason in change.failed.values())
    first, second = change.failed
    assert f"18 done, 2 failed (instance {first!r}, {second!r}: {why}" in change.note
    assert {one.id: one.state for one in change.instances} == states(emulator)


def test_the_note_names_only_the_first_failures(group: Group, emulator: EmulatorControl) -> None:
    ids = started(emulator, 9)
    for instance_id in ids[:7]:
        emulator.vanish(instance_id)
    change = group.change(ids)
    first, second, third, *others = change.failed
    assert len(others) == 4
    assert change.note.startswith(
        f"terminate: 2 done, 7 failed (instance {first!r}: it is in none of the states"
    )
    assert f"; instance {second!r}: " in change.note
    assert f"; instance {third!r}: " in change.note
    assert not any(other in change.note for other in others)
    assert change.note.endswith("; …)")


@pytest.mark.parametrize("fault", ["drop_before", "drop_after", "truncate"])
def test_resends_after_a_lost_answer(fault: str, group: Group, emulator: EmulatorControl) -> None:
    ids = started(emulator, 20)
    emulator.fault("action", fault, times=3)
    change = group.change(ids)
    assert (change.note, closed(emulator)) == ("terminate: 20 done", set(ids))
    assert emulator.counts()["action"] == 23
    assert len(group.slept) == 3


@pytest.mark.parametrize(("fault", "done"), [("drop_after", 20), ("drop_before", 17)])
def test_judges_by_the_state_if_all_answers_are_lost(
    fault: str, done: int, settings: Settings, emulator: EmulatorControl
) -> None:
    ids = started(emulator, 20)
    emulator.fault("action", fault, times=3)
    change = Group(replace(settings, max_attempts=1)).change(ids)
    assert len(change.done) == done
    assert set(change.done) == closed(emulator)
    assert set(change.failed) == set(ids) - closed(emulator)
    for reason in change.failed.values():
        assert reason.startswith("the connection was lost")
        assert not any(instance_id in reason for instance_id in ids)


@pytest.mark.parametrize("fault", ["html", "not_json", "wrong_shape", "code_in_200"])
def test_an_unreadable_answer_is_no_failure_if_the_state_is_right(
    fault: str, group: Group, emulator: EmulatorControl
) -> None:
    ids = started(emulator, 10)
    emulator.fault("action", fault, times=4, work_done=True, status=404)
    assert group.change(ids).note == "terminate: 10 done"
    assert closed(emulator) == set(ids)


def test_a_missing_instance_is_a_failure(group: Group, emulator: EmulatorControl) -> None:
    ids = started(emulator, 10)
    emulator.vanish(ids[3])
    change = group.change(ids)
    assert len(change.done) == 9
    assert list(change.failed) == [ids[3]]
    assert change.is_complete
    assert change.failed[ids[3]].startswith("it is in none of the states (HTTP 400, resCode '405230030'")


def test_an_accepted_action_without_effect_is_no_success(group: Group, emulator: EmulatorControl) -> None:
    ids = started(emulator, 10)
    emulator.switch(action_lag=30)
    change = group.change(ids)
    assert change.done == []
    words = f"accepted, but shows no effect after 60 s: the instance is {WAITING!r}"
    assert change.failed == dict.fromkeys(change.failed, words)
    assert sum(group.slept) == 60
    assert change.in_doubt == set(ids)
    assert not change.is_complete, "they are open, so nothing may be started in their place"
    assert set(change.failed) == set(ids)
    emulator.advance(30)
    assert closed(emulator) == set(ids)


@pytest.mark.parametrize(("lag", "slept"), [(1, 1), (10, 15), (50, 60)])
def test_searches_until_an_accepted_action_shows(
    lag: float, slept: float, group: Group, emulator: EmulatorControl
) -> None:
    ids = started(emulator, 10)
    emulator.switch(action_lag=lag)
    group.while_it_sleeps = emulator.advance
    assert group.change(ids).note == "terminate: 10 done"
    assert sum(group.slept) == slept


def test_searches_until_an_action_with_a_lost_answer_shows(
    settings: Settings, emulator: EmulatorControl
) -> None:
    ids = started(emulator, 3)
    emulator.switch(action_lag=10)
    emulator.fault("action", "drop_after", times=3)
    group = Group(replace(settings, max_attempts=1))
    group.while_it_sleeps = emulator.advance
    assert group.change(ids).note == "terminate: 3 done"


def test_searches_for_the_start_grace_of_the_connection(
    settings: Settings, emulator: EmulatorControl
) -> None:
    (instance_id,) = started(emulator, 1)
    emulator.switch(action_lag=30)
    group = Group(replace(settings, start_grace=4))
    assert "but shows no effect after 4 s" in group.change([instance_id]).failed[instance_id]
    assert group.slept == [1, 2, 1]


def test_searches_once_without_grace_or_after_a_stop(group: Group, emulator: EmulatorControl) -> None:
    (instance_id,) = started(emulator, 1)
    emulator.switch(action_lag=30)
    words = "accepted, but shows no effect yet"
    assert group.change([instance_id], grace=0).failed[instance_id].startswith(words)
    (other,) = started(emulator, 1)
    stopped = group.change([other], is_stopped=lambda: emulator.counts()["action"] > 1)
    assert stopped.failed[other].startswith(words)
    assert group.slept == []


def test_an_accepted_action_on_a_missing_instance_is_a_failure(
    group: Group, emulator: EmulatorControl
) -> None:
    (instance_id,) = started(emulator, 1)
    emulator.switch(action_lag=30)

    def archive() -> None:
        if emulator.instances():
            emulator.vanish(instance_id)

    group.before_a_look = archive
    reason = group.change([instance_id]).failed[instance_id]
    assert reason.startswith("accepted, but it is in none of the states. It may have been deleted")


def test_an_effect_found_by_the_search_is_done(group: Group, emulator: EmulatorControl) -> None:
    ids = started(emulator, 5)
    emulator.switch(action_lag=30)
    group.before_a_look = lambda: emulator.advance(30)
    assert group.change(ids).note == "terminate: 5 done"


@pytest.mark.parametrize("fault", [{}, {"fault": "status", "status": 404}])
def test_reports_both_errors_if_the_search_fails_too(
    fault: dict[str, Any], group: Group, emulator: EmulatorControl
) -> None:
    ids = started(emulator, 6)
    emulator.switch(action_lag=30)
    emulator.fault("query", "status", status=503, times=100)
    if fault:
        emulator.fault("action", **fault, times=6)
    change = group.change(ids)
    assert set(change.failed) == set(ids)
    assert change.is_complete is not bool(fault)
    first = "the server refused, and afterwards" if fault else "accepted, but then"
    for reason in change.failed.values():
        assert reason.startswith(f"{first} the instance could not be read (the server failed)")
    # Accepted actions are searched for once more.
    assert emulator.counts()["query"] == (ATTEMPTS if fault else 2 * ATTEMPTS)


def test_verifies_all_unsettled_instances_with_one_search(group: Group, emulator: EmulatorControl) -> None:
    ids = started(emulator, 60)
    for instance_id in ids[:20]:
        emulator.move(instance_id, state="Completed OK")
    emulator.fault("action", "status", status=404, times=20, skip=20)
    emulator.switch(action_lag=30)
    change = group.change(ids, grace=0)
    assert len(change.ended) == 20
    assert len(change.failed) == 40
    # The search lists waiting instances, then Running with none, then Completed OK; then none is missing.
    assert requests(emulator) == {"action": 60, "query": 3}


def test_refused_credentials_stop_the_run_at_once(settings: Settings, emulator: EmulatorControl) -> None:
    ids = started(emulator, 30)
    change = Group(replace(settings, credentials=ClientCredentials("wrong", "my-secret"))).change(ids)
    assert set(change.not_tried) == set(ids)
    assert isinstance(change.stopped_by, AuthenticationError)
    assert change.note.startswith(
        "terminate: 0 done, 30 not tried (Could not get a token on connection 'my_conn'"
    )
    assert "my-secret" not in change.note
    assert requests(emulator) == {}


def test_a_failing_token_request_stops_the_run(group: Group, emulator: EmulatorControl) -> None:
    ids = started(emulator, 30)
    emulator.fault("token", "status", status=500, times=1000)
    change = group.change(ids)
    assert set(change.not_tried) == set(ids)
    assert isinstance(change.stopped_by, ServerError)
    assert requests(emulator) == {}


def test_a_server_that_is_down_stops_the_run(settings: Settings, free_port: int) -> None:
    group = Group(replace(settings, base_url=f"http://127.0.0.1:{free_port}"))
    ids = [f"002N{number}" for number in range(30)]
    change = group.change(ids)
    assert set(change.not_tried) == set(ids)
    assert isinstance(change.stopped_by, NotSentError)
    assert "30 not tried (Could not get a token" in change.note


def test_unusable_settings_stop_the_run(settings: Settings) -> None:
    change = Group(replace(settings, verify="/no/such/file.pem")).change(["002N1", "002N2"])
    assert isinstance(change.stopped_by, SettingsError)
    assert len(change.not_tried) == 2


def test_lasting_throttling_stops_the_run(group: Group, emulator: EmulatorControl) -> None:
    ids = started(emulator, 30)
    emulator.fault("action", "status", status=429, times=1000, skip=10)
    change = group.change(ids)
    assert isinstance(change.stopped_by, ThrottledError)
    assert set(change.done) == closed(emulator)
    assert len(change.done) == 10
    assert set(change.not_tried) == set(ids) - set(change.done)
    assert emulator.counts()["action"] <= 10 + ATTEMPTS * AT_ONCE


def test_transient_throttling_does_not_stop_the_run(group: Group, emulator: EmulatorControl) -> None:
    ids = started(emulator, 20)
    emulator.fault("action", "status", status=429, retry_after="7", times=2)
    assert group.change(ids).note == "terminate: 20 done"
    assert group.slept == [7, 7]


@pytest.mark.parametrize("mode", ["cut", "503"])
def test_many_lost_answers_in_a_row_stop_the_run(mode: Any, group: Group, emulator: EmulatorControl) -> None:
    ids = started(emulator, 100)
    emulator.fault("action", "drop_before" if mode == "cut" else "html", status=503, times=10_000)
    change = group.change(ids)
    assert change.stopped_by is not None
    assert MAX_LOST_CALLS <= len(change.failed) < MAX_LOST_CALLS + AT_ONCE
    assert len(change.not_tried) == 100 - len(change.failed)
    assert emulator.counts()["action"] == ATTEMPTS * len(change.failed)
    assert not closed(emulator)


def test_a_gateway_answering_for_the_server_stops_the_run(group: Group, emulator: EmulatorControl) -> None:
    ids = started(emulator, 100)
    emulator.fault("action", "html", status=200, times=10_000)
    assert isinstance(group.change(ids).stopped_by, UnexpectedAnswerError)
    assert emulator.counts()["action"] < MAX_LOST_CALLS + AT_ONCE


@pytest.mark.parametrize("status", [403, 500])
def test_single_refusals_do_not_stop_the_run(status: int, group: Group, emulator: EmulatorControl) -> None:
    ids = started(emulator, 3 * MAX_LOST_CALLS)
    for instance_id in ids:
        emulator.move(instance_id, state="Completed OK")
    emulator.switch(refusal_status=500 if status == 500 else 400)
    assert len(group.change(ids).ended) == len(ids)


@pytest.mark.parametrize(("patience", "sent"), [(0, 0), (2, 4), (2.2, 5), (None, 20)])
def test_sends_nothing_after_the_timeout(
    patience: float | None, sent: int, group: Group, emulator: EmulatorControl
) -> None:
    ids = started(emulator, 20)
    group.seconds_a_call = 0.5
    change = group.change(ids, patience=patience, max_concurrency=1)
    assert change.done == ids[:sent]
    assert change.not_tried == ids[sent:]
    assert closed(emulator) == set(ids[:sent])
    assert emulator.counts()["action"] == sent
    assert change.stopped_by is None
    assert sent == 20 or change.note.endswith(f"{20 - sent} not tried (timed out)")


def test_verifies_what_was_sent_before_the_timeout(group: Group, emulator: EmulatorControl) -> None:
    ids = started(emulator, 20)
    emulator.move(ids[0], state="Completed OK")
    group.seconds_a_call = 0.5
    change = group.change(ids, patience=2)
    assert change.ended == ids[:1]
    assert sorted(change.done) == sorted(ids[1:4])


@pytest.mark.parametrize("at_once", [1, 7, 200])
def test_keeps_to_the_allowed_concurrency(at_once: int, group: Group, emulator: EmulatorControl) -> None:
    ids = started(emulator, 30)
    assert group.change(ids, max_concurrency=at_once).note == "terminate: 30 done"
    assert group.most_at_once == min(at_once, 30)


def test_logs_its_progress(group: Group, emulator: EmulatorControl) -> None:
    ids = started(emulator, 40)
    emulator.fault("action", "status", status=403)
    group.seconds_a_call = 0.5
    group.change(ids, max_concurrency=1)
    assert group.notes == [
        "Terminated 9 of 40, 1 to verify; 2/s, about 15 s left",
        "Terminated 19 of 40, 1 to verify; 2/s, about 10 s left",
        "Terminated 29 of 40, 1 to verify; 2/s, about 5 s left",
    ]


def test_a_cancellation_leaves_no_calls_behind(settings: Settings) -> None:
    ids = [f"002N{number}" for number in range(20)]

    class Stuck(Counting):
        def __init__(self) -> None:
            super().__init__(settings, tokens=TokenCache())
            self.all_stuck = asyncio.Event()

        async def call(self, operation: Any) -> Any:
            self.under_way += 1
            if self.under_way == AT_ONCE:
                self.all_stuck.set()
            await asyncio.Event().wait()

    async def main() -> None:
        async with Stuck() as client:
            change = change_all(
                client,
                dict.fromkeys(ids, WAITING),
                "terminate",
                max_concurrency=AT_ONCE,
                log=lambda _note: None,
            )
            task = asyncio.create_task(change)
            await asyncio.wait_for(client.all_stuck.wait(), 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("ids", "arguments", "match"),
    [
        ({"002N1": None}, {"action": "delete"}, "action must be one of"),
        ({}, {"action": "delete"}, "action must be one of"),
        ({"002N1": None, " ": None}, {}, "instance_id must be a text that is not blank"),
        ({"002N1": None}, {"max_concurrency": 0}, "max_concurrency must be a whole number, at least 1"),
    ],
)
def test_bad_arguments_send_nothing(
    ids: dict[str, str | None], arguments: dict[str, Any], match: str, group: Group, emulator: EmulatorControl
) -> None:
    with pytest.raises(ValueError, match=match):
        group.change(ids, **arguments)
    assert not any(emulator.counts().values())


# In these positions, a hidden instance looks like a missing one, and a hidden effect like one that has not happened yet.
GONE = "it is in none of the states, and could not be read by its id either; it could not be read by its id"
HIDING: dict[tuple[str, Any], str] = {
    ("row_cap", 1): GONE,
    ("keep_closed", False): GONE,
}


def test_results_are_true_in_every_position_of_every_switch(
    lookup: Any, switch: str, position: Any, settings: Settings, emulator: EmulatorControl
) -> None:
    emulator.switch(**{"get_by_id": "action" if lookup == "by_id" else "absent", switch: position})
    csrf = (switch, position) == ("csrf_required", True)
    group = Group(replace(settings, instance_lookup=lookup, csrf=csrf))
    group.while_it_sleeps = emulator.advance
    ids = started(emulator, 8)
    for instance_id, state in zip(ids[:4], ENDS, strict=True):
        emulator.move(instance_id, state=state)
    emulator.advance(30)  # they show by now

    for action in ("suspend", "suspend", "terminate"):
        change = group.change(ids, action)
        now = {each["id"]: each for each in emulator.instances()}
        is_closed = {one for one in ids if now[one]["closed"]}
        if action == "terminate":
            is_so = {one for one in is_closed if now[one]["state"] in ("Terminated", "User Terminated")}
        else:
            is_so = {one for one in ids if now[one]["suspended"]}
        words = HIDING.get((switch, position), "there are none")
        assert set(change.done) <= is_so
        assert set(change.ended) <= is_closed - is_so
        assert change.not_tried == []
        assert all(reason in words for reason in map(_beginning, change.failed.values()))
        emulator.advance(30)
        assert all(
            each["closed"] or (action == "suspend" and each["suspended"]) for each in emulator.instances()
        )


def _beginning(reason: str) -> str:
    return reason.partition(" (")[0].partition(".")[0]
