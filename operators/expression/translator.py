"""Syntax tree → `Value`; a node without a handler is refused by name.

A fault does not end the translation: what it says is recorded, what is computed from the faulty part is
passed over in silence, and everything else is still judged. Handlers never see a faulty value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import reduce

import polars as pl
from sqlglot import exp

from operators.element import Schema
from operators.expression.error import ExpressionError, Poisoned, near_name
from operators.expression.functions import REFUSED
from operators.expression.nodes import HANDLERS, is_aggregate, struct_field
from operators.expression.syntax import offset_of, sql_of
from operators.expression.value import BOOLEAN, Value, type_name
from operators.types import UNKNOWN

_HOLDERS = (exp.Where, exp.Distinct)  # not values themselves, but values stand in them
_NO_VALUES = (exp.DataType, exp.Identifier, exp.Order, exp.Star, exp.Var)


class Translator:
    """Translates expressions against one schema and remembers the columns they read.

    `within`: the translator of the same text that this one adds its faults to.
    """

    def __init__(self, schema: Schema, *, within: Translator | None = None) -> None:
        self.schema = schema
        self.columns: set[str] = set()
        self.errors: list[ExpressionError] = within.errors if within is not None else []
        self._visited: dict[int, exp.Expression] = within._visited if within is not None else {}
        self._guards: list[pl.Expr] = []

    def visit(self, node: exp.Expression) -> Value:
        """The node's value. Raises Poisoned where there is none, its faults recorded with their places."""
        self._visited[id(node)] = node
        first = len(self.errors)
        try:
            handler = HANDLERS.get(type(node))
            if handler is None:
                raise ExpressionError(_unsupported(node))
            value = handler(self, node)
        except ExpressionError as error:
            self.errors.append(error)
        except Poisoned:
            pass
        else:
            return Value(~value.expr, BOOLEAN) if node.args.get("negate") else value
        self._judge_rest(node)
        for recorded in self.errors[first:]:
            if recorded.offset is None:
                recorded.offset = offset_of(node)
        raise Poisoned

    def booleans(self, nodes: Sequence[exp.Expression], what: str) -> list[pl.Expr]:
        """Their expressions, each of which must be a boolean."""
        exprs: list[pl.Expr] = []
        for node in nodes:
            try:
                exprs.append(self.boolean(node, what))
            except ExpressionError as error:
                self.errors.append(error)
            except Poisoned:
                pass
        if len(exprs) < len(nodes):
            raise Poisoned
        return exprs

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

    def inside(self, node: exp.Expression) -> Translator:
        """The translator for what stands inside the node."""
        return self

    def aggregate(self, node: exp.Expression, name: str) -> Value:
        """An aggregate call; only allowed where a subclass says so."""
        raise ExpressionError(f"aggregate {name}(…) is not allowed here; aggregates stand under `aggregate`")

    def column(self, parts: Sequence[exp.Identifier]) -> Value:
        """`name` or `name.field.field`; the longest prefix that is a column's name wins."""
        names = [part.name for part in parts]
        for length in range(len(names), 0, -1):
            name = ".".join(names[:length])
            if name in self.schema:
                if self.schema[name] == UNKNOWN:
                    raise Poisoned
                self.columns.add(name)
                return reduce(struct_field, names[length:], Value(pl.col(name), self.schema[name]))
        raise self.unknown_column(".".join(names), quoted=parts[0].args.get("quoted", False))

    def unknown_column(self, name: str, *, quoted: bool) -> ExpressionError:
        """What to say of a name that is no column."""
        if name.lower() in REFUSED:
            return ExpressionError(f"{name} is not available: {REFUSED[name.lower()]}")
        near = near_name(name, self.schema)
        if quoted and near is None:
            return ExpressionError(f"unknown column {name!r}; text is written in single quotes: '{name}'", column=name)
        return ExpressionError(f"unknown column {name!r}", suggestion=near, column=name)

    def _judge_rest(self, node: exp.Expression) -> None:
        """Look for faults in the parts of a faulty node that its handler did not come to."""
        if type(node) not in HANDLERS or isinstance(node, exp.Dot):
            return  # nobody knows what its parts mean; the parts of a dotted name mean nothing alone
        parts = list(node.iter_expressions())
        if isinstance(node, exp.Filter) and is_aggregate(node):
            parts += node.this.iter_expressions()
            self._visited[id(node.this)] = node.this
        inner = self.inside(node)
        for part in parts:
            inner._judge(part)

    def _judge(self, node: exp.Expression) -> None:
        if id(node) in self._visited:
            return
        if isinstance(node, _HOLDERS) or (isinstance(node, exp.If) and isinstance(node.parent, exp.Case)):
            for part in node.iter_expressions():
                self._judge(part)
        elif not isinstance(node, _NO_VALUES):
            with suppress(Poisoned):
                self.visit(node)


def _unsupported(node: exp.Expression) -> str:
    if isinstance(node, (exp.Query, exp.Exists, exp.Subquery)):
        return "a subquery is not supported in an expression"
    if isinstance(node, exp.Window):
        return "over (…) is not supported: windows are declared with `window:`"
    return f"{sql_of(node)} is not supported in an expression"
