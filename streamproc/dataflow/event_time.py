"""Event time at a source: each split keeps its own clock, the subtask's watermark is the slowest live one.

A split's watermark is max(event time) − out_of_order. Where a row comes at or behind the watermark of
its own split, or at the instant after it, its batch carries, per row, the watermark just before it
(`__watermark`): so lateness depends on the order of rows alone, not on where batches were cut. (The instant
after: a session that ends there is closed.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from operators.connector import SplitId
from operators.element import ROW_WATERMARK, TIME, WATERMARK_MAX, WATERMARK_MIN, EventTimeMs, Watermark
from streamproc.dataflow.lateness import LatenessCounts
from streamproc.observability.facts import Lateness
from streamproc.pipeline.logical import EventTime


@dataclass(slots=True)
class SplitClock:
    """What is known of one split's event time."""

    max_time: EventTimeMs | None = None  # highest event time seen
    last_active_s: float = 0.0  # when rows came last
    finished: bool = False


class SplitTime(NamedTuple):
    """One split for who looks from outside. `silent_s`: since rows came last; `idle`: it holds nobody back."""

    split: SplitId
    watermark: EventTimeMs
    silent_s: float
    idle: bool
    finished: bool


class SourceClock:
    """The clocks of one source subtask's splits. Times passed in are seconds that only grow."""

    def __init__(self, event_time: EventTime | None) -> None:
        self._event_time = event_time
        self._splits: dict[SplitId, SplitClock] = {}
        self._lateness = LatenessCounts(event_time.out_of_order_ms if event_time else 0)
        self._reached = WATERMARK_MIN

    def add(self, split: SplitId, max_time: EventTimeMs | None, now_s: float, *, finished: bool = False) -> None:
        """A split is ours from now on; `max_time` comes from a checkpoint."""
        self._splits[split] = SplitClock(max_time, now_s, finished)

    def heard(self, split: SplitId, now_s: float) -> None:
        """Rows of `split` have come; they are stamped in their turn."""
        self._splits[split].last_active_s = now_s

    def none_is_silent(self, now_s: float) -> None:
        """Rows could not come: the silence of every split begins anew."""
        for clock in self._splits.values():
            clock.last_active_s = now_s

    def finish(self, split: SplitId) -> None:
        """Nothing follows on `split`: it holds nobody back."""
        self._splits[split].finished = True

    def advance(self, split: SplitId, watermark: EventTimeMs) -> None:
        """The split's own watermark comes to `watermark`, if it is not there yet."""
        if self._event_time is None:
            return
        clock = self._splits[split]
        time = EventTimeMs(watermark + self._event_time.out_of_order_ms)
        clock.max_time = time if clock.max_time is None else max(clock.max_time, time)

    def max_time(self, split: SplitId) -> EventTimeMs | None:
        """For the checkpoint."""
        return self._splits[split].max_time

    @property
    def latest(self) -> EventTimeMs | None:
        """The highest event time of all splits."""
        return max((clock.max_time for clock in self._splits.values() if clock.max_time is not None), default=None)

    def splits(self, now_s: float) -> Iterator[SplitTime]:
        """Every split as it is now."""
        idle_after_ms = self._event_time.idle_after_ms if self._event_time else None
        for split, clock in self._splits.items():
            silent_s = max(0.0, now_s - clock.last_active_s)
            idle = idle_after_ms is not None and silent_s * 1000 >= idle_after_ms
            watermark = WATERMARK_MIN if self._event_time is None else self._time(clock)
            yield SplitTime(split, watermark, silent_s, idle, clock.finished)

    def skew(self, now_s: float) -> tuple[float, float]:
        """Between the fastest and the slowest split that counts, and how long the slowest one has been silent; both in
        seconds. The first is infinite where one that counts has had no row, and another has."""
        live = [split for split in self.splits(now_s) if not (split.idle or split.finished)]
        if not live:
            return 0.0, 0.0
        slowest = min(split.watermark for split in live)
        silent_s = max(split.silent_s for split in live if split.watermark == slowest)
        ahead = max(split.watermark for split in live) - slowest
        return (math.inf if ahead and slowest <= WATERMARK_MIN else ahead / 1000), silent_s

    def lateness(self) -> Lateness | None:
        """How far rows have come behind, since this clock was made; None without event time."""
        return None if self._event_time is None else self._lateness.taken()

    def stamp(self, split: SplitId, frame: pl.DataFrame, now_s: float) -> pl.DataFrame:
        """Add the hidden columns to a batch of `split` and move its clock. No event time may be null."""
        if self._event_time is None:
            return frame
        clock = self._splits[split]
        clock.last_active_s = now_s
        times = _epoch_ms(frame.get_column(self._event_time.column)).alias(TIME)
        of_rows = times.to_numpy()
        before = np.empty_like(of_rows)  # the highest time before each row
        before[0] = WATERMARK_MIN if clock.max_time is None else clock.max_time
        before[1:] = of_rows[:-1]
        np.maximum.accumulate(before, out=before)
        out_of_order = self._event_time.out_of_order_ms
        behind = before - of_rows
        furthest = int(behind.max())
        self._lateness.add(behind, furthest)
        hidden = [times]
        if furthest + 1 >= out_of_order:
            others = self._slowest(now_s, leaving_out=split)
            hidden.append(pl.Series(ROW_WATERMARK, np.minimum(before - out_of_order, others)))
        latest = int(of_rows.max())
        clock.max_time = EventTimeMs(latest if clock.max_time is None else max(latest, clock.max_time))
        return frame.hstack(hidden)

    def watermark(self, now_s: float) -> Watermark:
        """The subtask's watermark now; idle when no split is live."""
        if self._event_time is None:
            return Watermark(WATERMARK_MIN, idle=not self._splits)
        live = list(self._live(now_s))
        if not live:
            silent = [self._time(clock) for clock in self._splits.values() if not clock.finished]
            # None holds another back: whether they fell silent at once or one by one must not matter.
            self._reached = max([self._reached, *silent])
            finished = bool(self._splits) and not silent
            return Watermark(self._reached, idle=not finished)
        self._reached = EventTimeMs(max(self._reached, min(self._time(clock) for clock in live)))
        return Watermark(self._reached)

    def _live(self, now_s: float, leaving_out: SplitId | None = None) -> Iterable[SplitClock]:
        idle_after_ms = self._event_time.idle_after_ms if self._event_time else None
        for split, clock in self._splits.items():
            if clock.finished or split == leaving_out:
                continue
            if idle_after_ms is not None and (now_s - clock.last_active_s) * 1000 >= idle_after_ms:
                continue
            yield clock

    def _slowest(self, now_s: float, leaving_out: SplitId) -> EventTimeMs:
        return min((self._time(clock) for clock in self._live(now_s, leaving_out)), default=WATERMARK_MAX)

    def _time(self, clock: SplitClock) -> EventTimeMs:
        assert self._event_time is not None
        if clock.max_time is None:
            return WATERMARK_MIN
        return EventTimeMs(clock.max_time - self._event_time.out_of_order_ms)


def _epoch_ms(times: pl.Series) -> pl.Series:
    """As `times.dt.epoch("ms")`, which takes ten times as long for a few rows."""
    return times.cast(pl.Datetime("ms", getattr(times.dtype, "time_zone", None))).cast(pl.Int64)
