"""The switches that make an emulator behave like the environment in a report of the doctor.

A finding that the report leaves open, or that no position shows, leaves its switch at the default.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.emulator.switches import SwitchError, Switches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from airflow_provider_astrobpm.emulator.emulator_state import EmulatorSettings

_HONOURED = {"honoured": True, "ignored": False}
_REPEATED = {"refused": "refuse", "accepted": "accept"}

# For each switch: the findings that show it, and the position for each of their values.
_SHOWN_BY: Mapping[str, tuple[tuple[str, ...], Mapping[Any, Any]]] = {
    "get_by_id": (
        ("get_by_id",),
        {"absent": "absent", "not allowed": "not_allowed", "action": "action", "row": "row"},
    ),
    "get_variables": (("get_variables",), {"absent": "absent", "map": "map"}),
    "unknown_state": (("unknown_state",), {"refused": "refuse", "empty": "empty"}),
    "unknown_field": (("unknown_field",), {"refused": "refuse", "ignored": "ignore"}),
    "row_order": (
        ("own_order",),
        {"newest first": "newest", "oldest first": "oldest", "other": "shuffled"},
    ),
    "fields_honoured": (("fields",), _HONOURED),
    "order_honoured": (("order",), _HONOURED),
    "business_keys_in_rows": (("business_keys",), {"carried": True, "not carried": False}),
    "key_form": (
        ("long_key",),
        {
            "as sent": "as_sent",
            "cut at 50": "cut_50",
            "cut at 20": "cut_20",
            "upper case": "upper",
            "padded": "padded",
            "prefixed": "prefixed",
        },
    ),
    "see_others": (("others",), {"seen": True, "none seen": False}),
    "keep_closed": (("ended",), {"kept": True, "gone": False}),
    "terminate_state": (
        ("terminate",),
        {"Terminated": "Terminated", "User Terminated": "User Terminated"},
    ),
    "suspend_state": (
        ("suspend",),
        {"flag": "unchanged", "flag and state": "Suspended", "state": "state_only"},
    ),
    "closed_flag": (("closed_flag",), {"true": "on_close", "false": "never"}),
    "acting_twice": (("suspend_twice", "resume_twice", "terminate_twice"), _REPEATED),
    "acting_on_closed": (("suspend_ended", "variables_of_ended"), _REPEATED),
    "duplicate_business_key": (("duplicate_key",), {"started": "accept", "refused": "refuse"}),
    "refused_token_start": (
        ("refused_token_start",),
        {"not started": "nothing", "started": "started"},
    ),
    "unknown_variables_at_start": (
        ("unknown_variable_at_start",),
        {"ignored": "ignore", "refused": "refuse"},
    ),
    "refusal_status": (
        ("refusal",),
        {"HTTP 400": 400, "HTTP 404": 404, "HTTP 500": 500, "HTTP 200": 200},
    ),
    "bad_token": (
        ("bad_token",),
        {
            "HTTP 401, resCode 405230602": "401",
            "HTTP 401, text/html": "401_html",
            "HTTP 400, resCode 405230602": "400_602",
            "HTTP 403, resCode 405230603": "403_603",
            "HTTP 200, resCode 405230602": "200_602",
            "HTTP 403, resCode 405230070": "403",
            "HTTP 403, text/html": "403_html",
            "HTTP 500, resCode 405230602": "500_602",
        },
    ),
    "token_body": (("token_request",), {"form": "form", "json": "json", "both": "both"}),
    "concurrent_tokens": (("older_tokens",), {"kept": True, "replaced": False}),
    "csrf_required": (("csrf",), {"needed": True, "not needed": False}),
    "csrf_method": (("csrf_method",), {"POST and GET": "both", "POST": "post", "GET": "get"}),
    "content_type_required": (("content_type",), {"needed": True, "not needed": False}),
    "plus_is_blank": (("plus",), {"yes": True, "no": False}),
    "success_message": (("success_message",), {"Success": "Success", "成功": "成功"}),
}

# What the emulator shows at the points that no switch changes.
_ALWAYS: Mapping[str, str] = {
    "start": "started",
    "definitions": "yes",
    "instances": "all",
    "unknown_variable": "ignored",
}
_OF_ENDED = frozenset({"terminate_twice", "suspend_ended", "variables_of_ended"})
_EXPIRES_IN: Mapping[Any, str] = {"not said": "absent", "unusable": "words"}
_TIMESTAMPS: Mapping[Any, Mapping[str, Any]] = {
    "documented": {"start_time_form": "documented"},
    "unreadable": {"start_time_form": "slashes"},
    "implausible": {"clock_skew": -1000.0},  # hours; no zone is that far from UTC
}
_UNSORTED: Mapping[Any, Mapping[str, Any]] = {
    "unreadable": {"start_time_form": "dash"},
    "implausible": {"start_time_form": "zero", "clock_skew": 0.0},
}
_MAX_CLOCK_SECONDS = 5
_HOW_TO = "write one with: airflow astro-zero doctor --output json"


class ReportError(ValueError):
    """A file is not a report of the doctor; the message says why."""


@dataclass(frozen=True)
class Likeness:
    """What a report says about an environment, as far as an emulator can do the same.

    :param switches: the switches, in the positions that the report shows.
    :param token_lifetime: seconds that a token is valid; ``None`` if the report does not say it.
    :param unspecified: the switches that are at their default because the report does not show their position.
    :param unlike: what the report shows and the emulator cannot do, one sentence each.
    """

    switches: Switches
    token_lifetime: int | None
    unspecified: tuple[str, ...]
    unlike: tuple[str, ...]

    def applied_to(self, settings: EmulatorSettings) -> EmulatorSettings:
        """Return settings with the switches and the token lifetime of the report."""
        lifetime = self.token_lifetime or settings.token_lifetime
        return dataclasses.replace(settings, switches=self.switches, token_lifetime=lifetime)

    def lines(self) -> list[str]:
        """Return what may differ from the environment in the report, as lines for a person."""
        unspecified = (
            [f"Not in the report, so at the default: {', '.join(self.unspecified)}"]
            if self.unspecified
            else []
        )
        return unspecified + [f"Unlike the report: {each}" for each in self.unlike]


def read_report(path: Path) -> Likeness:
    """Read a report that ``doctor --output json`` has written.

    :raises ReportError: if the file cannot be read or is not such a report, or if that run got no token.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        values = {str(point["name"]): point["value"] for point in report["points"]}
        signed_in = report["signed_in"]
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError):
        raise ReportError(f"{path} is not a report of the doctor; {_HOW_TO}") from None
    if not signed_in:
        raise ReportError(f"the run of the doctor in {path} got no token, so its report says nothing")
    return likeness(values)


