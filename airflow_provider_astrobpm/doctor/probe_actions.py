"""Probes of suspend, resume and terminate, on an instance that this run started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.client import operations, states
from airflow_provider_astrobpm.client.changes import has_effect
from airflow_provider_astrobpm.doctor.findings import Finding, all_unknown
from airflow_provider_astrobpm.doctor.observation import Probe, as_instance, report_findings, text
from airflow_provider_astrobpm.doctor.probe_start import NONEXISTENT_VARIABLE
from airflow_provider_astrobpm.doctor.started_instances import (
    SECOND_SEARCH_DELAY_SECONDS,
    AwaitedRow,
    StartedInstances,
    action_probe,
    await_row,
    find_row,
    has_ended,
    is_broken,
    is_suspended,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_astrobpm.doctor.observation import InstanceRow, Observation, ProbeFlow

ENDED_BY_ITSELF = "the instance ended by itself; use a process that waits for a user"
BROKE_BY_ITSELF = "the instance broke by itself; use a process that waits for a user"
RESUMPTION_FINDINGS = ("resume", "resume_twice")
OPEN_INSTANCE_FINDINGS = ("suspend", "action_lag", "suspend_twice", *RESUMPTION_FINDINGS)
TERMINATION_FINDINGS = ("terminate", "closed_flag", "terminate_twice")
ENDED_INSTANCE_FINDINGS = ("ended", "suspend_ended", "variables_of_ended")


@dataclass
class ActionProbes:
    """Probes of the actions on one instance, until it has ended.

    :param started: the starts of this run; the actions apply to the first instance.
    :param row: the instance as last observed.
    :param max_complete_rows: a list with at most this many rows is certainly complete.
    """

    started: StartedInstances
    row: InstanceRow
    max_complete_rows: int

    def probe(self) -> ProbeFlow[None]:
        """Suspend, resume and terminate the instance, each twice, and then act on the ended instance."""
        if not has_ended(self.row):
            yield from self._find()
        if has_ended(self.row):
            yield from self._report_end_by_itself((*OPEN_INSTANCE_FINDINGS, *TERMINATION_FINDINGS))
        else:
            if is_broken(self.row):
                yield from all_unknown(OPEN_INSTANCE_FINDINGS, BROKE_BY_ITSELF)
            else:
                yield from self._suspend_and_resume()
            yield from self._terminate()
        if has_ended(self.row):
            yield from self._probe_ended()
        else:
            yield from all_unknown(ENDED_INSTANCE_FINDINGS, "the instance is not known to have ended")

    def _suspend_and_resume(self) -> ProbeFlow[None]:
        suspended = yield from self._act("suspend", OPEN_INSTANCE_FINDINGS)
        if suspended is None:
            return
        row, lag, seen = suspended
        yield _suspension_finding(row, *seen)
        how = f"by a poll {lag:g} s after the answer" if lag else "by the answer itself"
        yield Finding.known("action_lag", lag, f"shown {how}", *seen)
        yield self._repetition_finding("suspend_twice", (yield self._action("suspend")))
        resumed = yield from self._act("resume", RESUMPTION_FINDINGS)
        if resumed is None:
            return
        row, _, seen = resumed
        state = text(row, "state")
        yield Finding.known("resume", state, f"not suspended any more; the state is {state!r}", *seen)
        yield self._repetition_finding("resume_twice", (yield self._action("resume")))

    def _terminate(self) -> ProbeFlow[None]:
        terminated = yield from self._act("terminate", TERMINATION_FINDINGS)
        if terminated is None:
            return
        self.row, _, seen = terminated
        self.started.first.end = text(self.row, "state")
        yield _termination_finding(self.row, *seen)
        again = yield self._action("terminate")
        yield self._repetition_finding("terminate_twice", again)
        yield _closed_flag_finding(again, seen[0])

    def _find(self) -> ProbeFlow[None]:
        row, _ = yield from find_row(self.row)
        self.row = row or self.row

    def _action(self, action: operations.Action) -> Probe:
        return action_probe(self.started, self.row["id"], action)

    def _act(
        self, action: operations.Action, names: Sequence[str]
    ) -> ProbeFlow[tuple[InstanceRow, float, tuple[Observation, ...]] | None]:
        """Send an action, and poll until its effect shows.

        :param names: the findings that depend on the effect, beginning with the action's own. They are reported if it does not show.
        :returns: the instance with the effect, the seconds until it showed, and the evidence, beginning with the answer.
        """

        def shows_effect(row: InstanceRow) -> bool:
            if action == "terminate":
                return has_ended(row)
            return not has_ended(row) and is_suspended(row) == (action == "suspend")

        accepted: Observation = yield self._action(action)
        if accepted.error is not None:
            yield from self._report_failed_action(names, accepted)
            return None
        self.started.granted.add("an action")
        if accepted.instance is not None and shows_effect(accepted.instance):
            return accepted.instance, 0.0, (accepted,)
        effect = yield from await_row(self.row, accepted.at, shows_effect)
        seen = (accepted, effect.observation)
        if effect.is_wanted and effect.row is not None:
            return effect.row, effect.lag, seen
        if action == "terminate":
            words = f"accepted, but the instance did not end within {effect.lag:.0f} s"
            yield from all_unknown(names, words, *seen)
        else:
            yield _no_effect_finding(action, effect, *seen)
            what = {"suspend": "suspension", "resume": "resumption"}[action]
            yield from all_unknown(names[1:], f"the {what} did not show", accepted)
        return None

    def _probe_ended(self) -> ProbeFlow[None]:
        """Check whether the ended instance is still visible, and act on it."""
        yield from report_findings(self._probe_visibility())
        seen = yield self._action("suspend")
        held = seen.instance
        if held is not None and not has_ended(held):
            self.started.first.end = None
            reason = f"the instance is {text(held, 'state')!r} and has not ended"
            yield from all_unknown(ENDED_INSTANCE_FINDINGS[1:], reason, seen)
            return
        yield self._repetition_finding("suspend_ended", seen)
        operation = operations.set_variables(self.row["id"], {NONEXISTENT_VARIABLE: "x"})
        seen = yield Probe(operation, csrf=self.started.csrf, remark="of an ended instance")
        yield self._repetition_finding("variables_of_ended", seen)

    def _probe_visibility(self) -> ProbeFlow[Finding]:
        if not self.started.first.shown:
            reason = "no list has ever shown the instance, so its absence is no evidence"
            return Finding.unknown("ended", reason)
        state = text(self.row, "state")
        row, seen = yield from find_row(self.row)
        if row is None:
            yield operations.Sleep(SECOND_SEARCH_DELAY_SECONDS)
            row, seen = yield from find_row(self.row)
        if row is not None:
            return Finding.known("ended", "kept", "the instance is still visible after it has ended", seen)
        of_its_state = yield Probe(operations.query(state), remark="the list of its state")
        rows = of_its_state.rows
        if rows is None or seen.rows is None:
            reason = (of_its_state if rows is None else seen).why_unclear
            return Finding.unknown("ended", reason, seen, of_its_state)
        if len(rows) > self.max_complete_rows:
            words = f"the instance is not in the list of {state!r}, whose {len(rows)} rows may be truncated"
            return Finding.unknown("ended", words, of_its_state)
        words = (
            "the instance is in none of the lists after it has ended: a wait then fails because the instance is missing, so no "
            "wait can succeed here"
        )
        return Finding.known("ended", "gone", words, of_its_state, fine=False)

    def _repetition_finding(self, name: str, seen: Observation) -> Finding:
        if seen.is_unclear:
            return Finding.unknown(name, seen.why_unclear, seen)
        if not seen.is_refusal:
            return Finding.known(name, "accepted", "accepted silently", seen)
        what = "setting variables" if name == "variables_of_ended" else "an action"
        if what not in self.started.granted:
            # Without an earlier call that was granted, the reason may be a missing permission instead of the state.
            reason = f"refused, and {what} was not granted before either: a permission may be missing"
            return Finding.unknown(name, reason, seen)
        words = "refused; this provider then checks the state of the instance"
        return Finding.known(name, "refused", words, seen)

    def _report_failed_action(self, names: Sequence[str], seen: Observation) -> ProbeFlow[None]:
        """Report an action that failed, and the findings that depend on it as unknown."""
        yield from self._find()
        if has_ended(self.row):
            yield from self._report_end_by_itself(names, seen)
            return
        action, *dependent = names
        if seen.is_refusal:
            words = f"refused for an instance in {text(self.row, 'state')!r}{seen.permission_hint}"
            yield Finding.known(action, "refused", words, seen, fine=False)
        else:
            yield Finding.unknown(action, seen.why_unclear, seen)
        yield from all_unknown(dependent, f"{action} did not succeed", seen)

    def _report_end_by_itself(self, names: Sequence[str], *seen: Observation) -> ProbeFlow[None]:
        self.started.first.end = text(self.row, "state")
        yield from all_unknown(names, BROKE_BY_ITSELF if is_broken(self.row) else ENDED_BY_ITSELF, *seen)


def _no_effect_finding(name: str, effect: AwaitedRow, *seen: Observation) -> Finding:
    """Return the finding for an accepted action without a visible effect."""
    if effect.row is None:
        return Finding.unknown(name, "accepted, but no list shows the instance any more", *seen)
    if has_ended(effect.row):
        return Finding.unknown(name, ENDED_BY_ITSELF, *seen)
    words = f"accepted, but neither state nor flag showed an effect within {effect.lag:.0f} s"
    return Finding.known(name, "nothing", words, *seen, fine=False)


def _suspension_finding(row: InstanceRow, *seen: Observation) -> Finding:
    state = text(row, "state")
    if state != states.SUSPENDED:
        value, words = "flag", f"the flag 'suspended'; the state remains {state!r}"
    elif row.get("suspended") is True:
        value, words = "flag and state", f"the flag 'suspended', and the state to {state!r}"
    else:
        value, words = "state", f"the state to {state!r}, but not the flag 'suspended'"
    return Finding.known("suspend", value, words, *seen)


def _termination_finding(row: InstanceRow, *seen: Observation) -> Finding:
    state = text(row, "state")
    instance = as_instance(row)
    fine = instance is not None and has_effect(instance, "terminate")
    doubt = "" if fine else ", which this provider does not treat as a termination"
    return Finding.known("terminate", state, f"{state!r}{doubt}", *seen, fine=fine)


def _closed_flag_finding(again: Observation, accepted: Observation) -> Finding:
    shown = (each.instance for each in (again, accepted))
    flag = next((row.get("isClosed") for row in shown if row and has_ended(row)), None)
    if not isinstance(flag, bool):
        reason = "no answer shows the flag of the ended instance"
        return Finding.unknown("closed_flag", reason, accepted, again)
    if flag:
        return Finding.known("closed_flag", "true", "true after the instance has ended", accepted, again)
    words = "false even then; this provider also uses the state"
    return Finding.known("closed_flag", "false", words, accepted, again)
