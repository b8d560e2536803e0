"""Which waits the poller wakes up, and how they end."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from airflow_provider_astrobpm.client import errors
from airflow_provider_astrobpm.client.log_note import LogNote
from airflow_provider_astrobpm.waiting.batch_wait import BatchWait, BatchWaitResult
from airflow_provider_astrobpm.waiting.condition import WaitCondition
from airflow_provider_astrobpm.waiting.poller import MAX_LATENESS_SECONDS, MAX_WAKEUPS_AT_ONCE
from airflow_provider_astrobpm.waiting.wait import MIN_MISSING_SECONDS
from tests.support.memory_server import instance
from tests.support.virtual_time import run
from tests.waiting.poller_setup import HOUR, PollerSetup, fault, forget_other_tests, leave

__all__ = ["forget_other_tests"]


class TestWakeups:
    def test_no_wait_is_woken_while_nothing_changes(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.put(row := instance("1"))
            subscription = setup.poller.join(setup.wait(seen=row, deadline=HOUR), interval=1, connection="c")
            async with subscription:
                waiting = asyncio.ensure_future(subscription.notes())
                await asyncio.sleep(0)
                future = subscription._waiter
                setup.server.clock_offset -= HOUR  # also if the deadline moves away
                await asyncio.sleep(1.5 * HOUR)
                assert len(setup.client.polls) > 5000
                assert subscription._waiter is future
                setup.server.put(instance("1", "Suspended"))
                assert await waiting == [LogNote(f"Now {setup.server.rows['1']}")]

        run(main())

    def test_pending_news_is_returned_at_once(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.put(instance("1"))
            async with setup.poller.join(setup.wait(), interval=10, connection="c") as subscription:
                await asyncio.sleep(5)
                began = setup.loop.now
                assert await subscription.notes() == [LogNote(f"Found {setup.server.rows['1']}")]
                setup.server.put(instance("1", "Completed OK"))
                await asyncio.sleep(20)
                assert len(await subscription.notes()) == 1
                assert await subscription.notes() == []
                assert setup.loop.now == began + 20

        run(main())

    def test_a_wait_that_joins_during_a_poll_is_served_by_the_next(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.put(instance("1", "Completed OK"), instance("2", "Completed OK"))
            setup.server.answer_time = 1
            setup.join(setup.wait("1"), 60, "early")
            await asyncio.sleep(0.5)
            late = setup.join(setup.wait("2"), 60, "late")
            await asyncio.sleep(10)
            assert setup.ended == ["early"]
            await late
            assert setup.polled_at() == [0, 60]
            # The first poll did not know about the late wait, so it cannot have reported anything to it.
            assert [row.id for row in setup.client.polls[0].shown] == ["2", "1"]

        run(main())

    def test_wakes_a_few_waits_at_a_time(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            rows = [instance(str(number)) for number in range(5000)]
            setup.server.put(*rows)
            waiting = [setup.join(setup.wait(seen=row)) for row in rows]
            await asyncio.sleep(5)
            setup.server.put(*(instance(row.id, "Completed OK") for row in rows))
            ended_by_round = [0]
            setup.loop.each_round = lambda: ended_by_round.append(len(setup.ended))
            await asyncio.gather(*waiting)
            setup.loop.each_round = lambda: None
            in_a_round = [after - before for before, after in pairwise(ended_by_round)]
            assert len(setup.client.polls) == 2
            assert sum(in_a_round) == 5000
            assert max(in_a_round) == MAX_WAKEUPS_AT_ONCE

        run(main())

    def test_a_wait_that_leaves_between_two_wakeup_rounds_is_not_woken(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            rows = [instance(str(number)) for number in range(3 * MAX_WAKEUPS_AT_ONCE)]
            waiting = [setup.join(setup.wait(row.id), connection=row.id) for row in rows]
            setup.server.put(*(instance(row.id, "Completed OK") for row in rows))
            await waiting[0]
            await leave(*waiting[-10:])
            await asyncio.gather(*waiting[:-10])
            assert setup.ended == [row.id for row in rows[:-10]]

        run(main())

    def test_one_instance_serves_several_conditions(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.put(instance("1", bp_status="Approved"))
            approved = setup.join(setup.wait(condition=WaitCondition.of(bp_statuses=["Approved"])))
            refused = setup.join(setup.wait(condition=WaitCondition.of(failed_bp_statuses=["Approved"])))
            completed = setup.join(setup.wait())
            assert (await approved).bp_status == "Approved"
            assert isinstance(await refused, errors.WaitFailedError)
            assert not completed.done()
            await leave(completed)

        run(main())


class TestEndOfWaits:
    def test_each_wait_gets_its_own_error(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.put(instance("1", "Broken"), instance("2"))
            broken = await setup.join(setup.wait("1"), connection="a_conn")
            late = await setup.join(setup.wait("2", deadline=5), connection="b_conn")
            assert (type(broken), broken.connection) == (errors.WaitFailedError, "a_conn")
            assert (type(late), late.connection) == (errors.WaitTimeoutError, "b_conn")

        run(main())

    def test_errors_of_a_shared_poll_name_each_waits_connection(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.fail(fault(errors.ServerError))
            tasks = [
                setup.join(setup.wait(max_poll_failure_time=0), connection=f"conn_{n}") for n in range(3)
            ]
            endings = await asyncio.gather(*tasks)
            assert [ending.connection for ending in endings] == ["conn_0", "conn_1", "conn_2"]
            assert all("polls have failed for 0 s ('max_poll_failure_time')" in str(end) for end in endings)
            assert str(endings[0]).count("max_poll_failure_time") == 1

        run(main())

    def test_refused_credentials_fail_a_wait_that_new_ones_can_resume(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.put(instance("1"))
            awaited = setup.wait()
            setup.server.fail(fault(errors.AuthenticationError), times=1, after=3)
            ending = await setup.join(awaited, connection="my_conn")
            assert (type(ending), ending.connection) == (errors.AuthenticationError, "my_conn")
            assert setup.polled_at() == [0, 10, 20]

            again = PollerSetup()
            again.server.put(instance("1", "Completed OK"))
            awaited.resume()
            assert await again.join(awaited) is again.server.rows["1"]

        run(main())

    def test_a_defect_fails_all_waits(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.fail(lambda: LookupError("a defect"))
            endings = await asyncio.gather(setup.join(setup.wait("1")), setup.join(setup.wait("2")))
            assert [str(ending) for ending in endings] == ["a defect", "a defect"]
            assert setup.polled_at() == [0]

        run(main())

    def test_a_batch_logs_its_progress_after_a_defect(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.fail(lambda: LookupError("a defect"))
            ending = await setup.join(
                BatchWait(WaitCondition(), [instance("1", "Completed OK"), instance("2")])
            )
            assert str(ending) == "a defect"
            assert setup.notes == ["Closed 1 of 2, 0 failed"]

        run(main())

    def test_a_batch_times_out_even_during_a_slow_poll(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.answer_time = HOUR
            awaited = BatchWait(WaitCondition(), [instance("1")], deadline=setup.server.clock() + 30)
            assert isinstance(await setup.join(awaited), errors.WaitTimeoutError)
            assert awaited.so_far() == BatchWaitResult(0, {}, ("1",))

        run(main())

    def test_an_instance_is_gone_after_three_missing_polls_and_a_minute(self) -> None:
        async def main() -> None:
            for interval, polls in (
                (10.0, [0, 10, 20, 30, 40, 50, 60, 70]),
                (60.0, [0, 60, 120, 180]),
            ):
                setup = PollerSetup()
                setup.server.put(instance("1"))
                waiting = setup.join(setup.wait(), interval)
                await asyncio.sleep(1)
                setup.server.rows.clear()
                assert isinstance(await waiting, errors.InstanceNotFoundError)
                assert setup.polled_at() == polls

        run(main())

    def test_a_missing_instance_may_come_back(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.put(row := instance("1"))
            waiting = setup.join(setup.wait())
            await asyncio.sleep(5)
            for _ in range(3):
                setup.server.rows.clear()
                await asyncio.sleep(60)
                assert not waiting.done()
                setup.server.put(row)
                await asyncio.sleep(60)
            assert setup.notes[1:] == ["instance '1' is in none of the states; polling again"] * 3
            setup.server.put(instance("1", "Completed OK"))
            assert (await waiting).state == "Completed OK"

        run(main())

    def test_a_failed_poll_does_not_fail_the_wait(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.put(instance("1"))
            waiting = setup.join(setup.wait(max_poll_failure_time=100))
            await asyncio.sleep(5)
            for _ in range(3):
                setup.server.fail(fault(errors.InterruptedCallError))
                await asyncio.sleep(80)
                setup.server.heal()
                await asyncio.sleep(80)
            assert [note.split(".")[0] for note in setup.notes[1:]] == [
                "Polls are failing; still waiting",
                "Polls succeed again",
            ] * 3
            await leave(waiting)

        run(main())

    def test_times_out_without_waiting_for_an_answer(self) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.answer_time = HOUR
            ending = await setup.join(setup.wait(deadline=30))
            assert isinstance(ending, errors.WaitTimeoutError)
            assert setup.loop.now == setup.began + 30 + MAX_LATENESS_SECONDS

        run(main())

    @pytest.mark.parametrize("set_by", [HOUR, -HOUR])
    def test_setting_the_clock_does_not_change_durations(self, set_by: float) -> None:
        async def main() -> None:
            for failing in (True, False):
                setup = PollerSetup()
                setup.server.put(instance("1"))
                waiting = setup.join(setup.wait(max_poll_failure_time=90))
                await asyncio.sleep(5)
                if failing:
                    setup.server.fail(fault(errors.ServerError))
                else:
                    setup.server.rows.clear()
                await asyncio.sleep(10)
                setup.server.clock_offset += set_by
                ending = await waiting
                if failing:
                    assert "polls have failed for 90 s" in str(ending)
                else:
                    assert isinstance(ending, errors.InstanceNotFoundError)
                assert setup.loop.now - setup.began == 10 + (90 if failing else MIN_MISSING_SECONDS)

        run(main())

    @pytest.mark.parametrize(("set_by", "ends_at"), [(-HOUR, 30 + HOUR), (0.0, 30.0), (20.0, 10.0)])
    def test_the_deadline_follows_the_wall_clock(self, set_by: float, ends_at: float) -> None:
        async def main() -> None:
            setup = PollerSetup()
            setup.server.put(instance("1"))
            waiting = setup.join(setup.wait(deadline=30))
            await asyncio.sleep(5)
            setup.server.clock_offset += set_by
            assert isinstance(await waiting, errors.WaitTimeoutError)
            assert setup.loop.now - setup.began == pytest.approx(ends_at, abs=1e-5)

        run(main())
