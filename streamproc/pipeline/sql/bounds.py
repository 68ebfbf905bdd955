"""Conditions on the event times of two rows → how far the right one may be from the left one.

A column tells the event time where it is a known distance past it: `window_end` is one millisecond past the time
of a window's result, `window_start` its length less one before. So a range of such columns is an interval.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import polars as pl
from sqlglot import exp

from streamproc.pipeline.sql.fault import SqlFault
from streamproc.pipeline.sql.rows import Reference, Rows
from streamproc.pipeline.sql.windows import WINDOW_END, interval_ms, window_time

_MIRRORED: Final[dict[type[exp.Expression], type[exp.Expression]]] = {
    exp.EQ: exp.EQ,
    exp.LT: exp.GT,
    exp.GT: exp.LT,
    exp.LTE: exp.GTE,
    exp.GTE: exp.LTE,
}


@dataclass(frozen=True, slots=True)
class Interval:
    """The right time is in [left time + `lowest_ms`, left time + `highest_ms`]; `rest`: conditions beside that."""

    lowest_ms: int
    highest_ms: int
    rest: list[exp.Expression]


def interval_of(conditions: Iterable[exp.Expression], left: Rows, right: Rows) -> Interval | None:
    """The interval that conditions make, None where they leave a side open."""
    lowest: list[int] = []
    highest: list[int] = []
    rest: list[exp.Expression] = []
    for condition in conditions:
        for part in _comparisons(condition):
            bounds = _bounds(part, left, right)
            if bounds is None:
                rest.append(part)
                continue
            low, high, exact = bounds
            lowest += [low] if low is not None else []
            highest += [high] if high is not None else []
            rest += [] if exact else [part]
    if not lowest or not highest:
        return None
    return Interval(max(lowest), min(highest), rest)


def _comparisons(node: exp.Expression) -> list[exp.Expression]:
    """A BETWEEN as its two comparisons."""
    if isinstance(node, exp.Paren) and isinstance(node.this, exp.Between):
        node = node.this
    if isinstance(node, exp.Between) and not node.args.get("negate") and not node.args.get("symmetric"):
        low = exp.GTE(this=node.this.copy(), expression=node.args["low"].copy())
        return [low, exp.LTE(this=node.this.copy(), expression=node.args["high"].copy())]
    return [node]


def _bounds(node: exp.Expression, left: Rows, right: Rows) -> tuple[int | None, int | None, bool] | None:
    """Lowest and highest distance that one comparison allows, and whether they say all of it."""
    while isinstance(node, exp.Paren):
        node = node.this
    kind = type(node)
    if kind not in _MIRRORED:
        return None
    a, b = _moment(node.this, left), _moment(node.expression, right)
    if a is None or b is None:
        a, b, kind = _moment(node.expression, left), _moment(node.this, right), _MIRRORED[kind]
    if a is None or b is None:
        return None
    # left + a ? right + b   ⇔   a - b ? right - left
    distance, exact = a[0] - b[0], a[1] and b[1]
    strict = 1 if exact and kind in (exp.LT, exp.GT) else 0
    if kind is exp.EQ:
        return distance, distance, False  # it may be what joins the rows
    if kind in (exp.GT, exp.GTE):
        return None, distance - strict, exact
    return distance + strict, None, exact


def _moment(node: exp.Expression, rows: Rows) -> tuple[int, bool] | None:
    """How many ms past the event time an expression is, and whether it has whole milliseconds."""
    if isinstance(node, exp.Paren):
        return _moment(node.this, rows)
    if isinstance(node, exp.Cast) and node.args["to"].this.value.upper().startswith("TIMESTAMP"):
        return _moment(node.this, rows)
    if isinstance(node, exp.Add | exp.Sub):
        moment, by = _moment(node.this, rows), node.expression
        if moment is None and isinstance(node, exp.Add):
            moment, by = _moment(node.expression, rows), node.this
        if moment is None:
            return None
        try:
            ms = interval_ms(by)
        except SqlFault:
            return None
        return moment[0] + (ms if isinstance(node, exp.Add) else -ms), moment[1]
    if isinstance(node, Reference) and node.column in rows.columns:
        name = rows.physical(node.column)
        if name in rows.times:
            return rows.times[name], rows.schema.get(name) in (pl.Datetime("ms", "UTC"), None)
        if rows.columns[node.column] == window_time() and rows.times.get(WINDOW_END) == 1:
            return 0, True
    return None
