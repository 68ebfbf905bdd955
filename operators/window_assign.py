"""Each row gets the windows it is in, as `window_start` and `window_end`: once for each, everything else kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from operators.element import TIME, EventTimeMs, Schema
from operators.explanation import Explanation
from operators.operator import OperatorContext, Output
from operators.slices import Window
from operators.window_results import WINDOW_COLUMNS, WINDOW_TYPE, MissingEventTime

_OUT_ROWS: Final = 65_536  # rows of an output frame, about
_END: Final = "__end"


@dataclass(frozen=True, slots=True)
class WindowAssignSpec:
    """`window` without an aggregate. `input_schema` has neither of the window columns."""

    window: Window
    input_schema: Schema

    @property
    def schema(self) -> Schema:
        return self.input_schema | dict.fromkeys(WINDOW_COLUMNS, WINDOW_TYPE)

    @property
    def stateful(self) -> bool:
        return False

    def create(self, context: OperatorContext) -> WindowAssign:
        return WindowAssign(self, context)

    def describe(self) -> str:
        return f"assign {self.window}"

    def explained(self) -> Explanation:
        return Explanation(f"assign windows, {self.window.text}")


class WindowAssign:
    """One subtask. The copies of a row leave together, in the order of their windows."""

    def __init__(self, spec: WindowAssignSpec, context: OperatorContext) -> None:
        self._window = spec.window
        self._schema = spec.schema
        self._context = context

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take one batch; raises `MissingEventTime`."""
        times = frame.get_column(TIME)
        if times.null_count():
            raise MissingEventTime(self._context.step)
        window = self._window
        copies = 1 if window.tumbles else -(-window.size_ms // window.slide_ms)
        if copies == 1:
            ends = pl.Series(_END, window.first_ends(times.to_numpy()))
            yield from self._placed(frame.with_columns(ends), filters=window.has_gaps)
            return
        for piece in frame.iter_slices(max(1, _OUT_ROWS // copies)):
            at = piece.get_column(TIME).to_numpy()
            first, last = pl.Series(window.first_ends(at)), pl.Series(window.last_ends(at))
            ends = pl.int_ranges(first, last + 1, step=window.slide_ms, eager=True).alias(_END)
            self._context.counters.taken += piece.height
            for _, placed in self._placed(piece.with_columns(ends).explode(_END), filters=False):
                yield self._context.counters.result(placed)

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Nothing waits for event time."""
        return iter(())

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """There is no state."""
        return {}

    def restore(self, snapshots: list[Mapping[str, Any]]) -> None:
        """There is no state."""

    def _placed(self, frame: pl.DataFrame, *, filters: bool) -> Iterator[Output]:
        end = pl.col(_END)
        if filters:
            kept = frame.filter(self._window.start_expr(end) <= pl.col(TIME))
            self._context.counters.filtered += frame.height - kept.height
            frame = kept
        if frame.height:
            hidden = [name for name in frame.columns if name not in self._schema and name != _END]
            placed = frame.with_columns(
                self._window.start_expr(end).cast(WINDOW_TYPE).alias("window_start"),
                end.cast(WINDOW_TYPE).alias("window_end"),
            )
            yield Output("main", placed.select(*self._schema, *hidden))
