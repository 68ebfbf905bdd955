"""What each aggregate gives, and which texts are refused with what words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from operators.aggregates import AggregateErrors, compile_aggregates
from operators.element import TIME

SCHEMA: dict[str, pl.DataType] = {
    "k": pl.String(),
    "x": pl.Int64(),
    "i": pl.Int32(),
    "f": pl.Float64(),
    "s": pl.String(),
    "b": pl.Boolean(),
    "d": pl.Decimal(10, 2),
    "ts": pl.Datetime("ms", "UTC"),
    "l": pl.List(pl.Int64()),
}
MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = pl.DataFrame(
    {
        "k": ["a", "a", "b", "a", None],
        "x": [3, None, 5, 1, None],
        "i": [2**31 - 1, 2**31 - 1, 1, 2**31 - 1, None],
        "f": [0.5, 1.5, 2.0, 4.0, None],
        "s": ["m", "z", "q", None, None],
        "b": [True, None, True, False, None],
        "d": [Decimal("1.25"), Decimal("2.50"), None, None, None],
        "ts": [MIDNIGHT, None, MIDNIGHT, None, None],
        "l": [[1], [2], [3], None, None],
        TIME: [30, 10, 0, 20, 0],
    },
    schema={**SCHEMA, TIME: pl.Int64()},
)


def aggregate(aggregates: Mapping[str, str], frame: pl.DataFrame = ROWS) -> dict[Any, tuple[Any, ...]]:
    """Results by key; the frame is cut in two, so merging is part of every test."""
    plan = compile_aggregates(aggregates, SCHEMA, ["k"])
    partials = pl.concat([plan.partial(part, ["k"]) for part in (frame[:2], frame[2:])])
    assert dict(partials.schema) == {"k": pl.String(), **plan.partial_schema}
    result = plan.finish(plan.merge(partials, ["k"]), ["k"])
    assert dict(result.schema) == {"k": pl.String(), **plan.schema}
    return {row[0]: row[1:] for row in result.rows()}


@pytest.mark.parametrize(
    ("text", "of_a", "of_b", "of_null"),
    [
        ("count(*)", 3, 1, 1),
        ("count(x)", 2, 1, 0),
        ("count(1)", 3, 1, 1),
        ("count(distinct s)", 2, 1, 0),
        ("sum(x)", 4, 5, None),
        ("sum(i)", 3 * (2**31 - 1), 1, None),
        ("sum(f)", 6.0, 2.0, None),
        ("sum(d)", Decimal("3.75"), None, None),
        ("sum(1)", 3, 1, 1),
        ("min(x)", 1, 5, None),
        ("max(s)", "z", "q", None),
        ("min(b)", False, True, None),
        ("max(ts)", MIDNIGHT, MIDNIGHT, None),
        ("avg(x)", 2.0, 5.0, None),
        ("avg(d)", 1.875, None, None),
        ("variance(f)", pytest.approx(3.25), None, None),
        ("var_pop(f)", pytest.approx(3.25 * 2 / 3), 0.0, None),
        ("stddev(x)", pytest.approx(2**0.5), None, None),
        ("stddev_pop(x)", 1.0, 0.0, None),
        ("first_value(f)", 1.5, 2.0, None),
        ("first_value(x)", 1, 5, None),
        ("last_value(s)", "m", "q", None),
        ("median(f)", 1.5, 2.0, None),
        ("quantile_cont(x, 0.75)", 2.5, 5.0, None),
        ("approx_count_distinct(s)", 2, 1, 0),
        ("array_agg(x)", [None, 1, 3], [5], [None]),
        ("array_agg(l)", [[2], None, [1]], [[3]], [None]),
        ("array_agg(x) filter (where f > 1)", [None, 1], [5], None),
        ("array_agg(x) filter (where x is null)", [None], None, [None]),
        ("count(*) filter (where f > 1)", 2, 1, 0),
        ("sum(f) filter (where x is not null)", 4.5, 2.0, None),
        ("sum(cast(s as int)) filter (where s = '1')", None, None, None),
        ("count(distinct x % 2)", 1, 1, 0),
        ("sum(f) / count(*)", 2.0, 2.0, None),
        ("sum(x) / count(*)", 1, 5, None),
        ("coalesce(sum(x), 0) + 1", 5, 6, 1),
        ("case when count(x) > 1 then 'many' else k end", "many", "b", None),
        ("upper(k) || '!'", "A!", "B!", None),
        ("max(f) - min(f) > 1", True, False, None),
        ("1", 1, 1, 1),
    ],
)
def test_results(text: str, of_a: Any, of_b: Any, of_null: Any) -> None:
    assert aggregate({"result": text}) == {"a": (of_a,), "b": (of_b,), None: (of_null,)}


def test_columns_are_named_and_ordered_as_written() -> None:
    plan = compile_aggregates({"revenue": "sum(f)", "orders": "count(*)"}, SCHEMA, ["k"])
    assert list(plan.schema.items()) == [("revenue", pl.Float64()), ("orders", pl.Int64())]
    assert plan.inputs == ["f"]


def test_what_several_aggregates_need_is_accumulated_once() -> None:
    texts = {"n": "count(*)", "mean": "avg(f)", "total": "sum(f)", "again": "sum(f) / count(f) + count(*)"}
    assert len(compile_aggregates(texts, SCHEMA).partial_schema) == 3


def test_plans_are_compared_by_what_was_written() -> None:
    assert compile_aggregates({"n": "sum(x)"}, SCHEMA) == compile_aggregates({"n": "sum(x)"}, SCHEMA)
    assert compile_aggregates({"n": "sum(x)"}, SCHEMA) != compile_aggregates({"n": "sum(x + 1)"}, SCHEMA)
    assert compile_aggregates({"n": "sum(x + 2)"}, SCHEMA) != compile_aggregates({"n": "sum(x + 1)"}, SCHEMA)


@pytest.mark.parametrize("by", [[], ["k"], ["slice", "k"], ["k", "slice"]])
def test_any_grouping_works_also_without_rows(by: list[str]) -> None:
    texts = {"n": "count(*)", "m": "median(f)", "a": "array_agg(x)", "d": "count(distinct s)", "v": "variance(f)"}
    plan = compile_aggregates(texts, SCHEMA)
    frame = ROWS.with_columns(slice=pl.lit(7, dtype=pl.Int64))
    result = plan.finish(plan.merge(plan.partial(frame, by), by), by)
    assert result.columns == [*by, *texts]
    assert result.get_column("n").sum() == 5
    assert result.height == (3 if by else 1)
    empty = plan.finish(plan.merge(plan.partial(frame.clear(), by), by), by)
    assert_frame_equal(empty, result.clear())


def test_a_tie_of_event_time_goes_to_arrival() -> None:
    frame = pl.DataFrame({"k": "a", "x": [1, 2, 3, 4], TIME: [5, 5, 5, 5]})
    schema: dict[str, pl.DataType] = {"k": pl.String(), "x": pl.Int64()}
    plan = compile_aggregates({"f": "first_value(x)", "l": "last_value(x)", "a": "array_agg(x)"}, schema)
    partials = pl.concat([plan.partial(frame[i : i + 1], ["k"]) for i in range(4)])
    result = plan.finish(plan.merge(partials, ["k"]), ["k"])
    assert result.rows() == [("a", 1, 4, [1, 2, 3, 4])]


@pytest.mark.parametrize("times", [[1, 2, 3], [3, 2, 1], [1, 1, 1], [1, 1, 2], [1, 2, 2], [2, 1, 1], [2, 2, 1]])
@pytest.mark.parametrize("sortedness", ["unknown", "known"])
def test_first_and_last_do_not_depend_on_what_polars_knows_of_the_order(times: list[int], sortedness: str) -> None:
    schema: dict[str, pl.DataType] = {"k": pl.String(), "x": pl.Int64()}
    plan = compile_aggregates({"f": "first_value(x)", "l": "last_value(x)", "a": "array_agg(x)"}, schema)
    frame = pl.DataFrame({"k": ["a", "b"] * 3, "x": range(6), TIME: [time for time in times for _ in "ab"]})
    partials = pl.concat([plan.partial(frame[i : i + 1], ["k"]) for i in range(6)])
    if sortedness == "known":
        descending = times[0] > times[-1]
        flagged = [pl.col(name).set_sorted(descending=descending) for name in ("__a0_time", "__a1_time")]
        partials = partials.with_columns(flagged)
    result = plan.finish(plan.merge(partials, ["k"]), ["k"]).sort("k")
    in_order = sorted(range(3), key=times.__getitem__)
    assert result.get_column("a").to_list() == [[2 * i for i in in_order], [2 * i + 1 for i in in_order]]
    assert result.get_column("f").to_list() == [2 * in_order[0], 2 * in_order[0] + 1]
    assert result.get_column("l").to_list() == [2 * in_order[-1], 2 * in_order[-1] + 1]


def test_without_event_time_the_order_is_that_of_arrival() -> None:
    assert aggregate({"last": "last_value(f)"}, ROWS.drop(TIME))["a"] == (4.0,)


def test_a_sum_that_does_not_fit_raises() -> None:
    plan = compile_aggregates({"total": "sum(x)"}, SCHEMA)
    row = ROWS.clear(1).with_columns(k=pl.lit("a"), x=pl.lit(2**62, dtype=pl.Int64))
    with pytest.raises(pl.exceptions.PolarsError):
        plan.partial(pl.concat([row, row]), ["k"])
    partial = plan.partial(row, ["k"])
    with pytest.raises(pl.exceptions.PolarsError):
        plan.merge(pl.concat([partial, partial]), ["k"])


def test_variance_does_not_cancel() -> None:
    frame = pl.DataFrame({"k": "a", "f": [1e9 + offset for offset in (4.0, 7.0, 13.0, 16.0)]})
    plan = compile_aggregates({"v": "variance(f)"}, {"k": pl.String(), "f": pl.Float64()})
    partials = pl.concat([plan.partial(frame[i : i + 1], ["k"]) for i in range(4)])
    assert plan.finish(plan.merge(partials, ["k"]), ["k"]).item(0, "v") == 30.0


def test_approx_count_distinct_is_near_for_many_and_bounded_in_size() -> None:
    plan = compile_aggregates({"n": "approx_count_distinct(x)"}, SCHEMA)
    frames = [pl.DataFrame({"k": "a", "x": range(start, start + 60_000)}) for start in (0, 30_000, 60_000)]
    merged = plan.merge(pl.concat([plan.partial(frame, ["k"]) for frame in frames]), ["k"])
    assert plan.weight(merged) == 1 + 1024
    estimate = plan.finish(merged, ["k"]).item(0, "n")
    assert 0.9 < estimate / 120_000 < 1.1


def test_lists_weigh_as_many_rows_as_they_have_elements() -> None:
    assert compile_aggregates({"n": "count(*)"}, SCHEMA).weight(pl.DataFrame({"__a0": [1, 2]})) == 2
    plan = compile_aggregates({"m": "median(f)"}, SCHEMA)
    assert plan.weight(plan.partial(ROWS, ["k"])) == 3 + 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "column 'x' must stand inside an aggregate or be a key"),
        ("sum(x) + f", "column 'f' must stand inside an aggregate or be a key"),
        ("sum(y)", "unknown column 'y'"),
        ("sm(x)", "unknown function 'sm'; did you mean 'sum'?"),
        ("sum(s)", "sum takes numbers, not string"),
        ("sum(sum(x))", "aggregate sum(…) is not allowed inside an aggregate"),
        ("sum(distinct x)", "distinct is only supported as count(distinct x)"),
        ("sum(*)", "sum(*): write sum(x)"),
        ("sum(x, f)", "sum(x, f): write sum(x)"),
        ("count()", "count takes *, one expression or distinct and one expression"),
        ("count(distinct x, f)", "count takes *, one expression or distinct and one expression"),
        ("count(distinct l)", "count(distinct …) takes no list[int64]"),
        ("min(l)", "min takes a value with an order, not list[int64]"),
        ("median(s)", "median takes numbers, not string"),
        ("quantile_cont(x)", "quantile_cont(x): write quantile_cont(x, q)"),
        ("quantile_cont(x, 2)", "quantile_cont(x, q): q is a number from 0 to 1, written out"),
        ("quantile_cont(x, f)", "quantile_cont(x, q): q is a number from 0 to 1, written out"),
        ("array_agg(x order by f)", "order by is not supported in array_agg(…): the order is that of event time"),
        ("sum(x) filter (where f)", "filter (where …) takes a boolean, but f is float64"),
        ("upper(k) filter (where f > 1)", "filter (where …) belongs to an aggregate"),
        ("sum(x) over ()", "over (…) is not supported: windows are declared with `window:`"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(AggregateErrors) as caught:
        compile_aggregates({"result": text}, SCHEMA, ["k"])
    assert str(caught.value.errors["result"]) == message


def test_every_faulty_aggregate_is_reported_by_name() -> None:
    with pytest.raises(AggregateErrors) as caught:
        compile_aggregates({"good": "count(*)", "bad": "sum(y)", "worse": "+"}, SCHEMA)
    assert list(caught.value.errors) == ["bad", "worse"]
    assert caught.value.acts == "user"
