"""Byte order of block keys is (kind, name, namespace, sequence), and they decode to what was encoded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state import block_key
from state.block_key import IndexEntry
from state.key_group import KeyGroupRange

entries = st.builds(
    IndexEntry,
    name=st.text("a_z", min_size=1, max_size=3),
    namespace=st.integers(block_key.NAMESPACE_MIN, block_key.NAMESPACE_MAX),
    sequence=st.integers(0, 2**64 - 1),
    groups=st.builds(KeyGroupRange, st.integers(0, 65535), st.integers(0, 65535)),
    clipped=st.booleans(),
)


@given(entries)
def test_an_index_key_decodes_to_its_entry(entry: IndexEntry) -> None:
    assert block_key.decode_index(block_key.encode_index(entry)) == entry


@given(entries, entries)
def test_keys_are_ordered_as_their_blocks(a: IndexEntry, b: IndexEntry) -> None:
    assert (block_key.encode_index(a) < block_key.encode_index(b)) == (_order(a) < _order(b)) or a[:3] == b[:3]


@given(entries, entries)
def test_the_range_of_a_namespace_holds_its_blocks_and_no_others(a: IndexEntry, b: IndexEntry) -> None:
    start = block_key.start_of(block_key.INDEX, a.name, a.namespace)
    end = block_key.end_of(block_key.INDEX, a.name, a.namespace)
    for entry in (a, b, a._replace(sequence=b.sequence), b._replace(name=a.name), a._replace(name=b.name)):
        inside = (entry.name, entry.namespace) == (a.name, a.namespace)
        assert (start <= block_key.encode_index(entry) < end) == inside
        assert not start <= block_key.encode_value(entry.name, entry.namespace, entry.sequence) < end


@pytest.mark.parametrize("key", [b"", b"i", b"iname", b"iname\0short", b"vname\0" + bytes(21)])
def test_what_is_no_index_key_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="not an index key"):
        block_key.decode_index(key)


@pytest.mark.parametrize("name", ["", "A", "a\0", "a1", "a\n"])
def test_names_that_would_break_the_order_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="made of a-z and _"):
        block_key.check_name(name)


def _order(entry: IndexEntry) -> tuple[bytes, int, int]:
    return entry.name.encode() + b"\0", entry.namespace, entry.sequence
