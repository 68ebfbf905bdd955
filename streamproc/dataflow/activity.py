"""What one subtask is doing, and where its time has gone: every moment since it began is busy, backpressured or idle.

The time that is still going on counts too: a subtask that has been waiting for room for five minutes has been
backpressured for five minutes, although nothing has happened since.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from streamproc.observability.facts import Doing

WINDOW_S: Final = 10.0  # over which shares are taken
_SAMPLES: Final = 16

_COMPUTING: Final[Doing] = "computing"
_BACKPRESSURED: Final[frozenset[Doing]] = frozenset({"waiting for room", "writing"})


class TimeSpent(NamedTuple):
    """Seconds since the subtask began to run; together all of them."""

    busy: float = 0.0
    backpressured: float = 0.0
    idle: float = 0.0


class Activity:
    """Of one subtask; on its event loop. `clock`: seconds that only grow."""

    __slots__ = ("_backpressured", "_busy", "_clock", "_idle", "_samples", "doing", "since_s", "toward")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._busy = self._backpressured = self._idle = 0.0
        self._samples: deque[tuple[float, TimeSpent]] = deque(maxlen=_SAMPLES)
        self.doing: Doing = "starting"
        self.toward: str | None = None
        self.since_s = clock()

    def now(self, doing: Doing, toward: str | None = None) -> None:
        """From here on the subtask does this; `toward`: the vertex or sink it does it for."""
        now_s = self._clock()
        self._charge(now_s - self.since_s)
        self.doing, self.toward, self.since_s = doing, toward, now_s

    @property
    def for_s(self) -> float:
        """How long it has been doing it."""
        return self._clock() - self.since_s

    def spent(self) -> TimeSpent:
        """Up to this moment; none of the three ever shrinks."""
        now_s = self._clock()
        running = now_s - self.since_s
        if self.doing == "starting":
            return TimeSpent(self._busy, self._backpressured, self._idle)
        if self.doing == _COMPUTING:
            return TimeSpent(self._busy + running, self._backpressured, self._idle)
        if self.doing in _BACKPRESSURED:
            return TimeSpent(self._busy, self._backpressured + running, self._idle)
        return TimeSpent(self._busy, self._backpressured, self._idle + running)

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

    def _charge(self, seconds: float) -> None:
        if self.doing == _COMPUTING:
            self._busy += seconds
        elif self.doing in _BACKPRESSURED:
            self._backpressured += seconds
        elif self.doing != "starting":
            self._idle += seconds
