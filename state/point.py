"""Single entries by key: what keyed process functions read, change and scan.

An entry's place is (namespace, key group, key), and entries are ordered so. The namespace is a number to
scan by: the time of a timer, 0 where there is no order but the key's. The key group lets a restore at
another parallelism take exactly the entries that are its own: unlike blocks, entries are never clipped.

    x <name> 00 <namespace 8> <group 2> <key>

Numbers are big-endian, the namespace with its sign bit flipped, so negative ones come first.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from state.block_key import NAMESPACE_MIN

POINT: Final = b"x"  # behind the kinds of blocks
_PLACE = struct.Struct(">QH")


class PointKey(NamedTuple):
    """Where one entry is. Compares as the store orders."""

    namespace: int  # a signed 64-bit number
    group: int
    key: bytes


class PointState(Protocol):
    """Entries of one name in one operator subtask."""

    def get(self, keys: Sequence[PointKey]) -> list[bytes | None]:
        """The values at `keys`, None where there is none. Many at once cost little more than half each."""

    def write(self, changes: Mapping[PointKey, bytes | None]) -> None:
        """Put values in place, or delete what has None (nothing being there is fine).

        Raises ValueError unless every group is one of the backend's.
        """

    def scan(self, first: PointKey, end: PointKey, limit: int) -> list[tuple[PointKey, bytes]]:
        """At most `limit` entries with `first` ≤ key < `end`, in order."""


def encode_point(name: str, key: PointKey) -> bytes:
    """The key of an entry in an ordered store."""
    return start_of_points(name) + _PLACE.pack(key.namespace - NAMESPACE_MIN, key.group) + key.key


def decode_point(stored: bytes) -> tuple[str, PointKey]:
    """Inverse of `encode_point`; ValueError when `stored` is not one."""
    name, separator, rest = stored.partition(b"\0")
    if not (name.startswith(POINT) and separator and len(rest) >= _PLACE.size):
        raise ValueError(f"not the key of an entry: {stored!r}")
    namespace, group = _PLACE.unpack_from(rest)
    return name[1:].decode(), PointKey(namespace + NAMESPACE_MIN, group, rest[_PLACE.size :])


def start_of_points(name: str) -> bytes:
    """What the keys of all entries of a name begin with."""
    return POINT + name.encode() + b"\0"
