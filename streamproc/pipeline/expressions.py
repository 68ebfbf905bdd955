"""Expressions of a file compiled against columns; what is wrong with them recorded where they stand."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from operators.aggregates import AggregateErrors, AggregatePlan, compile_aggregates
from operators.element import Schema
from operators.expression import ExpressionError, Scalar, compile_predicate, compile_scalar
from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog


def predicate(text: str, schema: Schema, path: FieldPath, log: FaultLog) -> Scalar | None:
    """A condition over rows; None with a fault when it does not compile."""
    try:
        return compile_predicate(text, schema)
    except ExpressionError as error:
        record(error, path, log)
        return None


def scalar(text: str, schema: Schema, path: FieldPath, log: FaultLog) -> Scalar | None:
    """An expression over rows; None with a fault when it does not compile."""
    try:
        return compile_scalar(text, schema)
    except ExpressionError as error:
        record(error, path, log)
        return None


def column(name: str, schema: Schema) -> Scalar:
    """The column itself."""
    return Scalar(name, pl.col(name), schema[name], frozenset({name}))


def aggregates(
    texts: Mapping[str, str], schema: Schema, key: tuple[str, ...], path: FieldPath, log: FaultLog
) -> AggregatePlan | None:
    """All aggregates of a step; None with a fault for each that does not compile."""
    try:
        return compile_aggregates(texts, schema, key=key)
    except AggregateErrors as errors:
        for name, error in errors.errors.items():
            record(error, (*path, name), log)
        return None


def record(error: ExpressionError, path: FieldPath, log: FaultLog) -> None:
    """An expression's fault at its place inside the expression. One with references is not quoted: what
    is said about it could hold parts of what they gave."""
    if log.document.from_reference(path):
        written = log.document.as_written[path]
        log.error(path, f"the expression '{written}' does not compile once its references are replaced")
        return
    if error.suggestion is None:
        log.error(path, error.message, offset=error.offset)
        return
    hint = f"did you mean {error.suggestion!r}?"
    log.error(path, error.message.removesuffix(f"; {hint}"), hint, offset=error.offset)
