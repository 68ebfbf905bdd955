"""Many calls to the outside at once: bounded in number, in time and in tries, answered in the order asked.

An operator owns one `Calls`. Its event loop runs only while `run` does, so nothing is in flight between
batches, and none of it is seen by the thread's other work. What a call raises is a value here: the caller
decides what becomes of the row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from state.failure import Failure

A = TypeVar("A")
R = TypeVar("R")

_PAUSE_FIRST_SECONDS: Final = 0.1
_PAUSE_LONGEST_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class CallLimits:
    """At most `in_flight` calls at once; each try of a call has `timeout_ms`; after a failed one `retries` more."""

    in_flight: int
    timeout_ms: int
    retries: int = 0

    def pause_seconds(self, failed: int) -> float:
        """How long to wait after the `failed`-th try (from 1): 0.1 s, doubled each time, at most 10 s."""
        return min(_PAUSE_FIRST_SECONDS * 2.0 ** min(failed - 1, 30), _PAUSE_LONGEST_SECONDS)


class CallTimedOut(Exception):
    """A call did not answer in time."""

    def __init__(self, timeout_ms: int) -> None:
        super().__init__(f"no answer within {timeout_ms} ms")


@dataclass(frozen=True, slots=True)
class Answered(Generic[R]):
    """What the call returned."""

    value: R


@dataclass(frozen=True, slots=True)
class NotAnswered:
    """The last try's error, and how many tries there were."""

    error: Exception
    tries: int


def always(error: Exception) -> bool:
    """Every error may pass."""
    return True


class Calls:
    """Runs calls on an event loop of its own. All methods from one thread, on which no loop runs."""

    def __init__(self, limits: CallLimits, *, may_pass: Callable[[Exception], bool] = always) -> None:
        """`may_pass`: whether it helps to try again after this error."""
        self._limits = limits
        self._may_pass = may_pass
        self._loop = asyncio.new_event_loop()

    def run(self, function: Callable[[A], Awaitable[R]], arguments: Sequence[A]) -> list[Answered[R] | NotAnswered]:
        """Call `function` with each argument; the outcomes in the order of the arguments. Calls begin in that
        order, at most `in_flight` at once. A `Failure` or a cancellation ends them all and is raised."""
        if not arguments:
            return []
        return self._loop.run_until_complete(self._all(function, arguments))

    def run_alone(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run something else on the same loop: opening or closing what the calls share."""
        return self._loop.run_until_complete(coroutine)

    def close(self) -> None:
        """Cancel what calls have left running, and end the loop; idempotent."""
        if self._loop.is_closed():
            return
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        try:
            if left:
                self._loop.run_until_complete(asyncio.wait(left, timeout=self._limits.timeout_ms / 1000))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    async def _all(
        self, function: Callable[[A], Awaitable[R]], arguments: Sequence[A]
    ) -> list[Answered[R] | NotAnswered]:
        outcomes: list[Answered[R] | NotAnswered | None] = [None] * len(arguments)
        waiting = iter(enumerate(arguments))

        async def caller() -> None:
            for index, argument in waiting:  # shared: each takes the next when it is free
                outcomes[index] = await self._outcome(function, argument)

        async with _Together() as group:
            for _ in range(min(self._limits.in_flight, len(arguments))):
                group.start(caller())
        return [outcome for outcome in outcomes if outcome is not None]

    async def _outcome(self, function: Callable[[A], Awaitable[R]], argument: A) -> Answered[R] | NotAnswered:
        tries = 0
        while True:
            tries += 1
            try:
                return Answered(await self._once(function, argument))
            except Failure:
                raise
            except (Exception, asyncio.CancelledError) as raised:
                error = self._as_error(raised)
                if tries > self._limits.retries or not self._may_pass(error):
                    return NotAnswered(error, tries)
            await asyncio.sleep(self._limits.pause_seconds(tries))

    @staticmethod
    def _as_error(raised: Exception | asyncio.CancelledError) -> Exception:
        """A call that something of its own has cancelled has failed; when we are cancelled, we stop."""
        if isinstance(raised, Exception):
            return raised
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise raised
        return RuntimeError("the call was cancelled")

    async def _once(self, function: Callable[[A], Awaitable[R]], argument: A) -> R:
        try:
            async with asyncio.timeout(self._limits.timeout_ms / 1000) as limit:
                return await function(argument)
        except TimeoutError:
            if limit.expired():
                raise CallTimedOut(self._limits.timeout_ms) from None
            raise


class _Together:
    """Tasks that end together: the first error cancels the others and is raised as it is, not in a group."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Begin one, in the order of the calls to this."""
        self._tasks.append(asyncio.get_running_loop().create_task(coroutine))

    async def __aenter__(self) -> _Together:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await asyncio.gather(*self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
