"""The findings that are correct for an emulator, given the positions of all its switches. Pure.

Each finding has its true values, with their marks, and whether it may be unknown: one switch may hide the effect of another,
but a wrong value is never acceptable. The emulator has the instances of the fixture ``populate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_astrobpm.doctor.findings import Finding
from airflow_provider_astrobpm.doctor.started_instances import POLL_SECONDS

GRACE = 60  # seconds of the connection's ``start_grace``
ZONES = 14  # maximum offset from UTC in hours
OTHERS = 5  # instances of another user, without those that a test adds

BAD_TOKENS = {
    "401": "HTTP 401, resCode 405230602",
    "401_html": "HTTP 401, text/html",
    "400_602": "HTTP 400, resCode 405230602",
    "403_603": "HTTP 403, resCode 405230603",
    "200_602": "HTTP 200, resCode 405230602",
    "403": "HTTP 403, resCode 405230070",
    "403_html": "HTTP 403, text/html",
    "500_602": "HTTP 500, resCode 405230602",
}
KEY_FORMS = {
    "as_sent": "as sent",
    "cut_50": "cut at 50",
    "cut_20": "cut at 20",
    "upper": "upper case",
    "padded": "padded",
    "prefixed": "prefixed",
}
SORTABLE = (
    "documented",
    "slashes",
    "millis",
    "leading_blank",
)  # sortable forms of a start time


@dataclass(frozen=True)
class Expectation:
    """The acceptable outcomes of one finding.

    :param true: the true values, each with whether the finding is marked as fine.
    :param may_be_unknown: whether the finding may be unknown.
    """

    true: list[tuple[Any, bool]] = field(default_factory=list)
    may_be_unknown: bool = False

    def allows(self, finding: Finding) -> bool:
        """Return whether a finding is acceptable."""
        if finding.value is None:
            return self.may_be_unknown and finding.fine is None
        return any(finding.value == value and finding.fine is fine for value, fine in self.true)


UNKNOWN = Expectation(may_be_unknown=True)


def ok(value: Any, *, may_be_unknown: bool = False) -> Expectation:
    return Expectation([(value, True)], may_be_unknown)


def attention(value: Any, *, may_be_unknown: bool = False) -> Expectation:
    return Expectation([(value, False)], may_be_unknown)


def seconds(lag: float) -> Any:
    """Return a lag with tolerance, because polls are some seconds apart."""
    return pytest.approx(lag + 4, abs=4.5)


def expected(chosen: Mapping[str, Any], *, starts: bool, others: int) -> dict[str, Expectation]:
    """Return the expectation for each finding.

    :param chosen: the position of every switch.
    :param starts: whether the doctor starts instances.
    :param others: the number of open instances of another user. There is also an ended one, and an open one of the machine
        user.
    """
    expectations = {**_of_tokens(chosen), **_of_lists(chosen, others), **_of_queries(chosen)}
    return {**expectations, **_of_starts(chosen, others)} if starts else expectations


def _of_tokens(chosen: Mapping[str, Any]) -> dict[str, Expectation]:
    sent = {"number": 600, "text": 600, "absent": "not said"}
    return {
        "connection": ok("http"),
        "token_request": ok(chosen["token_body"]),
        "token_lifetime": ok(sent.get(chosen["expires_in"], "unusable")),
        "older_tokens": ok("kept") if chosen["concurrent_tokens"] else attention("replaced"),
        "bad_token": ok(BAD_TOKENS[chosen["bad_token"]]),
        "clock": ok(pytest.approx(0, abs=2)),
        "success_message": ok(chosen["success_message"]),
        "definitions": ok("yes"),
        "instances": ok("all"),
    }


def _of_lists(chosen: Mapping[str, Any], others: int) -> dict[str, Expectation]:
    cap, shown = chosen["row_cap"], _waiting(chosen, others)
    listed = min(shown, cap or shown)
    can_order = shown > 1 and chosen["start_time_form"] in SORTABLE
    both_ends = chosen["order_honoured"] and can_order
    is_truncated = cap is not None and shown > cap
    order = ok("honoured") if chosen["order_honoured"] else attention("ignored")
    own_order = {"newest": "newest first", "oldest": "oldest first", "shuffled": "other"}[chosen["row_order"]]
    return {
        "fields": ok("honoured" if chosen["fields_honoured"] else "ignored"),
        "order": Expectation(order.true, not (both_ends or (can_order and listed > 1))),
        "own_order": ok(own_order, may_be_unknown=not can_order or listed < 5),
        "row_cap": attention(cap, may_be_unknown=not both_ends)
        if is_truncated
        else ok("none seen", may_be_unknown=not both_ends),
        "business_keys": ok("carried") if chosen["business_keys_in_rows"] else UNKNOWN,
        "others": ok("seen", may_be_unknown=is_truncated) if chosen["see_others"] else UNKNOWN,
        "ended": ok("kept") if chosen["see_others"] and chosen["keep_closed"] else UNKNOWN,
        "timezone": UNKNOWN,
    }


def _of_queries(chosen: Mapping[str, Any]) -> dict[str, Expectation]:
    unknown = {"refuse": "refused", "empty": "empty"}[chosen["unknown_state"]]
    with_commas = {
        "refuse": "refused",
        "comma": "honoured",
        "first": "first only",
        # the comma is then a part of the name, and no state has this name
        "repeated": {"refuse": "refused", "empty": "none"}[chosen["unknown_state"]],
    }
    repeated = {"refuse": "refused", "comma": "first only", "first": "first only", "repeated": "honoured"}
    checks_columns = chosen["fields_honoured"] and chosen["unknown_field"] == "refuse"
    by_id = {"absent": "absent", "not_allowed": "not allowed", "action": "action", "row": "row"}
    status = chosen["refusal_status"]
    return {
        "get_by_id": ok(by_id[chosen["get_by_id"]]),
        "get_variables": ok(chosen["get_variables"]),
        "refusal": attention("HTTP 500") if status == 500 else ok(f"HTTP {status}"),
        "unknown_state": ok(unknown),
        "unknown_field": ok("refused" if checks_columns else "ignored"),
        "states_with_commas": ok(with_commas[chosen["several_states"]]),
        "states_repeated": ok(repeated[chosen["several_states"]]),
        "plus": ok("yes" if chosen["plus_is_blank"] else "no"),
        "content_type": ok("needed" if chosen["content_type_required"] else "not needed"),
    }


def _of_starts(chosen: Mapping[str, Any], others: int) -> dict[str, Expectation]:
    """Return the expectations that exist only with --start, or differ with it."""
    cap, shown = chosen["row_cap"], _waiting(chosen, others)
    by_newest = chosen["order_honoured"] or chosen["row_order"] == "newest"
    in_time = chosen["start_lag"] <= POLL_SECONDS
    shows = in_time and (cap is None or by_newest or shown + 1 < cap)  # whether each list shows new instances
    may_show = in_time and not shows
    lag = seconds(chosen["start_lag"])
    lags = [(lag, True), (lag, False)] if chosen["start_lag"] else [(lag, True)]
    keys = ok("carried") if chosen["business_keys_in_rows"] else attention("not carried")
    is_truncated = cap is not None and shown > cap
    methods = {"both": "POST and GET", "post": "POST", "get": "GET"}
    return {
        "start": ok("started"),
        "csrf": attention("needed") if chosen["csrf_required"] else ok("not needed"),
        "csrf_method": ok(methods[chosen["csrf_method"]]),
        "unknown_variable_at_start": ok(
            {"ignore": "ignored", "refuse": "refused"}[chosen["unknown_variables_at_start"]]
        ),
        "start_lag": Expectation(lags if in_time else [], not shows),
        "business_keys": Expectation(keys.true, not shows)
        if shows or may_show
        else _of_lists(chosen, others)["business_keys"],
        "others": _others(chosen, is_truncated=is_truncated, shows=shows),
        "row_cap": _row_cap(chosen, shown),
        "timezone": _timezone(chosen),
        "start_time": _start_time(chosen, shows=shows),
        "long_key": _long_key(chosen, shows=shows),
        "unknown_variable": ok("ignored"),
        "duplicate_key": ok({"accept": "started", "refuse": "refused"}[chosen["duplicate_business_key"]]),
        "refused_token_start": Expectation(
            [("not started", True)] if chosen["refused_token_start"] == "nothing" else [("started", False)],
            not (
                shows
                and by_newest
                and chosen["order_honoured"]
                and shown > 1
                and chosen["start_time_form"] in SORTABLE
            ),
        ),
        **_of_actions(chosen, shows=shows),
    }


def _of_actions(chosen: Mapping[str, Any], *, shows: bool) -> dict[str, Expectation]:
    lag = chosen["action_lag"]
    at_once, in_time = lag == 0, lag <= POLL_SECONDS
    is_seen = at_once or (in_time and shows)  # whether the effect of an action shows
    stays_seen = shows and chosen["row_cap"] not in (
        1,
        2,
    )  # another started instance has ended in the same state
    ends_seen = at_once or (is_seen and chosen["keep_closed"] and stays_seen)
    twice = {"refuse": "refused", "accept": "accepted"}[chosen["acting_twice"]]
    stays = chosen["keep_closed"]
    on_closed = {"refuse": "refused", "accept": "accepted"}[chosen["acting_on_closed"]]
    suspended = {"unchanged": "flag", "Suspended": "flag and state", "state_only": "state"}
    too_late = [] if in_time else [("nothing", False)]
    can_tell_flag = at_once or chosen["acting_twice"] == "accept"
    return {
        "suspend": Expectation([(suspended[chosen["suspend_state"]], True), *too_late], not is_seen),
        "action_lag": ok(seconds(lag), may_be_unknown=not is_seen),
        "suspend_twice": ok(twice, may_be_unknown=not is_seen),
        "resume": Expectation([("Waiting for user interaction", True), *too_late], not is_seen),
        "resume_twice": ok(twice, may_be_unknown=not is_seen),
        "terminate": ok(chosen["terminate_state"], may_be_unknown=not ends_seen),
        "closed_flag": ok(
            {"on_close": "true", "never": "false"}[chosen["closed_flag"]],
            may_be_unknown=not (ends_seen and can_tell_flag),
        ),
        "terminate_twice": ok(twice if stays else "refused", may_be_unknown=not ends_seen),
        "ended": ok("kept", may_be_unknown=not (stays_seen and ends_seen))
        if stays
        else attention("gone", may_be_unknown=not (stays_seen and ends_seen)),
        "suspend_ended": ok(on_closed if stays else "refused", may_be_unknown=not ends_seen),
        "variables_of_ended": ok(on_closed if stays else "refused", may_be_unknown=not ends_seen),
    }


def _waiting(chosen: Mapping[str, Any], others: int) -> int:
    """Return the number of visible open instances, which is the length of the longest list."""
    return 1 + (others if chosen["see_others"] else 0)


def _ahead(chosen: Mapping[str, Any]) -> float:
    """Return the hours by which the timestamps are ahead of UTC. A wrong clock has the same effect as another zone."""
    return float(chosen["utc_offset"] + chosen["clock_skew"])


def _timezone(chosen: Mapping[str, Any]) -> Expectation:
    if chosen["start_time_form"] != "documented" or abs(_ahead(chosen)) > ZONES:
        return UNKNOWN
    return ok(_ahead(chosen))


def _start_time(chosen: Mapping[str, Any], *, shows: bool) -> Expectation:
    form = chosen["start_time_form"]
    if form in ("dash", "slashes", "millis", "leading_blank"):
        return attention("unreadable")
    if form in ("zero", "epoch") or abs(_ahead(chosen)) > ZONES:
        return attention("implausible")
    return ok("documented", may_be_unknown=not shows)


def _long_key(chosen: Mapping[str, Any], *, shows: bool) -> Expectation:
    change = KEY_FORMS[chosen["key_form"]]
    if change != "as sent":
        return attention(change)
    return ok(change, may_be_unknown=not shows) if chosen["business_keys_in_rows"] else UNKNOWN


def _others(chosen: Mapping[str, Any], *, is_truncated: bool, shows: bool) -> Expectation:
    shows = shows and (
        chosen["row_cap"] is None or chosen["row_order"] == "newest"
    )  # that list is requested without an order
    if not chosen["see_others"]:
        return ok("none seen", may_be_unknown=not shows)
    return Expectation(
        [("seen", True), *([("none seen", True)] if is_truncated else [])], is_truncated or not shows
    )


def _row_cap(chosen: Mapping[str, Any], shown: int) -> Expectation:
    """Return the expectation for a cap that only the new instance can reveal, by making a list long enough."""
    cap = chosen["row_cap"]
    before = _of_lists(chosen, shown - 1 if chosen["see_others"] else 0)["row_cap"]
    may_be_shown = cap is not None and shown + 1 > cap
    return Expectation([*before.true, *([(cap, False)] if may_be_shown else [])], before.may_be_unknown)
