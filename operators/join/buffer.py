"""Rows of one side of a window join, by slice: appended, read back whole when a window closes, dropped with the slice.

Rows not yet in state are dirty. A flush writes the dirty ones as blocks; the others stay in memory while they
fit its budget, and are read from state where they do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from operators import block_codec
from operators.hashing import key_groups
from operators.operator import OperatorContext
from operators.partials import split_range
from state.key_group import KeyGroupRange

BLOCK_ROWS: Final = 32_768
_ROW_BYTES: Final = 64  # a row this large counts as one in the budget; a larger one as several
_GROWTH: Final = 2  # a frame has at least so many times the rows of the next


@dataclass(slots=True)
class _Frames:
    """Frames in order of arrival, merged as they grow."""

    frames: list[pl.DataFrame] = field(default_factory=list)
    rows: int = 0
    weight: int = 0

    def append(self, frame: pl.DataFrame) -> None:
        self.rows += frame.height
        self.weight += weight_of(frame)
        together, height = [frame], frame.height
        while self.frames and self.frames[-1].height < _GROWTH * height:
            together.append(self.frames.pop())
            height += together[-1].height
        self.frames.append(pl.concat(together[::-1]) if len(together) > 1 else frame)


@dataclass(slots=True)
class _Slice:
    """Clean rows are in state, too; not `resident`: in state only."""

    clean: _Frames = field(default_factory=_Frames)
    dirty: _Frames = field(default_factory=_Frames)
    stored_rows: int = 0
    resident: bool = True


class SliceRows:
    """One side's rows in one operator subtask."""

    def __init__(self, context: OperatorContext, name: str, key: Sequence[str], weight_max: int) -> None:
        assert context.state is not None
        self._context = context
        self._blocks = context.state.blocks(name)
        self._key = list(key)
        self._weight_max = weight_max
        self._slices: dict[int, _Slice] = {}
        self._weight = 0

    @property
    def slices(self) -> list[int]:
        """Slices that hold rows, ascending."""
        return sorted(self._slices)

    def __contains__(self, start: int) -> bool:
        return start in self._slices

    def add(self, start: int, frame: pl.DataFrame) -> None:
        """Append rows to the slice at `start`."""
        entry = self._slices.setdefault(start, _Slice())
        self._weight += weight_of(frame)
        entry.dirty.append(frame)

    def rows_of(self, start: int) -> int:
        """How many rows a slice holds."""
        entry = self._slices.get(start)
        return entry.stored_rows + entry.dirty.rows if entry is not None else 0

    def read(self, start: int, groups: KeyGroupRange | None = None) -> list[pl.DataFrame]:
        """A slice's rows, oldest first; of `groups` only, where given."""
        entry = self._slices.get(start)
        if entry is None:
            return []
        stored = entry.clean.frames if entry.resident else list(self._stored(start, groups or self._context.groups))
        frames = [*stored, *entry.dirty.frames]
        if groups is None:
            return frames
        of = [(frame, self._groups_of(frame)) for frame in frames]
        return [frame.filter(group.is_between(groups.first, groups.last)) for frame, group in of]

    def drop(self, start: int) -> None:
        """Forget a slice, in memory and in state."""
        entry = self._slices.pop(start, None)
        if entry is not None:
            self._weight -= entry.clean.weight + entry.dirty.weight
            if entry.stored_rows:
                self._blocks.delete(start)

    def fit(self) -> None:
        """Bring memory back under its budget: the heaviest slices stay in state only."""
        if self._weight <= self._weight_max:
            return
        for start, entry in sorted(self._slices.items(), key=lambda item: -_weight(item[1])):
            self._write(start, entry)
            self._weight -= entry.clean.weight
            entry.clean, entry.resident = _Frames(), False
            if self._weight <= self._weight_max // 2:  # so that the next batches do not come here again
                return

    def flush(self) -> None:
        """Write every dirty row to state."""
        for start, entry in self._slices.items():
            self._write(start, entry)
        self.fit()

    def restore(self) -> None:
        """Find the slices that are in state; their rows are read when a window closes."""
        for start in self._blocks.namespaces():
            rows = sum(block_codec.rows_of(block.value) for block in self._blocks.scan(start, self._context.groups))
            self._slices[start] = _Slice(stored_rows=rows, resident=False)

    def _write(self, start: int, entry: _Slice) -> None:
        if not entry.dirty.rows:
            return
        frame = pl.concat(entry.dirty.frames)
        for groups, part in self._split(frame):
            self._blocks.append(start, groups, block_codec.encode(part))
        entry.stored_rows += frame.height
        self._weight -= entry.dirty.weight
        entry.dirty = _Frames()
        if entry.resident:
            self._weight += weight_of(frame)
            entry.clean.append(frame)

    def _split(self, frame: pl.DataFrame) -> Iterator[tuple[KeyGroupRange, pl.DataFrame]]:
        ranges = split_range(self._context.groups, -(-frame.height // BLOCK_ROWS))
        if len(ranges) == 1 or not self._key:
            yield self._context.groups, frame
            return
        groups = self._groups_of(frame)
        for span in ranges:
            part = frame.filter(groups.is_between(span.first, span.last))
            if part.height:
                yield span, part

    def _stored(self, start: int, groups: KeyGroupRange) -> Iterator[pl.DataFrame]:
        return block_codec.scan(self._blocks, start, groups, self._groups_of)

    def _groups_of(self, frame: pl.DataFrame) -> pl.Series:
        return key_groups(frame, self._key, self._context.max_parallelism)


def weight_of(frame: pl.DataFrame) -> int:
    """What a frame counts in a budget of rows."""
    return max(frame.height, int(frame.estimated_size()) // _ROW_BYTES)


def _weight(entry: _Slice) -> int:
    return entry.clean.weight + entry.dirty.weight
