"""Syntax tree → `Value`; a node without a handler is refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce

import polars as pl
from sqlglot import exp

from operators.element import Schema
from operators.expression.error import ExpressionError, near_name
from operators.expression.functions import REFUSED
from operators.expression.nodes import HANDLERS, struct_field
from operators.expression.syntax import offset_of, sql_of
from operators.expression.value import BOOLEAN, Value, type_name


class Translator:
    """Translates expressions against one schema and remembers the columns they read."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.columns: set[str] = set()
        self._guards: list[pl.Expr] = []

    def visit(self, node: exp.Expression) -> Value:
        """The node's value. Raises ExpressionError with the place in the text."""
        try:
            handler = HANDLERS.get(type(node))
            if handler is None:
                raise ExpressionError(_unsupported(node))
            value = handler(self, node)
        except ExpressionError as error:
            if error.offset is None:
                error.offset = offset_of(node)
            raise
        return Value(~value.expr, BOOLEAN) if node.args.get("negate") else value

    def boolean(self, node: exp.Expression, what: str) -> pl.Expr:
        """The node's expression, which must be a boolean."""
        value = self.visit(node)
        if value.is_null:
            return value.expr.cast(BOOLEAN)
        if value.dtype != BOOLEAN:
            raise ExpressionError(
                f"{what} takes a boolean, but {sql_of(node)} is {type_name(value.dtype)}", offset=offset_of(node)
            )
        return value.expr

    def guard(self, expr: pl.Expr) -> pl.Expr:
        """`expr` where the surrounding branch is taken, null elsewhere."""
        if not self._guards:
            return expr
        return pl.when(reduce(lambda a, b: a & b, self._guards)).then(expr)

    @contextmanager
    def only_where(self, condition: pl.Expr | None) -> Iterator[None]:
        """Translate a branch that counts only for rows where `condition` is true (None: for every row)."""
        outer = self._guards
        self._guards = outer if condition is None else [*outer, condition]
        try:
            yield
        finally:
            self._guards = outer

    def aggregate(self, node: exp.Expression, name: str) -> Value:
        """An aggregate call; only allowed where a subclass says so."""
        raise ExpressionError(f"aggregate {name}(…) is not allowed here")

    def column(self, parts: Sequence[exp.Identifier]) -> Value:
        """`name` or `name.field.field`; the longest prefix that is a column's name wins."""
        names = [part.name for part in parts]
        for length in range(len(names), 0, -1):
            name = ".".join(names[:length])
            if name in self.schema:
                self.columns.add(name)
                return reduce(struct_field, names[length:], Value(pl.col(name), self.schema[name]))
        raise self.unknown_column(".".join(names), quoted=parts[0].args.get("quoted", False))

    def unknown_column(self, name: str, *, quoted: bool) -> ExpressionError:
        """What to say of a name that is no column."""
        if name.lower() in REFUSED:
            return ExpressionError(f"{name} is not available: {REFUSED[name.lower()]}")
        near = near_name(name, self.schema)
        if quoted and near is None:
            return ExpressionError(f"unknown column {name!r}; text is written in single quotes: '{name}'")
        return ExpressionError(f"unknown column {name!r}", suggestion=near)


def _unsupported(node: exp.Expression) -> str:
    if isinstance(node, (exp.Query, exp.Exists, exp.Subquery)):
        return "a subquery is not supported in an expression"
    if isinstance(node, exp.Window):
        return "over (…) is not supported: windows are declared with `window:`"
    return f"{sql_of(node)} is not supported in an expression"
