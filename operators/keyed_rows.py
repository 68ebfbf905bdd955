"""Rows kept by key: an ordered multimap that answers for a whole batch of keys at once, and is part of checkpoints.

What joins, deduplication, top and un-windowed aggregates stand on. No Python runs per row. In memory are about 45
bytes for each row, and the columns of as many as the operator's budget allows, the newest; those of the others are on
disk where the backend has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from operators.element import Schema
from operators.hash_index import HashIndex, Pairs
from operators.hashing import UInt64s, groups_of_hashes, hash_rows
from operators.operator import OperatorContext
from operators.row_journal import RowJournal
from operators.row_slots import NEVER, Generations, RowSlots, Slots, Times
from operators.row_store import RowStore
from state.failure import Failure
from state.spill import SpillFolder

Ids = npt.NDArray[np.int64]  # of rows: ascending in order of arrival, valid until removed, not stored
Flags = npt.NDArray[np.bool_]

SCAN_ROWS: Final = 65_536
SWEEP_ROWS: Final = 8_192  # dead rows that are always tolerated in memory
STALE_ROWS: Final = 65_536  # dead rows that may turn up in one `find`
PAIRS: Final = 65_536  # of a piece
_STORES: Final = 2  # that share an operator's memory: the sides of a join, say
_ROW_BYTES: Final = 40  # what a plain row takes


class UnknownRow(Failure):
    """An id of a row that was removed, or never was."""

    def __init__(self, step: str) -> None:
        super().__init__(f"step {step}: asked for a kept row that is gone")


class MisplacedRow(Failure):
    """A row of a key group that another subtask owns: it would be lost at a rescale."""

    def __init__(self, step: str) -> None:
        super().__init__(f"step {step}: a row came to a subtask that does not own its key group")


class Found(NamedTuple):
    """Pairs (row of the asked frame, stored row), ordered by both; equal lengths."""

    at: Ids
    ids: Ids


class _Asked(NamedTuple):
    """Hashes to look up, the rows they belong to (None: each its own), the keys to compare (None: hashes decide)."""

    hashes: UInt64s
    places: Ids | None
    keys: pl.DataFrame | None


class KeyedRows:
    """The rows of one name in one operator subtask."""

    def __init__(
        self,
        context: OperatorContext,
        name: str,
        schema: Schema,
        key: Sequence[str],
        *,
        time: str | None = None,
        nulls_match: bool = True,
        exchange: Sequence[str] | None = None,
    ) -> None:
        """`schema`: every column stored, hidden ones too. `key`: by what rows are found; empty: all rows have the
        same. `exchange`: the step's exchange key, which decides a row's key group, where it is not `key`.
        `time`: an Int64 column (ms, never null) by which rows expire. `nulls_match`: whether null keys equal each
        other (grouping) or nothing (joining)."""
        assert context.state is not None
        self._context = context
        self._schema = dict(schema)
        self._key = list(key)
        self._exchange = self._key if exchange is None else list(exchange)
        self._time = time
        self._nulls_match = nulls_match
        self._null_keys = False  # whether null keys were ever held
        folder = context.state.spill_folder()
        spill = None if folder is None else SpillFolder(folder, name)
        self._store = RowStore(schema, spill, context.memory_rows_max // _STORES * _ROW_BYTES)
        self._slots = RowSlots(timed=time is not None)
        self._index = HashIndex()
        self._journal = RowJournal(context.state.blocks(name), context.groups, self._slots, self._store, time)

    def __len__(self) -> int:
        """Rows held."""
        return self._slots.live

    def add(self, frame: pl.DataFrame) -> Ids:
        """Append rows (columns: at least `schema`'s, in any order); their ids. Raises `MisplacedRow`."""
        hashes = hash_rows(frame, self._key)
        by = hashes if self._exchange == self._key else hash_rows(frame, self._exchange)
        groups = groups_of_hashes(by, self._context.max_parallelism)
        owned = self._context.groups
        if len(groups) and (groups.min() < owned.first or groups.max() > owned.last):
            raise MisplacedRow(self._context.step)
        ids = self._slots.new_ids(groups)
        slots = self._slots.append(ids, None if self._time is None else frame.get_column(self._time).to_numpy())
        self._store.append(frame)
        matching = self._matching(frame, self._key)
        if matching is None:
            self._index.add(hashes, slots)
        else:
            self._index.add(hashes[matching], slots[matching])
        self._null_keys |= self._nulls_match and _has_nulls(frame, self._key)
        return ids

    def find(self, frame: pl.DataFrame, on: Sequence[str] | None = None) -> Found:
        """Stored rows whose key equals that of rows of `frame`; `on`: how `frame` calls the key columns. All pairs
        at once: to ask many times for a key of many rows, take `find_pieces`."""
        asked = self._ask(frame, on)
        found, dead = self._found(asked, self._index.find(asked.hashes))
        self._note_stale(dead, len(found.at))
        return found

    def find_pieces(self, frame: pl.DataFrame, on: Sequence[str] | None = None, size: int = PAIRS) -> Iterator[Found]:
        """What `find` gives, at most `size` pairs at a time, none of them empty: no hot key fills the memory. Rows
        may be marked between two pieces, not added or removed."""
        asked = self._ask(frame, on)
        dead = living = 0
        for pairs in self._index.find_pieces(asked.hashes, size):
            found, gone = self._found(asked, pairs)
            dead, living = dead + gone, living + len(found.at)
            if len(found.at):
                yield found
        self._note_stale(dead, living)

    def rows(self, ids: Ids, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The rows with these ids, in this order (an id may come more than once); `columns`: all by default. Raises
        `UnknownRow`."""
        return self._store.gather(self._slots_of(ids), columns)

    def remove(self, ids: Ids) -> None:
        """Forget rows; ids that are gone already are ignored."""
        slots, alive = self._slots.find(ids)
        slots = _distinct(slots[alive])
        self._journal.note_dead(slots)
        self._slots.kill(slots)
        if self._slots.end - self._slots.live > max(SWEEP_ROWS, self._slots.live):
            self._sweep()

    def mark(self, ids: Ids) -> None:
        """Set the rows' mark (say: has been matched); it is part of checkpoints. Raises `UnknownRow`."""
        slots = self._slots_of(ids)
        slots = _distinct(slots[~self._slots.marks[slots]])
        self._slots.marks[slots] = True
        self._journal.note_marked(slots)

    def marked(self, ids: Ids) -> Flags:
        """Whether each row is marked. Raises `UnknownRow`."""
        return self._slots.marks[self._slots_of(ids)]

    def before(self, time: int) -> Ids:
        """Rows whose `time` column is below `time`, in order of arrival; cheap where there are none."""
        return self._slots.ids[self._slots.before(time)]

    def earliest_unmarked(self) -> int | None:
        """The lowest `time` of a row without a mark."""
        earliest = self._slots.earliest_unmarked()
        return None if earliest == NEVER else earliest

    def scan(self) -> Iterator[tuple[Ids, pl.DataFrame]]:
        """All rows, in order of arrival, in frames of bounded size. Nothing may change meanwhile."""
        slots = np.flatnonzero(self._slots.alive)
        for first in range(0, len(slots), SCAN_ROWS):
            part = slots[first : first + SCAN_ROWS]
            yield self._slots.ids[part], self._store.gather(part)

    def flush(self) -> None:
        """Write what changed since the last flush to the state backend (in `prepare_snapshot`)."""
        self._journal.flush()

    def restore(self) -> None:
        """Read everything back, only rows of our key groups (in `restore`), a block at a time."""
        notes: list[tuple[Ids, Flags, Generations, UInt64s, Flags]] = []
        times: list[Times] = []
        for part in self._journal.restore():
            self._store.append(part.frame)
            matching = self._matching(part.frame, self._key)
            if matching is None:
                matching = np.ones(part.frame.height, dtype=np.bool_)
            notes.append((part.ids, part.marks, part.generations, hash_rows(part.frame, self._key), matching))
            if self._time is not None:
                times.append(part.frame.get_column(self._time).to_numpy())
            self._null_keys |= self._nulls_match and _has_nulls(part.frame, self._key)
        if not notes:
            return
        columns = [list(column) for column in zip(*notes, strict=True)]
        notes.clear()
        order = np.argsort(np.concatenate(columns[0]), kind="stable")
        self._store.renumber(order)
        moments = np.concatenate(times)[order] if times else None
        slots = self._slots.append(_taken(columns[0], order), moments)
        self._slots.marks[slots] = _taken(columns[1], order)
        self._slots.generations[slots] = _taken(columns[2], order)
        matching, hashes = _taken(columns[4], order), _taken(columns[3], order)
        del order
        for first in range(0, len(slots), SCAN_ROWS):
            here = slice(first, first + SCAN_ROWS)
            self._index.add(hashes[here][matching[here]], slots[here][matching[here]])

    def _ask(self, frame: pl.DataFrame, on: Sequence[str] | None) -> _Asked:
        names = self._key if on is None else list(on)
        hashes = hash_rows(frame, names)
        matching = self._matching(frame, names)
        places = None if matching is None else np.flatnonzero(matching)
        keys = frame[names] if self._must_compare(frame, names) else None
        return _Asked(hashes if places is None else hashes[places], places, keys)

    def _found(self, asked: _Asked, pairs: Pairs) -> tuple[Found, int]:
        """What of the index's answer is alive and has the key asked for, and how many rows were dead."""
        at, slots = pairs
        if asked.places is not None:
            at = asked.places[at]
        alive = self._slots.alive[slots]
        dead = len(alive) - int(np.count_nonzero(alive))
        if dead:
            at, slots = at[alive], slots[alive]
        if asked.keys is not None and len(slots):
            equal = self._equal(asked.keys[at], slots)
            at, slots = at[equal], slots[equal]
        return Found(at, self._slots.ids[slots]), dead

    def _note_stale(self, dead: int, living: int) -> None:
        """Of what was looked up, so many rows were dead."""
        if dead > max(STALE_ROWS, 2 * living):  # a hot key whose rows are replaced all the time
            self._index.keep(self._slots.alive)

    def _slots_of(self, ids: Ids) -> Slots:
        slots, alive = self._slots.find(ids)
        if not alive.all():
            raise UnknownRow(self._context.step)
        return slots

    def _matching(self, frame: pl.DataFrame, names: Sequence[str]) -> Flags | None:
        """Rows that can equal another at all; None: every one."""
        if self._nulls_match or not _has_nulls(frame, names):
            return None
        return frame.select(pl.all_horizontal(pl.col(*names).is_not_null())).to_series().to_numpy()

    def _must_compare(self, frame: pl.DataFrame, names: Sequence[str]) -> bool:
        """Whether equal hashes do not prove that keys are equal."""
        if not names:
            return False
        if self._null_keys or (self._nulls_match and _has_nulls(frame, names)):
            return True
        asked = [frame.schema[name] for name in names]
        return not hash_decides([self._schema[name] for name in self._key], asked)

    def _equal(self, asked: pl.DataFrame, slots: Slots) -> Flags:
        """Whether the keys of stored rows are those asked for."""
        held = self._store.gather(slots, self._key)
        equal = np.ones(len(slots), dtype=np.bool_)
        for left, right in zip(asked.get_columns(), held.get_columns(), strict=True):
            equal &= left.eq_missing(right).to_numpy()
        return equal

    def _sweep(self) -> None:
        """Let go of dead rows; ids stay what they are."""
        alive = self._slots.alive
        self._index.keep(alive, np.cumsum(alive) - 1)
        self._store.keep(alive)
        self._slots.sweep()


def hash_decides(held: Sequence[pl.DataType], asked: Sequence[pl.DataType]) -> bool:
    """Whether keys of these types that hash alike are alike: one number hashes to 64 bits without loss."""
    if len(held) != 1:
        return False
    pair = {_domain(held[0]), _domain(asked[0])}
    return len(pair) == 1 and None not in pair


def _domain(dtype: pl.DataType) -> str | None:
    """Types of one domain are hashed by the same one-to-one mapping."""
    if dtype == pl.Boolean or (dtype.is_integer() and dtype != pl.UInt64 and dtype.to_python() is int):
        return "integer"
    if dtype.is_float():
        return "float"
    if dtype == pl.Date:
        return "date"
    if isinstance(dtype, pl.Datetime) and dtype.time_unit != "ns":
        return "moment"
    return None


def _taken(parts: list[npt.NDArray[Any]], order: Ids) -> npt.NDArray[Any]:
    """All parts in this order; they are let go of."""
    together = np.concatenate(parts)
    parts.clear()
    return together[order]


def _distinct(slots: Slots) -> Slots:
    """Ascending, each once: in a quarter of the time of `np.unique`."""
    ordered = np.sort(slots)
    distinct: Slots = ordered[np.diff(ordered, prepend=-1) != 0]
    return distinct


def _has_nulls(frame: pl.DataFrame, names: Sequence[str]) -> bool:
    return any(frame.get_column(name).null_count() for name in names)
