"""Interval join: a pair meets when right time is in [left time + lower, left time + upper], both ends included.

A row waits until the watermark says that no partner can come: a left one until time + upper, a right one until
time − lower. A pair counts when the later arrival came while the earlier one was still waiting, by the watermark
just before the later one; so results depend neither on how batches were cut nor on when state was cleaned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from operators.element import ROW_WATERMARK, TIME, WATERMARK_MAX, WATERMARK_MIN, EventTimeMs, Schema
from operators.explanation import Explanation, Late, duration_text
from operators.join.pairs import PAIRS, Flags, Matches, Pairing, Times, find_pieces, has_key, held_back, in_pieces
from operators.join.pairs import row_watermarks as watermarks_of
from operators.join.shape import JoinShape, Side
from operators.keyed_rows import Ids, KeyedRows
from operators.operator import OperatorContext, Output
from operators.window import MissingEventTime


@dataclass(frozen=True, slots=True)
class IntervalJoinSpec:
    """`join` with `within: [lower, upper]` (ms)."""

    shape: JoinShape
    lower_ms: int
    upper_ms: int

    @property
    def schema(self) -> Schema:
        return self.shape.schema

    @property
    def stateful(self) -> bool:
        return True

    def create(self, context: OperatorContext) -> IntervalJoin:
        return IntervalJoin(self, context)

    def describe(self) -> str:
        within = f"right time within [{self.lower_ms}ms, {self.upper_ms}ms] of the left"
        return f"{self.shape.describe()}, {within}; {self.shape.holds()}"

    def explained(self) -> Explanation:
        low, high = duration_text(self.lower_ms), duration_text(self.upper_ms)
        left, right = duration_text(max(self.upper_ms, 0)), duration_text(max(-self.lower_ms, 0))
        return Explanation(
            f"{self.shape.describe()}, right time within [{low}, {high}] of the left",
            keeps=f"left rows until {left} after their time, right rows until {right} after theirs, by the watermark",
            late=Late(),
        )


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Rows of one side. They wait until their time + `reach_ms`; `alone`: without a partner they are results."""

    side: Side
    rows: KeyedRows
    reach_ms: int
    alone: bool


