"""As-of join: each left row with the version of its key that the right side had at the left row's event time.

A left row waits until the watermark passes its time: then every version up to there is known. Of the versions that
the watermark has passed only the newest of a key is kept. So a left row that comes late, behind the watermark, is
joined at once and meets the version that is current at the watermark just before it, if that is not younger than
the row; older versions may be gone. Of versions of one time the later arrival counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from operators.element import DELETE, KIND, ROW_WATERMARK, TIME, UPDATE_BEFORE, WATERMARK_MIN, EventTimeMs, Schema
from operators.explanation import Explanation
from operators.join.pairs import PAIRS, Candidates, Pairing, Times, has_key, numbered, row_watermarks
from operators.join.shape import JoinShape
from operators.keyed_rows import Ids, KeyedRows
from operators.operator import OperatorContext, Output
from operators.window import MissingEventTime

_GONE: Final = "__gone"  # the version says that there is none from its time on
_NONE: Final = -1


@dataclass(frozen=True, slots=True)
class AsOfJoinSpec:
    """`join` with `as_of: true`: inner or left; the right side may be a changelog."""

    shape: JoinShape

    @property
    def schema(self) -> Schema:
        return self.shape.schema

    @property
    def stateful(self) -> bool:
        return True

    def create(self, context: OperatorContext) -> AsOfJoin:
        return AsOfJoin(self, context)

    def describe(self) -> str:
        return f"{self.shape.describe()}, right as of left time; {self.shape.holds()}"

    def explained(self) -> Explanation:
        left = "left rows until the watermark has passed them"
        right = "right rows not yet passed, and the newest passed one of each key for ever"
        return Explanation(f"{self.shape.describe()}, the right side as of the left time", keeps=f"{left}; {right}")


class _Versions(NamedTuple):
    """Stored versions, in groups of one key each, ascending by time, then arrival."""

    group: Ids
    times: Times
    ids: Ids


class AsOfJoin:
    """One subtask. A generator of outputs has to be run to its end before the next call."""

    def __init__(self, spec: AsOfJoinSpec, context: OperatorContext) -> None:
        shape = spec.shape
        self._shape = shape
        self._context = context
        self._counters = context.counters
        self._pairing = Pairing(shape, context)
        self._waiting = KeyedRows(context, "left", shape.left.stored, shape.left.key, time=TIME, nulls_match=False)
        stored = {**shape.right.stored, _GONE: pl.Boolean()}
        self._versions = KeyedRows(context, "right", stored, shape.right.key, time=TIME, nulls_match=False)
        self._ahead: list[tuple[Ids, Times]] = []  # versions that the watermark has not passed yet
        self._watermark: int = WATERMARK_MIN

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take left rows; raises `MissingEventTime`."""
        times = self._times(frame)
        now = row_watermarks(frame, max(self._watermark, watermark))
        keyed = has_key(frame, self._shape.left.key)
        if keyed is not None and not self._shape.pads_left:
            kept = np.flatnonzero(keyed)
            self._counters.filtered += int((~keyed).sum())
            frame, times, now = frame[kept], times[kept], now[kept]
        late = times <= now
        if late.any():
            behind = np.flatnonzero(late)
            yield from self._join(frame[behind], now[behind])
            frame = frame.filter(pl.Series(~late))
        self._waiting.add(frame)
        self._counters.taken += frame.height

    def process_right(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take versions; raises `MissingEventTime`."""
        self._times(frame)
        gone = pl.lit(False)
        if KIND in frame.columns:
            old = frame.get_column(KIND) == UPDATE_BEFORE
            self._counters.filtered += int(old.sum())  # says nothing that the new row does not
            frame = frame.filter(~old)
            gone = pl.col(KIND) == DELETE
        keyed = has_key(frame, self._shape.right.key)
        if keyed is not None:
            self._counters.filtered += int((~keyed).sum())
            frame = frame.filter(pl.Series(keyed))
        self._counters.taken += frame.height
        if frame.height:
            ids = self._versions.add(frame.with_columns(gone.alias(_GONE)))
            self._ahead.append((ids, frame.get_column(TIME).to_numpy()))
        return iter(())

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Join the left rows that `watermark` passes, in order of time; forget the versions it leaves behind."""
        self._watermark = max(self._watermark, watermark)
        due = self._waiting.before(watermark + 1)
        if len(due):
            times = np.concatenate(
                [self._waiting.rows(due[i : i + PAIRS]).get_column(TIME).to_numpy() for i in range(0, len(due), PAIRS)]
            )
            in_order = due[np.argsort(times, kind="stable")]
            for first in range(0, len(due), PAIRS):
                left = self._waiting.rows(in_order[first : first + PAIRS])
                self._counters.made += left.height
                yield from self._join(left, None)
            self._waiting.remove(due)
        self._forget(watermark)

    def next_close(self) -> EventTimeMs | None:
        """When the first waiting left row finds its version."""
        earliest = self._waiting.earliest_unmarked()
        return None if earliest is None else EventTimeMs(earliest)

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """Waiting rows and versions go to state."""
        self._waiting.flush()
        self._versions.flush()
        return {"watermark": int(self._watermark)}

    def restore(self, snapshots: list[Mapping[str, Any]]) -> None:
        """Go on from the lowest watermark: subtasks of one step agree on it."""
        self._watermark = min((int(snapshot["watermark"]) for snapshot in snapshots), default=WATERMARK_MIN)
        self._waiting.restore()
        self._versions.restore()
        self._ahead = [(ids, frame.get_column(TIME).to_numpy()) for ids, frame in self._versions.scan()]

    def _times(self, frame: pl.DataFrame) -> Times:
        times = frame.get_column(TIME)
        if times.null_count():
            raise MissingEventTime(self._context.step)
        return times.to_numpy()

    def _join(self, left: pl.DataFrame, now: Times | None) -> Iterator[Output]:
        """Results of left rows, in their order. `now`: the watermark before each of rows that came late.

        Each left row is given out once, or is late or left out: it passes through. A version that fails on the
        condition is an error beside that, a pair made and lost (see `Pairing.match`).
        """
        times = left.get_column(TIME).to_numpy()
        found = self._current(left, times if now is None else now)
        at = np.flatnonzero(found != _NONE)
        partner = np.full(left.height, _NONE, dtype=np.int64)  # the place of its version in `right`
        right = self._versions.rows(found[at])
        if len(at):
            valid = (right.get_column(TIME).to_numpy() <= times[at]) & ~right.get_column(_GONE).to_numpy()
            matches = self._pairing.match(Candidates(at, np.arange(len(at))), left[at], right.drop(_GONE), valid)
            partner[matches.at] = matches.ids
            yield from self._pairing.errors()
        if not self._shape.pads_left:
            alone = int((partner == _NONE).sum())
            if now is None:
                self._counters.filtered += alone
            else:
                self._counters.late += alone
            kept = np.flatnonzero(partner != _NONE)
            left, partner, now = left[kept], partner[kept], None if now is None else now[kept]
        if left.height:
            yield Output("main", self._results(left, right, partner, now))

    def _results(self, left: pl.DataFrame, right: pl.DataFrame, partner: Ids, now: Times | None) -> pl.DataFrame:
        none = pl.Series([None], dtype=pl.Int64)
        places = pl.Series(partner).zip_with(pl.Series(partner != _NONE), none)
        others = [name for name in self._shape.output if name in self._shape.right.schema]
        joined = left.hstack(right.select(pl.col(others).gather(places)).get_columns()) if others else left
        result = joined.select(*self._shape.output, TIME)
        return result if now is None else result.with_columns(pl.Series(ROW_WATERMARK, now))

    def _current(self, left: pl.DataFrame, times: Times) -> Ids:
        """For each left row the id of the newest version of its key with time ≤ the one in `times`, or `_NONE`."""
        current = np.full(left.height, _NONE, dtype=np.int64)
        keys, group = numbered(left, self._shape.left.key)
        versions = self._versions_of(keys, self._shape.left.key)
        if not len(versions.ids):
            return current
        asking = np.flatnonzero(group >= 0)
        known = len(versions.ids)
        # Versions and questions in one order, a version ahead of the questions of its time:
        order = np.lexsort(
            (
                np.concatenate((np.zeros(known, dtype=np.int64), np.ones(len(asking), dtype=np.int64))),
                np.concatenate((versions.times, times[asking])),
                np.concatenate((versions.group, group[asking])),
            )
        )
        last = np.maximum.accumulate(np.where(order < known, order, _NONE))  # `order` keeps versions ascending
        asked = np.flatnonzero(order >= known)
        question, version = asking[order[asked] - known], last[asked]
        hit = (version != _NONE) & (versions.group[version] == group[question])
        current[question[hit]] = versions.ids[version[hit]]
        return current

    def _versions_of(self, keys: pl.DataFrame, on: tuple[str, ...]) -> _Versions:
        """All versions of the keys, each key's group being its row in `keys`."""
        found = self._versions.find(keys, on)
        times = self._versions.rows(found.ids).get_column(TIME).to_numpy()
        order = np.lexsort((found.ids, times, found.at))
        return _Versions(found.at[order], times[order], found.ids[order])

    def _forget(self, watermark: int) -> None:
        """Of the versions that the watermark has passed now, all but the newest of each key."""
        passed: list[Ids] = []
        ahead: list[tuple[Ids, Times]] = []
        for ids, times in self._ahead:
            over = times <= watermark
            if over.any():
                passed.append(ids[over])
                ids, times = ids[~over], times[~over]
            if len(ids):
                ahead.append((ids, times))
        self._ahead = ahead
        if not passed:
            return
        keys, _ = numbered(self._versions.rows(np.concatenate(passed)), self._shape.right.key)
        versions = self._versions_of(keys, self._shape.right.key)
        behind = versions.times <= watermark
        group, ids = versions.group[behind], versions.ids[behind]
        superseded = np.flatnonzero(group[1:] == group[:-1])
        self._versions.remove(ids[superseded])
