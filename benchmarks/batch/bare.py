"""The least that the same launches can cost: requests over aiohttp, and nothing around them.

Its arguments are the emulator's address, a token, how many requests are under way at once, and a file with a body a line.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.batch.orders import Cost, cpu, memory, peak


async def start_all(url: str, token: str, concurrency: int, bodies: list[dict[str, Any]]) -> None:
    """Send a request for each body."""
    left = iter(bodies)
    async with aiohttp.ClientSession(headers={"access-token": token}) as session:

        async def work() -> None:
            for body in left:
                async with session.post(url, json=body) as answer:
                    found = await answer.json()
                    if found["resCode"] != "0":
                        raise RuntimeError(f"refused: {found}")

        await asyncio.gather(*(work() for _ in range(concurrency)))


def main() -> None:
    """Start what the file says, and print what that took."""
    url, token, concurrency, file = sys.argv[1:]
    idle = memory()
    bodies = [json.loads(line) for line in Path(file).read_text().splitlines()]
    began, cpu_before = time.monotonic(), cpu()
    asyncio.run(start_all(url, token, int(concurrency), bodies))
    print(json.dumps(asdict(Cost(time.monotonic() - began, cpu() - cpu_before, idle, peak()))))


if __name__ == "__main__":
    main()
