"""What chooses between values: polars evaluates every branch for every row, SQL only the chosen one.

So each branch is translated under a guard that blanks the rows that do not take it, and what may
raise at run time (casts, integer arithmetic) applies it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from sqlglot import exp

from operators.expression.error import ExpressionError
from operators.expression.nodes.handler import Handler
from operators.expression.promotion import unify
from operators.expression.value import NULL, UNORDERED, Value, literal, type_name

if TYPE_CHECKING:
    from operators.expression.translator import Translator


def _case(translator: Translator, node: exp.Expression) -> Value:
    subject = node.args.get("this")
    branches: list[tuple[exp.Expression, exp.Expression]] = []
    for branch in node.args["ifs"]:
        condition = branch.this if subject is None else exp.EQ(this=subject.copy(), expression=branch.this.copy())
        branches.append((condition, branch.args["true"]))
    return _choose(translator, branches, node.args.get("default"), "case")


def _if(translator: Translator, node: exp.Expression) -> Value:
    return _choose(translator, [(node.this, node.args["true"])], node.args.get("false"), "if")


def _choose(
    translator: Translator,
    branches: Sequence[tuple[exp.Expression, exp.Expression]],
    default: exp.Expression | None,
    what: str,
) -> Value:
    conditions: list[pl.Expr] = []
    results: list[Value] = []
    not_before: pl.Expr | None = None
    for condition, result in branches:
        with translator.only_where(not_before):
            when = translator.boolean(condition, what).fill_null(False)
        with translator.only_where(when if not_before is None else not_before & when):
            results.append(translator.visit(result))
        conditions.append(when)
        not_before = ~when if not_before is None else not_before & ~when
    with translator.only_where(not_before):
        results.append(translator.visit(default) if default is not None else literal(None, NULL))
    unified, dtype = unify(results, f"the results of {what}")
    chain: Any = pl
    for when, value in zip(conditions, unified, strict=False):
        chain = chain.when(when).then(value.expr)
    return Value(chain.otherwise(unified[-1].expr), dtype)


def _coalesce(translator: Translator, node: exp.Expression) -> Value:
    _need(node, 1, None)
    values: list[Value] = []
    for argument in node.expressions:
        if not values:
            values.append(translator.visit(argument))
            continue
        with translator.only_where(reduce(lambda a, b: a & b, [value.expr.is_null() for value in values])):
            values.append(translator.visit(argument))
    unified, dtype = unify(values, "coalesce")
    return Value(pl.coalesce([value.expr for value in unified]), dtype)


def _nullif(translator: Translator, node: exp.Expression) -> Value:
    _need(node, 2, 2)
    value, other = (translator.visit(argument) for argument in node.expressions)
    (a, b), _ = unify((value, other), "nullif")
    dtype = value.dtype
    return Value(pl.when((a.expr == b.expr).fill_null(False)).then(None).otherwise(value.expr).cast(dtype), dtype)


def _extreme(translator: Translator, node: exp.Expression) -> Value:
    """`greatest`, `least`: null as soon as one is, as in Flink."""
    _need(node, 1, None)
    name = str(node.this).lower()
    unified, dtype = unify([translator.visit(argument) for argument in node.expressions], name)
    if isinstance(dtype, UNORDERED):
        raise ExpressionError(f"{name}: {type_name(dtype)} has no order")
    exprs = [value.expr for value in unified]
    extreme = pl.max_horizontal(exprs) if name == "greatest" else pl.min_horizontal(exprs)
    return Value(pl.when(pl.all_horizontal([expr.is_not_null() for expr in exprs])).then(extreme), dtype)


def _need(node: exp.Expression, at_least: int, at_most: int | None) -> None:
    count = len(node.expressions)
    if count < at_least or (at_most is not None and count > at_most):
        wanted = f"{at_least}" if at_most == at_least else f"at least {at_least}"
        raise ExpressionError(f"{node.this}(…) takes {wanted} arguments, not {count}")


CONDITIONALS: Final[dict[type[exp.Expression], Handler]] = {
    exp.Case: _case,
    exp.If: _if,
}
CONDITIONAL_FUNCTIONS: Final[dict[str, Handler]] = {
    "coalesce": _coalesce,
    "ifnull": _coalesce,
    "nullif": _nullif,
    "greatest": _extreme,
    "least": _extreme,
}
