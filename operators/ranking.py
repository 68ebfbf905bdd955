"""The order that `top` ranks rows by, and the best of each group.

Nulls are the lowest values, as in Flink: first ascending, last descending. Of equals the one that stands
earlier ranks first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from operators.changes import Flags, Indices, first_of_runs

_ROW: Final = "__row"


class Order(NamedTuple):
    """One column to rank by."""

    column: str
    descending: bool = False

    def __str__(self) -> str:
        return f"{self.column} {'desc' if self.descending else 'asc'}"


@dataclass(frozen=True, slots=True)
class Ranking:
    """The `n` best rows by `order`. `ties`: with all that equal the n-th."""

    n: int
    order: tuple[Order, ...]
    ties: bool = False

    def sorted(self, frame: pl.DataFrame, group: Sequence[str]) -> Standing:
        """Rows of each group next to each other, the best first."""
        by = dict.fromkeys(group, False)
        for column, descending in self.order:
            by.setdefault(column, descending)
        flags = list(by.values())
        at = frame.select(*by).with_row_index(_ROW).sort(*by, descending=flags, nulls_last=flags, maintain_order=True)
        rows = at.get_column(_ROW).to_numpy().astype(np.int64)
        groups = np.cumsum(_starts(at, group)) - 1
        ties: Indices = np.cumsum(_starts(at, list(by))) if self.ties else np.arange(len(rows))
        return Standing(rows, groups, ties)

    def ranks(self, standing: Standing, among: Flags) -> Indices:
        """The rank of each of `standing`'s rows within its group, from 1, only those counted that are `among`; what the
        others get means nothing. Without ties no two rows of a group have the same."""
        counted = np.cumsum(among)
        starts = first_of_runs(standing.groups)
        before = np.where(starts > 0, counted[starts - 1], 0)
        if not self.ties:
            return counted - before
        tied = first_of_runs(standing.ties)
        return np.where(tied > 0, counted[tied - 1], 0) - before + 1

    def best(self, frame: pl.DataFrame, group: Sequence[str]) -> pl.DataFrame:
        """The best rows of each group, in their order."""
        standing = self.sorted(frame, group)
        ranks = self.ranks(standing, np.ones(frame.height, dtype=np.bool_))
        return frame[standing.rows[ranks <= self.n]]

    def __str__(self) -> str:
        return f"{self.n} by {', '.join(map(str, self.order))}{' with ties' if self.ties else ''}"


class Standing(NamedTuple):
    """Rows of a frame in the order of (group, rank), and which of them share a group or are equal."""

    rows: Indices  # of the frame
    groups: Indices  # from 0, ascending
    ties: Indices  # the same only for equals of a group


def _starts(frame: pl.DataFrame, columns: Sequence[str]) -> Flags:
    """Rows that differ from the row before; null equals null."""
    starts = np.zeros(frame.height, dtype=np.bool_)
    starts[:1] = True
    for name in columns:
        values = frame.get_column(name)
        starts[1:] |= values.slice(1).ne_missing(values.slice(0, max(0, frame.height - 1))).to_numpy()
    return starts
