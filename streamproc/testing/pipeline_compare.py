"""Compares the rows a stream gave with those a test expects, and says what differs so that one can see why.

Rows of a stream have no order. Only the columns that an expected row names are compared: an expected row is
met by one actual row that fits it, each actual row meets one expected row, and none may be left on either side.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import polars as pl

from operators.element import HIDDEN, KIND

OP: Final = "op"  # what an expected row of a changelog calls the kind of a change
OPS: Final = ("+I", "-U", "+U", "-D")  # by row kind
_TAKES_BACK: Final = (1, 3)
_RELATIVE: Final = 1e-9
_SHOWN_ROWS: Final = 20

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Missing:
    """An expected row that nothing met. `at`: its place in the list; `nearest`: the row left over most like it."""

    at: int
    expected: Row
    nearest: Row | None
    differs: tuple[str, ...]  # columns in which the nearest does not fit


@dataclass(frozen=True, slots=True)
class StreamDifference:
    """What is wrong with one stream."""

    stream: str
    missing: tuple[Missing, ...]
    unexpected: tuple[Row, ...]
    expected_count: int
    actual_count: int


def actual_rows(frames: Sequence[pl.DataFrame], *, changes: bool) -> list[dict[str, Any]]:
    """Rows of a stream as a test sees them. Those of a changelog are what is there after all changes, or with
    `changes` the changes themselves, with their kind in `op`."""
    rows: list[dict[str, Any]] = []
    kinds: list[int] = []
    for frame in frames:
        visible = frame.select(name for name in frame.columns if name not in HIDDEN)
        rows += visible.to_dicts()
        kinds += frame.get_column(KIND).to_list() if KIND in frame.columns else [0] * frame.height
    if changes:
        return [{OP: OPS[kind]} | row for kind, row in zip(kinds, rows, strict=True)]
    if not any(kinds):
        return rows
    return _net(rows, kinds)


def _net(rows: Sequence[dict[str, Any]], kinds: Sequence[int]) -> list[dict[str, Any]]:
    """Whole rows, counted: what is taken back is a row as it was given before."""
    counts: dict[str, int] = {}
    by_text: dict[str, dict[str, Any]] = {}
    for row, kind in zip(rows, kinds, strict=True):
        text = repr(row)
        by_text.setdefault(text, row)
        counts[text] = counts.get(text, 0) + (-1 if kind in _TAKES_BACK else 1)
    return [by_text[text] for text, count in counts.items() for _ in range(max(0, count))]


def compare(stream: str, expected: Sequence[Row], actual: Sequence[Row]) -> StreamDifference | None:
    """What is wrong with a stream; None: nothing."""
    met_by = _matching(expected, actual)
    left = [row for at, row in enumerate(actual) if at not in set(met_by.values())]
    missing = tuple(_missing(at, row, left) for at, row in enumerate(expected) if at not in met_by)
    if not missing and not left:
        return None
    return StreamDifference(stream, missing, tuple(left), len(expected), len(actual))


def _matching(expected: Sequence[Row], actual: Sequence[Row]) -> dict[int, int]:
    """As many expected rows as can be met at once: expected → actual (augmenting paths)."""
    fitting = [[at for at, row in enumerate(actual) if fits(wanted, row)] for wanted in expected]
    taken: dict[int, int] = {}  # actual → expected
    for start in range(len(expected)):
        came_from: dict[int, int] = {}  # actual → the expected row that would like it
        waiting = [start]
        free = None
        while waiting and free is None:
            wanting = waiting.pop()
            for at in fitting[wanting]:
                if at in came_from:
                    continue
                came_from[at] = wanting
                if at not in taken:
                    free = at
                    break
                waiting.append(taken[at])
        while free is not None:
            wanting = came_from[free]
            before = next((at for at, owner in taken.items() if owner == wanting), None)
            taken[free] = wanting
            free = None if wanting == start else before
    return {owner: at for at, owner in taken.items()}


def _missing(at: int, row: Row, left: Sequence[Row]) -> Missing:
    best = min(left, key=lambda other: len(_differing(row, other)), default=None)
    return Missing(at, row, best, () if best is None else tuple(_differing(row, best)))


def _differing(expected: Row, actual: Row) -> list[str]:
    return [name for name, value in expected.items() if name not in actual or not equal(value, actual[name])]


def fits(expected: Row, actual: Row) -> bool:
    """Whether the columns that `expected` names are as it says."""
    return all(name in actual and equal(value, actual[name]) for name, value in expected.items())


def equal(expected: Any, actual: Any) -> bool:
    """Whether a value as a file writes it means the value of a column."""
    match actual:
        case None:
            return expected is None
        case bool():
            return isinstance(expected, bool) and expected == actual
        case int():
            return _is_number(expected) and bool(expected == actual)
        case float():
            return _equal_float(expected, actual)
        case Decimal():
            return _equal_decimal(expected, actual)
        case datetime():
            return isinstance(expected, str) and instant(expected) == actual
        case date():
            return isinstance(expected, str) and expected == actual.isoformat()
        case bytes():
            return isinstance(expected, str) and _unbase64(expected) == actual
        case Mapping():
            return isinstance(expected, Mapping) and fits(expected, actual)
        case list():
            return (
                isinstance(expected, list)
                and len(expected) == len(actual)
                and all(equal(one, other) for one, other in zip(expected, actual, strict=True))
            )
        case _:
            return bool(expected == actual)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal_float(expected: Any, actual: float) -> bool:
    if isinstance(expected, str):
        named = {"nan": math.nan, "inf": math.inf, "infinity": math.inf, "-inf": -math.inf, "-infinity": -math.inf}
        expected = named.get(expected.lower().lstrip(".").replace("-.", "-"))
    if not _is_number(expected):
        return False
    if math.isnan(expected):
        return math.isnan(actual)
    return math.isclose(expected, actual, rel_tol=_RELATIVE, abs_tol=0.0)


def _equal_decimal(expected: Any, actual: Decimal) -> bool:
    if not isinstance(expected, str) and not _is_number(expected):
        return False
    try:
        return Decimal(str(expected)) == actual
    except InvalidOperation:
        return False


def _unbase64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


def instant(text: str) -> datetime | None:
    """An ISO-8601 text as a time in UTC, which it is in unless it says otherwise; None: it is none."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def value_text(value: Any) -> str:
    """A value as a test would write it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case datetime():
            utc = value.astimezone(UTC)
            return utc.isoformat(timespec="microseconds" if utc.microsecond % 1000 else "milliseconds")[:-6] + "Z"
        case date():
            return value.isoformat()
        case bytes():
            return base64.b64encode(value).decode()
        case Mapping():
            return row_text(value)
        case list():
            return f"[{', '.join(map(value_text, value))}]"
        case _:
            return str(value)


def row_text(row: Row) -> str:
    """`{country: FR, orders: 1}`."""
    return "{" + ", ".join(f"{name}: {value_text(value)}" for name, value in row.items()) + "}"


def difference_lines(difference: StreamDifference, places: Sequence[str]) -> list[str]:
    """For people: `-` an expected row that is missing, `+` a row nobody expected. `places`: `file:line` of each
    expected row."""
    found = f"{difference.expected_count} expected, {difference.actual_count} came"
    lines = [
        f"{difference.stream}: {len(difference.missing)} missing, {len(difference.unexpected)} unexpected ({found})"
    ]
    for missing in difference.missing[:_SHOWN_ROWS]:
        lines.append(f"  - {row_text(missing.expected)}   {places[missing.at]}")
        if missing.nearest is not None:
            named = (
                f"{name} is {value_text(missing.nearest[name]) if name in missing.nearest else 'not there'}"
                f", not {value_text(missing.expected[name])}"
                for name in missing.differs
            )
            lines.append(f"      nearest: {'; '.join(named)}")
    lines += _rest(difference.missing)
    lines += [f"  + {row_text(row)}" for row in difference.unexpected[:_SHOWN_ROWS]]
    return lines + _rest(difference.unexpected)


def _rest(rows: Sequence[object]) -> list[str]:
    return [f"    and {len(rows) - _SHOWN_ROWS} more"] if len(rows) > _SHOWN_ROWS else []
