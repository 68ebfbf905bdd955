"""Worker threads for columnar work, so that the event loop only moves references.

polars releases the GIL; threads of one process use several cores. A subtask has one call under way
at a time, which is what makes operators single-threaded. Where a call may take long, or for ever (it waits for
something outside, it runs a user's code), the subtask has a thread of its own, and holds up nobody else.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from state.failure import Failure

T = TypeVar("T")

GIVE_UP_S: Final = 20.0  # after which nobody waits for a user's function any more, once the job is to end

_pool = ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 2) + 1, thread_name_prefix="compute")


class ExitAsked(Failure):
    """A user's code has called `exit()`: no way to end the product, or another's pipeline in the same process."""

    acts = "user"


class Panicked(Failure):
    """Native code has given up (a panic of polars), or code has raised what is no `Exception` and goes past all that
    look out for failures."""

    retry_helps = True


def _guarded(call: Callable[[], T]) -> T:
    try:
        return call()
    except (SystemExit, KeyboardInterrupt) as error:  # either would end the event loop that waits for the call
        raise ExitAsked(f"user code has asked the process to end ({type(error).__name__}: {error})") from error
    except Exception:
        raise
    except BaseException as error:
        raise Panicked(f"{type(error).__name__}: {error}") from error


class CallStuck(Failure):
    """A user's function does not return: its thread and the state it works on are left behind."""

    acts = "user"

    def __init__(self, steps: str, seconds: float) -> None:
        super().__init__(f"step {steps}: its function has not returned for {seconds:.0f} s")


class _OwnThread:
    """One thread, made at the first call. Not the standard executor: that waits for its threads when the process
    ends, and this one may never come back."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Have it called, after what was submitted before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="own-compute", daemon=True)
            self._thread.start()
        future: Future[T] = Future()
        self._calls.put((future, call))
        return future

    def close(self) -> None:
        """End, after what was submitted before."""
        self._calls.put(None)

    def _work(self) -> None:
        while (work := self._calls.get()) is not None:
            future, call = work
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
            del work, future, call  # frames that results hold must not live until the next call


class Compute:
    """Runs one subtask's calls: on the common threads, or with `own_thread` on one of its own. `user_code`: steps whose
    functions those calls run; for them alone `give_up_s` counts."""

    def __init__(self, *, own_thread: bool = False, user_code: str = "", give_up_s: float | None = None) -> None:
        self.under_way = False
        self._own = _OwnThread() if own_thread or user_code else None
        self._user_code = user_code
        self._give_up_s = GIVE_UP_S if give_up_s is None else give_up_s
        self._running: asyncio.Future[Any] | None = None
        self._began_s = 0.0

    async def __call__(self, call: Callable[[], T]) -> T:
        """Run `call` on a worker thread. When cancelled, waits for it first: a thread cannot be stopped, and
        what it uses (state, files) must not be closed under it."""
        pool = self._own or _pool
        self._running = future = asyncio.wrap_future(pool.submit(lambda: _guarded(call)))
        self._began_s = time.monotonic()
        self.under_way = True
        future.add_done_callback(self._ended)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await self.settled()
            if future.done() and not future.cancelled():
                future.exception()  # seen: the cancellation is what counts
            raise

    async def settled(self) -> bool:
        """Wait for the call under way; False when it is a user's and does not return."""
        if self._running is not None and not self._running.done():
            await asyncio.wait([self._running], timeout=self._give_up_s if self._user_code else None)
        return self._running is None or self._running.done()

    def stuck(self) -> CallStuck:
        """What to say of a call that has not settled."""
        return CallStuck(self._user_code, time.monotonic() - self._began_s)

    def close(self, last: Callable[[], object] | None = None) -> None:
        """End the thread, if it has one of its own, after the call under way, if there is one. `last`: to be done on
        it before; nobody waits."""
        if self._own is not None:
            if last is not None:
                self._own.submit(last)
            self._own.close()

    def _ended(self, future: object) -> None:
        self.under_way = False
