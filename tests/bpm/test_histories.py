"""Random histories of one task: tries that die anywhere, retries, clears, and what becomes of the instances meanwhile.

The model is a server that starts an instance for every POST that it takes, and knows for which generation. A try dies
before or after any of its effects: a call, or a record that it writes down.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_astrobpm.bpm import api, states
from airflow_provider_astrobpm.bpm.adoption import Order, Record
from airflow_provider_astrobpm.bpm.api import Operation, Pause
from airflow_provider_astrobpm.bpm.errors import (
    AmbiguousStartError,
    AstroZeroError,
    CallError,
    InterruptedCallError,
    NotSentError,
    OpenInstanceExistsError,
    ServerError,
)
from airflow_provider_astrobpm.bpm.identity import TaskIdentity
from airflow_provider_astrobpm.bpm.instance import BpmInstance
from airflow_provider_astrobpm.bpm.launch import Launched, Launcher
from airflow_provider_astrobpm.bpm.search import find_by_id

TASK = TaskIdentity("dag", "run", "task")
OLDER_RUN = TaskIdentity("dag", "an older run", "task")
NAME, LAG = "Approval", 20.0
ENDS = ("Completed OK", "Broken", "Terminated", "User Terminated")


class Died(BaseException):
    """The process was killed."""


class Server:
    """An Astro Zero whose new instances show some time after their start."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.rows: dict[str, BpmInstance] = {}
        self.shows_from: dict[str, float] = {}
        self.fault: str | None = None
        self.starts = self.looks = 0

    def start(self, name: str, key: str, *, lag: float) -> BpmInstance:
        row = BpmInstance(id=f"i{len(self.rows)}", name=name, state="Running", business_key=key)
        self.rows[row.id], self.shows_from[row.id] = row, self.now + lag
        return row

    def move(self, instance_id: str, state: str) -> BpmInstance:
        row = msgspec.structs.replace(
            self.rows[instance_id], state=state, is_closed=states.is_terminal(state)
        )
        self.rows[instance_id] = row
        return row

    def answer(self, operation: Operation[Any]) -> Any:
        if operation.kind == "query":
            self.looks += 1
            state = dict(operation.query)["states"]
            return [r for r in self.rows.values() if r.state == state and self.shows_from[r.id] <= self.now]
        if operation.kind == "terminate":
            return self.move(operation.path.rpartition("/")[2], "Terminated")
        assert operation.kind == "start"
        self.starts += 1
        fault, self.fault = self.fault, None
        if fault == "refused connection":
            raise NotSentError("no connection")
        if fault == "cut before":
            raise InterruptedCallError("cut")
        body = json.loads(operation.body or b"")
        row = self.start(body["name"], body["variables"]["$Flow.BusinessKey"], lag=LAG)
        if fault == "cut after":
            raise InterruptedCallError("cut")
        if fault == "5xx after":
            raise ServerError("no", status=502)
        return row


