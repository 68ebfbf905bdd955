"""Avro in the Confluent wire format: whole batches through polars, bad records found, writers' schemas that differ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO
from typing import Any

import fastavro
import polars as pl
import pytest

from operators.types import parse_type
from streamproc.formats.avro import AvroEncoder, avro_reader
from streamproc.formats.confluent import ConfluentDecoder, prefix
from streamproc.formats.protocol import FormatError
from streamproc.formats.registry import RegistryUnavailable, SchemaRegistry
from streamproc.pipeline.format_spec import RegistrySpec
from tests.registry import Registry, serve_registry

SUBJECT = "orders-value"


@pytest.fixture(scope="module")
def served() -> Iterator[Registry]:
    with serve_registry() as registry:
        yield registry


def decoder(registry: Registry, declared: dict[str, Any], required: tuple[str, ...] = ()) -> ConfluentDecoder:
    client = SchemaRegistry(RegistrySpec(url=registry.url), "source orders", deadline_s=0.5)
    fields = {name: parse_type(kind) for name, kind in declared.items()}
    return ConfluentDecoder(client, "AVRO", fields, required, avro_reader)


def record(*fields: tuple[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "Order", "fields": [{"name": name, "type": kind} for name, kind in fields]}


def written(registry: Registry, schema: dict[str, Any], *rows: dict[str, Any]) -> list[bytes]:
    """Records as another client writes them, their schema registered."""
    schema_id = registry.register(SUBJECT, json.dumps(schema))
    values = []
    for row in rows:
        stream = BytesIO()
        fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), row)
        values.append(prefix(schema_id) + stream.getvalue())
    return values


def test_declared_fields_are_read_by_name_and_missing_ones_are_null(served: Registry) -> None:
    schema = record(("extra", "string"), ("id", "int"), ("price", ["null", "double"]))
    values = written(served, schema, {"extra": "x", "id": 1, "price": None}, {"extra": "y", "id": 2, "price": 2.5})
    rows = decoder(served, {"price": "float64", "id": "int64", "country": "string"}).decode_values(values)
    assert rows.frame.rows() == [(None, 1, None), (2.5, 2, None)]
    assert rows.frame.schema == {"price": pl.Float64, "id": pl.Int64, "country": pl.String}
    assert rows.bad == []


def test_what_other_clients_write(served: Registry) -> None:
    color = {"type": "enum", "name": "Color", "symbols": ["RED", "BLUE"]}
    day = {"type": "int", "logicalType": "date"}
    inner = {"type": "record", "name": "Inner", "fields": [{"name": "c", "type": ["null", "Color"]}]}
    schema = record(
        ("color", color),
        ("inners", {"type": "array", "items": inner}),
        ("again", "Inner"),  # a named type used by its name
        ("hash", {"type": "fixed", "name": "Hash", "size": 2}),
        ("day", ["null", day]),
        ("price", {"type": "fixed", "name": "Price", "size": 8, "logicalType": "decimal", "precision": 10, "scale": 2}),
        ("at", {"type": "long", "logicalType": "timestamp-micros"}),
        ("since", "long"),
        ("said", "string"),
    )
    at = datetime(2026, 1, 1, 12, tzinfo=UTC)
    row = {
        "color": "BLUE", "inners": [{"c": "RED"}, {"c": None}], "again": {"c": "BLUE"}, "hash": b"ab", "day": None,
        "price": Decimal("-1.25"), "at": at, "since": 1000, "said": "2026-01-01T12:00:00Z",
    }  # fmt: skip
    declared = {
        "color": "string", "again": {"c": "string", "more": "int8"}, "hash": "bytes",
        "day": "date", "price": "decimal(12,3)", "at": "timestamp_ms", "since": "timestamp_s", "said": "timestamp",
    }  # fmt: skip
    reader = decoder(served, declared)
    rows = reader.decode_values(written(served, schema, row))
    assert rows.bad == []
    assert rows.frame.row(0, named=True) == {
        "color": "BLUE", "again": {"c": "BLUE", "more": None}, "hash": b"ab", "day": None, "price": Decimal("-1.250"),
        "at": at, "since": datetime(1970, 1, 1, 0, 16, 40, tzinfo=UTC), "said": at,
    }  # fmt: skip


def test_records_with_maps_and_unions_are_read_for_their_other_fields(served: Registry) -> None:
    color = {"type": "enum", "name": "Color", "symbols": ["RED", "BLUE"]}
    schema = record(
        ("labels", {"type": "map", "values": "string"}),
        ("color", color),
        ("either", ["null", "int", "string"]),
        ("id", "long"),
    )
    values = written(
        served,
        schema,
        {"labels": {"a": "b"}, "color": "BLUE", "either": "x", "id": 1},
        {"labels": {}, "color": "RED", "either": None, "id": 2},
    )
    rows = decoder(served, {"id": "int64", "color": "string"}).decode_values([values[0], values[1] + b"!", values[1]])
    assert rows.frame.rows() == [(1, "BLUE"), (2, "RED")]
    assert [bad.at for bad in rows.bad] == [1]
    refused = decoder(served, {"labels": "string"}).decode_values(values)
    assert "field labels is a map, which streamproc does not read from Avro" in refused.bad[0].message
    assert len(refused.bad) == 2


def test_a_record_of_the_wrong_length_spoils_no_other(served: Registry) -> None:
    schema = record(("id", "long"), ("name", ["null", "string"]))
    good = written(served, schema, *({"id": n, "name": f"n{n}"} for n in range(40)))
    spoilt = list(good)
    spoilt[3] += b"\0"
    spoilt[17] = spoilt[17][:-1]
    spoilt[20] = spoilt[20][:5]
    spoilt[21] = good[0][:5] + b"\xff" * 12
    rows = decoder(served, {"id": "int64", "name": "string"}).decode_values(spoilt)
    assert [bad.at for bad in rows.bad] == [3, 17, 20, 21]
    assert rows.frame["id"].to_list() == [n for n in range(40) if n not in (3, 17, 20, 21)]
    assert rows.bad[0].message == "longer or shorter than its schema says"


def test_several_schemas_in_one_batch_keep_their_order(served: Registry) -> None:
    old = written(served, record(("id", "int")), *({"id": n} for n in range(0, 6, 2)))
    new = written(served, record(("id", "long"), ("tag", "string")), *({"id": n, "tag": "t"} for n in range(1, 6, 2)))
    mixed = [value for pair in zip(old, new, strict=True) for value in pair]
    unknown = b"\0\0\1\0\0rest"
    rows = decoder(served, {"id": "int64", "tag": "string"}).decode_values([*mixed, None, b"{}", unknown])
    assert rows.frame.rows() == [(0, None), (1, "t"), (2, None), (3, "t"), (4, None), (5, "t")]
    assert [(bad.at, bad.message) for bad in rows.bad] == [
        (6, "null value"),
        (7, "does not begin with a zero byte and a schema id: not written with a schema registry"),
        (8, f"schema 65536 is not in the registry {served.url}"),
    ]


def test_another_type_is_a_bad_record_and_a_value_out_of_range_too(served: Registry) -> None:
    values = written(served, record(("id", "long"), ("name", "string")), {"id": 300, "name": "x"})
    assert '"string", declared int64' in decoder(served, {"name": "int64"}).decode_values(values).bad[0].message
    assert decoder(served, {"id": "int8"}).decode_values(values).bad[0].message == "id: 300 does not fit int8"
    missing = decoder(served, {"at": "timestamp_ms"}, ("at",)).decode_values(values)
    assert missing.bad[0].message == "at is missing: the event time is read from it"


def test_a_registry_that_is_down_is_not_the_records_fault(served: Registry) -> None:
    values = written(served, record(("id", "long")), {"id": 1})
    lost = decoder(served, {"id": "int64"})
    served.failures = 1_000
    try:
        with pytest.raises(RegistryUnavailable, match="gave no answer"):
            lost.decode_values(values)
    finally:
        served.failures = 0
    assert lost.decode_values(values).frame.rows() == [(1,)]
    before = len(served.requests)
    lost.decode_values(values)
    assert len(served.requests) == before, "a known schema is not asked for again"


def test_the_schema_a_sink_writes() -> None:
    columns = {"id": pl.Int16(), "at": pl.Datetime("ms", "UTC"), "tags": pl.List(pl.Struct({"k": pl.String()}))}
    assert json.loads(AvroEncoder(columns).schema)["fields"] == [
        {"name": "id", "type": ["null", "int"], "default": None},
        {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}], "default": None},
        {
            "name": "tags",
            "type": [
                "null",
                {
                    "type": "array",
                    "items": [
                        "null",
                        {
                            "type": "record",
                            "name": "Row_tags",
                            "fields": [{"name": "k", "type": ["null", "string"], "default": None}],
                        },
                    ],
                },
            ],
            "default": None,
        },
    ]
    with pytest.raises(FormatError, match="left-id: an Avro name"):
        AvroEncoder({"left-id": pl.Int64()})


def test_what_a_sink_writes_is_read_by_other_clients() -> None:
    frame = pl.DataFrame({"id": [1, None], "price": [Decimal("1.25"), None], "__time": [1, 2]})
    encoder = AvroEncoder({"id": pl.Int64(), "price": frame["price"].dtype})
    values = encoder.encode_column(frame, 9).to_list()
    schema = fastavro.parse_schema(json.loads(encoder.schema))
    read = [fastavro.schemaless_reader(BytesIO(value[5:]), schema, None) for value in values]
    assert read == [{"id": 1, "price": Decimal("1.25")}, {"id": None, "price": None}]
    assert {value[:5] for value in values} == {b"\0\0\0\0\x09"}
