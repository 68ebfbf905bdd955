"""Raw batches become rows; what is bad is named with its offset and kept whole."""

from __future__ import annotations

import polars as pl
import pytest

from operators.connector import ERRORS_SCHEMA
from operators.types import parse_type
from streamproc.connectors.kafka.decoding import OFFSET_MAX, Piece, RowFormat, row_format
from streamproc.connectors.kafka.failure import UnreadableBatch
from streamproc.connectors.kafka.record_batch import split_batches
from streamproc.formats.protocol import FormatError
from streamproc.pipeline.columns import METADATA_TYPES
from streamproc.pipeline.format_spec import CsvFormat, DebeziumJsonFormat, FormatSpec, JsonFormat, ParquetFormat
from streamproc.pipeline.spec import MetadataColumn
from tests.unit.connectors.kafka.test_record_batch import STAMP, Row, build

FIELDS = {"id": parse_type("int64")}
EVERYTHING: dict[str, MetadataColumn] = {
    "k": "key",
    "p": "partition",
    "o": "offset",
    "ts": "timestamp",
    "t": "topic",
    "h": "headers",
}


def form(metadata: dict[str, MetadataColumn] | None = None, format_: FormatSpec | None = None) -> RowFormat:
    return row_format("orders", "orders-topic", format_ or JsonFormat(), FIELDS, metadata or {})


def piece(*batches: bytes, first: int = 0, stop: int = OFFSET_MAX) -> Piece:
    return Piece(2, first, stop, list(split_batches(b"".join(batches))))


def ids(*values: int) -> list[Row]:
    return [(None, b'{"id":%d}' % value, []) for value in values]


def test_batches_are_joined_and_cut_at_both_ends() -> None:
    decoded = piece(build(ids(0, 1, 2)), build(ids(3, 4, 5), base_offset=3), first=1, stop=5).decode(form())
    assert decoded.frame["id"].to_list() == [1, 2, 3, 4]
    assert decoded.errors is None


def test_poison_is_set_aside_with_its_place_key_and_value() -> None:
    rows = ids(0, 1)
    poison: list[bytes | None] = [None, b"", b"{", b"[1]", b'{"id":"x"}', b"\xff\xfe", b'{"id":1}{"id":2}']
    rows += [(b"key", value, []) for value in poison] + ids(9)
    decoded = piece(build(rows, base_offset=100), first=101).decode(form({"o": "offset"}))
    assert decoded.frame.to_dict(as_series=False) == {"id": [1, 9], "o": [101, 109]}
    errors = decoded.errors
    assert errors is not None
    assert dict(errors.schema) == ERRORS_SCHEMA
    assert errors["offset"].to_list() == list(range(102, 109))
    assert errors["value"].to_list() == poison
    assert errors["key"].to_list() == [b"key"] * len(poison)
    assert errors["split"].unique().to_list() == ["orders-topic-2"]
    assert errors["source"].unique().to_list() == ["orders"]
    assert errors["error"].null_count() == 0
    assert errors["time"].null_count() == 0


def test_every_metadata_column_has_its_planned_type() -> None:
    rows: list[Row] = [(b"a", b'{"id":1}', [("trace", b"\x01"), ("none", None)]), (None, b'{"id":2}', [])]
    frame = piece(build(rows, base_offset=7)).decode(form(EVERYTHING)).frame
    assert dict(frame.schema) == {"id": pl.Int64()} | {name: METADATA_TYPES[kind] for name, kind in EVERYTHING.items()}
    assert frame.drop("ts").rows() == [
        (1, b"a", 2, 7, "orders-topic", [{"key": "trace", "value": b"\x01"}, {"key": "none", "value": None}]),
        (2, None, 2, 8, "orders-topic", []),
    ]
    assert frame["ts"].dt.epoch("ms").to_list() == [STAMP, STAMP + 1]


def test_offsets_where_compaction_left_gaps() -> None:
    batch = build(ids(0, 1, 2), base_offset=10, offsets=[0, 4, 9])
    frame = piece(batch, first=11).decode(form({"o": "offset", "p": "partition"})).frame
    assert frame.rows() == [(1, 14, 2), (2, 19, 2)]


def test_pretty_printed_json_is_one_record() -> None:
    rows = [(None, b'{\n  "id": 1\n}', []), *ids(2)]
    assert piece(build(rows)).decode(form()).frame["id"].to_list() == [1, 2]


def test_csv_with_a_line_break_spoils_only_itself() -> None:
    rows: list[Row] = [(None, b"1", []), (None, b"2\n3", []), (None, b"4", [])]
    decoded = piece(build(rows)).decode(form(format_=CsvFormat(type="csv")))
    assert decoded.frame["id"].to_list() == [1, 4]
    assert decoded.errors is not None
    assert decoded.errors["value"].to_list() == [b"2\n3"]


def test_nothing_is_an_empty_frame_with_the_schema() -> None:
    decoded = Piece(0, 0, OFFSET_MAX, []).decode(form(EVERYTHING))
    assert decoded.frame.height == 0
    assert decoded.frame.columns == ["id", *EVERYTHING]


def test_a_torn_batch_names_source_split_and_offset() -> None:
    broken = bytearray(build(ids(1, 2), base_offset=5))
    broken[61:64] = b"\xff\xff\xff"
    with pytest.raises(UnreadableBatch, match=r"source orders: orders-topic-2: record batch at offset 5"):
        piece(bytes(broken)).decode(form())


def test_formats_that_single_records_cannot_have() -> None:
    with pytest.raises(FormatError, match=r"sources\.orders: .* parquet"):
        form(format_=ParquetFormat(type="parquet"))


def test_one_record_that_becomes_two_rows_keeps_its_place() -> None:
    new, old = '{"id":1}', '{"id":0}'
    values: list[bytes | None] = [
        f'{{"op":"c","after":{new}}}'.encode(),
        None,
        b'{"op":"d"}',
        f'{{"op":"u","before":{old},"after":{new}}}'.encode(),
    ]
    rows: list[Row] = [(None, value, []) for value in values]
    decoded = piece(build(rows, base_offset=10)).decode(form({"o": "offset"}, DebeziumJsonFormat(type="debezium-json")))
    assert decoded.frame.to_dict(as_series=False) == {"id": [1, 0, 1], "__kind": [0, 1, 2], "o": [10, 13, 13]}
    assert decoded.errors is not None
    assert decoded.errors["offset"].to_list() == [12]
