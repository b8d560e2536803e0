"""The exceptions of this provider.

::

    AstroZeroError
      SettingsError, also a ValueError: the connection cannot be used
      CallError: one call of the API failed
        NotSentError: the request did not reach the server
          TlsError: the TLS handshake failed
        PreparationError: a wait could not read its connection or its batch
        InterruptedCallError: the request was sent, and no complete answer came
        ThrottledError: HTTP 429
        ServerError: HTTP 5xx
        AuthenticationError: the credentials were refused
        TokenRefusedError: a token that was just issued was refused
        RefusedError: the server refused the request
        UnexpectedAnswerError: the answer is not what the API documents
      AmbiguousStartError: it is unknown whether an instance was started
      OpenInstanceExistsError: an open instance has the business key, and ``if_open_instance_exists="fail"``
      InstanceNotFoundError: the instance is in none of the states
      AnotherInstanceError: the id belongs to another instance now
      SeveralInstancesError: several instances have the business key
      NoInstancesError: a query found nothing, and ``if_none="fail"``
      KeysNotShownError: the lists show no business keys
      InstanceClosedError: the instance has already ended, and ``if_closed="fail"``
      EffectNotShownError: an accepted action has no visible effect in time
      WaitFailedError: the instance ended, or entered a state, that the wait does not accept
      WaitTimeoutError: the wait timed out
      BatchChangedError: the launches of a batch changed between two tries
      BatchFailedError: too many launches of a batch failed
      UnknownVariablesError, also a ValueError: the BPM has no such variable
      UnknownEventError: the task does not understand its trigger's event

The root is a plain ``Exception``, not an ``AirflowException``. A sensor with ``soft_fail`` turns an ``AirflowException`` into
a skip in one mode and not in the other, and a real failure must never be reported as a skip.

Each error of a call says what was attempted, on which connection, what the server said, and what to do next. No error ever
contains a secret or a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.client.moment import utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_astrobpm.client.instance import BpmInstance

MAX_EVENT_CHARS = 500  # characters of an unknown event that an error shows


class AstroZeroError(Exception):
    """The base class of all errors of this provider.

    :param problem: what went wrong, a sentence without its full stop.
    :param status: the HTTP status of the answer, if there was one.
    :param res_code: the platform's ``resCode`` (or the OAuth ``error``), if the answer had one.
    :param res_msg: the platform's ``resMsg`` (or the OAuth ``error_description``).
    """

    advice = ""
    """What the user can do about it."""

    def __init__(
        self,
        problem: str,
        *,
        status: int | None = None,
        res_code: str | None = None,
        res_msg: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.status = status
        self.res_code = res_code
        self.res_msg = res_msg
        self.attempt: str | None = None
        self.connection: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self), self.args), self.__dict__

    def _take_answer(self, call: CallError) -> None:
        """Take over what the server said in answer to a call."""
        self.status, self.res_code, self.res_msg = call.status, call.res_code, call.res_msg

    def add_context(self, attempt: str, connection: str) -> None:
        """Add what was attempted and on which connection, unless an inner call has already set it."""
        self.attempt = self.attempt or attempt
        self.connection = self.connection or connection

    def __str__(self) -> str:
        what = f"could not {self.attempt}" if self.attempt else ""
        where = f"on connection {self.connection!r}" if self.connection else ""
        lead = " ".join(filter(None, (what, where)))
        sentence = f"{lead[0].upper()}{lead[1:]}: {self.problem}" if lead else self.problem
        said = [
            f"HTTP {self.status}" if self.status is not None else "",
            f"resCode {self.res_code!r}" if self.res_code is not None else "",
            f"resMsg {self.res_msg!r}" if self.res_msg else "",
        ]
        if answer := ", ".join(filter(None, said)):
            sentence += f" ({answer})"
        return f"{sentence}{'' if sentence.endswith('?') else '.'} {self.advice}".rstrip()


def _unpickled(kind: type[AstroZeroError], arguments: tuple[Any, ...]) -> AstroZeroError:
    """Recreate a pickled error without calling its constructor."""
    return kind.__new__(kind, *arguments)


class SettingsError(AstroZeroError, ValueError):
    """The connection has invalid or missing settings. Nothing was sent."""

    def __init__(self, problem: str, connection: str) -> None:
        super().__init__(f"Connection {connection!r} cannot be used: {problem}")


class CallError(AstroZeroError):
    """One call of the API failed."""

    was_processed: bool | None = None
    """``False`` if the server certainly did not act on the request, ``None`` if that is unknown."""
    failed_fetching_token = False
    """Whether fetching the token failed, not the call itself. All attempts are used up then."""
    never_reached = False
    """Whether the request provably did not reach the server in any attempt. A refusal is no such proof: a server or gateway may
    refuse a request after acting on it."""
    earlier_attempt_in_doubt = False
    """Whether the server may have acted on an earlier attempt of the same call."""
    earlier_attempt_sent = False
    """Whether an earlier attempt of the same call may have reached the server."""
    is_transient = False
    """Whether the same request is likely to succeed a little later."""
    is_malformed = False
    """Whether the server sent a successful answer that is malformed. Gateways do so occasionally."""
    retry_after: str | None = None
    """The server's ``Retry-After`` header, unparsed."""

    @property
    def may_have_been_processed(self) -> bool:
        """Whether the server may have acted on the call, in this attempt or an earlier one."""
        return self.was_processed is None or self.earlier_attempt_in_doubt


