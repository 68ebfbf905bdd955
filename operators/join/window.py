"""Window join: both rows in the same window. Rows are kept by slice and joined once, when the watermark closes the
window; with the last window of a slice its rows are dropped.

A row is late for a window when the watermark just before it had closed the window; it is dropped when it is late
for every window it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from operators.element import TIME, WATERMARK_MIN, EventTimeMs, Schema
from operators.explanation import Explanation, Late
from operators.join.buffer import SliceRows
from operators.join.pairs import Flags, Pairing, Times, equal_keys, in_pieces, row_watermarks
from operators.join.shape import JoinShape, Side
from operators.operator import OperatorContext, Output
from operators.partials import split_range
from operators.slices import Window
from operators.window import WINDOW_TYPE, MissingEventTime

BUCKET_ROWS: Final = 500_000  # rows of a window that are joined at a time
_TOGETHER_ROWS: Final = 65_536  # of small windows that are joined in one go
_WINDOW_COST: Final = 32  # what a window costs there beside its rows
_END: Final = "__end"  # the window of a row that is being joined
_OTHER_END: Final = "__other_end"
_FROM: Final = "__from"  # the first end of a window that was open when the row came
WINDOW_COLUMNS: Final = ("window_start", "window_end")


@dataclass(frozen=True, slots=True)
class WindowJoinSpec:
    """`join` with `window`; None: the windows that rows carry in the columns `carried` of left and right, start
    and end, which are the first of each side's key."""

    shape: JoinShape
    window: Window | None
    carried: tuple[tuple[str, str], tuple[str, str]] | None = None

    @property
    def schema(self) -> Schema:
        return self.shape.schema | dict.fromkeys(WINDOW_COLUMNS, WINDOW_TYPE)

    @property
    def stateful(self) -> bool:
        return True

    def create(self, context: OperatorContext) -> WindowJoin:
        return WindowJoin(self, context)

    def describe(self) -> str:
        return f"{self.shape.describe()}, {self.window or 'windows of the input'}; {self.shape.holds()}"

    def explained(self) -> Explanation:
        window = "of the input" if self.window is None else self.window.text
        return Explanation(
            f"{self.shape.describe()}, in the same window {window}",
            keeps="rows of both sides until their last window closes",
            late=Late(),
        )


@dataclass(frozen=True, slots=True)
class _Input:
    """One side. `carried`: its columns with the windows it brings; `alone`: rows without a partner are results."""

    side: Side
    rows: SliceRows
    carried: tuple[str, str] | None
    alone: bool


