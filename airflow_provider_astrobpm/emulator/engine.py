"""The process engine: the instances in memory, and every operation on them.

The engine accepts or refuses an operation by the switches. It knows nothing of HTTP or JSON. Instances advance lazily:
reading an instance settles it to the clock, and each step that was due takes effect at its own due time.
"""

from __future__ import annotations

import copy
import math
from itertools import count
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.client.states import STATES, SUSPENDED, is_terminal
from airflow_provider_astrobpm.emulator.catalogue import Catalogue, new_id
from airflow_provider_astrobpm.emulator.instances import Instance, settable
from airflow_provider_astrobpm.emulator.reactions import Reactions
from airflow_provider_astrobpm.emulator.refusals import Refusal, ResultCode
from airflow_provider_astrobpm.emulator.switches import Switches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_astrobpm.emulator.process_scripts import Process
    from airflow_provider_astrobpm.emulator.reactions import Reaction

ACTIONS = ("suspend", "resume", "terminate")
BUSINESS_KEY, TITLE = "$Flow.BusinessKey", "$Flow.Title"
MACHINE_USER = "machine"


class Engine:
    """All instances, and the catalogue of processes to start.

    Its operations raise ``Refusal`` for an unknown id, and where a switch refuses them.

    :param clock: returns seconds since the epoch.
    :param processes: the processes to offer.
    """

    def __init__(
        self, clock: Callable[[], float], processes: Iterable[Process], switches: Switches | None = None
    ) -> None:
        self.switches = switches or Switches()
        self.catalogue = Catalogue(processes)
        self.reactions = Reactions()
        self._clock = clock
        self._numbers = count(1)
        self._instances: dict[str, Instance] = {}

    def start(
        self,
        name: str,
        version: str | None = None,
        variables: dict[str, Any] | None = None,
        created_by: str = MACHINE_USER,
        *,
        age: float = 0.0,
    ) -> Instance:
        """Start an instance and return it in its first step. Steps of 0 seconds pass at the next read.

        :param version: the version, which may be inactive; by default the active version.
        :param variables: values, and the system variables ``$Flow.BusinessKey`` and ``$Flow.Title``.
        :param age: how many seconds ago the instance was started. Its script has run since then.
        :raises Refusal: also for an unknown process or version.
        :raises ValueError: for an invalid age.
        """
        now = self._clock()
        if not (math.isfinite(age) and 0 <= age <= now):
            raise ValueError(f"age must be 0 or more seconds and not reach back before 1970, not {age!r}")
        definition = self.catalogue.to_start(name, version)
        process = definition.process
        given = dict(variables or {})
        key, title = str(given.pop(BUSINESS_KEY, "")), str(given.pop(TITLE, ""))
        unknown = [variable for variable in given if variable not in process.variables]
        if unknown and self.switches.unknown_variables_at_start == "refuse":
            raise Refusal(ResultCode.UNKNOWN_VARIABLE, f"BPM {name} has no variable {', '.join(unknown)}")
        if self.switches.duplicate_business_key == "refuse" and any(
            each.process.name == name and each.business_key == key for each in self._instances.values()
        ):
            raise Refusal(
                ResultCode.DUPLICATE_BUSINESS_KEY,
                f"An instance of BPM {name} already has the business key {key}",
            )
        instance_id = new_id("002N")
        instance = Instance(
            number=next(self._numbers),
            id=instance_id,
            definition_id=definition.id,
            process=process,
            business_key=key or instance_id,
            title=title or process.label,
            created_by=created_by,
            started=now - age,
            variables={**copy.deepcopy(process.variables), **settable(process, given)},
        )
        self._instances[instance_id] = instance
        if not process.steps:
            self._settle(instance, now)
        return instance

    def visible(self) -> list[Instance]:
        """Return the instances that a query may show, oldest first, settled."""
        latest = self._clock() - self.switches.start_lag
        return [each for each in self.instances() if each.started <= latest and self.shows(each)]

    def read(self, instance_id: str) -> Instance:
        """Return one instance as a read finds it; refuse one that is not visible yet."""
        instance = self._addressed(instance_id)
        if instance.started > self._clock() - self.switches.start_lag:
            raise _unknown(instance_id)
        return instance

    def act(self, instance_id: str, action: str) -> Instance:
        """Suspend, resume or terminate an instance; refuse any other action."""
        instance = self._addressed(instance_id)
        if action not in ACTIONS:
            raise Refusal(
                ResultCode.UNKNOWN_ACTION, f"Unknown action {action!r}; known are {', '.join(ACTIONS)}"
            )
        self._check_action(instance, action)
        now = self._clock()
        instance.accept(now + self.switches.action_lag, action, self.switches.terminate_state)
        self._settle(instance, now)
        return instance

    def set_variables(self, instance_id: str, variables: dict[str, Any]) -> None:
        """Set variables. Unknown and read-only names are ignored."""
        instance = self._addressed(instance_id)
        if not instance.closed:
            instance.store(variables, self._clock())
        elif self.switches.acting_on_closed == "refuse":
            raise Refusal(ResultCode.INSTANCE_CLOSED, f"Instance {instance_id} has ended as {instance.state}")

    def delete(self, instance_id: str) -> None:
        """Delete an instance permanently."""
        instance = self._addressed(instance_id)
        if not instance.closed and self.switches.deleting_open == "refuse":
            raise Refusal(ResultCode.STILL_OPEN, f"Instance {instance_id} is still open")
        self._remove(instance)

    def shown_state(self, instance: Instance) -> str:
        """Return the state that the API shows. The switch ``suspend_state`` says whether suspending changes it."""
        held = instance.suspended and self.switches.suspend_state != "unchanged"
        return SUSPENDED if held else instance.state

    def shown_suspended(self, instance: Instance) -> bool:
        """Return the suspended flag that the API shows."""
        return instance.suspended and self.switches.suspend_state != "state_only"

    def shows(self, instance: Instance) -> bool:
        """Return whether the API shows an instance. Switches can hide those of other users and closed ones."""
        mine = instance.created_by == MACHINE_USER
        return (mine or self.switches.see_others) and (not instance.closed or self.switches.keep_closed)

    def instances(self) -> list[Instance]:
        """Return every instance, oldest first, settled. Switches hide none of them."""
        now = self._clock()
        for instance in self._instances.values():
            self._settle(instance, now)
        return list(self._instances.values())

    def instance(self, instance_id: str) -> Instance:
        """Return any instance, settled."""
        if instance_id not in self._instances:
            raise _unknown(instance_id)
        instance = self._instances[instance_id]
        self._settle(instance, self._clock())
        return instance

    def next_due(self) -> float:
        """Return when an instance next advances on its own, in seconds since the epoch; infinity if none does."""
        each_due = (min(each.due, self.reactions.next_for(each)[0]) for each in self._instances.values())
        return min(each_due, default=math.inf)

    def decide(
        self, instance_id: str, outcome: str, person: str = "someone", variables: dict[str, Any] | None = None
    ) -> Instance:
        """Complete the task at which an instance waits, as a person does; refuse an outcome that it does not offer."""
        instance = self.instance(instance_id)
        if outcome not in instance.outcomes:
            on_offer = ", ".join(instance.outcomes) or "it waits for no person"
            held = ", suspended" if instance.suspended else ""
            raise Refusal(
                ResultCode.NO_PERSON_AWAITED,
                f"Outcome {outcome!r} is not on offer at instance {instance_id} ({instance.state}{held}): {on_offer}",
            )
        now = self._clock()
        instance.decide(instance.outcomes[outcome], person, variables or {}, now)
        self._settle(instance, now)
        return instance

    def react(self, reaction: Reaction) -> None:
        """Add a reaction: an action that is applied to each matching instance when it is due.

        :raises Refusal: for an unknown process, or for an outcome that none of its steps offers.
        """
        processes = [each.process for each in self.catalogue if each.process.name == reaction.name]
        if not processes:
            raise Refusal(ResultCode.UNKNOWN_PROCESS, f"BPM {reaction.name} does not exist")
        offered = dict.fromkeys(
            outcome for process in processes for step in process.steps for outcome in step.outcomes
        )
        for outcome in reaction.outcomes:
            if outcome not in offered:
                on_offer = ", ".join(offered) or "none, because it never waits for a person"
                raise Refusal(
                    ResultCode.NO_PERSON_AWAITED,
                    f"BPM {reaction.name} has no outcome {outcome!r}; it has {on_offer}",
                )
        self.instances()  # settles them: earlier due steps take effect before the reaction
        first = max((each.number for each in self._instances.values()), default=0) + 1
        self.reactions.add(reaction, since=self._clock(), first=first)

    def missed(self, *, final: bool) -> list[str]:
        """Return messages about the reactions that did not happen; see ``Reactions.missed_reactions``."""
        return self.reactions.missed_reactions(self.instances(), final=final)

    def break_(self, instance_id: str) -> Instance:
        """Break an instance: it ends as ``Broken``."""
        instance = self.instance(instance_id)
        instance.break_(self._clock())
        return instance

    def move(
        self,
        instance_id: str,
        *,
        state: str | None = None,
        bp_status: str | None = None,
        closed: bool | None = None,
    ) -> Instance:
        """Force an instance into a state. A new state stops its script.

        :param closed: whether it has ended. With ``None`` a new state decides; without a new state it stays as it is.
        :raises ValueError: for an unknown state.
        """
        if state is not None and state not in STATES:
            raise ValueError(f"unknown state {state!r}; known are {', '.join(STATES)}")
        instance = self.instance(instance_id)
        if closed is None:
            closed = instance.closed if state is None else is_terminal(state)
        instance.move("moved by hand", self._clock(), state=state, bp_status=bp_status, closed=closed)
        return instance

    def vanish(self, instance_id: str) -> None:
        """Remove an instance and leave no trace of it, as an archiving job does."""
        self._remove(self.instance(instance_id))

    def _settle(self, instance: Instance, now: float) -> None:
        """Apply to an instance every step and reaction that is due by now, each at its own due time."""
        while True:
            at, reaction = self.reactions.next_for(instance)
            if reaction and at <= now and (at, not instance.ends_next) < (instance.due, True):
                reaction.apply(instance, at, self.switches.terminate_state)
            elif instance.due <= now:
                instance.advance()
            else:
                return

    def _remove(self, instance: Instance) -> None:
        self.reactions.forget(instance)
        del self._instances[instance.id]

    def _addressed(self, instance_id: str) -> Instance:
        instance = self.instance(instance_id)
        if not self.shows(instance):
            raise _unknown(instance_id)
        return instance

    def _check_action(self, instance: Instance, action: str) -> None:
        terminated = instance.state in ("Terminated", "User Terminated")
        if instance.closed and not (terminated and action == "terminate"):
            if self.switches.acting_on_closed == "refuse":
                raise Refusal(
                    ResultCode.INSTANCE_CLOSED, f"Instance {instance.id} has ended as {instance.state}"
                )
        elif self.switches.acting_twice == "refuse" and (
            instance.closed or (action != "terminate" and instance.suspended == (action == "suspend"))
        ):
            word = "terminated" if instance.closed else "suspended" if instance.suspended else "running"
            raise Refusal(ResultCode.ALREADY_SO, f"Instance {instance.id} is already {word}")


def _unknown(instance_id: str) -> Refusal:
    return Refusal(ResultCode.UNKNOWN_INSTANCE, f"Instance {instance_id} does not exist")
