"""The poller, on virtual time: when it looks, what that costs, whom it wakes, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import fields, replace
from datetime import timezone
from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_astrobpm.bpm import errors, search, states
from airflow_provider_astrobpm.bpm.api import Operation
from airflow_provider_astrobpm.bpm.condition import WaitCondition
from airflow_provider_astrobpm.bpm.group_wait import GroupEnd, GroupWait
from airflow_provider_astrobpm.bpm.places import Places
from airflow_provider_astrobpm.bpm.poller import AT_A_TIME, HEARTBEAT, LATENESS, STALL, Poller, Pollers
from airflow_provider_astrobpm.bpm.search import BusinessKey
from airflow_provider_astrobpm.bpm.settings import ReadyToken, Settings
from airflow_provider_astrobpm.bpm.wait import MISSING_TIME, AnyWait, Note, Wait
from airflow_provider_astrobpm.bpm.watch import Watch
from tests.bpm.virtual_time import Client, Server, VirtualLoop, instance, run, settings

HOUR = 3600.0


class Scene:
    """A poller with its server, and those who wait. To be made in a running loop, at the time 0 of its looks."""

    def __init__(self, *, jitter: float = 0.0, pollers: Pollers | None = None) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop = loop
        self.began = loop.now
        self.server = Server(loop)
        self.client = Client(settings(), self.server)
        if pollers:
            self.poller = pollers.get(settings(), lambda _: self.client)
        else:
            self.poller = Poller(self.client, clock=self.server.clock, jitter=lambda: jitter)
        self.ended: list[str] = []
        self.notes: list[str] = []

    def wait(self, instance_id: str | None = "1", *, deadline: float | None = None, **options: Any) -> Wait:
        by = None if deadline is None else self.server.clock() + deadline
        return Wait(
            options.pop("condition", WaitCondition()), instance_id=instance_id, deadline=by, **options
        )

    def join(
        self, awaited: AnyWait[Any], interval: float = 10, connection: str = "first_conn"
    ) -> asyncio.Task[Any]:
        """Wait as a trigger does."""
        return self.loop.create_task(self._wait(awaited, interval, connection))

    async def _wait(self, awaited: AnyWait[Any], interval: float, connection: str) -> Any:
        async with self.poller.join(awaited, interval=interval, connection=connection) as subscription:
            while awaited.ending is None:
                self.notes += [note.text for note in await subscription.notes()]
        self.ended.append(connection)
        return awaited.ending

    def looked_at(self) -> list[float]:
        """Return when the looks began."""
        return [round(look.began - self.began, 3) for look in self.client.looks]

    def costs(self) -> list[int]:
        """Return how many requests each look took."""
        return [len(look.asked) for look in self.client.looks]


async def leave(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def fault(kind: type[errors.CallError], retry_after: str | None = None) -> Callable[[], Exception]:
    def make() -> Exception:
        error = kind("injected")
        error.retry_after = retry_after
        return error

    return make


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
            assert reason == "it ended in state 'Broken'; asked for was state 'Completed OK'"
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
                watch.noticed()
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
                assert await subscription.notes() == [Note(f"Seen: {scene.server.rows['1']}")]
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
            assert max(in_a_round) == AT_A_TIME

        run(main())

    def test_who_leaves_between_two_batches_is_left_alone(self) -> None:
        async def main() -> None:
            scene = Scene()
            rows = [instance(str(number)) for number in range(3 * AT_A_TIME)]
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
            assert scene.notes[1:] == ["instance '1' is in none of the states; looking again"] * 3
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
                "Polls fail from now on; the wait goes on",
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
            assert scene.loop.now == scene.began + 30 + LATENESS

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
                assert scene.loop.now - scene.began == 10 + (90 if failing else MISSING_TIME)

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


class TestHowItEnds:
    @pytest.mark.parametrize("answer_time", [0, 5], ids=["while it sleeps", "in the middle of a look"])
    def test_with_the_last_one_who_waits(self, answer_time: float) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(instance("1"))
            scene.server.answer_time, scene.server.closing_time = answer_time, 3
            waiting = [scene.join(scene.wait(deadline=HOUR)) for _ in range(3)]
            await asyncio.sleep(2)
            await leave(*waiting[:2])
            assert scene.client.closed == 0
            await leave(waiting[2])
            await scene.poller.ended()
            assert scene.client.closed == 1
            assert scene.loop.now == scene.began + 5
            assert not scene.loop.timers()

        run(main())

    @pytest.mark.parametrize("answer_time", [0, 5], ids=["while it sleeps", "in the middle of a look"])
    def test_cancelled_from_outside_it_tells_everybody(self, answer_time: float) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(instance("1"))
            scene.server.answer_time = answer_time
            waiting = [scene.join(scene.wait(), connection=f"conn_{n}") for n in range(2)]
            await asyncio.sleep(2)
            assert scene.poller._task is not None
            scene.poller._task.cancel()
            endings = await asyncio.gather(*waiting)
            assert [str(ending) for ending in endings] == [
                "On connection 'conn_0': The poller was stopped.",
                "On connection 'conn_1': The poller was stopped.",
            ]
            assert scene.client.closed == 1

        run(main())

    def test_who_comes_and_goes_at_once_leaves_nothing(self) -> None:
        async def main() -> None:
            scene = Scene()
            async with scene.poller.join(scene.wait(), interval=10, connection="c"):
                pass
            await scene.poller.ended()
            assert scene.client.closed == 1

        run(main())


class TestStandingStill:
    def test_is_noticed_for_a_while(self) -> None:
        async def main() -> None:
            scene = Scene()
            scene.server.put(instance("1"))
            waiting = scene.join(scene.wait())
            await asyncio.sleep(100)
            assert not scene.poller.stood_still(within=60)
            scene.loop.stand_still(HEARTBEAT + STALL + 1)  # more than may go unnoticed
            assert scene.poller.stood_still(within=60)  # before anything else has run
            await asyncio.sleep(50)
            assert scene.poller.stood_still(within=60)
            await asyncio.sleep(20)
            assert not scene.poller.stood_still(within=60)
            await leave(waiting)

        run(main())

    def test_an_ended_poller_does_not_stand_still(self) -> None:
        async def main() -> None:
            scene = Scene()
            waiting = scene.join(scene.wait())
            await asyncio.sleep(1)
            await leave(waiting)
            await asyncio.sleep(100)
            assert not scene.poller.stood_still(within=60)

        run(main())

    def test_a_stall_that_the_poller_ends_in_is_noticed(self) -> None:
        async def main() -> None:
            scene = Scene()
            waiting = scene.join(scene.wait())
            await asyncio.sleep(1)
            scene.loop.stand_still(HOUR)
            await leave(waiting)
            assert scene.poller.stood_still(within=60)

        run(main())


OTHER: dict[str, Any] = {
    "connection": "other_conn",
    "base_url": "https://other.example",
    "credentials": ReadyToken("other"),
    "verify": False,
    "client_cert": "cert",
    "client_key": "key",
    "proxy": "http://proxy.example",
    "allow_http": True,
    "connect_timeout": 1,
    "read_timeout": 1,
    "answer_timeout": 1,
    "max_attempts": 1,
    "max_wait": 1,
    "max_response_bytes": 1,
    "csrf": True,
    "timezone": timezone.utc,
    "start_grace": 1,
    "instance_lookup": "auto",
    "instance_url": "https://{host}/{instance_id}",
}


class TestTheRegistry:
    @pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
    def test_connections_share_a_poller_if_looks_are_the_same(self, name: str) -> None:
        async def main() -> None:
            pollers, known = Pollers(), settings()
            server = Server(VirtualLoop())
            first = pollers.get(known, lambda new: Client(new, server))
            second = pollers.get(replace(known, **{name: OTHER[name]}), lambda new: Client(new, server))
            assert (first is second) == (name in {"connection", "timezone", "start_grace", "instance_url"})
            server.loop.close()

        run(main())

    def test_two_event_loops_have_two_pollers(self) -> None:
        pollers = Pollers()

        async def main() -> Poller:
            scene = Scene(pollers=pollers)
            scene.server.put(instance("1", "Completed OK"))
            assert await scene.join(scene.wait()) is scene.server.rows["1"]
            return scene.poller

        assert run(main()) is not run(main())

    def test_an_ended_poller_is_forgotten_and_a_newcomer_gets_one_that_works(self) -> None:
        async def main() -> None:
            pollers = Pollers()
            seen = set()
            for _ in range(3):
                scene = Scene(pollers=pollers)
                scene.server.put(instance("1", "Completed OK"))
                assert await scene.join(scene.wait()) is scene.server.rows["1"]
                seen.add(scene.poller)
                assert pollers._pollers[scene.loop] == {}
            assert len(seen) == 3

        run(main())

    def test_a_newcomer_while_the_last_one_leaves(self) -> None:
        async def main() -> None:
            pollers = Pollers()
            old = Scene(pollers=pollers)
            old.server.closing_time = 5
            waiting = old.join(old.wait())
            await asyncio.sleep(1)
            await leave(waiting)
            new = Scene(pollers=pollers)
            new.server.put(instance("1", "Completed OK"))
            assert await new.join(new.wait(), 1) is new.server.rows["1"]
            await asyncio.sleep(5)
            assert (old.client.closed, new.client.closed) == (1, 1)

        run(main())


def test_it_knows_nothing_of_the_context_of_who_came_first() -> None:
    log: ContextVar[str] = ContextVar("log", default="nobody's")

    class Nosy(Client):
        logs: list[str] = []  # noqa: RUF012 - one test

        async def call(self, operation: Operation[Any]) -> Any:
            self.logs.append(log.get())
            return await super().call(operation)

    async def main() -> None:
        scene = Scene()
        scene.server.put(instance("1"))
        log.set("the first one's")
        scene.poller._client = Nosy(settings(), scene.server)
        waiting = scene.join(scene.wait())
        await asyncio.sleep(1)
        assert Nosy.logs
        assert set(Nosy.logs) == {"nobody's"}
        await leave(waiting)

    run(main())


def test_one_more_who_waits_takes_little_memory() -> None:
    many = 2000

    async def main() -> float:
        scene = Scene()
        rows = [instance(str(number)) for number in range(many + 1)]
        scene.server.put(*rows)
        kept: list[Coroutine[Any, Any, Any]] = []

        async def settle_one(number: int) -> None:
            subscription = scene.poller.join(
                scene.wait(seen=rows[number], deadline=HOUR), interval=60, connection="first_conn"
            )
            waiting = subscription.notes()
            waiting.send(None)  # up to the future at which a trigger's task would wait
            kept.append(waiting)

        await settle_one(0)
        await asyncio.sleep(100)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1, many + 1):
            await settle_one(number)
        await asyncio.sleep(200)
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / many
        tracemalloc.stop()
        for waiting in kept:
            waiting.close()
        for subscription in list(scene.poller._subscriptions):
            await subscription.__aexit__()
        return each

    each = run(main())
    print(f"{each:.0f} bytes for each further wait")  # noqa: T201 - pytest -s shows it
    assert each < 2500


@pytest.fixture(autouse=True)
def nothing_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_ENDPOINTS", {})