class NotSentError(CallError):
    """The request never reached the server: connection refused, host name not resolved, or connect timeout."""

    was_processed = False
    never_reached = True
    is_transient = True
    advice = "Check the host, port and proxy of the connection, and whether the server is running."


class PreparationError(CallError):
    """A wait could not read its connection or the instances of its batch, so it could not poll."""

    was_processed = False
    is_transient = True
    advice = (
        "Check that the connection exists, and that Airflow's database and secrets backend are available."
    )


class TlsError(NotSentError):
    """The TLS handshake failed, so no request was sent."""

    is_transient = False
    advice = (
        "Check the server's certificate and the extras 'verify' (a CA bundle for a private CA), 'client_cert' "
        "and 'client_key'. If the server speaks plain http, set the scheme to http."
    )


class InterruptedCallError(CallError):
    """The request was sent, but no complete answer came back: read timeout, reset, or truncated body."""

    is_transient = True
    timed_out = False
    """Whether the client stopped waiting for the answer, and the connection was still there."""
    advice = "It is unknown whether the server acted on the request."


class ThrottledError(CallError):
    """The server asks for fewer requests (HTTP 429)."""

    was_processed = False
    is_transient = True
    advice = (
        "Reduce the number of tasks that call it at the same time, or raise 'max_attempts' and 'max_wait'."
    )


class ServerError(CallError):
    """The server failed (HTTP 5xx). It is unknown whether it acted first."""

    is_transient = True
    advice = "If this persists, check the server's own logs."


class AuthenticationError(CallError):
    """The token endpoint refused the client id or secret, or the server refused the connection's ``access_token``."""

    was_processed = False
    advice = (
        "Check the login (client id) and password (client secret) of the connection, or its 'access_token', and the "
        "login IP range of the machine user."
    )


class TokenRefusedError(CallError):
    """The server refused a token that it had just issued. Another process may have requested a token in the meantime."""

    was_processed = False
    is_transient = True
    advice = (
        "Another process may be requesting tokens for the same client id. That is temporary; give Airflow an OAuth client of its own. "
        "If this persists, check the permissions and the login IP range of the machine user."
    )


class RefusedError(CallError):
    """The server understood the request and refused it."""

    was_processed = False
    advice = "Check names, versions and ids, and the permissions of the machine user."


class UnexpectedAnswerError(CallError):
    """The answer is not what the API documents: not JSON, another shape, a redirect, or too long."""

    is_malformed = True  # except for a redirect, an answer that is too long, and any status other than 2xx
    advice = "Check that the connection's host is an Astro Zero environment, and that no gateway answers in its place."


