"""The findings of a report. Each answers one question that the API reference leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airflow_provider_astrobpm.doctor.observation import Observation

READ_ONLY_FINDINGS: Mapping[str, str] = {
    "connection": "whether the endpoint can be reached and answers",
    "token_request": "which encoding of the client id and secret the token endpoint accepts",
    "token_lifetime": "the lifetime of a token in seconds, from expires_in",
    "older_tokens": "whether a token stays valid after the same client requests another",
    "bad_token": "how a wrong token is reported",
    "clock": "by how many seconds the server's clock is ahead of this machine's",
    "success_message": "the resMsg of a success, which this provider ignores",
    "definitions": "whether the token may list BPM definitions",
    "instances": "in which states the token may list instances, and how many are visible",
    "fields": "whether fields= limits the columns of a list",
    "order": "whether orderField= and orderType= sort a list",
    "own_order": "how a list is sorted if no order is requested",
    "row_cap": "the maximum number of rows in a list, if answers show it",
    "business_keys": "whether the rows of a list show business keys",
    "others": "whether instances created by other users are visible",
    "ended": "whether instances that have ended are still visible",
    "get_by_id": "what GET /instances/{id} returns",
    "get_variables": "what GET /instances/{id}/variables returns",
    "refusal": "how a refusal is reported",
    "unknown_state": "what a list for a nonexistent state returns",
    "unknown_field": "what a nonexistent column in fields= does",
    "states_with_commas": "how several comma-separated states in one parameter are handled",
    "states_repeated": "how a repeated parameter states is handled",
    "plus": "whether + in a query means a space",
    "content_type": "whether a GET needs the header Content-Type",
    "timezone": "the time zone of the timestamps",
}
"""The findings of every run, with descriptions. ``timezone`` is known only with ``--start``."""

START_FINDINGS: Mapping[str, str] = {
    "start": "whether the given process can be started",
    "csrf": "whether a write needs a CSRF token",
    "csrf_method": "which HTTP method fetches a CSRF token",
    "unknown_variable_at_start": "how a start handles a variable that the process does not have",
    "start_lag": "seconds until the new instance was visible in the lists",
    "long_key": "how a business key as long and as mixed as a task's is returned",
    "start_time": "whether startTime has the documented format and is plausible by this machine's clock",
    "unknown_variable": "how PUT /variables handles a variable that the process does not have",
    "duplicate_key": "what a second start with the same business key does",
    "suspend": "what suspending changes",
    "action_lag": "seconds until an accepted suspension was visible",
    "suspend_twice": "what suspending a suspended instance does",
    "resume": "what resuming changes",
    "resume_twice": "what resuming a running instance does",
    "terminate": "the state after terminating",
    "closed_flag": "whether isClosed is true after terminating",
    "terminate_twice": "what terminating a terminated instance does",
    "suspend_ended": "what suspending an ended instance does",
    "variables_of_ended": "what setting a variable of an ended instance does",
    "refused_token_start": "whether a start whose token is refused starts an instance anyway",
}
"""The additional findings of a run with ``--start``."""

DESCRIPTIONS: Mapping[str, str] = {**READ_ONLY_FINDINGS, **START_FINDINGS}


@dataclass(frozen=True)
class Finding:
    """How the endpoint behaves at one point.

    :param name: the name of the point, a key of ``DESCRIPTIONS``.
    :param value: what was found, as one word or number; ``None`` if it is unknown.
    :param sentence: the same as a sentence, or the reason why it is unknown.
    :param fine: whether this provider works well with it; ``None`` if it is unknown.
    :param evidence: the requests and their answers, one line each, without secrets.
    """

    name: str
    value: str | float | None
    sentence: str
    fine: bool | None
    evidence: tuple[str, ...] = ()

    @classmethod
    def known(
        cls, name: str, value: str | float, sentence: str, *seen: Observation, fine: bool = True
    ) -> Finding:
        """Return a finding that the observations prove."""
        return cls(name, value, sentence, fine, tuple(each.line for each in seen))

    @classmethod
    def unknown(cls, name: str, reason: str, *seen: Observation) -> Finding:
        """Return a finding that the observations leave open, with the reason."""
        return cls(name, None, f"unknown: {reason}", None, tuple(each.line for each in seen))


def all_unknown(names: Iterable[str], reason: str, *seen: Observation) -> Iterator[Finding]:
    """Yield findings that are unknown for the same reason."""
    return (Finding.unknown(name, reason, *seen) for name in names)
