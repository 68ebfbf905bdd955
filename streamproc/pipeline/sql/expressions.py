"""A scalar of the query → the text of the same scalar in a step, with Flink's meaning.

Names are those of the draft, Flink's own functions become the project's, and what depends on types
(literals with a fraction, averages, text of timestamps) is written so that it gives Flink's value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

import polars as pl
import sqlglot
from sqlglot import exp

from operators.element import Schema
from operators.expression import ExpressionError, TypeNotKnown, compile_scalar
from operators.expression.casting import target_type
from operators.expression.nodes import is_aggregate
from operators.expression.syntax import StreamSql
from operators.types import name_of
from streamproc.pipeline.sql.decimals import Exact, exact_type, keep, quotient
from streamproc.pipeline.sql.fault import fault
from streamproc.pipeline.sql.rows import Reference, Rows, identifier

_DECIMAL_PRECISION_MAX: Final = 38
_UNIT_MS: Final = {"second": 1_000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000, "week": 604_800_000}
_SPREADS: Final = ("stddev", "stddev_samp", "stddev_pop", "variance", "var_samp", "var_pop")
_UNIT_MONTHS: Final = ("month", "quarter", "year")


def written(node: exp.Expression, rows: Rows) -> str:
    """A resolved expression as a step over the draft of `rows` says it. Raises SqlFault."""
    return text_of(over(node, rows), rows.schema)


def over(node: exp.Expression, rows: Rows) -> exp.Expression:
    """The expression with the draft's columns in place of the query's."""
    holder = exp.Paren(this=node.copy())
    for reference in list(holder.find_all(Reference)):
        if reference.column not in rows.columns:
            name = reference.column[1]
            raise fault(reference, f"column '{name}' must stand inside an aggregate or in GROUP BY")
        bound = rows.columns[reference.column].copy()
        if fields := reference.args["fields"]:
            bound = exp.Dot.build([bound, *(identifier(part) for part in fields.split("."))])
        elif not isinstance(bound, exp.Column | exp.Literal) and reference.parent is not holder:
            bound = exp.Paren(this=bound)
        reference.replace(bound)
    return holder.this  # type: ignore[no-any-return]


def text_of(node: exp.Expression, schema: Schema) -> str:
    """An expression over columns of `schema` as a step says it. Raises SqlFault for what steps have no word for."""
    if node.find(exp.Query, exp.Exists) is not None:
        raise fault(node, "a subquery cannot stand in an expression", "join it, or write WHERE [NOT] EXISTS (…)")
    if (window := node.find(exp.Window)) is not None:
        raise fault(window, "OVER cannot stand here", "compute it in a subquery of FROM")
    holder = exp.Paren(this=node.copy())
    for part in reversed(list(holder.this.bfs())):
        rewrite = _call if isinstance(part, exp.Anonymous) else _REWRITES.get(type(part))
        if rewrite is not None:
            replaced = rewrite(part, schema)
            if replaced is not part:
                part.replace(replaced)
    return _sql(holder.this)


def type_of(node: exp.Expression, schema: Schema) -> pl.DataType | None:
    """The type of an expression that a step could have; None where it is not known."""
    try:
        return compile_scalar(_sql(node), schema).dtype
    except (ExpressionError, TypeNotKnown):
        return None


def _sql(node: exp.Expression) -> str:
    return node.sql(dialect=StreamSql, comments=False, normalize_functions="lower")


def _function(name: str, *args: exp.Expression) -> exp.Expression:
    return exp.Anonymous(this=name, expressions=list(args))


def _type(name: str) -> exp.DataType:
    return exp.DataType(this=exp.DType.USERDEFINED, kind=name)


def _cast(value: exp.Expression, dtype: str) -> exp.Expression:
    return exp.Cast(this=value, to=_type(dtype))


def _literal(node: exp.Expression, schema: Schema) -> exp.Expression:
    """A number with a fraction is an exact decimal; only with an exponent it is a double."""
    text = node.name
    if node.args.get("is_string") or text.isdigit() or "e" in text.lower():
        return node
    digits = text.replace(".", "").lstrip("0")
    scale = len(text.partition(".")[2])
    precision = max(len(digits), scale, 1)
    if precision > _DECIMAL_PRECISION_MAX:
        raise fault(node, f"{text} has more than {_DECIMAL_PRECISION_MAX} digits")
    return _cast(exp.Literal.string(text), f"decimal({precision},{scale})")


def _cast_node(node: exp.Expression, schema: Schema) -> exp.Expression:
    target = node.args["to"]
    kind = str(target.args.get("kind") or target.this.value).lower()
    if kind in ("char", "nchar") or (kind in ("varchar", "nvarchar") and target.expressions):
        raise fault(node, f"{kind}(…) has a length", "write CAST(… AS STRING)")
    if kind in ("decimal", "numeric") and not target.expressions:
        name = "decimal(10,0)"
    elif kind == "time":
        raise fault(node, "there is no type TIME", "write CAST(… AS STRING)")
    else:
        try:
            name = _cast_name(target_type(target))
        except ExpressionError:
            return node  # told when the step is planned
    if kind.startswith("timestamp") and [size.name for size in target.expressions] == ["0"]:
        return _function("date_trunc", exp.Literal.string("second"), exp.Cast(this=node.this, to=_type(name)))
    node.set("to", _type(name))
    node.set("_type", None)
    if name not in ("string", "binary") and type_of(node.this, schema) == pl.String():
        node.set("this", _function("trim", node.this))
    return _as_text(node, schema) if name == "string" else node


def _cast_name(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Datetime):
        return "timestamp_ms" if dtype.time_unit == "ms" else "timestamp_us"
    return name_of(dtype)


def _as_text(node: exp.Expression, schema: Schema) -> exp.Expression:
    """Flink's text of a timestamp has a space and no zone; of a boolean it is in capitals."""
    dtype = type_of(node.this, schema)
    if isinstance(dtype, pl.Datetime):
        digits = "SSS" if dtype.time_unit == "ms" else "SSSSSS"
        return _function("date_format", node.this.copy(), exp.Literal.string(f"yyyy-MM-dd HH:mm:ss.{digits}"))
    if dtype == pl.Boolean():
        return _function("upper", node.copy())
    return node


