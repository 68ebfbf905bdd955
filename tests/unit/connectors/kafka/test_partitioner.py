"""Keys go where every other Kafka client sends them."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest
from aiokafka.partitioner import murmur2 as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.connectors.kafka.partitioner import murmur2, partitions_of

murmur2_of_one: Callable[[bytes], int] = reference


@settings(deadline=None, max_examples=80)
@given(keys=st.lists(st.binary(max_size=40), max_size=60))
def test_equals_the_reference_for_any_bytes(keys: list[bytes]) -> None:
    hashed = murmur2(pl.Series(keys, dtype=pl.Binary))
    assert hashed.tolist() == [murmur2_of_one(key) & 0xFFFFFFFF for key in keys]


@pytest.mark.parametrize(
    ("key", "expected"),
    # Kafka's own test of its default partitioner (org.apache.kafka.common.utils.UtilsTest.testMurmur2).
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_known_hashes(key: bytes, expected: int) -> None:
    assert murmur2(pl.Series([key])).tolist() == [expected & 0xFFFFFFFF]


def test_text_and_slices() -> None:
    keys = pl.Series([f"user-{i}" for i in range(100)])
    expected = [(murmur2_of_one(key.encode()) & 0x7FFFFFFF) % 7 for key in keys]
    assert partitions_of(keys, 7).tolist() == expected
    assert partitions_of(keys.slice(40, 20), 7).tolist() == expected[40:60]
