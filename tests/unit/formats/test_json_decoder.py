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
from streamproc.formats.json import JsonDecoder
from streamproc.formats.json_faults import fault_of
from streamproc.formats.protocol import DecodeError


def decoder(**fields: Any) -> JsonDecoder:
    return JsonDecoder({name: parse_type(declared) for name, declared in fields.items()})


def decoded(declared: Any, text: str) -> Any:
    return decoder(v=declared).decode_lines(f'{{"v": {text}}}\n'.encode(), 1)["v"][0]


NOON = datetime(2026, 1, 1, 12, 0, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("declared", "text", "value"),
    [
        ("boolean", "true", True),
        ("int8", "-128", -128),
        ("int16", "32767", 32767),
        ("int32", "-2147483648", -(2**31)),
        ("int64", "9223372036854775807", 2**63 - 1),
        ("float32", "0.5", 0.5),
        ("float64", "3", 3.0),
        ("float64", "1e308", 1e308),
        ("string", '"12"', "12"),
        ("string", '"true"', "true"),
        ("string", '"{\\"a\\": 1}"', '{"a": 1}'),
        ("string", '"\\ud83d\\ude00 \\n"', "😀 \n"),
        ("bytes", '"/+8="', b"\xff\xef"),
        ("bytes", '"1234"', b"\xd7m\xf8"),
        ("date", '"2026-01-31"', date(2026, 1, 31)),
        ("decimal(10,2)", '"12.5"', Decimal("12.50")),
        ("decimal(10,2)", "12.25", Decimal("12.25")),
        ("decimal(38,4)", '"1234567890123456789012345.6789"', Decimal("1234567890123456789012345.6789")),
        ("decimal(38,0)", "12345678901234567890123456789", Decimal("12345678901234567890123456789")),
        ("timestamp_s", "1767268805", NOON),
        ("timestamp_ms", "1767268805000", NOON),
        ("timestamp_us", "1767268805000001", NOON.replace(microsecond=1)),
        ("timestamp", '"2026-01-01T12:00:05Z"', NOON),
        ("timestamp", '"2026-01-01T12:00:05"', NOON),
        ("timestamp", '"2026-01-01 12:00:05.250"', NOON.replace(microsecond=250_000)),
        ("timestamp", '"2026-01-01T14:00:05.000001+02:00"', NOON.replace(microsecond=1)),
        ("timestamp", '"2026-01-01T07:00:05-0500"', NOON),
        ("timestamp", '"2026-01-01T12:00:05.123456789Z"', NOON.replace(microsecond=123_456)),
        ("timestamp", '"2026-01-01"', datetime(2026, 1, 1, tzinfo=UTC)),
        ("list[int8]", "[1, null, -1]", [1, None, -1]),
        ("list[string]", "[]", []),
        ("list[timestamp]", '["2026-01-01T12:00:05Z", null]', [NOON, None]),
        ({"a": "string", "b": "decimal(4,1)"}, '{"b": "1.5", "c": 9}', {"a": None, "b": Decimal("1.5")}),
        ({"a": "list[bytes]"}, '{"a": ["YQ==", null]}', {"a": [b"a", None]}),
        ("list[list[int16]]", "[[1], null, [2, 3]]", [[1], None, [2, 3]]),
    ],
)
def test_a_value_of_the_declared_type_arrives_exactly(declared: Any, text: str, value: Any) -> None:
    column = pl.Series([decoded(declared, text)])
    assert column[0] == value if not isinstance(value, list) else column[0].to_list() == value


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        ("boolean", "1"),
        ("boolean", '"true"'),
        *[
            (number, wrong)
            for number in ("int8", "int32", "int64", "float64")
            for wrong in ('"1"', "true", "[1]", "{}")
        ],
        *[(number, "1.0") for number in ("int8", "int16", "int32", "int64", "timestamp_ms")],
        ("int8", "128"),
        ("int16", "-32769"),
        ("int32", "2147483648"),
        ("int64", "9223372036854775808"),
        ("float32", "1e300"),
        ("float64", "NaN"),
        ("float64", "Infinity"),
        ("float64", "1e999"),
        *[
            (text, wrong)
            for text in ("string", "bytes", "date", "timestamp")
            for wrong in ("1", "1.5", "true", "[]", "{}")
        ],
        ("bytes", '"YQ"'),
        ("bytes", '"a b="'),
        ("date", '"2026-02-30"'),
        ("date", '"2026-1-1"'),
        ("decimal(4,2)", '"123.00"'),
        ("decimal(4,2)", '"1.234"'),
        ("decimal(4,2)", '"x"'),
        ("decimal(4,2)", "true"),
        ("decimal(38,10)", "1234567890.1234567890"),
        ("timestamp_ms", '"2026-01-01T00:00:00Z"'),
        ("timestamp_ms", "9223372036854775807"),
        ("timestamp_s", "9223372036854775"),
        ("timestamp", '"2026-13-01T00:00:00Z"'),
        ("timestamp", '" 2026-01-01T00:00:00Z"'),
        ("timestamp", '"yesterday"'),
        ("list[int64]", "1"),
        ("list[int8]", "[128]"),
        ("list[string]", "[1]"),
        ("list[timestamp]", '["x"]'),
        ({"a": "string"}, '{"a": 1}'),
        ({"a": "int64"}, '{"a": "1"}'),
        ({"a": "int64"}, "[]"),
        ({"a": "bytes"}, '{"a": "?"}'),
    ],
)
def test_a_value_of_another_type_is_refused_and_never_null(declared: Any, text: str) -> None:
    record = f'{{"v": {text}}}'.encode()
    with pytest.raises(DecodeError):
        decoder(v=declared).decode_lines(record + b"\n", 1)
    frame, bad = decoder(v=declared).decode_each([b'{"v": null}', record, b"{}"])
    assert [refused.at for refused in bad] == [1]
    assert frame["v"].to_list() == [None, None]


