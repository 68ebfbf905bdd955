"""One row for each key: the first by event time, once it is certain, or the last so far, as a changelog.

Of rows with equal event time the earlier arrival is the first and the later one the last; without event time the
order of arrival decides. The *first* row of a key leaves when the watermark reaches it, because until then an
earlier one may come; afterwards only its key is held. The *last* row replaces the one before, which is held to
be taken back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from operators.changes import changes
from operators.element import INSERT, KIND, TIME, UPDATE_AFTER, WATERMARK_MIN, EventTimeMs, Schema
from operators.expiry import Expiry, row_watermarks
from operators.explanation import Explanation, Late, by_key, lifetime, of_each
from operators.keyed_rows import Flags, Ids, KeyedRows
from operators.operator import OperatorContext, Output
from operators.types import columns_text

EMIT_ROWS: Final = 65_536  # rows of an output frame, about
_FOREVER: Final = 2**62


@dataclass(frozen=True, slots=True)
class KeepLastSpec:
    """The last row of each key, as a changelog keyed by `key`. `retracts`: whether old rows are given too (readers
    that only want the newest row of each key need none, and then only keys are held). `ttl_ms` None: for ever."""

    key: tuple[str, ...]
    schema: Schema
    timed: bool
    ttl_ms: int | None = None
    retracts: bool = True

    @property
    def stateful(self) -> bool:
        return True

    def create(self, context: OperatorContext) -> KeepLast:
        return KeepLast(self, context)

    def describe(self) -> str:
        what = "rows" if self.retracts else "keys"
        by = ", ".join(self.key)
        held = columns_text(self.schema if self.retracts else {name: self.schema[name] for name in self.key})
        return f"deduplicate by ({by}): last, holds {what}{_ttl_text(self.ttl_ms)}; of ({held})"

    def explained(self) -> Explanation:
        kept = lifetime(self.ttl_ms, timed=self.timed, after="its newest row")
        what = f"the newest row{of_each(self.key)}" if self.retracts else "keys: nobody reads old rows"
        return Explanation(
            f"deduplicate{by_key(self.key)}: the last row, each change",
            keeps=f"{what}; a key {kept}",
            late=Late() if self.timed and self.ttl_ms is not None else None,
        )


@dataclass(frozen=True, slots=True)
class KeepFirstSpec:
    """The first row of each key, append-only; another one only after the key was forgotten, `ttl_ms` after its
    first row. None: never."""

    key: tuple[str, ...]
    schema: Schema
    timed: bool
    ttl_ms: int | None = None

    @property
    def stateful(self) -> bool:
        return True

    def create(self, context: OperatorContext) -> KeepFirst | KeepFirstArrived:
        return KeepFirst(self, context) if self.timed else KeepFirstArrived(self, context)

    def describe(self) -> str:
        held = columns_text(self.schema)
        return f"deduplicate by ({', '.join(self.key)}): first{_ttl_text(self.ttl_ms)}; of ({held})"

    def explained(self) -> Explanation:
        kept = lifetime(self.ttl_ms, timed=self.timed, after="its row")
        waiting = ", and rows until the watermark has passed them" if self.timed else ""
        return Explanation(
            f"deduplicate{by_key(self.key)}: the first row",
            keeps=f"keys, each {kept}{waiting}",
            late=Late() if self.timed else None,
        )


def _ttl_text(ttl_ms: int | None) -> str:
    return "" if ttl_ms is None else f", ttl {ttl_ms}ms"


class KeepLast:
    """One subtask of `KeepLastSpec`."""

    def __init__(self, spec: KeepLastSpec, context: OperatorContext) -> None:
        self._spec = spec
        self._key = list(spec.key)
        held = spec.schema if spec.retracts else {name: spec.schema[name] for name in spec.key}
        self._stamped = spec.timed or spec.ttl_ms is not None
        self._rows = KeyedRows(
            context,
            "last",
            held | {TIME: pl.Int64()} if self._stamped else held,
            spec.key,
            time=TIME if self._stamped else None,
        )
        self._expiry = Expiry(context, self._rows, spec.key, spec.ttl_ms)
        self._counters = context.counters
        self._clock_ms: int = WATERMARK_MIN

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take one batch and give its net change of every key."""
        now: int = watermark
        if not self._spec.timed and self._stamped:
            now = self._clock_ms
            frame = frame.with_columns(pl.lit(now, dtype=pl.Int64).alias(TIME))
        for part, fresh in self._expiry.rounds(frame, now):
            changed = self._take(part, fresh=fresh)
            if changed.height:
                yield self._counters.result(changed)

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Forget keys; their rows stay where they were sent."""
        if self._spec.timed:
            self._expiry.due(watermark)
        return iter(())

    def on_processing_time(self, now_ms: int) -> Iterator[Output]:
        """Without event time keys are forgotten by the clock."""
        self._clock_ms = now_ms
        if not self._spec.timed:
            self._expiry.due(now_ms)
        return iter(())

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """All state is in the backend."""
        self._rows.flush()
        return {}

    def restore(self, snapshots: list[Mapping[str, Any]]) -> None:
        """Read the rows back."""
        self._rows.restore()

    def _take(self, frame: pl.DataFrame, *, fresh: bool) -> pl.DataFrame:
        if self._spec.timed and not frame.get_column(TIME).is_sorted():
            frame = frame.sort(TIME, maintain_order=True)
        newest = frame.unique(self._key, keep="last", maintain_order=True)
        self._counters.taken += frame.height
        at, ids = self._rows.find(newest)
        slots = np.arange(newest.height)
        if fresh:
            self._rows.remove(ids)
            at, ids = at[:0], ids[:0]
        old = self._rows.rows(ids)
        if self._spec.timed and len(ids):
            newer = newest.get_column(TIME).to_numpy()[at] >= old.get_column(TIME).to_numpy()
            if not newer.all():
                slots = np.setdiff1d(slots, at[~newer], assume_unique=True)
                newest = newest[slots]
                at, ids, old = at[newer], ids[newer], old.filter(pl.Series(newer))
        self._rows.remove(ids)
        self._rows.add(newest)
        return self._changes(old, at, newest, slots)

    def _changes(self, old: pl.DataFrame, at: Ids, newest: pl.DataFrame, slots: Ids) -> pl.DataFrame:
        columns = list(self._spec.schema)
        if self._spec.retracts and len(at):
            times = None
            if self._spec.timed:
                times = np.zeros(int(slots.max()) + 1, dtype=np.int64)
                times[slots] = newest.get_column(TIME).to_numpy()
            return changes(columns, old, at, newest, slots, times)
        kinds = np.full(newest.height, INSERT, dtype=np.int8)
        kinds[np.isin(slots, at, assume_unique=True)] = UPDATE_AFTER
        hidden = [TIME] if self._spec.timed else []
        return newest.select(*columns, *hidden).with_columns(pl.Series(KIND, kinds))


class KeepFirstArrived:
    """One subtask of `KeepFirstSpec` over input without event time: the first arrival, at once."""

    def __init__(self, spec: KeepFirstSpec, context: OperatorContext) -> None:
        self._spec = spec
        self._key = list(spec.key)
        keys = {name: spec.schema[name] for name in spec.key}
        self._counters = context.counters
        timed = spec.ttl_ms is not None
        self._seen = KeyedRows(
            context, "seen", keys | {TIME: pl.Int64()} if timed else keys, spec.key, time=TIME if timed else None
        )
        self._expiry = Expiry(context, self._seen, spec.key, spec.ttl_ms)
        self._clock_ms: int = WATERMARK_MIN

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Rows of keys not seen before."""
        first = frame.unique(self._key, keep="first", maintain_order=True)
        fresh = np.ones(first.height, dtype=np.bool_)
        fresh[self._seen.find(first).at] = False
        self._counters.filtered += frame.height - first.height + int((~fresh).sum())
        first = first.filter(pl.Series(fresh))
        if first.height:
            now = pl.lit(self._clock_ms, dtype=pl.Int64).alias(TIME)
            self._seen.add(first.select(*self._key, now))
            yield Output("main", first.select(*self._spec.schema))

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Nothing waits for event time."""
        return iter(())

    def on_processing_time(self, now_ms: int) -> Iterator[Output]:
        """Forget keys."""
        self._clock_ms = now_ms
        self._expiry.due(now_ms)
        return iter(())

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """All state is in the backend."""
        self._seen.flush()
        return {}

    def restore(self, snapshots: list[Mapping[str, Any]]) -> None:
        """Read the keys back."""
        self._seen.restore()


class KeepFirst:
    """One subtask of `KeepFirstSpec` over input with event time.

    A row at or behind the watermark is late: the first row of its key has been decided. Of the others the
    earliest waits until the watermark reaches it. A later one is passed over when no earlier row that may still
    come could expire before it; only with a time to live shorter than the disorder of the input there are others.
    """

    def __init__(self, spec: KeepFirstSpec, context: OperatorContext) -> None:
        self._spec = spec
        self._counters = context.counters
        self._key = list(spec.key)
        self._ttl_ms = _FOREVER if spec.ttl_ms is None else spec.ttl_ms
        time = {TIME: pl.Int64()}
        self._seen = KeyedRows(
            context, "seen", {name: spec.schema[name] for name in spec.key} | time, spec.key, time=TIME
        )
        self._waiting = KeyedRows(context, "waiting", spec.schema | time, spec.key, time=TIME)
        self._expiry = Expiry(context, self._seen, spec.key, spec.ttl_ms)
        self._watermark: int = WATERMARK_MIN

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Rows wait for the watermark."""
        self._watermark = max(self._watermark, watermark)
        late = frame.get_column(TIME).to_numpy() <= row_watermarks(frame, self._watermark)
        if late.any():
            self._counters.late += int(late.sum())
            frame = frame.filter(pl.Series(~late))
        if frame.height:
            self._wait(frame)
        return iter(())

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Give the first rows that are certain now, in the order of event time."""
        self._watermark = watermark
        ids = self._waiting.before(watermark + 1)
        due = self._waiting.rows(ids).sort(TIME, maintain_order=True)
        self._waiting.remove(ids)
        self._counters.made += due.height  # each is given out now, or passed over
        firsts: list[pl.DataFrame] = []
        due = self._unseen(due)
        while due.height:
            first = due.unique(self._key, keep="first", maintain_order=True)
            self._note(first)
            firsts.append(first)
            due = self._unseen(due, given=first.height)
        if firsts:
            rows = pl.concat(firsts)
            rows = rows.sort(TIME, maintain_order=True) if len(firsts) > 1 else rows
            for piece in rows.select(*self._spec.schema, TIME).iter_slices(EMIT_ROWS):
                yield Output("main", piece)
        self._expiry.due(watermark)

    def next_close(self) -> EventTimeMs | None:
        """When the first waiting row is certain."""
        earliest = self._waiting.earliest_unmarked()
        return None if earliest is None else EventTimeMs(earliest)

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """All state is in the backend, but for the watermark."""
        self._seen.flush()
        self._waiting.flush()
        return {"watermark": int(self._watermark)}

    def restore(self, snapshots: list[Mapping[str, Any]]) -> None:
        """Go on from the lowest watermark."""
        self._watermark = min((int(snapshot["watermark"]) for snapshot in snapshots), default=WATERMARK_MIN)
        self._seen.restore()
        self._waiting.restore()

    def _wait(self, frame: pl.DataFrame) -> None:
        if self._spec.ttl_ms is not None:
            frame = self._unseen(frame)  # what has a first row already must not stand in the way of others
        certain_ms = min(self._watermark + self._ttl_ms, _FOREVER)  # a row up to here expires with any earlier one
        if not frame.get_column(TIME).is_sorted():
            frame = frame.sort(TIME, maintain_order=True)
        near = frame.get_column(TIME).to_numpy() <= certain_ms
        rows = frame if near.all() else frame.filter(pl.Series(near))
        first = rows.unique(self._key, keep="first", maintain_order=True)
        self._counters.filtered += rows.height - first.height
        rows = first
        if not near.all():
            rows = pl.concat([rows, frame.filter(pl.Series(~near))])
        if self._spec.ttl_ms is None:
            rows = self._unseen(rows)
        at, ids = self._waiting.find(rows)
        if len(at):
            times = rows.get_column(TIME).to_numpy()[at]
            waiting = self._waiting.rows(ids)
            held = waiting.get_column(TIME).to_numpy()
            ahead = (held <= times) & (times <= certain_ms)
            if self._spec.ttl_ms is not None:
                ahead &= self._are_unseen(waiting)  # nor must what got a first row while it waited
            overtaken = np.unique(ids[(held > times) & (held <= certain_ms)])
            self._waiting.remove(overtaken)
            self._counters.made += len(overtaken)
            self._counters.filtered += len(overtaken)
            passed_over = np.zeros(rows.height, dtype=np.bool_)
            passed_over[at[ahead]] = True
            self._counters.filtered += int(passed_over.sum())
            rows = rows.filter(pl.Series(~passed_over))
        self._waiting.add(rows)
        self._counters.taken += rows.height

    def _unseen(self, rows: pl.DataFrame, *, given: int = 0) -> pl.DataFrame:
        """Rows whose key had no first row within its time to live; the others are passed over, but for those that
        are first rows themselves and have been `given` out."""
        unseen = self._are_unseen(rows)
        self._counters.filtered += int((~unseen).sum()) - given
        return rows if unseen.all() else rows.filter(pl.Series(unseen))

    def _are_unseen(self, rows: pl.DataFrame) -> Flags:
        unseen = np.ones(rows.height, dtype=np.bool_)
        at, ids = self._seen.find(rows)
        if len(at):
            age = rows.get_column(TIME).to_numpy()[at] - self._seen.rows(ids).get_column(TIME).to_numpy()
            unseen[at[age < self._ttl_ms]] = False
        return unseen

    def _note(self, first: pl.DataFrame) -> None:
        self._seen.remove(self._seen.find(first).ids)
        self._seen.add(first)
