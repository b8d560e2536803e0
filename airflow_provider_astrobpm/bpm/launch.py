"""The plan of a start: one task has one instance, whatever crashes.

A start is one POST, and what may have been taken is never sent again:

| the POST                                                      | so the instance       | and then                         |
|---------------------------------------------------------------|-----------------------|----------------------------------|
| was answered with an instance                                 | was started           | its id is written down           |
| never reached the server, was throttled (429), or was refused | was not started       | the try fails, a retry sends it  |
| anything else: no whole answer, a server error, unreadable    | may have been started | it is looked for by its key      |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from airflow_provider_astrobpm.bpm import adoption, change, search
from airflow_provider_astrobpm.bpm.adoption import Adopt, Found, Look, Record, Refuse
from airflow_provider_astrobpm.bpm.api import Pause
from airflow_provider_astrobpm.bpm.errors import (
    AmbiguousStartError,
    AuthenticationError,
    CallError,
    InstanceNotFoundError,
)
from airflow_provider_astrobpm.bpm.meter import ADOPTIONS, AMBIGUOUS_STARTS, NO_METER, STARTS
from airflow_provider_astrobpm.bpm.wait import Note

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_provider_astrobpm.bpm.adoption import Decision, Order, Start
    from airflow_provider_astrobpm.bpm.api import Operation, Plan
    from airflow_provider_astrobpm.bpm.instance import BpmInstance
    from airflow_provider_astrobpm.bpm.meter import Meter

LOOKS_AFTER_DOUBT = (0.05, 0.25, 0.5, 1.0)
"""When the instance of a start in doubt is looked for, in parts of the grace."""


class Launched(NamedTuple):
    """What came of an order: the instance, and what is written down about it."""

    instance: BpmInstance
    record: Record


class Launcher:
    """Brings about the one instance of a task.

    :param order: what is to be started.
    :param find: a plan that finds an instance by its id.
    :param remember: writes a record down, so that later tries have it even if this one dies at once.
    :param log: is told what happens.
    :param clock: the time, in seconds since the epoch.
    :param meter: is told what was started and adopted.
    """

    def __init__(
        self,
        order: Order,
        *,
        find: Callable[[str], Plan[BpmInstance]],
        remember: Callable[[Record], None],
        log: Callable[[Note], None],
        clock: Callable[[], float],
        meter: Meter = NO_METER,
    ) -> None:
        self._order = order
        self._find = find
        self._remember = remember
        self._log = log
        self._clock = clock
        self._meter = meter

    def launch(self, record: Record | None) -> Plan[Launched]:
        """Start the instance, or go on with the one that an earlier try has started.

        :param record: what earlier tries have written down, if they did.
        :raises AmbiguousStartError: if nobody can know whether an instance was started.
        :raises OpenInstanceExistsError: if one carries the author's key, and that was to fail.
        :raises CallError: if a call failed, and this try has certainly started nothing.
        """
        yield from _pause(adoption.pause_before_look(self._order, record, self._clock()))
        decision = yield from self._decision(record)
        if isinstance(decision, Refuse):
            if decision.told:
                self._remember(adoption.asked(self._order, record))
            raise decision.error
        if isinstance(decision, Adopt):
            return self._adopt(record, decision)
        if decision.warning:
            self._log(Note(decision.warning, warning=True))
        for instance in decision.terminate:
            yield from self._terminate(instance)
        return (yield from self._start(decision))

    def _decision(self, record: Record | None) -> Plan[Decision]:
        """Look, and decide."""
        order = self._order
        way = adoption.way_to_look(order, record)
        try:
            if way is Look.KEY:
                carriers = yield from search.find_carriers(order.wants)
                found = adoption.sort_out(order, record, carriers)
                return found if isinstance(found, Refuse) else adoption.decide(order, record, found)
            if way is Look.ID and record is not None and record.instance_id is not None:
                return (yield from self._decision_by_id(record, record.instance_id))
        except AuthenticationError:
            raise
        except CallError as error:
            unknown = (
                "Whether an earlier try has started an instance could not be found out. A retry looks again."
            )
            return Refuse(AmbiguousStartError(error, order.key(), unknown), told=False)
        return adoption.decide(order, record, Found())

    def _decision_by_id(self, record: Record, instance_id: str) -> Plan[Decision]:
        own = self._order.own(record) is not None
        try:
            try:
                instance = yield from self._find(instance_id)
            except InstanceNotFoundError:
                if (pause := adoption.until_it_shows(self._order, record, self._clock())) <= 0:
                    raise
                yield Pause(pause)
                instance = yield from self._find(instance_id)
        except InstanceNotFoundError:
            # A failed wait has promised that a clear goes on with it, so it may be hidden; a person has to say.
            if own or (record.left_open and not record.told):
                return Refuse(adoption.gone(instance_id, self._order.key(record.launch)))
            return adoption.decide(self._order, record, Found())
        older = () if own or instance.is_closed else (instance,)
        return adoption.decide(self._order, record, Found((instance,) if own else (), older))

    def _adopt(self, record: Record | None, decision: Adopt) -> Launched:
        self._log(Note(f"Adopted {decision.instance}: {decision.why}"))
        self._meter.count(ADOPTIONS)
        own = self._order.own(record) or Record(generation=self._order.generation)
        # A wait that has failed is over; what goes on now is another one.
        deadline = None if own.left_open else own.deadline
        known = msgspec.structs.replace(
            own,
            instance_id=decision.instance.id,
            deadline=self._deadline() if deadline is None else deadline,
            left_open=False,
        )
        if known != record:
            self._remember(known)
        return Launched(decision.instance, known)

    def _terminate(self, instance: BpmInstance) -> Plan[None]:
        self._log(
            Note(f"The task was cleared. Terminating what it had started before: {instance}", warning=True)
        )
        try:
            done = yield from change.change_state(instance.id, "terminate", find=self._find)
        except InstanceNotFoundError as gone:
            self._log(Note(f"{gone.problem}; it needs no end any more"))
        else:
            self._log(Note(done.note, warning=not done.visible))

    def _start(self, start: Start) -> Plan[Launched]:
        operation = self._order.start(start.key)
        sent = Record(
            generation=self._order.generation,
            launch=start.launch,
            posted_at=self._clock(),
            strangers=start.strangers,
        )
        self._remember(sent)
        try:
            instance: BpmInstance = yield operation
        except CallError as error:
            if error.taken is not None:
                self._remember(msgspec.structs.replace(sent, posted_at=None))
                raise
            self._meter.count(AMBIGUOUS_STARTS)
            self._log(Note(f"The start is in doubt; looking for what came of it. {error}", warning=True))
            instance = yield from self._find_after_doubt(start, sent, error)
        self._meter.count(STARTS)
        known = msgspec.structs.replace(
            sent, instance_id=instance.id, posted_at=self._clock(), deadline=self._deadline()
        )
        self._remember(known)
        self._log(Note(f"Started {instance}, business key {start.key!r}"))
        return Launched(instance, known)

    def _find_after_doubt(self, start: Start, sent: Record, failure: CallError) -> Plan[BpmInstance]:
        """Find the instance of a start whose answer was lost, for as long as it may take to show.

        :raises AmbiguousStartError: if there is none, or nobody can tell.
        """
        order = self._order
        found = yield from look_after_doubt(
            start.key,
            order.bpm_name,
            grace=order.grace,
            posted_at=sent.posted_at,
            strangers=start.strangers or (),
            is_ours_alone=order.business_key is None or start.strangers is not None,
        )
        if found.instance is not None:
            return found.instance
        self._remember(msgspec.structs.replace(sent, told=True))
        lost = AmbiguousStartError(failure, start.key)
        lost.problem += f"; {found.doubt}"
        raise lost from failure

    def _deadline(self) -> float | None:
        return None if self._order.timeout is None else self._clock() + self._order.timeout


class AfterDoubt(NamedTuple):
    """What came of looking for the instance of a start in doubt."""

    instance: BpmInstance | None
    doubt: str = ""
    """Why there is none, in words."""


def look_after_doubt(
    business_key: str,
    bpm_name: str,
    *,
    grace: float,
    posted_at: float | None,
    strangers: Collection[str] = (),
    is_ours_alone: bool = True,
) -> Plan[AfterDoubt]:
    """Look for the instance of a start whose answer was lost, for as long as it may take to show.

    :param business_key: the key that it carries.
    :param bpm_name: its BPM's name.
    :param grace: seconds after which an instance that was started certainly shows in the lists.
    :param posted_at: when the start was sent, in seconds since the epoch.
    :param strangers: the ids that carried the key before.
    :param is_ours_alone: whether one that carries the key now, and did not before, is certainly of this start.
    :raises AuthenticationError: if the credentials are refused.
    """
    waited, doubt = 0.0, None
    for part in LOOKS_AFTER_DOUBT:
        yield from _pause(grace * (part - waited))
        waited = part
        try:
            carriers = yield from search.find_carriers(
                lambda one: one.business_key == business_key and one.name == bpm_name
            )
        except AuthenticationError:
            raise
        except CallError as error:
            doubt = f"it could not be looked for: {error.problem}"
            continue
        mine = [one for one in carriers.instances.values() if one.id not in strangers]
        if posted_at is not None:
            mine = [one for one in mine if not search.started_long_before(one, posted_at)]
        if len(mine) == 1 and is_ours_alone:
            return AfterDoubt(mine[0])
        doubt = carriers.doubt(bpm_name, posted_at)
        if mine:
            doubt = f"it may be one of those that carry its business key: {adoption.listed(mine)}"
        if doubt:
            break
    return AfterDoubt(None, doubt or "no instance shows that carries its business key")


def start_once(
    operation: Operation[BpmInstance], business_key: str | None, meter: Meter = NO_METER
) -> Plan[BpmInstance]:
    """Start an instance for somebody who has no tries.

    :param operation: the start, from ``api.start``.
    :param business_key: the key it carries, for the error.
    :param meter: is told what was started.
    :raises AmbiguousStartError: if nobody can know whether the instance was started.
    :raises CallError: if it was certainly not started.
    """
    try:
        instance: BpmInstance = yield operation
    except CallError as error:
        if error.taken is None:
            meter.count(AMBIGUOUS_STARTS)
            raise AmbiguousStartError(error, business_key) from error
        raise
    meter.count(STARTS)
    return instance


def _pause(seconds: float) -> Plan[None]:
    if seconds > 0:
        yield Pause(seconds)
