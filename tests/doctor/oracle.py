"""What the doctor may say of an emulator, point by point, by the positions of all its switches. Pure.

Each point has every value that is true, with its mark, and whether it may be left open: one switch may hide what another one
does, but nothing makes a lie true. The emulator is filled as ``populate`` of this folder fills it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_astrobpm.doctor.findings import Finding
from airflow_provider_astrobpm.doctor.started_instances import POLL_DELAYS_SECONDS

PATIENCE = sum(POLL_DELAYS_SECONDS)  # seconds for which the doctor looks for something
GRACE = 60  # seconds, the connection's ``start_grace``
ZONES = 14  # hours that a zone is away from UTC at most
OTHERS = 5  # instances of somebody else, besides those that a test asks for

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
)  # forms of a start time that differ and can be ordered


@dataclass(frozen=True)
class Says:
    """What one point may say.

    :param true: each value that is true, with whether the point is marked as fine.
    :param may_be_open: whether "could not be told" is an honest answer.
    """

    true: list[tuple[Any, bool]] = field(default_factory=list)
    may_be_open: bool = False

    def allows(self, finding: Finding) -> bool:
        """Tell whether a point contradicts nothing."""
        if finding.value is None:
            return self.may_be_open and finding.fine is None
        return any(finding.value == value and finding.fine is fine for value, fine in self.true)


OPEN = Says(may_be_open=True)


def ok(value: Any, *, may_be_open: bool = False) -> Says:
    return Says([(value, True)], may_be_open)


def mind(value: Any, *, may_be_open: bool = False) -> Says:
    return Says([(value, False)], may_be_open)


def seconds(lag: float) -> Any:
    """The look at which something shows comes some seconds after it does."""
    return pytest.approx(lag + 4, abs=4.5)


def truth(chosen: Mapping[str, Any], *, starts: bool, others: int) -> dict[str, Says]:
    """Return what each point may say.

    :param chosen: the position of every switch.
    :param starts: whether the doctor starts instances.
    :param others: how many instances of somebody else wait for a person. Another one has ended, and one more waits that is of
        the machine user.
    """
    says = {**_of_tokens(chosen), **_of_lists(chosen, others), **_of_queries(chosen)}
    return {**says, **_of_starts(chosen, others)} if starts else says


def _of_tokens(chosen: Mapping[str, Any]) -> dict[str, Says]:
    sent = {"number": 600, "text": 600, "absent": "not said"}
    return {
        "connection": ok("http"),
        "token_request": ok(chosen["token_body"]),
        "token_lifetime": ok(sent.get(chosen["expires_in"], "unusable")),
        "older_tokens": ok("kept") if chosen["concurrent_tokens"] else mind("replaced"),
        "bad_token": ok(BAD_TOKENS[chosen["bad_token"]]),
        "clock": ok(pytest.approx(0, abs=2)),
        "success_message": ok(chosen["success_message"]),
        "definitions": ok("yes"),
        "instances": ok("all"),
    }


def _of_lists(chosen: Mapping[str, Any], others: int) -> dict[str, Says]:
    cap, shown = chosen["row_cap"], _waiting(chosen, others)
    listed = min(shown, cap or shown)
    can_order = shown > 1 and chosen["start_time_form"] in SORTABLE
    both_ends = chosen["order_honoured"] and can_order
    is_cut = cap is not None and shown > cap
    order = ok("honoured") if chosen["order_honoured"] else mind("ignored")
    own_order = {"newest": "newest first", "oldest": "oldest first", "shuffled": "other"}[chosen["row_order"]]
    return {
        "fields": ok("honoured" if chosen["fields_honoured"] else "ignored"),
        "order": Says(order.true, not (both_ends or (can_order and listed > 1))),
        "own_order": ok(own_order, may_be_open=not can_order or listed < 5),
        "row_cap": mind(cap, may_be_open=not both_ends)
        if is_cut
        else ok("none seen", may_be_open=not both_ends),
        "business_keys": ok("carried") if chosen["business_keys_in_rows"] else OPEN,
        "others": ok("seen", may_be_open=is_cut) if chosen["see_others"] else OPEN,
        "ended": ok("kept") if chosen["see_others"] and chosen["keep_closed"] else OPEN,
        "timezone": OPEN,
    }


def _of_queries(chosen: Mapping[str, Any]) -> dict[str, Says]:
    unknown = {"refuse": "refused", "empty": "empty"}[chosen["unknown_state"]]
    with_commas = {
        "refuse": "refused",
        "comma": "honoured",
        "first": "first only",
        # then the comma is a part of a name, and no state is called so
        "repeated": {"refuse": "refused", "empty": "none"}[chosen["unknown_state"]],
    }
    repeated = {"refuse": "refused", "comma": "first only", "first": "first only", "repeated": "honoured"}
    looks_at_columns = chosen["fields_honoured"] and chosen["unknown_field"] == "refuse"
    by_id = {"absent": "absent", "not_allowed": "not allowed", "action": "action", "row": "row"}
    status = chosen["refusal_status"]
    return {
        "get_by_id": ok(by_id[chosen["get_by_id"]]),
        "get_variables": ok(chosen["get_variables"]),
        "refusal": mind("HTTP 500") if status == 500 else ok(f"HTTP {status}"),
        "unknown_state": ok(unknown),
        "unknown_field": ok("refused" if looks_at_columns else "ignored"),
        "states_with_commas": ok(with_commas[chosen["several_states"]]),
        "states_repeated": ok(repeated[chosen["several_states"]]),
        "plus": ok("yes" if chosen["plus_is_blank"] else "no"),
        "content_type": ok("needed" if chosen["content_type_required"] else "not needed"),
    }


def _of_starts(chosen: Mapping[str, Any], others: int) -> dict[str, Says]:
    """What a run with --start tells as well, or otherwise."""
    cap, shown = chosen["row_cap"], _waiting(chosen, others)
    by_newest = chosen["order_honoured"] or chosen["row_order"] == "newest"
    in_time = chosen["start_lag"] <= PATIENCE
    shows = in_time and (cap is None or by_newest or shown + 1 < cap)  # whether each list shows what is new
    may_show = in_time and not shows
    lag = seconds(chosen["start_lag"])
    lags = [(lag, True), (lag, False)] if chosen["start_lag"] else [(lag, True)]
    keys = ok("carried") if chosen["business_keys_in_rows"] else mind("not carried")
    is_cut = cap is not None and shown > cap
    methods = {"both": "POST and GET", "post": "POST", "get": "GET"}
    return {
        "start": ok("started"),
        "csrf": mind("needed") if chosen["csrf_required"] else ok("not needed"),
        "csrf_method": ok(methods[chosen["csrf_method"]]),
        "unknown_variable_at_start": ok(
            {"ignore": "ignored", "refuse": "refused"}[chosen["unknown_variables_at_start"]]
        ),
        "start_lag": Says(lags if in_time else [], not shows),
        "business_keys": Says(keys.true, not shows)
        if shows or may_show
        else _of_lists(chosen, others)["business_keys"],
        "others": _others(chosen, is_cut=is_cut, shows=shows),
        "row_cap": _row_cap(chosen, shown),
        "timezone": _timezone(chosen),
        "start_time": _start_time(chosen, shows=shows),
        "long_key": _long_key(chosen, shows=shows),
        "unknown_variable": ok("ignored"),
        "duplicate_key": ok({"accept": "started", "refuse": "refused"}[chosen["duplicate_business_key"]]),
        "refused_token_start": Says(
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


def _of_actions(chosen: Mapping[str, Any], *, shows: bool) -> dict[str, Says]:
    lag = chosen["action_lag"]
    at_once, in_time = lag == 0, lag <= PATIENCE
    is_seen = at_once or (in_time and shows)  # whether what was done is seen
    stays_seen = shows and chosen["row_cap"] not in (
        1,
        2,
    )  # another one that was started has ended in the same state
    ends_seen = at_once or (is_seen and chosen["keep_closed"] and stays_seen)
    twice = {"refuse": "refused", "accept": "accepted"}[chosen["acting_twice"]]
    stays = chosen["keep_closed"]
    on_closed = {"refuse": "refused", "accept": "accepted"}[chosen["acting_on_closed"]]
    suspended = {"unchanged": "flag", "Suspended": "flag and state", "state_only": "state"}
    too_late = [] if in_time else [("nothing", False)]
    can_tell_flag = at_once or chosen["acting_twice"] == "accept"
    return {
        "suspend": Says([(suspended[chosen["suspend_state"]], True), *too_late], not is_seen),
        "action_lag": ok(seconds(lag), may_be_open=not is_seen),
        "suspend_twice": ok(twice, may_be_open=not is_seen),
        "resume": Says([("Waiting for user interaction", True), *too_late], not is_seen),
        "resume_twice": ok(twice, may_be_open=not is_seen),
        "terminate": ok(chosen["terminate_state"], may_be_open=not ends_seen),
        "closed_flag": ok(
            {"on_close": "true", "never": "false"}[chosen["closed_flag"]],
            may_be_open=not (ends_seen and can_tell_flag),
        ),
        "terminate_twice": ok(twice if stays else "refused", may_be_open=not ends_seen),
        "ended": ok("kept", may_be_open=not (stays_seen and ends_seen))
        if stays
        else mind("gone", may_be_open=not (stays_seen and ends_seen)),
        "suspend_ended": ok(on_closed if stays else "refused", may_be_open=not ends_seen),
        "variables_of_ended": ok(on_closed if stays else "refused", may_be_open=not ends_seen),
    }


def _waiting(chosen: Mapping[str, Any], others: int) -> int:
    """How many instances wait that the token may see, by the list that is the longest."""
    return 1 + (others if chosen["see_others"] else 0)


def _ahead(chosen: Mapping[str, Any]) -> float:
    """Hours by which the timestamps are ahead of UTC, for whatever reason: a clock that is wrong looks like another zone."""
    return float(chosen["utc_offset"] + chosen["clock_skew"])


def _timezone(chosen: Mapping[str, Any]) -> Says:
    if chosen["start_time_form"] != "documented" or abs(_ahead(chosen)) > ZONES:
        return OPEN
    return ok(_ahead(chosen))


def _start_time(chosen: Mapping[str, Any], *, shows: bool) -> Says:
    form = chosen["start_time_form"]
    if form in ("dash", "slashes", "millis", "leading_blank"):
        return mind("unreadable")
    if form in ("zero", "epoch") or abs(_ahead(chosen)) > ZONES:
        return mind("implausible")
    return ok("documented", may_be_open=not shows)


def _long_key(chosen: Mapping[str, Any], *, shows: bool) -> Says:
    change = KEY_FORMS[chosen["key_form"]]
    if change != "as sent":
        return mind(change)
    return ok(change, may_be_open=not shows) if chosen["business_keys_in_rows"] else OPEN


def _others(chosen: Mapping[str, Any], *, is_cut: bool, shows: bool) -> Says:
    shows = shows and (chosen["row_cap"] is None or chosen["row_order"] == "newest")  # its list has no order
    if not chosen["see_others"]:
        return ok("none seen", may_be_open=not shows)
    return Says([("seen", True), *([("none seen", True)] if is_cut else [])], is_cut or not shows)


def _row_cap(chosen: Mapping[str, Any], shown: int) -> Says:
    """The new instance may show a cap that nothing else does, if it makes a list as long as that."""
    cap = chosen["row_cap"]
    before = _of_lists(chosen, shown - 1 if chosen["see_others"] else 0)["row_cap"]
    may_be_shown = cap is not None and shown + 1 > cap
    return Says([*before.true, *([(cap, False)] if may_be_shown else [])], before.may_be_open)
