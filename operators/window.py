"""Keyed windows over event time: each (window, key) with rows is emitted once, when the watermark closes it.

A batch is aggregated once into partials per (slice, key); a window that closes merges its slices. What is
late is decided row by row against the watermark just before that row, so results do not depend on where
batches were cut. Everything about which windows are closed follows from one number, the watermark: a window
is closed when watermark ≥ end − 1, and out of reach for rows when watermark ≥ end − 1 + accept_for. Rows
accepted into a closed window emit their keys of that window again, with the full new values.

Windows that emit updates give a changelog instead: partials that have not been shown yet are kept apart, and
showing them takes back what the others came to. Nothing more is to be said when such a window closes.

Windows that rows carry are one slice each, at their last instant; their starts divide the slice.
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
from operators.changes import changes
from operators.connector import ErrorPolicy
from operators.element import ROW_WATERMARK, TIME, WATERMARK_MIN, EventTimeMs, Schema
from operators.explanation import Explanation, Late, by_key, changes_text, duration_text
from operators.hashing import key_groups
from operators.operator import OperatorContext, Output
from operators.partials import Partials
from operators.row_errors import ROW_ERRORS, RowErrors, reason
from operators.slices import Times, Window
from operators.window_results import (
    EMIT_ROWS,
    END,
    START,
    WINDOW_TYPE,
    MissingEventTime,
    ResultFailed,
    WindowResults,
    computed_text,
    described,
    partials_text,
    result_schema,
)
from state.failure import Actor, Failure

__all__ = [
    "CARRIED",
    "WINDOW_TYPE",
    "MissingEventTime",
    "MissingWindow",
    "ResultFailed",
    "WindowAggregate",
    "WindowAggregateSpec",
    "updates_text",
]

CARRIED: Final = Window(1, 1)  # what carried windows are to everything but their results
_TOGETHER_ROWS: Final = 65_536  # partials of small windows that are closed in one go
_WINDOW_COST: Final = 32  # what a window costs there beside its rows
_AT: Final = "__at"  # the slice of a row
_SLOT: Final = "__slot"


class MissingWindow(Failure):
    """A row without `window_start` or `window_end` reached a step over the windows that rows carry."""

    acts: ClassVar[Actor] = "user"

    def __init__(self, step: str) -> None:
        super().__init__(f"step {step}: a row without window_start or window_end reached `window: input`")


@dataclass(frozen=True, slots=True)
class WindowAggregateSpec:
    """`aggregate` over `window` by `key`; the empty key is one global group.

    `carried`: over the windows that rows carry; `window` is then `CARRIED`. `update_every_ms`: None emits on
    close; otherwise a changelog, of each change as it comes (0) or each time event time passes a multiple.
    """

    key: tuple[str, ...]
    window: Window
    plan: AggregatePlan
    accept_for_ms: int
    late_output: bool
    input_schema: Schema
    errors: ErrorPolicy = "fail"
    carried: bool = False
    update_every_ms: int | None = None

    @property
    def schema(self) -> Schema:
        return result_schema(self.plan, self.key, self.input_schema)

    @property
    def stateful(self) -> bool:
        return True

    def create(self, context: OperatorContext) -> WindowAggregate:
        return WindowAggregate(self, context)

    def describe(self) -> str:
        """Everything that stored partials depend on."""
        window = "input" if self.carried else str(self.window)
        text = described(window, self.plan, self.key, self.input_schema, self.accept_for_ms)
        return text + updates_text(self.update_every_ms)

    def explained(self) -> Explanation:
        window = "of the input" if self.carried else self.window.text
        per = "window" if self.carried or self.window.tumbles else self._per_slice()
        return Explanation(
            f"window {window}{by_key(self.key)}{changes_text(self.update_every_ms)}",
            computed_text(self.plan),
            partials_text(f"key and {per}" if self.key else per, self.accept_for_ms),
            Late(self.accept_for_ms, self.late_output),
        )

    def _per_slice(self) -> str:
        window = self.window
        count = f"{'up to ' if window.cumulates else ''}{window.size_ms // window.slice_ms} to a window"
        return f"slice of {duration_text(window.slice_ms)} ({count})"


def updates_text(update_every_ms: int | None) -> str:
    """How a step emits, where that is not on close."""
    if update_every_ms is None:
        return ""
    return f", updates every {update_every_ms}ms" if update_every_ms else ", each update"


def next_update(watermark: int, every_ms: int, closes: int) -> int:
    """The next watermark that shows updates: a multiple of the period, or what closes a window."""
    return closes if watermark == WATERMARK_MIN else min((watermark // every_ms + 1) * every_ms, closes)


class WindowAggregate:
    """One subtask. A generator of outputs has to be run to its end before the next call."""

    def __init__(self, spec: WindowAggregateSpec, context: OperatorContext) -> None:
        self._spec = spec
        self._context = context
        self._key = list(spec.key)
        self._within = [START] if spec.carried else []
        self._by = [*self._within, *self._key]
        self._window = spec.window
        self._results = WindowResults(context.step, spec.plan, spec.key)
        assert context.state is not None
        self._waiting_blocks = context.state.blocks("waiting")
        self._errors = RowErrors(context, spec.errors, lambda _: f"aggregate {', '.join(spec.plan.schema)}")
        slice_ms, shared = spec.window.slice_ms, not spec.window.tumbles
        self._partials = Partials(spec.plan, spec.key, context, slice_ms=slice_ms, shared=shared, within=self._within)
        self._slices: list[int] = []  # starts of the slices that hold rows, ascending
        self._updates = spec.update_every_ms is not None
        self._unshown: Partials | None = None  # what has not been emitted yet, where that may wait
        if spec.update_every_ms:
            self._unshown = Partials(
                spec.plan,
                spec.key,
                context,
                slice_ms=slice_ms,
                shared=False,
                within=self._within,
                name="window_unshown",
            )
        self._unshown_slices: set[int] = set()
        self._counters = context.counters
        self._watermark: int = WATERMARK_MIN
        self._waiting: dict[int, list[pl.DataFrame]] = {}  # rows, by the watermark they wait for

    @property
    def held_rows(self) -> int:
        """Partial rows in memory."""
        return self._partials.rows + (self._unshown.rows if self._unshown else 0)

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take one batch; raises `MissingEventTime`, `MissingWindow`."""
        times = self._placed(frame)
        highest: int = max(self._watermark, watermark)
        if ROW_WATERMARK in frame.columns:
            of_rows: int | None = frame.get_column(ROW_WATERMARK).max()  # type: ignore[assignment]
            highest = highest if of_rows is None else max(highest, of_rows)
        earliest: int = times.min()  # type: ignore[assignment]
        if highest < self._out_of_reach_at(self._window.first_end(earliest)) and not self._window.has_gaps:
            yield from self._take(frame)  # no row is late for any window: nearly always
        else:
            yield from self._take_checked(frame, watermark)
        self._fit()

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Close every window that ends at or before `watermark` + 1, in ascending order."""
        for level in sorted(level for level in self._waiting if level <= watermark):
            yield from self._advance(level)
            released = pl.concat(self._waiting.pop(level))
            self._counters.made += released.height  # as if they came now
            yield from self._take(released)
        yield from self._advance(watermark)
        self._fit()

    def next_close(self) -> EventTimeMs | None:
        """The last instant of the next window that has something to give."""
        if not self._updates:
            first_open = self._first_open(self._watermark)
            index = bisect_left(self._slices, self._window.start_of(first_open))
            if index == len(self._slices):
                return None
            return EventTimeMs(max(first_open, self._window.first_end(self._slices[index])) - 1)
        if not self._unshown_slices or not self._spec.update_every_ms:
            return None  # there is no waiting, or nothing to wait for
        return EventTimeMs(next_update(self._watermark, self._spec.update_every_ms, self._next_unshown_end() - 1))

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """Append dirty partials and waiting rows to state. The watermark says all the rest."""
        self._partials.flush()
        if self._unshown:
            self._unshown.flush()
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
        if self._unshown:
            self._unshown_slices = set(self._unshown.restore())
        for level in self._waiting_blocks.namespaces():
            held = list(block_codec.scan(self._waiting_blocks, level, self._context.groups, self._groups_of))
            if held:
                self._waiting[level] = held

    def _fit(self) -> None:
        self._partials.fit()
        if self._unshown:
            self._unshown.fit()

    def _groups_of(self, frame: pl.DataFrame) -> pl.Series:
        return key_groups(frame, self._key, self._context.max_parallelism)

    def _placed(self, frame: pl.DataFrame) -> pl.Series:
        """The time that places each row in its windows: its own, or the last instant of the window it carries."""
        if frame.get_column(TIME).null_count():
            raise MissingEventTime(self._context.step)
        if not self._spec.carried:
            return frame.get_column(TIME)
        if frame.get_column("window_start").null_count() or frame.get_column("window_end").null_count():
            raise MissingWindow(self._context.step)
        return _as_ms(frame.get_column("window_end")) - 1

    def _out_of_reach_at(self, end: int) -> int:
        """The watermark from which a row is late for the window."""
        return end - 1 + self._spec.accept_for_ms

    def _first_open(self, watermark: int) -> int:
        """The earliest window, with or without rows, that is not closed at `watermark`."""
        return self._window.first_end(watermark + 1)

    def _first_reachable(self) -> int:
        """The earliest window that rows may still come to."""
        return self._first_open(self._watermark - self._spec.accept_for_ms)

    def _take(self, frame: pl.DataFrame) -> Iterator[Output]:
        """Aggregate rows of which none is late, and emit what is to be emitted now."""
        try:
            parts = self._partials_by_slice(frame)
        except ROW_ERRORS as error:
            good, outputs, bad_rows = self._errors.isolate(frame, self._computable, error)
            yield from outputs
            if not bad_rows:  # no single row is to blame
                raise ResultFailed(self._context.step, reason(error)) from error
            frame = pl.concat(good) if good else frame.clear()
            parts = self._partials_by_slice(frame) if good else []
        self._counters.taken += frame.height
        if self._unshown:
            for start, part in parts:
                self._unshown.add(start, part)
                self._unshown_slices.add(start)
            return
        if self._updates:
            yield from self._show({start: [part] for start, part in parts})
            self._add(parts)
            return
        self._add(parts)
        first_open = self._first_open(self._watermark)
        late_parts = {start: part for start, part in parts if self._window.first_end(start) < first_open}
        if late_parts and self._spec.accept_for_ms:
            yield from self._emit_changed(late_parts)

    def _add(self, parts: Sequence[tuple[int, pl.DataFrame]]) -> None:
        added: set[int] = set()
        for start, part in parts:
            if start not in self._partials:
                added.add(start)
            self._partials.add(start, part)
        if added:
            self._slices.extend(added)
            self._slices.sort()

    def _partials_by_slice(self, frame: pl.DataFrame) -> Sequence[tuple[int, pl.DataFrame]]:
        times = self._placed(frame)
        window, plan = self._window, self._spec.plan
        if self._spec.carried:
            frame = frame.with_columns(_as_ms(frame.get_column("window_start")).alias(START))
        start = window.slice_of(times.min())  # type: ignore[arg-type]
        if window.slice_of(times.max()) == start:  # type: ignore[arg-type]
            return [(start, plan.partial(frame, self._by))]
        frame = frame.with_columns(times.alias(_AT)).with_columns(window.slice_expr(pl.col(_AT)))
        partial = plan.partial(frame, [_AT, *self._by])
        starts = partial.get_column(_AT).unique(maintain_order=True).to_list()
        # Copies each slice's rows: views would keep the whole batch in memory for its longest-lived slice.
        parts = partial.partition_by(_AT, maintain_order=True, include_key=False)
        return list(zip(starts, parts, strict=True))

    def _computable(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame itself, if its partials can be computed."""
        self._spec.plan.partial(frame, self._key)
        return frame

    def _take_checked(self, frame: pl.DataFrame, watermark: int) -> Iterator[Output]:
        """As `_take`, where rows may be late for some or all of their windows, or in a gap between windows."""
        times = self._placed(frame).to_numpy()
        now = self._row_watermarks(frame, watermark)
        last_ends = self._window.last_ends(times)
        nowhere = times >= last_ends
        grace = self._spec.accept_for_ms - 1
        late = (now >= last_ends + grace) & ~nowhere
        self._counters.filtered += int(nowhere.sum())
        if late.any():
            self._counters.late += int(late.sum())
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
            waiting = frame.filter(pl.Series(until == level))
            self._waiting.setdefault(level, []).append(waiting)
            self._counters.taken += waiting.height

    def _row_watermarks(self, frame: pl.DataFrame, watermark: int) -> Times:
        """The watermark just before each row, never behind ours: what is closed stays closed."""
        if ROW_WATERMARK not in frame.columns:
            return np.full(frame.height, max(self._watermark, watermark), dtype=np.int64)
        rows: Times = frame.get_column(ROW_WATERMARK).fill_null(watermark).to_numpy()
        return np.maximum(rows, np.int64(self._watermark))

    def _advance(self, watermark: int) -> Iterator[Output]:
        """Close windows up to `watermark`, then forget slices no row can reach any more."""
        if self._updates:
            if self._unshown and self._unshown_slices and self._is_time_to_show(watermark):
                yield from self._show_waiting(self._unshown)
        else:
            while due := self._due(watermark):
                yield from self._emit(due)
                self._watermark = due[-1] - 1
                self._forget()
        if watermark > self._watermark:
            self._watermark = watermark
            self._forget()

    def _due(self, watermark: int) -> list[int]:
        """The next windows with rows that `watermark` closes, ascending: one, or several small ones."""
        windows: list[int] = []
        cost = 0
        first_open = self._first_open(self._watermark)
        while (index := bisect_left(self._slices, self._window.start_of(first_open))) < len(self._slices):
            end = max(first_open, self._window.first_end(self._slices[index]))
            if end - 1 > watermark:
                break
            cost += sum(map(self._partials.rows_of, self._slices_of(end))) + _WINDOW_COST
            if windows and cost > _TOGETHER_ROWS:
                break
            windows.append(end)
            first_open = end + self._window.slide_ms
        return windows

    def _slices_of(self, end: int) -> list[int]:
        first = bisect_left(self._slices, self._window.start_of(end))
        return self._slices[first : bisect_left(self._slices, end, lo=first)]

    def _forget(self) -> None:
        gone = bisect_left(self._slices, self._window.start_of(self._first_reachable()))
        for start in self._slices[:gone]:
            self._partials.drop(start)
        del self._slices[:gone]

    def _emit(self, windows: Sequence[int]) -> Iterator[Output]:
        if len(windows) == 1:
            for merged in self._partials.merged(self._slices_of(windows[0])):
                yield from self._output(merged, windows[0])
            return
        frames: list[pl.DataFrame] = []
        window_of_frame: list[int] = []
        for end in windows:
            held = self._partials.frames_of_all(self._slices_of(end))
            frames.extend(held)
            window_of_frame.extend([end] * len(held))
        if frames:
            column = np.repeat(np.array(window_of_frame, dtype=np.int64), [frame.height for frame in frames])
            together = pl.concat(frames).with_columns(pl.Series(END, column))
            yield from self._output(self._spec.plan.merge(together, [END, *self._by]), None)

    def _emit_changed(self, parts: Mapping[int, pl.DataFrame]) -> Iterator[Output]:
        """Emit the keys in `parts` (by slice) again, in each of their windows that is closed and still in reach."""
        first_open = self._first_open(self._watermark)
        for end, changed in self._by_window({start: [part] for start, part in parts.items()}):
            if end < first_open:
                for merged in self._partials.merged_for(self._slices_of(end), self._keys_in(changed)):
                    yield from self._output(merged, end)

    def _is_time_to_show(self, watermark: int) -> bool:
        """Whether event time passes a multiple of the period, or closes a window with something to show."""
        period = self._spec.update_every_ms
        assert period
        if watermark // period > self._watermark // period:
            return True
        return self._next_unshown_end() - 1 <= watermark

    def _next_unshown_end(self) -> int:
        reachable = self._first_reachable()
        return min(max(reachable, self._window.first_end(start)) for start in self._unshown_slices)

    def _show_waiting(self, unshown: Partials) -> Iterator[Output]:
        parts = {start: unshown.frames_of(start) for start in sorted(self._unshown_slices)}
        yield from self._show(parts)
        for start, frames in parts.items():
            unshown.drop(start)
            self._add([(start, frame) for frame in frames])
        self._unshown_slices.clear()

    def _show(self, parts: Mapping[int, list[pl.DataFrame]]) -> Iterator[Output]:
        """Emit what `parts` (by slice, not added yet) change in each of their windows that is still in reach."""
        plan = self._spec.plan
        for end, changed in self._by_window(parts):
            fresh = pl.concat(changed)
            before = list(self._partials.merged_for(self._slices_of(end), self._keys_in(changed)))
            after = plan.merge(pl.concat([*before, fresh]), self._by) if before or len(changed) > 1 else fresh
            for piece in after.iter_slices(EMIT_ROWS // 2):
                new = self._rows(piece, end)
                slots = np.arange(new.height)
                old, old_slots = new.clear(), slots[:0]
                if before:
                    order = piece.select(*self._by, pl.Series(_SLOT, slots, dtype=pl.Int64))
                    if self._by:
                        known = before[0].join(order, on=self._by, how="inner", nulls_equal=True)
                    else:
                        known = before[0].with_columns(pl.lit(0, dtype=pl.Int64).alias(_SLOT))
                    old, old_slots = self._rows(known, end), known.get_column(_SLOT).to_numpy()
                frame = changes(self._results.columns, old, old_slots, new, slots, new.get_column(TIME).to_numpy())
                if frame.height:
                    yield self._counters.result(frame)

    def _by_window(self, parts: Mapping[int, list[pl.DataFrame]]) -> Iterator[tuple[int, list[pl.DataFrame]]]:
        """Each window of these slices that is still in reach, ascending, and the frames that are in it."""
        reachable = self._first_reachable()
        found: dict[int, list[pl.DataFrame]] = {}
        for start, frames in parts.items():
            if not frames:  # stored rows that all belong to other subtasks now
                continue
            first = max(self._window.first_end(start), reachable)
            for end in range(first, self._window.last_end(start) + 1, self._window.slide_ms):
                found.setdefault(end, []).extend(frames)
        for end in sorted(found):
            yield end, found[end]

    def _keys_in(self, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
        if not self._by:
            return pl.DataFrame()
        return pl.concat([frame.select(self._by) for frame in frames]).unique()

    def _output(self, merged: pl.DataFrame, end: int | None) -> Iterator[Output]:
        """Results of one window, or of the windows in column `END`, as output frames."""
        for piece in self._rows(merged, end).iter_slices(EMIT_ROWS):
            yield self._counters.result(piece)

    def _rows(self, merged: pl.DataFrame, end: int | None) -> pl.DataFrame:
        """Result rows of one window, or of the windows in column `END` in their order."""
        ends = pl.col(END) if end is None else pl.lit(end, dtype=pl.Int64)
        if end is None:
            merged = merged.sort(END)
        starts = pl.col(START) if self._spec.carried else self._window.start_expr(ends)
        return self._results.rows(merged, starts, ends, [*self._within, *([END] if end is None else [])])


def _as_ms(values: pl.Series) -> pl.Series:
    return values.cast(WINDOW_TYPE).to_physical()