class AmbiguousStartError(AstroZeroError):
    """It is unknown whether an instance was started. Starting again could create a second one.

    :param doubt: how the call ended, or another reason for the doubt, as a sentence without its full stop.
    :param business_key: the business key of the instance, if the instance exists.
    :param advice: what to do; by default, to find that instance.
    """

    failed_call: CallError | None
    """The call whose failure caused the doubt; ``None`` if the answers themselves leave a doubt."""

    def __init__(self, doubt: CallError | str, business_key: str | None, advice: str | None = None) -> None:
        super().__init__(doubt.problem if isinstance(doubt, CallError) else doubt)
        self.failed_call = doubt if isinstance(doubt, CallError) else None
        if isinstance(doubt, CallError):
            self._take_answer(doubt)
            self.attempt, self.connection = doubt.attempt, doubt.connection
        self.business_key = business_key
        sign = (
            f"business key {business_key!r}"
            if business_key
            else "this BPM name and approximately this start time"
        )
        self.advice = advice or (
            "The instance may or may not have been started, so it was not started again. Search Astro Zero for an instance "
            f"with {sign}. If there is one, terminate it, or wait for it with the sensor. Then clear this task."
        )


class OpenInstanceExistsError(AstroZeroError):
    """An open instance already has the business key, and ``if_open_instance_exists`` is ``"fail"``."""

    advice = (
        "Nothing was started. Wait until that instance has ended, or terminate it. Or set if_open_instance_exists to "
        '"adopt" to wait for it, or to "start" to start another one anyway.'
    )

    def __init__(self, instance: BpmInstance) -> None:
        self.instance = instance
        super().__init__(f"an open instance already has business key {instance.business_key!r}: {instance}")


class InstanceNotFoundError(AstroZeroError):
    """The instance is in none of the states, even after all of them were listed twice.

    :param sought: what was searched for, such as ``instance '002N…'``.
    :param most_rows: the length of the longest list that was searched.
    :param refusal: the refused call that led to the search, if there was one.
    """

    advice = "It may have been deleted or archived, or hidden from the machine user. This does not count as success."

    def __init__(self, sought: str, *, most_rows: int = 0, refusal: CallError | None = None) -> None:
        self.sought, self.most_rows = sought, most_rows
        capped = (
            f"; the longest list had {most_rows} rows, so a row cap may hide it" if most_rows >= 100 else ""
        )
        super().__init__(f"{sought} is in none of the states{capped}")
        if refusal is not None:
            self._take_answer(refusal)


class AnotherInstanceError(AstroZeroError):
    """An id now belongs to another instance than the one that was seen before or that the task started.

    :param instance: the instance that has the id now.
    :param known: what is known about the expected instance, in words.
    """

    advice = (
        "Ids can repeat after an environment was cloned or restored from a backup. Find the instance in Astro Zero "
        "by its business key."
    )

    def __init__(self, instance: BpmInstance, known: object) -> None:
        super().__init__(
            f"instance {instance.id!r} is not the same as before: it was {known}, and now it is {instance}, with "
            f"business key {instance.business_key!r}"
        )


class SeveralInstancesError(AstroZeroError):
    """Several instances have the business key, so it is ambiguous."""

    advice = "Pass the instance_id of the one you mean, or narrow the search with bpm_name."

    def __init__(self, sought: str, instances: Sequence[BpmInstance]) -> None:
        self.instances = tuple(instances)
        listing = ", ".join(f"{one.id} ({one.name}, {one.state})" for one in instances[:10])
        super().__init__(f"{len(instances)} instances have {sought}: {listing}")


class NoInstancesError(AstroZeroError):
    """A query found no instance, and ``if_none`` is ``"fail"``.

    :param states: the states that were listed.
    :param wanted: the other criteria, in words.
    """

    advice = 'Set if_none to "succeed" or "skip" if that is acceptable.'

    def __init__(self, states: Sequence[str], wanted: str) -> None:
        also = f" with {wanted}" if wanted else ""
        super().__init__(f"no instance{also} was found in the states {', '.join(map(repr, states))}")


class KeysNotShownError(AstroZeroError):
    """A search by business key cannot work, because no listed row shows a business key.

    :param business_key: the key that was searched for.
    :param bpm_name: the BPM's name, if only its instances count.
    :param rows: how many instances were listed.
    """

    advice = (
        "Either the lists of this environment show no business keys (see 'business_keys' in the doctor's report), or no instance "
        "has one yet. Use the instance_id instead, which the start operator returns, or list by bpm_name."
    )

    def __init__(self, business_key: str, bpm_name: str | None, rows: int) -> None:
        of = f" of BPM {bpm_name!r}" if bpm_name else ""
        super().__init__(
            f"cannot search for business key {business_key!r}{of}: none of the {rows} listed instances shows a business key"
        )


