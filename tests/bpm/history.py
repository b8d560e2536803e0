"""Histories of one task, as values: how its server and its Airflow behave, and what happens one after the other.

Everything in a history is plain, so its ``repr`` can be pasted into a test to run it once more. ``any_history`` makes one
of any source of choices, be it hypothesis or a random number generator; ``reduced`` makes a shorter one of one that fails.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Pick = Callable[[Sequence[Any]], Any]

Subject = Literal["one", "batch"]
GRACE = 60.0
HOUR, DAY = 3600.0, 86400.0

OPEN = ("Waiting for user interaction", "Running", "Suspended", "New", "CompletedOkWait")
ENDED = ("Completed OK", "Broken", "Terminated", "User Terminated")


@dataclass(frozen=True)
class Server:
    """How a server behaves in all of a history."""

    keys: str = "as sent"
    """What the lists show of a business key; one of ``KEYS``."""
    answered_key: str = "as listed"
    """What the answer to a start shows of it; one of ``ANSWERED_KEYS``."""
    stamps: str = "as documented"
    """How a start time looks; one of ``STAMPS``."""
    clock_off: float = 0
    """The hours by which its clock is off, its zone included."""
    cap: int | None = None
    """How many rows a list holds at most."""
    order: str = "as asked"
    """How a list is ordered; one of ``ORDERS``."""
    unreadable: str | None = None
    """Which field of every third row cannot be read; one of ``UNREADABLE``."""
    calls: bool = False
    """Whether each instance calls one of another BPM, which inherits its business key."""


@dataclass(frozen=True)
class Foreign:
    """An instance that somebody else has started.

    :param kind: one of ``FOREIGN``.
    :param age: days from its start to the beginning of the history.
    """

    kind: str
    state: str = "Running"
    age: float = 3


@dataclass(frozen=True)
class Try:
    """Airflow runs the task once, if a try is left.

    :param later: seconds since the last step.
    :param dies_at: before which of its effects the process is killed; an effect is a call or a record written, and its
        beginning and its end count as one each.
    :param faults: what comes of its POSTs, one after the other; names in ``history_server.FAULTS``.
    :param query_fault: which of its queries fails.
    :param put_fault: how its terminations fail; one of ``PUT_FAULTS``.
    :param lag: seconds until what it starts shows in the lists.
    :param slow: seconds that each call takes.
    :param moves: before which of its calls which instance moves to which state.
    :param ends: what becomes of the wait: ``dies`` where no word of it is written down, ``leaves it`` where it failed and
        left the instance open to go on with, ``fails`` where it failed over the instance itself.
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


@dataclass(frozen=True)
class Clear:
    """A person clears the task. Airflow 3.4 may delete its store."""

    keeps_store: bool = True


@dataclass(frozen=True)
class LoseStore:
    """The store loses what it held."""


@dataclass(frozen=True)
class Upgrade:
    """What is in the store was written by a version of the provider that recorded less."""


@dataclass(frozen=True)
class Retries:
    """The author changes ``retries``."""

    retries: int = 1


@dataclass(frozen=True)
class Iterate:
    """The loop goes round: the same task, in another region."""


@dataclass(frozen=True)
class Input:
    """The first launch of the batch becomes another one."""

    number: int = 1


@dataclass(frozen=True)
class Move:
    """An instance moves. Those that have ended do not.

    :param which: which of the open ones, modulo their number; first what the task has started.
    """

    which: int = 0
    state: str = "Completed OK"


Step = Try | Clear | LoseStore | Upgrade | Retries | Iterate | Input | Move


@dataclass(frozen=True)
class History:
    """A task, what surrounds it, and what happens.

    :param subject: whether it starts one instance or a batch.
    :param launches: how many launches the batch has.
    :param own_keys: which of them have business keys of the author's.
    :param is_checked: whether the batch is read and checked before its first start.
    :param mode: ``if_open_instance_exists`` of one start with the author's key; without one the task has its own.
    :param has_store: whether this Airflow has a task state store.
    :param keeps_open: whether no kill touches the instances (``terminate_on_kill=False``).
    :param waits: whether the task waits for a good end.
    :param is_lasting: whether what meets the condition of the batch keeps meeting it.
    :param retries: the author's ``retries`` at first.
    :param run_age: days from when the run was due to its first try; ``None`` where nobody says.
    :param max_attempts: how often a call is sent at most.
    :param seed: of what is left to chance.
    """

    subject: Subject = "one"
    launches: int = 2
    own_keys: tuple[int, ...] = ()
    is_checked: bool = True
    mode: str | None = None
    has_store: bool = True
    keeps_open: bool = False
    waits: bool = True
    is_lasting: bool = True
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
    "author's key",
    "author's key, other BPM",
)
UNREADABLE = ("name", "state", "businessKey")
PUT_FAULTS = ("cut before", "cut after", "refused", "500 after")


def any_history(pick: Pick, subject: Subject, faults: Sequence[str]) -> History:
    """Make a history.

    :param pick: picks one of several.
    :param faults: names of what may come of a POST.
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
    steps: list[Step] = [_any_try(pick, seldom, faults)]
    more = pick((1, 2, 3, 4, 5, 6, 7))
    steps += [_any_step(pick, seldom, faults, has_store=has_store) for _ in range(more)]
    return History(
        subject=subject,
        launches=launches,
        own_keys=tuple(number for number in own_keys if number <= launches),
        is_checked=bool(own_keys) or pick((True, True, False)),
        mode=mode,
        has_store=has_store,
        keeps_open=seldom(False, (True,)),
        waits=seldom(True, (False,), 5),
        is_lasting=seldom(True, (False,), 4),
        retries=pick((3, 1, 2, 5)),
        run_age=pick((0, 30, None)),
        max_attempts=pick((3, 1)),
        server=server,
        foreign=foreign,
        steps=tuple(steps),
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
    others: dict[str, Step] = {
        "iterate": Iterate(),
        "lose": LoseStore(),
        "upgrade": Upgrade(),
        "input": Input(pick((0, 1, 2))),
    }
    return others[kind]


def reduced(history: History, fails: Callable[[History], bool]) -> History:
    """Return a history that still fails, and does so with less."""
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
            less: dict[str, Any] = {part: whole[:at] + whole[at + 1 :]}
            yield dataclasses.replace(history, **less)
    plain = History(subject=history.subject, launches=1)
    for one in _plainer(history, plain):
        yield one
    for server in _plainer(history.server, Server()):
        yield dataclasses.replace(history, server=server)
    for part in ("steps", "foreign"):
        whole = getattr(history, part)
        for at, each in enumerate(whole):
            default = type(each)("same BPM") if part == "foreign" else type(each)()
            for one in _plainer(each, default):
                changed: dict[str, Any] = {part: (*whole[:at], one, *whole[at + 1 :])}
                yield dataclasses.replace(history, **changed)


def _plainer(one: T, plain: T) -> Iterator[T]:
    """Return it with one field more as it is in the plain one; numbers and tuples get smaller too."""
    for field in dataclasses.fields(one):  # type: ignore[arg-type]  # each is a dataclass
        mine, theirs = getattr(one, field.name), getattr(plain, field.name)
        if mine == theirs or field.name in ("steps", "foreign", "server"):
            continue
        yield dataclasses.replace(one, **{field.name: theirs})  # type: ignore[type-var]  # as above
        if field.name == "faults":
            for at in range(len(mine)):
                yield dataclasses.replace(one, faults=mine[:at] + mine[at + 1 :])  # type: ignore[type-var]
        if field.name == "dies_at" and mine > 0:
            yield dataclasses.replace(one, dies_at=mine - 1)  # type: ignore[type-var]
