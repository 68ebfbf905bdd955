"""What outside has answered lately: the rows of each answer, none included, by key; bounded in answers and in age.

It is no part of a checkpoint: after a restore, everything is asked anew. Rows are in one frame and are gathered
by position, so that a batch costs one look into a dictionary for each distinct key and no more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from operators.element import Schema

Key = tuple[Any, ...]
_DEAD_ROWS_MIN: Final = 4_096  # rows that nothing refers to any more, before they are looked at


class _Entry(NamedTuple):
    first: int
    rows: int
    since_ms: int


class AnswerCache:
    """At most `answers_max` answers, the ones used last; each for `ttl_ms`."""

    def __init__(self, schema: Schema, answers_max: int, ttl_ms: int) -> None:
        self._answers_max = answers_max
        self._ttl_ms = ttl_ms
        self._rows = pl.DataFrame(schema=schema)
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._live_rows = 0

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, keys: Sequence[Key], now_ms: int) -> tuple[pl.DataFrame, list[int], list[int]]:
        """Rows of the answers known for `keys`, for each row the place of its key, and the places not known."""
        places: list[int] = []
        entries: list[_Entry] = []
        unknown: list[int] = []
        for place, key in enumerate(keys):
            entry = self._entries.get(key)
            if entry is not None and now_ms - entry.since_ms < self._ttl_ms:
                self._entries.move_to_end(key)
                places += [place] * entry.rows
                entries.append(entry)
            else:
                unknown.append(place)
        positions = [position for entry in entries for position in range(entry.first, entry.first + entry.rows)]
        return self._rows[positions], places, unknown

    def put(self, keys: Sequence[Key], rows: pl.DataFrame, counts: Sequence[int], now_ms: int) -> None:
        """Remember answers. `rows`: those of all keys, one key's after the other's; `counts`: how many each has."""
        first = self._rows.height
        self._rows = pl.concat([self._rows, rows])
        for key, count in zip(keys, counts, strict=True):
            self._forget(key)
            self._entries[key] = _Entry(first, count, now_ms)
            self._live_rows += count
            first += count
        while len(self._entries) > self._answers_max:
            self._forget(next(iter(self._entries)))
        if self._rows.height - self._live_rows > max(_DEAD_ROWS_MIN, self._live_rows):
            self._compact()

    def _forget(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._live_rows -= entry.rows

    def _compact(self) -> None:
        """Keep the rows that answers refer to."""
        firsts = np.array([entry.first for entry in self._entries.values()], dtype=np.int64)
        counts = np.array([entry.rows for entry in self._entries.values()], dtype=np.int64)
        ends = np.cumsum(counts)
        starts = ends - counts
        positions = np.arange(self._live_rows) + np.repeat(firsts - starts, counts)
        self._rows = self._rows[positions].rechunk()
        for key, first in zip(list(self._entries), starts.tolist(), strict=True):
            self._entries[key] = self._entries[key]._replace(first=first)
