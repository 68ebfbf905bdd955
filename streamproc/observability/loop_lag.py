"""How late the event loop wakes a timer: the time in which it answered nobody."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

from prometheus_client import Histogram

from streamproc.observability.alongside import alongside

INTERVAL_S = 0.1


async def measure_loop_lag(lag: Histogram, interval_s: float = INTERVAL_S) -> None:
    """Observe the lag until cancelled. A lag longer than the interval is seen once, at its full length."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval_s
        await asyncio.sleep(interval_s)
        lag.observe(max(0.0, loop.time() - due))


def loop_lag_measured(lag: Histogram) -> AbstractAsyncContextManager[None]:
    """Measure while the block runs."""
    return alongside(measure_loop_lag(lag), name="loop-lag")
