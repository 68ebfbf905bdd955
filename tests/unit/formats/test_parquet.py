from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pytest

from operators.types import parse_type
from streamproc.formats.parquet import ParquetDecoder, ParquetEncoder
from streamproc.formats.protocol import FormatError

NOON = datetime(2026, 1, 1, 12)


def table(**columns: pl.Series) -> pa.Table:
    return pl.DataFrame(columns).to_arrow(compat_level=pl.CompatLevel.oldest())


def test_columns_are_found_by_name_and_widened_to_the_declared_type() -> None:
    stored = table(
        other=pl.Series([0]),
        t=pl.Series([NOON], dtype=pl.Datetime("ns")),
        ms=pl.Series([1767268800000]),
        small=pl.Series([7], dtype=pl.Int64),
        amount=pl.Series([3], dtype=pl.Int32),
        dec=pl.Series([Decimal("1.5")], dtype=pl.Decimal(5, 1)),
        price=pl.Series([12], dtype=pl.Int64),
        tag=pl.Series(["x"], dtype=pl.Categorical),
        tags=pl.Series([["a"]]),
    )
    declared = {
        "small": "int8",
        "amount": "float64",
        "t": "timestamp",
        "ms": "timestamp_ms",
        "dec": "decimal(10,2)",
        "price": "decimal(10,2)",
        "tag": "string",
        "tags": "list[string]",
    }
    decoder = ParquetDecoder({name: parse_type(text) for name, text in declared.items()})
    decoder.check(stored.schema)
    frame, bad = decoder.decode(stored)
    noon = NOON.replace(tzinfo=UTC)
    assert frame.rows() == [(7, 3.0, noon, noon, Decimal("1.50"), Decimal("12.00"), "x", ["a"])]
    assert dict(frame.schema) == decoder.schema
    assert not bad


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.Series("b", [1]), "column a is missing; the file has b"),
        (pl.Series("a", ["1"]), "column a is string, declared int64"),
        (pl.Series("a", [1.5]), "column a is float64, declared int64"),
    ],
)
def test_a_column_that_does_not_fit_is_named(column: pl.Series, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        ParquetDecoder({"a": parse_type("int64")}).check(table(**{column.name: column}).schema)


def test_a_row_out_of_range_or_without_its_event_time_is_refused_alone() -> None:
    fields = {"a": parse_type("int8"), "t": parse_type("timestamp_ms")}
    frame, bad = ParquetDecoder(fields, required=["t"]).decode(
        table(a=pl.Series([1, 300, 2, 3]), t=pl.Series([1, 2, None, 4]))
    )
    assert frame["a"].to_list() == [1, 3]
    assert [(row.at, row.message) for row in bad] == [
        (1, "a: 300 does not fit int8"),
        (2, "t is missing: the event time is read from it"),
    ]


def test_rows_are_written_in_schema_order_without_hidden_columns() -> None:
    frame = pl.DataFrame({"__time": [1], "s": ["x"], "t": pl.Series([NOON], dtype=pl.Datetime("ms", "UTC"))})
    encoder = ParquetEncoder({"t": pl.Datetime("ms", "UTC"), "s": pl.String()})
    written = encoder.encode(frame)
    assert written.schema == encoder.schema
    assert pl.DataFrame(written).equals(frame.select("t", "s"))