class OneTask(RuleBasedStateMachine):
    """One task, its tries and its instances."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.memory: Record | None = None
        self.number, self.generation = 0, 1
        self.generation_of: dict[str, int] = {}
        self.waits_for: str | None = None

    @initialize(
        has_memory=st.booleans(),
        keeps_open=st.booleans(),
        own_key=st.sampled_from([None, "start", "adopt", "fail"]),
    )
    def begin(self, has_memory: bool, keeps_open: bool, own_key: str | None) -> None:
        self.has_memory, self.keeps_open = has_memory, keeps_open
        self.mode: Any = own_key
        self.strangers = {
            self.server.start(NAME, "another key", lag=0).id,
            self.server.start("AnotherBpm", "the author's" if own_key else TASK.key(77), lag=0).id,
            self.server.start(NAME, OLDER_RUN.key(1), lag=0).id,
        }
        if own_key:
            # The older run of a task whose author uses one key for all of them.
            older = self.server.start(NAME, "the author's", lag=0)
            self.server.move(older.id, "Completed OK")
            self.strangers.add(older.id)

    @rule(
        dies_at=st.none() | st.integers(0, 80),
        fault=st.sampled_from([None, None, "refused connection", "cut before", "cut after", "5xx after"]),
        later=st.sampled_from([0.0, 1.0, 300.0]),
        waits=st.sampled_from(["goes on", "fails and leaves it open", "is cleared"]),
    )
    def a_try(self, dies_at: int | None, fault: str | None, later: float, waits: str) -> None:
        self.server.now += later
        self.number += 1
        very_first = self.number == 1
        before, starts, looks = set(self.server.rows), self.server.starts, self.server.looks
        self.server.fault = fault
        launched = None
        try:
            launched = self.run_try(dies_at)
        except Died:
            pass
        except (AmbiguousStartError, OpenInstanceExistsError, CallError):
            pass
        self.server.fault = None
        for new in set(self.server.rows) - before:
            self.generation_of[new] = self.generation
        assert self.server.starts - starts <= 1
        if very_first and fault is None and self.mode in (None, "start"):
            assert self.server.looks == looks
        if fault is None:
            assert (
                self.server.looks - looks <= 24 + 12
            )  # one search, and a second look at what was terminated
        self.waits_for = None
        if launched is not None:
            assert launched.id not in self.strangers
            assert launched.id in self.generation_of
            self.waits_for = launched.id
            if waits != "goes on" and self.memory is not None:
                left = waits == "fails and leaves it open"
                self.memory = msgspec.structs.replace(self.memory, left_open=left)
            if waits == "is cleared":
                self.clear()

    def run_try(self, dies_at: int | None) -> BpmInstance:
        server = self.server
        effects = self.effects(dies_at)
        order = Order(
            start=lambda key: api.start(NAME, business_key=key),
            bpm_name=NAME,
            identity=TASK,
            generation=self.generation,
            try_number=self.number,
            business_key="the author's" if self.mode else None,
            if_open_instance_exists=self.mode or "start",
            has_memory=self.has_memory,
            keeps_open=self.keeps_open,
            accepts=lambda one: one.state == "Completed OK",
        )

        def remember(record: Record) -> None:
            next(effects)
            if self.has_memory:
                self.memory = msgspec.convert(msgspec.to_builtins(record), Record)
            next(effects)

        launcher = Launcher(
            order,
            find=lambda instance_id: find_by_id(instance_id, lookup="list"),
            remember=remember,
            log=lambda _note: None,
            clock=lambda: server.now,
        )
        plan = launcher.launch(self.memory)
        reply: Any = None
        error: AstroZeroError | None = None
        while True:
            try:
                step = plan.throw(error) if error else plan.send(reply)
            except StopIteration as stop:
                launched: Launched = stop.value
                break
            reply, error = None, None
            if isinstance(step, Pause):
                server.now += step.seconds
                continue
            next(effects)
            try:
                reply = server.answer(step)
            except AstroZeroError as failure:
                error = failure
            next(effects)
        instance = launched.instance
        assert launched.record.instance_id == instance.id
        assert order.accepts(instance) or not instance.is_closed
        return instance

    @staticmethod
    def effects(dies_at: int | None) -> Iterator[None]:
        number = 0
        while True:
            if number == dies_at:
                raise Died
            yield
            number += 1

    @precondition(lambda self: self.number)
    @rule()
    def clear(self) -> None:
        self.generation = self.number + 1
        self.waits_for = None

    @rule(
        which=st.integers(0, 50), state=st.sampled_from([*ENDS, "Waiting for user interaction", "Suspended"])
    )
    def it_moves(self, which: int, state: str) -> None:
        movable = [
            row.id for row in self.server.rows.values() if not row.is_closed and row.id in self.generation_of
        ]
        if movable:
            self.server.move(movable[which % len(movable)], state)

    @invariant()
    def no_two_live_instances_of_one_generation(self) -> None:
        live = [
            self.generation_of[row.id]
            for row in self.server.rows.values()
            if not row.is_closed and row.id in self.generation_of
        ]
        assert len(live) == len(set(live)), self.server.rows

    @invariant()
    def strangers_are_left_alone(self) -> None:
        for stranger in getattr(self, "strangers", ()):
            assert self.server.rows[stranger].state in {"Running", "Completed OK"}

    @invariant()
    def what_a_task_waits_for_is_its_only_live_one(self) -> None:
        if self.waits_for is not None and self.mode is None:
            live = {
                row.id
                for row in self.server.rows.values()
                if not row.is_closed and row.id in self.generation_of
            }
            assert live <= {self.waits_for}


OneTask.TestCase.settings = settings(max_examples=400, stateful_step_count=25, deadline=None)
test_one_task_has_one_instance = OneTask.TestCase