def test_missing_and_null_are_null_and_undeclared_fields_are_ignored() -> None:
    frame = decoder(a="int64", b="string").decode_lines(b'{"c": [1, {"d": 2}], "b": "x"}\n{"a": null}\n', 2)
    assert frame.rows() == [(None, "x"), (None, None)]


def test_the_first_of_repeated_fields_counts_for_the_batch_and_for_the_single_record() -> None:
    assert decoder(a="int64").decode_lines(b'{"a": 1, "a": "x"}', 1)["a"][0] == 1
    frame, bad = decoder(a="int64").decode_each([b'{"a": 1, "a": "x"}', b'{"a": "x", "a": 1}'])
    assert frame["a"].to_list() == [1]
    assert [refused.at for refused in bad] == [1]


def test_bad_records_are_isolated_with_their_index_and_reason() -> None:
    values = [
        b'{"id": 1, "name": "a"}',
        None,
        b"",
        b'{"id": 2',
        b"\xff\xfe",
        b"[1]",
        b'{"id": "3"}',
        b'{"id": 4, "name": 5}',
        b'{"id": 6}\n{"id": 7}',
        b'{\n "id": 8\n}',
        b'{"id": NaN}',
        b'{"id": 9, "name": "\\udc00"}',
    ]
    frame, bad = decoder(id="int64", name="string").decode_each(values)
    assert frame.rows() == [(1, "a"), (8, None)]
    assert {refused.at: refused.message for refused in bad if refused.at != 11} == {
        1: "null value",
        2: "empty value",
        3: "not JSON: Expecting ',' delimiter at character 8",
        4: "not UTF-8: byte 0 is 0xff",
        5: "not a JSON object but an array",
        6: "id: expected int64, found a string",
        7: "name: expected string, found an integer",
        8: "not JSON: Extra data at character 10",
        10: "not JSON: NaN",
    }
    assert bad[-1].at == 11


def test_an_empty_message_among_good_ones_is_noticed_by_the_batch() -> None:
    with pytest.raises(DecodeError, match="3 records hold 2 JSON values"):
        decoder(a="int64").decode_lines(b'{"a": 1}\n\n{"a": 2}', 3)


def test_a_record_without_its_event_time_is_refused() -> None:
    fields = {"t": parse_type("timestamp_ms")}
    frame, bad = JsonDecoder(fields, required=["t"]).decode_each([b'{"t": 1}', b"{}", b'{"t": null}'])
    assert (frame.height, [refused.at for refused in bad]) == (1, [1, 2])


def test_strings_that_look_like_numbers_stay_strict_batch_after_batch() -> None:
    strict = decoder(id="string", blob="bytes")
    for _ in range(3):
        assert strict.decode_lines(b'{"id": "1", "blob": "1234"}\n{"id": "-2.5e3"}', 2)["id"].to_list() == [
            "1",
            "-2.5e3",
        ]
        with pytest.raises(DecodeError):
            strict.decode_lines(b'{"id": "1"}\n{"id": 2}', 2)
        with pytest.raises(DecodeError):
            strict.decode_lines(b'{"blob": 1234}', 1)


def test_no_records_make_an_empty_frame_of_the_schema() -> None:
    of = decoder(a="timestamp", b={"c": "list[int8]"})
    assert of.decode_lines(b"", 0).schema == of.schema
    frame, bad = of.decode_each([None])
    assert (frame.schema, frame.height, len(bad)) == (of.schema, 0, 1)


FIELDS: dict[str, Any] = {
    "b": "boolean",
    "i": "int8",
    "l": "int64",
    "f": "float32",
    "s": "string",
    "d": "decimal(20,2)",
    "t": "timestamp",
    "m": "timestamp_ms",
    "y": "bytes",
    "li": "list[string]",
    "st": {"x": "int16", "z": "string"},
}
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.integers(-200, 200),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=5),
    st.sampled_from(["1", "-2.5", "true", "YQ==", "2026-01-01T00:00:00Z", "2026-01-01", "[1]", "{", "\ud800"]),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xz"), inner), max_leaves=4
)
records = st.dictionaries(st.sampled_from(list(FIELDS)), values, max_size=4).map(lambda r: json.dumps(r).encode())
broken = st.tuples(records, st.integers(0, 60), st.binary(max_size=2)).map(lambda p: p[0][: p[1]] + p[2])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(records, records, broken), min_size=1, max_size=12))
def test_a_records_fate_and_value_do_not_depend_on_its_neighbours(batch: list[bytes]) -> None:
    of = decoder(**FIELDS)
    frame, bad = of.decode_each(batch)
    alone = [decoder(**FIELDS).decode_each([record]) for record in batch]
    assert [refused.at for refused in bad] == [i for i, (_, refused) in enumerate(alone) if refused]
    assert frame.equals(pl.concat([rows for rows, _ in alone]))


@settings(max_examples=150, deadline=None)
@given(st.one_of(records, broken))
def test_a_fault_that_is_named_is_one_for_which_the_batch_refuses(record: bytes) -> None:
    of = decoder(**FIELDS)
    if fault_of(record, {name: parse_type(declared) for name, declared in FIELDS.items()}) is not None:
        with pytest.raises(DecodeError):
            of.decode_lines(record.replace(b"\n", b" ") + b"\n", 1)
