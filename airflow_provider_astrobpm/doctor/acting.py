"""Probes of suspend, resume and terminate, on an instance that this run has started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from airflow_provider_astrobpm.bpm import api, states
from airflow_provider_astrobpm.bpm.effect import shows
from airflow_provider_astrobpm.bpm.wire import decode_instance
from airflow_provider_astrobpm.doctor.asking import (
    Ask,
    Verdict,
    instance_of,
    is_forbidden,
    raw,
    rows_of,
    text,
    verdict,
    why_unclear,
)
from airflow_provider_astrobpm.doctor.own import (
    Own,
    Started,
    act,
    find,
    find_until,
    has_ended,
    is_broken,
    is_suspended,
)
from airflow_provider_astrobpm.doctor.points import Point, told, untold
from airflow_provider_astrobpm.doctor.starting import NO_SUCH_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_astrobpm.doctor.asking import Probing, Row, Seen

ENDED_BY_ITSELF = "the instance ended by itself; name a process that waits for a person"
BROKE_BY_ITSELF = "the instance broke by itself; name a process that waits for a person"
SECOND_LOOK = 4  # seconds after the first
OF_OPEN = ("suspend", "action_lag", "suspend_twice", "resume", "resume_twice")
OF_TERMINATION = ("terminate", "closed_flag", "terminate_twice")
OF_ENDED = ("ended", "suspend_ended", "variables_of_ended")


class Effect(NamedTuple):
    """What came of an action that was accepted."""

    row: Row | None
    """The instance as the action wants it, if it ever showed so."""
    last: Row | None
    """The instance at the last look, if it showed."""
    lag: float
    """Seconds that went by."""
    lists: tuple[Seen, ...]
    """The list that showed it, where the answer did not."""


class Acting:
    """The life of one instance from here on.

    :param own: what this run has started; the first of it is acted on.
    :param row: the instance as it was seen last.
    :param whole: up to how many rows a list certainly is whole.
    :param clock: the time, in seconds since the epoch.
    :param refuses_with_5xx: whether this endpoint is known to refuse with HTTP 5xx.
    """

    def __init__(
        self, own: Own, row: Row, *, whole: int, clock: Callable[[], float], refuses_with_5xx: bool
    ) -> None:
        self._own = own
        self._start: Started = own.first
        self._row = row
        self._whole = whole
        self._clock = clock
        self._refuses_with_5xx = refuses_with_5xx

    def probe(self) -> Probing[None]:
        """Suspend, resume and terminate it, each twice, and then act on what has ended."""
        if not has_ended(self._row):
            row, _ = yield from find(self._row["id"], text(self._row, "state"))
            self._row = row or self._row
        if has_ended(self._row):
            yield from self._has_ended_by_itself((*OF_OPEN, *OF_TERMINATION))
        else:
            if is_broken(self._row):
                yield from _none(OF_OPEN, BROKE_BY_ITSELF)
            else:
                yield from self._suspend_and_resume()
            terminated = yield from self._terminate()
            if not terminated:
                yield from _none(OF_ENDED, "the instance is not known to have ended")
                return
        yield from self._ended()

    def _suspend_and_resume(self) -> Probing[None]:
        accepted = yield act(self._own, self._row["id"], "suspend")
        if accepted.error is not None:
            yield from self._not_done("suspend", OF_OPEN, accepted)
            return
        self._own.granted.add("action")
        effect = yield from self._effect(accepted, "suspend")
        if effect.row is None:
            yield _never("suspend", effect, accepted)
            yield from _none(OF_OPEN[1:], "the suspension was not seen", accepted)
            return
        yield _suspension(effect.row, accepted, *effect.lists)
        yield told("action_lag", effect.lag, _lag_words(effect.lag), accepted, *effect.lists)
        yield from self._twice("suspend_twice", "suspend")
        accepted = yield act(self._own, self._row["id"], "resume")
        if accepted.error is not None:
            yield from self._not_done("resume", ("resume", "resume_twice"), accepted)
            return
        effect = yield from self._effect(accepted, "resume")
        if effect.row is None:
            yield _never("resume", effect, accepted)
            yield from _none(("resume_twice",), "the resumption was not seen", accepted)
            return
        after = text(effect.row, "state")
        yield told(
            "resume", after, f"it is not suspended any more, and in {after!r}", accepted, *effect.lists
        )
        yield from self._twice("resume_twice", "resume")

    def _terminate(self) -> Probing[bool]:
        accepted = yield act(self._own, self._row["id"], "terminate")
        if accepted.error is not None:
            return (yield from self._not_done("terminate", OF_TERMINATION, accepted))
        self._own.granted.add("action")
        effect = yield from self._effect(accepted, "terminate")
        if effect.row is None:
            words = f"accepted, and it was not seen to end within {effect.lag:.0f} s"
            yield from _none(OF_TERMINATION, words, accepted, *effect.lists)
            return False
        self._row, self._start.end = effect.row, text(effect.row, "state")
        yield _termination(effect.row, accepted, *effect.lists)
        again = yield act(self._own, self._row["id"], "terminate")
        yield self._verdict("terminate_twice", again)
        shown = next((each for each in map(instance_of, (again, accepted)) if each and has_ended(each)), None)
        yield _closed_flag(shown, accepted, again)
        return True

    def _ended(self) -> Probing[None]:
        """Act on the instance once it has ended, and look whether it still shows."""
        yield from self._whether_it_still_shows()
        seen = yield act(self._own, self._row["id"], "suspend")
        held = instance_of(seen)
        if held is not None and not has_ended(held):
            self._start.end = None
            yield from _none(OF_ENDED[1:], f"the instance is {text(held, 'state')!r} and has not ended", seen)
            return
        yield self._verdict("suspend_ended", seen)
        operation = raw(api.set_variables(self._row["id"], {NO_SUCH_VARIABLE: "x"}))
        seen = yield Ask(operation, csrf=self._own.csrf, remark="of an instance that has ended")
        yield self._verdict("variables_of_ended", seen)

    def _whether_it_still_shows(self) -> Probing[None]:
        if not self._start.shown:
            yield untold("ended", "no list has ever shown the instance, so that none does tells nothing")
            return
        state = text(self._row, "state")
        row, seen = yield from find(self._row["id"], state)
        if row is None:
            yield api.Pause(SECOND_LOOK)  # it may have moved between two lists
            row, seen = yield from find(self._row["id"], state)
        if row is not None:
            yield told("ended", "kept", "the instance still shows once it has ended", seen)
            return
        of_its_state = yield Ask(raw(api.query(state)), remark="where it should be")
        rows = rows_of(of_its_state)
        if rows is None or rows_of(seen) is None:
            yield untold("ended", why_unclear(of_its_state if rows is None else seen), seen, of_its_state)
        elif len(rows) > self._whole:
            words = f"the instance is not in the list of {state!r}, whose {len(rows)} rows may be cut off"
            yield untold("ended", words, of_its_state)
        else:
            words = (
                "the instance is in none of the lists once it has ended: a wait finds it missing, and fails. No success can be "
                "seen here"
            )
            yield told("ended", "gone", words, of_its_state, fine=False)

    def _effect(self, accepted: Seen, action: api.Action) -> Probing[Effect]:
        """Wait until an action shows."""

        def shows(row: Row) -> bool:
            if action == "terminate":
                return has_ended(row)
            return not has_ended(row) and is_suspended(row) == (action == "suspend")

        answer = instance_of(accepted)
        if answer is not None and shows(answer):
            return Effect(answer, answer, 0.0, ())
        begun = self._clock()
        look = yield from find_until(self._row["id"], text(self._row, "state"), shows, self._clock)
        return Effect(look.wanted, look.last, round(look.at - begun, 1), (look.seen,))

    def _twice(self, name: str, action: Literal["suspend", "resume"]) -> Probing[None]:
        yield self._verdict(name, (yield act(self._own, self._row["id"], action)))

    def _verdict(self, name: str, seen: Seen) -> Point:
        found = verdict(seen, refuses_with_5xx=self._refuses_with_5xx)
        if found is Verdict.UNCLEAR:
            return untold(name, why_unclear(seen), seen)
        kind = "variables" if name == "variables_of_ended" else "action"
        if found is Verdict.REFUSED and kind not in self._own.granted:
            # Whether it is refused for the state of the instance, only a call that was granted before it can tell.
            what = "setting variables" if kind == "variables" else "an action"
            return untold(
                name, f"refused, and {what} was not granted before either: a right may be wanting", seen
            )
        if found is Verdict.REFUSED:
            return told(name, "refused", "refused; this provider looks at the instance then", seen)
        return told(name, "accepted", "accepted, without a word", seen)

    def _not_done(self, name: str, names: Iterable[str], seen: Seen) -> Probing[bool]:
        """Tell of an action that did not succeed; what follows from it cannot be told.

        :returns: whether the instance has ended.
        """
        row, _ = yield from find(self._row["id"], text(self._row, "state"))
        self._row = row or self._row
        if has_ended(self._row):
            yield from self._has_ended_by_itself(names, seen)
            return True
        if verdict(seen, refuses_with_5xx=self._refuses_with_5xx) is Verdict.REFUSED:
            right = f", as for want of a right, with HTTP {seen.status}" if is_forbidden(seen) else ""
            words = f"refused for an instance in {text(self._row, 'state')!r}{right}"
            yield told(name, "refused", words, seen, fine=False)
        else:
            yield untold(name, why_unclear(seen), seen)
        yield from _none((each for each in names if each != name), f"{name} did not succeed", seen)
        return False

    def _has_ended_by_itself(self, names: Iterable[str], *seen: Seen) -> Probing[None]:
        self._start.end = text(self._row, "state")
        yield from _none(names, BROKE_BY_ITSELF if is_broken(self._row) else ENDED_BY_ITSELF, *seen)


def _none(names: Iterable[str], reason: str, *seen: Seen) -> Probing[None]:
    for name in names:
        yield untold(name, reason, *seen)


def _lag_words(lag: float) -> str:
    return "the answer shows it at once" if not lag else f"it showed at a look {lag:g} s after the answer"


def _never(name: str, effect: Effect, accepted: Seen) -> Point:
    """Tell of an action that was accepted and not seen to do anything."""
    if effect.last is None:
        return untold(name, "accepted, and no list shows the instance any more", accepted, *effect.lists)
    if has_ended(effect.last):
        return untold(name, ENDED_BY_ITSELF, accepted, *effect.lists)
    words = f"accepted, and neither state nor flag showed it within {effect.lag:.0f} s"
    return told(name, "nothing", words, accepted, *effect.lists, fine=False)


def _suspension(row: Row, *seen: Seen) -> Point:
    flag, state = row.get("suspended") is True, text(row, "state")
    if state != states.SUSPENDED:
        return told("suspend", "flag", f"the flag 'suspended'; the state is {state!r} still", *seen)
    if flag:
        return told("suspend", "flag and state", f"the flag 'suspended', and the state to {state!r}", *seen)
    return told("suspend", "state", f"the state to {state!r}, and not the flag 'suspended'", *seen)


def _termination(row: Row, *seen: Seen) -> Point:
    state = text(row, "state")
    try:
        fine = shows(decode_instance(msgspec.json.encode(row)), "terminate")
    except msgspec.ValidationError:
        fine = False
    words = f"{state!r}" if fine else f"{state!r}, which this provider does not take for a termination"
    return told("terminate", state, words, *seen, fine=fine)


def _closed_flag(shown: Row | None, *seen: Seen) -> Point:
    flag = None if shown is None else shown.get("isClosed")
    if not isinstance(flag, bool):
        return untold("closed_flag", "no answer shows the flag of an instance that has ended", *seen)
    if flag:
        return told("closed_flag", "true", "true once the instance has ended", *seen)
    words = "false even then; this provider goes by the state as well"
    return told("closed_flag", "false", words, *seen)
