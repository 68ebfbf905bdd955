"""Random values that are a pure function of (seed, stream, row): any row can be drawn alone, in any order.

So generated rows are the same at every parallelism and after every restart. The function is
SplitMix64's finalizer over a counter.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Rows = npt.NDArray[np.int64]
_GOLDEN: Final = 0x9E3779B97F4A7C15
_MASK: Final = 2**64 - 1


class CounterRandom:
    """Independent streams of random values of one seed, drawn by row number."""

    def __init__(self, seed: int, *context: int) -> None:
        self._seed = seed & _MASK
        for number in context:
            self._seed = _mix_one(self._seed + _GOLDEN * (number + 1))

    def bits(self, stream: int, rows: Rows) -> npt.NDArray[np.uint64]:
        """64 random bits for each row."""
        start = np.uint64(_mix_one(self._seed ^ _mix_one(_GOLDEN * (stream + 1))))
        x: npt.NDArray[np.uint64] = rows.astype(np.uint64) * np.uint64(_GOLDEN) + start
        x ^= x >> np.uint64(30)
        x *= np.uint64(0xBF58476D1CE4E5B9)
        x ^= x >> np.uint64(27)
        x *= np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
        return x

    def uniform(self, stream: int, rows: Rows) -> npt.NDArray[np.float64]:
        """Floats in [0, 1)."""
        return (self.bits(stream, rows) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, stream: int, rows: Rows, bound: Any) -> npt.NDArray[np.int64]:
        """Integers in [0, bound); `bound` is a number or one for each row."""
        scaled: npt.NDArray[np.int64] = (self.uniform(stream, rows) * bound).astype(np.int64)
        return scaled

    def normal(self, stream: int, rows: Rows) -> npt.NDArray[np.float64]:
        """Floats of the standard normal distribution (Box–Muller)."""
        radius = np.sqrt(-2.0 * np.log1p(-self.uniform(2 * stream + (1 << 32), rows)))
        angle: npt.NDArray[np.float64] = np.cos(2.0 * np.pi * self.uniform(2 * stream + (1 << 32) + 1, rows))
        return radius * angle

    def letters(self, stream: int, rows: Rows, length: int) -> pl.Series:
        """Texts of `length` lower-case letters."""
        words = -(-length // 8)
        drawn = [self.bits((stream << 20) + (1 << 40) + word, rows) for word in range(words)]
        text = np.stack(drawn, axis=1).astype("<u8", copy=False).view(np.uint8).reshape(len(rows), words * 8)
        text = np.ascontiguousarray(text[:, :length] % np.uint8(26) + np.uint8(ord("a")))
        offsets = np.arange(0, len(rows) * length + 1, length, dtype=np.int64)
        return pl.Series(pa.LargeStringArray.from_buffers(len(rows), pa.py_buffer(offsets), pa.py_buffer(text)))


def _mix_one(x: int) -> int:
    x &= _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)
