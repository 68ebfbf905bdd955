"""The model of keyed state: plain dictionaries, so plain that reading it is checking it.

The contract suite holds `state.rocksdb` equal to this. Snapshots are one JSON file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from state.backend import Block, LocalSnapshot
from state.failure import state_error
from state.key_group import KeyGroupRange
from state.point import PointKey

_FILE = "blocks.json"
_POINTS_FILE = "points.json"


@dataclass(slots=True)
class MemoryBlockState:
    """Blocks of one name, by namespace, in order of appending."""

    owned: KeyGroupRange
    by_namespace: dict[int, list[Block]] = field(default_factory=dict)

    def append(self, namespace: int, groups: KeyGroupRange, value: bytes) -> None:
        """See `BlockState.append`."""
        if len(groups) == 0 or not self.owned.contains_range(groups):
            raise ValueError(f"{groups} is not a part of {self.owned}")
        self.by_namespace.setdefault(namespace, []).append(Block(groups, value))

    def scan(self, namespace: int, groups: KeyGroupRange) -> Iterator[Block]:
        """See `BlockState.scan`."""
        blocks = self.by_namespace.get(namespace, ())
        return iter([block for block in blocks if block.groups.intersects(groups)])

    def replace(self, namespace: int, blocks: Iterable[tuple[KeyGroupRange, bytes]]) -> None:
        """See `BlockState.replace`."""
        old = len(self.by_namespace.get(namespace, ()))
        for groups, value in blocks:
            self.append(namespace, groups, value)
        kept = self.by_namespace.pop(namespace, [])[old:]
        if kept:
            self.by_namespace[namespace] = kept

    def delete(self, namespace: int) -> None:
        """See `BlockState.delete`."""
        self.by_namespace.pop(namespace, None)

    def namespaces(self) -> list[int]:
        """See `BlockState.namespaces`."""
        return sorted(self.by_namespace)


@dataclass(slots=True)
class MemoryPointState:
    """Entries of one name."""

    owned: KeyGroupRange
    entries: dict[PointKey, bytes] = field(default_factory=dict)

    def get(self, keys: Sequence[PointKey]) -> list[bytes | None]:
        """See `PointState.get`."""
        return [self.entries.get(key) for key in keys]

    def write(self, changes: Mapping[PointKey, bytes | None]) -> None:
        """See `PointState.write`."""
        for key in changes:
            if key.group not in self.owned:
                raise ValueError(f"key group {key.group} is not one of {self.owned}")
        for key, value in changes.items():
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = value

    def scan(self, first: PointKey, end: PointKey, limit: int) -> list[tuple[PointKey, bytes]]:
        """See `PointState.scan`."""
        return sorted(item for item in self.entries.items() if first <= item[0] < end)[:limit]


class MemoryBackend:
    """A `StateBackend` whose content is lost with the process unless a snapshot was taken."""

    def __init__(self, groups: KeyGroupRange) -> None:
        self._groups = groups
        self._states: dict[str, MemoryBlockState] = {}
        self._points: dict[str, MemoryPointState] = {}

    @classmethod
    def open_restored(cls, directory: Path, groups: KeyGroupRange) -> MemoryBackend:
        """The state of a snapshot taken with the same `groups`."""
        return cls.restore_clipped(groups, [directory])

    @classmethod
    def restore_clipped(cls, groups: KeyGroupRange, parts: Sequence[Path]) -> MemoryBackend:
        """What of `parts` (snapshots of subtasks of another parallelism) touches `groups`."""
        backend = cls(groups)
        for part in parts:
            for name, namespace, block in _read_snapshot(part):
                if block.groups.intersects(groups):
                    kept = block.groups.intersection(groups)
                    clipped = replace(block, groups=kept, clipped=block.clipped or kept != block.groups)
                    backend.blocks(name).by_namespace.setdefault(namespace, []).append(clipped)
            for name, key, value in _read_points(part):
                if key.group in groups:
                    backend.points(name).entries[key] = value
        return backend

    @property
    def groups(self) -> KeyGroupRange:
        """The key groups this subtask owns."""
        return self._groups

    def blocks(self, name: str) -> MemoryBlockState:
        """See `StateBackend.blocks`."""
        return self._states.setdefault(name, MemoryBlockState(self._groups))

    def points(self, name: str) -> MemoryPointState:
        """See `StateBackend.points`."""
        return self._points.setdefault(name, MemoryPointState(self._groups))

    def snapshot(self, directory: Path) -> LocalSnapshot:
        """See `StateBackend.snapshot`."""
        rows = [
            [name, namespace, b.groups.first, b.groups.last, b.clipped, base64.b64encode(b.value).decode()]
            for name, state in sorted(self._states.items())
            for namespace, blocks in sorted(state.by_namespace.items())
            for b in blocks
        ]
        directory.mkdir(parents=True)
        (directory / _FILE).write_text(json.dumps(rows))
        entries = [
            [name, key.namespace, key.group, *(base64.b64encode(part).decode() for part in (key.key, value))]
            for name, state in sorted(self._points.items())
            for key, value in sorted(state.entries.items())
        ]
        (directory / _POINTS_FILE).write_text(json.dumps(entries))
        return LocalSnapshot(directory, (_FILE, _POINTS_FILE))

    def spill_folder(self) -> Path | None:
        """None: everything stays in memory."""
        return None

    def size_bytes(self) -> int:
        """Bytes of the values held."""
        lists = (blocks for state in self._states.values() for blocks in state.by_namespace.values())
        entries = (item for points in self._points.values() for item in points.entries.items())
        return sum(len(b.value) for blocks in lists for b in blocks) + sum(len(k.key) + len(v) for k, v in entries)

    def close(self) -> None:
        """Nothing is held outside of memory."""


def _read_snapshot(directory: Path) -> Iterator[tuple[str, int, Block]]:
    for name, namespace, first, last, clipped, value in _read(directory / _FILE):
        yield name, namespace, Block(KeyGroupRange(first, last), base64.b64decode(value), clipped)


def _read_points(directory: Path) -> Iterator[tuple[str, PointKey, bytes]]:
    for name, namespace, group, key, value in _read(directory / _POINTS_FILE):
        yield name, PointKey(namespace, group, base64.b64decode(key)), base64.b64decode(value)


def _read(file: Path) -> list[list[Any]]:
    try:
        rows: list[list[Any]] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise state_error(f"cannot open restored state in {file.parent}", error) from error
    return rows
