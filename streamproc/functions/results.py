"""Rows that user code gives out, one by one, for the main and the side outputs: checked when given, made frames
when taken. Those of a row that fails are dropped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from operators.element import ROW_WATERMARK, TIME
from operators.operator import Output
from operators.row_errors import RowRefused
from streamproc.functions.columns import DeclaredColumns, Fields
from streamproc.functions.values import shown
from streamproc.pipeline.suggest import did_you_mean


class _Stream:
    """The rows of one output, with the event time and the watermark of the rows they come from."""

    def __init__(self, fields: Fields) -> None:
        self.columns = DeclaredColumns.of(fields)
        self.rows: list[list[Any]] = []
        self.times: list[int | None] = []
        self.watermarks: list[int | None] = []
        self.committed = 0

    def cut(self, length: int) -> None:
        """Keep the first rows."""
        for part in (self.rows, self.times, self.watermarks):
            del part[length:]


class Results:
    """What has been given out and not been taken yet."""

    def __init__(self, outputs: Mapping[str, Fields], *, timed: bool) -> None:
        self._streams = {name: _Stream(fields) for name, fields in outputs.items()}
        self._timed = timed
        self._time: int | None = None
        self._watermark: int | None = None
        self.rows = 0  # that count already

    def at(self, time: int | None, watermark: int | None) -> None:
        """What follows has this event time (ms); `watermark`: just before the row, where its batch says so."""
        self._time, self._watermark = time, watermark

    def add(self, name: str, row: object) -> None:
        """Give a row to an output; raises RowRefused unless it has the declared columns."""
        stream = self._streams.get(name)
        if stream is None:
            declared = [other for other in self._streams if other != "main"]
            hint = did_you_mean(name, declared) or "declare it in `outputs`"
            raise RowRefused(f"there is no side output {shown(name)}; {hint}")
        try:
            values = stream.columns.values_of(row)
        except RowRefused as error:
            raise (error if name == "main" else RowRefused(f"side output '{name}': {error}")) from None
        stream.rows.append(values)
        stream.times.append(self._time)
        stream.watermarks.append(self._watermark)

    def commit(self) -> None:
        """The row is done: its results count."""
        self.rows = 0
        for stream in self._streams.values():
            stream.committed = len(stream.rows)
            self.rows += stream.committed

    def rollback(self) -> None:
        """The row has failed: drop its results."""
        for stream in self._streams.values():
            stream.cut(stream.committed)

    def take(self) -> Iterator[Output]:
        """All that counts, side outputs behind the main one."""
        self.rows = 0
        for name, stream in self._streams.items():
            if stream.rows:
                frame = pl.DataFrame(stream.columns.series(stream.rows))
                if self._timed:
                    frame = frame.with_columns(pl.Series(TIME, stream.times, dtype=pl.Int64))
                    if any(watermark is not None for watermark in stream.watermarks):
                        frame = frame.with_columns(pl.Series(ROW_WATERMARK, stream.watermarks, dtype=pl.Int64))
                stream.cut(0)
                stream.committed = 0
                yield Output(name, frame)
