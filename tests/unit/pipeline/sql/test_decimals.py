"""Precision and scale of decimals, by Flink's rules."""

from __future__ import annotations

import polars as pl
import pytest
import sqlglot
from sqlglot import exp

from operators.element import Schema
from operators.expression.syntax import StreamSql
from streamproc.pipeline.sql.decimals import Exact, exact_type, quotient
from tests.unit.pipeline.sql.translated import only_step

_SCHEMA: Schema = {"big": pl.Int64(), "small": pl.Int32(), "price": pl.Decimal(10, 2), "weight": pl.Float64()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("price", Exact(10, 2)),
        ("price + cast('1.123456' as decimal(7,6))", Exact(15, 6)),
        ("price * cast('0.5' as decimal(1,1))", Exact(11, 3)),
        ("price * big", Exact(29, 2)),
        ("price % 7", Exact(10, 2)),
        ("-(price - small)", Exact(13, 2)),
        ("big * 2", Exact(19, 0, whole=True)),
        ("cast(price as decimal(38,10)) * price", Exact(38, 6)),  # 48 digits: those after the point give way
        ("weight * price", None),
        ("upper('x')", None),
    ],
)
def test_exact_types(text: str, expected: Exact | None) -> None:
    node = sqlglot.parse_one(text, read=StreamSql)
    assert isinstance(node, exp.Expression)
    assert exact_type(node, _SCHEMA) == expected


def test_a_quotient_has_the_digits_of_its_divisor() -> None:
    assert quotient(Exact(12, 2), Exact(10, 0)) == Exact(23, 13)
    assert quotient(Exact(19, 0), Exact(2, 1)) == Exact(26, 6)
    assert quotient(Exact(38, 2), Exact(19, 0)) == Exact(38, 6)


@pytest.mark.parametrize(
    ("flink", "step"),
    [
        ("price / 3", "CAST(price AS decimal(38,13)) / 3"),
        ("small / 3", "small / 3"),
        ("weight / price", "weight / price"),
        ("small / 7.0", "small / CAST('7.0' AS decimal(2,1))"),
        ("price / 3 / 3", "CAST(CAST(price AS decimal(38,13)) / 3 AS decimal(38,24)) / 3"),
    ],
)
def test_quotients_in_steps(flink: str, step: str) -> None:
    assert only_step(f"SELECT {flink} AS x FROM prices")["select"] == {"x": step}