class IntervalJoin:
    """One subtask. A generator of outputs has to be run to its end before the next call."""

    def __init__(self, spec: IntervalJoinSpec, context: OperatorContext) -> None:
        shape = spec.shape
        self._spec = spec
        self._shape = shape
        self._context = context
        self._counters = context.counters
        self._pairing = Pairing(shape, context)
        self._left = self._side("left", shape.left, spec.upper_ms, alone=shape.pads_left or shape.kind == "anti")
        self._right = self._side("right", shape.right, -spec.lower_ms, alone=shape.pads_right)
        late_left = spec.upper_ms if self._left.alone or shape.kind == "semi" else 0
        late_right = -spec.lower_ms if self._right.alone else 0
        self._hold_ms = max(0, late_left, late_right)
        self._watermark: int = WATERMARK_MIN

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take left rows; raises `MissingEventTime`."""
        yield from self._arrive(frame, watermark, self._left, self._right)

    def process_right(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take right rows; raises `MissingEventTime`."""
        yield from self._arrive(frame, watermark, self._right, self._left)

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Let go of rows that no partner can come for any more; give those that never had one."""
        self._watermark = max(self._watermark, watermark)
        for waiting in (self._left, self._right):
            over = waiting.rows.before(watermark - waiting.reach_ms + 1)
            if not len(over):
                continue
            if waiting.alone:
                unmatched = over[~waiting.rows.marked(over)]
                yield from self._by_themselves(waiting, unmatched)
            waiting.rows.remove(over)

    def output_watermark(self, watermark: EventTimeMs) -> EventTimeMs:
        """Rows that still wait may come out with their own time."""
        return watermark if watermark == WATERMARK_MAX else held_back(watermark, self._hold_ms)

    def next_close(self) -> EventTimeMs | None:
        """When the first row is given for want of a partner, where the join does so."""
        waiting = [
            earliest + each.reach_ms
            for each in (self._left, self._right)
            if each.alone and (earliest := each.rows.earliest_unmarked()) is not None
        ]
        return EventTimeMs(min(waiting)) if waiting else None

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """The waiting rows go to state."""
        self._left.rows.flush()
        self._right.rows.flush()
        return {"watermark": int(self._watermark)}

    def restore(self, snapshots: list[Mapping[str, Any]]) -> None:
        """Go on from the lowest watermark: subtasks of one step agree on it."""
        self._watermark = min((int(snapshot["watermark"]) for snapshot in snapshots), default=WATERMARK_MIN)
        self._left.rows.restore()
        self._right.rows.restore()

    def _side(self, name: str, side: Side, reach_ms: int, *, alone: bool) -> _Waiting:
        rows = KeyedRows(self._context, name, side.stored, side.key, time=TIME, nulls_match=False)
        return _Waiting(side, rows, reach_ms, alone)

    def _arrive(self, frame: pl.DataFrame, watermark: int, mine: _Waiting, other: _Waiting) -> Iterator[Output]:
        if frame.get_column(TIME).null_count():
            raise MissingEventTime(self._context.step)
        now = watermarks_of(frame, max(self._watermark, watermark))
        times = frame.get_column(TIME).to_numpy()
        matched = np.zeros(frame.height, dtype=np.bool_)
        answered: list[Ids] = []
        for matches in self._matches(frame, times, now, mine, other):
            matched[matches.at] = True
            if self._shape.pairs:
                if other.alone:
                    other.rows.mark(matches.ids)
                joined = self._pairing.joined(matches.rows, *self._late_marks(frame, now[matches.at]))
                yield self._counters.result(joined)
            elif mine is self._right:
                answered.append(np.unique(matches.ids))
        yield from self._pairing.errors()
        if answered:
            yield from self._answer(np.unique(np.concatenate(answered)))
        if mine is self._left and self._shape.kind == "semi" and matched.any():
            found = np.flatnonzero(matched)
            yield from in_pieces(self._alone(mine, frame[found], frame, now[found]), self._counters)
        yield from self._keep(frame, times, now, matched, mine)

    def _matches(
        self, frame: pl.DataFrame, times: Times, now: Times, mine: _Waiting, other: _Waiting
    ) -> Iterator[Matches]:
        """Pairs of arriving rows with waiting ones."""
        for candidates in find_pieces(frame, mine.side.key, other.rows):
            held = other.rows.rows(candidates.of)
            time, held_time = times[candidates.at], held.get_column(TIME).to_numpy()
            apart = held_time - time if mine is self._left else time - held_time  # right − left
            near = (apart >= self._spec.lower_ms) & (apart <= self._spec.upper_ms)
            near &= now[candidates.at] < held_time + other.reach_ms
            if not near.any():
                continue
            asked = frame[candidates.at]
            left, right = (asked, held) if mine is self._left else (held, asked)
            matches = self._pairing.match(candidates, left, right, near)
            if len(matches.at):
                yield matches

    def _answer(self, ids: Ids) -> Iterator[Output]:
        """Left rows that have met a partner: results of a semi join; an anti join has no more use for them."""
        if self._shape.kind == "semi":
            yield from self._by_themselves(self._left, ids)
        self._left.rows.remove(ids)

    def _keep(self, frame: pl.DataFrame, times: Times, now: Times, matched: Flags, mine: _Waiting) -> Iterator[Output]:
        """Let rows wait that a partner may still come for; settle the others."""
        closed = now >= times + mine.reach_ms
        keyed = has_key(frame, mine.side.key)
        waits = ~closed if keyed is None else ~closed & keyed
        if not self._shape.pairs and mine is self._left:
            waits &= ~matched
        if waits.all():
            ids = mine.rows.add(frame)
            self._counters.taken += len(ids)
            if mine.alone and self._shape.pairs:
                mine.rows.mark(ids[matched])
            return
        kept = np.flatnonzero(waits)
        ids = mine.rows.add(frame[kept])
        if mine.alone and self._shape.pairs:
            mine.rows.mark(ids[matched[kept]])
        settled = ~waits & ~matched
        self._counters.taken += len(ids) + int((~waits & matched).sum())
        if mine.alone:
            alone = np.flatnonzero(settled)
            self._counters.taken += len(alone)
            yield from in_pieces(self._alone(mine, frame[alone], frame, now[alone]), self._counters)
        else:
            late = closed & (times <= now)
            self._counters.late += int((settled & late).sum())
            self._counters.filtered += int((settled & ~late).sum())

    def _by_themselves(self, waiting: _Waiting, ids: Ids) -> Iterator[Output]:
        for first in range(0, len(ids), PAIRS):
            rows = waiting.rows.rows(ids[first : first + PAIRS])
            yield self._counters.result(self._pairing.alone(waiting.side, rows))

    def _alone(self, waiting: _Waiting, rows: pl.DataFrame, frame: pl.DataFrame, now: Times) -> pl.DataFrame:
        return self._pairing.alone(waiting.side, rows, *self._late_marks(frame, now))

    def _late_marks(self, frame: pl.DataFrame, now: Times) -> list[pl.Series]:
        """The watermark before each result, where the arriving batch says it of its rows."""
        if ROW_WATERMARK not in frame.columns:
            return []
        return [pl.Series(ROW_WATERMARK, np.maximum(now - self._hold_ms, WATERMARK_MIN))]
