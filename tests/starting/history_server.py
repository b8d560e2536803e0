"""The server of a history. It starts an instance for every POST that it accepts, and knows who sent it.

Starts go through the provider's own ``call_flow``, so each answer becomes the real error. Lists are answered as
operations, because there are many of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from random import Random
from typing import Any, NamedTuple

from airflow_provider_astrobpm.client import states
from airflow_provider_astrobpm.client.errors import (
    AuthenticationError,
    CallError,
    InterruptedCallError,
    NotSentError,
    RefusedError,
    ServerError,
    TlsError,
)
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.operations import Operation
from airflow_provider_astrobpm.client.protocol import NeedToken, Request, Response, call_flow
from airflow_provider_astrobpm.client.wire import Rows, UnreadableRow
from tests.starting.history import HOUR, Server

CALLED = "Notification"
ODD_STAMPS = {"zero": "0001-01-01 00:00:00", "epoch": "1970-01-01 08:00:00", "dash": "-", "none": None}


class Owner(NamedTuple):
    """The launch for which an instance was started."""

    region: int
    generation: int
    """The true generation: the number of the first try since the last clear."""
    launch: int


class Item:
    """An instance, with facts that only the model knows."""

    __slots__ = (
        "foreign",
        "id",
        "is_called",
        "is_known_by_record",
        "is_the_tasks",
        "key",
        "name",
        "number",
        "owner",
        "row",
        "shows_from",
        "stamp",
        "started",
    )

    def __init__(self, number: int, name: str, key: str | None, started: float, shows_from: float) -> None:
        self.number = number
        self.id = f"i{number * 7919 % 10007:05}"  # ids do not show the order of starts
        self.name = name
        self.key = key
        self.started = started
        self.shows_from = shows_from
        self.stamp: str | None = None
        self.owner: Owner | None = None
        """``None`` for an instance that the task has not started."""
        self.foreign = ""
        """The kind of an instance that the task has not started."""
        self.is_called = False
        """Whether another instance has called it."""
        self.is_known_by_record = False
        """Whether it was adopted from an older generation, so its key names a different one."""
        self.is_the_tasks = False
        """Whether the task was asked to adopt it."""
        self.row: BpmInstance

    def __repr__(self) -> str:
        return f"<{self.id} {self.state!r} of {self.owner or self.foreign}, key {self.key!r}, {self.stamp!r}>"

    @property
    def state(self) -> str:
        return self.row.state

    @property
    def is_open(self) -> bool:
        return not self.row.is_closed


@dataclass(frozen=True)
class Fault:
    """The outcome of one POST.

    :param token: the error of the token request.
    :param answers: for each attempt: whether the server does the work, and what it answers; ``None`` is the normal
        answer. Further attempts get the normal answer.
    :param renews: whether a refused token can be renewed.
    :param renewal: the error of the renewal.
    :param then: the outcome of each attempt after that.
    :param refuses_a_query: whether the token is also refused for a query.
    :param is_assumed_away: whether ``docs/guarantees.md`` assumes that servers do not behave like this.
    :param needs_one_attempt: whether it is assumed away unless calls have only one attempt.
    """

    token: CallError | None = None
    answers: tuple[tuple[bool, Response | CallError | None], ...] = ()
    renews: bool = True
    renewal: CallError | None = None
    refuses_a_query: bool = False
    then: str | None = None
    is_assumed_away: bool = False
    needs_one_attempt: bool = False

    @property
    def may_have_reached(self) -> bool:
        """Whether the server may have seen the POST at all."""
        never = [isinstance(answer, CallError) and answer.never_reached for _, answer in self.answers]
        return self.token is None and (not never or not all(never))


def _status(status: int, code: str = "405230001") -> Response:
    return Response(status, {}, json.dumps({"resCode": code, "resMsg": "no"}).encode())


def _both(name: str, answer: Response | CallError) -> dict[str, Fault]:
    """Return a fault that answers instead of doing the work, and one that answers after it."""
    return {
        f"{name} before": Fault(answers=((False, answer),)),
        f"{name} after": Fault(answers=((True, answer),)),
    }


ODD = Response(200, {}, b"the instance, with a state that cannot be read")
BAD_TOKEN = _status(401, "405230602")
EMPTY = Response(200, {}, b'{"resCode": "0", "resMsg": "ok", "result": []}')
FAULTS: dict[str, Fault] = {
    "fine": Fault(),
    "no connection": Fault(answers=((False, NotSentError("no connection")),)),
    "no TLS": Fault(answers=((False, TlsError("no TLS")),)),
    "no token": Fault(token=AuthenticationError("wrong credentials")),
    "token endpoint fails": Fault(token=ServerError("no", status=503)),
    **_both("cut", InterruptedCallError("cut")),
    **_both("400", _status(400)),
    **_both("403", _status(403)),
    **_both("404", _status(404)),
    **_both("409", _status(409)),
    **_both("499", Response(499, {}, b"")),
    **_both("408", Response(408, {}, b"")),
    **_both("502", Response(502, {}, b"<html>")),
    **_both("500 about the token", _status(500, "405230602")),
    **_both("refused with 200", _status(200)),
    **_both("page with 200", Response(200, {}, b"<html>")),
    **_both("redirect", Response(302, {"location": "https://elsewhere/"}, b"")),
    "odd state": Fault(answers=((True, ODD),)),
    "429": Fault(answers=((False, Response(429, {"retry-after": "3"}, b"")),)),
    "429 for long": Fault(answers=((False, Response(429, {}, b"")),) * 9),
    "token refused": Fault(answers=((False, BAD_TOKEN),)),
    "token refused twice": Fault(answers=((False, BAD_TOKEN), (False, BAD_TOKEN))),
    "token refused after, no renewal": Fault(answers=((True, BAD_TOKEN),), renews=False),
    "token refused after, no new token": Fault(
        answers=((True, BAD_TOKEN),), renewal=ServerError("no", status=503)
    ),
    "token refused after, then no connection": Fault(
        answers=((True, BAD_TOKEN), (False, NotSentError("no connection"))), then="no connection"
    ),
    "429 after, then no connection": Fault(answers=((True, Response(429, {}, b"")),), then="no connection"),
    "429 after, then no token": Fault(answers=((True, Response(429, {}, b"")),), then="no token"),
    "403 for the token": Fault(answers=((False, _status(403)),), refuses_a_query=True),
    "429 after": Fault(
        answers=((True, Response(429, {}, b"")),), is_assumed_away=True, needs_one_attempt=True
    ),
    "token refused, then after": Fault(
        answers=((False, BAD_TOKEN), (True, BAD_TOKEN)), is_assumed_away=True, needs_one_attempt=True
    ),
    "token refused after": Fault(answers=((True, BAD_TOKEN),), is_assumed_away=True),
}
USED_FAULTS = tuple(
    name for name, fault in FAULTS.items() if not fault.is_assumed_away or fault.needs_one_attempt
)


class HistoryServer:
    """The server.

    :param habits: how it behaves.
    :param clock: the true time, in seconds since the epoch.
    :param own: returns the owner of a start with a given body.
    :param seed: the seed for the order of unordered lists.
    """

    def __init__(
        self, habits: Server, clock: Callable[[], float], own: Callable[[Any], Owner], seed: int
    ) -> None:
        self.habits = habits
        self.clock = clock
        self._own = own
        self._random = Random(seed)
        self.items: dict[str, Item] = {}
        self.lag = 0.0
        self.posts = 0
        """The number of POSTs that may have reached it."""
        self.terminating: Callable[[Item], None] = lambda _item: None
        """Called with an instance before its termination."""

    def begin(self, name: str, key: str | None, state: str, *, age: float = 0, lag: float = 0) -> Item:
        """Start an instance."""
        now = self.clock()
        item = Item(len(self.items), name, key, now - age, now + lag)
        item.stamp = self._stamp(item)
        self._show(item, state)
        self.items[item.id] = item
        return item

    def move(self, item: Item, state: str) -> None:
        """Change the state of an instance."""
        if item.is_open:
            self._show(item, state)

    def _show(self, item: Item, state: str) -> None:
        item.row = BpmInstance(
            id=item.id,
            name=item.name,
            state=state,
            suspended=state == states.SUSPENDED,
            is_closed=states.is_terminal(state),
            business_key=self._shown_key(item.key, item.id),
            start_time=item.stamp,
        )

    def _shown_key(self, key: str | None, instance_id: str) -> str | None:
        if key is None:
            return instance_id if self.habits.keys == "the id" else None
        return {
            "as sent": key,
            "cut at 50": key[:50],
            "cut at 20": key[:20],
            "upper case": key.upper(),
            "padded": f" {key}   ",
            "prefixed": f"APP:{key}",
            "prefixed and cut": f"APP:{key}"[:50],
            "hidden": None,
            "the id": instance_id,
        }[self.habits.keys]

    def _stamp(self, item: Item) -> str | None:
        kind = self.habits.stamps
        if kind == "mixed":
            kind = "dash" if item.number % 2 else "as documented"
        if kind in ODD_STAMPS:
            return ODD_STAMPS[kind]
        shown = item.started + self.habits.clock_off * HOUR
        if kind == "millis":
            return str(int(shown * 1000))
        text = str(datetime.fromtimestamp(int(shown), timezone.utc).replace(tzinfo=None))
        return {"as documented": text, "iso": text.replace(" ", "T"), "leading blank": f" {text}"}[kind]

    def seems_to_be_from(self, item: Item) -> float | None:
        """Return the start of an instance in seconds since the epoch, if its start time has the documented form."""
        if (
            item.stamp is None
            or len(item.stamp) != 19
            or not item.stamp.startswith("20")
            or "T" in item.stamp
        ):
            return None
        return (datetime.fromisoformat(item.stamp) - datetime(1970, 1, 1)) / timedelta(seconds=1)  # noqa: DTZ001

    # Answers.

    def answer(self, operation: Operation[Any], put_fault: str | None) -> Any:
        """Answer any operation but a start."""
        if operation.kind == "query":
            return self._listed(**dict(operation.query))
        assert operation.kind == "terminate"
        item = self.items[operation.path.rpartition("/")[2]]
        if put_fault == "cut before":
            raise InterruptedCallError("cut")
        if put_fault == "refused" or not item.is_open:
            raise RefusedError("no", status=409)
        self.terminating(item)
        self.move(item, "Terminated")
        if put_fault == "cut after":
            raise InterruptedCallError("cut")
        if put_fault == "500 after":
            raise ServerError("no", status=500)
        return item.row

    def _listed(self, states: str, orderField: str, orderType: str, **_: str) -> list[BpmInstance]:  # noqa: N803
        now = self.clock()
        items = [one for one in self.items.values() if one.row.state == states and one.shows_from <= now]
        if len(items) > 1:
            order, is_descending = self.habits.order, orderType == "desc"
            if order == "any":
                self._random.shuffle(items)
            elif order in ("newest first", "oldest first"):
                items.sort(key=lambda one: one.started, reverse=order == "newest first")
            elif orderField == "id":
                items.sort(key=lambda one: one.id, reverse=is_descending)
            elif order == "by stamp":
                items.sort(key=lambda one: one.stamp or "", reverse=is_descending)
            else:
                items.sort(key=lambda one: one.started, reverse=is_descending)
        shown = items[: self.habits.cap]
        if (field := self.habits.unreadable) is None:
            return [one.row for one in shown]
        odd = [one for one in shown if one.number % 3 == 0]
        return Rows(
            [one.row for one in shown if one.number % 3],
            [
                UnreadableRow(
                    reason=f"its {field} is odd",
                    unread=frozenset([field]),
                    id=one.id,
                    name=None if field == "name" else one.name,
                    business_key=None if field == "businessKey" else one.row.business_key,
                )
                for one in odd
            ],
        )

    def post(self, operation: Operation[BpmInstance], fault: Fault) -> BpmInstance:
        """Accept a start, for each attempt of the provider's ``call_flow``."""
        self.posts += fault.may_have_reached
        talk = call_flow(operation, connection="my_conn")
        answers = iter(fault.answers)
        try:
            step: NeedToken | Request = next(talk)
            while True:
                reply: Any
                if isinstance(step, NeedToken):
                    reply = self._token(step, fault)
                elif step.method == "GET":
                    reply = BAD_TOKEN if fault.refuses_a_query else EMPTY
                else:
                    reply = self._reply(step, answers)
                step = talk.throw(reply) if isinstance(reply, CallError) else talk.send(reply)
        except StopIteration as stop:
            started: BpmInstance = stop.value
            return started

    def _token(self, need: NeedToken, fault: Fault) -> str | CallError | None:
        if need.stale is not None:
            return copy(fault.renewal) or ("another" if fault.renews else None)
        return copy(fault.token) or "token"  # callers change errors in place

    def _reply(
        self, request: Request, answers: Iterator[tuple[bool, Response | CallError | None]]
    ) -> Response | CallError:
        works, answer = next(answers, (True, None))
        started = self._start(json.loads(request.body or b"")) if works else None
        if answer is None:
            assert started is not None
            return self._answer_of(started)
        if answer is ODD:
            assert started is not None
            return self._answer_of(started, state=None)
        return copy(answer)

    def _start(self, body: dict[str, Any]) -> Item:
        key = body["variables"]["$Flow.BusinessKey"]
        item = self.begin(body["name"], key, "Running", lag=self.lag)
        item.owner = self._own(body)
        if self.habits.calls:
            called = self.begin(CALLED, key, "Running", lag=self.lag)
            called.owner, called.is_called = item.owner, True
        return item

    def _answer_of(self, item: Item, **odd: Any) -> Response:
        shown = {
            "as listed": item.row.business_key,
            "as sent": item.key,
            "none": None,
            "the id": item.id,
        }[self.habits.answered_key]
        result = {
            "id": item.id,
            "name": item.name,
            "state": item.state,
            "businessKey": shown,
            "startTime": item.stamp,
            **odd,
        }
        return Response(200, {}, json.dumps({"resCode": "0", "resMsg": "ok", "result": result}).encode())
