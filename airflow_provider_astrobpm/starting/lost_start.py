"""Searches for the instances of starts whose answers were lost. Serves a single start and batches alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_astrobpm.client.errors import AuthenticationError, CallError
from airflow_provider_astrobpm.client.key_form import KeyForms
from airflow_provider_astrobpm.client.key_search import KeyMatches, list_matches
from airflow_provider_astrobpm.client.operations import Sleep
from airflow_provider_astrobpm.client.states import STATES
from airflow_provider_astrobpm.client.timestamps import Placement

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.key_form import KeyForm
    from airflow_provider_astrobpm.client.operations import Flow

SEARCH_TIMES = (0.05, 0.25, 0.5, 1.0)
"""When to search, as fractions of the grace."""
MAX_SHOWN_INSTANCES = 5


class LostStart(NamedTuple):
    """A start whose answer was lost.

    :param is_ours_alone: whether a single new instance with the key certainly belongs to this start.
    """

    bpm_name: str
    is_ours_alone: bool = True


class Recovery(NamedTuple):
    """The result of the searches, by the business keys of the starts."""

    instances: dict[str, BpmInstance]
    doubts: dict[str, str]
    """Why the instance of a start is unknown, in words."""


def recover_lost_starts(
    lost: Mapping[str, LostStart],
    *,
    grace: float,
    posted_at: float,
    clock: Callable[[], float],
    existing: Collection[str] = (),
    form: KeyForm | None = None,
) -> Flow[Recovery]:
    """Find the instances of starts whose answers were lost. Search for as long as they may take to show.

    The searches end early if each remaining start has a reason for doubt that more time does not resolve.

    :param lost: the starts, by their business keys.
    :param grace: seconds after which a started instance certainly shows in the lists.
    :param posted_at: when the first of the starts was sent, in seconds since the epoch.
    :param existing: the ids of preexisting instances with such keys.
    :raises AuthenticationError: if the credentials are refused.
    """
    keys, found, doubts = KeyForms(lost, form), {}, dict.fromkeys(lost, "")
    names = {one.bpm_name for one in lost.values()}
    waited = 0.0
    for part in SEARCH_TIMES:
        if grace > 0:
            yield Sleep(grace * (part - waited))
        waited = part
        matches = KeyMatches(
            lambda one: keys.sent(one.business_key) is not None, resembles=keys.resembles, clock=clock
        )
        try:
            yield from list_matches(STATES, matches)
        except AuthenticationError:
            raise
        except CallError as error:
            doubts = dict.fromkeys(doubts, f"it could not be searched for: {error.problem}")
            continue
        candidates = _candidates(matches, keys, lost, existing, posted_at)
        for key in list(doubts):
            mine = candidates.get(key, [])
            is_clear = len(mine) == 1 and lost[key].is_ours_alone
            if is_clear and matches.place(mine[0], posted_at) is Placement.SINCE:
                found[key] = mine[0]
                del doubts[key]
            elif mine:
                shown = describe_instances(mine)
                doubts[key] = f"it may be one of the instances that show its business key: {shown}"
            else:
                # Lists that hide the keys of one BPM also hide those of another, even if they show no row of it.
                doubt = matches.doubt(lost[key].bpm_name, posted_at) or matches.why_keyless(names)
                doubts[key] = doubt or ""
        if all(doubts.values()):
            break
    return Recovery(
        found, {key: doubt or "no instance shows its business key" for key, doubt in doubts.items()}
    )


def _candidates(
    matches: KeyMatches,
    keys: KeyForms,
    lost: Mapping[str, LostStart],
    existing: Collection[str],
    posted_at: float,
) -> dict[str, list[BpmInstance]]:
    """Return the possible instances of each start."""
    candidates: dict[str, list[BpmInstance]] = {}
    for one in matches.instances.values():
        key = keys.sent(one.business_key)
        is_new = one.id not in existing and matches.place(one, posted_at) is not Placement.BEFORE
        if key is not None and is_new and one.name == lost[key].bpm_name:
            candidates.setdefault(key, []).append(one)
    return candidates


def describe_instances(instances: Iterable[BpmInstance]) -> str:
    """Return the first few of several instances as text."""
    shown = list(instances)
    more = f" and {len(shown) - MAX_SHOWN_INSTANCES} more" if len(shown) > MAX_SHOWN_INSTANCES else ""
    return "; ".join(str(one) for one in shown[:MAX_SHOWN_INSTANCES]) + more
