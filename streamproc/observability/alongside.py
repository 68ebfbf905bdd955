"""A coroutine that runs while a block does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def alongside(endless: Coroutine[None, None, None], *, name: str) -> AsyncIterator[None]:
    """Run `endless` as a task called `name` while the block runs; it is cancelled and waited for at the end."""
    task = asyncio.create_task(endless, name=name)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