def likeness(values: Mapping[str, Any]) -> Likeness:
    """Return the switches that show the same findings.

    :param values: the value of each finding; ``None`` if it is unknown.
    :raises ReportError: for a value that the doctor never finds.
    """
    try:
        return _likeness(values)
    except (SwitchError, TypeError, OverflowError) as error:
        raise ReportError(f"the report has a value that the doctor never finds: {error}") from None


def _likeness(values: Mapping[str, Any]) -> Likeness:
    known: dict[str, Any] = {
        name: value for name, value in values.items() if isinstance(value, (str, int, float))
    }
    if known.get("ended") == "gone":  # what is gone refuses everything
        known = {name: value for name, value in known.items() if name not in _OF_ENDED}
    positions: dict[str, Any] = {}
    unlike: dict[str, list[str]] = {}
    for switch, (findings, table) in _SHOWN_BY.items():
        shown = [name for name in findings if name in known]
        found = {table.get(known[name]) for name in shown}
        if len(found) == 1 and None not in found:
            positions[switch] = found.pop()
        elif shown:
            unlike[switch] = shown
    for switch, findings, derive in _DERIVED:
        if all(name in known for name in findings):
            derived = derive(*(known[name] for name in findings))
            positions |= derived
            unlike |= {} if derived else {switch: list(findings)}
    unlike |= {name: [name] for name, value in _ALWAYS.items() if known.get(name, value) != value}
    if abs(known.get("clock", 0)) > _MAX_CLOCK_SECONDS:
        unlike["clock"] = ["clock"]
    if "order" not in known:  # the forms by which the doctor cannot sort
        positions |= _UNSORTED.get(known.get("start_time"), {})
    switches = Switches().changed(**positions)
    lifetime = known.get("token_lifetime")
    return Likeness(
        switches,
        None if lifetime is None or isinstance(lifetime, str) else int(lifetime),
        tuple(name for name in switches.positions() if name not in positions and name not in unlike),
        tuple(", ".join(f"{name} is {known[name]!r}" for name in names) for names in unlike.values()),
    )


def _several_states(with_commas: str, repeated: str) -> dict[str, Any]:
    if "honoured" in {with_commas, repeated}:
        return {"several_states": "comma" if with_commas == "honoured" else "repeated"}
    both = {"first only": "first", "refused": "refuse"}
    known = with_commas == repeated and with_commas in both
    return {"several_states": both[with_commas]} if known else {}


def _lag(seconds: float) -> float:
    return 0.0 if seconds < 1 else seconds  # the first poll is never quite at once


# The switch, the findings that show it, and how the positions follow from their values: none if no position shows them.
_DERIVED: tuple[tuple[str, tuple[str, ...], Callable[..., Mapping[str, Any]]], ...] = (
    ("several_states", ("states_with_commas", "states_repeated"), _several_states),
    ("row_cap", ("row_cap",), lambda cap: {"row_cap": None if cap == "none seen" else cap}),
    ("start_lag", ("start_lag",), lambda seconds: {"start_lag": _lag(seconds)}),
    ("action_lag", ("action_lag",), lambda seconds: {"action_lag": _lag(seconds)}),
    ("expires_in", ("token_lifetime",), lambda value: {"expires_in": _EXPIRES_IN.get(value, "number")}),
    ("utc_offset", ("timezone",), lambda hours: {"utc_offset": hours}),
    ("start_time_form", ("start_time",), lambda value: _TIMESTAMPS.get(value, {})),
)
