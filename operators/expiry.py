"""Keys that got no row for their time to live are forgotten, as if they had never been there.

Whether a key has expired is decided for each row, so that it does not depend on where batches were cut: it has
when the row's event time, or the watermark just before the row, is `ttl` or more after the key's newest row.
The watermark then only frees memory. A row that is itself `ttl` or more behind the watermark is late: nobody
can tell any more what was known of its key. Input without event time goes by the clock instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from operators.element import ROW_WATERMARK, TIME, WATERMARK_MIN
from operators.keyed_rows import Ids, KeyedRows
from operators.operator import OperatorContext

Times = npt.NDArray[np.int64]

_LIFE: Final = "__life"
_REACHED: Final = "__reached"
_LAST: Final = "__last"


class Round(NamedTuple):
    """Rows to be taken together. `fresh`: what is held of their keys has expired by now."""

    frame: pl.DataFrame
    fresh: bool


class Expiry:
    """The time to live of one operator subtask's keys. `newest`: one row for each key, with the event time (`TIME`)
    of the key's newest row. `ttl_ms` None: keys live for ever."""

    def __init__(self, context: OperatorContext, newest: KeyedRows, key: Sequence[str], ttl_ms: int | None) -> None:
        self._context = context
        self._newest = newest
        self._key = list(key)
        self._ttl_ms = ttl_ms

    def rounds(self, frame: pl.DataFrame, watermark: int) -> Iterator[Round]:
        """The rows in order, cut where a key expires between two of its rows; late ones are left out.

        Of each round the caller brings `newest` up to date before it asks for the next.
        """
        if self._ttl_ms is None:
            yield Round(frame, fresh=False)
            return
        now = row_watermarks(frame, watermark)
        late = frame.get_column(TIME).to_numpy() <= now - self._ttl_ms
        if late.any():
            self._context.counters.late += int(late.sum())
            frame, now = frame.filter(pl.Series(~late)), now[~late]
        if frame.height:
            times = frame.get_column(TIME).to_numpy()
            yield from self._cut(frame, np.maximum(times, now), self._ttl_ms)

    def is_due(self, watermark: int) -> bool:
        """Whether some key has expired for every row to come."""
        return len(self._due(watermark)) > 0

    def due(self, watermark: int) -> pl.DataFrame:
        """The rows of the keys that have expired for every row to come; they are forgotten in `newest`."""
        ids = self._due(watermark)
        keys = self._newest.rows(ids)
        self._newest.remove(ids)
        return keys

    def _due(self, watermark: int) -> Ids:
        if self._ttl_ms is None or watermark - self._ttl_ms <= WATERMARK_MIN:
            return np.empty(0, dtype=np.int64)
        return self._newest.before(watermark - self._ttl_ms + 1)

    def _cut(self, frame: pl.DataFrame, reached: Times, ttl_ms: int) -> Iterator[Round]:
        keys = frame.select(self._key).unique() if self._key else frame.head(1)
        held = self._newest.rows(self._newest.find(keys).ids).get_column(TIME)
        earliest: int = frame.get_column(TIME).min()  # type: ignore[assignment]
        if len(held):
            earliest = min(earliest, int(held.min()))  # type: ignore[arg-type]
        if int(reached.max()) - earliest < ttl_ms:
            yield Round(frame, fresh=False)  # nearly always
            return
        lives = self._lives(frame, reached, ttl_ms)
        for life in np.unique(lives).tolist():
            yield Round(frame.filter(pl.Series(lives == life)), fresh=life > 0)

    def _lives(self, frame: pl.DataFrame, reached: Times, ttl_ms: int) -> Times:
        """How often each row's key has expired up to it since what is held of the key."""
        found = self._newest.find(frame, self._key)
        last = np.full(frame.height, np.int64(WATERMARK_MIN))
        last[found.at] = self._newest.rows(found.ids).get_column(TIME).to_numpy()
        before = pl.max_horizontal(_LAST, pl.col(TIME).cum_max().shift(1))
        expired = pl.col(_REACHED) - ttl_ms >= pl.col(_LAST)
        timed = frame.with_columns(pl.Series(_REACHED, reached), pl.Series(_LAST, last))
        timed = timed.with_columns(self._each(before).alias(_LAST))
        lives = timed.select(self._each(expired.cast(pl.Int64).cum_sum()).alias(_LIFE))
        return lives.get_column(_LIFE).to_numpy()

    def _each(self, expr: pl.Expr) -> pl.Expr:
        return expr.over(self._key) if self._key else expr


def row_watermarks(frame: pl.DataFrame, watermark: int) -> Times:
    """The watermark just before each row, never behind `watermark`."""
    if ROW_WATERMARK not in frame.columns:
        return np.full(frame.height, watermark, dtype=np.int64)
    rows: Times = frame.get_column(ROW_WATERMARK).fill_null(watermark).to_numpy()
    return np.maximum(rows, np.int64(watermark))