class WindowJoin:
    """One subtask. A generator of outputs has to be run to its end before the next call."""

    def __init__(self, spec: WindowJoinSpec, context: OperatorContext) -> None:
        shape = spec.shape
        self._shape = shape
        self._window = spec.window
        self._single = spec.window is None or spec.window.tumbles  # every row is in exactly one window
        self._context = context
        self._counters = context.counters
        self._pairing = Pairing(shape, context)
        left_carried, right_carried = spec.carried or (None, None)
        self._left = self._input("left", shape.left, left_carried, alone=shape.pads_left or shape.kind == "anti")
        self._right = self._input("right", shape.right, right_carried, alone=shape.pads_right)
        self._watermark: int = WATERMARK_MIN

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take left rows; raises `MissingEventTime`."""
        return self._arrive(frame, watermark, self._left)

    def process_right(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take right rows; raises `MissingEventTime`."""
        return self._arrive(frame, watermark, self._right)

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Join every window that ends at or before `watermark` + 1, in ascending order."""
        while due := self._due(watermark):
            yield from self._join(due)
            self._watermark = due[-1] - 1
            self._forget()
        self._watermark = max(self._watermark, watermark)

    def next_close(self) -> EventTimeMs | None:
        """The last instant of the next window with rows."""
        starts = self._slices()
        return EventTimeMs(self._next_end(starts[0], self._watermark + 1) - 1) if starts else None

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """Waiting rows go to state; the watermark says which windows are closed."""
        self._left.rows.flush()
        self._right.rows.flush()
        return {"watermark": int(self._watermark)}

    def restore(self, snapshots: list[Mapping[str, Any]]) -> None:
        """Go on from the lowest watermark: subtasks of one step agree on it."""
        self._watermark = min((int(snapshot["watermark"]) for snapshot in snapshots), default=WATERMARK_MIN)
        self._left.rows.restore()
        self._right.rows.restore()

    def _input(self, name: str, side: Side, carried: tuple[str, str] | None, *, alone: bool) -> _Input:
        rows = SliceRows(self._context, name, side.key, self._context.memory_rows_max // 2)
        return _Input(side, rows, carried, alone)

    def _arrive(self, frame: pl.DataFrame, watermark: int, to: _Input) -> Iterator[Output]:
        times = frame.get_column(TIME) if to.carried is None else frame.get_column(to.carried[1]).dt.timestamp("ms")
        if times.null_count():
            raise MissingEventTime(self._context.step)
        now = row_watermarks(frame, max(self._watermark, watermark))
        kept = frame.select(list(to.side.schema))
        first_ends, last_ends, slices = self._windows_of(times)
        if not self._single:
            open_from = np.maximum(first_ends, self._ends_after(now + 1))
            kept = kept.with_columns(pl.Series(_FROM, open_from))
        taken = last_ends > now + 1
        if not taken.all():
            self._counters.late += int((~taken).sum())
            kept, slices = kept.filter(pl.Series(taken)), slices[taken]
        if kept.height:
            starts, of_row = np.unique(slices, return_inverse=True)
            for index, start in enumerate(starts.tolist()):
                rows = kept[np.flatnonzero(of_row == index)] if len(starts) > 1 else kept
                to.rows.add(start, rows)
                self._counters.taken += rows.height
        to.rows.fit()
        return iter(())

    def _windows_of(self, times: pl.Series) -> tuple[Times, Times, Times]:
        """Of rows with these times: the ends of the first and the last window, and the slice. A slice of windows
        that rows carry is named by the window's end."""
        values = times.to_numpy()
        if self._window is None:
            return values, values, values
        slices = times.to_frame("t").select(self._window.slice_expr(pl.col("t"))).to_series().to_numpy()
        return self._window.first_ends(values), self._window.last_ends(values), slices

    def _ends_after(self, times: Times) -> Times:
        """The earliest end of any window after each time."""
        return times + 1 if self._window is None else self._window.first_ends(times)

    def _last_end(self, start: int) -> int:
        """End of the last window with the slice."""
        return start if self._window is None else self._window.last_end(start)

    def _due(self, watermark: int) -> list[int]:
        """Ends of the next windows with rows that `watermark` closes, ascending: one, or several small ones."""
        ends: list[int] = []
        cost = 0
        starts = self._slices()
        closed = self._watermark + 1
        while starts:
            end = self._next_end(starts[0], closed)
            if end > watermark + 1:
                break
            cost += sum(self._rows_of(start) for start in self._slices_of(end, starts)) + _WINDOW_COST
            if ends and cost > _TOGETHER_ROWS:
                break
            ends.append(end)
            closed = end
            starts = [start for start in starts if self._last_end(start) > end]
        return ends

    def _forget(self) -> None:
        for each in (self._left.rows, self._right.rows):
            for start in each.slices:
                if self._last_end(start) - 1 > self._watermark:
                    break
                each.drop(start)

    def _join(self, ends: Sequence[int]) -> Iterator[Output]:
        slices = {
            end: self._slices_of(end, sorted({*self._left.rows.slices, *self._right.rows.slices})) for end in ends
        }
        rows = sum(self._rows_of(start) for starts in slices.values() for start in starts)
        buckets = split_range(self._context.groups, -(-rows // BUCKET_ROWS)) if self._shape.left.key else []
        for bucket in buckets if len(buckets) > 1 else (None,):
            left, right = (
                [
                    frame.with_columns(pl.lit(end, dtype=pl.Int64).alias(_END))
                    for end, starts in slices.items()
                    for start in starts
                    for frame in self._open(each.rows.read(start, bucket), end)
                ]
                for each in (self._left, self._right)
            )
            yield from self._join_rows(
                pl.concat(left) if left else self._nothing(self._left),
                pl.concat(right) if right else self._nothing(self._right),
            )

    def _join_rows(self, left: pl.DataFrame, right: pl.DataFrame) -> Iterator[Output]:
        """Rows of one or several windows, which `_END` names."""
        right = right.rename({_END: _OTHER_END})
        matched_left, matched_right = (np.zeros(side.height, dtype=np.bool_) for side in (left, right))
        keys = (_END, *self._shape.left.key), (_OTHER_END, *self._shape.right.key)
        if left.height and right.height:
            for candidates in equal_keys(left, keys[0], right, keys[1]):
                matches = self._pairing.match(candidates, left[candidates.at], right[candidates.of])
                matched_left[matches.at] = True
                matched_right[matches.ids] = True
                if self._shape.pairs and len(matches.at):
                    joined = self._pairing.joined(matches.rows, *self._windows(matches.rows, self._left))
                    yield self._counters.result(joined)
        yield from self._pairing.errors()
        if self._shape.kind == "semi":
            yield from self._alone(self._left, left, matched_left)
        if self._left.alone:
            yield from self._alone(self._left, left, ~matched_left)
        if self._right.alone:
            yield from self._alone(self._right, right.rename({_OTHER_END: _END}), ~matched_right)

    def _alone(self, each: _Input, rows: pl.DataFrame, wanted: Flags) -> Iterator[Output]:
        chosen = rows.filter(pl.Series(wanted))
        alone = self._pairing.alone(each.side, chosen, *self._windows(chosen, each))
        yield from in_pieces(alone, self._counters)

    def _windows(self, rows: pl.DataFrame, each: _Input) -> list[pl.Series]:
        """The columns that say which window results belong to, and their time."""
        end = pl.col(_END)
        if each.carried is not None:
            bounds = [pl.col(name) for name in each.carried]
        else:
            assert self._window is not None
            bounds = [self._window.start_expr(end).cast(WINDOW_TYPE), end.cast(WINDOW_TYPE)]
        named = [bound.alias(name) for bound, name in zip(bounds, WINDOW_COLUMNS, strict=True)]
        return rows.select(*named, (end - 1).alias(TIME)).get_columns()

    def _open(self, frames: Sequence[pl.DataFrame], end: int) -> Iterator[pl.DataFrame]:
        """Rows that were not late for the window."""
        for frame in frames:
            rows = frame if self._single else frame.filter(pl.col(_FROM) <= end).drop(_FROM)
            if rows.height:
                yield rows

    def _slices(self) -> list[int]:
        """Slices with rows of either side, ascending."""
        return sorted({*self._left.rows.slices, *self._right.rows.slices})

    def _slices_of(self, end: int, starts: Sequence[int]) -> list[int]:
        if self._window is None:
            return [end]
        begin = self._window.start_of(end)
        return [start for start in starts if begin <= start < end]

    def _rows_of(self, start: int) -> int:
        return self._left.rows.rows_of(start) + self._right.rows.rows_of(start)

    def _next_end(self, start: int, closed: int) -> int:
        """End of the first window with the slice that ends after `closed`."""
        return start if self._window is None else max(self._window.first_end(start), self._window.first_end(closed))

    def _nothing(self, each: _Input) -> pl.DataFrame:
        return pl.DataFrame(schema={**each.side.schema, _END: pl.Int64()})
