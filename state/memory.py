"""The model of keyed state: plain dictionaries, so plain that reading it is checking it.

The contract suite holds `state.rocksdb` equal to this. Snapshots are one JSON file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from state.backend import Block, LocalSnapshot
from state.failure import StateError
from state.key_group import KeyGroupRange

_FILE = "blocks.json"


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


class MemoryBackend:
    """A `StateBackend` whose content is lost with the process unless a snapshot was taken."""

    def __init__(self, groups: KeyGroupRange) -> None:
        self._groups = groups
        self._states: dict[str, MemoryBlockState] = {}

    @classmethod
    def open_restored(cls, directory: Path, groups: KeyGroupRange) -> MemoryBackend:
        """The state of a snapshot taken with the same `groups`."""
        return cls.restore_clipped(groups, [directory])

    @classmethod
    def restore_clipped(cls, groups: KeyGroupRange, parts: Sequence[Path]) -> MemoryBackend:
        """The blocks of `parts` (snapshots of subtasks of another parallelism) that touch `groups`."""
        backend = cls(groups)
        for part in parts:
            for name, namespace, block in _read_snapshot(part):
                if block.groups.intersects(groups):
                    kept = block.groups.intersection(groups)
                    clipped = replace(block, groups=kept, clipped=block.clipped or kept != block.groups)
                    backend.blocks(name).by_namespace.setdefault(namespace, []).append(clipped)
        return backend

    @property
    def groups(self) -> KeyGroupRange:
        """The key groups this subtask owns."""
        return self._groups

    def blocks(self, name: str) -> MemoryBlockState:
        """See `StateBackend.blocks`."""
        return self._states.setdefault(name, MemoryBlockState(self._groups))

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
        return LocalSnapshot(directory, (_FILE,))

    def size_bytes(self) -> int:
        """Bytes of the values held."""
        lists = (blocks for state in self._states.values() for blocks in state.by_namespace.values())
        return sum(len(block.value) for blocks in lists for block in blocks)

    def close(self) -> None:
        """Nothing is held outside of memory."""


def _read_snapshot(directory: Path) -> Iterator[tuple[str, int, Block]]:
    try:
        rows = json.loads((directory / _FILE).read_text())
    except (OSError, ValueError) as error:
        raise StateError(f"cannot open restored state in {directory}: {error}") from error
    for name, namespace, first, last, clipped, value in rows:
        yield name, namespace, Block(KeyGroupRange(first, last), base64.b64decode(value), clipped)
