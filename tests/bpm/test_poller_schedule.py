"""When the poller looks, and what that costs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_provider_astrobpm.bpm import errors, states
from airflow_provider_astrobpm.bpm.condition import WaitCondition
from airflow_provider_astrobpm.bpm.group_wait import GroupWait
from airflow_provider_astrobpm.bpm.places import Places
from airflow_provider_astrobpm.bpm.search import BusinessKey
from airflow_provider_astrobpm.bpm.watch import Watch
from tests.bpm.poller_scene import HOUR, Scene, fault, leave, nothing_learnt
from tests.support.memory_server import instance
from tests.support.virtual_time import run

__all__ = ["nothing_learnt"]


class TestWhenItLooks:
    @pytest.mark.parametrize(
        ("jitter", "looks"),
        [
            (0.0, [0, 60, 120, 180]),
            (0.5, [30, 87, 144, 201]),
            (1.0, [60, 114, 168, 222]),
        ],
    )
    def test_first_anywhere_in_an_interval_then_a_little_early(
        self, jitter: float, looks: list[float]
    ) -> None:
        async def main() -> None:
            scene = Scene(jitter=jitter)
            scene.server.put(instance("1"))
            waiting = scene.join(scene.wait(), 60)
            await asyncio.sleep(looks[-1] + 1)
            assert scene.looked_at() == looks
            await leave(waiting)

        run(main())

    def test_the_smallest_interval_counts_while_its_wait_goes_on(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(instance("1"), instance("2"))
            patient = scene.join(scene.wait("1"), 60)
            await asyncio.sleep(90)
            hasty = scene.join(scene.wait("2"), 10)
            await asyncio.sleep(35)
            await leave(hasty)
            await asyncio.sleep(200)
            # It is there from 90 to 125; the look that is due already then still comes.
            assert scene.looked_at() == [0, 60, 100, 110, 120, 130, 190, 250, 310]
            await leave(patient)

        run(main())

    @pytest.mark.parametrize(
        ("interval", "answer_time", "looks"),
        [
            (10, 4, [0, 10, 20, 30]),
            (10, 12, [0, 13, 26, 39]),
            (1, 0, [0, 1, 2, 3]),
            (0.1, 0, [0, 1, 2, 3]),
        ],
    )
    def test_one_look_at_a_time_and_a_second_between(
        self, interval: float, answer_time: float, looks: list[float]
    ) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(instance("1", seen := "Waiting for user interaction"))
            scene.server.answer_time = answer_time
            waiting = scene.join(scene.wait(seen=instance("1", seen)), interval)
            await asyncio.sleep(looks[-1] + 0.5)
            assert scene.looked_at() == looks
            assert scene.client.wrongs == []
            await leave(waiting)

        run(main())

    @pytest.mark.parametrize(
        ("interval", "failing", "looks"),
        [
            (10, 6, [0, 20, 60, 120, 180, 240, 300, 310, 320]),
            (60, 2, [0, 60, 120, 180, 240]),
            (300, 2, [0, 300, 600, 900]),
        ],
        ids=["at most a minute", "a minute already", "or the interval"],
    )
    def test_looks_that_fail_come_less_and_less_often(
        self, interval: float, failing: int, looks: list[float]
    ) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(row := instance("1"))
            scene.server.fail(fault(errors.ServerError), times=failing)
            waiting = scene.join(scene.wait(seen=row, max_poll_failure_time=HOUR), interval)
            await asyncio.sleep(looks[-1] + 1)
            assert scene.looked_at() == looks
            await leave(waiting)

        run(main())

    def test_one_list_that_fails_is_no_server_that_is_down(self) -> None:
        async def main() -> None:
            scene = Scene()
            here, there = instance("1"), instance("2", "Waiting for user interaction")
            scene.server.put(here, there)
            scene.server.bad_lists["Running"] = fault(errors.ServerError)
            scene.join(scene.wait("1", seen=here, max_poll_failure_time=95), connection="in it")
            waiting = scene.join(
                scene.wait("2", seen=there, max_poll_failure_time=95), connection="not in it"
            )
            await asyncio.sleep(94)
            assert scene.ended == []
            await asyncio.sleep(12)
            assert scene.ended == ["in it"]
            assert scene.looked_at() == [*range(0, 91, 10), 95, 105]
            assert scene.costs() == [2] * 11 + [1]
            scene.server.put(instance("2", "Completed OK"))
            assert (await waiting).state == "Completed OK"

        run(main())

    def test_a_server_that_throttles_is_left_alone_though_the_first_list_came(self) -> None:
        async def main() -> None:
            scene = Scene()
            rows = instance("1", "Waiting for user interaction"), instance("2", "New")
            scene.server.put(*rows)
            scene.server.bad_lists["New"] = fault(errors.ThrottledError, "45")
            waiting = [scene.join(scene.wait(row.id, seen=row, max_poll_failure_time=HOUR)) for row in rows]
            await asyncio.sleep(160)
            assert scene.looked_at() == [0, 45, 90, 150]  # more than it asks for, after three in a row
            await leave(*waiting)

        run(main())

    def test_the_pause_after_a_failure_counts_from_its_end(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.answer_time = 100
            scene.server.fail(fault(errors.InterruptedCallError))
            waiting = scene.join(scene.wait(seen=instance("1"), max_poll_failure_time=HOUR), 60)
            await asyncio.sleep(330)
            assert scene.looked_at() == [0, 160, 320]
            await leave(waiting)

        run(main())

    @pytest.mark.parametrize(
        ("asked", "second"),
        [("5", 25), ("90", 95), ("86400", 605), ("Tue, 14 Nov 2023 22:35:05 GMT", 105), ("soon", 25)],
        ids=["less than its own pause", "more", "too much", "a date", "nonsense"],
    )
    def test_the_server_is_left_alone_for_as_long_as_it_asks(self, asked: str, second: float) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.clock_offset += 1_700_000_000 - scene.server.clock()  # 22:13:20
            scene.server.put(instance("1"))
            scene.server.answer_time = 5
            scene.server.fail(fault(errors.ThrottledError, asked), times=1)
            if "GMT" in asked:
                scene.server.clock_offset += 1_200  # 22:33:20, and 22:33:25 at the answer
            waiting = scene.join(scene.wait(max_poll_failure_time=HOUR))
            await asyncio.sleep(1000)
            assert scene.looked_at()[:2] == [0, second]
            await leave(waiting)

        run(main())

    def test_a_newcomer_leaves_the_server_alone_too(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(instance("1"))
            scene.server.fail(fault(errors.ThrottledError, "300"), times=1)
            waiting = [scene.join(scene.wait(max_poll_failure_time=HOUR))]
            for _ in range(5):
                await asyncio.sleep(7)
                waiting.append(scene.join(scene.wait(), 1))
            await asyncio.sleep(270)
            assert scene.looked_at()[:2] == [0, 300]
            await leave(*waiting)

        run(main())

    @pytest.mark.parametrize(
        ("options", "looks"),
        [({"deadline": 73}, [0, 60, 73]), ({"max_poll_failure_time": 45}, [0, 45])],
        ids=["deadline", "max_poll_failure_time"],
    )
    def test_once_more_where_patience_ends(self, options: dict[str, Any], looks: list[float]) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.fail(fault(errors.ServerError))
            assert isinstance(await scene.join(scene.wait(**options), 60), errors.AstroZeroError)
            assert scene.looked_at() == looks

        run(main())


class TestWhatALookCosts:
    @pytest.mark.parametrize(
        "seen",
        [
            ["Running"],
            ["Running"] * 40,
            ["Running", "New"] * 20,
            ["Suspended", "Running", "New", "Paused"] * 10,
        ],
    )
    def test_a_request_for_each_state_however_many_wait(self, seen: list[str]) -> None:
        async def main() -> None:
            scene = Scene()
            rows = [instance(str(number), state) for number, state in enumerate(seen)]
            scene.server.put(*rows)
            waiting = [scene.join(scene.wait(seen=row)) for row in rows]
            await asyncio.sleep(35)
            assert scene.costs() == [len(set(seen))] * 4
            assert scene.notes == []
            await leave(*waiting)

        run(main())

    def test_a_key_is_sought_in_every_state_and_then_followed_by_its_id(self) -> None:
        async def main() -> None:
            scene = Scene()
            awaited = scene.wait(None, key=BusinessKey("K", "Approval"))
            waiting = scene.join(awaited)
            await asyncio.sleep(15)
            every = len(states.STATES)
            assert scene.costs() == [2 * every, 2 * every]  # twice: it may have moved between two queries
            assert scene.notes == [
                "an instance with business key 'K' of BPM 'Approval' is in none of the states; it may still be started"
            ]
            scene.server.put(instance("9", business_key="K"), instance("8", business_key="K", name="Another"))
            await asyncio.sleep(10)
            assert awaited.instance_id == "9"
            await asyncio.sleep(20)
            scene.server.put(instance("9", "Completed OK", business_key="K"))
            assert await waiting is scene.server.rows["9"]
            # Found among all; listed where it was; then it has left "Running" and is the second in the order of search.
            assert scene.costs()[2:] == [every, 1, 1, 3]

        run(main())

    def test_a_group_costs_what_one_does(self) -> None:
        async def main() -> None:
            scene = Scene()
            rows = [instance(str(number), ("Running", "New")[number % 2]) for number in range(10_000)]
            scene.server.put(*rows)
            everybody = scene.join(GroupWait(WaitCondition(), rows))
            single = [scene.join(scene.wait(seen=row)) for row in rows[:4]]
            await asyncio.sleep(25)
            assert scene.costs() == [2] * 3
            assert scene.notes == []
            scene.server.put(*(instance(row.id, "Completed OK") for row in rows[1:]), instance("0", "Broken"))
            (reason,) = (await everybody).failed.values()
            assert reason == "it ended in state 'Broken'; the wait was for state 'Completed OK'"
            assert "Closed 10000 of 10000, 1 failed" in scene.notes
            await asyncio.gather(*single)

        run(main())

    def test_a_watch_and_those_who_wait_share_the_lists(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(instance("1"), instance("2"))
            watch = Watch(Places.of("Approval", ["Completed OK", "Running"], None))
            waiting = scene.join(scene.wait("1", seen=instance("1")))
            async with scene.poller.join(watch, interval=10, connection="watched") as subscription:
                assert len(await subscription.notes()) == 1
                assert scene.costs() == [2]  # Running is asked for once, for both
                watch.acknowledge()
                scene.server.put(instance("1", "Completed OK"))
                assert (await waiting).state == "Completed OK"
                assert await subscription.notes() == []
                assert [entry.instance.id for entry in watch.entries] == ["1"]
                assert scene.costs() == [2, 2]

        run(main())

    def test_no_wait_no_request(self) -> None:
        async def main() -> None:
            scene = Scene()
            done = instance("1", "Completed OK")
            assert await scene.join(scene.wait(seen=done)) is done
            await scene.poller.ended()
            assert scene.client.looks == []
            assert scene.client.closed == 1

        run(main())
