"""However rows are cut into partials and in whatever tree partials are merged, the result is the same."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from operators.aggregates import AggregatePlan, compile_aggregates
from operators.aggregates.grouping import group
from operators.element import TIME

SCHEMA: dict[str, pl.DataType] = {"k": pl.Int64(), "x": pl.Int64(), "f": pl.Float64(), "s": pl.String()}
ROW_SCHEMA = {**SCHEMA, TIME: pl.Int64()}
TEXTS = {
    "rows": "count(*)",
    "count": "count(x)",
    "distinct": "count(distinct s)",
    "sum": "sum(x)",
    "sum_f": "sum(f)",
    "min": "min(s)",
    "max": "max(f)",
    "avg": "avg(x)",
    "stddev": "stddev(f)",
    "variance": "variance(x)",
    "first": "first_value(s)",
    "last": "last_value(s)",
    "median": "median(f)",
    "quantile": "quantile_cont(x, 0.9)",
    "approx": "approx_count_distinct(x)",
    "array": "array_agg(x)",
    "filtered": "sum(x) filter (where f > 0)",
    "ratio": "sum(f) / count(*)",
}
PLAN = compile_aggregates(TEXTS, SCHEMA, ["k"])

ROW = st.tuples(
    st.none() | st.integers(0, 2),
    st.none() | st.integers(-1000, 1000),
    st.none() | st.floats(-1000, 1000, width=16),
    st.none() | st.sampled_from("abcd"),
    st.integers(0, 3),
)


def one_shot(frame: pl.DataFrame) -> pl.DataFrame:
    """The same by polars alone, in one go."""
    in_order = frame.sort(TIME, maintain_order=True)
    x, f, s = pl.col("x"), pl.col("f"), pl.col("s")
    positive = x.filter(f > 0)
    return in_order.group_by("k").agg(
        pl.len().cast(pl.Int64).alias("rows"),
        x.count().cast(pl.Int64).alias("count"),
        s.drop_nulls().n_unique().cast(pl.Int64).alias("distinct"),
        pl.when(x.count() > 0).then(x.sum()).alias("sum"),
        pl.when(f.count() > 0).then(f.sum()).alias("sum_f"),
        s.min().alias("min"),
        f.max().alias("max"),
        x.mean().alias("avg"),
        f.std().alias("stddev"),
        x.var().alias("variance"),
        s.drop_nulls().first().alias("first"),
        s.drop_nulls().last().alias("last"),
        f.median().alias("median"),
        x.quantile(0.9, "linear").alias("quantile"),
        x.drop_nulls().n_unique().cast(pl.Int64).alias("approx"),
        x.alias("array"),
        pl.when(positive.count() > 0).then(positive.sum()).alias("filtered"),
        pl.when(f.count() > 0).then(f.sum() / pl.len()).alias("ratio"),
    )


def merge_tree(plan: AggregatePlan, partials: list[pl.DataFrame], choices: st.DataObject) -> pl.DataFrame:
    """Merge neighbours, which keeps the order of arrival, until one is left."""
    while len(partials) > 1:
        at = choices.draw(st.integers(0, len(partials) - 2))
        count = choices.draw(st.integers(2, len(partials) - at))
        partials[at : at + count] = [plan.merge(pl.concat(partials[at : at + count]), ["k"])]
    return plan.merge(partials[0], ["k"])


@given(st.lists(ROW, min_size=1, max_size=30), st.lists(st.integers(0, 30), max_size=5), st.data())
@settings(max_examples=60, deadline=None)
def test_merging_is_associative(rows: list[tuple[Any, ...]], cuts: list[int], choices: st.DataObject) -> None:
    frame = pl.DataFrame(rows, schema=ROW_SCHEMA, orient="row")
    edges = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    parts = [frame[a:b] for a, b in pairwise(edges)]
    merged = merge_tree(PLAN, [PLAN.partial(part, ["k"]) for part in parts], choices)
    assert dict(merged.schema) == {"k": pl.Int64(), **PLAN.partial_schema}
    result = PLAN.finish(merged, ["k"])
    assert_frame_equal(result.sort("k"), one_shot(frame).sort("k"), abs_tol=1e-6)


KEYS = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(2**40, 2**40 + 2), st.none() | st.integers(0, 1)), min_size=1, max_size=40
)


@given(KEYS, st.sampled_from([["a"], ["a", "b"], ["b", "a"], ["a", "b", "c"], ["c"], []]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_grouping_shortcuts_change_nothing(rows: list[tuple[int, int, int | None]], by: list[str], large: bool) -> None:
    frame = pl.DataFrame(rows, schema={"a": pl.Int32, "b": pl.Int64, "c": pl.Int64}, orient="row")
    if large:  # past the size from which integer keys are packed into one
        frame = pl.concat([frame] * (32_768 // len(rows) + 1))
    result = group(frame, by, [pl.len().cast(pl.Int64).alias("n")])
    assert result.columns == [*by, "n"]
    assert dict(result.schema) == {**{name: frame.schema[name] for name in by}, "n": pl.Int64()}
    keys = sorted((tuple(row[name] for name in by) for row in frame.to_dicts()), key=repr)
    expected = [(*key, len(list(same))) for key, same in groupby(keys)]
    assert sorted(result.rows(), key=lambda row: repr(row[:-1])) == expected
