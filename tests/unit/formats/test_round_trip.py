"""What a format writes it reads again: every type, nulls at every level, in every format that can carry it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_series_equal

from operators.types import FieldType
from streamproc.formats.avro import AvroEncoder, avro_reader
from streamproc.formats.csv import CsvDecoder, CsvEncoder
from streamproc.formats.json import JsonDecoder
from streamproc.formats.json_encoder import JsonEncoder
from streamproc.formats.parquet import ParquetDecoder, ParquetEncoder
from streamproc.formats.protobuf import ProtobufEncoder, ProtobufReader
from streamproc.formats.registry import RegisteredSchema
from tests.unit.formats.typed_values import column, field_types, values


def json(frame: pl.DataFrame, field: FieldType) -> pl.DataFrame:
    """As JSON lines. The texts of `timestamp` have milliseconds; other timestamps are numbers on the wire."""
    encoded = JsonEncoder(dict(frame.schema)).encode_lines(frame)
    return JsonDecoder({"x": _with_iso_times(field)}).decode_lines(encoded, frame.height)


def csv(frame: pl.DataFrame, field: FieldType) -> pl.DataFrame:
    """As CSV lines."""
    two = frame.with_columns(more=1)  # a line of one null alone would be an empty line, which is no record
    encoded = CsvEncoder(dict(two.schema), header=False).encode_lines(two)
    fields = {"x": _with_iso_times(field), "more": FieldType("int64")}
    return CsvDecoder(fields).decode_lines(encoded, two.height).select("x")


def parquet(frame: pl.DataFrame, field: FieldType) -> pl.DataFrame:
    """As an Arrow table."""
    decoded, bad = ParquetDecoder({"x": field}).decode(ParquetEncoder(dict(frame.schema)).encode(frame))
    assert bad == []
    return decoded


def avro(frame: pl.DataFrame, field: FieldType) -> pl.DataFrame:
    """In the Confluent wire format."""
    encoder = AvroEncoder(dict(frame.schema))
    encoded = encoder.encode_column(frame, 7).to_list()
    return avro_reader(RegisteredSchema("AVRO", encoder.schema), {"x": field}, ()).decode(encoded)


def _with_iso_times(field: FieldType) -> FieldType:
    if field.name.startswith("timestamp"):
        return FieldType("timestamp")
    fields = tuple((name, _with_iso_times(inner)) for name, inner in field.fields)
    item = None if field.item is None else _with_iso_times(field.item)
    return FieldType(field.name, field.precision, field.scale, item, fields)


def _in_ms(series: pl.Series) -> pl.Series:
    """Cut to what ISO-8601 texts with milliseconds keep, whatever the unit of the column."""
    return series.cast(_ms(series.dtype)).cast(_us(series.dtype))


def _ms(dtype: pl.DataType) -> pl.DataType:
    return _with_unit(dtype, pl.Datetime("ms", "UTC"))


def _us(dtype: pl.DataType) -> pl.DataType:
    return _with_unit(dtype, pl.Datetime("us", "UTC"))


def _with_unit(dtype: pl.DataType, time: pl.DataType) -> pl.DataType:
    if isinstance(dtype, pl.List):
        return pl.List(_with_unit(dtype.inner, time))  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return pl.Struct([pl.Field(f.name, _with_unit(f.dtype, time)) for f in dtype.fields])  # type: ignore[arg-type]
    return time if isinstance(dtype, pl.Datetime) else dtype


Trip = Callable[[pl.DataFrame, FieldType], pl.DataFrame]


@pytest.mark.parametrize("trip", [json, parquet, avro])
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_every_type_comes_back(trip: Trip, drawn: st.DataObject) -> None:
    field = drawn.draw(field_types())
    rows = drawn.draw(st.lists(values(field), min_size=1, max_size=6))
    _check(trip, field, rows)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_every_plain_type_comes_back_from_csv(drawn: st.DataObject) -> None:
    """An empty text is null, and no value may hold a line break."""
    field = drawn.draw(field_types(nested=False))
    rows = drawn.draw(st.lists(values(field), min_size=1, max_size=6))
    if field.name == "string":
        rows = [row and row.replace("\n", "").replace("\r", "").replace("\0", "") for row in rows]
    _check(csv, field, [None if row in ("", b"") else row for row in rows])


_PROTOBUF_TYPES = [
    *(FieldType(name) for name in ("boolean", "int8", "int16", "int32", "int64", "float32", "float64", "string")),
    *(FieldType(name) for name in ("bytes", "date", "timestamp_s", "timestamp_ms", "timestamp_us", "timestamp")),
    FieldType("decimal", 38, 10),
    FieldType("list", item=FieldType("decimal", 9, 2)),
    FieldType("struct", fields=(("a", FieldType("list", item=FieldType("timestamp_ms"))), ("b", FieldType("date")))),
    FieldType("list", item=FieldType("struct", fields=(("a", FieldType("list", item=FieldType("bytes"))),))),
]


@given(st.data())
@settings(max_examples=12, deadline=None)
def test_every_type_comes_back_from_protobuf(drawn: st.DataObject) -> None:
    """Which has no nulls inside lists, and no null lists."""
    fields = {f"c{at}": field for at, field in enumerate(_PROTOBUF_TYPES)}
    encoder, reader = _protobuf_of_all()
    height = drawn.draw(st.integers(1, 4))
    frame = pl.DataFrame(
        {
            name: column(
                field,
                drawn.draw(st.lists(values(field, in_lists=False), min_size=height, max_size=height)),
            )
            for name, field in fields.items()
        }
    )
    back = reader.decode(encoder.encode_column(frame, 7).to_list())
    for name in fields:
        assert_series_equal(back[name], frame[name])


@cache  # protoc takes a fifth of a second
def _protobuf_of_all() -> tuple[ProtobufEncoder, ProtobufReader]:
    fields = {f"c{at}": field for at, field in enumerate(_PROTOBUF_TYPES)}
    encoder = ProtobufEncoder({name: field.dtype for name, field in fields.items()})
    return encoder, ProtobufReader(RegisteredSchema("PROTOBUF", encoder.schema), fields, ())


def _check(trip: Trip, field: FieldType, rows: list[object]) -> None:
    before = column(field, rows)
    after = trip(pl.DataFrame([before]), field)["x"]
    if trip in (json, csv):
        before, after = _in_ms(before), _in_ms(after)
    assert_series_equal(after, before)
