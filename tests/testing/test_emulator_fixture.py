"""``AstroZeroEmulator``: its methods, against an emulator over HTTP."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_astrobpm.client.errors import AuthenticationError, CallError, WaitFailedError
from airflow_provider_astrobpm.emulator import EmulatorError
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.testing.emulator_fixture import AstroZeroEmulator

INSTANCES = "/u-route/baas/bp/v2.0/runtime/instances"
PERSON = {
    "state": "Waiting for user interaction",
    "wait": "person",
    "outcomes": {"approve": {"bp_status": "Approved"}},
}


def test_connect_adds_a_connection_with_extras(emulator: AstroZeroEmulator) -> None:
    emulator.connect("astro_zero_cn", max_attempts=1, instance_lookup="list")
    hook = AstroZeroHook("astro_zero_cn")
    hook.start_instance("Instant")
    assert (hook.settings.max_attempts, hook.settings.instance_lookup) == (1, "list")
    assert AstroZeroHook().settings.max_attempts == 5
    emulator.assert_started("Instant")


def test_connections_have_the_recorded_extras_in_a_replay(
    emulator: AstroZeroEmulator, tmp_path: Path
) -> None:
    entry = {
        "at": "2026-11-24T10:00:00Z",
        "request": {"method": "GET", "target": "/x"},
        "failure": "no_answer",
    }
    extras = {"max_attempts": 2, "csrf": True}
    path = tmp_path / "t.jsonl"
    path.write_text(f"{json.dumps({'transcript': 1, 'extras': extras})}\n{json.dumps(entry)}\n")
    emulator.connect("before", max_attempts=3)
    emulator.replay(path)
    emulator.connect("after")
    shown = {
        name: (AstroZeroHook(name).settings.max_attempts, AstroZeroHook(name).settings.csrf)
        for name in ("astro_zero_default", "before", "after")
    }
    assert shown == {"astro_zero_default": (2, True), "before": (3, True), "after": (2, True)}


def test_child_processes_see_the_connection(emulator: AstroZeroEmulator) -> None:
    code = "import os; print(os.environ['AIRFLOW_CONN_ASTRO_ZERO_DEFAULT'])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert str(emulator.url.rpartition(":")[2]) in done.stdout


@pytest.mark.parametrize("conn_id", ["", "a b", "a=b", "a\0b"])
def test_connect_refuses_invalid_connection_ids(conn_id: str, emulator: AstroZeroEmulator) -> None:
    with pytest.raises(ValueError, match="a connection id consists of letters"):
        emulator.connect(conn_id)


def test_connect_refuses_extras_that_json_cannot_encode(emulator: AstroZeroEmulator) -> None:
    before = dict(os.environ)
    with pytest.raises(TypeError, match="not JSON serializable"):
        emulator.connect(verify={"a", "set"})
    assert dict(os.environ) == before


def test_unreachable_refuses_connections(emulator: AstroZeroEmulator) -> None:
    emulator.connect(max_attempts=1)
    with emulator.unreachable(), pytest.raises(CallError, match="could not be reached"):
        AstroZeroHook().start_instance("Instant")
    AstroZeroHook().start_instance("Instant")
    emulator.assert_started("Instant")


def test_process_adds_a_process(emulator: AstroZeroEmulator) -> None:
    emulator.process(
        "Grüße 🙂", [PERSON, {"end": {"bp_status": "Done"}}], variables={"a": 1, "b": 2}, read_only=["b"]
    )
    emulator.decides("Grüße 🙂", "approve")
    hook = AstroZeroHook()
    instance_id = hook.start_instance("Grüße 🙂", variables={"a": 3, "b": 3, "c": 3}).id
    assert hook.get_instance(instance_id).bp_status == "Done"
    emulator.assert_started("Grüße 🙂", variables={"a": 3, "b": 2}, version="1.0.0")


def test_process_replaces_a_process(emulator: AstroZeroEmulator) -> None:
    emulator.process("PublishApproval", [{"state": "Running"}, {"end": {"state": "Broken"}}])
    hook = AstroZeroHook()
    instance_id = hook.start_instance("PublishApproval").id
    assert hook.get_instance(instance_id).state == "Broken"


def test_process_refuses_invalid_steps(emulator: AstroZeroEmulator) -> None:
    with pytest.raises(EmulatorError, match="process 'P' version 1.0.0: step 1: state is missing"):
        emulator.process("P", [{"wait": "person"}])


@pytest.mark.parametrize("as_file", [True, False])
def test_script_adds_processes_from_text_or_file(
    as_file: bool, emulator: AstroZeroEmulator, tmp_path: Path
) -> None:
    text = "processes: [{name: Grüße}]"
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    emulator.script(path if as_file else text)
    AstroZeroHook().start_instance("Grüße")
    emulator.assert_started("Grüße", state="Completed OK")


@pytest.mark.parametrize(
    ("method", "state", "suspended"),
    [
        ("decides", "Completed OK", False),
        ("breaks", "Broken", False),
        ("suspends", "Waiting for user interaction", True),
        ("terminates", "Terminated", False),
    ],
)
def test_planned_actions_apply_to_matching_instances(
    method: str, state: str, suspended: bool, emulator: AstroZeroEmulator
) -> None:
    outcome = ["approve"] if method == "decides" else []
    getattr(emulator, method)("PublishApproval", *outcome, where={"dataset": "a"})
    hook = AstroZeroHook()
    meant = hook.start_instance("PublishApproval", variables={"dataset": "a"}).id
    other = hook.start_instance("PublishApproval", variables={"dataset": "b"}).id
    seen = hook.get_instance(meant)
    assert (seen.state, seen.suspended) == (state, suspended)
    assert hook.get_instance(other).state == "Waiting for user interaction"


@pytest.mark.parametrize(
    ("method", "state"), [("breaks", "Broken"), ("terminates", "Terminated"), ("suspends", "New")]
)
def test_planned_actions_apply_to_many_instances_that_end_immediately(
    method: str, state: str, emulator: AstroZeroEmulator
) -> None:
    getattr(emulator, method)("Instant")
    hook = AstroZeroHook()
    for _ in range(200):
        hook.start_instance("Instant")
    emulator.assert_started("Instant", times=200, state=state)


def test_a_planned_action_happens_at_its_time(emulator: AstroZeroEmulator) -> None:
    emulator.process("Long", [{"state": "Running", "for": 3600}])
    emulator.breaks("Long", after=timedelta(minutes=30))
    hook = AstroZeroHook()
    instance = hook.start_instance("Long")
    emulator.advance(1799)
    assert hook.get_instance(instance.id).state == "Running"
    emulator.advance(7200)
    (found,) = emulator.assert_started("Long", state="Broken")
    assert found["ended"] - found["started"] == pytest.approx(1800)


def test_assert_all_happened_reports_missed_actions(emulator: AstroZeroEmulator) -> None:
    emulator.breaks("Instant", after=1)
    with pytest.raises(AssertionError) as caught:
        emulator.assert_all_happened()
    assert str(caught.value) == (
        "These planned actions did not happen:\n"
        "  each Instant should have been broken 1 s after its start, but none was started"
    )
    emulator.reset()  # or the plugin would fail this test


@pytest.mark.parametrize("age", [864_000, timedelta(days=10)])
def test_start_with_age_creates_an_old_instance(age: Any, emulator: AstroZeroEmulator) -> None:
    """A maintenance DAG finds it by its start time, in lists that are sorted by it."""
    young = emulator.start("PublishApproval")["id"]
    old = emulator.start("PublishApproval", age=age, by="machine")["id"]
    done = emulator.start("NightlyReconciliation", age=age)
    assert emulator.instance(done["id"])["closed"]
    hook = AstroZeroHook()
    before = datetime.now(timezone.utc) - timedelta(days=7)
    rows = hook.query_instances(["Waiting for user interaction"])
    assert [row.id for row in rows] == [young, old], "newest first"
    stamps = {row.id: datetime.fromisoformat(f"{row.start_time}+00:00") for row in rows}
    assert [one for one, stamp in stamps.items() if stamp < before] == [old]
    assert [each["id"] for each in emulator.started()] == [old]


class TestComplete:
    def test_completes_the_only_open_instance(self, emulator: AstroZeroEmulator) -> None:
        emulator.start("PublishApproval", business_key="old")
        emulator.complete("PublishApproval", "reject")
        emulator.start("PublishApproval", business_key="new")
        done = emulator.complete("PublishApproval", "approve", by="Li", variables={"comment": "fine"})
        assert (done["business_key"], done["bp_status"], done["variables"]["comment"]) == (
            "new",
            "Approved",
            "fine",
        )

    def test_selects_the_instance_by_business_key(self, emulator: AstroZeroEmulator) -> None:
        emulator.start("PublishApproval", business_key="one")
        emulator.start("PublishApproval", business_key="other")
        assert emulator.complete("PublishApproval", "approve", business_key="one")["business_key"] == "one"

    @pytest.mark.parametrize(
        ("count", "options", "problem"),
        [
            (0, {}, "Expected one open instance of PublishApproval, found 0\nAll instances: none."),
            (
                2,
                {},
                "Expected one open instance of PublishApproval, found 2\nAll instances:\n  PublishApproval 1.0.0",
            ),
            (
                1,
                {"business_key": "x"},
                "Expected one open instance of PublishApproval with business key 'x', found 0",
            ),
        ],
    )
    def test_fails_unless_exactly_one_instance_matches(
        self, count: int, options: dict[str, Any], problem: str, emulator: AstroZeroEmulator
    ) -> None:
        for _ in range(count):
            emulator.start("PublishApproval")
        with pytest.raises(AssertionError, match=re.escape(problem)):
            emulator.complete("PublishApproval", "approve", **options)
        assert not any(each["closed"] for each in emulator.instances())


def test_started_lists_only_instances_started_through_the_api(emulator: AstroZeroEmulator) -> None:
    emulator.start("PublishApproval", business_key="a person's")
    emulator.assert_nothing_started()
    hook = AstroZeroHook()
    hook.start_instance("PublishApproval", business_key="mine", variables={"dataset": "a"}, title="T")
    hook.start_instance("Instant")
    assert [each["name"] for each in emulator.started()] == ["PublishApproval", "Instant"]
    assert [each["business_key"] for each in emulator.started("PublishApproval")] == ["mine"]
    (found,) = emulator.assert_started(
        "PublishApproval",
        variables={"dataset": "a"},
        business_key="mine",
        title="T",
        version="1.0.0",
        state="Waiting for user interaction",
        bp_status="Submitted",
    )
    assert found["variables"]["dataset"] == "a"
    assert emulator.assert_started("PublishApproval", times=0, title="U") == []
    with pytest.raises(AssertionError, match="Expected no start. Started instances:\n  PublishApproval"):
        emulator.assert_nothing_started()


@pytest.mark.parametrize(
    "otherwise",
    [{"business_key": "k"}, {"title": "U"}, {"version": "2"}, {"state": "Broken"}, {"bp_status": "x"}],
)
def test_assert_started_compares_each_field(otherwise: dict[str, Any], emulator: AstroZeroEmulator) -> None:
    AstroZeroHook().start_instance("Instant", business_key="j", title="T")
    (name,) = otherwise
    with pytest.raises(AssertionError, match=f"but {name} is .*, not '{otherwise[name]}'"):
        emulator.assert_started("Instant", **otherwise)


class Dag:
    """A minimal DAG for a run. Its only task blocks the thread while it waits."""

    tasks: tuple[Any, ...] = ()
    map_index = -1
    task_id = "approval"

    def __init__(self, slow: float = 0.0) -> None:
        self.slow = slow
        self.state = "running"
        self.options: dict[str, Any] = {}
        self.meanwhile: Callable[[], None] = lambda: None

    def test(self, **options: Any) -> Dag:
        self.options = options
        time.sleep(self.slow)
        hook = AstroZeroHook()
        instance = hook.start_instance("PublishApproval", business_key="k")
        self.meanwhile()
        try:
            hook.wait_for_instance(instance, poll_interval=1)
        except AuthenticationError as error:
            assert "the test has ended every wait" in str(error)  # noqa: PT017 - the run continues
            self.state = "failed"
        else:
            self.state = "success"
        return self

    def get_task_instances(self) -> list[Dag]:
        return [self]


class TestRun:
    def test_run_returns_the_result(self, emulator: AstroZeroEmulator) -> None:
        emulator.decides("PublishApproval", "approve")
        result = emulator.run(dag := Dag(), run_conf={"a": 1})
        assert (result.state, result.tasks, result.dag_run) == ("success", {"approval": "success"}, dag)
        assert dag.options == {"run_conf": {"a": 1}}
        assert "astro-zero-give-up" not in {each.name for each in threading.enumerate()}

    def test_run_fails_at_the_time_limit_with_the_open_instances(self, emulator: AstroZeroEmulator) -> None:
        with pytest.raises(AssertionError) as caught:
            emulator.run(Dag(slow=0.4), give_up_after=0.2)  # the time before the first request is not counted
        first, title, instance, _, advice = str(caught.value).splitlines()
        assert first == "The run did not finish within 0.2 s, so its waits were ended."
        assert title == "Open instances:"
        assert instance.startswith("  PublishApproval 1.0.0, business key 'k', ")
        assert instance.endswith("waits for a person: approve, reject")
        assert advice.startswith("Plan before the run what a person does, such as")

    @pytest.mark.parametrize("wrong", ["fault", "outage"])
    def test_the_time_limit_works_although_polls_fail(self, wrong: str, emulator: AstroZeroEmulator) -> None:
        """Failing polls end a wait only after ten minutes, so they must not disable the time limit."""
        emulator.connect(max_attempts=1)
        dag = Dag()
        if wrong == "fault":
            emulator.fault("query", "status", status=503, times=1000)
        else:
            dag.meanwhile = emulator.outage
        with pytest.raises(AssertionError, match="so its waits were ended"):
            emulator.run(dag, give_up_after=0.2)

    def test_another_run_can_follow_a_failed_one(self, emulator: AstroZeroEmulator) -> None:
        with pytest.raises(AssertionError, match="so its waits were ended"):
            emulator.run(Dag(), give_up_after=0.2)
        emulator.decides("PublishApproval", "approve")
        assert emulator.run(Dag()).state == "success"

    @pytest.mark.parametrize(
        ("polls", "limit", "first"),
        [
            (1, 60.0, "A request differed from the recorded ones, so the run was ended."),
            (50, 0.2, "The run did not finish within 0.2 s, so its waits were ended."),
        ],
    )
    def test_a_replay_that_does_not_end_the_run_fails_it(
        self, polls: int, limit: float, first: str, emulator: AstroZeroEmulator, tmp_path: Path
    ) -> None:
        row = {"id": "~9X", "name": "~Qbc", "state": "Running", "isClosed": False}
        answers = [
            ("POST", INSTANCES, {"body": {"name": "~Qbc", "variables": {"$Flow.BusinessKey": "~k"}}}, row),
            *[("GET", f"{INSTANCES}/~9X", {}, row)] * polls,
        ]
        lines: list[dict[str, Any]] = [{"transcript": 1, "extras": {"instance_lookup": "by_id"}}]
        for method, target, sent, result in answers:
            request = {"method": method, "target": target, "content_type": "application/json", **sent}
            body = {"resCode": "0", "resMsg": "Success", "result": result}
            answer = {"status": 200, "headers": {"content-type": "application/json"}, "body": body}
            lines.append({"at": "2026-11-24T10:00:00Z", "request": request, "answer": answer})
        path = tmp_path / "t.jsonl"
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        replay = emulator.replay(path)
        with pytest.raises(AssertionError) as caught:
            emulator.run(Dag(), give_up_after=limit)
        shown, *others = str(caught.value).splitlines()
        assert shown == first
        assert others == [*(f"Differs: {each}" for each in replay.differences), *replay.summary()]
        assert bool(replay.differences) == (polls == 1)

    def test_a_planned_action_that_came_too_late_fails_the_run(self, emulator: AstroZeroEmulator) -> None:
        emulator.decides("PublishApproval", "approve")
        emulator.breaks("PublishApproval", after=60, business_key="k")
        emulator.process("PublishApproval", [{"state": "Running", "for": 0}])
        with pytest.raises(
            AssertionError,
            match="planned actions did not happen:\n  each PublishApproval with .* had ended as",
        ):
            emulator.run(Dag())
        emulator.reset()

    def test_a_timed_out_run_reports_actions_that_matched_nothing(self, emulator: AstroZeroEmulator) -> None:
        emulator.terminates("PublishApproval", where={"dataset": "misspelt"})
        with pytest.raises(AssertionError, match="variable dataset 'misspelt' should have been terminated"):
            emulator.run(Dag(), give_up_after=0.2)
        emulator.reset()

    def test_a_dag_that_fails_before_the_time_limit_is_not_a_timeout(
        self, emulator: AstroZeroEmulator
    ) -> None:
        emulator.breaks("PublishApproval")
        with pytest.raises(WaitFailedError):
            emulator.run(Dag())


@pytest.mark.parametrize(
    ("dag", "options", "error"),
    [
        (
            test_connect_adds_a_connection_with_extras,
            {},
            "call it: run(test_connect_adds_a_connection_with_extras()).",
        ),
        (Dag(), {"give_up_after": -1}, "give_up_after must be a number of seconds, at least 0"),
        (Dag(), {"timeout": "1 h"}, "timeout must be a number of seconds, at least 0"),
        (
            Dag(),
            {"max_poll_failure_time": -1},
            "max_poll_failure_time must be a number of seconds, at least 0",
        ),
    ],
)
def test_run_refuses_invalid_arguments(
    dag: Any, options: dict[str, Any], error: str, emulator: AstroZeroEmulator
) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(error)):
        emulator.run(dag, **options)
    emulator.assert_nothing_started()


def test_repr_contains_the_url(emulator: AstroZeroEmulator) -> None:
    assert repr(emulator) == f"AstroZeroEmulator({emulator.url!r})"
