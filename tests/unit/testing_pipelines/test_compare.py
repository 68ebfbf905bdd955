from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from streamproc.testing.pipeline_compare import actual_rows, compare, equal, value_text


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (3.0, 3),
        (3, 3.0),
        (0.3, 0.1 + 0.2),
        ("NaN", float("nan")),
        ("-Infinity", float("-inf")),
        ("1.50", Decimal("1.5")),
        (1.5, Decimal("1.50")),
        ("2026-01-01T12:00:00Z", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("2026-01-01T13:00:00.000+01:00", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("2026-01-01", date(2026, 1, 1)),
        ("aGk=", b"hi"),
        ([1, None], [1, None]),
        ({"a": 1}, {"a": 1, "b": 2}),
    ],
)
def test_means_the_same(expected: Any, actual: Any) -> None:
    assert equal(expected, actual)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (None, 0),
        (0, None),
        (1, True),
        (True, 1),
        ("3", 3),
        (3.1, 3),
        (1.00001, 1.0),
        ("x", 1.0),
        ("1.51", Decimal("1.5")),
        ("soon", datetime(2026, 1, 1, tzinfo=UTC)),
        ("hi!", b"hi"),
        ([1], [1, 2]),
        ({"c": 1}, {"a": 1}),
    ],
)
def test_means_something_else(expected: Any, actual: Any) -> None:
    assert not equal(expected, actual)


def test_rows_that_name_few_columns_leave_the_right_ones_to_others() -> None:
    actual = [{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 1}]
    assert compare("s", [{"a": 1}, {"b": 1}, {"a": 1, "b": 1}], actual) is None
    assert compare("s", [{"b": 1}, {"a": 1, "b": 1}, {"b": 2}], actual) is None
    assert compare("s", [{"a": 1}, {"a": 1}, {"a": 1}], actual) is not None


def test_each_row_counts() -> None:
    difference = compare("s", [{"a": 1}], [{"a": 1}, {"a": 1}])
    assert difference is not None
    assert difference.missing == ()
    assert difference.unexpected == ({"a": 1},)


def test_a_changelog_is_what_is_left_of_it() -> None:
    frame = pl.DataFrame({"k": ["a", "a", "a", "b", "b"], "n": [1, 1, 2, 1, 1], "__kind": [0, 1, 2, 0, 3]})
    assert actual_rows([frame], changes=False) == [{"k": "a", "n": 2}]
    assert actual_rows([frame], changes=True)[1] == {"op": "-U", "k": "a", "n": 1}


def test_values_are_shown_as_a_test_writes_them() -> None:
    row = {"t": datetime(2026, 1, 1, tzinfo=UTC), "b": b"hi", "n": None, "x": [True], "d": Decimal("1.50")}
    assert value_text(row) == "{t: 2026-01-01T00:00:00.000Z, b: aGk=, n: null, x: [true], d: 1.50}"
