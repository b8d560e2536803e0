"""Runs triggers as a triggerer does, without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def fire() -> Callable[[Any], Any]:
    """Run a trigger and return what its event carries."""

    async def first_event(trigger: Any) -> Any:
        events = trigger.run()
        try:
            return (await asyncio.wait_for(events.__anext__(), 30)).payload
        finally:
            await events.aclose()

    return lambda trigger: asyncio.run(first_event(trigger))