class InstanceClosedError(AstroZeroError):
    """The instance has already ended, and ``if_closed`` is ``"fail"``."""

    advice = 'Set if_closed to "succeed" if an ended instance is acceptable.'

    def __init__(self, instance: BpmInstance) -> None:
        self.instance = instance
        super().__init__(
            f"instance {instance.id!r} of {instance.name!r} has already ended, in state {instance.state!r}"
        )


class EffectNotShownError(AstroZeroError):
    """An action was accepted, but the instance does not show its effect in time.

    :param instance_id: the instance's id.
    :param action: the action.
    :param seen: what was accepted and how the instance is now, as the end of a sentence.
    :param instance: the instance as last seen.
    """

    advice = (
        "Astro Zero may still be working on it, so check the instance. A retry checks again, and repeats the action if it still "
        "has no effect. The extra 'start_grace' of the connection sets how long a task checks."
    )

    def __init__(self, instance_id: str, action: str, seen: str, instance: BpmInstance) -> None:
        self.instance = instance
        super().__init__(f"{action} of instance {instance_id!r} was {seen}")


class WaitFailedError(AstroZeroError):
    """The instance ended, or entered a state, that the wait does not accept."""

    def __init__(self, instance: BpmInstance, reason: str) -> None:
        self.instance = instance
        super().__init__(f"The wait for instance {instance.id!r} of {instance.name!r} failed: {reason}")


class WaitTimeoutError(AstroZeroError):
    """The deadline passed before the condition was met.

    :param sought: what the wait was for, such as ``instance '002N…'``.
    :param deadline: the deadline, in seconds since the epoch.
    :param instance: the instance as last seen, if it was seen.
    :param argument: the argument that set the deadline.
    """

    def __init__(
        self, sought: str, deadline: float, instance: BpmInstance | None, *, argument: str = "timeout"
    ) -> None:
        self.instance = instance
        self.argument = argument
        last = f"last seen: {instance}" if instance else "it was never seen"
        super().__init__(f"The wait for {sought} timed out at {utc(deadline)} ({argument!r}); {last}")


class BatchChangedError(AstroZeroError):
    """The launches of a batch differ from those that an earlier try started.

    :param difference: what differs, in words.
    """

    advice = "No launch was replaced. Restore the original launches of the batch, in their original order, and retry."

    def __init__(self, difference: str) -> None:
        super().__init__(f"The batch has changed since an earlier try started it: {difference}")


class BatchFailedError(AstroZeroError):
    """More launches of a batch failed than the limit allows."""


class UnknownVariablesError(AstroZeroError, ValueError):
    """The definition of a BPM lists its variables, and some of the given names are not among them. Nothing was changed.

    :param bpm: the BPM and its version, in words.
    :param unknown: the unknown names, each with the most similar known name, if there is one.
    :param known: the known names.
    """

    def __init__(self, bpm: str, unknown: Mapping[str, str | None], known: Iterable[str]) -> None:
        self.unknown = dict(unknown)
        self.known = tuple(known)
        names = ", ".join(
            repr(name) + (f" (did you mean {nearest!r}?)" if nearest else "")
            for name, nearest in self.unknown.items()
        )
        self.advice = (
            "Nothing was changed. Astro Zero silently ignores unknown names. "
            f"The variables of the BPM are {', '.join(map(repr, self.known))}."
        )
        super().__init__(f"{bpm} has no variable {names}")


class UnknownEventError(AstroZeroError):
    """The task does not understand its trigger's event, so it cannot succeed.

    :param event: the event.
    :param reason: what is wrong with it.
    """

    advice = "Triggerer and worker may run different versions of this provider. Install the same version, then clear the task."

    def __init__(self, event: object, reason: str) -> None:
        try:
            arrived = repr(event)
        except (RecursionError, ValueError):  # nested too deeply, or a number with too many digits
            arrived = f"a {type(event).__name__} that cannot be shown"
        shown = arrived if len(arrived) <= MAX_EVENT_CHARS else f"{arrived[:MAX_EVENT_CHARS]}…"
        super().__init__(f"The task does not understand its trigger's event ({reason}): {shown}")
