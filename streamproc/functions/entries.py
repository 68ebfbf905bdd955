"""Point state as a row sees it: read through a cache, changed in memory, written back at the barrier.

Changes of one row (or timer) are held apart until `commit`, so that a row that fails leaves nothing behind.
An entry is stored with the time it was last written where its state has a `ttl`:

    00 <value>                 for good
    01 <written at, ms 8> <value>

What has expired is not seen, whenever it is removed: `sweep` looks at a few entries for each row that comes
and so keeps dead entries below a fraction of the living ones.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from state.backend import StateBackend
from state.point import PointKey

_STAMP = struct.Struct(">q")
_SCAN_PIECE: Final = 1024
_END: Final = PointKey(1, 0, b"")  # all entries are in namespace 0
_START: Final = PointKey(0, 0, b"")


class Kept(NamedTuple):
    """One value, and when it was written last (ms); None where its state has no `ttl`."""

    value: bytes
    written: int | None


class Entries:
    """Entries of one name in one operator subtask."""

    def __init__(self, state: StateBackend, name: str, cached_max: int) -> None:
        self._points = state.points(name)
        self._cached_max = cached_max
        self._cache: dict[PointKey, bytes | None] = {}
        self._dirty: set[PointKey] = set()
        self._row: dict[PointKey, bytes | None] = {}
        self._swept_to = _START

    def prefetch(self, keys: Iterable[PointKey]) -> None:
        """Read what is not in memory, all at once."""
        missing = [key for key in keys if key not in self._cache]
        self._cache.update(zip(missing, self._points.get(missing), strict=True))

    def get(self, key: PointKey) -> Kept | None:
        """The entry at `key`, expired or not."""
        if key in self._row:
            stored = self._row[key]
        else:
            if key not in self._cache:
                [self._cache[key]] = self._points.get([key])
            stored = self._cache[key]
        return None if stored is None else _decode(stored)

    def put(self, key: PointKey, value: bytes, written: int | None) -> None:
        """Write an entry. `written`: the time it is written at, where it has a `ttl`."""
        self._row[key] = b"\0" + value if written is None else b"\1" + _STAMP.pack(written) + value

    def delete(self, key: PointKey) -> None:
        """Remove an entry; nothing being there is fine."""
        self._row[key] = None

    def under(self, group: int, prefix: bytes) -> Iterator[tuple[PointKey, Kept]]:
        """The entries of a group whose keys begin with `prefix`, ordered by key, as they are at the call."""
        self._write_back()
        first, end = PointKey(0, group, prefix), PointKey(0, group, prefix + b"\xff" * 8)
        changed = {key: value for key, value in self._row.items() if key.group == group and first <= key < end}
        found: dict[PointKey, bytes | None] = {}
        while piece := self._points.scan(first, end, _SCAN_PIECE):
            found.update(piece)
            if len(piece) < _SCAN_PIECE:
                break
            first = _after(piece[-1][0])
        found |= changed
        return iter([(key, _decode(value)) for key, value in sorted(found.items()) if value is not None])

    def commit(self) -> None:
        """The row is done: its changes count."""
        if self._row:
            self._cache.update(self._row)
            self._dirty.update(self._row)
            self._row.clear()

    def rollback(self) -> None:
        """The row has failed: forget its changes."""
        self._row.clear()

    def fit(self) -> None:
        """Between batches: bring memory back under its bound."""
        if len(self._cache) > self._cached_max:
            self._write_back()
            self._cache.clear()

    def flush(self) -> None:
        """Write what has changed since the last time (at a barrier)."""
        self._write_back()

    def sweep(self, limit: int) -> Iterator[tuple[PointKey, Kept]]:
        """The next entries, at most `limit`, in a round without end, for the caller to remove what has expired."""
        piece = self._points.scan(self._swept_to, _END, limit)
        self._swept_to = _after(piece[-1][0]) if len(piece) == limit else _START
        for key, stored in piece:
            if key not in self._dirty:
                yield key, _decode(stored)

    def remove(self, keys: Iterable[PointKey]) -> None:
        """Remove entries at once; not while a row is under way."""
        gone = dict.fromkeys(keys)
        if gone:
            self._points.write(gone)
            for key in gone:
                if key in self._cache:
                    self._cache[key] = None

    def _write_back(self) -> None:
        if self._dirty:
            self._points.write({key: self._cache[key] for key in sorted(self._dirty)})
            self._dirty.clear()


def _decode(stored: bytes) -> Kept:
    if stored[0] == 0:
        return Kept(stored[1:], None)
    return Kept(stored[1 + _STAMP.size :], _STAMP.unpack_from(stored, 1)[0])


def _after(key: PointKey) -> PointKey:
    return key._replace(key=key.key + b"\0")
