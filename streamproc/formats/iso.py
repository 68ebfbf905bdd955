"""UTC timestamps as ISO-8601 texts with milliseconds and `Z`, as the contract writes them."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from streamproc.formats.protocol import EncodeError

_ARROW_WIDTH: Final = len("2026-01-01 12:00:05.000")
_WIDTH: Final = _ARROW_WIDTH + 1
_LEAST: Final = -62_167_219_200_000  # 0000-01-01; beyond these Arrow's text has another width
_GREATEST: Final = 253_402_300_799_999


def iso_texts(times: pl.Series) -> pl.Series:
    """Datetime series (any unit) → String series; finer than a millisecond is cut off.

    Raises `EncodeError` for a year outside 0–9999.
    """
    ms = times.dt.cast_time_unit("ms").dt.replace_time_zone(None)
    low, high = ms.to_physical().min(), ms.to_physical().max()
    if low is None:
        return pl.Series(times.name, [None], dtype=pl.String).new_from_index(0, len(times))
    if low < _LEAST or high > _GREATEST:  # type: ignore[operator]
        raise EncodeError(f"{times.name}: a timestamp outside the years 0 to 9999 cannot be written")
    rows = len(ms)
    filled = ms.fill_null(strategy="zero").rechunk().to_arrow().cast(pa.large_string())
    start = int(np.frombuffer(filled.buffers()[1], np.int64, 1, filled.offset * 8)[0])
    texts = np.frombuffer(filled.buffers()[2], np.uint8, rows * _ARROW_WIDTH, start).reshape(rows, _ARROW_WIDTH)
    written = np.empty((rows, _WIDTH), np.uint8)
    written[:, :_ARROW_WIDTH] = texts
    written[:, len("2026-01-01")] = ord("T")
    written[:, _ARROW_WIDTH] = ord("Z")
    offsets = np.arange(0, rows * _WIDTH + 1, _WIDTH, dtype=np.int64)
    array = pa.LargeStringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(written))
    result = pl.Series(times.name, array)
    return result.set(times.is_null(), None) if times.null_count() else result
