"""What may be asked of a running job: to stop, to stop once its input is drained, to take a savepoint.

Asking never waits. That a job has stopped is told by the end of its run; a savepoint has a future.
"""

from __future__ import annotations

import asyncio
from collections import deque

from operators.element import CheckpointId
from state.failure import Failure
from streamproc.checkpoint.manifest import Asker


class SavepointFailed(Failure):
    """The savepoint did not complete; the job goes on (or has ended)."""

    acts = "world"
    retry_helps = True


class JobControl:
    """One per run, also across its attempts."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.drain = False
        self._asked: deque[tuple[asyncio.Future[CheckpointId], Asker]] = deque()
        self.wake = asyncio.Event()  # something was asked

    def stop(self, *, drain: bool = False) -> None:
        """Take a last checkpoint and end. `drain`: first end the input, so that every window closes and every
        result is committed. A stop without drain that comes later wins."""
        self.drain = drain
        self.stopping.set()
        self.wake.set()

    def savepoint(self, by: Asker = "user") -> asyncio.Future[CheckpointId]:
        """Ask for a checkpoint that the job will never remove. Raises SavepointFailed (in the future)."""
        asked: asyncio.Future[CheckpointId] = asyncio.get_running_loop().create_future()
        self._asked.append((asked, by))
        self.wake.set()
        return asked

    @property
    def wants_savepoint(self) -> bool:
        """Somebody waits for one."""
        return any(not asked.done() for asked, _ in self._asked)

    def take_asked(self) -> tuple[list[asyncio.Future[CheckpointId]], Asker]:
        """Those who wait, to be answered with the next savepoint; and whose it is: a user's where one is among them."""
        asked = [(each, by) for each, by in self._asked if not each.done()]
        self._asked.clear()
        self.wake.clear()
        return [each for each, _ in asked], "upgrade" if all(by == "upgrade" for _, by in asked) else "user"

    def refuse(self, reason: str) -> None:
        """Nobody who waits will get one."""
        for asked in self.take_asked()[0]:
            asked.set_exception(SavepointFailed(reason))
