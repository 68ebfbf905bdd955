"""Generates rows: the same seed gives the same rows at every parallelism and after every restart.

Row i of the source belongs to split i mod 8. A split's position is the number of its rows handed out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import polars as pl

from operators.connector import Decoded, Fetched, Position, SplitId
from operators.element import Schema
from streamproc.connectors import nexmark
from streamproc.connectors.counter_random import CounterRandom, Rows
from streamproc.connectors.datagen_columns import DatagenConfigError, parse_columns
from streamproc.pipeline.spec import DatagenSourceSpec

SPLITS: Final = 8
_BURST_S: Final = 1.0  # what was missed under backpressure is caught up at most this far
_TICK_S: Final = 0.01  # rows due within this time leave together

__all__ = ["SPLITS", "DatagenConfigError", "DatagenReader", "DatagenSource", "datagen_schema"]


def datagen_schema(config: DatagenSourceSpec) -> Schema:
    """The columns the source will have; raises `DatagenConfigError` when its configuration is at fault."""
    if (config.table is None) == (config.columns is None):
        raise DatagenConfigError((), "give either table or columns")
    if config.table is not None:
        return dict(nexmark.SCHEMAS[config.table])
    return {name: column.dtype for name, column in parse_columns(config.columns or {}).items()}


class DatagenSource:
    """A `datagen` source as configured."""

    def __init__(self, name: str, config: DatagenSourceSpec) -> None:
        self.name = name
        self.config = config
        self.schema = datagen_schema(config)
        self.generate = _generator(config)

    @property
    def bounded(self) -> bool:
        """Whether input ends by itself."""
        return self.config.rows is not None

    def reader(self, subtask: int, parallelism: int) -> DatagenReader:
        """The reader of one subtask."""
        return DatagenReader(self, [split for split in range(SPLITS) if split % parallelism == subtask])


def _generator(config: DatagenSourceSpec) -> Callable[[Rows], pl.DataFrame]:
    if config.table is not None:
        return nexmark.generator(config.table, config.seed)
    columns = parse_columns(config.columns or {})
    random = CounterRandom(config.seed)

    def generate(rows: Rows) -> pl.DataFrame:
        drawn = [column.draw(random, stream, rows) for stream, column in enumerate(columns.values())]
        return pl.DataFrame([series.alias(name) for name, series in zip(columns, drawn, strict=True)])

    return generate


class DatagenReader:
    """Generates the rows of some splits: in the source's order under a rate, a large piece of each in turn
    without."""

    def __init__(
        self, source: DatagenSource, splits: Sequence[int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._rate = source.config.rate
        self._done: dict[int, int] = dict.fromkeys(splits, 0)  # split → rows handed out
        self._finished: set[int] = set()
        self._clock = clock
        self._started_at = 0.0
        self._started_row = 0

    async def open(self, restored: Mapping[SplitId, Position] | None) -> None:
        """Continue where the checkpoint left our splits; the rate counts from now."""
        for split in self._done:
            if restored and (position := restored.get(_split_id(split))):
                self._done[split] = int(position["row"])
        self._started_row = self._next_row() // SPLITS * SPLITS  # the same for all readers when they begin
        self._started_at = self._clock()

    def splits(self) -> Mapping[SplitId, Position]:
        """Our splits with the number of their rows handed out."""
        return {_split_id(split): {"row": row} for split, row in self._done.items()}

    async def fetch(self, max_rows: int, timeout_s: float) -> Sequence[Fetched]:
        """Rows that are due."""
        if self._rate is None:
            await asyncio.sleep(0)
            live = [split for split in self._done if split not in self._finished]
            if not live:
                return []
            behind = min(live, key=lambda split: self._done[split])
            return [self._take(behind, min(max_rows, self._left(behind)))]
        deadline = self._clock() + timeout_s
        while True:
            taken = self._take_until(self._due(max_rows))
            now = self._clock()
            if taken or now >= deadline:
                return taken
            await asyncio.sleep(min(deadline - now, max(_TICK_S, 1 / self._rate)))

    def exhausted(self) -> bool:
        """All rows of our splits were handed out."""
        return self._source.bounded and len(self._finished) == len(self._done)

    def lag_records(self) -> int | None:
        """Rows still to come; None when they never end. At a rate none is behind: they come as they are due."""
        if self._rate is not None:
            return 0
        return sum(self._left(split) for split in self._done) if self._source.bounded else None

    def listening(self) -> bool:
        """Rows are made here."""
        return True

    async def close(self) -> None:
        """Nothing is open."""

    def _due(self, max_rows: int) -> int:
        """Number of the source's rows that should have left by now, from row 0."""
        assert self._rate is not None
        now, next_row = self._clock(), self._next_row()
        due = self._started_row + int((now - self._started_at) * self._rate)
        if due - next_row > self._rate * _BURST_S + SPLITS:
            self._started_row, self._started_at = next_row, now - _BURST_S
            due = next_row + int(self._rate * _BURST_S)
        return min(due, next_row + max_rows * SPLITS)

    def _next_row(self) -> int:
        live = [row * SPLITS + split for split, row in self._done.items() if split not in self._finished]
        return min(live, default=0)

    def _left(self, split: int) -> int:
        rows = self._source.config.rows
        return _count_below(rows, split) - self._done[split] if rows is not None else 2**62

    def _take_until(self, due: int) -> list[Fetched]:
        """The rows before `due`, split by split; of a split that is at its end an empty piece that says so."""
        taken = []
        for split in self._done:
            count = min(_count_below(due, split) - self._done[split], self._left(split))
            if split not in self._finished and (count > 0 or not self._left(split)):
                taken.append(self._take(split, max(0, count)))
        return taken

    def _take(self, split: int, count: int) -> Fetched:
        first = self._done[split]
        self._done[split] += count
        finished = self._left(split) <= 0
        if finished:
            self._finished.add(split)
        generate, width = self._source.generate, 8 * len(self._source.schema)

        def decode() -> Decoded:
            return Decoded(generate(np.arange(first, first + count, dtype=np.int64) * SPLITS + split))

        return Fetched(_split_id(split), {"row": first + count}, count, count * width, decode, finished)


def _split_id(split: int) -> SplitId:
    return SplitId(f"generator-{split}")


def _count_below(row: int, split: int) -> int:
    """How many of the rows before `row` are the split's."""
    return max(0, (row - split + SPLITS - 1) // SPLITS)
