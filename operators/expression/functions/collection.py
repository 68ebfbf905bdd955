"""Functions of lists."""

from __future__ import annotations

import polars as pl

from operators.expression.functions.registry import Call, function
from operators.expression.promotion import unify
from operators.expression.value import BOOLEAN, INT64, Value


@function("list", "cardinality", "array_length")
def _cardinality(call: Call) -> Value:
    return Value(call[0].list.len().cast(INT64), INT64)


@function("list, any", "array_contains", "list_contains")
def _array_contains(call: Call) -> Value:
    """Whether an element equals the value; null for a null list or value."""
    list_type = call.args[0].dtype
    assert isinstance(list_type, pl.List)
    inner = list_type.inner
    assert isinstance(inner, pl.DataType)
    (_, wanted), dtype = unify((Value(call[0], inner), call.args[1]), "array_contains")
    elements = call[0] if dtype == inner else call[0].cast(pl.List(dtype))
    known = call[0].is_not_null() & wanted.expr.is_not_null()
    return Value(pl.when(known).then(elements.list.contains(wanted.expr)), BOOLEAN)
