from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.types import parse_type
from streamproc.formats.iso import iso_texts
from streamproc.formats.json import JsonDecoder
from streamproc.formats.json_encoder import JsonEncoder
from streamproc.formats.protocol import EncodeError

NOON = datetime(2026, 1, 1, 12, 0, 5, tzinfo=UTC)
UTC_MS = pl.Datetime("ms", "UTC")


def row_of(**columns: Any) -> dict[str, Any]:
    frame = pl.DataFrame({name: pl.Series(values[0], dtype=values[1]) for name, values in columns.items()})
    encoder = JsonEncoder(dict(frame.schema))
    line = encoder.encode_lines(frame)
    assert line.count(b"\n") == frame.height
    assert [json.loads(text) for text in encoder.encode_column(frame)] == [json.loads(x) for x in line.splitlines()]
    row: dict[str, Any] = json.loads(line.splitlines()[0])
    return row


def test_every_type_is_written_as_the_contract_says() -> None:
    assert row_of(
        n=([None], pl.Int64()),
        t=([NOON], UTC_MS),
        us=([NOON.replace(microsecond=1999)], pl.Datetime("us", "UTC")),
        d=([date(2026, 1, 1)], pl.Date()),
        dec=([Decimal("1.50")], pl.Decimal(10, 2)),
        by=([b"\xff\xef"], pl.Binary()),
        nan=([float("nan")], pl.Float64()),
        inf=([float("-inf")], pl.Float32()),
        li=([[NOON, None]], pl.List(UTC_MS)),
        st=([{"b": b"a", "t": None}], pl.Struct({"b": pl.Binary(), "t": UTC_MS})),
        s=(['"\n\u2028é'], pl.String()),
    ) == {
        "n": None,
        "t": "2026-01-01T12:00:05.000Z",
        "us": "2026-01-01T12:00:05.001Z",
        "d": "2026-01-01",
        "dec": "1.50",
        "by": "/+8=",
        "nan": None,
        "inf": None,
        "li": ["2026-01-01T12:00:05.000Z", None],
        "st": {"b": "YQ==", "t": None},
        "s": '"\n\u2028é',
    }


def test_columns_come_in_schema_order_without_the_hidden_ones() -> None:
    frame = pl.DataFrame({"__time": [1], "b": [2], "a": [3]})
    assert JsonEncoder({"a": pl.Int64(), "b": pl.Int64()}).encode_lines(frame) == b'{"a":3,"b":2}\n'


def test_timestamps_can_be_numbers() -> None:
    frame = pl.DataFrame({"t": pl.Series([NOON, None], dtype=pl.Datetime("us", "UTC"))})
    encoder = JsonEncoder(dict(frame.schema), timestamps="epoch_ms")
    assert encoder.encode_lines(frame) == b'{"t":1767268805000}\n{"t":null}\n'


def test_a_key_of_one_column_is_its_plain_text_and_of_several_an_object() -> None:
    frame = pl.DataFrame({"i": [123, None], "s": ["é", "x"], "t": pl.Series([NOON, NOON], dtype=UTC_MS)})
    encoder = JsonEncoder(dict(frame.schema))
    assert encoder.encode_key(frame, ["i"]).to_list() == ["123", None]
    assert encoder.encode_key(frame, ["s"]).to_list() == ["é", "x"]
    assert encoder.encode_key(frame, ["t"])[0] == "2026-01-01T12:00:05.000Z"
    assert encoder.encode_key(frame, ["s", "i"]).to_list() == ['{"s":"é","i":123}', '{"s":"x","i":null}']


def test_a_year_that_iso_cannot_write_is_an_error_not_garbage() -> None:
    times = pl.Series("t", [2**55]).cast(UTC_MS)
    with pytest.raises(EncodeError, match="t: a timestamp outside"):
        iso_texts(times)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.none() | st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)), max_size=6))
def test_iso_texts_are_what_python_writes(times: list[datetime | None]) -> None:
    series = pl.Series("t", times, dtype=pl.Datetime("us")).dt.replace_time_zone("UTC")
    expected = [None if t is None else t.isoformat(timespec="milliseconds") + "Z" for t in times]
    assert iso_texts(series).to_list() == expected
    assert iso_texts(series.slice(1)).to_list() == expected[1:]


FIELDS = {
    name: parse_type(t) for name, t in {"s": "string", "y": "bytes", "d": "decimal(20,3)", "t": "timestamp_ms"}.items()
}
cells = st.fixed_dictionaries(
    {
        "s": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        "y": st.none() | st.binary(max_size=8),
        "d": st.none() | st.decimals(-(10**12), 10**12, places=3),
        "t": st.none() | st.integers(0, 2**41),
    }
)


@settings(max_examples=50, deadline=None)
@given(st.lists(cells, min_size=1, max_size=6))
def test_what_is_encoded_decodes_to_the_same_rows(rows: list[dict[str, Any]]) -> None:
    schema = {name: field.dtype for name, field in FIELDS.items()}
    raw = {**schema, "t": pl.Int64()}
    frame = pl.DataFrame(rows, schema=raw).cast(schema)  # type: ignore[arg-type]
    encoder = JsonEncoder(schema, timestamps="epoch_ms")
    assert JsonDecoder(FIELDS).decode_lines(encoder.encode_lines(frame), len(rows)).equals(frame)
    decoded, bad = JsonDecoder(FIELDS).decode_each([text.encode() for text in encoder.encode_column(frame)])
    assert decoded.equals(frame)
    assert not bad
