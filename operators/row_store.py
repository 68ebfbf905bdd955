"""Rows by number: frames appended one after the other, gathered in any order; bounded in memory where there is a disk.

Frames are merged as they grow, so that there are few. Those beyond the budget, the oldest first, are *spilled*: they
become frames of a file each, which are gathered from like any other. A row's *place* is its position in all frames
together. It is the row's number but where dead rows stay in a spilled frame, as long as most of it is alive, or
where rows came back from state in another order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from operators.element import Schema
from state.spill import SpilledFrame, SpillFolder

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_GROWTH: Final = 2  # a frame has at least so many times the rows of the next
_AT_ONCE: Final = 16_384  # rows up to which polars gathers from many chunks quicker than from each frame by itself


@dataclass(frozen=True, slots=True)
class _Held:
    """A frame in memory."""

    frame: pl.DataFrame
    size: int  # bytes


_Frame = _Held | SpilledFrame


class RowStore:
    """The rows of one schema, numbered from 0 in order of arrival."""

    def __init__(self, schema: Schema, spill: SpillFolder | None = None, bytes_max: int = 0) -> None:
        """`bytes_max`: of rows in memory; more are given to `spill`."""
        self.names = list(schema)
        self.empty = pl.DataFrame(schema=schema)
        self._nested = {name for name, dtype in schema.items() if dtype.is_nested()}
        self._spill = spill
        self._bytes_max = bytes_max
        self._spilled: list[SpilledFrame] = []  # they come before…
        self._held: list[_Held] = []  # …these
        self._together: pl.DataFrame | None = None  # all frames, as chunks of one
        self._places: Rows = np.empty(0, dtype=np.int64)  # of the first rows…
        self._shift = 0  # …and what is to be added to the numbers of the others

    def __len__(self) -> int:
        """Rows, dead ones that `keep` has left in place included."""
        return sum(frame.height for frame in self._frames())

    def append(self, frame: pl.DataFrame) -> None:
        """Take the schema's columns of `frame`, which has at least these."""
        if not frame.height:
            return
        self._together = None
        added = [_columns(frame, self.names)]
        height = frame.height
        while self._held and self._held[-1].frame.height < _GROWTH * height:
            added.append(self._held.pop().frame)
            height += added[-1].height
        merged = pl.concat(added[::-1], rechunk=True)
        if self._spill is None:
            self._held.append(_Held(merged, 0))
            return
        self._held.append(_Held(merged, int(merged.estimated_size())))
        while sum(each.size for each in self._held) > self._bytes_max:
            self._spilled.append(self._spill.write(self._held[0].frame))
            del self._held[0]

    def renumber(self, order: Rows) -> None:
        """Call the row that is number `order[i]` number i, for all rows there are."""
        self._number(self._places_of(order))

    def gather(self, rows: Rows, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """These rows in this order; `columns`: all by default."""
        names = self.names if columns is None else list(columns)
        if not len(rows):
            return _columns(self.empty, names)
        places = self._places_of(rows)
        frames = self._frames()
        if len(frames) == 1:
            return _take(_columns(frames[0], names), places)
        if len(places) <= _AT_ONCE and self._nested.isdisjoint(names):  # nested columns would be copied whole
            if self._together is None:
                self._together = pl.concat(frames, rechunk=False)
            return _take(_columns(self._together, names), places)
        return _gather_by_frame([_columns(frame, names) for frame in frames], places)

    def keep(self, alive: Flags) -> None:
        """Keep only the rows r with `alive[r]`, each under the number it has when only those are counted."""
        places = self._places_of(np.arange(len(alive)))[alive]
        living = np.zeros(len(self), dtype=np.bool_)
        living[places] = True
        moved = np.empty(len(living), dtype=np.int64)  # from an old place to the new one
        frames: list[_Frame] = [*self._spilled, *self._held]
        self._spilled, self._held, self._together = [], [], None
        rewritten: deque[tuple[_Frame, slice]] = deque()
        start = end = 0
        for each in frames:
            here = slice(start, start + each.frame.height)
            start = here.stop
            if isinstance(each, SpilledFrame) and 2 * np.count_nonzero(living[here]) >= each.frame.height:
                self._spilled.append(each)
                moved[here] = np.arange(end, end + each.frame.height)
                end += each.frame.height
            else:
                rewritten.append((each, here))
        frames.clear()  # so that what has been rewritten leaves memory
        while rewritten:
            each, here = rewritten.popleft()
            kept = each.frame.filter(pl.Series(living[here]))
            moved[here][living[here]] = np.arange(end, end + kept.height)
            end += kept.height
            if isinstance(each, SpilledFrame):
                each.delete()
            del each
            self.append(kept)
        self._number(moved[places])

    def _frames(self) -> list[pl.DataFrame]:
        return [*(each.frame for each in self._spilled), *(each.frame for each in self._held)]

    def _number(self, places: Rows) -> None:
        """Row i is at `places[i]`, and what comes next at the end."""
        self._shift = len(self) - len(places)
        moved = np.flatnonzero(places - np.arange(len(places)) != self._shift)
        self._places = places[: moved[-1] + 1].copy() if len(moved) else places[:0]

    def _places_of(self, rows: Rows) -> Rows:
        places = rows + self._shift if self._shift else rows
        if not len(self._places):
            return places
        return np.where(rows < len(self._places), self._places[np.minimum(rows, len(self._places) - 1)], places)


def _gather_by_frame(frames: Sequence[pl.DataFrame], places: Rows) -> pl.DataFrame:
    ends = np.cumsum([frame.height for frame in frames])
    frame_of = np.searchsorted(ends, places, side="right")
    first = int(frame_of[0])
    if (frame_of == first).all():
        return _take(frames[first], places - (ends[first] - frames[first].height))
    order = np.argsort(frame_of, kind="stable")
    edges = np.searchsorted(frame_of[order], np.arange(len(frames) + 1))
    parts = [
        _take(frame, places[order[begin:end]] - (last - frame.height))
        for frame, last, begin, end in zip(frames, ends, edges[:-1], edges[1:], strict=True)
        if begin < end
    ]
    back = np.empty(len(places), dtype=np.int64)
    back[order] = np.arange(len(places))
    return _take(pl.concat(parts, rechunk=True), back)


def _columns(frame: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """What `select` gives, without the 50 µs of a query."""
    return frame if frame.columns == names else frame[names]


def _take(frame: pl.DataFrame, rows: Rows) -> pl.DataFrame:
    taken: pl.DataFrame = frame[rows]
    return taken
