"""The minimum cost of the same launches: bare aiohttp requests.

The arguments are the emulator's address, a token, the number of concurrent requests, and a file with one body per line.
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

from benchmarks.batch.process_cost import Cost, cpu, memory, peak


async def start_all(url: str, token: str, concurrency: int, bodies: list[dict[str, Any]]) -> None:
    """Send one request for each body."""
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
    """Start the launches in the file, and print the cost."""
    url, token, concurrency, file = sys.argv[1:]
    idle = memory()
    bodies = [json.loads(line) for line in Path(file).read_text().splitlines()]
    began, cpu_before = time.monotonic(), cpu()
    asyncio.run(start_all(url, token, int(concurrency), bodies))
    print(json.dumps(asdict(Cost(time.monotonic() - began, cpu() - cpu_before, idle, peak()))))


if __name__ == "__main__":
    main()
