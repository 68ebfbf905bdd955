from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.types import parse_type
from streamproc.formats.csv import CsvDecoder, CsvEncoder, read_header
from streamproc.formats.protocol import DecodeError, FormatError

FIELDS = {"id": parse_type("int32"), "name": parse_type("string")}


def test_every_scalar_type_is_read_from_its_text() -> None:
    declared = {
        "b": "boolean",
        "i": "int8",
        "f": "float64",
        "d": "decimal(6,2)",
        "s": "string",
        "y": "bytes",
        "day": "date",
        "ms": "timestamp_ms",
        "t": "timestamp",
    }
    decoder = CsvDecoder({name: parse_type(text) for name, text in declared.items()})
    line = b'True,-8,1e3,12.5,"a ""b"", c",YQ==,2026-01-01,1767225600000,2026-01-01T00:00:00+01:00\r\n,,,,"",,,,\n'
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    row = (True, -8, 1000.0, Decimal("12.50"), 'a "b", c', b"a", date(2026, 1, 1), midnight)
    frame = decoder.decode_lines(line, 2)
    assert frame.rows()[0] == (*row, datetime(2025, 12, 31, 23, tzinfo=UTC))
    assert frame.rows()[1] == (None, None, None, None, "", None, None, None, None)
    assert dict(frame.schema) == decoder.schema


def test_bad_lines_are_isolated_with_their_index_and_reason() -> None:
    values = [b"1,a", b"2", b"3,b,c", b"x,d", b"99999999999,e", b'4,"open', b"5,\xff", b"", b'6,"f"', b"7,g"]
    frame, bad = CsvDecoder(FIELDS).decode_each(values)
    assert frame.rows() == [(1, "a"), (6, "f"), (7, "g")]
    assert {line.at: line.message for line in bad} == {
        1: "expected 2 values, found 1",
        2: "expected 2 values, found 3",
        3: "id: 'x' is not int32",
        4: "id: 99999999999 does not fit int32",
        5: "a quote is not closed on its line",
        6: "not UTF-8: byte 2 is 0xff",
        7: "empty line",
    }


@pytest.mark.parametrize("text", ["1.0", "true", " 1", "1e3", "NaN"])
def test_what_is_no_integer_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        CsvDecoder(FIELDS).decode_lines(f"{text},a\n".encode(), 1)


def test_an_open_quote_on_the_last_line_is_refused() -> None:
    with pytest.raises(DecodeError):
        CsvDecoder(FIELDS).decode_lines(b'1,a\n2,"b\n', 2)


def test_columns_are_found_by_the_header_and_a_missing_one_is_named() -> None:
    header = read_header(b"\xef\xbb\xbfname;other; id \r\n", ";")
    decoder = CsvDecoder(FIELDS, delimiter=";", columns=header)
    assert decoder.decode_lines(b"a;b;1\n", 1).rows() == [(1, "a")]
    with pytest.raises(FormatError, match="column id is not in the header: name, other"):
        CsvDecoder(FIELDS, columns=["name", "other"])
    with pytest.raises(FormatError, match="tags: CSV has no list"):
        CsvDecoder({"tags": parse_type("list[string]")})


cells = st.fixed_dictionaries(
    {
        "i": st.none() | st.integers(-(2**63), 2**63 - 1),
        "s": st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8),
        "y": st.none() | st.binary(max_size=4),
        "d": st.none() | st.decimals(-(10**9), 10**9, places=2),
        "t": st.none()
        | st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(lambda t: t.replace(microsecond=0)),
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(cells, min_size=1, max_size=5))
def test_what_is_encoded_decodes_to_the_same_rows(rows: list[dict[str, Any]]) -> None:
    fields = {"i": "int64", "s": "string", "y": "bytes", "d": "decimal(14,2)", "t": "timestamp"}
    decoder = CsvDecoder({name: parse_type(text) for name, text in fields.items()})
    naive = {**decoder.schema, "t": pl.Datetime("us")}
    frame = pl.DataFrame(rows, schema=naive).with_columns(pl.col("t").dt.replace_time_zone("UTC"))
    encoder = CsvEncoder(decoder.schema)
    assert read_header(encoder.header, ",") == list(fields)
    assert decoder.decode_lines(encoder.encode_lines(frame), len(rows)).equals(frame)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text('1a,"', max_size=6).map(str.encode), min_size=1, max_size=8))
def test_a_lines_fate_does_not_depend_on_its_neighbours(lines: list[bytes]) -> None:
    frame, bad = CsvDecoder(FIELDS).decode_each(lines)
    alone = [CsvDecoder(FIELDS).decode_each([line]) for line in lines]
    assert [line.at for line in bad] == [i for i, (_, refused) in enumerate(alone) if refused]
    assert frame.equals(pl.concat([rows for rows, _ in alone]))