def _aggregate(node: exp.Expression, schema: Schema) -> exp.Expression:
    """AVG has the type of what it averages: exact for integers, cut toward zero. So have the spreads of integers."""
    call = node.this if isinstance(node, exp.Filter) else node
    name = str(call.this).lower()
    if name not in ("avg", *_SPREADS) or len(call.expressions) != 1:
        return node
    dtype = type_of(call.expressions[0], schema)
    if dtype is not None and dtype.is_integer() and name in _SPREADS:
        return _whole_spread(node, call, name)
    if name != "avg" or dtype is None or not (dtype.is_integer() or isinstance(dtype, pl.Decimal)):
        return node
    total, count = node.copy(), node.copy()
    for copied, name in ((total, "sum"), (count, "count")):
        (copied.this if isinstance(copied, exp.Filter) else copied).set("this", name)
    average = exp.Paren(this=exp.Div(this=total, expression=count))
    if isinstance(dtype, pl.Decimal):
        average.this.set("this", _cast(total, f"decimal(38,{max(6, dtype.scale)})"))
        keep(average, Exact(_DECIMAL_PRECISION_MAX, max(6, dtype.scale)))
    return average


def _division(node: exp.Expression, schema: Schema) -> exp.Expression:
    """A quotient of decimals has the digits that it has in Flink."""
    left, right = exact_type(node.this, schema), exact_type(node.expression, schema)
    if left is None or right is None or (left.whole and right.whole):
        return node
    dtype = quotient(left, right)
    if dtype.scale > max(6, left.scale, right.scale):
        node.set("this", _cast(node.this, f"decimal({_DECIMAL_PRECISION_MAX},{dtype.scale})"))
    return keep(node, dtype)


def _whole_spread(node: exp.Expression, call: exp.Expression, name: str) -> exp.Expression:
    """A variance or deviation of integers as Flink has it, every quotient on the way cut; but it never overflows."""
    (value,) = call.expressions
    where = f" filter ({_sql(node.expression)})" if isinstance(node, exp.Filter) else ""
    exact = f"cast({_sql(value)} as decimal(38,0))"
    total, squares = f"sum({exact}){where}", f"sum({exact} * {exact}){where}"
    count = f"count({_sql(value)}){where}"
    mean = f"({total} * {total} - {total} * {total} % {count}) / {count}"
    rest, divisor = f"({squares} - {mean})", count if name.endswith("_pop") else f"({count} - 1)"
    variance = f"({rest} - {rest} % {divisor}) / {divisor}"
    text = f"sqrt(cast({variance} as float64))" if name.startswith("stddev") else variance
    return cast(exp.Expression, sqlglot.parse_one(f"cast({text} as int64)", read=StreamSql))


def _call(node: exp.Expression, schema: Schema) -> exp.Expression:
    if is_aggregate(node):
        return node if isinstance(node.parent, exp.Filter) else _aggregate(node, schema)
    rewrite = _CALLS.get(str(node.this).lower())
    return node if rewrite is None else rewrite(node)


def _filter(node: exp.Expression, schema: Schema) -> exp.Expression:
    return _aggregate(node, schema) if is_aggregate(node) else node


def _to_timestamp_ltz(node: exp.Expression) -> exp.Expression:
    value, *precision = node.expressions
    digits = precision[0].name if precision else "3"
    if digits == "3":
        return _function("epoch_ms", value)
    if digits == "0":
        return _function("to_timestamp", value)
    raise fault(node, "TO_TIMESTAMP_LTZ takes 0 (seconds) or 3 (milliseconds) as its precision")


