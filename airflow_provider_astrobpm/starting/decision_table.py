"""One table of decisions about the instances of earlier tries, for one start and for each launch of a batch. No I/O.

An instance has *succeeded* if it ended as the task wants, and *failed* if it ended in any other way. The first row that
applies decides:

| what the try finds                                              | decision                                             |
|-----------------------------------------------------------------|------------------------------------------------------|
| an open or succeeded instance, perhaps of a deleted run         | refuse: its start time does not show it              |
| an open instance of this generation                             | adopt it                                             |
| an instance of this generation that has succeeded               | adopt it: its end is a result                        |
| such an instance of an older generation that this one resumes   | adopt it: people may be working on it                |
| an open instance with the custom key, started by someone else   | as ``if_open_instance_exists`` says                  |
| no such instance, but one may exist                             | refuse: a start could be the second one              |
| anything else: nothing, or only failed or superseded instances  | terminate open instances of older generations; start |

If several instances qualify for adoption by one row, the try refuses, too. An error that asks a person to check is recorded: the
first try after the next clear then starts despite the doubt.

A generation ends when a person clears the task. If ``retries`` was changed, it can be uncertain to which generation a try
belongs. Then an open instance of any generation counts as one of this generation, and nothing is terminated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.client.errors import AmbiguousStartError, OpenInstanceExistsError
from airflow_provider_astrobpm.starting.lost_start import describe_instances

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.starting.business_keys import IfOpenInstanceExists
    from airflow_provider_astrobpm.starting.try_record import R
    from airflow_provider_astrobpm.starting.try_request import TryRequest

MAX_PREEXISTING_IDS = 1000  # a record holds at most this many ids, because Airflow limits its length


class ExistingInstances(NamedTuple):
    """The instances that a try has found."""

    own: Sequence[BpmInstance] = ()
    """Instances of this generation, open and closed."""
    older: Sequence[BpmInstance] = ()
    """Instances of older generations."""
    others: Sequence[BpmInstance] = ()
    """Open instances that have the custom key and were started by someone else."""
    doubt: str | None = None
    """Why an instance of this generation may exist although it was not found."""
    match_ids: tuple[str, ...] = ()
    """The ids of all instances with the custom key."""
    unclear: Sequence[BpmInstance] = ()
    """Open and succeeded instances whose start time does not show whether this run of the DAG has started them."""


@dataclass(frozen=True)
class AdoptInstance:
    """Decision to adopt an existing instance."""

    instance: BpmInstance
    why: str


@dataclass(frozen=True)
class StartInstance:
    """Decision to start an instance.

    :param launch: the number of this start within the generation.
    :param terminate: open instances to terminate first.
    :param preexisting_ids: the ids of preexisting instances with the custom key; ``None`` if they were not searched for.
    """

    key: str
    launch: int = 1
    terminate: Sequence[BpmInstance] = ()
    preexisting_ids: tuple[str, ...] | None = None
    warning: str | None = None


@dataclass(frozen=True, eq=False)
class RefuseStart:
    """Decision to fail and start nothing.

    :param asks_person: whether the error asks a person to search for the instance before clearing the task.
    """

    error: AmbiguousStartError | OpenInstanceExistsError
    asks_person: bool = True


StartDecision = AdoptInstance | StartInstance | RefuseStart


@dataclass(frozen=True)
class StartSubject:
    """What is decided about: the start of a task, or one launch of its batch.

    :param key: the business key of the next start.
    :param launch: the launch's place in its batch, in words; ``None`` for the one start of a task.
    """

    bpm_name: str
    key: str
    launch: str | None = None

    def refuse(self, doubt: str, instance: BpmInstance | None = None) -> RefuseStart:
        """Return the refusal because of a doubt, which may concern an instance."""
        return RefuseStart(AmbiguousStartError(doubt, (instance and instance.business_key) or self.key))

    def ambiguous_owner_error(
        self, instances: Iterable[BpmInstance], advice: str | None = None
    ) -> AmbiguousStartError:
        """Return the error for instances with a custom key, which others may have started."""
        where = f" for {self.launch}" if self.launch else ""
        return AmbiguousStartError(
            f"it is unknown whether an earlier try started one of these{where}, because others may use their key: "
            f"{describe_instances(instances)}",
            self.key,
            advice,
        )


def generation_doubt(instance: BpmInstance) -> str:
    """Return the doubt about an instance that succeeded either before or after the last clear."""
    return f"'retries' was changed, so it is unclear whether {instance} was started before the task was last cleared"


def start_time_doubt(instance: BpmInstance) -> str:
    """Return the doubt about an instance whose start time does not show which run started it."""
    return (
        f"{instance} has its business key, but its start time {instance.start_time!r} does not show whether this run of the "
        "DAG has started it, or a deleted one with the same id"
    )


def decide_start(  # noqa: PLR0911 - the table's rows
    request: TryRequest[R],
    record: R | None,
    subject: StartSubject,
    found: ExistingInstances,
    *,
    has_met: bool = False,
    if_open_instance_exists: IfOpenInstanceExists = "start",
) -> StartDecision:
    """Decide by the table above.

    :param found: what was found; of the instances of older generations, only those that this one resumes.
    :param has_met: whether an instance has succeeded before; then the newest one is adopted, whatever became of it.
    :param if_open_instance_exists: what to do if an open instance has the custom key.
    """
    is_answered = request.is_answered(record)
    if found.unclear:
        where = f"{subject.launch}: " if subject.launch else ""
        return subject.refuse(f"{where}{start_time_doubt(found.unclear[0])}", found.unclear[0])
    for instances, why in (
        (found.own, "an earlier try started it"),
        (found.older, "it was left open when the task was cleared"),
    ):
        named = [one for one in instances if one.name == subject.bpm_name]
        if instances and not named and not is_answered:
            whose = f"the business key of {subject.launch}" if subject.launch else "this task's business key"
            return subject.refuse(
                f"{instances[0]} has {whose}, but is not an instance of {subject.bpm_name!r}", instances[0]
            )
        still_open = [] if has_met else [one for one in named if not one.is_closed]
        good = [one for one in named if has_met or (one.is_closed and request.accepts(one))]
        if chosen := still_open or sorted(good, key=lambda one: one.start_time or "")[-1:]:
            return _adopt_only_one(subject, chosen, why, request.generation_is_certain)
    if found.others and if_open_instance_exists == "fail":
        return RefuseStart(OpenInstanceExistsError(found.others[0]), asks_person=False)
    if found.others and if_open_instance_exists == "adopt":
        return _adopt_only_one(subject, found.others, "it has the task's custom business key")
    if found.doubt is None or is_answered:
        warning = found.doubt and f"{found.doubt}; starting anyway, because the task was cleared"
        return StartInstance(subject.key, warning=warning)
    what = subject.launch or "an instance"
    return subject.refuse(f"it is unknown whether an earlier try started {what}: {found.doubt}")


def _adopt_only_one(
    subject: StartSubject,
    instances: Sequence[BpmInstance],
    why: str,
    generation_is_certain: bool = True,
) -> AdoptInstance | RefuseStart:
    one = instances[0]
    if len(instances) > 1:
        whose = f"that of {subject.launch}" if subject.launch else "this task's"
        return subject.refuse(f"several instances may be {whose}: {describe_instances(instances)}", one)
    if one.is_closed and not generation_is_certain:
        return subject.refuse(generation_doubt(one), one)
    return AdoptInstance(one, why)
