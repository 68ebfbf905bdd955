"""Timers of keys: kept in state, one for a (time, key), fired in order of (time, key group, key).

New ones wait in memory until the barrier; stored ones are read in pieces when they are due. Changes of one
row are held apart until `commit`.
"""

from __future__ import annotations

import heapq
from typing import Final

from state.backend import StateBackend
from state.block_key import NAMESPACE_MAX, NAMESPACE_MIN
from state.point import PointKey

_PIECE: Final = 1024
_MEMORY_MAX: Final = 100_000

Timer = PointKey  # namespace: the time (ms); key: the encoded key


class Timers:
    """The timers of one kind in one operator subtask."""

    def __init__(self, state: StateBackend, name: str) -> None:
        self._points = state.points(name)
        self._added: list[Timer] = []  # a heap; what is not in `_changes` as True is out of date
        self._changes: dict[Timer, bool] = {}  # since the last flush: set, or gone
        self._front: list[Timer] = []  # the next stored ones, last first
        self._front_ends: Timer | None = Timer(NAMESPACE_MIN, 0, b"")  # stored ones behind it are not in `_front`
        self._row: dict[Timer, bool] = {}

    def set(self, timer: Timer) -> None:
        """Set one; setting it twice is setting it once."""
        self._row[timer] = True

    def delete(self, timer: Timer) -> None:
        """Delete one; nothing being set is fine."""
        self._row[timer] = False

    def commit(self) -> None:
        """The row is done: its changes count."""
        for timer, is_set in self._row.items():
            if is_set and not self._changes.get(timer, False):
                heapq.heappush(self._added, timer)
            self._changes[timer] = is_set
        self._row.clear()

    def rollback(self) -> None:
        """The row has failed: forget its changes."""
        self._row.clear()

    def pop(self, until: int) -> Timer | None:
        """Take out the first timer with time ≤ `until`."""
        while self._added and not self._changes.get(self._added[0], False):
            heapq.heappop(self._added)
        stored = self._first_stored(until)
        added = self._added[0] if self._added else None
        first = min((timer for timer in (stored, added) if timer is not None), default=None)
        if first is None or first.namespace > until:
            return None
        if first == added:
            heapq.heappop(self._added)
        if first == stored:
            self._front.pop()
        self._changes[first] = False
        return first

    def fit(self) -> None:
        """Between batches: bring memory back under its bound."""
        if len(self._changes) > _MEMORY_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what has changed since the last time (at a barrier)."""
        if self._changes:
            self._points.write({timer: b"" if is_set else None for timer, is_set in sorted(self._changes.items())})
            self._changes.clear()
            self._added.clear()
            self.restore()

    def restore(self) -> None:
        """What is stored has changed: read it anew when it is due."""
        self._front.clear()
        self._front_ends = Timer(NAMESPACE_MIN, 0, b"")

    def _first_stored(self, until: int) -> Timer | None:
        while True:
            while self._front:
                # Deleted since, or set again (then it waits in `_added`, too, and is taken from both at once).
                if self._changes.get(self._front[-1], True):
                    return self._front[-1]
                self._front.pop()
            if self._front_ends is None or self._front_ends.namespace > until:
                return None
            found = [t for t, _ in self._points.scan(self._front_ends, Timer(NAMESPACE_MAX, 0, b""), _PIECE)]
            self._front = found[::-1]
            self._front_ends = found[-1]._replace(key=found[-1].key + b"\0") if len(found) == _PIECE else None
            if not found:
                return None
