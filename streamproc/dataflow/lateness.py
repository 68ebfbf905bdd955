"""How far rows came behind the highest event time of their split before them, counted by bounds.

What the watermark adviser is told: the share of rows that each `out_of_order` would have made late. No Python runs
per row, and rows in order cost nothing beyond their count.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from streamproc.observability.facts import Lateness

BOUNDS_MS: Final = (
    *(0, 1, 10, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000),  # up to half a minute
    *(60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000, 3_600_000),  # up to an hour
    *(7_200_000, 21_600_000, 43_200_000, 86_400_000),  # up to a day
)


class LatenessCounts:
    """Of one source subtask. Counted on a worker thread, read on the event loop: counts are plain numbers."""

    def __init__(self, out_of_order_ms: int) -> None:
        self._bounds = tuple(sorted({*BOUNDS_MS, out_of_order_ms}))
        self._counts = [0] * (len(self._bounds) + 1)

    def add(self, behind_ms: npt.NDArray[np.int64], highest_ms: int) -> None:
        """Rows, by how far each was behind; 0 or less: not at all. `highest_ms`: the highest of them."""
        left = len(behind_ms)
        for place, bound in enumerate(self._bounds):
            beyond = int(np.count_nonzero(behind_ms > bound)) if highest_ms > bound else 0
            self._counts[place] += left - beyond
            left = beyond
            if not left:
                return
        self._counts[-1] += left

    def taken(self) -> Lateness:
        """Up to now."""
        counts = tuple(self._counts)
        return Lateness(self._bounds, counts, sum(counts))
