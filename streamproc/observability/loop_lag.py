"""How late the event loop wakes a timer: the time in which it answered nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from prometheus_client import Histogram

INTERVAL_S = 0.1


async def measure_loop_lag(lag: Histogram, interval_s: float = INTERVAL_S) -> None:
    """Observe the lag until cancelled. A lag longer than the interval is seen once, at its full length."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval_s
        await asyncio.sleep(interval_s)
        lag.observe(max(0.0, loop.time() - due))


@asynccontextmanager
async def loop_lag_measured(lag: Histogram) -> AsyncIterator[None]:
    """Measure while the block runs."""
    task = asyncio.create_task(measure_loop_lag(lag), name="loop-lag")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
