"""An emulator in which many instances of one BPM have ended: ``python -m benchmarks.scale.tenant NUMBER``.

It prints its address and the id of one more instance, which is the last one that has ended.
"""

from __future__ import annotations

import asyncio
import json
import sys

from airflow_provider_astrobpm.emulator.emulator_state import Emulator, EmulatorSettings
from airflow_provider_astrobpm.emulator.engine import BUSINESS_KEY
from airflow_provider_astrobpm.emulator.server_thread import listening
from airflow_provider_astrobpm.emulator.switches import Switches
from airflow_provider_astrobpm.starting.business_keys import TaskIdentity

PROCESS = "PublishApproval"
SPACING_SECONDS = 60.0  # between the starts of two instances


def identity_of(number: int) -> TaskIdentity:
    """Return the task that has started an instance."""
    return TaskIdentity("approvals", f"scheduled__{number}", "approve")


def key_of(number: int) -> str:
    """Return the business key of an instance: as this provider makes them, because that is what a search reads."""
    return identity_of(number).key(1)


def fill(emulator: Emulator, number: int) -> str:
    """Add instances that have ended, oldest first, and return the id of the last one."""
    engine, instance_id = emulator.engine, ""
    for one in range(number):
        age = (number - one) * SPACING_SECONDS
        instance_id = engine.start(PROCESS, variables={BUSINESS_KEY: key_of(one)}, age=age).id
        engine.decide(instance_id, "approve")
    return instance_id


async def _serve(number: int) -> None:
    emulator = Emulator(EmulatorSettings(switches=Switches(get_by_id="absent"), token_lifetime=86400))
    last = fill(emulator, number)
    async with listening(emulator) as port:
        print(json.dumps({"url": f"http://127.0.0.1:{port}", "last": last}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
