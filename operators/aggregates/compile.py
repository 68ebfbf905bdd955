"""Texts like `sum(eur) / count(*)` → an `AggregatePlan`; what several of them need is accumulated once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import ClassVar, TypeVar

import polars as pl
from sqlglot import exp

from operators.aggregates.accumulators import (
    Accumulator,
    Array,
    Collect,
    Count,
    CountRows,
    Distinct,
    Edge,
    Extreme,
    Moments,
    Sketch,
    Sum,
    quantile,
)
from operators.aggregates.plan import AggregatePlan, Input
from operators.element import Schema
from operators.expression.compile import Scalar, finished, translated
from operators.expression.error import ExpressionError, TypeNotKnown
from operators.expression.nodes import is_aggregate, is_unknown_call
from operators.expression.syntax import full_sql_of, sql_of
from operators.expression.translator import Translator
from operators.expression.value import BOOLEAN, FLOAT64, UNORDERED, Value, literal, type_name
from operators.types import UNKNOWN
from state.failure import Actor, Failure

_A = TypeVar("_A", bound=Accumulator)


class AggregateErrors(Failure):
    """Every faulty aggregate by its name; `schema` has all of them, those without a type as `UNKNOWN`."""

    acts: ClassVar[Actor] = "user"

    def __init__(self, errors: Mapping[str, ExpressionError], schema: Schema) -> None:
        self.errors = dict(errors)
        self.schema = schema
        super().__init__("; ".join(f"{name}: {error}" for name, error in self.errors.items()))


def compile_aggregates(aggregates: Mapping[str, str], schema: Schema, key: Sequence[str] = ()) -> AggregatePlan:
    """Compile expressions over aggregates; `key` columns may stand outside of one. Raises AggregateErrors,
    without an error where only the type of a column is not known."""
    shared = _Accumulators(schema)
    outputs: dict[str, Scalar] = {}
    errors: dict[str, ExpressionError] = {}
    for name, text in aggregates.items():
        translator = _Results(shared, key)
        try:
            value = translated(translator, text)
            expr = finished(value, reads_columns=translator.varies)
        except ExpressionError as error:
            errors[name] = error
        except TypeNotKnown:
            pass
        else:
            outputs[name] = Scalar(text, expr, value.dtype, frozenset(translator.columns))
    if len(outputs) < len(aggregates):
        raise AggregateErrors(
            errors, {name: outputs[name].dtype if name in outputs else UNKNOWN for name in aggregates}
        )
    return AggregatePlan(
        inputs=[column for column in schema if column in shared.columns],
        outputs=tuple(outputs.values()),
        names=tuple(outputs),
        accumulators=shared.all,
        sources=tuple(shared.sources.values()),
    )


class _Results(Translator):
    """Translates what surrounds the aggregates, over the key columns."""

    def __init__(self, shared: _Accumulators, key: Sequence[str]) -> None:
        super().__init__({name: shared.schema[name] for name in key})
        self._shared = shared
        self.varies = False  # whether the result depends on the group at all

    def column(self, parts: Sequence[exp.Identifier]) -> Value:
        self.varies = True
        return super().column(parts)

    def aggregate(self, node: exp.Expression, name: str) -> Value:
        self.varies = True
        return self._shared.result(node, name, self)

    def inside(self, node: exp.Expression) -> Translator:
        if is_aggregate(node):
            return _Arguments(self._shared.schema, within=self)
        return _Unclear(self, self._shared.schema) if is_unknown_call(node) else self

    def unknown_column(self, name: str, *, quoted: bool) -> ExpressionError:
        if name.split(".")[0] in self._shared.schema:
            return ExpressionError(f"column {name!r} must stand inside an aggregate or be a key")
        return Translator(self._shared.schema).unknown_column(name, quoted=quoted)


class _Arguments(Translator):
    """Translates what stands inside an aggregate, over the rows."""

    def aggregate(self, node: exp.Expression, name: str) -> Value:
        raise ExpressionError(f"aggregate {name}(…) is not allowed inside an aggregate")


class _Unclear(Translator):
    """Looks for faults in what may stand inside an aggregate or around one."""

    def __init__(self, around: _Results, schema: Schema) -> None:
        super().__init__(schema, within=around)
        self._around = around

    def aggregate(self, node: exp.Expression, name: str) -> Value:
        return self._around.aggregate(node, name)

    def inside(self, node: exp.Expression) -> Translator:
        return self._around.inside(node) if is_aggregate(node) else self


class _Accumulators:
    """The accumulators asked for so far, each once, and the inputs they read."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.columns: set[str] = set()
        self.sources: dict[Hashable, Input] = {}
        self._around: Translator | None = None
        self._accumulators: dict[Hashable, Accumulator] = {}

    @property
    def all(self) -> tuple[Accumulator, ...]:
        return tuple(self._accumulators.values())

    def result(self, node: exp.Expression, name: str, around: Translator) -> Value:
        """The finished result of one aggregate call, with or without `filter (where …)`, found by `around`."""
        self._around = around
        condition = node.expression.this if isinstance(node, exp.Filter) else None
        call = node.this if isinstance(node, exp.Filter) else node
        args = list(call.expressions)
        if name == "count":
            return self._count(args, condition)
        if any(isinstance(arg, exp.Distinct) for arg in args):
            raise ExpressionError("distinct is only supported as count(distinct x)")
        if any(isinstance(arg, exp.Order) for arg in args):
            raise ExpressionError(f"order by is not supported in {name}(…): the order is that of event time")
        wanted = 2 if name == "quantile_cont" else 1
        if len(args) != wanted or isinstance(args[0], exp.Star):
            usage = "quantile_cont(x, q)" if wanted == 2 else f"{name}(x)"
            raise ExpressionError(f"{sql_of(call)}: write {usage}")
        q = _fraction(args[1]) if wanted == 2 else 0.5
        return self._of_values(name, args[0], condition, q)

    def _count(self, args: list[exp.Expression], condition: exp.Expression | None) -> Value:
        if len(args) == 1 and isinstance(args[0], exp.Distinct) and len(args[0].expressions) == 1:
            source, dtype = self._input(args[0].expressions[0], condition)
            if isinstance(dtype, UNORDERED):
                raise ExpressionError(f"count(distinct …) takes no {type_name(dtype)}")
            return _value(self._one(("distinct", source), lambda name: Distinct(name, source, dtype)))
        if len(args) != 1 or isinstance(args[0], exp.Distinct):
            raise ExpressionError("count takes *, one expression or distinct and one expression")
        if not isinstance(args[0], exp.Star):
            source, _ = self._input(args[0], condition)
            return _value(self._one(("count", source), lambda name: Count(name, source)))
        if condition is None:
            return _value(self._one("rows", CountRows))
        source = self._condition(condition)
        return _value(self._one(("count", source), lambda name: Count(name, source)))

    def _of_values(self, name: str, arg: exp.Expression, condition: exp.Expression | None, q: float) -> Value:
        if name in ("first_value", "last_value"):
            source, dtype = self._input(arg, condition)
            last = name == "last_value"
            return _value(self._one((name, source), lambda alias: Edge(alias, source, dtype, last)))
        if name in ("min", "max"):
            source, dtype = self._input(arg, condition)
            if isinstance(dtype, UNORDERED):
                raise ExpressionError(f"{name} takes a value with an order, not {type_name(dtype)}")
            return _value(self._one((name, source), lambda alias: Extreme(alias, source, dtype, name == "max")))
        if name == "approx_count_distinct":
            source, _ = self._input(arg, condition, hashed=True)
            return _value(self._one((name, source), lambda alias: Sketch(alias, source, pl.UInt64())))
        if name == "array_agg":
            return self._array(arg, condition)
        return self._of_numbers(name, arg, condition, q)

    def _of_numbers(self, name: str, arg: exp.Expression, condition: exp.Expression | None, q: float) -> Value:
        if name in ("sum", "avg"):
            source, dtype = self._input(arg, condition, numbers_for=name)
            total = self._one(("sum", source), lambda alias: Sum(alias, source, dtype))
            if name == "sum":
                return _value(total)
            count = self._one(("count", source), lambda alias: Count(alias, source))
            return Value(total.finish().cast(FLOAT64) / count.finish(), FLOAT64)
        source, dtype = self._input(arg, condition, numbers_for=name, as_float=True)
        if name in ("median", "quantile_cont"):
            values = self._one(("values", source), lambda alias: Collect(alias, source, dtype))
            return Value(quantile(values, q), FLOAT64)
        moments = self._one(("moments", source), lambda alias: Moments(alias, source))
        variance = moments.variance(0 if name.endswith("_pop") else 1)
        return Value(variance.sqrt() if name.startswith("stddev") else variance, FLOAT64)

    def _array(self, arg: exp.Expression, condition: exp.Expression | None) -> Value:
        """A filter cannot blank the rows it drops: nulls are elements too."""
        source, dtype = self._input(arg, condition)
        mask = self._condition(condition) if condition is not None else None
        return _value(self._one(("array", source, mask), lambda alias: Array(alias, source, dtype, mask)))

    def _one(self, key: Hashable, make: Callable[[str], _A]) -> _A:
        """The accumulator under `key`, made at its first use."""
        if key not in self._accumulators:
            self._accumulators[key] = make(f"__a{len(self._accumulators)}")
        return self._accumulators[key]  # type: ignore[return-value]

    def _condition(self, condition: exp.Expression) -> str:
        """An input that is true where the condition is and null elsewhere."""
        source, _ = self._register("true", condition, lambda inner: literal(True, BOOLEAN))
        return source

    def _input(
        self,
        arg: exp.Expression,
        condition: exp.Expression | None,
        *,
        numbers_for: str | None = None,
        as_float: bool = False,
        hashed: bool = False,
    ) -> tuple[str, pl.DataType]:
        """The column an aggregate reads and its type; null where the condition is not true."""

        def compute(inner: Translator) -> Value:
            value = inner.visit(arg)
            if numbers_for is not None and not value.is_number:
                raise ExpressionError(f"{numbers_for} takes numbers, not {type_name(value.dtype)}")
            if as_float and value.dtype != FLOAT64:
                return Value(value.expr.cast(FLOAT64), FLOAT64)
            return value

        kind = "float" if as_float else "hash" if hashed else ""
        return self._register(f"{kind} {full_sql_of(arg)}", condition, compute, hashed=hashed)

    def _register(
        self,
        text: str,
        condition: exp.Expression | None,
        compute: Callable[[Translator], Value],
        *,
        hashed: bool = False,
    ) -> tuple[str, pl.DataType]:
        inner = _Arguments(self.schema, within=self._around)
        if condition is None:
            value = compute(inner)
        else:
            text = f"{text} filter (where {full_sql_of(condition)})"
            chosen = inner.boolean(condition, "filter (where …)")
            with inner.only_where(chosen):
                computed = compute(inner)
            value = Value(pl.when(chosen).then(computed.expr), computed.dtype)
        expr = finished(value, reads_columns=bool(inner.columns))
        self.columns |= inner.columns
        if expr.meta.is_column() and not hashed:
            source = Input(expr.meta.output_name(), text, expr, computed=False)
        elif text in self.sources:
            source = self.sources[text]
        else:
            source = Input(f"__i{len(self.sources)}", text, expr, computed=True, hashed=hashed)
        self.sources.setdefault(text if source.computed else source.name, source)
        return source.name, value.dtype


def _value(accumulator: Accumulator) -> Value:
    return Value(accumulator.finish(), accumulator.result)


def _fraction(node: exp.Expression) -> float:
    """The q of quantile_cont."""
    if isinstance(node, exp.Literal) and not node.args.get("is_string"):
        with suppress(ValueError):
            if 0 <= (q := float(node.name)) <= 1:
                return q
    raise ExpressionError("quantile_cont(x, q): q is a number from 0 to 1, written out")
