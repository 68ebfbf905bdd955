"""Hash → row numbers, for whole batches: a few sorted runs, merged as they grow, searched by bisection.

An index holds what was added until `keep` says otherwise: whoever asks leaves out the rows that are gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from operators.hashing import UInt64s
from operators.radix_search import RadixSearch

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_ROW_BITS: Final = 36  # of a number that is both a position asked for and a row
_ROW_MASK: Final = (1 << _ROW_BITS) - 1
_HIGHEST: Final = np.uint64(2**64 - 1)
_GROWTH: Final = 2  # a run is at least so many times as long as the next


class Pairs(NamedTuple):
    """Positions in what was asked and row numbers, ordered by both; equal lengths."""

    at: Rows
    rows: Rows


class _Run:
    """Ascending hashes, their row numbers ascending within equal ones."""

    def __init__(self, hashes: UInt64s, rows: npt.NDArray[np.int32]) -> None:
        self.hashes = hashes
        self.rows = rows
        self._search = RadixSearch(hashes)
        self._distinct = not (hashes[1:] == hashes[:-1]).any()

    def find(self, asked: UInt64s) -> Pairs:
        """Pairs by position in `asked`."""
        hit, first, count = self.spans(asked)
        if count is None:
            return Pairs(hit, self.rows[first].astype(np.int64))
        return Pairs(np.repeat(hit, count), self.rows[_ranges(first, count)].astype(np.int64))

    def spans(self, asked: UInt64s) -> tuple[Rows, Rows, Rows | None]:
        """Positions in `asked` that are found, where in this run their rows begin, and how many they are; None: one
        of each."""
        first = self._search.left(asked)
        hit = np.flatnonzero(self.hashes[np.minimum(first, len(self.hashes) - 1)] == asked)
        first = first[hit]
        if self._distinct or not len(hit):
            return hit, first, None
        found = asked[hit]
        last = len(self.hashes) - 1
        several = np.flatnonzero((self.hashes[np.minimum(first + 1, last)] == found) & (first < last))
        if not len(several):
            return hit, first, None
        found = found[several]
        end = self._search.left(found + np.uint64(1))
        end[found == _HIGHEST] = len(self.hashes)
        count = np.ones(len(hit), dtype=np.int64)
        count[several] = end - first[several]
        return hit, first, count


class HashIndex:
    """A multimap of 64-bit hashes; adding and finding take time logarithmic in its size for each hash."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []  # each only has rows that came before those of the next

    def __len__(self) -> int:
        return sum(len(run.rows) for run in self._runs)

    def add(self, hashes: UInt64s, rows: Rows) -> None:
        """Note new rows; `rows` ascends and is above everything added before."""
        if not len(rows):
            return
        order = np.argsort(hashes, kind="stable")
        added = _Run(hashes[order], rows[order].astype(np.int32))
        while self._runs and len(self._runs[-1].rows) < _GROWTH * len(added.rows):
            added = _merged(self._runs.pop(), added)
        self._runs.append(added)

    def find(self, hashes: UInt64s) -> Pairs:
        """Every row that was added with one of the hashes asked for."""
        found = [pairs for pairs in (run.find(hashes) for run in self._runs) if len(pairs.rows)]
        if len(found) == 1:
            return found[0]
        return _ordered(found)

    def find_pieces(self, hashes: UInt64s, size: int) -> Iterator[Pairs]:
        """What `find` gives, in pieces of `size` pairs (the last has fewer). Nothing may be added meanwhile."""
        runs = self._runs
        spans = [run.spans(hashes) for run in runs]
        ats = np.concatenate([hit for hit, _, _ in spans]) if spans else np.empty(0, dtype=np.int64)
        if not len(ats):
            return
        order = np.argsort(ats, kind="stable")  # and then by run: what is in an earlier one came earlier
        ats = ats[order]
        run_of = np.repeat(np.arange(len(spans)), [len(hit) for hit, _, _ in spans])[order]
        firsts = np.concatenate([first for _, first, _ in spans])[order]
        counts = np.concatenate(
            [np.ones(len(hit), dtype=np.int64) if count is None else count for hit, _, count in spans]
        )[order]
        ends = np.cumsum(counts)
        starts = ends - counts
        for begin in range(0, int(ends[-1]), size):
            end = begin + size
            here = slice(np.searchsorted(ends, begin, side="right"), np.searchsorted(starts, end))
            skipped = np.maximum(begin - starts[here], 0)
            count = np.minimum(ends[here], end) - starts[here] - skipped
            places = _ranges(firsts[here] + skipped, count)
            of = np.repeat(run_of[here], count)
            rows = np.empty(len(places), dtype=np.int64)
            for number in np.unique(run_of[here]).tolist():
                rows[of == number] = runs[number].rows[places[of == number]]
            yield Pairs(np.repeat(ats[here], count), rows)

    def keep(self, alive: Flags, numbers: Rows | None = None) -> None:
        """Forget every row r without `alive[r]`, and call the others `numbers[r]`, which ascends with r."""
        kept: list[_Run] = []
        for run in self._runs:
            keep = alive[run.rows]
            rows = run.rows[keep]
            if len(rows):
                kept.append(_Run(run.hashes[keep], rows if numbers is None else numbers[rows].astype(np.int32)))
        self._runs = kept


def _merged(older: _Run, newer: _Run) -> _Run:
    both = np.concatenate((older.hashes, newer.hashes))
    order = np.argsort(both, kind="stable")  # two ascending runs: one linear merge
    hashes = both[order]
    del both  # the longest runs are most of the memory that rows on disk take
    return _Run(hashes, np.concatenate((older.rows, newer.rows))[order])


def _ranges(first: Rows, count: Rows) -> Rows:
    """first[0], first[0]+1, … `count[0]` of them, then the same for the next."""
    ends = np.cumsum(count)
    ranges: Rows = np.arange(ends[-1]) + np.repeat(first - (ends - count), count)
    return ranges


def _ordered(found: list[Pairs]) -> Pairs:
    if not found:
        none = np.empty(0, dtype=np.int64)
        return Pairs(none, none)
    packed = np.concatenate([pairs.at << _ROW_BITS | pairs.rows for pairs in found])
    packed.sort()
    return Pairs(packed >> _ROW_BITS, packed & _ROW_MASK)
