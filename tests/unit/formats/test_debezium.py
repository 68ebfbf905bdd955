"""Debezium's changes: one record becomes the rows of its change, in order, and no others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from operators.element import DELETE, INSERT, KIND, UPDATE_AFTER, UPDATE_BEFORE
from operators.types import parse_type
from streamproc.formats.debezium import DebeziumJsonDecoder
from streamproc.formats.protocol import DecodeError

FIELDS = {"id": parse_type("int64"), "name": parse_type("string"), "at": parse_type("timestamp_ms")}


def row(number: int, name: str = "x") -> dict[str, Any]:
    return {"id": number, "name": name, "at": number, "undeclared": [1]}


def change(op: str, before: Any, after: Any, *, envelope: bool = False) -> bytes:
    payload = {"before": before, "after": after, "op": op, "ts_ms": 5, "source": {"table": "t", "lsn": 7}}
    return json.dumps(
        {"schema": {"type": "struct", "fields": []}, "payload": payload} if envelope else payload
    ).encode()


@pytest.mark.parametrize("envelope", [False, True])
def test_each_operation(envelope: bool) -> None:
    changes = [("r", None, row(1)), ("c", None, row(2)), ("u", row(1), row(1, "new")), ("d", row(2), None)]
    values = [change(*one, envelope=envelope) for one in changes]
    rows = DebeziumJsonDecoder(FIELDS).decode_values(values)
    assert rows.bad == []
    assert rows.frame.select("id", "name", KIND).rows() == [
        (1, "x", INSERT),
        (2, "x", INSERT),
        (1, "x", UPDATE_BEFORE),
        (1, "new", UPDATE_AFTER),
        (2, "x", DELETE),
    ]
    assert rows.origin is not None
    assert rows.origin.tolist() == [0, 1, 2, 2, 3]


def test_tombstones_are_passed_over_and_bad_records_are_named() -> None:
    values = [
        None,
        change("u", None, row(1)),
        change("c", None, row(2)),
        b"{",
        b"null",
        change("t", None, None),
        change("c", None, None),
        b'{"id": 1}',
        change("c", None, row(3) | {"at": None}),
        change("d", None, None),
        change("c", None, row(4) | {"id": "four"}),
        change("u", row(2), row(5), envelope=True),
    ]
    rows = DebeziumJsonDecoder(FIELDS, ["at"]).decode_values(values)
    assert [bad.at for bad in rows.bad] == [1, 3, 5, 6, 7, 8, 9, 10]
    said = {bad.at: bad.message for bad in rows.bad}
    assert "REPLICA IDENTITY FULL" in said[1]
    assert "op t is not supported" in said[5]
    assert said[6] == "op c without `after`"
    assert said[7] == "no `op`: not a change as Debezium writes it"
    assert said[8] == "at is missing: the event time is read from it"
    assert rows.frame["id"].to_list() == [2, 2, 5]
    # Good ones are the tombstones 0 and 4, then 2 and 11.
    assert rows.origin is not None
    assert rows.origin.tolist() == [1, 3, 3]


def test_only_tombstones() -> None:
    rows = DebeziumJsonDecoder(FIELDS).decode_values([None, None])
    assert rows.frame.height == 0
    assert KIND in rows.frame.columns
    assert rows.bad == []


def test_lines_of_a_file() -> None:
    decoder = DebeziumJsonDecoder(FIELDS)
    lines = change("c", None, row(1)) + b"\n" + change("u", row(1), row(2)) + b"\n"
    assert decoder.decode_lines(lines, 2)["id"].to_list() == [1, 1, 2]
    with pytest.raises(DecodeError, match="without `before`"):
        decoder.decode_lines(change("d", None, None) + b"\n", 1)
