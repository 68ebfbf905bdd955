"""Windows as arithmetic: every event time is in exactly one slice, and a window is a whole number of slices.

A slice is gcd(size, slide) long and aligned to the epoch plus the offset, so a row is aggregated once
however many windows overlap it. Slices are named by their start (ms since the epoch, inclusive), windows
by their end (exclusive): of every shape here a window ends each `slide` ms, and no two end together.
Nothing here knows about rows, keys or state.

    size 10, slide 4, slice 2        0   2   4   6   8  10  12  14
    window 10                        |-------------------|
    window 14                                |-------------------|

    size 12, every 4, cumulating     0   2   4   6   8  10  12  14
    window 4                         |-------|
    window 8                         |---------------|
    window 12                        |-----------------------|
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from operators.explanation import duration_text

Times = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Window:
    """Tumbling (`slide_ms == size_ms`) or hopping windows; a slide beyond the size leaves gaps between windows.
    `cumulates`: windows [start, start + n · slide) that grow until they are `size_ms` long, and start anew."""

    size_ms: int
    slide_ms: int
    offset_ms: int = 0
    cumulates: bool = False

    def __post_init__(self) -> None:
        if self.size_ms <= 0 or self.slide_ms <= 0:
            raise ValueError(f"window of {self.size_ms} ms every {self.slide_ms} ms: both must be more than zero")
        if self.cumulates and self.size_ms % self.slide_ms:
            raise ValueError(f"window of {self.size_ms} ms is not a whole number of {self.slide_ms} ms")

    @property
    def slice_ms(self) -> int:
        """Length of a slice."""
        return math.gcd(self.size_ms, self.slide_ms)

    @property
    def text(self) -> str:
        """As a file would say it: `hop 10m every 1m`."""
        size, every = duration_text(self.size_ms), duration_text(self.slide_ms)
        offset = f", offset {duration_text(self.offset_ms)}" if self.offset_ms else ""
        if self.tumbles:
            return f"tumble {size}{offset}"
        return f"{'cumulate' if self.cumulates else 'hop'} {size} every {every}{offset}"

    @property
    def tumbles(self) -> bool:
        """Whether every event time is in exactly one window, which is one slice."""
        return self.size_ms == self.slide_ms

    @property
    def has_gaps(self) -> bool:
        """Whether some event times are in no window."""
        return self.slide_ms > self.size_ms

    def slice_of(self, time: int) -> int:
        """Start of the slice `time` is in."""
        return _floor(time, self.slice_ms, self.offset_ms)

    def slice_expr(self, time: pl.Expr) -> pl.Expr:
        """`slice_of` for a column of times."""
        return (time - self.offset_ms) // self.slice_ms * self.slice_ms + self.offset_ms

    def first_end(self, time: int) -> int:
        """End of the earliest window that ends after `time`: the first that contains it, if any does."""
        shortest = self.slide_ms if self.cumulates else self.size_ms
        return _floor(time - shortest, self.slide_ms, self.offset_ms) + self.slide_ms + shortest

    def last_end(self, time: int) -> int:
        """End of the latest window that starts at or before `time`: the last that contains it, if any does."""
        return _floor(time, self._distance, self.offset_ms) + self.size_ms

    def start_of(self, end: int) -> int:
        """Start of the window that ends at `end`."""
        return _floor(end - 1, self.size_ms, self.offset_ms) if self.cumulates else end - self.size_ms

    def start_expr(self, end: pl.Expr) -> pl.Expr:
        """`start_of` for a column of ends."""
        if not self.cumulates:
            return end - self.size_ms
        return (end - 1 - self.offset_ms) // self.size_ms * self.size_ms + self.offset_ms

    def first_ends(self, times: Times) -> Times:
        """`first_end` of each time."""
        shortest = self.slide_ms if self.cumulates else self.size_ms
        return (times - shortest - self.offset_ms) // self.slide_ms * self.slide_ms + (
            self.slide_ms + shortest + self.offset_ms
        )

    def last_ends(self, times: Times) -> Times:
        """`last_end` of each time; a time at or beyond it is in no window."""
        return (times - self.offset_ms) // self._distance * self._distance + (self.size_ms + self.offset_ms)

    @property
    def _distance(self) -> int:
        """Between one window's start and the next other one."""
        return self.size_ms if self.cumulates else self.slide_ms

    def __str__(self) -> str:
        if self.cumulates:
            shape = f"cumulate {self.size_ms}ms every {self.slide_ms}ms"
        else:
            shape = f"tumble {self.size_ms}ms" if self.tumbles else f"hop {self.size_ms}ms every {self.slide_ms}ms"
        return shape + (f" offset {self.offset_ms}ms" if self.offset_ms else "")


def _floor(time: int, step: int, offset: int) -> int:
    return (time - offset) // step * step + offset
