"""When somebody who looks at an emulator is told to look again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing

import pytest

from airflow_provider_astrobpm.emulator.page.change_notifier import ChangeNotifier, fingerprint
from airflow_provider_astrobpm.emulator.process_scripts import parse_script
from airflow_provider_astrobpm.emulator.world import Emulator

MORE = parse_script("processes: [{name: More}]", "test")


def start(emulator: Emulator) -> str:
    return emulator.engine.start("PublishApproval").id


def set_switch(emulator: Emulator) -> None:
    emulator.engine.switches = emulator.switches.changed(suspend_state="Suspended")


@pytest.mark.parametrize(
    "change",
    [
        start,
        lambda emulator: emulator.engine.start("Instant"),
        lambda emulator: emulator.engine.decide(emulator.engine.instances()[0].id, "approve"),
        lambda emulator: emulator.engine.act(emulator.engine.instances()[0].id, "suspend"),
        lambda emulator: emulator.engine.set_variables(emulator.engine.instances()[0].id, {"dataset": "d"}),
        lambda emulator: emulator.engine.vanish(emulator.engine.instances()[0].id),
        lambda emulator: emulator.engine.vanish(emulator.engine.instances()[-1].id),
        lambda emulator: (emulator.engine.vanish(emulator.engine.instances()[-1].id), start(emulator)),
        lambda emulator: emulator.clock.advance(60),
        lambda emulator: emulator.engine.catalogue.add(MORE),
        set_switch,
        lambda emulator: emulator.reset(),
        lambda emulator: (emulator.reset(), start(emulator), start(emulator)),
    ],
)
def test_every_change_is_seen(change: Callable[[Emulator], object]) -> None:
    emulator = Emulator()
    start(emulator), start(emulator)
    before = fingerprint(emulator)
    assert fingerprint(emulator) == before
    change(emulator)
    assert fingerprint(emulator) != before


def test_who_looks_is_told() -> None:
    async def look() -> int:
        emulator = Emulator()
        told = 0
        async with aclosing(ChangeNotifier(emulator).follow()) as notices:
            async for _ in notices:
                told += 1
                assert len(emulator.listeners) == 1
                if told == 5:
                    break
                emulator.notify_listeners()  # of nothing
                asyncio.get_running_loop().call_later(0.06, start, emulator)
                asyncio.get_running_loop().call_later(0.06, emulator.notify_listeners)
        assert emulator.listeners == set()
        return told

    assert asyncio.run(asyncio.wait_for(look(), 10)) == 5


def test_all_who_follow_share_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look goes through all instances, and the API waits meanwhile."""
    looks = 0

    def counted(emulator: Emulator) -> tuple[object, ...]:
        nonlocal looks
        looks += 1
        return fingerprint(emulator)

    monkeypatch.setattr("airflow_provider_astrobpm.emulator.page.change_notifier.fingerprint", counted)
    followers, rounds = 50, 4

    async def look() -> None:
        emulator = Emulator()
        changes = ChangeNotifier(emulator)
        async with AsyncExitStack() as open_ones:
            all_of_them = []
            for number in range(followers):
                all_of_them.append(await open_ones.enter_async_context(aclosing(changes.follow())))
                await anext(all_of_them[-1])
                await asyncio.sleep(0.001 * (number % 7))  # they do not begin at the same time
            for _ in range(rounds):
                start(emulator)
                emulator.notify_listeners()
                await asyncio.gather(*map(anext, all_of_them))

    asyncio.run(asyncio.wait_for(look(), 10))
    assert looks <= followers + 3 * rounds


@pytest.mark.parametrize(("at_least_every", "told"), [(0.01, True), (60.0, False)])
def test_it_is_time_now_and_then(at_least_every: float, told: bool) -> None:
    """Ages change without anything else."""

    async def look() -> bool:
        async with aclosing(ChangeNotifier(Emulator()).follow(at_least_every)) as notices:
            await anext(notices)
            try:
                await asyncio.wait_for(anext(notices), 0.3)
            except asyncio.TimeoutError:
                return False
            return True

    assert asyncio.run(look()) is told
