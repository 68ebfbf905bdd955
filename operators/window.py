"""Keyed windows over event time: each (window, key) with rows is emitted once, when the watermark closes it.

A batch is aggregated once into partials per (slice, key); a window that closes merges its slices. What is
late is decided row by row against the watermark just before that row, so results do not depend on where
batches were cut. Everything about which windows are closed follows from one number, the watermark: a window
is closed when watermark ≥ end − 1, and out of reach for rows when watermark ≥ end − 1 + accept_for. Rows
accepted into a closed window emit their keys of that window again, with the full new values.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import polars as pl

from operators import block_codec
from operators.aggregates import AggregatePlan
from operators.connector import ErrorPolicy
from operators.element import ROW_WATERMARK, TIME, WATERMARK_MIN, EventTimeMs, Schema
from operators.hashing import key_groups
from operators.operator import OperatorContext, Output
from operators.partials import Partials
from operators.row_errors import ROW_ERRORS, RowErrors, reason
from operators.slices import Times, Window
from operators.types import name_of
from state.failure import Actor, Failure

WINDOW_TYPE: Final = pl.Datetime("ms", "UTC")
EMIT_ROWS: Final = 65_536  # rows of an output frame, about
_TOGETHER_ROWS: Final = 65_536  # partials of small windows that are closed in one go
_WINDOW_COST: Final = 32  # what a window costs there beside its rows
_START: Final = "__window"


class MissingEventTime(Failure):
    """A row without event time reached a window; sources are to refuse such rows."""

    def __init__(self, step: str) -> None:
        super().__init__(f"step {step}: a row without event time reached its window")


class ResultFailed(Failure):
    """An aggregate failed on rows together, or an expression over aggregates on a result."""

    acts: ClassVar[Actor] = "user"

    def __init__(self, step: str, error: str) -> None:
        super().__init__(f"step {step}: aggregates could not be computed: {error}")


@dataclass(frozen=True, slots=True)
class WindowAggregateSpec:
    """`aggregate` over `window` by `key`; the empty key is one global group."""

    key: tuple[str, ...]
    window: Window
    plan: AggregatePlan
    accept_for_ms: int
    late_output: bool
    input_schema: Schema
    errors: ErrorPolicy = "fail"

    @property
    def schema(self) -> Schema:
        keys = {name: self.input_schema[name] for name in self.key}
        return keys | {"window_start": WINDOW_TYPE, "window_end": WINDOW_TYPE} | dict(self.plan.schema)

    @property
    def stateful(self) -> bool:
        return True

    def create(self, context: OperatorContext) -> WindowAggregate:
        return WindowAggregate(self, context)

    def describe(self) -> str:
        """Everything that stored partials depend on."""
        by = ", ".join(f"{name} {name_of(self.input_schema[name])}" for name in self.key)
        aggregates = ", ".join(
            f"{name} = {' '.join(output.text.split())}"
            for name, output in zip(self.plan.names, self.plan.outputs, strict=True)
        )
        reads = ", ".join(f"{name} {name_of(self.input_schema[name])}" for name in self.plan.inputs)
        late = f", late accepted for {self.accept_for_ms}ms" if self.accept_for_ms else ""
        return f"{self.window} by ({by}): {aggregates}; of ({reads}){late}"


class WindowAggregate:
    """One subtask. A generator of outputs has to be run to its end before the next call."""

    def __init__(self, spec: WindowAggregateSpec, context: OperatorContext) -> None:
        self._spec = spec
        self._context = context
        self._key = list(spec.key)
        self._window = spec.window
        self._reach = spec.window.size_ms - 1  # a window closes at start + reach
        assert context.state is not None
        self._waiting_blocks = context.state.blocks("waiting")
        self._errors = RowErrors(context, spec.errors, lambda _: f"aggregate {', '.join(spec.plan.schema)}")
        self._partials = Partials(spec.plan, spec.key, context, shared=not spec.window.tumbles)
        self._slices: list[int] = []  # starts of the slices that hold rows, ascending
        self._watermark: int = WATERMARK_MIN
        self._waiting: dict[int, list[pl.DataFrame]] = {}  # rows, by the watermark they wait for

    @property
    def held_rows(self) -> int:
        """Partial rows in memory."""
        return self._partials.rows

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take one batch; raises `MissingEventTime`."""
        times = frame.get_column(TIME)
        if times.null_count():
            raise MissingEventTime(self._context.step)
        highest: int = max(self._watermark, watermark)
        if ROW_WATERMARK in frame.columns:
            of_rows: int | None = frame.get_column(ROW_WATERMARK).max()  # type: ignore[assignment]
            highest = highest if of_rows is None else max(highest, of_rows)
        earliest: int = times.min()  # type: ignore[assignment]
        if highest < self._out_of_reach_at(self._window.first_window(earliest)) and not self._window.has_gaps:
            yield from self._take(frame)  # no row is late for any window: nearly always
        else:
            yield from self._take_checked(frame, watermark)
        self._partials.fit()

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Close every window that ends at or before `watermark` + 1, in ascending order."""
        for level in sorted(level for level in self._waiting if level <= watermark):
            yield from self._advance(level)
            yield from self._take(pl.concat(self._waiting.pop(level)))
        yield from self._advance(watermark)
        self._partials.fit()

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """Append dirty partials and waiting rows to state. The watermark says all the rest."""
        self._partials.flush()
        for level in self._waiting_blocks.namespaces():
            self._waiting_blocks.delete(level)
        for level, frames in self._waiting.items():
            self._waiting_blocks.append(level, self._context.groups, block_codec.encode(pl.concat(frames)))
        return {"watermark": int(self._watermark)}

    def restore(self, snapshots: list[Mapping[str, Any]]) -> None:
        """Go on from the lowest watermark. Subtasks of one step see the same watermarks, and barriers are
        aligned, so old subtasks agree; were one behind, the others' windows would be emitted again, not lost."""
        self._watermark = min((int(snapshot["watermark"]) for snapshot in snapshots), default=WATERMARK_MIN)
        self._slices = self._partials.restore()
        for level in self._waiting_blocks.namespaces():
            held = list(block_codec.scan(self._waiting_blocks, level, self._context.groups, self._groups_of))
            if held:
                self._waiting[level] = held

    def _groups_of(self, frame: pl.DataFrame) -> pl.Series:
        return key_groups(frame, self._key, self._context.max_parallelism)

    def _out_of_reach_at(self, window: int) -> int:
        """The watermark from which a row is late for the window."""
        return window + self._reach + self._spec.accept_for_ms

    def _first_open(self, watermark: int) -> int:
        """The earliest window, with or without rows, that is not closed at `watermark`."""
        return self._window.first_window(watermark + 1)

    def _take(self, frame: pl.DataFrame) -> Iterator[Output]:
        """Aggregate rows of which none is late, and emit the closed windows they change."""
        late_parts: dict[int, pl.DataFrame] = {}
        first_open = self._first_open(self._watermark)
        added: list[int] = []
        try:
            parts = self._partials_by_slice(frame)
        except ROW_ERRORS as error:
            good, outputs, bad_rows = self._errors.isolate(frame, self._computable, error)
            yield from outputs
            if not bad_rows:  # no single row is to blame
                raise ResultFailed(self._context.step, reason(error)) from error
            parts = self._partials_by_slice(pl.concat(good)) if good else []
        for start, part in parts:
            if start not in self._partials:
                added.append(start)
            self._partials.add(start, part)
            if self._window.first_window(start) < first_open:
                late_parts[start] = part
        if added:
            self._slices.extend(added)
            self._slices.sort()
        if late_parts and self._spec.accept_for_ms:
            yield from self._emit_changed(late_parts)

    def _partials_by_slice(self, frame: pl.DataFrame) -> Sequence[tuple[int, pl.DataFrame]]:
        times = frame.get_column(TIME)
        window, plan = self._window, self._spec.plan
        start = window.slice_of(times.min())  # type: ignore[arg-type]
        if window.slice_of(times.max()) == start:  # type: ignore[arg-type]
            return [(start, plan.partial(frame, self._key))]
        frame = frame.with_columns(window.slice_expr(pl.col(TIME)).alias(_START))
        partial = plan.partial(frame, [_START, *self._key])
        starts = partial.get_column(_START).unique(maintain_order=True).to_list()
        # Copies each slice's rows: views would keep the whole batch in memory for its longest-lived slice.
        parts = partial.partition_by(_START, maintain_order=True, include_key=False)
        return list(zip(starts, parts, strict=True))

    def _computable(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame itself, if its partials can be computed."""
        self._spec.plan.partial(frame, self._key)
        return frame

    def _take_checked(self, frame: pl.DataFrame, watermark: int) -> Iterator[Output]:
        """As `_take`, where rows may be late for some or all of their windows, or in a gap between windows."""
        times = frame.get_column(TIME).to_numpy()
        now = self._row_watermarks(frame, watermark)
        last_ends = self._window.last_ends(times)
        nowhere = times >= last_ends
        grace = self._spec.accept_for_ms - 1
        late = (now >= last_ends + grace) & ~nowhere
        self._context.counters.filtered += int(nowhere.sum())
        if late.any():
            self._context.counters.late += int(late.sum())
            if self._spec.late_output:
                yield Output("late", frame.filter(pl.Series(late)))
        taken = ~(late | nowhere)
        frame, times, now = frame.filter(pl.Series(taken)), times[taken], now[taken]
        # When the row came, the last of its windows to go out of reach had done so at:
        until = self._window.first_ends(now - grace) - self._window.slide_ms + grace
        waits = (until >= self._window.first_ends(times) + grace) & (until > self._watermark)
        if waits.any():
            self._wait(frame.filter(pl.Series(waits)), until[waits])
            frame = frame.filter(pl.Series(~waits))
        if frame.height:
            yield from self._take(frame)

    def _wait(self, frame: pl.DataFrame, until: Times) -> None:
        """Hold back rows that are late for their first windows while these, by our watermark, are still open."""
        for level in np.unique(until).tolist():
            self._waiting.setdefault(level, []).append(frame.filter(pl.Series(until == level)))

    def _row_watermarks(self, frame: pl.DataFrame, watermark: int) -> Times:
        """The watermark just before each row, never behind ours: what is closed stays closed."""
        if ROW_WATERMARK not in frame.columns:
            return np.full(frame.height, max(self._watermark, watermark), dtype=np.int64)
        rows: Times = frame.get_column(ROW_WATERMARK).fill_null(watermark).to_numpy()
        return np.maximum(rows, np.int64(self._watermark))

    def _advance(self, watermark: int) -> Iterator[Output]:
        """Close windows up to `watermark`, then forget slices no row can reach any more."""
        while due := self._due(watermark):
            yield from self._emit(due)
            self._watermark = due[-1] + self._reach
            self._forget()
        if watermark > self._watermark:
            self._watermark = watermark
            self._forget()

    def _due(self, watermark: int) -> list[int]:
        """The next windows with rows that `watermark` closes, ascending: one, or several small ones."""
        windows: list[int] = []
        cost = 0
        first_open = self._first_open(self._watermark)
        while (index := bisect_left(self._slices, first_open)) < len(self._slices):
            window = max(first_open, self._window.first_window(self._slices[index]))
            if window + self._reach > watermark:
                break
            cost += sum(map(self._partials.rows_of, self._slices_of(window))) + _WINDOW_COST
            if windows and cost > _TOGETHER_ROWS:
                break
            windows.append(window)
            first_open = window + self._window.slide_ms
        return windows

    def _slices_of(self, window: int) -> list[int]:
        first = bisect_left(self._slices, window)
        return self._slices[first : bisect_left(self._slices, window + self._window.size_ms, lo=first)]

    def _forget(self) -> None:
        reachable = self._window.first_window(self._watermark - self._spec.accept_for_ms + 1)
        gone = bisect_left(self._slices, reachable)
        for start in self._slices[:gone]:
            self._partials.drop(start)
        del self._slices[:gone]

    def _emit(self, windows: Sequence[int]) -> Iterator[Output]:
        if len(windows) == 1:
            for merged in self._partials.merged(self._slices_of(windows[0])):
                yield from self._finish(merged, windows[0])
            return
        frames: list[pl.DataFrame] = []
        window_of_frame: list[int] = []
        for window in windows:
            for start in self._slices_of(window):
                held = self._partials.frames_of(start)
                frames.extend(held)
                window_of_frame.extend([window] * len(held))
        if frames:
            column = np.repeat(np.array(window_of_frame, dtype=np.int64), [frame.height for frame in frames])
            together = pl.concat(frames).with_columns(pl.Series(_START, column))
            yield from self._finish(self._spec.plan.merge(together, [_START, *self._key]), None)

    def _emit_changed(self, parts: Mapping[int, pl.DataFrame]) -> Iterator[Output]:
        """Emit the keys in `parts` (by slice) again, in each of their windows that is closed and still in reach."""
        first_open = self._first_open(self._watermark)
        first_reachable = self._first_open(self._watermark - self._spec.accept_for_ms)
        changed: dict[int, list[pl.DataFrame]] = {}
        for start, part in parts.items():
            first = max(self._window.first_window(start), first_reachable)
            for window in range(first, min(self._window.last_window(start) + 1, first_open), self._window.slide_ms):
                changed.setdefault(window, []).append(part.select(self._key))
        for window in sorted(changed):
            keys = pl.concat(changed[window]).unique() if self._key else pl.DataFrame()
            for merged in self._partials.merged_for(self._slices_of(window), keys):
                yield from self._finish(merged, window)

    def _finish(self, merged: pl.DataFrame, window: int | None) -> Iterator[Output]:
        """Aggregates of one window, or of the windows in column `_START`, as output frames."""
        together = window is None
        start = pl.col(_START) if together else pl.lit(window, dtype=pl.Int64)
        try:
            finished = self._spec.plan.finish(merged, [_START, *self._key] if together else self._key)
        except ROW_ERRORS as error:
            raise ResultFailed(self._context.step, reason(error)) from error
        if together:
            finished = finished.sort(_START)
        frame = finished.select(
            *self._key,
            start.cast(WINDOW_TYPE).alias("window_start"),
            (start + self._window.size_ms).cast(WINDOW_TYPE).alias("window_end"),
            *self._spec.plan.schema,
            (start + self._reach).alias(TIME),
        )
        for piece in frame.iter_slices(EMIT_ROWS):
            yield Output("main", piece)
