"""The two ways in: any scalar, and a scalar that must be a boolean."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from operators.element import Schema
from operators.expression.error import ExpressionError, Poisoned, TypeNotKnown
from operators.expression.syntax import parse
from operators.expression.translator import Translator
from operators.expression.value import BOOLEAN, Value, type_name


@dataclass(frozen=True, slots=True)
class Scalar:
    """A compiled expression: one value of type `dtype` per row of a frame that has `columns`.

    Two scalars are equal when text, type and columns are. Evaluating `expr` raises a
    `pl.exceptions.PolarsError` for the whole frame when one row's value cannot be computed.
    """

    text: str
    expr: pl.Expr = field(compare=False, repr=False)
    dtype: pl.DataType
    columns: frozenset[str]


def compile_scalar(text: str, schema: Schema) -> Scalar:
    """Compile a SQL scalar expression over the columns of `schema`. Raises ExpressionError with all faults,
    and TypeNotKnown where there is none but a column's type is `UNKNOWN`."""
    value, columns = _translate(text, schema)
    return Scalar(text, finished(value, reads_columns=bool(columns)), value.dtype, columns)


def compile_predicate(text: str, schema: Schema) -> Scalar:
    """Compile a condition; a row for which it is null does not pass a filter. Raises as `compile_scalar`."""
    value, columns = _translate(text, schema)
    if value.dtype != BOOLEAN:
        raise ExpressionError(f"a condition must be a boolean, this is {type_name(value.dtype)}")
    return Scalar(text, finished(value, reads_columns=bool(columns)), BOOLEAN, columns)


def finished(value: Value, *, reads_columns: bool) -> pl.Expr:
    """The expression of a value that becomes a column. Raises ExpressionError where it cannot be one."""
    if value.is_null:
        raise ExpressionError("null alone has no type; write cast(null as string)")
    if value.is_interval:
        raise ExpressionError("an interval cannot be a column; write extract(epoch from …) for its seconds")
    if reads_columns:
        return value.expr
    # a constant gives one row by itself; tie it to the length of the frame
    return pl.when(pl.int_range(pl.len()) >= 0).then(value.expr)


def translated(translator: Translator, text: str) -> Value:
    """The value of a text. Raises ExpressionError with all faults, or TypeNotKnown."""
    tree = parse(text)
    try:
        return translator.visit(tree)
    except Poisoned:
        if not translator.errors:
            raise TypeNotKnown(f"{text}: the type of a column is not known") from None
        first, *others = {(error.message, error.offset): error for error in translator.errors}.values()
        first.others = tuple(others)
        raise first from None


def _translate(text: str, schema: Schema) -> tuple[Value, frozenset[str]]:
    translator = Translator(schema)
    value = translated(translator, text)
    return value, frozenset(translator.columns)
