"""Worker threads for columnar work, so that the event loop only moves references.

polars releases the GIL; threads of one process use several cores. A subtask has one call under way
at a time, which is what makes operators single-threaded.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_pool = ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 2) + 1, thread_name_prefix="compute")


class Compute:
    """Runs one subtask's calls: on the common threads, or, where operators wait for something outside, on one
    of its own, so that it keeps none of the others waiting."""

    def __init__(self, *, own_thread: bool = False) -> None:
        self._own = ThreadPoolExecutor(max_workers=1, thread_name_prefix="waiting") if own_thread else None

    async def __call__(self, call: Callable[[], T]) -> T:
        """Run `call` on a worker thread. When cancelled, waits for it first: a thread cannot be stopped, and
        what it uses (state, files) must not be closed under it."""
        future = asyncio.get_running_loop().run_in_executor(self._own or _pool, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # seen: the cancellation is what counts
            raise

    def close(self) -> None:
        """End the thread, if it has one of its own; nothing is under way."""
        if self._own is not None:
            self._own.shutdown(wait=False)
