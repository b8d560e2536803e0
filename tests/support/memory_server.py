"""An Astro Zero in memory that lives in virtual time: no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from airflow_provider_astrobpm.bpm import states
from airflow_provider_astrobpm.bpm.aio import AsyncBpmClient
from airflow_provider_astrobpm.bpm.api import Operation, Plan
from airflow_provider_astrobpm.bpm.errors import NotSentError, RefusedError, ServerError, ThrottledError
from airflow_provider_astrobpm.bpm.instance import BpmInstance
from airflow_provider_astrobpm.bpm.settings import ReadyToken, Settings
from tests.support.virtual_time import VirtualLoop

T = TypeVar("T")

BEGINNING = 1_700_000_000.0  # what the wall clock shows when the loop's clock shows nothing
FROZEN = "Frozen"  # a state that no documentation names, in rows that are listed as Running
UNHEARD_OF = "Unheard Of"  # another, which no list shows


def instance(instance_id: str, state: str = "Running", **fields: Any) -> BpmInstance:
    """Make an instance as it comes out of the wire: closed where its state says so."""
    fields.setdefault("name", "Approval")
    fields.setdefault("is_closed", states.is_terminal(state))
    fields["suspended"] = fields.get("suspended", False) or state == states.SUSPENDED
    return BpmInstance(id=instance_id, state=state, **fields)


def settings(**fields: Any) -> Settings:
    """Make the settings of a connection that reads lists alone."""
    fields = {
        "connection": "first_conn",
        "base_url": "https://zero.example",
        "credentials": ReadyToken("t"),
        "instance_lookup": "list",
        **fields,
    }
    return Settings(**fields)


class Server:
    """An Astro Zero that answers in virtual time, and a wall clock that may be set.

    :param loop: the loop whose time it lives in.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.rows: dict[str, BpmInstance] = {}
        self.row_cap: int | None = None
        self.reads: Literal["work", "absent", "broken"] = "work"
        """What comes of reading an instance by its id."""
        self.answer_time = 0.0
        """Seconds from a request, and from what it reads, to its answer."""
        self.closing_time = 0.0
        """Seconds that it takes to close a client."""
        self.fault: Callable[[], BaseException] | None = None
        self.calls_to_fault = 0
        """How many calls succeed before the fault."""
        self.faults_left = 0
        self.bad_lists: dict[str, Callable[[], BaseException]] = {}
        """How the lists of some states fail, each time."""
        self.twice: dict[str, BpmInstance] = {}
        """Rows that lists show beside those of the same ids."""
        self.clock_offset = BEGINNING
        self.before_look: Callable[[Look], None] = lambda _look: None
        self.after_look: Callable[[Look], None] = lambda _look: None

    def clock(self) -> float:
        """Return the wall clock's time."""
        return self.loop.now + self.clock_offset

    def put(self, *rows: BpmInstance) -> None:
        """Start instances, or move those that there are."""
        self.rows |= {row.id: row for row in rows}

    def fail(self, fault: Callable[[], BaseException], times: int = 1_000_000, after: int = 0) -> None:
        """Let so many calls fail from now on, after some that succeed."""
        self.fault, self.faults_left, self.calls_to_fault = fault, times, after

    def heal(self) -> None:
        """Let nothing fail any more."""
        self.fault = None
        self.bad_lists.clear()
        self.twice.clear()

    def listed(self, state: str) -> list[BpmInstance]:
        """Return what a list of a state shows, newest first."""
        rows = [
            row for row in self.rows.values() if (row.state if row.state != FROZEN else "Running") == state
        ]
        rows += [self.twice[row.id] for row in rows if row.id in self.twice]
        return rows[::-1][: self.row_cap]

    def reply(self, operation: Operation[Any]) -> Any:
        """Return the answer to an operation as things are at this moment, or raise its error."""
        if self.fault is not None:
            if self.calls_to_fault > 0:
                self.calls_to_fault -= 1
            elif self.faults_left > 0:
                self.faults_left -= 1
                raise self.fault()
        if operation.kind == "query":
            state = operation.query[0][1]
            if state in self.bad_lists:
                error = self.bad_lists[state]()
                raise error
            return self.listed(state)
        instance_id = operation.path.rsplit("/", 1)[1]
        if self.reads == "broken":
            raise ServerError("broken", status=500)
        if self.reads == "absent" or instance_id not in self.rows:
            raise RefusedError("no such thing", status=404)
        return self.rows[instance_id]


