"""What is known of every row beside its columns: id, alive or not, mark, time, where it is stored.

A row's *slot* is its place among the rows kept in memory, in ascending order of id; it changes when dead rows
are swept out. Its *id* never changes: a number that ascends in order of arrival, and the row's key group in the
lowest bits, which makes it unique even among rows of subtasks that a rescale brings together.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from operators.radix_search import RadixSearch

Ids = npt.NDArray[np.int64]
Slots = npt.NDArray[np.int64]
Times = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Generations = npt.NDArray[np.int32]

GROUP_BITS: Final = 16
NOT_STORED: Final = -1  # generation of a row that is only in memory
NEVER: Final = 2**63 - 1  # time of dead rows, and of rows without

PAGE: Final = 4096  # slots whose lowest time is remembered together
_GROWTH: Final = 2


class RowSlots:
    """Columns of numbers by slot. Slots that are given must exist."""

    def __init__(self, *, timed: bool) -> None:
        self._timed = timed
        self.end = 0  # slots in use
        self.live = 0
        self.next_number = 0  # of arrival
        self._ids = np.zeros(0, dtype=np.int64)
        self._alive = np.zeros(0, dtype=np.bool_)
        self._marks = np.zeros(0, dtype=np.bool_)
        self._generations = np.zeros(0, dtype=np.int32)
        self._times = np.zeros(0, dtype=np.int64)
        self._page_times = np.zeros(0, dtype=np.int64)  # no live row of the page is earlier
        self._dense_from = 0  # from this slot on, numbers are consecutive…
        self._dense_id = 0  # …and ids are at least this
        self._sparse_search = RadixSearch(self._ids)  # before it

    @property
    def ids(self) -> Ids:
        return self._ids[: self.end]

    @property
    def alive(self) -> Flags:
        return self._alive[: self.end]

    @property
    def marks(self) -> Flags:
        return self._marks[: self.end]

    @property
    def generations(self) -> Generations:
        return self._generations[: self.end]

    @property
    def times(self) -> Times:
        return self._times[: self.end]

    @property
    def earliest(self) -> int:
        """The lowest time of a live row, `NEVER` without; looks at all."""
        return int(self.times.min(initial=NEVER))

    def new_ids(self, groups: npt.NDArray[np.int32]) -> Ids:
        """Ids for rows that arrive now, by their key groups; to be appended in this order."""
        first = self.next_number
        return (np.arange(first, first + len(groups)) << GROUP_BITS) | groups

    def append(self, ids: Ids, times: Times | None) -> Slots:
        """Take rows with ids above all there are."""
        slots = np.arange(self.end, self.end + len(ids))
        if not len(ids):
            return slots
        first, end = self.end, self.end + len(ids)
        self._reserve(end)
        self._ids[first:end] = ids
        self._alive[first:end] = True
        self._marks[first:end] = False
        self._generations[first:end] = NOT_STORED
        self.end, self.live = end, self.live + len(ids)
        self.next_number = max(self.next_number, int(ids[-1] >> GROUP_BITS) + 1)
        numbers = self._ids[max(0, first - 1) : end] >> GROUP_BITS
        if first == 0 or (np.diff(numbers) != 1).any():
            self._find_dense()
        if times is not None:
            self._times[first:end] = times
            pages = slice(first // PAGE, -(-end // PAGE))
            self._page_times[pages] = self._times.reshape(-1, PAGE)[pages].min(axis=1)
        return slots

    def find(self, ids: Ids) -> tuple[Slots, Flags]:
        """Slots of rows, and whether each is alive; any slot where it is not."""
        slots = (ids >> GROUP_BITS) + (self._dense_from - (self._dense_id >> GROUP_BITS))
        sparse = np.flatnonzero(ids < self._dense_id)
        if len(sparse):
            slots[sparse] = self._sparse_search.left(ids[sparse])
        if not self.end:
            return slots, np.zeros(len(ids), dtype=np.bool_)
        np.minimum(slots, self.end - 1, out=slots)
        return slots, self._alive[slots] & (self._ids[slots] == ids)

    def kill(self, slots: Slots) -> None:
        """Rows that were alive, each once, are dead."""
        self._alive[slots] = False
        if self._timed:
            self._times[slots] = NEVER
        self.live -= len(slots)

    def before(self, time: int) -> Slots:
        """Live rows with a time below `time`, ascending; looks only into pages that may have some."""
        pages = np.flatnonzero(self._page_times < time)
        if not len(pages):
            return pages
        times = self._times.reshape(-1, PAGE)[pages]
        self._page_times[pages] = times.min(axis=1)
        page, place = np.nonzero(times < time)
        return pages[page] * PAGE + place

    def earliest_unmarked(self) -> int:
        """The lowest time of a live row without a mark, `NEVER` without; looks only into pages that may have it."""
        earliest = NEVER
        for page in np.argsort(self._page_times):
            if self._page_times[page] >= earliest:
                break
            here = slice(int(page) * PAGE, min(int(page + 1) * PAGE, self.end))
            times = self._times[here][~self._marks[here]]
            earliest = min(earliest, int(times.min(initial=NEVER)))
        return earliest

    def sweep(self) -> None:
        """Give the slots of dead rows to those that follow."""
        alive = self.alive
        for name in ("_ids", "_marks", "_generations", "_times"):
            if len(getattr(self, name)):
                setattr(self, name, getattr(self, name)[: self.end][alive])
        self.end = self.live
        self._alive = np.ones(self.end, dtype=np.bool_)
        self._page_times = self._page_times[:0]
        self._reserve(self.end)
        self._page_times = self._times.reshape(-1, PAGE).min(axis=1)
        self._find_dense()

    def _find_dense(self) -> None:
        numbers = self.ids >> GROUP_BITS
        gaps = np.flatnonzero(np.diff(numbers) != 1)
        self._dense_from = int(gaps[-1]) + 1 if len(gaps) else 0
        self._dense_id = int(self._ids[self._dense_from]) if self.end else 0
        self._sparse_search = RadixSearch(self._ids[: self._dense_from].copy())

    def _reserve(self, end: int) -> None:
        """Make room for `end` slots, in whole pages."""
        if end <= len(self._alive) and len(self._alive) % PAGE == 0:
            return
        size = -(-max(end, _GROWTH * len(self._alive)) // PAGE) * PAGE
        for name in ("_ids", "_alive", "_marks", "_generations"):
            setattr(self, name, _grown(getattr(self, name), size, 0))
        if self._timed:
            self._times = _grown(self._times, size, NEVER)
            self._page_times = _grown(self._page_times, size // PAGE, NEVER)


def _grown(old: npt.NDArray[Any], size: int, fill: int) -> npt.NDArray[Any]:
    # Zeros are no memory before they are written to.
    grown = np.full(size, fill, dtype=old.dtype) if fill else np.zeros(size, dtype=old.dtype)
    grown[: len(old)] = old
    return grown
