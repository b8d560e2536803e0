"""The base class of tasks that wait for instances: the arguments of the wait, deferral, resumption and completion.

DAG files import this module at every parse, so the client and its libraries are imported only when a task runs.
"""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_provider_astrobpm._airflow.version_compat import deferral_errors
from airflow_provider_astrobpm.client import validation
from airflow_provider_astrobpm.client.errors import (
    AnotherInstanceError,
    AstroZeroError,
    EffectNotShownError,
    UnknownEventError,
    WaitTimeoutError,
)
from airflow_provider_astrobpm.client.sameness import KnownIdentity
from airflow_provider_astrobpm.client.states import StateClass, class_of
from airflow_provider_astrobpm.task_base.base_operator import AstroZeroBaseOperator
from airflow_provider_astrobpm.task_base.deadline import (
    WaitLimits,
    alarm_as_deadline,
    repeat_after_alarm,
    seconds_until_alarm,
)
from airflow_provider_astrobpm.task_base.task_arguments import errors_name_task, is_default
from airflow_provider_astrobpm.triggers import task_instance_id
from airflow_provider_astrobpm.waiting.condition import (
    CONDITION_ARGUMENTS,
    NOT_GIVEN,
    ON_SUSPENDED,
    Outcome,
    WaitCondition,
    given_condition_arguments,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.key_form import BusinessKey
    from airflow_provider_astrobpm.triggers.base import WaitingTrigger
    from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmInstanceTrigger
    from airflow_provider_astrobpm.waiting.condition import OnSuspended
    from airflow_provider_astrobpm.waiting.wait import BaseWait, InstanceWait

T = TypeVar("T")
W = TypeVar("W", bound="BaseWait[Any]")

OnTimeout = Literal["leave", "suspend", "terminate"]
ON_TIMEOUT: tuple[OnTimeout, ...] = ("leave", "suspend", "terminate")

NO_LIMIT_MESSAGE = "Neither 'timeout' nor 'execution_timeout' is set, so this task may wait forever"

OnFailure = Literal["leave", "terminate"]
ON_FAILURE: tuple[OnFailure, ...] = ("leave", "terminate")

DEFERRABLE: bool = conf.getboolean("operators", "default_deferrable", fallback=False)
"""The default of ``deferrable``: Airflow's own."""

AIRFLOW_TIMEOUT_MARGIN = timedelta(hours=1)
"""How long after the deadline Airflow itself ends a deferral, if no triggerer has ended it."""


class WaitingOperator(AstroZeroBaseOperator):
    """Base class of a task that waits for instances.

    The wait has one deadline, and ends with the same result or the same error in every mode.

    :param states: states to wait for; by default ``Completed OK``. See ``WaitCondition``.
    :param bp_statuses: business statuses to wait for, such as ``["Approved"]``, alone or together with ``states``.
    :param failed_states: states that fail the task.
    :param failed_bp_statuses: business statuses that fail the task at once, even while the instance is open. Without
        ``bp_statuses`` any other status succeeds.
    :param on_suspended: whether the task waits until a suspended instance is resumed (``"wait"``), or the instance fails the task (``"fail"``).
    :param on_timeout: what to do with the instance at the deadline: ``"leave"``, ``"suspend"`` or ``"terminate"`` it.
    :param max_poll_failure_time: seconds for which polls may fail in a row before the task fails.
    :param deferrable: whether the task waits in the triggerer and holds no worker slot.
    """

    template_fields: Sequence[str] = (*AstroZeroBaseOperator.template_fields, *CONDITION_ARGUMENTS)
    wait_for_completion = True
    timeout: Any
    """The maximum seconds of the wait, an argument of the subclasses; ``None`` for no limit."""
    _known = KnownIdentity()
    """What was known about the instance, apart from its id, before a deferral."""
    _deferred_for: str | None = None
    """The id of the instance that was awaited at a deferral, if it was known. Unlike an XCom, it cannot be changed by others."""
    instance_url: str | None = ""
    """The address of the instance that this process has published; ``None`` after a deferral, when another process may have
    published it."""

    def __init__(
        self,
        *,
        states: Collection[str] = NOT_GIVEN,
        bp_statuses: Collection[str] = NOT_GIVEN,
        failed_states: Collection[str] = NOT_GIVEN,
        failed_bp_statuses: Collection[str] = NOT_GIVEN,
        on_suspended: OnSuspended = "wait",
        on_timeout: OnTimeout = "leave",
        max_poll_failure_time: float | timedelta = 600,
        deferrable: bool = DEFERRABLE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        with errors_name_task(self.task_id):
            asked = given_condition_arguments(
                states=states,
                bp_statuses=bp_statuses,
                failed_states=failed_states,
                failed_bp_statuses=failed_bp_statuses,
            )
            self.states = asked.get("states")
            self.bp_statuses = asked.get("bp_statuses")
            self.failed_states = asked.get("failed_states")
            self.failed_bp_statuses = asked.get("failed_bp_statuses")
            self.on_suspended = validation.choice(on_suspended, "on_suspended", ON_SUSPENDED)
            self.on_timeout = validation.choice(on_timeout, "on_timeout", ON_TIMEOUT)
            self.max_poll_failure_time = validation.seconds(max_poll_failure_time, "max_poll_failure_time")
            self.deferrable = validation.boolean(deferrable, "deferrable")
        self._provided_args = validation.provided_arguments(self, CONDITION_ARGUMENTS)

    def _refuse_unused(self, defaults: Mapping[str, Any] | None, why: str, idle: Mapping[str, Any]) -> None:
        """Refuse arguments that have no effect in this task. Values that come only from ``default_args`` are reset instead.

        :param defaults: the merged ``default_args``.
        :param why: the reason, as the end of the message.
        :param idle: the arguments, each with the value that counts as not given.
        :raises ValueError: if one of them was given to this task.
        """
        given = [name for name, neutral in idle.items() if getattr(self, name) != neutral]
        if own := [name for name in given if not is_default(defaults, name, getattr(self, name))]:
            raise ValueError(f"{', '.join(own)} {'has' if len(own) == 1 else 'have'} no effect {why}")
        for name in given:
            setattr(self, name, idle[name])
        self._provided_args -= set(given)

    def _refuse_unused_wait_arguments(self, defaults: Mapping[str, Any] | None, **idle: Any) -> None:
        """Refuse arguments that have no effect in a task that does not wait, or that has no deadline.

        :param defaults: the merged ``default_args``.
        :param idle: more arguments that have no effect without a wait.
        """
        if not self.wait_for_completion:
            of_wait = {
                **dict.fromkeys(CONDITION_ARGUMENTS),
                "on_suspended": "wait",
                "timeout": None,
                "on_timeout": "leave",
            }
            self._refuse_unused(defaults, "with wait_for_completion=False", {**of_wait, **idle})
        elif self._wait_limits.seconds is None:
            self._refuse_unused(
                defaults, "without a timeout or an execution_timeout", {"on_timeout": "leave"}
            )

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral. If Airflow itself has ended the deferral, the task ends as after any other wait.

        It is never skipped, as Airflow's own sensors would be with ``soft_fail``.
        """
        from airflow_provider_astrobpm.waiting import event_payload  # noqa: PLC0415

        arguments = dict(next_kwargs or {})
        deadline = arguments.pop("deadline", None)
        names, business_key = arguments.pop("known", None) or ((), None)
        self._known = KnownIdentity(tuple(names), business_key)
        self._deferred_for = arguments.pop("instance_id", None)
        self.instance_url = None
        self._look_up_connection()
        if event_payload.is_for_other_task_instance(arguments.get("event"), task_instance_id(context["ti"])):
            self.log.warning("Airflow has given this task the event of another one; polling instead")
            return self._poll_again(context, deadline)
        deferral_timeout, deferral_error = deferral_errors()
        try:
            return BaseOperator.resume_execution(self, next_method, arguments, context)
        except deferral_timeout:
            self.log.warning("No triggerer ended the wait at its deadline; polling once more")
            return self._poll_again(context, time.time())
        except deferral_error as error:
            failure = AstroZeroError(f"The trigger failed: {error}")
            return self.execute_complete(context, event_payload.dump(failure))

    @abstractmethod
    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Resume with the trigger's event."""

    def _look_up_connection(self) -> None:
        """Look up the connection, and retry failed lookups for ``max_poll_failure_time``.

        If all of them fail, the next use of the connection raises the error.
        """
        from airflow_provider_astrobpm.task_base.connection_lookup import look_up_connection  # noqa: PLC0415
        from airflow_provider_astrobpm.waiting.lookup import LookupWait  # noqa: PLC0415

        look_up_connection(self.hook, LookupWait(self.max_poll_failure_time), self.log)

    def _poll_again(self, context: Context, deadline: float | None) -> Any:
        """Poll once, and keep waiting if the wait has not ended yet."""
        awaited = self._new_wait(context, deadline)
        self.hook.poll_once(awaited)
        if awaited.ending is None:
            self._defer(awaited)
        return self.execute_complete(context, self._event_for(awaited))

    @property
    def _wait_limits(self) -> WaitLimits:
        return WaitLimits(self.timeout, self.execution_timeout)

    def _with_deadline(self, awaited: W, at: float | None) -> W:
        """Set the deadline of a wait that continues in this process, and return the wait.

        :param at: the deadline by ``timeout`` and ``execution_timeout``, in seconds since the epoch.
        """
        deadline = self._wait_limits.deadline(at, now=time.time(), alarm=seconds_until_alarm())
        awaited.deadline, awaited.deadline_argument = deadline
        return awaited

    def _begin_wait(self, awaited: BaseWait[Any]) -> None:
        """Begin a wait that has not ended yet: defer the task if it is deferrable."""
        if awaited.ending is not None:
            return
        if awaited.deadline is None:
            self.log.info(NO_LIMIT_MESSAGE)
        if self.deferrable:
            self._defer(awaited)

    def _wait_here(self, awaited: BaseWait[T], *, poll_interval: float) -> T:
        """Wait on this worker, and return the result of the wait or raise its error."""
        with alarm_as_deadline(awaited, connection=self.astro_zero_conn_id):
            self.hook.run_wait(awaited, poll_interval=poll_interval)
        return awaited.result()

    @abstractmethod
    def _new_wait(self, context: Context, deadline: float | None) -> BaseWait[Any]:
        """Return the wait of this task."""

    @abstractmethod
    def _trigger_for(self, awaited: Any) -> WaitingTrigger:
        """Return the trigger for a wait; without a wait, for a check before anything is started."""

    def _event_for(self, awaited: Any) -> dict[str, Any]:
        """Return the event that a trigger would fire if the wait had ended in the triggerer."""
        from airflow_provider_astrobpm.waiting import event_payload  # noqa: PLC0415

        return event_payload.dump(awaited.ended())

    def _condition(self) -> WaitCondition:
        validation.require_still_provided(self, self._provided_args)
        asked = {argument: getattr(self, argument) for argument in CONDITION_ARGUMENTS}
        return WaitCondition.of(**asked, on_suspended=self.on_suspended)

    def _check_identifiers(self, *names: str) -> None:
        """Refuse ids, keys and names that a template has rendered to nothing. ``None`` is skipped.

        A number from native rendering becomes a text again.
        """
        for name in names:
            if (value := getattr(self, name)) is not None:
                setattr(self, name, validation.identifier(value, name))

    def _warn_if_any_status_succeeds(self) -> None:
        """Warn if any business status except the failing ones succeeds."""
        failing = self._condition().only_failing_statuses
        if failing:
            self.log.warning(
                "Any business status except %s opens this gate, even a misspelt or a new one. Name those that open it with "
                "bp_statuses, such as bp_statuses=['Approved']",
                " and ".join(map(repr, sorted(failing))),
            )

    def _meets_condition(self, instance: BpmInstance) -> bool:
        """Return whether a closed instance of an earlier try meets the condition of this task.

        A cancelled instance does not, because a kill of this task may have cancelled it.
        """
        cancelled = class_of(instance.state) is StateClass.CANCELLED
        return not cancelled and self._condition().judge(instance).outcome is Outcome.DONE

    def _common_trigger_kwargs(self, awaited: BaseWait[Any] | None) -> dict[str, Any]:
        """Return the arguments that all triggers of this task have in common."""
        asked: dict[str, Any] = {
            name: sorted(validation.identifiers(value, name))
            for name in CONDITION_ARGUMENTS
            if (value := getattr(self, name)) is not None
        }
        return {
            "astro_zero_conn_id": self.astro_zero_conn_id,
            "deadline": awaited.deadline if awaited else None,
            "deadline_argument": awaited.deadline_argument if awaited else self._wait_limits.argument,
            "on_suspended": self.on_suspended,
            "max_poll_failure_time": self.max_poll_failure_time,
            **asked,
        }

    def _trigger(self, awaited: InstanceWait | None, **arguments: Any) -> AstroZeroBpmInstanceTrigger:
        """Return the trigger that continues a wait for one instance."""
        import msgspec  # noqa: PLC0415

        from airflow_provider_astrobpm.triggers.bpm import AstroZeroBpmInstanceTrigger  # noqa: PLC0415

        return AstroZeroBpmInstanceTrigger(
            seen=msgspec.to_builtins(awaited.seen) if awaited and awaited.seen else None,
            **self._common_trigger_kwargs(awaited),
            **arguments,
        )

    def _check_deferral(self) -> None:
        """If the task will defer, check that its trigger can be created and is plain JSON, before anything is started.

        A deferral with another trigger would fail with the instance already started.
        """
        if self.deferrable and self.wait_for_completion:
            json.dumps(self._trigger_for(None).serialize())

    def _defer(self, awaited: BaseWait[Any]) -> NoReturn:
        backstop = None
        if awaited.deadline is not None:
            backstop = timedelta(seconds=max(0.0, awaited.deadline - time.time())) + AIRFLOW_TIMEOUT_MARGIN
        self.defer(
            trigger=self._trigger_for(awaited),
            method_name="execute_complete",
            kwargs={
                "deadline": awaited.deadline,
                "known": [[*awaited.known.names], awaited.known.business_key],
                "instance_id": getattr(awaited, "instance_id", None),  # a batch publishes its ids in XComs
            },
            timeout=backstop,
        )

    def _instance_in_event(
        self, event: object, instance_id: str | None, key: BusinessKey | None = None
    ) -> BpmInstance:
        """Return the instance in a trigger's event if it meets the condition, or raise the error of the wait.

        :param instance_id: the id that the instance must have, if known.
        :param key: otherwise, the business key that it must have.
        :raises UnknownEventError: if the event is not one of a trigger, is about another instance than the awaited one, or reports
            an instance that does not meet the condition.
        :raises AnotherInstanceError: if the event reports another instance under the same id.
        """
        from airflow_provider_astrobpm.waiting import event_payload as events  # noqa: PLC0415

        ending = events.load(event)
        if isinstance(ending, AnotherInstanceError):
            raise ending
        instance: BpmInstance | None = (
            getattr(ending, "instance", None) if isinstance(ending, Exception) else ending
        )
        if instance is not None:
            if instance_id is not None and instance.id != instance_id:
                raise UnknownEventError(event, f"it reports another instance than {instance_id!r}")
            if instance_id is None and key is None:
                raise UnknownEventError(event, "it is unknown which instance this task waits for")
            if instance_id is None and key is not None and not key.may_identify(instance):
                raise UnknownEventError(event, f"it reports another instance than one with {key}")
        if isinstance(ending, Exception):
            raise ending
        if not self._known.matches(ending):
            raise AnotherInstanceError(ending, self._known)
        if self._condition().judge(ending).outcome is not Outcome.DONE:
            raise UnknownEventError(
                event, "it reports a success that does not meet the condition of this task"
            )
        return ending

    def _apply_on_timeout(self, error: WaitTimeoutError, instance_id: str | None) -> BpmInstance:
        """Apply ``on_timeout``, and raise the error with the outcome of that action.

        :returns: the instance, if it has met the condition at the last moment.
        """
        action = self.on_timeout
        if action == "leave" or instance_id is None:
            raise error
        try:
            known, last_state = self._known, None
            if (seen := error.instance) is not None:
                known, last_state = known.updated_from(seen), seen.state
            change = repeat_after_alarm(
                lambda: self.hook.change_state(instance_id, action, known=known, last_state=last_state)
            )
        except Exception as failure:  # noqa: BLE001 - the connection itself may be gone
            words = failure if isinstance(failure, AstroZeroError) else f"{type(failure).__name__}."
            if isinstance(failure, EffectNotShownError):
                error.instance = failure.instance
            error.advice = f"By 'on_timeout' {action!r} was tried. {words}"
            raise error from None
        # Only success, which the action cannot cause: terminating must not meet a wait for "Terminated".
        succeeded = class_of(change.instance.state) is StateClass.SUCCEEDED
        if succeeded and self._condition().judge(change.instance).outcome is Outcome.DONE:
            return change.instance
        error.instance = change.instance
        error.advice = f"By 'on_timeout': {change.note}."
        raise error
