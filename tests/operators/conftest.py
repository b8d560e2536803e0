"""Runs triggers as a triggerer does, without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def fire() -> Callable[[Any], Any]:
    """Run a trigger, made anew from what it serialises to, and return what its event carries."""

    async def first_event(trigger: Any) -> Any:
        events = trigger.run()
        try:
            return (await asyncio.wait_for(events.__anext__(), 30)).payload
        finally:
            await events.aclose()

    def fire(trigger: Any) -> Any:
        path, arguments = trigger.serialize()
        assert path == f"{type(trigger).__module__}.{type(trigger).__name__}"
        return asyncio.run(first_event(type(trigger)(**arguments)))

    return fire
