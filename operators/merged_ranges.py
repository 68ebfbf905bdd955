"""What windows of many slices share is merged once: partials of aligned ranges of 2, 4, 8 … slices, kept in memory.

A window of n slices is at most 2 · log₂ n such ranges, and the next window, one slice on, has nearly all of
them too: closing costs the logarithm of what merging every slice would. It is a cache: a row that still comes
to a slice makes the ranges around it unknown again, and nothing of it is in checkpoints.

    slices      0   1   2   3   4   5   6   7
    ranges      |-------------------------------|
                |---------------|---------------|
                |-------|-------|-------|-------|
    window          |---|-------|-------|---|
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import polars as pl


class Range(NamedTuple):
    """Slices `place` · 2^`level` up to the next multiple, by their number."""

    level: int
    place: int


class MergedRanges:
    """Ranges over slices of `slice_ms`; `leaf` gives a slice's partials, `merge` merges several frames by key."""

    def __init__(
        self,
        slice_ms: int,
        leaf: Callable[[int], list[pl.DataFrame]],
        merge: Callable[[Sequence[pl.DataFrame]], Iterable[pl.DataFrame]],
    ) -> None:
        self._slice_ms = slice_ms
        self._leaf = leaf
        self._merge = merge
        self._known: dict[Range, list[pl.DataFrame]] = {}
        self._levels = 0  # of the highest range known
        self.rows = 0  # held

    def frames(self, starts: Sequence[int]) -> list[pl.DataFrame]:
        """Partials of all slices there are from `starts[0]` to `starts[-1]`, ascending, in few frames."""
        numbers = [start // self._slice_ms for start in starts]
        found: list[pl.DataFrame] = []
        number, end = numbers[0], numbers[-1] + 1
        while number < end:
            aligned = (number & -number).bit_length() - 1 if number else end.bit_length()
            level = min(aligned, (end - number).bit_length() - 1)
            span = Range(level, number >> level)
            number += 1 << level
            found.extend(self._range(span, starts, numbers))
        return found

    def forget(self, start: int) -> None:
        """The slice has changed, or is gone."""
        if not self._known:
            return
        number = start // self._slice_ms
        for level in range(1, self._levels + 1):
            self.rows -= sum(frame.height for frame in self._known.pop(Range(level, number >> level), ()))

    def clear(self) -> None:
        """Release all memory."""
        self._known.clear()
        self.rows = 0

    def _range(self, span: Range, starts: Sequence[int], numbers: Sequence[int]) -> list[pl.DataFrame]:
        first = bisect_left(numbers, span.place << span.level)
        end = bisect_left(numbers, (span.place + 1) << span.level, lo=first)
        if end - first <= 1:
            return self._leaf(starts[first]) if end > first else []
        known = self._known.get(span)
        if known is None:
            halves = (Range(span.level - 1, 2 * span.place + side) for side in (0, 1))
            known = list(self._merge([frame for half in halves for frame in self._range(half, starts, numbers)]))
            self._known[span] = known
            self._levels = max(self._levels, span.level)
            self.rows += sum(frame.height for frame in known)
        return known
