"""Integer arithmetic and `like` against a plain model of what SQL says."""

from __future__ import annotations

import re
from fractions import Fraction
from math import trunc

import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from operators.expression import compile_scalar

INT64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.integers(-20, 20), st.sampled_from([-(2**63), 2**63 - 1, -1, 0, 1])
)


def model(operator: str, a: int, b: int) -> int | None:
    if operator in "+-*":
        return {"+": a + b, "-": a - b, "*": a * b}[operator]
    if b == 0:
        return None
    quotient = trunc(Fraction(a, b))
    return quotient if operator == "/" else a - b * quotient


@given(st.sampled_from("+-*/%"), INT64, INT64)
@example("/", -(2**63), -1)
@example("%", -(2**63), -1)
@settings(max_examples=150, deadline=None)
def test_integer_arithmetic_is_exact_or_raises(operator: str, a: int, b: int) -> None:
    scalar = compile_scalar(f"a {operator} b", {"a": pl.Int64(), "b": pl.Int64()})
    frame = pl.DataFrame({"a": [a], "b": [b]}, schema={"a": pl.Int64, "b": pl.Int64})
    expected = model(operator, a, b)
    try:
        result = frame.select(scalar.expr).item()
    except pl.exceptions.PolarsError:
        assert expected is not None
        assert not -(2**63) <= expected < 2**63
    else:
        assert result == expected


@given(st.text("aB%_.\\\n é", max_size=6), st.lists(st.text("aB%_.\\\n é", max_size=6), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_like_agrees_with_its_definition(pattern: str, texts: list[str]) -> None:
    regex = "".join(".*" if c == "%" else "." if c == "_" else re.escape(c) for c in pattern)
    scalar = compile_scalar(f"s like '{pattern}'", {"s": pl.String()})
    found = pl.DataFrame({"s": texts}).select(scalar.expr).to_series().to_list()
    assert found == [re.fullmatch(regex, text, re.DOTALL) is not None for text in texts]
