"""``make soak`` finds waits that are lost or false, memory that grows, and a soak that did not do what it should."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.soak.judgement import (
    MAX_END_SECONDS,
    Plan,
    Sample,
    WaitHistory,
    false,
    growth,
    judge,
    lost,
    outcomes,
)

MB = 1_000_000
DONE, REJECTED = "done: Completed OK, Approved", "failed: Completed OK, Rejected"
NOW = 1800.0
WINDOW = (1200.0, NOW)
PLAN = Plan(waits=2000, fewest_waiting=2000, kills=5, killed=5, faults=900)


def wait(**happened: Any) -> WaitHistory:
    given: dict[str, Any] = {"name": "wait 7", "expected": DONE, "closed": 100.0, "ended": 110.0, "end": DONE}
    return WaitHistory(**{**given, **happened})


def samples(name: str, *megabytes: float, begin: float = WINDOW[0], end: float = WINDOW[1]) -> list[Sample]:
    """Return a sample long before a window, and samples that are spread evenly over it."""
    width = (end - begin) / len(megabytes)
    return [Sample(begin - 300, name, 100 * MB)] + [
        Sample(begin + number * width, name, int(each * MB)) for number, each in enumerate(megabytes)
    ]


STEADY = samples("triggerer-1", *[200] * 20)


def missed(waits: list[WaitHistory], memory: list[Sample] = STEADY, plan: Plan = PLAN) -> list[str]:
    return [verdict.text for verdict in judge(waits, memory, WINDOW, NOW, plan) if not verdict.kept]


def test_a_soak_without_faults_is_kept() -> None:
    waiting = wait(closed=None, ended=None, end="")
    rejected = wait(expected=REJECTED, end=REJECTED)
    assert missed([wait(), rejected, waiting]) == []


@pytest.mark.parametrize(
    "happened",
    [
        pytest.param({"ended": None, "end": ""}, id="did not end"),
        pytest.param({"ended": 100.0 + MAX_END_SECONDS + 1}, id="ended too late"),
    ],
)
def test_a_wait_that_does_not_end_in_time_is_lost(happened: dict[str, Any]) -> None:
    found = wait(**happened)
    assert len(lost([found], NOW)) == 1
    assert missed([wait(), found])[0].startswith("1 lost, of 2 waits")


def test_a_wait_whose_instance_has_just_ended_is_not_lost_yet() -> None:
    assert lost([wait(closed=NOW - MAX_END_SECONDS, ended=None, end="")], NOW) == []


@pytest.mark.parametrize(
    ("happened", "words"),
    [
        pytest.param(
            {"expected": REJECTED}, f"ended with {DONE!r} instead of {REJECTED!r}", id="false success"
        ),
        pytest.param({"end": REJECTED}, f"ended with {REJECTED!r} instead of {DONE!r}", id="false failure"),
        pytest.param({"end": "with another instance, …"}, "instead of", id="another instance"),
        pytest.param({"closed": None}, "while its instance was open: done", id="success of an open instance"),
        pytest.param(
            {"closed": None, "end": "ServerError: …"},
            "was open: ServerError",
            id="failure of a healthy instance",
        ),
    ],
)
def test_a_wait_that_ends_otherwise_than_its_instance_is_false(happened: dict[str, Any], words: str) -> None:
    found = wait(**happened)
    (line,) = false([found])
    assert words in line
    assert any(text.startswith("1 false") and line in text for text in missed([wait(), found]))


@pytest.mark.parametrize(
    ("megabytes", "grown"),
    [
        pytest.param([200] * 20, 0.0, id="steady"),
        pytest.param([200] * 5 + [260] + [200] * 14, 0.0, id="one peak"),
        pytest.param([200 + number for number in range(20)], 0.08, id="leak"),
        pytest.param([200] * 8 + [210] * 4 + [200] * 8, 0.05, id="a hill"),
        pytest.param([210] * 4 + [200] * 16, -0.047, id="less"),
    ],
)
def test_growth_compares_slices_of_the_window(megabytes: list[float], grown: float) -> None:
    memory = samples("triggerer-1", *megabytes)
    assert growth(memory, *WINDOW)["triggerer-1"] == pytest.approx(grown, abs=0.002)
    assert bool(missed([wait()], memory)) == (grown > 0.02)


def test_a_triggerer_that_did_not_live_through_the_window_is_not_compared() -> None:
    killed = samples("triggerer-2", 200, 400, end=1500.0)
    assert growth([*STEADY, *killed], *WINDOW) == {"triggerer-1": 0.0}
    (text,) = missed([wait()], killed)
    assert "none lived long enough" in text


def test_a_triggerer_that_has_just_started_is_not_compared() -> None:
    young = samples("triggerer-3", *range(100, 300, 10))[1:]
    assert growth([*STEADY, *young], *WINDOW) == {"triggerer-1": 0.0}


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (PLAN._replace(fewest_waiting=1999), "at least 1,999 tasks waited"),
        (PLAN._replace(killed=4), "4 triggerers were killed, of 5"),
        (PLAN._replace(kills=0, killed=0), "0 triggerers were killed"),
        (PLAN._replace(faults=0), "the server failed 0 times"),
    ],
)
def test_a_soak_that_did_too_little_is_missed(plan: Plan, words: str) -> None:
    (text,) = missed([wait()], plan=plan)
    assert words in text


def test_a_soak_in_which_nothing_ended_is_missed() -> None:
    assert len(missed([wait(closed=None, ended=None, end="")])) == 1


def test_outcomes_are_counted() -> None:
    waits = [wait(), wait(), wait(end=REJECTED), wait(ended=None, end="")]
    assert outcomes(waits) == [(DONE, 2), (REJECTED, 1)]
