"""The keys of blocks in an ordered store: byte order is (kind, state name, namespace, sequence).

Every block has two entries under the same ordering: a small *index* entry that says which key groups it
covers, and its *value*. A scan for some groups reads the index of a namespace, one contiguous range, and
then only the values it wants: closing a large window bucket by bucket reads each block once.

    index  i <name> 00 <namespace 8> <sequence 8> <first 2> <last 2> <clipped 1>
    value  v <name> 00 <namespace 8> <sequence 8>

Numbers are big-endian, the namespace with its sign bit flipped, so negative ones come first.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from state.key_group import KeyGroupRange

INDEX = b"i"
VALUE = b"v"

NAMESPACE_MIN = -(2**63)
NAMESPACE_MAX = 2**63 - 1
GROUP_MAX = 2**16 - 1

_NAME = re.compile(r"[a-z_]+")
_PLACE = struct.Struct(">QQ")
_COVER = struct.Struct(">HH?")


class IndexEntry(NamedTuple):
    """A decoded index key."""

    name: str
    namespace: int
    sequence: int
    groups: KeyGroupRange
    clipped: bool


def check_name(name: str) -> None:
    """Raise ValueError unless `name` may name a state."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"a state's name is made of a-z and _, not {name!r}")


def encode_index(entry: IndexEntry) -> bytes:
    """The index key of a block."""
    place = _PLACE.pack(entry.namespace - NAMESPACE_MIN, entry.sequence)
    cover = _COVER.pack(entry.groups.first, entry.groups.last, entry.clipped)
    return INDEX + entry.name.encode() + b"\0" + place + cover


def decode_index(key: bytes) -> IndexEntry:
    """Inverse of `encode_index`; ValueError when `key` is not one."""
    name, separator, rest = key.partition(b"\0")
    if not (name.startswith(INDEX) and separator and len(rest) == _PLACE.size + _COVER.size):
        raise ValueError(f"not an index key: {key!r}")
    namespace, sequence = _PLACE.unpack_from(rest)
    first, last, clipped = _COVER.unpack_from(rest, _PLACE.size)
    groups = KeyGroupRange(first, last)
    return IndexEntry(name[1:].decode(), namespace + NAMESPACE_MIN, sequence, groups, clipped)


def encode_value(name: str, namespace: int, sequence: int) -> bytes:
    """The key a block's bytes are kept under."""
    return VALUE + name.encode() + b"\0" + _PLACE.pack(namespace - NAMESPACE_MIN, sequence)


def start_of(kind: bytes, name: str, namespace: int, sequence: int = 0) -> bytes:
    """The smallest key of `kind` in `namespace` from `sequence` on."""
    return kind + name.encode() + b"\0" + _PLACE.pack(namespace - NAMESPACE_MIN, sequence)


def end_of(kind: bytes, name: str, namespace: int) -> bytes:
    """The key just behind all of `kind` in `namespace`."""
    if namespace == NAMESPACE_MAX:
        return end_of_name(kind, name)
    return start_of(kind, name, namespace + 1)


def end_of_name(kind: bytes, name: str) -> bytes:
    """The key just behind all of `kind` of the state called `name`."""
    return kind + name.encode() + b"\1"
