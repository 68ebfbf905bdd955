"""Protobuf in the Confluent wire format: the registry's own texts, messages by index, what is and is not null."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from typing import Any

import polars as pl
import pytest

from operators.types import parse_type
from streamproc.formats.confluent import ConfluentDecoder, prefix
from streamproc.formats.proto_schema import schema_text
from streamproc.formats.protobuf import ProtobufEncoder, ProtobufReader
from streamproc.formats.protocol import EncodeError, FormatError
from streamproc.formats.registry import SchemaRegistry
from streamproc.pipeline.format_spec import RegistrySpec
from tests.registry import Registry, serve_registry

MONEY = 'syntax = "proto3"; package money; message Amount { string text = 1; }'
ORDERS = """
syntax = "proto3";
package shop;
import "money.proto";
import "google/protobuf/timestamp.proto";
message Other { int32 n = 1; }
message Outer {
  enum State { NEW = 0; PAID = 1; }
  message Order {
    sint64 id = 1;
    optional string name = 2;
    State state = 3;
    google.protobuf.Timestamp at = 4;
    money.Amount price = 5;
    repeated int32 counts = 6;
    map<string, string> labels = 7;
  }
}
"""
# id 1 (zigzag 2), state PAID, at 1 s, price {text: "1.25"}, counts [1, 2]
ORDER = bytes([0x08, 2, 0x18, 1, 0x22, 2, 0x08, 1, 0x2A, 6, 0x0A, 4]) + b"1.25" + bytes([0x32, 2, 1, 2])
NESTED = b"\x04\x02\x00"  # two indexes, zigzag: message 1, and in it message 0
DECLARED = {
    "id": "int64", "name": "string", "state": "string", "at": "timestamp_ms",
    "price": {"text": "decimal(5,2)", "more": "int8"}, "counts": "list[int8]", "lacking": "bytes",
}  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Iterator[Registry]:
    with serve_registry() as registry:
        registry.register("money", MONEY, "PROTOBUF")
        references = [{"name": "money.proto", "subject": "money", "version": 1}]
        registry.register("orders-value", ORDERS, "PROTOBUF", references)
        yield registry


def decoder(registry: Registry, declared: dict[str, Any], message: str | None = None) -> ConfluentDecoder:
    client = SchemaRegistry(RegistrySpec(url=registry.url), "source orders")
    fields = {name: parse_type(kind) for name, kind in declared.items()}
    return ConfluentDecoder(client, "PROTOBUF", fields, (), partial(ProtobufReader, message=message))


def test_a_nested_message_of_a_schema_with_references(served: Registry) -> None:
    order = prefix(2) + NESTED + ORDER
    rows = decoder(served, DECLARED).decode_values([order, prefix(2) + NESTED])
    assert rows.bad == []
    assert rows.frame.with_columns(
        pl.col("at").dt.epoch("ms"), pl.col("price").struct.field("text").alias("price")
    ).rows() == [
        (1, None, "PAID", 1000, Decimal("1.25"), [1, 2], None),
        (0, None, "NEW", None, None, [], None),
    ]


def test_bad_records_are_found(served: Registry) -> None:
    order = prefix(2) + NESTED + ORDER
    other = prefix(2) + b"\0" + bytes([0x08, 5])
    beyond = prefix(2) + b"\x02\x12" + ORDER
    reader = decoder(served, DECLARED, "Order")
    rows = reader.decode_values([order, order[:-1], other, beyond, prefix(2), order])
    assert rows.frame["id"].to_list() == [1, 1]
    assert [bad.at for bad in rows.bad] == [1, 2, 3, 4]
    assert rows.bad[1].message == "is a message shop.Other, not Order"
    wrong = decoder(served, {"id": "string", "labels": "string"}).decode_values([order])
    assert "field id is" in wrong.bad[0].message
    assert "is a map" in decoder(served, {"labels": "string"}).decode_values([order]).bad[0].message


def test_a_text_that_protoc_refuses(served: Registry) -> None:
    schema_id = served.register("broken", "message {", "PROTOBUF")
    rows = decoder(served, {"id": "int64"}).decode_values([prefix(schema_id) + b"\0"])
    assert "not a Protobuf schema: schema.proto:1:" in rows.bad[0].message


def test_the_schema_a_sink_writes() -> None:
    columns = {"id": pl.Int64(), "at": pl.Datetime("ms", "UTC"), "tags": pl.List(pl.Struct({"k": pl.Decimal(5, 2)}))}
    assert schema_text(columns, "shop.Order").splitlines() == [
        'syntax = "proto3";',
        "",
        "package shop;",
        "",
        'import "google/protobuf/timestamp.proto";',
        "",
        "message Order {",
        "  optional int64 id = 1;",
        "  optional google.protobuf.Timestamp at = 2;",
        "  message tags_row {",
        "    optional string k = 1;",
        "  }",
        "  repeated tags_row tags = 3;",
        "}",
    ]
    with pytest.raises(FormatError, match="x: Protobuf has no lists of lists"):
        schema_text({"x": pl.List(pl.List(pl.Int8()))}, "Row")


def test_a_null_inside_a_list_cannot_be_written() -> None:
    encoder = ProtobufEncoder({"x": pl.List(pl.Int64())})
    with pytest.raises(EncodeError, match="x: Protobuf has no null inside a list"):
        encoder.encode_column(pl.DataFrame({"x": [[1, None]]}), 1)
