"""Session windows: rows of a key that are at most the gap apart are one window, to the gap after the last of them.

A batch becomes partial sessions once, which are merged with the stored sessions of their keys that they touch.
A session is closed when watermark ≥ end − 1, as every window is, and a row that comes then begins another one,
even exactly at the end. A row is late when the session it would form or join is out of reach: when
watermark ≥ end − 1 + accept_for. Until then a closed session is kept; rows that join it, or join two, give
one longer session, which is emitted with its full values when it is closed (now, if it is already).

Sessions that emit updates give a changelog. A session that grows is another result: the old one is deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import polars as pl

from operators.aggregates import AggregatePlan
from operators.aggregates.accumulators import Extreme
from operators.changes import changes
from operators.connector import ErrorPolicy
from operators.element import ROW_WATERMARK, TIME, WATERMARK_MIN, EventTimeMs, Schema
from operators.explanation import Explanation, Late, by_key, changes_text, duration_text
from operators.keyed_rows import Ids, KeyedRows
from operators.operator import OperatorContext, Output
from operators.row_errors import ROW_ERRORS, RowErrors, reason
from operators.session_runs import LATE, Walk, components, conflicting, runs
from operators.slices import Times
from operators.window import next_update, updates_text
from operators.window_results import (
    EMIT_ROWS,
    WINDOW_TYPE,
    MissingEventTime,
    ResultFailed,
    WindowResults,
    computed_text,
    described,
    partials_text,
    result_schema,
)

_FIRST: Final = "__first"  # event time of a session's first row
_LAST: Final = "__last"
_SESSION: Final = "__session"
_NUMBER: Final = "__number"


@dataclass(frozen=True, slots=True)
class SessionAggregateSpec:
    """`aggregate` over sessions by `key`. `update_every_ms` as for `WindowAggregateSpec`."""

    key: tuple[str, ...]
    gap_ms: int
    plan: AggregatePlan
    accept_for_ms: int
    late_output: bool
    input_schema: Schema
    errors: ErrorPolicy = "fail"
    update_every_ms: int | None = None

    @property
    def schema(self) -> Schema:
        return result_schema(self.plan, self.key, self.input_schema)

    @property
    def stateful(self) -> bool:
        return True

    def create(self, context: OperatorContext) -> SessionAggregate:
        return SessionAggregate(self, context)

    def describe(self) -> str:
        """Everything that stored partials depend on."""
        window = f"session {self.gap_ms}ms"
        text = described(window, self.plan, self.key, self.input_schema, self.accept_for_ms)
        return text + updates_text(self.update_every_ms)

    def explained(self) -> Explanation:
        return Explanation(
            f"window session {duration_text(self.gap_ms)}{by_key(self.key)}{changes_text(self.update_every_ms)}",
            computed_text(self.plan),
            partials_text("key and session" if self.key else "session", self.accept_for_ms),
            Late(self.accept_for_ms, self.late_output),
        )


class SessionAggregate:
    """One subtask. A generator of outputs has to be run to its end before the next call."""

    def __init__(self, spec: SessionAggregateSpec, context: OperatorContext) -> None:
        self._spec = spec
        self._context = context
        self._key = list(spec.key)
        self._gap = spec.gap_ms
        self._reach = spec.gap_ms - 1 + spec.accept_for_ms  # out of reach at last + reach
        self._results = WindowResults(context.step, spec.plan, spec.key)
        time = pl.Int64()
        bounds = (Extreme(_FIRST, TIME, time, largest=False), Extreme(_LAST, TIME, time, largest=True))
        self._plan = replace(spec.plan, accumulators=(*spec.plan.accumulators, *bounds))
        keys = {name: spec.input_schema[name] for name in spec.key}
        # A mark: emitted as it is now.
        self._sessions = KeyedRows(context, "session", keys | self._plan.partial_schema, spec.key, time=_LAST)
        self._updates = spec.update_every_ms is not None
        shown = keys | spec.plan.schema | {_FIRST: time, _LAST: time}
        self._shown = KeyedRows(context, "session_shown", shown, spec.key, time=_LAST) if self._updates else None
        self._unshown: list[Ids] = []  # sessions that changed since results were shown, where that may wait…
        self._replaced: list[Ids] = []  # …and what has been replaced since then, some of these too
        self._errors = RowErrors(context, spec.errors, lambda _: f"aggregate {', '.join(spec.plan.schema)}")
        self._counters = context.counters
        self._watermark: int = WATERMARK_MIN

    @property
    def held_rows(self) -> int:
        """Sessions held."""
        return len(self._sessions)

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take one batch; raises `MissingEventTime`."""
        if frame.get_column(TIME).null_count():
            raise MissingEventTime(self._context.step)
        now = self._row_watermarks(frame, watermark)
        times = frame.get_column(TIME).to_numpy()
        if (times > now + (self._gap - self._reach)).all():
            yield from self._take(frame)  # whatever a row touches is open: nearly always
            return
        walked = self._walked(frame, times, now)
        if not walked.any():
            yield from self._take(frame)
            return
        if not walked.all():
            yield from self._take(frame.filter(pl.Series(~walked)))
        yield from self._take_in_order(frame.filter(pl.Series(walked)), now[walked])
        # Closed for a row that came is closed, whatever else touches it.
        yield from self._advance(int(now[walked].max()))

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Close every session that ends at or before `watermark` + 1."""
        yield from self._advance(watermark)

    def next_close(self) -> EventTimeMs | None:
        """When the first session ends that is still to be emitted, or emitted again."""
        earliest = None if self._spec.update_every_ms == 0 else self._sessions.earliest_unmarked()
        if earliest is None:
            return None
        closes = earliest + self._gap - 1
        if self._spec.update_every_ms:
            closes = next_update(self._watermark, self._spec.update_every_ms, closes)
        return EventTimeMs(closes)

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """Write what changed to state. The watermark says all the rest."""
        self._sessions.flush()
        if self._shown is not None:
            self._shown.flush()
        return {"watermark": int(self._watermark)}

    def restore(self, snapshots: list[Mapping[str, Any]]) -> None:
        """Go on from the lowest watermark: see `WindowAggregate.restore`."""
        self._watermark = min((int(snapshot["watermark"]) for snapshot in snapshots), default=WATERMARK_MIN)
        self._sessions.restore()
        if self._shown is not None:
            self._shown.restore()
        if self._spec.update_every_ms:
            self._unshown = [ids[~self._sessions.marked(ids)] for ids, _ in self._sessions.scan()]

    def _row_watermarks(self, frame: pl.DataFrame, watermark: int) -> Times:
        """The watermark just before each row, never behind ours: what is closed stays closed."""
        if ROW_WATERMARK not in frame.columns:
            return np.full(frame.height, max(self._watermark, watermark), dtype=np.int64)
        rows: Times = frame.get_column(ROW_WATERMARK).fill_null(watermark).to_numpy()
        return np.maximum(rows, np.int64(self._watermark))

    def _walked(self, frame: pl.DataFrame, times: Times, now: Times) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Rows of keys that depend on the order of arrival."""
        keys, numbers = self._numbered(frame)
        at, ids = self._sessions.find(keys)
        last = self._sessions.rows(ids).get_column(_LAST).to_numpy()
        return np.isin(numbers, conflicting(numbers, times, now, at, last, self._reach, self._gap))

    def _numbered(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, Ids]:
        """The distinct keys of a frame, and for each row which of them it has."""
        if not self._key:
            return pl.DataFrame({_NUMBER: [0]}), np.zeros(frame.height, dtype=np.int64)
        keys = frame.select(self._key).unique(maintain_order=True)
        keys = keys.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(_NUMBER))
        rows = frame.select(self._key).join(keys, on=self._key, how="left", nulls_equal=True, maintain_order="left")
        return keys, rows.get_column(_NUMBER).to_numpy()

    def _take(self, frame: pl.DataFrame) -> Iterator[Output]:
        """Merge rows into the sessions they touch, in whatever order they came."""
        try:
            parts = self._parts(frame)
        except ROW_ERRORS as error:
            frame, outputs = self._isolated(frame, error)
            yield from outputs
            if not frame.height:
                return
            parts = self._parts(frame)
        self._counters.taken += frame.height
        at, ids = self._sessions.find(parts)
        if len(ids):
            held = self._sessions.rows(ids)
            first, last = (held.get_column(name).to_numpy() for name in (_FIRST, _LAST))
            begins, ends = (parts.get_column(name).to_numpy()[at] for name in (_FIRST, _LAST))
            touch = (first <= ends + self._gap) & (begins <= last + self._gap)
            at, ids, held = at[touch], ids[touch], held.filter(pl.Series(touch))
        if not len(ids):
            yield from self._replace(ids, parts)
            return
        held_ids, first_at, right = np.unique(ids, return_index=True, return_inverse=True)
        of_part, of_held = components(at, right, parts.height, len(held_ids))
        touched = np.zeros(parts.height, dtype=np.bool_)
        touched[at] = True
        nodes = [
            held[first_at].with_columns(pl.Series(_SESSION, of_held)),
            parts.filter(pl.Series(touched)).with_columns(pl.Series(_SESSION, of_part[touched])),
        ]
        merged = self._merged(nodes)
        merged = merged.with_columns(self._keys_of(parts, merged.get_column(_SESSION).to_numpy()))
        apart = parts.filter(pl.Series(~touched))
        yield from self._replace(held_ids, pl.concat([apart, merged.select(parts.columns)]))

    def _take_in_order(self, frame: pl.DataFrame, now: Times) -> Iterator[Output]:
        """As `_take`, of rows that may be late or come when what they touch is closed."""
        try:
            self._checked(frame)
        except ROW_ERRORS as error:
            frame, outputs = self._isolated(frame.with_columns(pl.Series(ROW_WATERMARK, now)), error)
            yield from outputs
            if not frame.height:
                return
            now = frame.get_column(ROW_WATERMARK).to_numpy()
        keys, numbers = self._numbered(frame)
        at, ids = self._sessions.find(keys)
        held = self._sessions.rows(ids)
        first, last = (held.get_column(name).to_numpy() for name in (_FIRST, _LAST))
        walk = Walk(at, first, last, self._reach, self._gap)
        of_row = walk.rows(numbers, frame.get_column(TIME).to_numpy(), now)
        late = of_row == LATE
        if late.any():
            self._counters.late += int(late.sum())
            if self._spec.late_output:
                yield Output("late", frame.filter(pl.Series(late)))
            frame, of_row = frame.filter(pl.Series(~late)), of_row[~late]
            if not frame.height:
                return
        whole = walk.sessions()
        of_row, of_held = whole[of_row], whole[: len(ids)]
        sessions, a_row = np.unique(of_row, return_index=True)
        joined = np.isin(of_held, sessions)
        fresh = self._plan.partial(frame.with_columns(pl.Series(_SESSION, of_row)), [_SESSION])
        self._counters.taken += frame.height
        nodes = [
            held.filter(pl.Series(joined)).with_columns(pl.Series(_SESSION, of_held[joined])),
            fresh,
        ]
        merged = self._merged(nodes).with_columns(self._keys_of(frame, a_row))
        yield from self._replace(ids[joined], merged.select(*self._key, *self._plan.partial_schema))

    def _isolated(self, frame: pl.DataFrame, error: Exception) -> tuple[pl.DataFrame, list[Output]]:
        """The rows whose partials can be computed, and what becomes of the others."""
        good, outputs, bad_rows = self._errors.isolate(frame, self._checked, error)
        if not bad_rows:  # no single row is to blame
            raise ResultFailed(self._context.step, reason(error)) from error
        return pl.concat(good) if good else frame.clear(), outputs

    def _checked(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame itself, if its partials can be computed."""
        self._plan.partial(frame, self._key)
        return frame

    def _parts(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Partial sessions of a batch: the key columns, then the partials."""
        times = frame.get_column(TIME)
        if times.max() - times.min() <= self._gap:  # type: ignore[operator]
            return self._plan.partial(frame, self._key)
        cut = runs(frame, self._key, self._gap)
        parts = self._plan.partial(cut.rows.with_columns(pl.Series(_SESSION, cut.run)), [_SESSION]).sort(_SESSION)
        return parts.select(*self._keys_of(cut.rows, cut.first), *self._plan.partial_schema)

    def _keys_of(self, frame: pl.DataFrame, rows: Ids) -> list[pl.Series]:
        return [frame.get_column(name).gather(rows) for name in self._key]

    def _merged(self, nodes: list[pl.DataFrame]) -> pl.DataFrame:
        """Partials of each `_SESSION`, ascending; the older ones come first."""
        columns = [_SESSION, *self._plan.partial_schema]
        together = pl.concat([node.select(columns) for node in nodes])
        return self._plan.merge(together, [_SESSION]).sort(_SESSION)

    def _replace(self, old: Ids, new: pl.DataFrame) -> Iterator[Output]:
        """Put `new` sessions in place of `old` ones, and emit those that are to be emitted now."""
        self._sessions.remove(old)
        ids = self._sessions.add(new)
        if self._spec.update_every_ms:
            self._unshown.append(ids)
            self._replaced.append(old)
        elif self._updates:
            yield from self._show(ids)
        elif self._spec.accept_for_ms:
            closed = new.get_column(_LAST).to_numpy() + (self._gap - 1) <= self._watermark
            yield from self._close(ids[closed])

    def _advance(self, watermark: int) -> Iterator[Output]:
        """Close sessions up to `watermark`, and forget those that no row can join any more."""
        watermark = max(watermark, self._watermark)
        if self._unshown and self._is_time_to_show(watermark):
            gone = np.concatenate([np.zeros(0, dtype=np.int64), *self._replaced])
            changed = np.setdiff1d(np.concatenate(self._unshown), gone)
            self._unshown, self._replaced = [], []
            yield from self._show(changed)
        if not self._updates:
            closed = self._sessions.before(watermark - self._gap + 2)
            yield from self._close(closed[~self._sessions.marked(closed)])
        self._watermark = watermark
        self._sessions.remove(self._sessions.before(watermark - self._reach + 1))
        if self._shown is not None:
            self._shown.remove(self._shown.before(watermark - self._reach + 1))

    def _close(self, ids: Ids) -> Iterator[Output]:
        for first in range(0, len(ids), EMIT_ROWS):
            part = ids[first : first + EMIT_ROWS]
            yield self._counters.result(self._rows(self._sessions.rows(part).sort(_LAST)))
            self._sessions.mark(part)

    def _rows(self, sessions: pl.DataFrame) -> pl.DataFrame:
        return self._results.rows(sessions, pl.col(_FIRST), pl.col(_LAST) + self._gap, [_FIRST, _LAST])

    def _is_time_to_show(self, watermark: int) -> bool:
        """Whether event time passes a multiple of the period, or closes a session with something to show."""
        period = self._spec.update_every_ms
        assert period
        if watermark // period > self._watermark // period:
            return True
        closed = self._sessions.before(watermark - self._gap + 2)
        return bool((~self._sessions.marked(closed)).any())

    def _show(self, ids: Ids) -> Iterator[Output]:
        """Emit these sessions in place of those that have been shown and are parts of them."""
        assert self._shown is not None
        for start in range(0, len(ids), EMIT_ROWS // 2):
            part = ids[start : start + EMIT_ROWS // 2]
            sessions = self._sessions.rows(part)
            at, shown = self._shown.find(sessions)
            before = self._shown.rows(shown)
            first, last = (sessions.get_column(name).to_numpy() for name in (_FIRST, _LAST))
            shown_first, shown_last = (before.get_column(name).to_numpy() for name in (_FIRST, _LAST))
            inside = (shown_first >= first[at]) & (shown_last <= last[at])
            at, shown, before = at[inside], shown[inside], before.filter(pl.Series(inside))
            same = (shown_first[inside] == first[at]) & (shown_last[inside] == last[at])
            # The same window again is an update; a part of a longer one has a slot of its own, and goes.
            slots = np.where(same, at, len(part) + np.arange(len(at)))
            times = np.concatenate((last, shown_last[inside])) + (self._gap - 1)
            new = self._rows(sessions)
            frame = changes(self._results.columns, self._shown_rows(before), slots, new, np.arange(len(part)), times)
            self._shown.remove(shown)
            bounds = sessions.select(_FIRST, _LAST).get_columns()
            self._shown.add(new.select(*self._key, *self._spec.plan.schema).hstack(bounds))
            self._sessions.mark(part)
            if frame.height:
                yield self._counters.result(frame)

    def _shown_rows(self, shown: pl.DataFrame) -> pl.DataFrame:
        """Rows as they were emitted."""
        return shown.with_columns(
            pl.col(_FIRST).cast(WINDOW_TYPE).alias("window_start"),
            (pl.col(_LAST) + self._gap).cast(WINDOW_TYPE).alias("window_end"),
        )
