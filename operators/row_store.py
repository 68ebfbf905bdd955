"""Rows by number: frames appended one after the other, gathered in any order.

Frames are merged as they grow, so that a gather has few of them to visit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from operators.element import Schema

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_GROWTH: Final = 2  # a frame has at least so many times the rows of the next


class RowStore:
    """The rows of one schema, numbered from 0 in order of arrival."""

    def __init__(self, schema: Schema) -> None:
        self.names = list(schema)
        self.empty = pl.DataFrame(schema=schema)
        self._frames: list[pl.DataFrame] = []

    def __len__(self) -> int:
        return sum(frame.height for frame in self._frames)

    def append(self, frame: pl.DataFrame) -> None:
        """Take the schema's columns of `frame`, which has at least these."""
        if not frame.height:
            return
        added = [frame.select(self.names)]
        height = frame.height
        while self._frames and self._frames[-1].height < _GROWTH * height:
            added.append(self._frames.pop())
            height += added[-1].height
        self._frames.append(pl.concat(added[::-1], rechunk=True))

    def gather(self, rows: Rows, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """These rows in this order; `columns`: all by default."""
        names = self.names if columns is None else list(columns)
        if not len(rows):
            return self.empty.select(names)
        starts = self._starts()
        frame_of = np.searchsorted(starts, rows, side="right") - 1
        first = int(frame_of[0])
        if (frame_of == first).all():
            return _take(self._frames[first].select(names), rows - starts[first])
        order = np.argsort(frame_of, kind="stable")
        edges = np.searchsorted(frame_of[order], np.arange(len(starts) + 1))
        parts = [
            _take(frame.select(names), rows[order[edges[index] : edges[index + 1]]] - starts[index])
            for index, frame in enumerate(self._frames)
            if edges[index] < edges[index + 1]
        ]
        places = np.empty(len(rows), dtype=np.int64)
        places[order] = np.arange(len(rows))
        return _take(pl.concat(parts, rechunk=True), places)

    def scan(self) -> Iterator[tuple[int, pl.DataFrame]]:
        """Every frame with the number of its first row."""
        start = 0
        for frame in self._frames:
            yield start, frame
            start += frame.height

    def keep(self, alive: Flags) -> None:
        """Keep only the rows r with `alive[r]`, each under the number it has when only those are counted."""
        kept = [frame.filter(pl.Series(alive[start : start + frame.height])) for start, frame in self.scan()]
        held = [frame for frame in kept if frame.height]
        self._frames = [pl.concat(held, rechunk=True)] if held else []

    def _starts(self) -> Rows:
        return np.cumsum([0, *(frame.height for frame in self._frames[:-1])])


def _take(frame: pl.DataFrame, rows: Rows) -> pl.DataFrame:
    taken: pl.DataFrame = frame[rows]
    return taken
