"""Regular join: every row meets every row of the other side, whenever they come; either side may be a changelog.

The result is always that of joining what both sides hold; a batch gives the difference it makes. A stored row is
marked while it has a partner: with the mark it is known when a row padded with nulls (or a row of a semi or anti
join) has to be taken back or given again. Deletions leave before insertions, so that a key is never deleted after
it was written anew. With a TTL a row disappears when it is that old, without taking its results back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from operators.element import (
    DELETE,
    INSERT,
    KIND,
    ROW_WATERMARK,
    TIME,
    UPDATE_AFTER,
    WATERMARK_MIN,
    EventTimeMs,
    Schema,
)
from operators.explanation import Explanation, lifetime
from operators.join.pairs import (
    LEFT_TIME,
    PAIRS,
    RIGHT_TIME,
    Flags,
    Matches,
    Pairing,
    Times,
    find_pieces,
    has_key,
    row_watermarks,
)
from operators.join.shape import JoinShape, Side
from operators.keyed_rows import Ids, KeyedRows
from operators.operator import OperatorContext, Output

_ARRIVED: Final = "__arrived"  # processing time, where rows expire by it
_NET: Final = "__net"


@dataclass(frozen=True, slots=True)
class RegularJoinSpec:
    """`join` without a form in time. `ttl_ms`: how long a row is kept, by event time where both sides have it; None:
    for ever."""

    shape: JoinShape
    ttl_ms: int | None = None

    @property
    def schema(self) -> Schema:
        return self.shape.schema

    @property
    def stateful(self) -> bool:
        return True

    @property
    def changelog(self) -> bool:
        """Whether results are taken back."""
        return self.shape.left.changelog or self.shape.right.changelog or self.shape.kind not in ("inner", "semi")

    @property
    def by_event_time(self) -> bool:
        """Whether rows expire by the watermark."""
        return self.shape.left.timed and self.shape.right.timed

    def create(self, context: OperatorContext) -> RegularJoin:
        return RegularJoin(self, context)

    def describe(self) -> str:
        kept = "for ever" if self.ttl_ms is None else f"for {self.ttl_ms}ms"
        return f"{self.shape.describe()}, rows kept {kept}; {self.shape.holds()}"

    def explained(self) -> Explanation:
        changes = ", each change" if self.changelog else ""
        kept = lifetime(self.ttl_ms, timed=self.by_event_time)
        return Explanation(f"{self.shape.describe()}{changes}", keeps=f"rows of both sides, each {kept}")


@dataclass(frozen=True, slots=True)
class _Kept:
    """One side. `alone`: rows without a partner are results; `tracked`: whether they have one is remembered."""

    side: Side
    rows: KeyedRows
    left: bool
    alone: bool
    tracked: bool


class _Change(NamedTuple):
    """What a batch takes from one side and adds to it, no row in both. A row that is taken is there once, with
    how many times in `_NET`, below zero."""

    taken: pl.DataFrame
    taken_now: Times
    added: pl.DataFrame
    added_now: Times


class RegularJoin:
    """One subtask. A generator of outputs has to be run to its end before the next call."""

    def __init__(self, spec: RegularJoinSpec, context: OperatorContext) -> None:
        self._spec = spec
        self._shape = spec.shape
        self._context = context
        self._counters = context.counters
        self._pairing = Pairing(spec.shape, context)
        self._expiry = None if spec.ttl_ms is None else TIME if spec.by_event_time else _ARRIVED
        kind = spec.shape.kind
        self._left = self._side("left", alone=spec.shape.pads_left or kind == "anti", tracked=kind == "semi")
        self._right = self._side("right", alone=spec.shape.pads_right, tracked=False)
        self._watermark: int = WATERMARK_MIN
        self._now_ms = 0

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take changes of the left side."""
        yield from self._arrive(frame, watermark, self._left, self._right)

    def process_right(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take changes of the right side."""
        yield from self._arrive(frame, watermark, self._right, self._left)

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Forget rows whose TTL is over by event time."""
        self._watermark = max(self._watermark, watermark)
        if self._expiry == TIME:
            self._expire(watermark)
        return iter(())

    def on_processing_time(self, now_ms: int) -> Iterator[Output]:
        """Forget rows whose TTL is over by the clock, where there is no event time."""
        self._now_ms = now_ms
        if self._expiry == _ARRIVED:
            self._expire(now_ms)
        return iter(())

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """The rows of both sides go to state."""
        self._left.rows.flush()
        self._right.rows.flush()
        return {"watermark": int(self._watermark)}

    def restore(self, snapshots: list[Mapping[str, Any]]) -> None:
        """Go on from the lowest watermark: subtasks of one step agree on it."""
        self._watermark = min((int(snapshot["watermark"]) for snapshot in snapshots), default=WATERMARK_MIN)
        self._left.rows.restore()
        self._right.rows.restore()

    def _side(self, name: str, *, alone: bool, tracked: bool) -> _Kept:
        left = name == "left"
        side = self._shape.left if left else self._shape.right
        schema = {**side.stored, _ARRIVED: pl.Int64()} if self._expiry == _ARRIVED else side.stored
        rows = KeyedRows(self._context, name, schema, side.key, time=self._expiry, nulls_match=False)
        return _Kept(side, rows, left, alone, alone or tracked)

    def _expire(self, now: int) -> None:
        assert self._spec.ttl_ms is not None
        for kept in (self._left, self._right):
            over = kept.rows.before(now - self._spec.ttl_ms + 1)
            if len(over):
                kept.rows.remove(over)

    def _arrive(self, frame: pl.DataFrame, watermark: int, mine: _Kept, other: _Kept) -> Iterator[Output]:
        now = row_watermarks(frame, max(self._watermark, watermark))
        if self._expiry == _ARRIVED:
            now = np.full(frame.height, self._now_ms, dtype=np.int64)
            frame = frame.with_columns(pl.lit(self._now_ms, dtype=pl.Int64).alias(_ARRIVED))
        keyed = has_key(frame, mine.side.key)
        if keyed is not None:
            alone = frame.filter(pl.Series(~keyed))
            if mine.alone:
                yield from self._never_matched(alone, now[~keyed], mine)
            else:
                self._counters.filtered += alone.height
            frame, now = frame.filter(pl.Series(keyed)), now[keyed]
        if not frame.height:
            return
        change = self._change(frame, now, mine)
        self._counters.taken += frame.height
        touched: list[Ids] = []
        if change.taken.height:
            yield from self._take_back(change, mine, other, touched)
        matched, met = np.zeros(change.added.height, dtype=np.bool_), []
        first_times = np.zeros(0, dtype=np.int64)
        if change.added.height:
            if not self._shape.pairs and mine.left and self._shape.timed:
                first_times = change.added.get_column(TIME).to_numpy().copy()
            for matches in self._matches(change.added, change.added_now, mine, other):
                if len(first_times):
                    self._later(first_times, matches, matched)
                matched[matches.at] = True
                yield from self._meet(matches, change.added, other)
                met.append(np.unique(matches.ids))
        yield from self._pairing.errors()
        if touched:
            yield from self._given_up(touched, met, mine, other)
        yield from self._add(change, matched, first_times, mine)

    def _change(self, frame: pl.DataFrame, now: Times, mine: _Kept) -> _Change:
        """The net change of a batch: what is taken back and given in it is neither."""
        nothing = frame.clear()
        if KIND not in frame.columns:
            return _Change(nothing, now[:0], frame, now)
        plus = frame.get_column(KIND).is_in([INSERT, UPDATE_AFTER])
        if plus.all():
            return _Change(nothing, now[:0], frame, now)
        weighed = frame.with_columns(
            pl.Series(_NET, np.where(plus.to_numpy(), 1, -1)), pl.Series(ROW_WATERMARK, now, dtype=pl.Int64)
        )
        rest = [name for name in weighed.columns if name not in (*mine.side.schema, _NET)]
        net = weighed.group_by(list(mine.side.schema), maintain_order=True).agg(pl.col(_NET).sum(), pl.col(rest).last())
        parts: list[Any] = []
        for sign in (-1, 1):
            part = net.filter(pl.col(_NET) * sign > 0)
            times = part.get_column(_NET).abs().to_numpy() if sign > 0 else 1
            part = part[np.repeat(np.arange(part.height), times)]
            parts += [part, part.get_column(ROW_WATERMARK).to_numpy()]
        return _Change(*parts)

    def _take_back(self, change: _Change, mine: _Kept, other: _Kept, touched: list[Ids]) -> Iterator[Output]:
        """Delete rows of our side and all results with them; `touched` gets the partners they leave."""
        ids = self._stored(change, mine)
        if not len(ids):
            return
        for first in range(0, len(ids), PAIRS):
            part = ids[first : first + PAIRS]
            rows = mine.rows.rows(part)
            if self._shape.pairs or other.tracked:
                now = np.full(len(part), int(change.taken_now.max()), dtype=np.int64)
                for matches in self._matches(rows, now, mine, other):
                    if self._shape.pairs:
                        yield self._output(DELETE, self._pairing.joined(matches.rows))
                    if other.tracked:
                        touched.append(np.unique(matches.ids))
            if mine.tracked:
                given = mine.rows.marked(part) == (self._shape.kind == "semi")
                yield from self._alone(DELETE, mine, rows.filter(pl.Series(given)))
        mine.rows.remove(ids)

    def _stored(self, change: _Change, mine: _Kept) -> Ids:
        """The ids of the rows to be taken back: of equal ones as many as are taken, the oldest first."""
        taken, columns = change.taken, list(mine.side.schema)
        at, ids = [], []
        for candidates in find_pieces(taken, mine.side.key, mine.rows):
            held, asked = mine.rows.rows(candidates.of), taken[candidates.at]
            equal = self._alive(held, change.taken_now[candidates.at])
            for name in columns:
                equal = equal & held.get_column(name).eq_missing(asked.get_column(name)).to_numpy()
            at.append(candidates.at[equal])
            ids.append(candidates.of[equal])
        if not at:
            return np.zeros(0, dtype=np.int64)
        of, found = np.concatenate(at), np.concatenate(ids)
        nth = np.arange(len(of)) - np.searchsorted(of, of)
        wanted = -taken.get_column(_NET).to_numpy()
        return found[nth < wanted[of]]

    def _matches(self, frame: pl.DataFrame, now: Times, mine: _Kept, other: _Kept) -> Iterator[Matches]:
        """Pairs of rows of our side with the other's that are still kept."""
        for candidates in find_pieces(frame, mine.side.key, other.rows):
            held = other.rows.rows(candidates.of)
            alive = self._alive(held, now[candidates.at])
            asked = frame[candidates.at]
            left, right = (asked, held) if mine.left else (held, asked)
            left, right = (side.drop(_ARRIVED, _NET, strict=False) for side in (left, right))
            matches = self._pairing.match(candidates, left, right, alive)
            if len(matches.at):
                yield matches

    def _alive(self, held: pl.DataFrame, now: Times) -> Flags:
        """Which rows have not expired, whether or not they are cleaned away yet."""
        if self._expiry is None:
            return np.ones(held.height, dtype=np.bool_)
        assert self._spec.ttl_ms is not None
        alive: Flags = now < held.get_column(self._expiry).to_numpy() + self._spec.ttl_ms
        return alive

    def _meet(self, matches: Matches, added: pl.DataFrame, other: _Kept) -> Iterator[Output]:
        """Give new pairs; before them, take back what was given of partners that had none so far."""
        if other.tracked:
            ids, first = np.unique(matches.ids, return_index=True)
            new = ~other.rows.marked(ids)
            ids, first = ids[new], first[new]
            other.rows.mark(ids)
            rows = other.rows.rows(ids)
            if self._shape.kind == "semi" and self._shape.timed and len(ids):
                met_at = self._pair_times(matches.rows)[first]
                rows = rows.with_columns(pl.Series(TIME, met_at))
            yield from self._alone(INSERT if self._shape.kind == "semi" else DELETE, other, rows)
        if self._shape.pairs:
            late = [added.get_column(ROW_WATERMARK)[matches.at]] if self._says_late(added) else []
            yield self._output(INSERT, self._pairing.joined(matches.rows, *late))

    def _given_up(self, touched: list[Ids], met: list[Ids], mine: _Kept, other: _Kept) -> Iterator[Output]:
        """Partners of rows that were taken back, when they have none left: give them alone again."""
        ids = np.unique(np.concatenate(touched))
        if met:
            ids = ids[~np.isin(ids, np.concatenate(met))]
        ids = ids[other.rows.marked(ids)]
        for first in range(0, len(ids), PAIRS):
            part = ids[first : first + PAIRS]
            rows = other.rows.rows(part)
            now = np.full(len(part), self._now_ms if self._expiry == _ARRIVED else self._watermark, dtype=np.int64)
            left_over = np.ones(len(part), dtype=np.bool_)
            for matches in self._matches(rows, now, other, mine):
                left_over[matches.at] = False
            lonely = rows.filter(pl.Series(left_over))
            other.rows.remove(part[left_over])
            other.rows.add(lonely)  # again, without its mark
            yield from self._alone(DELETE if self._shape.kind == "semi" else INSERT, other, lonely)

    def _add(self, change: _Change, matched: Flags, first_times: Times, mine: _Kept) -> Iterator[Output]:
        """Keep our side's new rows, and give those that are results by themselves."""
        added = change.added
        if not added.height:
            return
        if mine.tracked:
            semi = self._shape.kind == "semi"
            rows = added.with_columns(pl.Series(TIME, first_times)) if semi and len(first_times) else added
            yield from self._alone(INSERT, mine, rows.filter(pl.Series(matched if semi else ~matched)))
        kept = np.flatnonzero(self._alive(added, change.added_now))
        ids = mine.rows.add(added[kept])
        if mine.tracked:
            mine.rows.mark(ids[matched[kept]])

    def _never_matched(self, frame: pl.DataFrame, now: Times, mine: _Kept) -> Iterator[Output]:
        """Rows with a null in their key are results as they come and go; nothing of them is kept."""
        change = self._change(frame, now, mine)
        self._counters.taken += frame.height
        if change.taken.height:
            times = -change.taken.get_column(_NET).to_numpy()
            yield from self._alone(DELETE, mine, change.taken[np.repeat(np.arange(len(times)), times)])
        yield from self._alone(INSERT, mine, change.added)

    def _alone(self, kind: int, kept: _Kept, rows: pl.DataFrame) -> Iterator[Output]:
        for piece in rows.iter_slices(PAIRS):
            if piece.height:
                late = [piece.get_column(ROW_WATERMARK)] if self._says_late(piece) else []
                yield self._output(kind, self._pairing.alone(kept.side, piece, *late))

    def _output(self, kind: int, frame: pl.DataFrame) -> Output:
        if self._spec.changelog:
            frame = frame.with_columns(pl.lit(kind, dtype=pl.Int8).alias(KIND))
        return self._counters.result(frame)

    def _says_late(self, frame: pl.DataFrame) -> bool:
        return ROW_WATERMARK in frame.columns and self._shape.timed

    def _later(self, times: Times, matches: Matches, matched: Flags) -> None:
        """The time of a semi join's row is the later of its own and its first partner's."""
        at, first = np.unique(matches.at, return_index=True)
        new = ~matched[at]
        times[at[new]] = self._pair_times(matches.rows)[first[new]]

    def _pair_times(self, rows: pl.DataFrame) -> Times:
        names = [name for name in (LEFT_TIME, RIGHT_TIME) if name in rows.columns]
        return rows.select(pl.max_horizontal(names)).to_series().to_numpy()
