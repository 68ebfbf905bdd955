"""No source runs far ahead of another in event time while that one has rows waiting to be read.

A join (and a window over a union) keeps what the faster input brings until the slower one has come as far: without
this, catching up would fill state with as much as one source is faster than the other. Only a source that
had rows at its last fetch holds others back, and each time for a second at most: one that is silent, has reached
the end of its topic, or whose event time stands still never stops another.
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
_WAIT_S_MAX: Final = 1.0


@dataclass(slots=True)
class SourceProgress:
    """Where one source subtask is. `latest`: the highest event time read; `reading`: the last fetch gave rows."""

    latest: EventTimeMs | None = None
    reading: bool = False


class SourceAlignment:
    """What one source subtask waits for: `peers` are those that flow together with it somewhere."""

    def __init__(self, own: SourceProgress, peers: Sequence[SourceProgress] = ()) -> None:
        self.own = own
        self._peers = peers

    async def wait_for_peers(self) -> None:
        """Until no peer with rows to read is more than `DRIFT_MS` behind."""
        until_s = time.monotonic() + _WAIT_S_MAX
        while self._is_ahead() and time.monotonic() < until_s:  # noqa: ASYNC110  peers move with every batch
            await asyncio.sleep(_PAUSE_S)

    def _is_ahead(self) -> bool:
        if self.own.latest is None:
            return False
        limit = self.own.latest - DRIFT_MS
        return any(peer.reading and peer.latest is not None and peer.latest < limit for peer in self._peers)
