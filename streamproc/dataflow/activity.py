"""What one subtask is doing, and where its time has gone: every moment since it began is busy, backpressured or idle.

The time that is still going on counts too: a subtask that has been waiting for room for five minutes has been
backpressured for five minutes, although nothing has happened since.

Busy is the time in which a call of the subtask's runs. Waiting until a thread, or the event loop, is free for it is no
work of its own, and counts as idle: a process with too much to do would otherwise show every subtask as the slow one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from streamproc.observability.facts import Doing

WINDOW_S: Final = 10.0  # over which shares are taken
_SAMPLES: Final = 16

T = TypeVar("T")

_COMPUTING: Final[Doing] = "computing"
_BACKPRESSURED: Final[frozenset[Doing]] = frozenset({"waiting for room", "writing"})


class TimeSpent(NamedTuple):
    """Seconds since the subtask began to run; together all of them."""

    busy: float = 0.0
    backpressured: float = 0.0
    idle: float = 0.0


class Activity:
    """Of one subtask; on its event loop. `clock`: seconds that only grow."""

    __slots__ = (
        "_backpressured",
        "_began_s",
        "_busy",
        "_clock",
        "_ended_s",
        "_idle",
        "_samples",
        "doing",
        "since_s",
        "toward",
    )

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._busy = self._backpressured = self._idle = 0.0
        self._samples: deque[tuple[float, TimeSpent]] = deque(maxlen=_SAMPLES)
        self._began_s: float | None = None  # the call of "computing": not yet
        self._ended_s: float | None = None
        self.doing: Doing = "starting"
        self.toward: str | None = None
        self.since_s = clock()

    def now(self, doing: Doing, toward: str | None = None) -> None:
        """From here on the subtask does this; `toward`: the vertex or sink it does it for."""
        now_s = self._clock()
        self._busy, self._backpressured, self._idle = self._spent(now_s)
        self._began_s = self._ended_s = None
        self.doing, self.toward, self.since_s = doing, toward, now_s

    def timed(self, call: Callable[[], T]) -> T:
        """Run what `now("computing")` spoke of; on whatever thread."""
        self._began_s = self._clock()
        try:
            return call()
        finally:
            self._ended_s = self._clock()

    @property
    def for_s(self) -> float:
        """How long it has been doing it."""
        return self._clock() - self.since_s

    def spent(self) -> TimeSpent:
        """Up to this moment."""
        return self._spent(self._clock())

    def sample(self) -> None:
        """Remember this moment for `shares`; about once a second."""
        now_s = self._clock()
        self._samples.append((now_s, self.spent()))
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - WINDOW_S:
            self._samples.popleft()

    def shares(self) -> TimeSpent:
        """The three as shares of the last ten seconds or so: 1 together, or 0 each where nothing has run yet."""
        spent = self.spent()
        before = self._samples[0][1] if self._samples else TimeSpent()
        parts = [now - then for now, then in zip(spent, before, strict=True)]
        whole = sum(parts)
        return TimeSpent(*(part / whole for part in parts)) if whole > 0 else TimeSpent()

    def _spent(self, now_s: float) -> TimeSpent:
        busy, backpressured, idle = self._busy, self._backpressured, self._idle
        running = now_s - self.since_s
        if self.doing == _COMPUTING:
            began_s, ended_s = self._began_s, self._ended_s
            computed = 0.0 if began_s is None else max(0.0, (now_s if ended_s is None else ended_s) - began_s)
            return TimeSpent(busy + computed, backpressured, idle + running - computed)
        if self.doing in _BACKPRESSURED:
            return TimeSpent(busy, backpressured + running, idle)
        return TimeSpent(busy, backpressured, idle if self.doing == "starting" else idle + running)
