"""Results as bags of canonical rows, so that what Flink and this project give can be compared.

Flink's come as CSV (timestamps as epoch ms); ours from a Kafka topic as JSON, read committed, and where the
topic is keyed only the last value of each key counts. Numbers that are not whole are compared to ten digits.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from confluent_kafka import Message

Bag = Counter[tuple[str, ...]]

_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")
_NUMBER: Final = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_WHOLE: Final = re.compile(r"-?\d+")
_SHOWN: Final = 5


class Result(NamedTuple):
    """Rows under the names of their columns."""

    columns: tuple[str, ...]
    rows: Bag


def from_csv(path: Path) -> Result:
    """What Flink wrote: a header, then rows."""
    with path.open(newline="") as file:
        lines = csv.reader(file)
        columns = tuple(next(lines))
        return Result(columns, Counter(tuple(map(cell, line)) for line in lines))


def from_messages(messages: Iterable[Message], columns: Sequence[str], *, keyed: bool) -> Result:
    """What this project wrote; `columns` are those to compare, in Flink's order."""
    values: list[bytes | None]
    if keyed:
        last: dict[bytes, bytes | None] = {}
        for message in messages:
            key = message.key()
            assert key is not None, "a record of a keyed topic has a key"
            last[_bytes(key)] = message.value()
        values = list(last.values())
    else:
        values = [message.value() for message in messages]
    rows: Bag = Counter()
    for value in values:
        if value is not None:
            row = json.loads(value)
            rows[tuple(cell(row.get(name, "<no such column>")) for name in columns)] += 1
    return Result(tuple(columns), rows)


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value


def cell(value: Any) -> str:
    """One value as both sides can write it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if _TIMESTAMP.fullmatch(text):
        return str(round(datetime.fromisoformat(text).timestamp() * 1000))
    if _WHOLE.fullmatch(text):
        return str(int(text))
    if _NUMBER.fullmatch(text):
        number = float(text)
        return str(int(number)) if number.is_integer() else f"{number:.10g}"
    return text


def difference(flink: Result, ours: Result) -> str | None:
    """What is not the same, with examples; None when nothing is."""
    if flink.rows == ours.rows:
        return None
    missing, more = flink.rows - ours.rows, ours.rows - flink.rows
    lines = [f"{missing.total()} of Flink's {flink.rows.total()} rows are missing, {more.total()} are ours alone"]
    lines.append(f"    columns     {', '.join(flink.columns)}")
    for name, bag in (("Flink only", missing), ("ours only", more)):
        lines += [f"    {name:<11} {', '.join(row)}" for row in sorted(bag)[:_SHOWN]]
    return "\n".join(lines)
