"""Blocks keep every type of the contract, and refuse bytes that are not theirs."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from operators import block_codec
from operators.block_codec import UnreadableBlock


def every_type(rows: int) -> pl.DataFrame:
    row = {
        "int8": 1,
        "int64": -(2**63),
        "float32": 0.5,
        "string": "grüße",
        "bytes": b"\x00\xff",
        "boolean": True,
        "date": date(2026, 1, 2),
        "timestamp": datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC),
        "decimal": Decimal("-1.50"),
        "list": [1, None, 3],
        "struct": {"a": "x", "b": [1.5]},
    }
    schema = {
        "int8": pl.Int8(),
        "int64": pl.Int64(),
        "float32": pl.Float32(),
        "string": pl.String(),
        "bytes": pl.Binary(),
        "boolean": pl.Boolean(),
        "date": pl.Date(),
        "timestamp": pl.Datetime("us", "UTC"),
        "decimal": pl.Decimal(10, 2),
        "list": pl.List(pl.Int64()),
        "struct": pl.Struct({"a": pl.String(), "b": pl.List(pl.Float64())}),
    }
    return pl.DataFrame([row, dict.fromkeys(row)], schema=schema).sample(rows, with_replacement=True, seed=1)


@pytest.mark.parametrize("rows", [1, 100, 5_000], ids=["one", "plain", "compressed"])
def test_a_frame_comes_back_as_it_was(rows: int) -> None:
    frame = every_type(rows)
    block = block_codec.encode(frame)
    assert block_codec.rows_of(block) == rows
    assert_frame_equal(block_codec.decode(block), frame)


def test_a_view_writes_only_its_own_rows() -> None:
    frame = pl.DataFrame({"text": ["a long text that is not inlined in its view"] * 100_000})
    assert len(block_codec.encode(frame.slice(7, 3))) < 2_000


def test_a_later_version_is_refused_by_name() -> None:
    block = bytearray(block_codec.encode(pl.DataFrame({"a": [1]})))
    block[0] = 9
    with pytest.raises(UnreadableBlock, match="version 9: this release reads version 1"):
        block_codec.decode(bytes(block))


@pytest.mark.parametrize("keep", [0, 3, 5, 40, -400])
def test_a_torn_block_is_refused(keep: int) -> None:
    block = block_codec.encode(pl.DataFrame({"a": list(range(1000))}))
    with pytest.raises(UnreadableBlock):
        block_codec.decode(block[:keep])
