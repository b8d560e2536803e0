"""An Astro Zero in memory, in virtual time, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from airflow_provider_astrobpm.client import states
from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
from airflow_provider_astrobpm.client.errors import NotSentError, RefusedError, ServerError, ThrottledError
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.operations import Flow, Operation
from airflow_provider_astrobpm.client.settings import Settings, StaticToken
from tests.support.virtual_time import VirtualLoop

T = TypeVar("T")

BEGINNING = 1_700_000_000.0  # the wall-clock time when the loop's clock is at 0
FROZEN = "Frozen"  # an undocumented state, in rows that are listed as Running
UNHEARD_OF = "Unheard Of"  # another one, which no list shows


def instance(instance_id: str, state: str = "Running", **fields: Any) -> BpmInstance:
    """Return an instance as the client decodes it: closed if its state is terminal."""
    fields.setdefault("name", "Approval")
    fields.setdefault("is_closed", states.is_terminal(state))
    fields["suspended"] = fields.get("suspended", False) or state == states.SUSPENDED
    return BpmInstance(id=instance_id, state=state, **fields)


def settings(**fields: Any) -> Settings:
    """Return the settings of a connection that reads only lists."""
    fields = {
        "connection": "first_conn",
        "base_url": "https://zero.example",
        "credentials": StaticToken("t"),
        "instance_lookup": "list",
        **fields,
    }
    return Settings(**fields)


class Server:
    """An Astro Zero that answers in virtual time, and a wall clock that can be set.

    :param loop: the loop whose time it lives in.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.rows: dict[str, BpmInstance] = {}
        self.row_cap: int | None = None
        self.reads: Literal["work", "absent", "broken"] = "work"
        """How reading an instance by its id behaves."""
        self.answer_time = 0.0
        """Seconds from a request, which reads the state at once, to its answer."""
        self.closing_time = 0.0
        """Seconds that it takes to close a client."""
        self.fault: Callable[[], BaseException] | None = None
        self.calls_to_fault = 0
        """How many calls succeed before the fault."""
        self.faults_left = 0
        self.bad_lists: dict[str, Callable[[], BaseException]] = {}
        """The errors of lists that always fail, by state."""
        self.twice: dict[str, BpmInstance] = {}
        """Additional rows that lists show for the same ids."""
        self.clock_offset = BEGINNING
        self.before_poll: Callable[[PollRecord], None] = lambda _poll: None
        self.after_poll: Callable[[PollRecord], None] = lambda _poll: None

    def clock(self) -> float:
        """Return the wall clock's time."""
        return self.loop.now + self.clock_offset

    def put(self, *rows: BpmInstance) -> None:
        """Start instances, or move existing ones."""
        self.rows |= {row.id: row for row in rows}

    def fail(self, fault: Callable[[], BaseException], times: int = 1_000_000, after: int = 0) -> None:
        """Make this many calls fail from now on, after some that succeed."""
        self.fault, self.faults_left, self.calls_to_fault = fault, times, after

    def heal(self) -> None:
        """End all faults."""
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
        """Return the answer to an operation in the current state, or raise its error."""
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


def can_both_be_true(before: BpmInstance, after: BpmInstance) -> bool:
    """Return whether an instance may have changed between two answers from one row to the other."""
    if before.is_closed and after.is_closed:
        return before == after
    return (before.name, before.business_key) == (after.name, after.business_key)


