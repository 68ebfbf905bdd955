"""Pinned key groups: a change here orphans the keyed state of every checkpoint ever taken."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.hashing import hash_values, key_groups

MOMENT = datetime(2026, 1, 31, 12, 5, 7, 123000, tzinfo=UTC)


def groups(values: list[Any], dtype: pl.DataType, max_parallelism: int = 128) -> list[int]:
    frame = pl.DataFrame({"k": pl.Series(values, dtype=dtype)})
    return key_groups(frame, ["k"], max_parallelism).to_list()


PINNED: list[tuple[list[Any], pl.DataType, list[int]]] = [
    ([0, 1, -1, 2**63 - 1, None], pl.Int64(), [113, 72, 114, 21, 80]),
    ([True, False, None], pl.Boolean(), [72, 113, 80]),
    ([0.0, 1.5, -1.5, float("inf"), float("nan"), None], pl.Float64(), [113, 107, 46, 18, 99, 80]),
    (["", "a", "DE", "long enough to leave the short path", "é", None], pl.String(), [119, 105, 111, 10, 11, 80]),
    ([b"", b"a", b"\xff", None], pl.Binary(), [119, 105, 74, 80]),
    ([date(1970, 1, 1), date(2026, 1, 31), None], pl.Date(), [113, 35, 80]),
    ([MOMENT, None], pl.Datetime("ms", "UTC"), [34, 80]),
    ([Decimal("0.00"), Decimal("1.50"), Decimal("-100.00"), None], pl.Decimal(10, 2), [49, 58, 32, 80]),
    ([[], [1], [1, 2], [None], None], pl.List(pl.Int64()), [17, 118, 120, 115, 80]),
    ([{"u": 1, "w": "x"}, {"u": None, "w": None}, None], pl.Struct({"u": pl.Int64(), "w": pl.String()}), [15, 2, 80]),
]


@pytest.mark.parametrize(("values", "dtype", "expected"), PINNED)
def test_the_groups_of_the_release(values: list[Any], dtype: pl.DataType, expected: list[int]) -> None:
    assert groups(values, dtype) == expected


def test_the_groups_of_several_columns() -> None:
    frame = pl.DataFrame({"a": [1, 2, None], "b": ["x", None, None]})
    assert key_groups(frame, ["a", "b"], 128).to_list() == [50, 28, 118]
    assert key_groups(frame, ["b", "a"], 128).to_list() == [33, 90, 118]
    assert key_groups(frame, ["a"], 32_768).to_list() == [18565, 19372, 20539]


def test_the_hash_of_text_is_xxhash64_with_seed_0() -> None:
    assert hash_values(pl.Series(["", "a"])).tolist() == [0xEF46DB3751D8E999, 0xD24EC4F1A98C6E5B]


def test_no_key_is_group_0() -> None:
    result = key_groups(pl.DataFrame({"a": [1, 2, 3]}), [], 128)
    assert result.to_list() == [0, 0, 0]
    assert result.dtype == pl.Int32


def test_no_rows_have_no_groups() -> None:
    frame = pl.DataFrame(schema={"a": pl.Int64, "s": pl.String, "l": pl.List(pl.Int8), "st": pl.Struct({"u": pl.Int8})})
    assert key_groups(frame, ["a", "s", "l", "st"], 128).to_list() == []


@given(st.lists(st.none() | st.integers(-128, 127), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_the_width_of_an_integer_does_not_matter(values: list[int | None]) -> None:
    narrow = groups(values, pl.Int8())
    for wider in (pl.Int16(), pl.Int32(), pl.Int64()):
        assert groups(values, wider) == narrow


def test_the_unit_of_a_timestamp_does_not_matter() -> None:
    assert groups([MOMENT, None], pl.Datetime("ms", "UTC")) == groups([MOMENT, None], pl.Datetime("us", "UTC"))


def test_equal_floats_hash_alike() -> None:
    zero, minus, nan, other = groups([0.0, -0.0, float("nan"), -float("nan")], pl.Float64(), 32_768)
    assert zero == minus
    assert nan == other
    assert groups([0.5, None], pl.Float32()) == groups([0.5, None], pl.Float64())


def test_the_scale_of_a_decimal_does_not_matter() -> None:
    values = [Decimal("1.5"), Decimal("-100"), Decimal(0), None]
    assert groups(values, pl.Decimal(10, 2), 32_768) == groups(values, pl.Decimal(20, 5), 32_768)


NESTED = st.lists(st.none() | st.lists(st.none() | st.integers(0, 3), max_size=3), min_size=1, max_size=12)


@given(NESTED)
@settings(max_examples=60, deadline=None)
def test_lists_hash_by_their_elements_in_order(values: list[list[int | None] | None]) -> None:
    hashes = hash_values(pl.Series(values, dtype=pl.List(pl.Int64))).tolist()
    for left, left_hash in zip(values, hashes, strict=True):
        for right, right_hash in zip(values, hashes, strict=True):
            assert (left == right) == (left_hash == right_hash)


def test_a_slice_of_a_frame_hashes_like_the_frame() -> None:
    frame = pl.DataFrame({"a": [1, None, 3, 4], "l": [[1], [], None, [2, 3]], "s": ["a", "b", None, "d"]})
    whole = key_groups(frame, ["a", "l", "s"], 32_768).to_list()
    assert key_groups(frame.slice(1, 3), ["a", "l", "s"], 32_768).to_list() == whole[1:]


@pytest.mark.parametrize("kind", ["integers", "strided", "texts", "pairs"])
def test_keys_spread_evenly(kind: str) -> None:
    numbers = pl.Series("k", np.arange(64_000))
    columns = {
        "integers": [numbers],
        "strided": [(numbers * 4096).alias("k")],
        "texts": [("user-" + numbers.cast(pl.String)).alias("k")],
        "pairs": [(numbers // 250).alias("k"), (numbers % 250).alias("l")],
    }[kind]
    frame = pl.DataFrame(columns)
    counts = np.bincount(key_groups(frame, frame.columns, 128).to_numpy(), minlength=128)
    assert len(counts) == 128
    # 500 a group expected; a fair hash is within 5 standard deviations (22 each)
    assert counts.min() > 390
    assert counts.max() < 610


def test_a_type_without_a_hash_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot be hashed"):
        hash_values(pl.Series([None], dtype=pl.Duration("us")))
