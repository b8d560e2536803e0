"""The points of a report: each is one thing that no document says, and what this endpoint does there."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_astrobpm.doctor.observation import Observation

READ_ONLY_FINDINGS: Mapping[str, str] = MappingProxyType(
    {
        "connection": "whether the endpoint is reached and answers",
        "token_request": "in which encoding the token endpoint takes the client id and the secret",
        "token_lifetime": "seconds for which a token is good, by its expires_in",
        "older_tokens": "whether a token stays good when the same client requests another",
        "bad_token": "how a token that is wrong is reported",
        "clock": "seconds by which the server's clock is ahead of this machine's",
        "success_message": "the resMsg of a success; this provider never looks at it",
        "definitions": "whether the token may list BPM definitions",
        "instances": "in which states the token may list instances, and how many it shows",
        "fields": "whether fields= limits the columns of a list",
        "order": "whether orderField= and orderType= order a list",
        "own_order": "what comes first where no order is asked for",
        "row_cap": "how many rows a list holds at most, where answers show it",
        "business_keys": "whether the rows of a list carry the business keys",
        "others": "whether instances that somebody else created show",
        "ended": "whether instances that have ended still show",
        "get_by_id": "what GET /instances/{id} answers",
        "get_variables": "what GET /instances/{id}/variables answers",
        "refusal": "how a refusal is reported",
        "unknown_state": "what a list of a state that does not exist is",
        "unknown_field": "what a column that does not exist does",
        "states_with_commas": "what several states in one parameter do",
        "states_repeated": "what the parameter states does when it is repeated",
        "plus": "whether + in a query stands for a blank",
        "content_type": "whether a GET needs the header Content-Type",
        "timezone": "the zone of the timestamps",
    }
)
"""What a run that changes nothing tells of. The time zone it can tell with --start only."""

START_FINDINGS: Mapping[str, str] = MappingProxyType(
    {
        "start": "whether the named process can be started",
        "csrf": "whether a write needs a CSRF token",
        "csrf_method": "by which method a CSRF token is fetched",
        "unknown_variable_at_start": "what a variable that the process does not have does in a start",
        "start_lag": "seconds after which the new instance showed in the lists",
        "long_key": "how a business key as long and as mixed as that of a task comes back",
        "start_time": "whether startTime is in the documented format and can be true by this machine's clock",
        "unknown_variable": "what a variable that the process does not have does in PUT /variables",
        "duplicate_key": "what a second start with the same business key does",
        "suspend": "what suspending changes",
        "action_lag": "seconds after which a suspension that was accepted showed",
        "suspend_twice": "what suspending a suspended instance does",
        "resume": "what resuming changes",
        "resume_twice": "what resuming a running instance does",
        "terminate": "the state after terminating",
        "closed_flag": "whether isClosed is true then",
        "terminate_twice": "what terminating a terminated instance does",
        "suspend_ended": "what suspending an instance that has ended does",
        "variables_of_ended": "what setting a variable of an instance that has ended does",
        "refused_token_start": "whether a start whose token is refused starts an instance all the same",
    }
)
"""What --start tells of as well."""

DESCRIPTIONS: Mapping[str, str] = MappingProxyType({**READ_ONLY_FINDINGS, **START_FINDINGS})


@dataclass(frozen=True)
class Finding:
    """What the endpoint does at one point.

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
        return cls(name, None, f"could not be told: {reason}", None, tuple(each.line for each in seen))
