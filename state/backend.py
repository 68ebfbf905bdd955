"""What keyed state looks like to an operator, whatever keeps it.

Window state is kept as *blocks*: opaque byte strings appended under (slice start, key-group range)
and read back whole. No read-modify-write: a block is written once, scanned when its window closes,
and deleted with its slice, or before when fewer blocks can say the same. What is read and changed key by
key is kept as single entries instead (`state.point`). `state.memory` is the model,
`state.rocksdb` the real thing; one contract suite holds them equal. All methods are synchronous and
may do I/O: call them off the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from state.key_group import KeyGroupRange
from state.point import PointState


@dataclass(frozen=True, slots=True)
class Block:
    """One appended value: the groups whose rows count, and the bytes.

    A restore at another parallelism clips `groups` to the restoring subtask's range but cannot cut the
    opaque bytes: a `clipped` block also holds rows of groups that now belong to others. Without the clip
    the next rescale would count such rows once per subtask that kept them.
    """

    groups: KeyGroupRange
    value: bytes
    clipped: bool = False

    def filter_for(self, wanted: KeyGroupRange) -> KeyGroupRange | None:
        """The groups to keep rows of when only `wanted` is being read; None: every row counts."""
        if not self.clipped and wanted.contains_range(self.groups):
            return None
        return self.groups.intersection(wanted)


class BlockState(Protocol):
    """Appended blocks of one operator subtask, ordered by (namespace, sequence of appending)."""

    def append(self, namespace: int, groups: KeyGroupRange, value: bytes) -> None:
        """Keep `value` under `namespace` (a signed 64-bit number: a slice's start, ms).

        Raises ValueError unless `groups` is a non-empty part of the backend's range.
        """

    def scan(self, namespace: int, groups: KeyGroupRange) -> Iterator[Block]:
        """Blocks of `namespace` whose range intersects `groups`, in order of appending.

        The blocks there at the call, read one by one as the iterator advances: do not delete the
        namespace meanwhile. Of each block only the rows in `block.filter_for(groups)` may be used.
        """

    def replace(self, namespace: int, blocks: Iterable[tuple[KeyGroupRange, bytes]]) -> None:
        """Put `blocks` in place of all that `namespace` holds at the call.

        The old ones can be scanned while `blocks` is iterated, for groups that no new block has covered yet:
        it need not be held in memory at once. After an error the namespace may hold old and new.
        """

    def delete(self, namespace: int) -> None:
        """Drop every block of `namespace`; unknown ones are ignored."""

    def namespaces(self) -> list[int]:
        """Every namespace that holds a block, ascending."""


@dataclass(frozen=True, slots=True)
class LocalSnapshot:
    """Files of one consistent cut of a backend: immutable until `directory` is removed."""

    directory: Path
    files: tuple[str, ...]


class StateBackend(Protocol):
    """Keyed state of one operator subtask on local disk (or in memory, for the model)."""

    @property
    def groups(self) -> KeyGroupRange:
        """The key groups this subtask owns."""

    def blocks(self, name: str) -> BlockState:
        """The block state called `name` (`[a-z_]+`), created when first asked for."""

    def points(self, name: str) -> PointState:
        """The entries called `name` (`[a-z_]+`), created when first asked for; apart from blocks of that name."""

    def snapshot(self, directory: Path) -> LocalSnapshot:
        """Write one consistent cut of everything appended so far into `directory` (must not exist)."""

    def spill_folder(self) -> Path | None:
        """Where rows may go that memory has no room for (`state.spill`), no part of snapshots: empty when the backend
        is opened, removed when it is closed, made by the first who writes. None: there is no disk to use."""

    def size_bytes(self) -> int:
        """Approximate bytes on disk and in memtables, without what is spilled."""

    def close(self) -> None:
        """Release files and locks; idempotent."""
