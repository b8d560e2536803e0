"""When the poller polls, and how many requests a poll takes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors, states
from airflow_provider_astrobpm.client.key_form import BusinessKey
from airflow_provider_astrobpm.waiting.batch_wait import BatchWait
from airflow_provider_astrobpm.waiting.condition import WaitCondition
from airflow_provider_astrobpm.watching.targets import WatchTargets
from airflow_provider_astrobpm.watching.watch import Watch
from tests.support.memory_server import instance
from tests.support.virtual_time import run
from tests.waiting.poller_setup import HOUR, PollerSetup, fault, forget_other_tests, leave

__all__ = ["forget_other_tests"]


class TestSchedule:
    @pytest.mark.parametrize(
        ("jitter", "polls"),
        [
            (0.0, [0, 60, 120, 180]),
            (0.5, [30, 87, 144, 201]),
            (1.0, [60, 114, 168, 222]),
        ],
    )
    def test_first_poll_is_at_a_random_time_and_jitter_shortens_the_interval(
        self, jitter: float, polls: list[float]
    ) -> None:
        async def main() -> None:
            setup = PollerSetup(jitter=jitter)
            setup.server.put(instance("1"))
            waiting = setup.join(setup.wait(), 60)
            await asyncio.sleep(polls[-1] + 1)
            assert setup.polled_at() == polls
            await leave(waiting)

        run(main())

    def test_smallest_interval_counts_while_its_wait_is_open(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.put(instance("1"), instance("2"))
            patient = setup.join(setup.wait("1"), 60)
            await asyncio.sleep(90)
            hasty = setup.join(setup.wait("2"), 10)
            await asyncio.sleep(35)
            await leave(hasty)
            await asyncio.sleep(200)
            # The hasty wait is there from 90 to 125; the poll that is due by then still comes.
            assert setup.polled_at() == [0, 60, 100, 110, 120, 130, 190, 250, 310]
            await leave(patient)

        run(main())

    @pytest.mark.parametrize(
        ("interval", "answer_time", "polls"),
        [
            (10, 4, [0, 10, 20, 30]),
            (10, 12, [0, 13, 26, 39]),
            (1, 0, [0, 1, 2, 3]),
            (0.1, 0, [0, 1, 2, 3]),
        ],
    )
    def test_one_poll_at_a_time_at_least_a_second_apart(
        self, interval: float, answer_time: float, polls: list[float]
    ) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.put(instance("1", seen := "Waiting for user interaction"))
            setup.server.answer_time = answer_time
            waiting = setup.join(setup.wait(seen=instance("1", seen)), interval)
            await asyncio.sleep(polls[-1] + 0.5)
            assert setup.polled_at() == polls
            assert setup.client.violations == []
            await leave(waiting)

        run(main())

    @pytest.mark.parametrize(
        ("interval", "failing", "polls"),
        [
            (10, 6, [0, 20, 60, 120, 180, 240, 300, 310, 320]),
            (60, 2, [0, 60, 120, 180, 240]),
            (300, 2, [0, 300, 600, 900]),
        ],
        ids=["up to a minute", "already a minute", "the interval if longer"],
    )
    def test_backs_off_while_polls_fail(self, interval: float, failing: int, polls: list[float]) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.put(row := instance("1"))
            setup.server.fail(fault(errors.ServerError), times=failing)
            waiting = setup.join(setup.wait(seen=row, max_poll_failure_time=HOUR), interval)
            await asyncio.sleep(polls[-1] + 1)
            assert setup.polled_at() == polls
            await leave(waiting)

        run(main())

    def test_does_not_back_off_when_only_one_list_fails(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            here, there = instance("1"), instance("2", "Waiting for user interaction")
            setup.server.put(here, there)
            setup.server.bad_lists["Running"] = fault(errors.ServerError)
            setup.join(setup.wait("1", seen=here, max_poll_failure_time=95), connection="in it")
            waiting = setup.join(
                setup.wait("2", seen=there, max_poll_failure_time=95), connection="not in it"
            )
            await asyncio.sleep(94)
            assert setup.ended == []
            await asyncio.sleep(12)
            assert setup.ended == ["in it"]
            assert setup.polled_at() == [*range(0, 91, 10), 95, 105]
            assert setup.requests_per_poll() == [2] * 11 + [1]
            setup.server.put(instance("2", "Completed OK"))
            assert (await waiting).state == "Completed OK"

        run(main())

    def test_obeys_throttling_even_if_the_first_list_succeeded(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            rows = instance("1", "Waiting for user interaction"), instance("2", "New")
            setup.server.put(*rows)
            setup.server.bad_lists["New"] = fault(errors.ThrottledError, "45")
            waiting = [setup.join(setup.wait(row.id, seen=row, max_poll_failure_time=HOUR)) for row in rows]
            await asyncio.sleep(160)
            assert setup.polled_at() == [
                0,
                45,
                90,
                150,
            ]  # longer than requested, after three failures in a row
            await leave(*waiting)

        run(main())

    def test_pause_after_a_failure_starts_at_its_end(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.answer_time = 100
            setup.server.fail(fault(errors.InterruptedCallError))
            waiting = setup.join(setup.wait(seen=instance("1"), max_poll_failure_time=HOUR), 60)
            await asyncio.sleep(330)
            assert setup.polled_at() == [0, 160, 320]
            await leave(waiting)

        run(main())

    @pytest.mark.parametrize(
        ("asked", "second"),
        [("5", 25), ("90", 95), ("86400", 605), ("Tue, 14 Nov 2023 22:35:05 GMT", 105), ("soon", 25)],
        ids=["less than the backoff", "more", "too much", "a date", "nonsense"],
    )
    def test_obeys_retry_after(self, asked: str, second: float) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.clock_offset += 1_700_000_000 - setup.server.clock()  # 22:13:20
            setup.server.put(instance("1"))
            setup.server.answer_time = 5
            setup.server.fail(fault(errors.ThrottledError, asked), times=1)
            if "GMT" in asked:
                setup.server.clock_offset += 1_200  # 22:33:20, and 22:33:25 at the answer
            waiting = setup.join(setup.wait(max_poll_failure_time=HOUR))
            await asyncio.sleep(1000)
            assert setup.polled_at()[:2] == [0, second]
            await leave(waiting)

        run(main())

    def test_a_new_wait_obeys_an_earlier_retry_after(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.put(instance("1"))
            setup.server.fail(fault(errors.ThrottledError, "300"), times=1)
            waiting = [setup.join(setup.wait(max_poll_failure_time=HOUR))]
            for _ in range(5):
                await asyncio.sleep(7)
                waiting.append(setup.join(setup.wait(), 1))
            await asyncio.sleep(270)
            assert setup.polled_at()[:2] == [0, 300]
            await leave(*waiting)

        run(main())

    @pytest.mark.parametrize(
        ("options", "polls"),
        [({"deadline": 73}, [0, 60, 73]), ({"max_poll_failure_time": 45}, [0, 45])],
        ids=["deadline", "max_poll_failure_time"],
    )
    def test_polls_once_more_at_a_time_limit(self, options: dict[str, Any], polls: list[float]) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.fail(fault(errors.ServerError))
            assert isinstance(await setup.join(setup.wait(**options), 60), errors.AstroZeroError)
            assert setup.polled_at() == polls

        run(main())


class TestRequestsPerPoll:
    @pytest.mark.parametrize(
        "seen",
        [
            ["Running"],
            ["Running"] * 40,
            ["Running", "New"] * 20,
            ["Suspended", "Running", "New", "Paused"] * 10,
        ],
    )
    def test_one_request_per_state_for_any_number_of_waits(self, seen: list[str]) -> None:
        async def main() -> None:
            setup = PollerSetup()
            rows = [instance(str(number), state) for number, state in enumerate(seen)]
            setup.server.put(*rows)
            waiting = [setup.join(setup.wait(seen=row)) for row in rows]
            await asyncio.sleep(35)
            assert setup.requests_per_poll() == [len(set(seen))] * 4
            assert setup.notes == []
            await leave(*waiting)

        run(main())

    def test_searches_a_key_in_every_state_and_then_follows_the_id(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            awaited = setup.wait(None, key=BusinessKey("K", "Approval"))
            waiting = setup.join(awaited)
            await asyncio.sleep(15)
            every = len(states.STATES)
            assert setup.requests_per_poll() == [
                2 * every,
                2 * every,
            ]  # twice: an instance may have moved between two queries
            assert setup.notes == [
                "an instance with business key 'K' of BPM 'Approval' is in none of the states; it may still be started"
            ]
            setup.server.put(instance("9", business_key="K"), instance("8", business_key="K", name="Another"))
            await asyncio.sleep(10)
            assert awaited.instance_id == "9"
            await asyncio.sleep(20)
            setup.server.put(instance("9", "Completed OK", business_key="K"))
            assert await waiting is setup.server.rows["9"]
            # Found in the full search, then in its own list, then in the second list after it has left "Running".
            assert setup.requests_per_poll()[2:] == [every, 1, 1, 3]

        run(main())

    def test_a_batch_costs_as_much_as_one_instance(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            rows = [instance(str(number), ("Running", "New")[number % 2]) for number in range(10_000)]
            setup.server.put(*rows)
            everyone = setup.join(BatchWait(WaitCondition(), rows))
            single = [setup.join(setup.wait(seen=row)) for row in rows[:4]]
            await asyncio.sleep(25)
            assert setup.requests_per_poll() == [2] * 3
            assert setup.notes == []
            setup.server.put(*(instance(row.id, "Completed OK") for row in rows[1:]), instance("0", "Broken"))
            (reason,) = (await everyone).failed.values()
            assert reason == "it ended in state 'Broken'; the wait was for state 'Completed OK'"
            assert "Closed 10000 of 10000, 1 failed" in setup.notes
            await asyncio.gather(*single)

        run(main())

    def test_a_watch_and_a_wait_share_lists(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.put(instance("1"), instance("2"))
            watch = Watch(WatchTargets.of("Approval", ["Completed OK", "Running"], None))
            waiting = setup.join(setup.wait("1", seen=instance("1")))
            async with setup.poller.join(watch, interval=10, connection="watched") as subscription:
                assert len(await subscription.notes()) == 1
                assert setup.requests_per_poll() == [2]  # Running is listed once, for both
                watch.acknowledge()
                setup.server.put(instance("1", "Completed OK"))
                assert (await waiting).state == "Completed OK"
                assert await subscription.notes() == []
                assert [entry.id for entry in watch.entries.values()] == ["1"]
                assert setup.requests_per_poll() == [2, 2]

        run(main())

    def test_a_finished_wait_sends_no_request(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            done = instance("1", "Completed OK")
            assert await setup.join(setup.wait(seen=done)) is done
            await setup.poller.ended()
            assert setup.client.polls == []
            assert setup.client.closed == 1

        run(main())
