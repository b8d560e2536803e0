"""Histories of one task, as values: how the server and Airflow behave, and which steps happen.

A history consists of plain values, so its ``repr`` can be pasted into a test to run it again. ``any_history`` makes one
from a source of choices, such as hypothesis or a random number generator. ``reduced`` shortens a failing history.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from airflow_provider_astrobpm.starting.business_keys import IfOpenInstanceExists

Pick = Callable[[Sequence[Any]], Any]

Subject = Literal["one", "batch"]
GRACE = 60.0
HOUR, DAY = 3600.0, 86400.0

OPEN = ("Waiting for user interaction", "Running", "Suspended", "New", "CompletedOkWait")
ENDED = ("Completed OK", "Broken", "Terminated", "User Terminated")


@dataclass(frozen=True)
class Server:
    """The behaviour of a server throughout a history."""

    keys: str = "as sent"
    """How the lists show a business key; one of ``KEYS``."""
    answered_key: str = "as listed"
    """How the answer to a start shows it; one of ``ANSWERED_KEYS``."""
    stamps: str = "as documented"
    """How a start time looks; one of ``STAMPS``."""
    clock_off: float = 0
    """By how many hours its clock is off, including its time zone."""
    cap: int | None = None
    """The maximum number of rows in a list."""
    order: str = "as asked"
    """The order of a list; one of ``ORDERS``."""
    unreadable: str | None = None
    """The unreadable field of every third row; one of ``UNREADABLE``."""
    calls: bool = False
    """Whether each instance calls one of another BPM, which inherits its business key."""


@dataclass(frozen=True)
class Foreign:
    """An instance that someone else has started.

    :param kind: one of ``FOREIGN``.
    :param age: days from its start to the beginning of the history.
    """

    kind: str
    state: str = "Running"
    age: float = 3


@dataclass(frozen=True)
class Try:
    """Airflow runs the task once, if it has a try left.

    :param later: seconds since the previous step.
    :param dies_at: the effect before which the process is killed. An effect is a call or the writing of a record. Its
        beginning and its end count as one effect each.
    :param faults: the outcomes of its POSTs, in order; names in ``history_server.FAULTS``.
    :param query_fault: the number of the query that fails.
    :param put_fault: how its terminations fail; one of ``PUT_FAULTS``.
    :param lag: seconds until a started instance shows in the lists.
    :param slow: the duration of each call, in seconds.
    :param moves: a call, and the instance that moves to a state before it.
    :param ends: how the wait ends: ``dies`` if nothing is recorded about it, ``leaves it`` if it failed and left the
        instance open to resume with, ``fails`` if it failed because of the instance itself.
    :param is_rescheduled: whether Airflow runs the previous try again, unless its process was killed.
    """

    later: float = 0
    dies_at: int | None = None
    faults: tuple[str, ...] = ()
    query_fault: int | None = None
    put_fault: str | None = None
    lag: float = 0
    slow: float = 0
    moves: tuple[int, int, str] | None = None
    ends: str = "dies"
    is_rescheduled: bool = False


@dataclass(frozen=True)
class Clear:
    """A person clears the task. Airflow 3.4 may delete its store."""

    keeps_store: bool = True


@dataclass(frozen=True)
class LoseStore:
    """The store loses its content."""


@dataclass(frozen=True)
class Upgrade:
    """The record in the store is from an older version of the provider, which recorded less."""


@dataclass(frozen=True)
class Retries:
    """The author changes ``retries``."""

    retries: int = 1


@dataclass(frozen=True)
class Iterate:
    """The loop iterates: the same task, in another region."""


@dataclass(frozen=True)
class Input:
    """The first launch of the batch changes."""

    number: int = 1


@dataclass(frozen=True)
class Move:
    """An open instance changes its state.

    :param which: the index of the open instance, modulo their number; the instances of the task come first.
    """

    which: int = 0
    state: str = "Completed OK"


Step = Try | Clear | LoseStore | Upgrade | Retries | Iterate | Input | Move


@dataclass(frozen=True)
class History:
    """A task, its environment, and the steps that happen.

    :param subject: whether it starts one instance or a batch.
    :param launches: the number of launches in the batch.
    :param own_keys: the launches with custom business keys.
    :param is_checked: whether the batch is validated before its first start.
    :param mode: ``if_open_instance_exists`` of one start with a custom key; ``None`` for the key made from the task.
    :param has_store: whether this Airflow has a task state store.
    :param keeps_open: whether kills leave the instances alone (``terminate_on_kill=False``).
    :param waits: whether the task waits for success.
    :param is_permanent: whether a launch that meets the condition of the batch keeps meeting it.
    :param retries: the initial ``retries``.
    :param run_age: days from the due time of the run to its first try; ``None`` if unknown.
    :param max_attempts: the maximum number of attempts of a call.
    :param seed: the seed of everything random.
    """

    subject: Subject = "one"
    launches: int = 2
    own_keys: tuple[int, ...] = ()
    is_checked: bool = True
    mode: IfOpenInstanceExists | None = None
    has_store: bool = True
    keeps_open: bool = False
    waits: bool = True
    is_permanent: bool = True
    retries: int = 3
    run_age: float | None = 0
    max_attempts: int = 3
    server: Server = Server()
    foreign: tuple[Foreign, ...] = ()
    steps: tuple[Step, ...] = (Try(),)
    seed: int = 0


KEYS = (
    "as sent",
    "cut at 50",
    "cut at 20",
    "upper case",
    "padded",
    "prefixed",
    "prefixed and cut",
    "hidden",
    "the id",
)
ANSWERED_KEYS = ("as listed", "as sent", "none", "the id")
STAMPS = ("as documented", "zero", "epoch", "dash", "none", "iso", "millis", "leading blank", "mixed")
ORDERS = ("as asked", "by stamp", "newest first", "oldest first", "any")
FOREIGN = (
    "same BPM",
    "same BPM without key",
    "other BPM",
    "other run",
    "deleted run",
    "custom key",
    "custom key, other BPM",
)
UNREADABLE = ("name", "state", "businessKey")
PUT_FAULTS = ("cut before", "cut after", "refused", "500 after")


def any_history(pick: Pick, subject: Subject, faults: Sequence[str]) -> History:
    """Make a history.

    :param pick: picks one of several values.
    :param faults: the names of possible outcomes of a POST.
    """

    def seldom(common: Any, others: Sequence[Any], share: int = 3) -> Any:
        return pick(others) if pick(range(share)) == 0 else common

    mode = seldom(None, ("start", "adopt", "fail")) if subject == "one" else None
    launches = pick((1, 2, 3, 4)) if subject == "batch" else 1
    own_keys = seldom((), ((1,), (2,), (1, 3), (1, 2, 3, 4)), 4) if subject == "batch" else ()
    has_store = pick((True, True, True, False))
    server = Server(
        keys=seldom("as sent", KEYS[1:]),
        answered_key=seldom("as listed", ANSWERED_KEYS[1:]),
        stamps=seldom("as documented", STAMPS[1:], 4),
        clock_off=seldom(0, (8, -12, 14, 15, -15, 100, -100)),
        cap=seldom(None, (2, 3, 5, 37), 4),
        order=seldom("as asked", ORDERS[1:]),
        unreadable=seldom(None, UNREADABLE, 8),
        calls=seldom(False, (True,), 6),
    )
    kinds = FOREIGN if mode or own_keys else FOREIGN[:5]
    foreign = tuple(
        Foreign(pick(kinds), pick((*OPEN, *ENDED)), pick((0.1, 3, 4, 5, 10)))
        for _ in range(seldom(0, (1, 2, 3, 6, 10), 2) or 0)
    )
    later_steps = range(pick((1, 2, 3, 4, 5, 6, 7)))
    steps = [_any_step(pick, seldom, faults, has_store=has_store) for _ in later_steps]
    return History(
        subject=subject,
        launches=launches,
        own_keys=tuple(number for number in own_keys if number <= launches),
        is_checked=bool(own_keys) or pick((True, True, False)),
        mode=mode,
        has_store=has_store,
        keeps_open=seldom(False, (True,)),
        waits=seldom(True, (False,), 5),
        is_permanent=seldom(True, (False,), 4),
        retries=pick((3, 1, 2, 5)),
        run_age=pick((0, 30, None)),
        max_attempts=pick((3, 1)),
        server=server,
        foreign=foreign,
        steps=(_any_try(pick, seldom, faults), *steps),
        seed=pick(range(1000)),
    )


def _any_try(pick: Pick, seldom: Callable[..., Any], faults: Sequence[str]) -> Try:
    return Try(
        later=pick((0, 1, 300, 3 * DAY)),
        dies_at=seldom(None, range(14), 3) if pick(range(4)) else pick((*range(14), *range(14, 140, 3))),
        faults=tuple(seldom("fine", faults, 2) for _ in range(pick((0, 1, 1, 2, 4)))),
        query_fault=seldom(None, (1, 2, 12, 13, 20, 30), 8),
        put_fault=seldom(None, PUT_FAULTS, 5),
        lag=pick((0, GRACE / 2, GRACE)),
        slow=seldom(0, (0.25, 2), 4),
        moves=seldom(None, ((pick(range(1, 40)), pick(range(3)), pick((*OPEN, *ENDED))),), 5),
        ends=pick(("dies", "leaves it", "fails")),
        is_rescheduled=seldom(False, (True,)),
    )


def _any_step(pick: Pick, seldom: Callable[..., Any], faults: Sequence[str], *, has_store: bool) -> Step:
    kind = pick(
        ("try",) * 10
        + ("clear",) * 5
        + ("move",) * 5
        + ("retries",) * 2
        + ("iterate", "lose", "upgrade", "input")
    )
    if kind == "try" or (kind in ("lose", "upgrade") and not has_store):
        return _any_try(pick, seldom, faults)
    if kind == "clear":
        return Clear(keeps_store=pick((True, True, False)))
    if kind == "move":
        return Move(pick(range(3)), pick((*OPEN, *ENDED, "Completed OK", "Broken")))
    if kind == "retries":
        return Retries(pick((1, 2, 3, 5)))
    if kind == "input":
        return Input(pick((0, 1, 2)))
    return Iterate() if kind == "iterate" else LoseStore() if kind == "lose" else Upgrade()


def reduced(history: History, fails: Callable[[History], bool]) -> History:
    """Return a shorter history that still fails."""
    tried = set()
    while True:
        for candidate in _smaller(history):
            if candidate not in tried and fails(candidate):
                history = candidate
                break
            tried.add(candidate)
        else:
            return history


def _smaller(history: History) -> Iterator[History]:
    for part in ("steps", "foreign"):
        whole = getattr(history, part)
        for at in range(len(whole)):
            yield _with(history, part, whole[:at] + whole[at + 1 :])
    yield from _plainer(history, History(subject=history.subject, launches=1))
    for server in _plainer(history.server, Server()):
        yield _with(history, "server", server)
    for part in ("steps", "foreign"):
        whole = getattr(history, part)
        for at, each in enumerate(whole):
            plain = Foreign("same BPM") if isinstance(each, Foreign) else type(each)()
            for one in _plainer(each, plain):
                yield _with(history, part, (*whole[:at], one, *whole[at + 1 :]))


def _plainer(one: Any, plain: Any) -> Iterator[Any]:
    """Yield copies with one more field equal to the plain one, or closer to it."""
    for field in dataclasses.fields(one):
        mine, theirs = getattr(one, field.name), getattr(plain, field.name)
        if mine == theirs or field.name in ("steps", "foreign", "server"):
            continue
        yield _with(one, field.name, theirs)
        if field.name == "faults":
            for at in range(len(mine)):
                yield _with(one, "faults", mine[:at] + mine[at + 1 :])
        if field.name == "dies_at" and mine > 0:
            yield _with(one, "dies_at", mine - 1)


def _with(one: Any, field: str, value: Any) -> Any:
    return dataclasses.replace(one, **{field: value})