@dataclass(eq=False)
class Look:
    """One run of a poller's plan, with its times by the loop's clock and by the wall clock."""

    began: float
    began_at: float
    ended: float | None = None
    ended_at: float = 0.0
    asked: list[str] = field(default_factory=list)
    """What was asked: the state of a list, or ``get``."""
    shown: list[BpmInstance] = field(default_factory=list)
    """All rows of all answers."""
    listed: list[BpmInstance] = field(default_factory=list)
    """Those of lists."""
    shown_lists: set[str] = field(default_factory=set)
    """The states that were listed."""
    failed_lists: set[str] = field(default_factory=set)
    """The states whose lists failed at least once."""
    contradicted: set[str] = field(default_factory=set)
    """The ids of instances that one list showed in different rows."""
    refused_reads: set[str] = field(default_factory=set)
    """The ids of instances that could not be read, and not because something went wrong."""
    errors: list[BaseException] = field(default_factory=list)
    """How calls failed, but for reads by id for which lists make up."""
    failure: BaseException | None = None
    """A defect, or why the server counts as down."""

    def shows(self, instance_id: str | None) -> bool:
        """Return whether it shows an instance beyond doubt."""
        return instance_id not in self.contradicted and any(row.id == instance_id for row in self.shown)

    def lists_everything(self) -> bool:
        """Return whether it has listed every state."""
        return self.shown_lists >= set(states.STATES)


class Client(AsyncBpmClient):
    """The client as it is, with a server in memory in place of the exchange.

    :param known: the settings.
    :param server: the server.
    """

    def __init__(self, known: Settings, server: Server) -> None:
        super().__init__(known)
        self.server = server
        self.looks: list[Look] = []
        self.closed = 0
        self.wrongs: list[str] = []
        """What no poller may do, and yet was done."""

    async def run(self, plan: Plan[T]) -> T:
        server = self.server
        look = Look(server.loop.now, server.clock())
        if self.closed:
            self.wrongs.append("a look after the client was closed")
        if self.looks:
            last = self.looks[-1]
            if last.ended is None:
                self.wrongs.append("two looks at once")
            elif look.began - last.began < 1 - 1e-6:
                self.wrongs.append("two looks less than a second apart")
        self.looks.append(look)
        server.before_look(look)
        try:
            findings = await super().run(plan)
        except BaseException as error:
            look.failure = error
            raise
        else:
            look.failure = getattr(findings, "failure", None)
            return findings
        finally:
            look.ended, look.ended_at = server.loop.now, server.clock()
            server.after_look(look)

    async def call(self, operation: Operation[T]) -> T:
        look = self.looks[-1]
        look.asked.append(operation.query[0][1] if operation.kind == "query" else operation.kind)
        if operation.kind not in ("query", "get"):
            self.wrongs.append(f"a {operation.kind} was sent")
        error: BaseException | None = None
        try:
            answer = self.server.reply(operation)
        except Exception as failure:  # noqa: BLE001 - raised when the answer has come
            error = failure
        if self.server.answer_time:
            await asyncio.sleep(self.server.answer_time)
        if error is not None:
            if operation.kind == "query":
                look.failed_lists.add(operation.query[0][1])
            elif isinstance(error, RefusedError):
                look.refused_reads.add(operation.path.rsplit("/", 1)[1])
            if operation.kind == "query" or self._ends_a_read(error):
                look.errors.append(error)
            raise error
        if operation.kind == "query":
            look.shown_lists.add(operation.query[0][1])
            rows: dict[str, BpmInstance] = {}
            look.contradicted |= {row.id for row in answer if rows.setdefault(row.id, row) != row}
        look.shown += answer if operation.kind == "query" else [answer]
        look.listed += answer if operation.kind == "query" else []
        result: T = answer
        return result

    def _ends_a_read(self, error: BaseException) -> bool:
        """Return whether the lists cannot make up for a read by id that failed so."""
        if self.settings.instance_lookup == "by_id":
            return not isinstance(error, RefusedError)
        return isinstance(error, (NotSentError, ThrottledError)) or getattr(error, "came_before", True)

    async def close(self) -> None:
        self.closed += 1
        if self.server.closing_time:
            await asyncio.sleep(self.server.closing_time)
