"""Filter and project: hidden columns, nulls, and rows on which an expression fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from operators.connector import ERRORS_SCHEMA
from operators.element import ROW_WATERMARK, TIME, WATERMARK_MIN, Schema
from operators.expression import Scalar, compile_predicate, compile_scalar
from operators.operator import Operator, OperatorContext, OperatorSpec, Output
from operators.row_errors import RecordFailed
from operators.stateless import FilterSpec, ProjectSpec
from state.key_group import KeyGroupRange

SCHEMA: Schema = {"id": pl.Int64(), "text": pl.String()}
PARSED: Schema = {"n": pl.Int64()}


def created(spec: OperatorSpec) -> tuple[Operator, OperatorContext]:
    context = OperatorContext("clean", 0, 128, KeyGroupRange(0, 127), None)
    return spec.create(context), context


def rows(*texts: str | None) -> pl.DataFrame:
    columns = {"id": range(len(texts)), "text": texts, TIME: range(1000, 1000 + len(texts)), ROW_WATERMARK: 0}
    return pl.DataFrame(columns, schema={**SCHEMA, TIME: pl.Int64(), ROW_WATERMARK: pl.Int64()})


def process(operator: Operator, frame: pl.DataFrame) -> dict[str, pl.DataFrame]:
    outputs: list[Output] = list(operator.process(frame, WATERMARK_MIN))
    assert len({output.tag for output in outputs}) == len(outputs)
    return {output.tag: output.frame for output in outputs}


def number() -> Scalar:
    return compile_scalar("cast(text as bigint)", SCHEMA)


def test_a_filter_keeps_what_is_true_and_counts_the_rest() -> None:
    operator, context = created(FilterSpec(compile_predicate("text <> 'b'", SCHEMA), SCHEMA))
    frame = rows("a", "b", None, "c")
    assert_frame_equal(process(operator, frame)["main"], frame[[0, 3]])
    assert context.counters.filtered == 2
    assert process(operator, rows("b")) == {}


def test_a_projection_computes_columns_in_order_and_carries_the_hidden_ones() -> None:
    columns = {"upper": compile_scalar("upper(text)", SCHEMA), "id": compile_scalar("id + 1", SCHEMA)}
    operator, _ = created(ProjectSpec(columns, {"upper": pl.String(), "id": pl.Int64()}))
    result = process(operator, rows("a", "b"))["main"]
    assert result.columns == ["upper", "id", TIME, ROW_WATERMARK]
    assert result.rows() == [("A", 1, 1000, 0), ("B", 2, 1001, 0)]


def test_constants_alone_have_a_value_in_every_row() -> None:
    operator, _ = created(ProjectSpec({"one": compile_scalar("1", SCHEMA)}, {"one": pl.Int32()}))
    frame = rows("a", "b", "c").drop(TIME, ROW_WATERMARK)
    assert process(operator, frame)["main"].get_column("one").to_list() == [1, 1, 1]


def test_a_bad_row_fails_the_step_with_its_place_and_values() -> None:
    operator, _ = created(ProjectSpec({"id": compile_scalar("id", SCHEMA), "n": number()}, PARSED))
    with pytest.raises(RecordFailed) as caught:
        process(operator, rows("1", "x" * 1000, "3"))
    failure = caught.value
    assert (failure.acts, failure.retry_helps) == ("user", False)
    assert (failure.step, failure.expression) == ("clean", "n: cast(text as bigint)")
    assert json.loads(failure.row) == {"id": 1, "text": "x" * 1000}
    assert len(str(failure)) < 1000


def test_a_filter_that_fails_names_its_condition() -> None:
    operator, _ = created(FilterSpec(compile_predicate("cast(text as bigint) > 1", SCHEMA), SCHEMA))
    with pytest.raises(RecordFailed, match=r"step clean: where cast\(text as bigint\) > 1 failed on"):
        process(operator, rows("1", "no"))


def test_skipped_rows_are_counted_and_the_good_ones_go_on_in_order() -> None:
    operator, context = created(FilterSpec(compile_predicate("cast(text as bigint) > 1", SCHEMA), SCHEMA, "skip"))
    result = process(operator, rows("5", "x", "1", "y", "7"))
    assert result.keys() == {"main"}
    assert result["main"].get_column("text").to_list() == ["5", "7"]
    assert (context.counters.errors, context.counters.filtered) == (2, 1)


def test_the_dead_letter_queue_gets_the_row_as_it_came() -> None:
    operator, context = created(ProjectSpec({"n": number()}, PARSED, "dlq"))
    result = process(operator, rows("1", "ü", None))
    assert result["main"].get_column("n").to_list() == [1, None]
    errors = result["errors"]
    assert errors.schema == pl.Schema(ERRORS_SCHEMA)
    [error] = errors.to_dicts()
    assert error["time"] == datetime(1970, 1, 1, 0, 0, 1, 1000, tzinfo=UTC)
    assert (error["step"], error["offset"], error["source"]) == ("clean", None, None)
    assert error["value"] == '{"id": 1, "text": "ü"}'.encode()
    assert "conversion" in error["error"]
    assert "\n" not in error["error"]
    assert context.counters.errors == 1


def test_every_type_has_a_form_in_the_dead_letter_queue() -> None:
    schema: Schema = {
        "text": pl.String(),
        "at": pl.Datetime("us", "UTC"),
        "day": pl.Date(),
        "price": pl.Decimal(10, 2),
        "raw": pl.Binary(),
        "ratio": pl.Float64(),
        "nested": pl.Struct({"items": pl.List(pl.Float64())}),
    }
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    values = {"text": "x", "at": at, "day": at.date(), "price": "1.50", "raw": b"\xff", "ratio": float("nan")}
    frame = pl.DataFrame([values | {"nested": {"items": [1.5, float("inf")]}}], schema=schema | {"price": pl.String()})
    operator, _ = created(ProjectSpec({"n": compile_scalar("cast(text as bigint)", schema)}, PARSED, "dlq"))
    [value] = process(operator, frame.cast({"price": pl.Decimal(10, 2)}))["errors"].get_column("value")
    assert json.loads(value) == {
        "text": "x",
        "at": "2026-01-02T03:04:05.000Z",
        "day": "2026-01-02",
        "price": "1.50",
        "raw": "/w==",
        "ratio": None,
        "nested": {"items": [1.5, None]},
    }


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(st.sampled_from(["1", "2", "bad"]), min_size=1, max_size=40))
def test_exactly_the_bad_rows_are_taken_out(texts: list[str]) -> None:
    operator, context = created(ProjectSpec({"n": number()}, PARSED, "dlq"))
    result = process(operator, rows(*texts))
    good = result["main"].get_column("n").to_list() if "main" in result else []
    assert good == [int(text) for text in texts if text != "bad"]
    assert context.counters.errors == texts.count("bad")
    if "bad" in texts:
        assert [json.loads(value)["text"] for value in result["errors"]["value"]] == ["bad"] * texts.count("bad")


def test_one_bad_row_among_many_costs_few_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    operator, _ = created(ProjectSpec({"n": number()}, PARSED, "skip"))
    evaluations = 0
    select: Callable[..., pl.DataFrame] = pl.DataFrame.select

    def counting(self: pl.DataFrame, *exprs: object, **named: object) -> pl.DataFrame:
        nonlocal evaluations
        evaluations += 1
        return select(self, *exprs, **named)

    monkeypatch.setattr(pl.DataFrame, "select", counting)
    frame = rows(*["1"] * 7000, "bad", *["2"] * 9384)
    evaluations = 0
    assert process(operator, frame)["main"].height == 16_384
    assert evaluations < 40


def test_a_defect_is_not_blamed_on_the_rows() -> None:
    missing = Scalar("missing", pl.col("missing"), pl.Int64(), frozenset({"missing"}))
    operator, context = created(ProjectSpec({"n": missing}, PARSED, "skip"))
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        process(operator, rows("1"))
    assert context.counters.errors == 0


def test_explain_shows_the_expressions() -> None:
    assert FilterSpec(compile_predicate("id > 0", SCHEMA), SCHEMA).describe() == "where id > 0"
    columns = {"id": compile_scalar("id", SCHEMA), "n": number()}
    assert ProjectSpec(columns, PARSED).describe() == "select id, cast(text as bigint) as n"