def _to_timestamp(node: exp.Expression) -> exp.Expression:
    """Null where the text is no timestamp."""
    value, *pattern = node.expressions
    if pattern:
        return _function("parse_timestamp", value, *pattern)
    return exp.TryCast(this=value, to=_type("timestamp_ms"))


def _to_date(node: exp.Expression) -> exp.Expression:
    value, *pattern = node.expressions
    if pattern:
        return _cast(_function("parse_timestamp", value, *pattern), "date")
    return exp.TryCast(this=value, to=_type("date"))


def _unix_timestamp(node: exp.Expression) -> exp.Expression:
    """Seconds of a text; without one it would be those of the clock."""
    return _function("epoch", _to_timestamp(node)) if node.expressions else node


def _from_unixtime(node: exp.Expression) -> exp.Expression:
    seconds, *pattern = node.expressions
    shape = pattern[0] if pattern else exp.Literal.string("yyyy-MM-dd HH:mm:ss")
    return _function("date_format", _function("to_timestamp", seconds), shape)


def _timestampdiff(node: exp.Expression) -> exp.Expression:
    unit, start, end = _time_arguments(node, tuple(_UNIT_MS))
    difference = exp.Sub(this=_function("epoch_ms", end), expression=_function("epoch_ms", start))
    return exp.Paren(this=exp.Div(this=exp.Paren(this=difference), expression=exp.Literal.number(_UNIT_MS[unit])))


def _timestampadd(node: exp.Expression) -> exp.Expression:
    unit, amount, moment = _time_arguments(node, (*_UNIT_MS, *_UNIT_MONTHS))
    negative = isinstance(amount, exp.Neg)
    number = amount.this if negative else amount
    if not isinstance(number, exp.Literal):
        raise fault(node, "TIMESTAMPADD takes a number that is written out")
    interval = exp.Interval(this=exp.Literal.string(number.name), unit=exp.Var(this=unit.upper()))
    return exp.Paren(this=(exp.Sub if negative else exp.Add)(this=moment, expression=interval))


def _time_arguments(node: exp.Expression, units: tuple[str, ...]) -> tuple[str, exp.Expression, exp.Expression]:
    if len(node.expressions) != 3:
        raise fault(node, f"{node.this} takes a unit and two values")
    unit = node.expressions[0].name.lower()
    if unit not in units:
        raise fault(node, f"{node.this} takes {', '.join(units).upper()}, not {unit.upper()}")
    return unit, node.expressions[1], node.expressions[2]


def _swapped(name: str) -> Callable[[exp.Expression], exp.Expression]:
    return lambda node: _function(name, *reversed(node.expressions))


def _part(unit: str) -> Callable[[exp.Expression], exp.Expression]:
    return lambda node: _function("date_part", exp.Literal.string(unit), *node.expressions)


def _floor(node: exp.Expression) -> exp.Expression:
    """The start of a unit; a week begins on Sunday."""
    unit, moment = node.expressions
    if unit.name != "week":
        return _function("date_trunc", unit, moment)
    day = exp.Interval(this=exp.Literal.string("1"), unit=exp.Var(this="DAY"))
    monday = _function("date_trunc", unit, exp.Add(this=moment, expression=day))
    return exp.Paren(this=exp.Sub(this=monday, expression=day.copy()))


def _ceiling(node: exp.Expression) -> exp.Expression:
    """The moment itself where it is a whole unit, else the start of the next one."""
    unit, moment = node.expressions
    start = _floor(node.copy())
    step = exp.Interval(this=exp.Literal.string("1"), unit=exp.Var(this=unit.name.upper()))
    whole = exp.If(this=exp.EQ(this=start, expression=moment.copy()), true=moment.copy())
    return exp.Case(ifs=[whole], default=exp.Add(this=start.copy(), expression=step))


_REWRITES: Final[dict[type[exp.Expression], Callable[[exp.Expression, Schema], exp.Expression]]] = {
    exp.Literal: _literal,
    exp.Cast: _cast_node,
    exp.TryCast: _cast_node,
    exp.Filter: _filter,
    exp.Div: _division,
    exp.StrPosition: lambda node, schema: _function("strpos", node.this, node.args["substr"]),
}
_CALLS: Final[dict[str, Callable[[exp.Expression], exp.Expression]]] = {
    "to_timestamp_ltz": _to_timestamp_ltz,
    "to_timestamp": _to_timestamp,
    "timestampdiff": _timestampdiff,
    "timestampadd": _timestampadd,
    "locate": _swapped("strpos"),
    "dayofweek": _part("dow"),
    "floor_to": _floor,
    "ceil_to": _ceiling,
    "to_date": _to_date,
    "unix_timestamp": _unix_timestamp,
    "from_unixtime": _from_unixtime,
    "char_length": lambda node: _function("length", *node.expressions),
    "character_length": lambda node: _function("length", *node.expressions),
}
