"""No source runs far ahead of another in event time while that one has a backlog to read.

A join (and a window over a union) keeps what the faster input brings until the slower one has come as far: without
this, catching up would fill state with as much as one source is faster than the other. Only a source that has
more than a batch to read, and whose event time moves, holds others back: one that is silent, or gives its rows as
they come, stops nobody, one whose event time stands still for no longer than `STANDSTILL_S`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from operators.element import EventTimeMs

DRIFT_MS: Final = 10_000  # how far ahead a source may be
_PAUSE_S: Final = 0.002
STANDSTILL_S: Final = 5.0


@dataclass(slots=True)
class SourceProgress:
    """Where one source subtask is. `latest`: the highest event time read; `behind`: there is a backlog."""

    latest: EventTimeMs | None = None
    behind: bool = False

    def fetched(self, rows: int, lag_records: int | None, max_rows: int) -> None:
        """What a fetch gave, and how many records are left as far as that is known."""
        self.behind = rows >= max_rows // 4 if lag_records is None else lag_records > max_rows


class SourceAlignment:
    """What one source subtask waits for: `peers` are those that flow together with it somewhere."""

    def __init__(self, own: SourceProgress, peers: Sequence[SourceProgress] = ()) -> None:
        self.own = own
        self.waiting = False
        self._peers = peers

    async def wait_for_peers(self) -> None:
        """Until no peer with a backlog is more than `DRIFT_MS` behind."""
        slowest = self._slowest_behind()
        moved_s = time.monotonic()
        try:
            while slowest is not None and time.monotonic() - moved_s < STANDSTILL_S:
                self.waiting = True
                await asyncio.sleep(_PAUSE_S)
                now = self._slowest_behind()
                if now != slowest:
                    slowest, moved_s = now, time.monotonic()
        finally:
            self.waiting = False

    def _slowest_behind(self) -> EventTimeMs | None:
        """Where the slowest peer is that we have to wait for."""
        if self.own.latest is None:
            return None
        limit = self.own.latest - DRIFT_MS
        behind = (peer.latest for peer in self._peers if peer.behind and peer.latest is not None)
        return min((latest for latest in behind if latest < limit), default=None)
