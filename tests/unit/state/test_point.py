"""Byte order of entries' keys is (name, namespace, group, key), and they decode to what was encoded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.block_key import INDEX, NAMESPACE_MAX, NAMESPACE_MIN, VALUE
from state.point import POINT, PointKey, decode_point, encode_point

names = st.text("a_z", min_size=1, max_size=3)
keys = st.builds(PointKey, st.integers(NAMESPACE_MIN, NAMESPACE_MAX), st.integers(0, 65535), st.binary(max_size=4))


@given(names, keys)
def test_a_key_decodes_to_its_place(name: str, key: PointKey) -> None:
    assert decode_point(encode_point(name, key)) == (name, key)


@given(names, keys, keys)
def test_keys_are_ordered_as_their_places(name: str, a: PointKey, b: PointKey) -> None:
    assert (encode_point(name, a) < encode_point(name, b)) == (a < b)


@given(names, names, keys, keys)
def test_entries_of_one_name_stand_together(first: str, second: str, a: PointKey, b: PointKey) -> None:
    assert first == second or (encode_point(first, a) < encode_point(second, b)) == (first < second)


def test_entries_stand_apart_from_blocks() -> None:
    assert POINT not in (INDEX, VALUE)
    assert POINT > VALUE  # a scan of the index ends where values begin


@pytest.mark.parametrize("stored", [b"", b"x", b"xname", b"xname\0short", b"vname\0" + bytes(10)])
def test_what_is_no_key_of_an_entry_is_refused(stored: bytes) -> None:
    with pytest.raises(ValueError, match="not the key of an entry"):
        decode_point(stored)
