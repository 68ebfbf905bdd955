"""The best rows of each key in each window, given once, when the window closes.

The best of a whole are among the best of its parts, so `top` is an aggregate whose partial is a set of rows: batches
and slices are cut down to their best as they come, and lateness, closing and state are those of windowed aggregates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from operators.aggregates import AggregatePlan
from operators.element import HIDDEN, EventTimeMs, Schema
from operators.explanation import Explanation, best_rows, of_each
from operators.operator import OperatorContext, Output
from operators.ranking import Order, Ranking
from operators.slices import Window
from operators.top import RANK_TYPE, with_rank
from operators.types import columns_text
from operators.window import CARRIED, WINDOW_TYPE, WindowAggregateSpec

_ARRIVAL: Final = "__arrival"  # of equals the earlier ranks first, also where slices are not in that order
_WINDOW_COLUMNS: Final = ("window_start", "window_end")


@dataclass(frozen=True, slots=True)
class BestRows(AggregatePlan):
    """The aggregate: `columns` of the best rows beside what they are grouped by; `rank` names their rank."""

    ranking: Ranking
    columns: Schema
    rank: str | None

    @property
    def schema(self) -> Schema:
        return with_rank(self.columns, self.rank)

    @property
    def partial_schema(self) -> Schema:
        return {**self.columns, _ARRIVAL: pl.Int64()}

    def partial(self, frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
        """The best rows of each group of a batch."""
        ranked_by = [column for column, _ in self.ranking.order]
        return self.merge(frame.select(*dict.fromkeys([*by, *self.columns, *ranked_by, _ARRIVAL])), by)

    def merge(self, frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
        """The best of several best."""
        return self.ranking.best(frame, by)

    def finish(self, frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
        """The rows in the order of their ranks."""
        standing = self.ranking.sorted(frame, by)
        ranks = self.ranking.ranks(standing, np.ones(frame.height, dtype=np.bool_))
        rows = frame[standing.rows].select(*dict.fromkeys([*by, *self.columns]))
        return rows if self.rank is None else rows.with_columns(pl.Series(self.rank, ranks, dtype=RANK_TYPE))


@dataclass(frozen=True, slots=True)
class WindowedTopSpec:
    """`input_schema`: all columns, those too that only `ranking` reads; `columns`: what leaves, before the window
    columns (unless the input has them) and the rank. `window` None: the windows that rows carry."""

    ranking: Ranking
    key: tuple[str, ...]
    window: Window | None
    input_schema: Schema
    columns: tuple[str, ...]
    rank: str | None = None
    late_output: bool = False

    @property
    def schema(self) -> Schema:
        columns = {name: self.input_schema[name] for name in self.columns}
        return with_rank(columns | dict.fromkeys(_WINDOW_COLUMNS, WINDOW_TYPE), self.rank)

    @property
    def stateful(self) -> bool:
        return True

    @property
    def aggregate(self) -> WindowAggregateSpec:
        """The windowed aggregate that it is."""
        by_arrival = Ranking(self.ranking.n, (*self.ranking.order, Order(_ARRIVAL)))
        beside = {n: self.input_schema[n] for n in self.columns if n not in self.key and n not in _WINDOW_COLUMNS}
        plan = BestRows(
            inputs=list(self.input_schema),
            outputs=(),
            names=(),
            accumulators=(),
            sources=(),
            ranking=self.ranking if self.ranking.ties else by_arrival,
            columns=beside,
            rank=self.rank,
        )
        window = CARRIED if self.window is None else self.window
        carried = self.window is None
        return WindowAggregateSpec(self.key, window, plan, 0, self.late_output, self.input_schema, carried=carried)

    def create(self, context: OperatorContext) -> WindowedTop:
        return WindowedTop(self, context)

    def describe(self) -> str:
        window = "input" if self.window is None else str(self.window)
        rank = "" if self.rank is None else f", rank as {self.rank}"
        held = columns_text(self.input_schema)
        return f"top {self.ranking} of ({', '.join(self.key)}) in {window}{rank}; of ({held})"

    def explained(self) -> Explanation:
        inner = self.aggregate.explained()
        window = "of the input" if self.window is None else self.window.text
        rank = "" if self.rank is None else f", rank as {self.rank}"
        keeps = inner.keeps.replace("partial aggregates", best_rows(self.ranking.n))
        return Explanation(f"top {self.ranking}{of_each(self.key)} in window {window}{rank}", {}, keeps, inner.late)


class WindowedTop:
    """One subtask."""

    def __init__(self, spec: WindowedTopSpec, context: OperatorContext) -> None:
        self._aggregate = spec.aggregate.create(context)
        self._columns = list(spec.schema)
        self._late_columns = [*spec.columns, *HIDDEN]
        self._arrived = 0

    @property
    def held_rows(self) -> int:
        """Rows in memory."""
        return self._aggregate.held_rows

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take one batch."""
        arrivals = pl.int_range(self._arrived, self._arrived + frame.height, dtype=pl.Int64, eager=True)
        self._arrived += frame.height
        yield from self._shaped(self._aggregate.process(frame.with_columns(arrivals.alias(_ARRIVAL)), watermark))

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Close windows."""
        yield from self._shaped(self._aggregate.on_watermark(watermark))

    def next_close(self) -> EventTimeMs | None:
        """Of its windows."""
        return self._aggregate.next_close()

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """Arrivals go on being counted after a restore."""
        return {**self._aggregate.prepare_snapshot(), "arrived": self._arrived}

    def restore(self, snapshots: list[Mapping[str, Any]]) -> None:
        """A key's rows all come from one old subtask."""
        self._aggregate.restore(snapshots)
        self._arrived = max((int(snapshot["arrived"]) for snapshot in snapshots), default=0)

    def _shaped(self, outputs: Iterator[Output]) -> Iterator[Output]:
        for tag, frame in outputs:
            if tag == "main":
                columns = [*self._columns, *(name for name in HIDDEN if name in frame.columns)]
                frame = frame.select(columns)
            elif tag == "late":
                frame = frame.select(name for name in self._late_columns if name in frame.columns)
            yield Output(tag, frame)
