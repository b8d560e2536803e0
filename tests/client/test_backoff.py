"""The formula of all pauses before something is tried again."""

from __future__ import annotations

import math

import pytest

from airflow_provider_astrobpm.client.backoff import Backoff

BACKOFF = Backoff(first=2, longest=30)

# failures in a row, a random number, what the server asks for, the pause
PAUSES: list[tuple[int, float, float | None, float]] = [
    (1, 0, None, 2),
    (1, 0.5, None, 1.5),
    (1, 1, None, 1),
    (2, 0, None, 4),
    (3, 1, None, 4),
    (0, 0, None, 2),
    (5, 0, None, 30),
    (5, 1, None, 15),
    (100_000, 0, None, 30),
    # What the server asks for is never undercut, and the clients that it asks come back at different moments.
    (1, 0, 10, 10),
    (1, 1, 10, 11),
    (4, 0, 10, 16),
    (1, 0, 0, 2),
    (1, 1, 100, 30),
]


@pytest.mark.parametrize(("failures", "chance", "asked", "seconds"), PAUSES)
def test_pauses(failures: int, chance: float, asked: float | None, seconds: float) -> None:
    assert BACKOFF.pause(failures, chance, asked) == seconds


def test_server_may_ask_for_more_than_the_longest_pause_of_its_own() -> None:
    backoff = Backoff(first=2, longest=30, longest_asked=600)
    assert backoff.pause(1, 0, 100) == 100
    assert backoff.pause(1, 0, 10_000) == 600
    assert backoff.pause(10, 0, None) == 30


def test_factor_1_repeats_the_first_pause() -> None:
    assert [Backoff(3, factor=1).pause(failures, 0) for failures in (1, 2, 9)] == [3, 3, 3]


def test_pauses_are_finite_without_a_limit() -> None:
    assert math.isfinite(Backoff(1).pause(10**9, 0))
