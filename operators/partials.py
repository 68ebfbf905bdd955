"""Partial aggregates of open slices: appended in memory, written to state once, merged by key when asked for.

Each slice has two runs of frames. *Dirty* partials are in memory only. *Clean* ones are in state too,
and kept in memory only as a whole: a slice either holds all its blocks decoded (`resident`) or none of
them. Blocks are appended, never rewritten: when memory is over its budget, and at a barrier, the dirty
run is merged, appended under (slice start, key groups), and becomes clean or is dropped. Frames are
always merged in the order they arrived, which `first_value` and `last_value` rely on.

A key that gets rows all day is in a block of every checkpoint. So once most rows of a slice's blocks repeat
a key, the blocks are merged too, bucket by bucket: state is bounded by the keys, not by how long a window lasts.

Rows are counted by weight, because a frame of one row, and a row with a long text or list, cost more than a
plain row does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import polars as pl

from operators import block_codec
from operators.aggregates import AggregatePlan
from operators.hashing import key_groups
from operators.merged_ranges import MergedRanges
from operators.operator import OperatorContext
from state.key_group import KeyGroupRange

MERGE_ROWS: Final = 65_536  # unmerged weight that is always tolerated
BLOCK_ROWS: Final = 65_536  # a block that would be larger is split by key group
BLOCK_ROWS_MIN: Final = 8_192  # …and in a large slice also smaller ones, so that a bucket reads little else
BUCKET_ROWS: Final = 500_000  # partials merged at once
REWRITE_WEIGHT: Final = 262_144  # weight appended to a slice's blocks that is always tolerated…
_REWRITE_FACTOR: Final = 3  # …and more, as many times what was left when they were last merged
RANGES_FROM: Final = 8  # slices of a window from which on what overlapping windows share is merged once
_FRAME_WEIGHT: Final = 64  # what a frame costs beside its rows (1.7 kB), in rows
_ROW_BYTES: Final = 40  # what a plain row takes


@dataclass(slots=True)
class _Run:
    """Frames in order of arrival; the first `merged_weight` of them have been merged by key."""

    frames: list[pl.DataFrame] = field(default_factory=list)
    rows: int = 0
    weight: int = 0
    merged_weight: int = 0

    def wants_merge(self) -> bool:
        return self.weight - self.merged_weight > max(MERGE_ROWS, 2 * self.merged_weight)


@dataclass(slots=True)
class _Slice:
    clean: _Run = field(default_factory=_Run)
    dirty: _Run = field(default_factory=_Run)
    stored_rows: int | None = 0  # rows in blocks; None: there are blocks, not counted yet
    rewritten_rows: int = 0  # of them, how many there were when blocks were last merged
    appended_weight: int = 0  # of the blocks since then
    resident: bool = True  # `clean` holds every block

    @property
    def weight(self) -> int:
        return self.clean.weight + self.dirty.weight


class Partials:
    """The partials of one operator subtask. `shared`: a slice is in several windows, so merged slices are kept."""

    def __init__(
        self,
        plan: AggregatePlan,
        key: Sequence[str],
        context: OperatorContext,
        *,
        slice_ms: int,
        shared: bool,
        within: Sequence[str] = (),
        name: str = "window",
    ) -> None:
        """`within`: columns that divide a slice further, and do not count for the key group. `name`: of the blocks."""
        assert context.state is not None
        self._plan = plan
        self._key = list(key)
        self._by = [*within, *key]
        self._groups = context.groups
        self._max_parallelism = context.max_parallelism
        self._weight_max = context.memory_rows_max
        self._blocks = context.state.blocks(name)
        self._shared = shared
        self._slices: dict[int, _Slice] = {}
        self._ranges = MergedRanges(slice_ms, self.frames_of, self._merge)
        self._weight = 0
        self.rows = 0  # partial rows in memory

    def __contains__(self, start: int) -> bool:
        return start in self._slices

    def add(self, start: int, partial: pl.DataFrame) -> None:
        """Append what one batch contributes to the slice at `start`: unique keys, columns key + partials."""
        entry = self._slices.get(start)
        if entry is None:
            entry = self._slices[start] = _Slice()
        self._ranges.forget(start)
        self._append(entry.dirty, partial)
        if entry.dirty.wants_merge():
            self._compact(entry.dirty)

    def rows_of(self, start: int) -> int:
        """Unmerged partial rows of a slice, in memory and in state."""
        entry = self._slices[start]
        if entry.resident:
            return entry.clean.rows + entry.dirty.rows
        return self._stored_rows(start, entry) + entry.dirty.rows

    def frames_of(self, start: int) -> list[pl.DataFrame]:
        """All partials of a slice small enough to be held in memory, oldest first."""
        entry = self._slices[start]
        if not self._shared:
            stored = [] if entry.resident else list(self._stored(start, self._groups))
            return [*stored, *entry.clean.frames, *entry.dirty.frames]
        if not entry.resident:
            for frame in self._stored(start, self._groups):
                self._append(entry.clean, frame)
            entry.resident = True
        self._compact(entry.clean)
        self._compact(entry.dirty)
        return [*entry.clean.frames, *entry.dirty.frames]

    def frames_of_all(self, starts: Sequence[int]) -> list[pl.DataFrame]:
        """All partials of these slices, small enough to be held in memory; of many slices merged already."""
        if len(starts) >= RANGES_FROM:
            return self._ranges.frames(starts)
        return [frame for start in starts for frame in self.frames_of(start)]

    def merged(self, starts: Sequence[int]) -> Iterator[pl.DataFrame]:
        """Partials of these slices merged by key, in frames that share no key: one, or one per bucket of
        key groups when there are so many that about `BUCKET_ROWS` have to be merged at a time."""
        rows = sum(map(self.rows_of, starts))
        if rows <= BUCKET_ROWS:
            yield from self._merge(self.frames_of_all(starts))
            return
        if len(starts) >= RANGES_FROM and rows <= self._weight_max:
            shared = self._ranges.frames(starts)
            if sum(frame.height for frame in shared) <= BUCKET_ROWS:
                yield from self._merge(shared)
                return
        in_memory: dict[int, list[tuple[pl.DataFrame, pl.Series]]] = {
            start: [(frame, self._groups_of(frame)) for frame in [*entry.clean.frames, *entry.dirty.frames]]
            for start, entry in self._entries(starts)
        }
        for bucket in split_range(self._groups, -(-rows // BUCKET_ROWS)):
            frames: list[pl.DataFrame] = []
            for start, entry in self._entries(starts):
                if not entry.resident:
                    frames.extend(self._stored(start, bucket))
                frames.extend(
                    frame.filter(groups.is_between(bucket.first, bucket.last)) for frame, groups in in_memory[start]
                )
            yield from self._merge(frames)

    def merged_for(self, starts: Sequence[int], keys: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """As `merged`, for the given keys only (columns: within and key, unique); blocks are read one at a time."""
        groups = self._groups
        if self._key:
            wanted = self._groups_of(keys)
            groups = KeyGroupRange(int(wanted.min()), int(wanted.max()))  # type: ignore[arg-type]
        frames: list[pl.DataFrame] = []
        for start, entry in self._entries(starts):
            stored = () if entry.resident else self._stored(start, groups)
            for source in (stored, entry.clean.frames, entry.dirty.frames):
                frames.extend(self._only(frame, keys) for frame in source)
        yield from self._merge(frames)

    def drop(self, start: int) -> None:
        """Forget a slice, in memory and in state."""
        entry = self._slices.pop(start)
        self._ranges.forget(start)
        self._clear(entry.clean)
        self._clear(entry.dirty)
        if entry.stored_rows != 0:
            self._blocks.delete(start)

    def fit(self) -> None:
        """Bring memory back under its budget: merge first, then move the heaviest slices to state."""
        if self._ranges.rows > self._weight_max // 2:
            self._ranges.clear()
        if self._weight <= self._weight_max:
            return
        goal = self._weight_max // 2  # so that the next batches do not come here again
        heaviest = sorted(self._slices.items(), key=lambda item: item[1].weight, reverse=True)
        for _, entry in heaviest:
            self._compact(entry.dirty)
            if self._weight <= goal:
                return
        for start, entry in heaviest:
            self._write(start, entry)
            self._clear(entry.clean)
            entry.resident = False
            if self._weight <= goal:
                return

    def flush(self) -> None:
        """Write every dirty partial to state; what fits the budget stays in memory as clean."""
        for start, entry in self._slices.items():
            self._write(start, entry)
        self.fit()

    def restore(self) -> list[int]:
        """Find the slices that are in state, ascending. Their blocks are read when a window closes."""
        starts = self._blocks.namespaces()
        self._slices = {start: _Slice(stored_rows=None, resident=False) for start in starts}
        return starts

    def _write(self, start: int, entry: _Slice) -> None:
        if not entry.dirty.frames:
            return
        self._compact(entry.dirty)
        [frame] = entry.dirty.frames
        entry.stored_rows = self._stored_rows(start, entry) + frame.height
        for groups, part in self._split(frame, self._groups, entry.stored_rows):
            self._blocks.append(start, groups, block_codec.encode(part))
            entry.appended_weight += part.height + _FRAME_WEIGHT
        self._clear(entry.dirty)
        if entry.resident:
            self._append(entry.clean, frame)
            if entry.clean.wants_merge():
                self._compact(entry.clean)
        if entry.appended_weight > max(REWRITE_WEIGHT, _REWRITE_FACTOR * entry.rewritten_rows):
            self._rewrite(start, entry)

    def _rewrite(self, start: int, entry: _Slice) -> None:
        """Merge a slice's blocks, unless its first bucket shows that hardly any row repeats a key."""
        rows = self._stored_rows(start, entry)
        buckets = split_range(self._groups, -(-rows // BUCKET_ROWS))
        entry.appended_weight = 0
        entry.rewritten_rows = rows
        stored = list(self._stored(start, buckets[0]))
        first = list(self._merge(stored))
        if 2 * sum(frame.height for frame in first) > sum(frame.height for frame in stored):
            return
        del stored

        def merged() -> Iterator[tuple[KeyGroupRange, bytes]]:
            entry.rewritten_rows = 0
            for bucket in buckets:
                for frame in first if bucket == buckets[0] else self._merge(list(self._stored(start, bucket))):
                    entry.rewritten_rows += frame.height
                    for groups, part in self._split(frame, bucket, 0):
                        yield groups, block_codec.encode(part)

        self._blocks.replace(start, merged())
        entry.stored_rows = entry.rewritten_rows

    def _stored_rows(self, start: int, entry: _Slice) -> int:
        if entry.stored_rows is None:
            blocks = [block_codec.rows_of(block.value) for block in self._blocks.scan(start, self._groups)]
            entry.stored_rows = sum(blocks)
            entry.appended_weight = entry.stored_rows + len(blocks) * _FRAME_WEIGHT
        return entry.stored_rows

    def _split(
        self, frame: pl.DataFrame, within: KeyGroupRange, slice_rows: int
    ) -> Iterator[tuple[KeyGroupRange, pl.DataFrame]]:
        """Cut into blocks: near `BLOCK_ROWS`, smaller where the whole slice is going to be read by bucket."""
        parts = max(-(-frame.height // BLOCK_ROWS), min(-(-slice_rows // BUCKET_ROWS), frame.height // BLOCK_ROWS_MIN))
        ranges = split_range(within, parts)
        if len(ranges) == 1 or not self._key:
            yield within, frame
            return
        groups = self._groups_of(frame)
        for span in ranges:
            part = frame.filter(groups.is_between(span.first, span.last))
            if part.height:
                yield span, part

    def _stored(self, start: int, groups: KeyGroupRange) -> Iterator[pl.DataFrame]:
        return block_codec.scan(self._blocks, start, groups, self._groups_of)

    def _groups_of(self, frame: pl.DataFrame) -> pl.Series:
        return key_groups(frame, self._key, self._max_parallelism)

    def _only(self, frame: pl.DataFrame, keys: pl.DataFrame) -> pl.DataFrame:
        return frame.join(keys, on=self._by, how="semi", nulls_equal=True) if self._by else frame

    def _entries(self, starts: Iterable[int]) -> Iterator[tuple[int, _Slice]]:
        return ((start, self._slices[start]) for start in starts)

    def _merge(self, frames: Sequence[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        held = [frame for frame in frames if frame.height]
        if held:
            yield self._plan.merge(pl.concat(held), self._by) if len(held) > 1 else held[0]

    def _compact(self, run: _Run) -> None:
        """Merge a run into one frame of unique keys."""
        if len(run.frames) < 2:
            run.merged_weight = run.weight
            return
        merged = self._plan.merge(pl.concat(run.frames), self._by)
        self._clear(run)
        self._append(run, merged)
        run.merged_weight = run.weight

    def _append(self, run: _Run, frame: pl.DataFrame) -> None:
        weight = max(self._plan.weight(frame), int(frame.estimated_size()) // _ROW_BYTES) + _FRAME_WEIGHT
        run.frames.append(frame)
        run.rows += frame.height
        run.weight += weight
        self.rows += frame.height
        self._weight += weight

    def _clear(self, run: _Run) -> None:
        self.rows -= run.rows
        self._weight -= run.weight
        run.frames = []
        run.rows = run.weight = run.merged_weight = 0


def split_range(groups: KeyGroupRange, parts: int) -> list[KeyGroupRange]:
    """Cut a range into `parts` (at least 1, at most one per group) contiguous ranges of nearly equal length."""
    parts = max(1, min(parts, len(groups)))
    edges = [groups.first + index * len(groups) // parts for index in range(parts + 1)]
    return [KeyGroupRange(first, end - 1) for first, end in pairwise(edges)]
