"""The notifier tells open pages about changes, with few checks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing

import pytest

from airflow_provider_astrobpm.emulator.emulator_state import Emulator
from airflow_provider_astrobpm.emulator.page.change_notifier import ChangeNotifier, fingerprint
from airflow_provider_astrobpm.emulator.process_scripts import parse_script

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
def test_every_change_changes_the_fingerprint(change: Callable[[Emulator], object]) -> None:
    emulator = Emulator()
    start(emulator), start(emulator)
    before = fingerprint(emulator)
    assert fingerprint(emulator) == before
    change(emulator)
    assert fingerprint(emulator) != before


def test_followers_are_notified_of_changes() -> None:
    async def follow() -> int:
        emulator = Emulator()
        notified = 0
        async with aclosing(ChangeNotifier(emulator).follow()) as notices:
            async for _ in notices:
                notified += 1
                assert len(emulator.listeners) == 1
                if notified == 5:
                    break
                emulator.notify_listeners()  # without a change
                asyncio.get_running_loop().call_later(0.06, start, emulator)
                asyncio.get_running_loop().call_later(0.06, emulator.notify_listeners)
        assert emulator.listeners == set()
        return notified

    assert asyncio.run(asyncio.wait_for(follow(), 10)) == 5


def test_followers_share_their_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check reads all instances, and blocks the API meanwhile."""
    checks = 0

    def counted(emulator: Emulator) -> tuple[object, ...]:
        nonlocal checks
        checks += 1
        return fingerprint(emulator)

    monkeypatch.setattr("airflow_provider_astrobpm.emulator.page.change_notifier.fingerprint", counted)
    followers, rounds = 50, 4

    async def follow() -> None:
        emulator = Emulator()
        changes = ChangeNotifier(emulator)
        async with AsyncExitStack() as open_ones:
            all_of_them = []
            for number in range(followers):
                all_of_them.append(await open_ones.enter_async_context(aclosing(changes.follow())))
                await anext(all_of_them[-1])
                await asyncio.sleep(0.001 * (number % 7))  # so that they start at different times
            for _ in range(rounds):
                start(emulator)
                emulator.notify_listeners()
                await asyncio.gather(*map(anext, all_of_them))

    asyncio.run(asyncio.wait_for(follow(), 10))
    assert checks <= followers + 3 * rounds


@pytest.mark.parametrize(("at_least_every", "notified"), [(0.01, True), (60.0, False)])
def test_followers_are_notified_regularly_without_changes(at_least_every: float, notified: bool) -> None:
    """Ages on the page change even if nothing else does."""

    async def follow() -> bool:
        async with aclosing(ChangeNotifier(Emulator()).follow(at_least_every)) as notices:
            await anext(notices)
            try:
                await asyncio.wait_for(anext(notices), 0.3)
            except asyncio.TimeoutError:
                return False
            return True

    assert asyncio.run(follow()) is notified
