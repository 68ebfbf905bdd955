"""Expressions of a file compiled against columns; what is wrong with them recorded where they stand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import polars as pl

from operators.aggregates import AggregateErrors, AggregatePlan, compile_aggregates
from operators.element import Schema
from operators.expression import ExpressionError, Scalar, TypeNotKnown, compile_predicate, compile_scalar
from streamproc.pipeline.columns import side_hint
from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog


def predicate(text: str, schema: Schema, path: FieldPath, log: FaultLog) -> Scalar | None:
    """A condition over rows; None when it does not compile, with its faults (there are none where it only
    reads columns whose type is not known)."""
    try:
        return compile_predicate(text, schema)
    except ExpressionError as error:
        record(error, path, log, known=schema)
    except TypeNotKnown:
        pass
    return None


def scalar(text: str, schema: Schema, path: FieldPath, log: FaultLog, *, beside: Collection[str] = ()) -> Scalar | None:
    """An expression over rows; None as for `predicate`. `beside`: the columns computed in the same place."""
    try:
        return compile_scalar(text, schema)
    except ExpressionError as error:
        record(error, path, log, beside=beside, known=schema)
    except TypeNotKnown:
        pass
    return None


def column(name: str, schema: Schema) -> Scalar:
    """The column itself."""
    return Scalar(name, pl.col(name), schema[name], frozenset({name}))


def aggregates(
    texts: Mapping[str, str], schema: Schema, key: tuple[str, ...], path: FieldPath, log: FaultLog
) -> tuple[AggregatePlan | None, Schema]:
    """All aggregates of a step, and their types as far as known; no plan when one does not compile."""
    try:
        plan = compile_aggregates(texts, schema, key=key)
    except AggregateErrors as errors:
        for name, error in errors.errors.items():
            record(error, (*path, name), log, beside=texts)
        return None, errors.schema
    return plan, plan.schema


def record(
    error: ExpressionError,
    path: FieldPath,
    log: FaultLog,
    *,
    beside: Collection[str] = (),
    known: Collection[str] = (),
) -> None:
    """An expression's faults, each at its place inside the expression. One with references is not quoted:
    what is said about it could hold parts of what they gave. `known`: the columns there are."""
    if log.document.from_reference(path):
        written = log.document.as_written[path]
        log.error(path, f"the expression '{written}' does not compile once its references are replaced")
        return
    for fault in error.all:
        hint = None if fault.suggestion is None else f"did you mean {fault.suggestion!r}?"
        message = fault.message.removesuffix(f"; {hint}")
        if fault.column is not None:
            hint = side_hint(fault.column, known) or hint
        if fault.column in beside and fault.column != path[-1]:
            hint = f"columns computed side by side do not see each other: use '{fault.column}' in a further step"
        log.error(path, message, hint, offset=fault.offset)


def whole_texts(written: Any, texts: Mapping[str, str] | None) -> dict[str, str]:
    """The expressions that could be read, but for those that YAML has cut at a comma: their rest is a name
    without a value, and is told about."""
    cut = isinstance(written, dict) and None in written.values()
    return {name: text for name, text in (texts or {}).items() if not (cut and text.count("(") > text.count(")"))}
