"""Probes of suspend, resume and terminate, on an instance that this run started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from airflow_provider_astrobpm.client import operations, states
from airflow_provider_astrobpm.client.changes import has_effect
from airflow_provider_astrobpm.client.wire import decode_instance
from airflow_provider_astrobpm.doctor.findings import Finding
from airflow_provider_astrobpm.doctor.observation import (
    AnswerKind,
    Probe,
    answer_kind,
    instance_of,
    is_forbidden,
    raw,
    rows_of,
    text,
    why_unclear,
)
from airflow_provider_astrobpm.doctor.probe_start import NONEXISTENT_VARIABLE
from airflow_provider_astrobpm.doctor.started_instances import (
    SentStart,
    StartedInstances,
    action_probe,
    await_row,
    find_row,
    has_ended,
    is_broken,
    is_suspended,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_astrobpm.doctor.observation import InstanceRow, Observation, ProbeFlow

ENDED_BY_ITSELF = "the instance ended by itself; use a process that waits for a user"
BROKE_BY_ITSELF = "the instance broke by itself; use a process that waits for a user"
SECOND_SEARCH_DELAY_SECONDS = 4  # after the first
OPEN_INSTANCE_FINDINGS = ("suspend", "action_lag", "suspend_twice", "resume", "resume_twice")
TERMINATION_FINDINGS = ("terminate", "closed_flag", "terminate_twice")
ENDED_INSTANCE_FINDINGS = ("ended", "suspend_ended", "variables_of_ended")


class ActionEffect(NamedTuple):
    """The visible effect of an accepted action."""

    row: InstanceRow | None
    """The instance with the expected effect; ``None`` if the effect never showed."""
    last: InstanceRow | None
    """The instance at the last poll, if it was visible."""
    lag: float
    """Seconds until the effect showed, or until polling stopped."""
    lists: tuple[Observation, ...]
    """The last list, if the answer did not show the effect."""


class ActionProbes:
    """Probes of the actions on one instance, until it has ended.

    :param started: the starts of this run; the actions apply to the first instance.
    :param row: the instance as last observed.
    :param max_complete_rows: a list with at most this many rows is certainly complete.
    :param clock: returns the time, in seconds since the epoch.
    :param refuses_with_5xx: whether this endpoint is known to refuse with HTTP 5xx.
    """

    def __init__(
        self,
        started: StartedInstances,
        row: InstanceRow,
        *,
        max_complete_rows: int,
        clock: Callable[[], float],
        refuses_with_5xx: bool,
    ) -> None:
        self._started = started
        self._start: SentStart = started.first
        self._row = row
        self._max_complete_rows = max_complete_rows
        self._clock = clock
        self._refuses_with_5xx = refuses_with_5xx

    def probe(self) -> ProbeFlow[None]:
        """Suspend, resume and terminate the instance, each twice, and then act on the ended instance."""
        if not has_ended(self._row):
            row, _ = yield from find_row(self._row["id"], text(self._row, "state"))
            self._row = row or self._row
        if has_ended(self._row):
            yield from self._report_end_by_itself((*OPEN_INSTANCE_FINDINGS, *TERMINATION_FINDINGS))
        else:
            if is_broken(self._row):
                yield from _all_unknown(OPEN_INSTANCE_FINDINGS, BROKE_BY_ITSELF)
            else:
                yield from self._suspend_and_resume()
            terminated = yield from self._terminate()
            if not terminated:
                yield from _all_unknown(ENDED_INSTANCE_FINDINGS, "the instance is not known to have ended")
                return
        yield from self._probe_ended()

    def _suspend_and_resume(self) -> ProbeFlow[None]:
        accepted = yield action_probe(self._started, self._row["id"], "suspend")
        if accepted.error is not None:
            yield from self._probe_failed_action("suspend", OPEN_INSTANCE_FINDINGS, accepted)
            return
        self._started.granted.add("action")
        effect = yield from self._await_effect(accepted, "suspend")
        if effect.row is None:
            yield _no_effect_finding("suspend", effect, accepted)
            yield from _all_unknown(OPEN_INSTANCE_FINDINGS[1:], "the suspension did not show", accepted)
            return
        yield _suspension_finding(effect.row, accepted, *effect.lists)
        yield Finding.known("action_lag", effect.lag, _describe_lag(effect.lag), accepted, *effect.lists)
        yield from self._probe_twice("suspend_twice", "suspend")
        accepted = yield action_probe(self._started, self._row["id"], "resume")
        if accepted.error is not None:
            yield from self._probe_failed_action("resume", ("resume", "resume_twice"), accepted)
            return
        effect = yield from self._await_effect(accepted, "resume")
        if effect.row is None:
            yield _no_effect_finding("resume", effect, accepted)
            yield from _all_unknown(("resume_twice",), "the resumption did not show", accepted)
            return
        after = text(effect.row, "state")
        yield Finding.known(
            "resume", after, f"not suspended any more; the state is {after!r}", accepted, *effect.lists
        )
        yield from self._probe_twice("resume_twice", "resume")

    def _terminate(self) -> ProbeFlow[bool]:
        accepted = yield action_probe(self._started, self._row["id"], "terminate")
        if accepted.error is not None:
            return (yield from self._probe_failed_action("terminate", TERMINATION_FINDINGS, accepted))
        self._started.granted.add("action")
        effect = yield from self._await_effect(accepted, "terminate")
        if effect.row is None:
            words = f"accepted, but the instance did not end within {effect.lag:.0f} s"
            yield from _all_unknown(TERMINATION_FINDINGS, words, accepted, *effect.lists)
            return False
        self._row, self._start.end = effect.row, text(effect.row, "state")
        yield _termination_finding(effect.row, accepted, *effect.lists)
        again = yield action_probe(self._started, self._row["id"], "terminate")
        yield self._repetition_finding("terminate_twice", again)
        shown = next((each for each in map(instance_of, (again, accepted)) if each and has_ended(each)), None)
        yield _closed_flag_finding(shown, accepted, again)
        return True

    def _probe_ended(self) -> ProbeFlow[None]:
        """Check whether the ended instance is still visible, and act on it."""
        yield from self._probe_visibility()
        seen = yield action_probe(self._started, self._row["id"], "suspend")
        held = instance_of(seen)
        if held is not None and not has_ended(held):
            self._start.end = None
            yield from _all_unknown(
                ENDED_INSTANCE_FINDINGS[1:],
                f"the instance is {text(held, 'state')!r} and has not ended",
                seen,
            )
            return
        yield self._repetition_finding("suspend_ended", seen)
        operation = raw(operations.set_variables(self._row["id"], {NONEXISTENT_VARIABLE: "x"}))
        seen = yield Probe(operation, csrf=self._started.csrf, remark="of an ended instance")
        yield self._repetition_finding("variables_of_ended", seen)

    def _probe_visibility(self) -> ProbeFlow[None]:
        if not self._start.shown:
            yield Finding.unknown(
                "ended", "no list has ever shown the instance, so its absence is no evidence"
            )
            return
        state = text(self._row, "state")
        row, seen = yield from find_row(self._row["id"], state)
        if row is None:
            yield operations.Sleep(
                SECOND_SEARCH_DELAY_SECONDS
            )  # it may have changed its state between two lists
            row, seen = yield from find_row(self._row["id"], state)
        if row is not None:
            yield Finding.known("ended", "kept", "the instance is still visible after it has ended", seen)
            return
        of_its_state = yield Probe(raw(operations.query(state)), remark="the list of its state")
        rows = rows_of(of_its_state)
        if rows is None or rows_of(seen) is None:
            yield Finding.unknown(
                "ended", why_unclear(of_its_state if rows is None else seen), seen, of_its_state
            )
        elif len(rows) > self._max_complete_rows:
            words = f"the instance is not in the list of {state!r}, whose {len(rows)} rows may be truncated"
            yield Finding.unknown("ended", words, of_its_state)
        else:
            words = (
                "the instance is in none of the lists after it has ended: a wait then fails because the instance is missing, so no "
                "wait can succeed here"
            )
            yield Finding.known("ended", "gone", words, of_its_state, fine=False)

    def _await_effect(self, accepted: Observation, action: operations.Action) -> ProbeFlow[ActionEffect]:
        """Poll until the effect of an action shows."""

        def shows_effect(row: InstanceRow) -> bool:
            if action == "terminate":
                return has_ended(row)
            return not has_ended(row) and is_suspended(row) == (action == "suspend")

        answer = instance_of(accepted)
        if answer is not None and shows_effect(answer):
            return ActionEffect(answer, answer, 0.0, ())
        begun = self._clock()
        awaited = yield from await_row(self._row["id"], text(self._row, "state"), shows_effect, self._clock)
        return ActionEffect(
            awaited.wanted, awaited.last, round(awaited.at - begun, 1), (awaited.observation,)
        )

    def _probe_twice(self, name: str, action: Literal["suspend", "resume"]) -> ProbeFlow[None]:
        yield self._repetition_finding(name, (yield action_probe(self._started, self._row["id"], action)))

    def _repetition_finding(self, name: str, seen: Observation) -> Finding:
        found = answer_kind(seen, refuses_with_5xx=self._refuses_with_5xx)
        if found is AnswerKind.UNCLEAR:
            return Finding.unknown(name, why_unclear(seen), seen)
        kind = "variables" if name == "variables_of_ended" else "action"
        if found is AnswerKind.REFUSED and kind not in self._started.granted:
            # Without an earlier call that was granted, the reason may be a missing permission instead of the state.
            what = "setting variables" if kind == "variables" else "an action"
            return Finding.unknown(
                name, f"refused, and {what} was not granted before either: a permission may be missing", seen
            )
        if found is AnswerKind.REFUSED:
            return Finding.known(
                name, "refused", "refused; this provider then checks the state of the instance", seen
            )
        return Finding.known(name, "accepted", "accepted silently", seen)

    def _probe_failed_action(self, name: str, names: Iterable[str], seen: Observation) -> ProbeFlow[bool]:
        """Report an action that failed, and the findings that depend on it as unknown.

        :returns: whether the instance has ended.
        """
        row, _ = yield from find_row(self._row["id"], text(self._row, "state"))
        self._row = row or self._row
        if has_ended(self._row):
            yield from self._report_end_by_itself(names, seen)
            return True
        if answer_kind(seen, refuses_with_5xx=self._refuses_with_5xx) is AnswerKind.REFUSED:
            hint = (
                f" with HTTP {seen.status}, which suggests a missing permission" if is_forbidden(seen) else ""
            )
            words = f"refused for an instance in {text(self._row, 'state')!r}{hint}"
            yield Finding.known(name, "refused", words, seen, fine=False)
        else:
            yield Finding.unknown(name, why_unclear(seen), seen)
        yield from _all_unknown((each for each in names if each != name), f"{name} did not succeed", seen)
        return False

    def _report_end_by_itself(self, names: Iterable[str], *seen: Observation) -> ProbeFlow[None]:
        self._start.end = text(self._row, "state")
        yield from _all_unknown(names, BROKE_BY_ITSELF if is_broken(self._row) else ENDED_BY_ITSELF, *seen)


def _all_unknown(names: Iterable[str], reason: str, *seen: Observation) -> ProbeFlow[None]:
    for name in names:
        yield Finding.unknown(name, reason, *seen)


def _describe_lag(lag: float) -> str:
    return "shown by the answer itself" if not lag else f"shown by a poll {lag:g} s after the answer"


def _no_effect_finding(name: str, effect: ActionEffect, accepted: Observation) -> Finding:
    """Return the finding for an accepted action without a visible effect."""
    if effect.last is None:
        return Finding.unknown(
            name, "accepted, but no list shows the instance any more", accepted, *effect.lists
        )
    if has_ended(effect.last):
        return Finding.unknown(name, ENDED_BY_ITSELF, accepted, *effect.lists)
    words = f"accepted, but neither state nor flag showed an effect within {effect.lag:.0f} s"
    return Finding.known(name, "nothing", words, accepted, *effect.lists, fine=False)


def _suspension_finding(row: InstanceRow, *seen: Observation) -> Finding:
    flag, state = row.get("suspended") is True, text(row, "state")
    if state != states.SUSPENDED:
        return Finding.known("suspend", "flag", f"the flag 'suspended'; the state remains {state!r}", *seen)
    if flag:
        return Finding.known(
            "suspend", "flag and state", f"the flag 'suspended', and the state to {state!r}", *seen
        )
    return Finding.known("suspend", "state", f"the state to {state!r}, but not the flag 'suspended'", *seen)


def _termination_finding(row: InstanceRow, *seen: Observation) -> Finding:
    state = text(row, "state")
    try:
        fine = has_effect(decode_instance(msgspec.json.encode(row)), "terminate")
    except msgspec.ValidationError:
        fine = False
    words = f"{state!r}" if fine else f"{state!r}, which this provider does not treat as a termination"
    return Finding.known("terminate", state, words, *seen, fine=fine)


def _closed_flag_finding(shown: InstanceRow | None, *seen: Observation) -> Finding:
    flag = None if shown is None else shown.get("isClosed")
    if not isinstance(flag, bool):
        return Finding.unknown("closed_flag", "no answer shows the flag of the ended instance", *seen)
    if flag:
        return Finding.known("closed_flag", "true", "true after the instance has ended", *seen)
    words = "false even then; this provider also uses the state"
    return Finding.known("closed_flag", "false", words, *seen)
