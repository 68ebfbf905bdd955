"""Waits for what will come, and fails when it does not: tests never sleep for a guessed time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def eventually(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Return once `condition` holds; `TimeoutError` after `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  the condition is not ours to signal
            await asyncio.sleep(0.005)
