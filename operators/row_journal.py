"""Rows in state: each flush appends what is new as one *generation*, and notes of older ones what has changed.

A generation is a namespace of blocks, its number; the namespace ~number holds its changes: ids of rows that have
died or been marked since. A generation goes, with its changes, when all its rows are dead. Generations are
written again, what is alive of them, as part of the next one when most rows in state are dead, or when many
are small: state is bounded by the rows that live. Where rows have a time, those that die because it is over need
no note: a *horizon* says that of the rows numbered below n, those with a time below t are dead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from operators import block_codec
from operators.partials import split_range
from operators.row_slots import GROUP_BITS, NOT_STORED, Flags, Generations, Ids, RowSlots, Slots, Times
from operators.row_store import RowStore
from state.backend import BlockState
from state.key_group import KeyGroupRange

BLOCK_ROWS: Final = 65_536  # a generation of more rows is split by key group
SLACK_ROWS: Final = 65_536  # dead rows in state that are always tolerated
SMALL_ROWS: Final = 65_536  # generations of fewer rows are merged…
FAN_IN: Final = 8  # …when so many are about as large
CHANGE_BLOCKS: Final = 16  # of a generation, before they are merged
_HORIZONS_MAX: Final = 32
_HORIZONS: Final = -(2**62)  # namespace
_GROUP_MASK: Final = (1 << GROUP_BITS) - 1

_ROW: Final = "__row"
_MARK: Final = "__mark"
_DEAD: Final = "__dead"
_BEFORE: Final = "__before"


@dataclass(slots=True)
class _Generation:
    stored: int  # rows in its blocks
    live: int
    change_blocks: int = 0


class _Horizon(NamedTuple):
    """Of rows of `groups` numbered below `number`, those with a time below `time` are dead."""

    groups: KeyGroupRange
    number: int
    time: int

    def covers(self, ids: Ids, times: Times) -> Flags:
        groups = ids & _GROUP_MASK
        ours = (groups >= self.groups.first) & (groups <= self.groups.last)
        covered: Flags = ours & (ids >> GROUP_BITS < self.number) & (times < self.time)
        return covered


class _Changed(NamedTuple):
    """Stored rows that died or were marked."""

    ids: Ids
    generations: Generations
    times: Times

    def where(self, chosen: Flags) -> _Changed:
        return _Changed(self.ids[chosen], self.generations[chosen], self.times[chosen])


class Restored(NamedTuple):
    """Rows of a block that are alive, with the ids, marks and generations they had."""

    ids: Ids
    marks: Flags
    generations: Generations
    frame: pl.DataFrame


class RowJournal:
    """Keeps in `blocks` what `slots` and `store` say is alive, as of the last flush."""

    def __init__(
        self, blocks: BlockState, groups: KeyGroupRange, slots: RowSlots, store: RowStore, time: str | None
    ) -> None:
        self._blocks = blocks
        self._groups = groups
        self._slots = slots
        self._store = store
        self._time = time
        self._generations: dict[int, _Generation] = {}
        self._next_generation = 0
        self._horizons: list[_Horizon] = []
        self._dead: list[_Changed] = []  # since the last flush
        self._marked: list[_Changed] = []

    def note_dead(self, slots: Slots) -> None:
        """These rows are about to die."""
        self._note(slots, self._dead)

    def note_marked(self, slots: Slots) -> None:
        """These rows have been marked."""
        self._note(slots, self._marked)

    def flush(self) -> None:
        """Bring state up to date."""
        dead, marked = _together(self._dead), _together(self._marked)
        self._dead, self._marked = [], []
        for generation, count in zip(*np.unique(dead.generations, return_counts=True), strict=True):
            self._generations[int(generation)].live -= int(count)
        gone = [number for number, generation in self._generations.items() if not generation.live]
        rewritten = self._to_rewrite()
        self._write(rewritten)
        for number in (*gone, *rewritten):
            self._drop(number)
        dead = dead.where(self._known(dead.generations))
        if self._time is not None and len(dead.ids):
            dead = self._move_horizon(dead)
        self._note_changes(dead, marked.where(self._known(marked.generations)))

    def restore(self) -> Iterator[Restored]:
        """All that is alive in our key groups, a block at a time, in no order."""
        self._horizons = list(self._stored_horizons())
        namespaces = self._blocks.namespaces()
        for changes in namespaces:
            if _HORIZONS < changes < 0 and ~changes not in namespaces:  # of a generation without rows of ours
                self._blocks.delete(changes)
        for number in namespaces:
            if number >= 0:
                yield from self._restore(number)

    def _note(self, slots: Slots, noted: list[_Changed]) -> None:
        generations = self._slots.generations[slots]
        stored = generations != NOT_STORED
        if stored.any():
            slots = slots[stored]
            times = self._slots.times[slots] if self._time is not None else np.zeros(len(slots), dtype=np.int64)
            noted.append(_Changed(self._slots.ids[slots], generations[stored], times))

    def _to_rewrite(self) -> list[int]:
        """Generations that are to be written again, to bound what is in state."""
        held = {number: entry for number, entry in self._generations.items() if entry.live}
        chosen: set[int] = set()
        tiers: dict[int, list[int]] = defaultdict(list)
        for number, entry in held.items():
            if entry.stored < SMALL_ROWS:
                tiers[entry.stored.bit_length() // 3].append(number)
        for tier in tiers.values():
            if len(tier) >= FAN_IN:
                chosen.update(tier)
        surplus = sum(entry.stored - 2 * entry.live for number, entry in held.items() if number not in chosen)
        for number, entry in sorted(held.items(), key=lambda item: item[1].live / item[1].stored):
            if surplus <= SLACK_ROWS:
                break
            if number not in chosen:
                chosen.add(number)
                surplus -= entry.stored - 2 * entry.live
        return sorted(chosen)

    def _write(self, rewritten: list[int]) -> None:
        """A new generation of the rows not in state, and of the live ones of some others."""
        generations = self._slots.generations
        new = generations == NOT_STORED
        if rewritten:
            new |= np.isin(generations, rewritten)
        slots = np.flatnonzero(new & self._slots.alive)
        if not len(slots):
            return
        number = self._next_generation
        self._next_generation += 1
        for groups, part in self._split(slots):
            frame = self._store.gather(part).with_columns(
                pl.Series(_ROW, self._slots.ids[part]), pl.Series(_MARK, self._slots.marks[part])
            )
            self._blocks.append(number, groups, block_codec.encode(frame))
        generations[slots] = number
        self._generations[number] = _Generation(len(slots), len(slots))

    def _split(self, slots: Slots) -> Iterator[tuple[KeyGroupRange, Slots]]:
        """Slots by ranges of key groups, about `BLOCK_ROWS` at a time; a group of more rows in several pieces."""
        groups = self._slots.ids[slots] & _GROUP_MASK
        spans = split_range(self._groups, -(-len(slots) // BLOCK_ROWS))
        for span in spans:
            part = slots if len(spans) == 1 else slots[(groups >= span.first) & (groups <= span.last)]
            for first in range(0, len(part), BLOCK_ROWS):
                yield span, part[first : first + BLOCK_ROWS]

    def _drop(self, number: int) -> None:
        del self._generations[number]
        self._blocks.delete(number)
        self._blocks.delete(~number)

    def _known(self, generations: Generations) -> Flags:
        return np.isin(generations, list(self._generations))

    def _move_horizon(self, dead: _Changed) -> _Changed:
        """Let a horizon say of what died too early to matter; what is left to be noted."""
        horizon = _Horizon(self._groups, self._slots.next_number, self._slots.earliest)
        covered = horizon.covers(dead.ids, dead.times)
        kept = [older for older in self._horizons if older.time > horizon.time]
        if not covered.any() or len(kept) >= _HORIZONS_MAX:
            return dead
        self._horizons = [*kept, horizon]
        self._blocks.replace(
            _HORIZONS,
            [
                (each.groups, block_codec.encode(pl.DataFrame({_ROW: [each.number], _BEFORE: [each.time]})))
                for each in self._horizons
            ],
        )
        return dead.where(~covered)

    def _note_changes(self, dead: _Changed, marked: _Changed) -> None:
        """Append the changes of each generation; merge them now and then."""
        ids = np.concatenate((dead.ids, marked.ids))
        died = np.arange(len(ids)) < len(dead.ids)
        generations = np.concatenate((dead.generations, marked.generations))
        for number in np.unique(generations).tolist():
            here = generations == number
            change = pl.DataFrame({_ROW: ids[here], _DEAD: died[here]})
            entry = self._generations[number]
            if entry.change_blocks < CHANGE_BLOCKS:
                self._blocks.append(~number, self._groups, block_codec.encode(change))
                entry.change_blocks += 1
                continue
            older = [block_codec.decode(block.value) for block in self._blocks.scan(~number, self._groups)]
            merged = pl.concat([*older, change]).group_by(_ROW).agg(pl.col(_DEAD).any())
            self._blocks.replace(~number, [(self._groups, block_codec.encode(merged))])
            entry.change_blocks = 1

    def _restore(self, number: int) -> Iterator[Restored]:
        changes = [block_codec.decode(block.value) for block in self._blocks.scan(~number, self._groups)]
        change = pl.concat(changes) if changes else pl.DataFrame(schema={_ROW: pl.Int64, _DEAD: pl.Boolean})
        died = change.get_column(_DEAD)
        dead_ids = change.get_column(_ROW).filter(died).to_numpy()
        marked_ids = change.get_column(_ROW).filter(~died).to_numpy()
        entry = self._generations[number] = _Generation(0, 0, len(changes))
        self._next_generation = max(self._next_generation, number + 1)
        self._see(change.get_column(_ROW).to_numpy())
        for frame in block_codec.scan(self._blocks, number, self._groups, _groups_of):
            ids = frame.get_column(_ROW).to_numpy()
            self._see(ids)
            dead = np.isin(ids, dead_ids)
            if self._time is not None and self._horizons:
                times = frame.get_column(self._time).to_numpy()
                for horizon in self._horizons:
                    dead |= horizon.covers(ids, times)
            alive = ~dead
            kept = frame.filter(pl.Series(alive)) if dead.any() else frame
            marks = (frame.get_column(_MARK).to_numpy() | np.isin(ids, marked_ids))[alive]
            generations = np.full(kept.height, number, dtype=np.int32)
            entry.stored += len(ids)
            entry.live += kept.height
            if kept.height:
                yield Restored(ids[alive], marks, generations, kept.select(self._store.names))

    def _stored_horizons(self) -> Iterator[_Horizon]:
        for block in self._blocks.scan(_HORIZONS, self._groups):
            [(number, time)] = block_codec.decode(block.value).rows()
            self._slots.next_number = max(self._slots.next_number, number)
            yield _Horizon(block.groups, number, time)

    def _see(self, ids: Ids) -> None:
        """Never give these ids again: notes on them may outlive the rows."""
        if len(ids):
            self._slots.next_number = max(self._slots.next_number, int(ids.max() >> GROUP_BITS) + 1)


def _groups_of(frame: pl.DataFrame) -> pl.Series:
    return frame.get_column(_ROW) & _GROUP_MASK


def _together(changed: list[_Changed]) -> _Changed:
    if not changed:
        none = np.empty(0, dtype=np.int64)
        return _Changed(none, none.astype(np.int32), none)
    ids, generations, times = zip(*changed, strict=True)
    return _Changed(np.concatenate(ids), np.concatenate(generations), np.concatenate(times))
