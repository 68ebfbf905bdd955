"""Which rows share a session: geometry of times and gaps, and the order of arrival where that matters.

Sessions that touch, or are exactly the gap apart, are one. As long as no session is closed between the rows
of a batch, that does not depend on the order in which they came. `conflicting` finds the keys where it may,
and `Walk` takes their rows one by one: rows behind the watermark near the end of some session are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from operators.element import TIME
from operators.keyed_rows import Ids
from operators.slices import Times

LATE: Final = -1  # instead of the session of a row
_WIDTH_MAX: Final = 2**62
_RUN: Final = "__run"


class Runs(NamedTuple):
    """Rows in the order of (key, time), the run each is in (ascending from 0), and the first row of each run."""

    rows: pl.DataFrame
    run: npt.NDArray[np.int64]
    first: Ids


def runs(frame: pl.DataFrame, key: Sequence[str], gap_ms: int) -> Runs:
    """Cut the rows of each key where more than the gap lies between two."""
    rows = frame.sort([*key, TIME], maintain_order=True)
    times = rows.get_column(TIME).to_numpy()
    begins = np.ones(rows.height, dtype=np.bool_)
    begins[1:] = np.diff(times) > gap_ms
    for name in key:
        values = rows.get_column(name)
        begins[1:] |= values[1:].ne_missing(values[:-1]).to_numpy()
    return Runs(rows, np.cumsum(begins) - 1, np.flatnonzero(begins))


def components(left: Ids, right: Ids, lefts: int, rights: int) -> tuple[Ids, Ids]:
    """Connected components of pairs: for each left and each right thing, the smallest left one it is joined with."""
    of_left: Ids = np.arange(lefts)
    of_right: Ids = np.full(rights, lefts)
    while True:
        np.minimum.at(of_right, right, of_left[left])
        smaller = of_left.copy()
        np.minimum.at(smaller, left, of_right[right])
        if np.array_equal(smaller, of_left):
            return of_left, of_right
        of_left = smaller


def conflicting(
    keys: Ids, times: Times, now: Times, held_keys: Ids, held_last: Times, reach_ms: int, gap_ms: int
) -> Ids:
    """Keys (by number) of which some row comes when a session it touches, or its own, may be closed already.

    `now`: the watermark just before each row. `held_*`: of sessions that were there before. `reach_ms`: a
    session is out of reach once the watermark is `reach_ms` beyond its last row.
    """
    behind = times <= now - reach_ms + gap_ms
    if not behind.any():
        return np.zeros(0, dtype=np.int64)
    of, low = keys[behind], times[behind] - gap_ms
    high = now[behind] - reach_ms
    point_keys, points = np.concatenate((keys, held_keys)), np.concatenate((times, held_last))
    base, top = int(points.min()), int(points.max())
    width = top - base + 2
    if (int(point_keys.max()) + 1) * width >= _WIDTH_MAX:
        return np.unique(of)
    places = np.sort(point_keys * width + (points - base))
    from_place = of * width + (np.clip(low, base, top + 1) - base)
    to_place = of * width + (np.clip(high, base - 1, top) - base)
    found = np.searchsorted(places, to_place, side="right") > np.searchsorted(places, from_place, side="left")
    return np.unique(of[found])


class Walk:
    """Sessions of some keys, row by row. Sessions are numbered: first those held, then as they begin."""

    def __init__(self, held_keys: Ids, held_first: Times, held_last: Times, reach_ms: int, gap_ms: int) -> None:
        self._reach_ms = reach_ms
        self._gap_ms = gap_ms
        self._joined = list(range(len(held_keys)))  # session → the one it has been merged into
        self._open: dict[int, list[list[int]]] = {}  # key → [first, last, number]
        columns = (held_keys.tolist(), held_first.tolist(), held_last.tolist())
        for number, (key, first, last) in enumerate(zip(*columns, strict=True)):
            self._open.setdefault(key, []).append([first, last, number])

    def rows(self, keys: Ids, times: Times, now: Times) -> Ids:
        """The session of each row, or `LATE`; final only when all rows are in: see `sessions`."""
        return np.array(
            [self._row(*row) for row in zip(keys.tolist(), times.tolist(), now.tolist(), strict=True)], dtype=np.int64
        )

    def sessions(self) -> Ids:
        """For each number, the session it is a part of in the end."""
        for number, joined in enumerate(self._joined):  # ascending: what a session was merged into may be later
            while joined != self._joined[joined]:
                joined = self._joined[joined]
            self._joined[number] = joined
        return np.array(self._joined, dtype=np.int64)

    def _row(self, key: int, time: int, now: int) -> int:
        gap = self._gap_ms
        sessions = self._open.setdefault(key, [])
        touched = [
            each for each in sessions if each[0] - gap <= time <= each[1] + gap and each[1] + self._reach_ms > now
        ]
        if not touched:
            if time + self._reach_ms <= now:
                return LATE
            number = len(self._joined)
            self._joined.append(number)
            sessions.append([time, time, number])
            return number
        whole = touched[0]
        for other in touched[1:]:
            self._joined[other[2]] = whole[2]
            whole[0], whole[1] = min(whole[0], other[0]), max(whole[1], other[1])
            sessions.remove(other)
        whole[0], whole[1] = min(whole[0], time), max(whole[1], time)
        return whole[2]
