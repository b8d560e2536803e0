"""Whom the poller wakes, and how the waits end."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from airflow_provider_astrobpm.bpm import errors
from airflow_provider_astrobpm.bpm.condition import WaitCondition
from airflow_provider_astrobpm.bpm.group_wait import GroupEnd, GroupWait
from airflow_provider_astrobpm.bpm.poller import MAX_LATENESS_SECONDS, MAX_WAKEUPS_AT_ONCE
from airflow_provider_astrobpm.bpm.wait import MIN_MISSING_SECONDS, Note
from tests.bpm.poller_scene import HOUR, Scene, fault, leave, nothing_learnt
from tests.support.memory_server import instance
from tests.support.virtual_time import run

__all__ = ["nothing_learnt"]


class TestWhoIsWoken:
    def test_nobody_while_nothing_changes(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(row := instance("1"))
            subscription = scene.poller.join(scene.wait(seen=row, deadline=HOUR), interval=1, connection="c")
            async with subscription:
                waiting = asyncio.ensure_future(subscription.notes())
                await asyncio.sleep(0)
                future = subscription._waiter
                scene.server.clock_offset -= HOUR  # also when the deadline moves away
                await asyncio.sleep(1.5 * HOUR)
                assert len(scene.client.looks) > 5000
                assert subscription._waiter is future
                scene.server.put(instance("1", "Suspended"))
                assert await waiting == [Note(f"Now {scene.server.rows['1']}")]

        run(main())

    def test_nobody_has_to_wait_for_what_is_there_already(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(instance("1"))
            async with scene.poller.join(scene.wait(), interval=10, connection="c") as subscription:
                await asyncio.sleep(5)
                began = scene.loop.now
                assert await subscription.notes() == [Note(f"Found {scene.server.rows['1']}")]
                scene.server.put(instance("1", "Completed OK"))
                await asyncio.sleep(20)
                assert len(await subscription.notes()) == 1
                assert await subscription.notes() == []
                assert scene.loop.now == began + 20

        run(main())

    def test_a_newcomer_in_the_middle_of_a_look_is_answered_by_the_next(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(instance("1", "Completed OK"), instance("2", "Completed OK"))
            scene.server.answer_time = 1
            scene.join(scene.wait("1"), 60, "early")
            await asyncio.sleep(0.5)
            late = scene.join(scene.wait("2"), 60, "late")
            await asyncio.sleep(10)
            assert scene.ended == ["early"]
            await late
            assert scene.looked_at() == [0, 60]
            # The first look did not know of it, so it cannot have told it anything.
            assert [row.id for row in scene.client.looks[0].shown] == ["2", "1"]

        run(main())

    def test_a_few_at_a_time_so_that_the_loop_goes_on(self) -> None:
        async def main() -> None:
            scene = Scene()
            rows = [instance(str(number)) for number in range(5000)]
            scene.server.put(*rows)
            waiting = [scene.join(scene.wait(seen=row)) for row in rows]
            await asyncio.sleep(5)
            scene.server.put(*(instance(row.id, "Completed OK") for row in rows))
            ended_by_round = [0]
            scene.loop.each_round = lambda: ended_by_round.append(len(scene.ended))
            await asyncio.gather(*waiting)
            scene.loop.each_round = lambda: None
            in_a_round = [after - before for before, after in pairwise(ended_by_round)]
            assert len(scene.client.looks) == 2
            assert sum(in_a_round) == 5000
            assert max(in_a_round) == MAX_WAKEUPS_AT_ONCE

        run(main())

    def test_who_leaves_between_two_batches_is_left_alone(self) -> None:
        async def main() -> None:
            scene = Scene()
            rows = [instance(str(number)) for number in range(3 * MAX_WAKEUPS_AT_ONCE)]
            waiting = [scene.join(scene.wait(row.id), connection=row.id) for row in rows]
            scene.server.put(*(instance(row.id, "Completed OK") for row in rows))
            await waiting[0]
            await leave(*waiting[-10:])
            await asyncio.gather(*waiting[:-10])
            assert scene.ended == [row.id for row in rows[:-10]]

        run(main())

    def test_one_instance_for_several_conditions(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(instance("1", bp_status="Approved"))
            approved = scene.join(scene.wait(condition=WaitCondition.of(bp_statuses=["Approved"])))
            refused = scene.join(scene.wait(condition=WaitCondition.of(failed_bp_statuses=["Approved"])))
            completed = scene.join(scene.wait())
            assert (await approved).bp_status == "Approved"
            assert isinstance(await refused, errors.WaitFailedError)
            assert not completed.done()
            await leave(completed)

        run(main())


class TestHowAWaitEnds:
    def test_each_with_an_error_of_its_own(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(instance("1", "Broken"), instance("2"))
            broken = await scene.join(scene.wait("1"), connection="a_conn")
            late = await scene.join(scene.wait("2", deadline=5), connection="b_conn")
            assert (type(broken), broken.connection) == (errors.WaitFailedError, "a_conn")
            assert (type(late), late.connection) == (errors.WaitTimeoutError, "b_conn")

        run(main())

    def test_the_error_of_a_shared_look_names_each_ones_connection(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.fail(fault(errors.ServerError))
            tasks = [
                scene.join(scene.wait(max_poll_failure_time=0), connection=f"conn_{n}") for n in range(3)
            ]
            endings = await asyncio.gather(*tasks)
            assert [ending.connection for ending in endings] == ["conn_0", "conn_1", "conn_2"]
            assert all("polls have failed for 0 s ('max_poll_failure_time')" in str(end) for end in endings)
            assert str(endings[0]).count("max_poll_failure_time") == 1

        run(main())

    def test_refused_credentials_end_it_at_once_and_new_ones_may_go_on(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(instance("1"))
            awaited = scene.wait()
            scene.server.fail(fault(errors.AuthenticationError), times=1, after=3)
            ending = await scene.join(awaited, connection="my_conn")
            assert (type(ending), ending.connection) == (errors.AuthenticationError, "my_conn")
            assert scene.looked_at() == [0, 10, 20]

            again = Scene()
            again.server.put(instance("1", "Completed OK"))
            awaited.resume()
            assert await again.join(awaited) is again.server.rows["1"]

        run(main())

    def test_a_defect_ends_it_too(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.fail(lambda: LookupError("a defect"))
            endings = await asyncio.gather(scene.join(scene.wait("1")), scene.join(scene.wait("2")))
            assert [str(ending) for ending in endings] == ["a defect", "a defect"]
            assert scene.looked_at() == [0]

        run(main())

    def test_a_group_has_a_last_word_even_then(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.fail(lambda: LookupError("a defect"))
            ending = await scene.join(
                GroupWait(WaitCondition(), [instance("1", "Completed OK"), instance("2")])
            )
            assert str(ending) == "a defect"
            assert scene.notes == ["Closed 1 of 2, 0 failed"]

        run(main())

    def test_a_group_ends_at_its_deadline_though_a_look_takes_long(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.answer_time = HOUR
            awaited = GroupWait(WaitCondition(), [instance("1")], deadline=scene.server.clock() + 30)
            assert isinstance(await scene.join(awaited), errors.WaitTimeoutError)
            assert awaited.so_far() == GroupEnd(0, {}, ("1",))

        run(main())

    def test_gone_is_what_three_looks_in_a_minute_do_not_show(self) -> None:
        async def main() -> None:
            for interval, looks in (
                (10.0, [0, 10, 20, 30, 40, 50, 60, 70]),
                (60.0, [0, 60, 120, 180]),
            ):
                scene = Scene()
                scene.server.put(instance("1"))
                waiting = scene.join(scene.wait(), interval)
                await asyncio.sleep(1)
                scene.server.rows.clear()
                assert isinstance(await waiting, errors.InstanceNotFoundError)
                assert scene.looked_at() == looks

        run(main())

    def test_what_is_missing_may_come_back(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(row := instance("1"))
            waiting = scene.join(scene.wait())
            await asyncio.sleep(5)
            for _ in range(3):
                scene.server.rows.clear()
                await asyncio.sleep(60)
                assert not waiting.done()
                scene.server.put(row)
                await asyncio.sleep(60)
            assert scene.notes[1:] == ["instance '1' is in none of the states; polling again"] * 3
            scene.server.put(instance("1", "Completed OK"))
            assert (await waiting).state == "Completed OK"

        run(main())

    def test_a_failed_look_is_no_failed_wait(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(instance("1"))
            waiting = scene.join(scene.wait(max_poll_failure_time=100))
            await asyncio.sleep(5)
            for _ in range(3):
                scene.server.fail(fault(errors.InterruptedCallError))
                await asyncio.sleep(80)
                scene.server.heal()
                await asyncio.sleep(80)
            assert [note.split(".")[0] for note in scene.notes[1:]] == [
                "Polls are failing; still waiting",
                "Polls succeed again",
            ] * 3
            await leave(waiting)

        run(main())

    def test_a_deadline_waits_for_no_answer(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.answer_time = HOUR
            ending = await scene.join(scene.wait(deadline=30))
            assert isinstance(ending, errors.WaitTimeoutError)
            assert scene.loop.now == scene.began + 30 + MAX_LATENESS_SECONDS

        run(main())

    @pytest.mark.parametrize("set_by", [HOUR, -HOUR])
    def test_a_clock_that_is_set_makes_no_stretch_longer_or_shorter(self, set_by: float) -> None:
        async def main() -> None:
            for failing in (True, False):
                scene = Scene()
                scene.server.put(instance("1"))
                waiting = scene.join(scene.wait(max_poll_failure_time=90))
                await asyncio.sleep(5)
                if failing:
                    scene.server.fail(fault(errors.ServerError))
                else:
                    scene.server.rows.clear()
                await asyncio.sleep(10)
                scene.server.clock_offset += set_by
                ending = await waiting
                if failing:
                    assert "polls have failed for 90 s" in str(ending)
                else:
                    assert isinstance(ending, errors.InstanceNotFoundError)
                assert scene.loop.now - scene.began == 10 + (90 if failing else MIN_MISSING_SECONDS)

        run(main())

    @pytest.mark.parametrize(("set_by", "ends_at"), [(-HOUR, 30 + HOUR), (0.0, 30.0), (20.0, 10.0)])
    def test_a_deadline_is_one_of_the_wall_clock(self, set_by: float, ends_at: float) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(instance("1"))
            waiting = scene.join(scene.wait(deadline=30))
            await asyncio.sleep(5)
            scene.server.clock_offset += set_by
            assert isinstance(await waiting, errors.WaitTimeoutError)
            assert scene.loop.now - scene.began == pytest.approx(ends_at, abs=1e-5)

        run(main())
