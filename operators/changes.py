"""A change to a set of rows, as rows of a changelog: what was there before beside what is there now.

Every thing that may change has a slot. A slot with an old and a new row that differ is an update, one with
equal rows is no change at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from operators.element import DELETE, INSERT, KIND, TIME, UPDATE_AFTER, UPDATE_BEFORE
from operators.hashing import hash_rows

Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def retracted(frame: pl.DataFrame) -> Flags:
    """Which rows of a changelog are taken back; none of an append-only stream."""
    if KIND not in frame.columns:
        return np.zeros(frame.height, dtype=np.bool_)
    kinds = frame.get_column(KIND).to_numpy()
    flags: Flags = (kinds == UPDATE_BEFORE) | (kinds == DELETE)
    return flags


def changes(
    columns: Sequence[str],
    old: pl.DataFrame,
    old_slots: Indices,
    new: pl.DataFrame,
    new_slots: Indices,
    times: npt.NDArray[np.int64] | None = None,
) -> pl.DataFrame:
    """The change from `old` to `new`: `columns`, the event time and the kind, in the order of slots, an update's
    two rows next to each other. No slot is named twice in one of them. `times`: event time by slot, where there is one.
    """
    slots = 1 + max(int(old_slots.max(initial=-1)), int(new_slots.max(initial=-1)))
    old_row = np.full(slots, -1)
    old_row[old_slots] = np.arange(len(old_slots))
    new_row = np.full(slots, -1)
    new_row[new_slots] = np.arange(len(new_slots))
    both = (old_row >= 0) & (new_row >= 0)
    changed = np.ones(slots, dtype=np.bool_)
    old, new = old.select(columns), new.select(columns)
    if both.any():
        changed[both] = ~_equal(old[old_row[both]], new[new_row[both]])
    order = np.concatenate((2 * old_slots, 2 * new_slots + 1))
    kinds = np.concatenate(
        (
            np.where(both[old_slots], UPDATE_BEFORE, DELETE),
            np.where(both[new_slots], UPDATE_AFTER, INSERT),
        )
    ).astype(np.int8)
    rows = np.argsort(order, kind="stable")
    rows = rows[changed[order[rows] // 2]]
    frame = pl.concat([old, new])[rows] if len(old_slots) else new[rows]
    hidden = [pl.Series(KIND, kinds[rows], dtype=pl.Int8)]
    if times is not None:
        hidden.insert(0, pl.Series(TIME, times[order[rows] // 2], dtype=pl.Int64))
    return frame.with_columns(hidden)


def unique_keys(frame: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Each key once; of the empty key one row."""
    return frame.select(key).unique() if key else frame.head(1)


def taken_back(rows: pl.DataFrame, back: pl.DataFrame) -> Flags:
    """Of each distinct row as many as there are in `back`, the earliest first: so it does not matter how
    additions and retractions of equal rows are mixed."""
    hashes, wanted = hash_rows(rows, rows.columns), hash_rows(back, rows.columns)
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    runs = np.cumsum(np.concatenate(([False], ordered[1:] != ordered[:-1]))) if len(ordered) else ordered
    occurrence = np.arange(len(ordered)) - first_of_runs(runs.astype(np.int64))
    distinct, counts = np.unique(wanted, return_counts=True)
    at = np.minimum(np.searchsorted(distinct, ordered), len(distinct) - 1)
    taken = np.zeros(len(hashes), dtype=np.bool_)
    taken[order] = (distinct[at] == ordered) & (occurrence < counts[at])
    return taken


def first_of_runs(numbers: Indices) -> Indices:
    """For each element the position where its run of equal ones begins."""
    starts = np.ones(len(numbers), dtype=np.bool_)
    starts[1:] = numbers[1:] != numbers[:-1]
    return np.maximum.accumulate(np.where(starts, np.arange(len(numbers)), 0))


def _equal(left: pl.DataFrame, right: pl.DataFrame) -> Flags:
    """Row by row; null equals null."""
    equal = np.ones(left.height, dtype=np.bool_)
    for before, after in zip(left.get_columns(), right.get_columns(), strict=True):
        equal &= before.eq_missing(after).to_numpy()
    return equal