@dataclass(eq=False)
class PollRecord:
    """One run of a poller's flow, with its times on the loop's clock and on the wall clock."""

    began: float
    began_at: float
    ended: float | None = None
    ended_at: float = 0.0
    asked: list[str] = field(default_factory=list)
    """What was asked: the state of a list, or ``get``."""
    shown: list[BpmInstance] = field(default_factory=list)
    """All rows of all answers."""
    listed: list[BpmInstance] = field(default_factory=list)
    """The rows of lists."""
    shown_lists: set[str] = field(default_factory=set)
    """The states that were listed."""
    failed_lists: set[str] = field(default_factory=set)
    """The states whose lists failed at least once."""
    contradicted: set[str] = field(default_factory=set)
    """The ids of instances that one list, or two answers of the poll, showed in rows that cannot both be true."""
    refused_reads: set[str] = field(default_factory=set)
    """The ids of instances whose read was refused."""
    errors: list[BaseException] = field(default_factory=list)
    """The errors of calls, except for reads by id that lists can replace."""
    failure: BaseException | None = None
    """A defect, or the error by which the server counts as down."""

    def shows(self, instance_id: str | None) -> bool:
        """Return whether it shows an instance beyond doubt."""
        return instance_id not in self.contradicted and any(row.id == instance_id for row in self.shown)

    def lists_everything(self) -> bool:
        """Return whether it has listed every state."""
        return self.shown_lists >= set(states.STATES)


class Client(AsyncBpmClient):
    """The real client, with a server in memory instead of the HTTP exchange.

    :param known: the settings.
    :param server: the server.
    """

    def __init__(self, known: Settings, server: Server) -> None:
        super().__init__(known)
        self.server = server
        self.polls: list[PollRecord] = []
        self.closed = 0
        self.violations: list[str] = []
        """What the poller did wrong."""

    async def run(self, flow: Flow[T]) -> T:
        server = self.server
        poll = PollRecord(server.loop.now, server.clock())
        if self.closed:
            self.violations.append("a poll after the client was closed")
        if self.polls:
            last = self.polls[-1]
            if last.ended is None:
                self.violations.append("two polls at once")
            elif poll.began - last.began < 1 - 1e-6:
                self.violations.append("two polls less than a second apart")
        self.polls.append(poll)
        server.before_poll(poll)
        try:
            search_result = await super().run(flow)
        except BaseException as error:
            poll.failure = error
            raise
        else:
            poll.failure = getattr(search_result, "failure", None)
            return search_result
        finally:
            poll.ended, poll.ended_at = server.loop.now, server.clock()
            server.after_poll(poll)

    async def call(self, operation: Operation[T]) -> T:
        poll = self.polls[-1]
        poll.asked.append(operation.query[0][1] if operation.kind == "query" else operation.kind)
        if operation.kind not in ("query", "get"):
            self.violations.append(f"a {operation.kind} was sent")
        error: BaseException | None = None
        try:
            answer = self.server.reply(operation)
        except Exception as failure:  # noqa: BLE001 - raised when the answer has come
            error = failure
        if self.server.answer_time:
            await asyncio.sleep(self.server.answer_time)
        if error is not None:
            if operation.kind == "query":
                poll.failed_lists.add(operation.query[0][1])
            elif isinstance(error, RefusedError):
                poll.refused_reads.add(operation.path.rsplit("/", 1)[1])
            if operation.kind == "query" or self._ends_a_read(error):
                poll.errors.append(error)
            raise error
        if operation.kind == "query":
            poll.shown_lists.add(operation.query[0][1])
            rows: dict[str, BpmInstance] = {}
            poll.contradicted |= {row.id for row in answer if rows.setdefault(row.id, row) != row}
            poll.contradicted |= {
                row.id
                for row in answer
                for other in poll.shown
                if other.id == row.id and not can_both_be_true(other, row)
            }
        poll.shown += answer if operation.kind == "query" else [answer]
        poll.listed += answer if operation.kind == "query" else []
        result: T = answer
        return result

    def _ends_a_read(self, error: BaseException) -> bool:
        """Return whether lists cannot replace a read by id that failed this way."""
        if self.settings.instance_lookup == "by_id":
            return not isinstance(error, RefusedError)
        return isinstance(error, (NotSentError, ThrottledError)) or getattr(
            error, "failed_fetching_token", True
        )

    async def close(self) -> None:
        self.closed += 1
        if self.server.closing_time:
            await asyncio.sleep(self.server.closing_time)
