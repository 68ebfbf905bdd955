"""Window table functions, and which columns of rows in windows tell their event time.

The time of a window's row is its last millisecond: `window_end` is one millisecond past it.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, Final

from sqlglot import exp

from operators.explanation import duration_text
from streamproc.pipeline.sql.dialect import WindowedTable
from streamproc.pipeline.sql.fault import fault
from streamproc.pipeline.sql.rows import ROWTIME, WINDOW_TIME, Rows, Windows, plain

WINDOW_START: Final = "window_start"
WINDOW_END: Final = "window_end"
WINDOW_TIMES: Final = {WINDOW_END: 1, WINDOW_TIME: 0}  # how far columns of a window's result are past its time
_UNIT_MS: Final = {
    "millisecond": 1,
    "second": 1_000,
    "minute": 60_000,
    "hour": 3_600_000,
    "day": 86_400_000,
    "week": 604_800_000,
}
_USAGE: Final = {
    "TUMBLE": "TUMBLE(TABLE t, DESCRIPTOR(rowtime), size [, offset])",
    "HOP": "HOP(TABLE t, DESCRIPTOR(rowtime), slide, size [, offset])",
    "CUMULATE": "CUMULATE(TABLE t, DESCRIPTOR(rowtime), step, size [, offset])",
    "SESSION": "SESSION(TABLE t [PARTITION BY key], DESCRIPTOR(rowtime), gap)",
}


def windowed(node: WindowedTable, rows: Rows, alias: str) -> Rows:
    """The rows of a table with the windows of a table function still to be given. Raises SqlFault."""
    check_event_time(node.args["time"], rows)
    name = node.args["function"].name
    sizes = [interval_ms(part) for part in node.expressions]
    assign, size_ms = _assign(name, sizes, node)
    if name != "SESSION" and node.args.get("partition"):
        raise fault(node.args["partition"][0], f"{name} takes no PARTITION BY", "partition in GROUP BY")
    partition = tuple(_partition_column(column, rows) for column in node.args.get("partition") or [])
    for column in (WINDOW_START, WINDOW_END, WINDOW_TIME):
        if any(column == name for _, name in rows.columns):
            raise fault(node, f"the table has a column '{column}' already", "rename it in a subquery")
    rows.windows = Windows(assign, size_ms, partition)
    with_window_columns(rows, alias)
    return rows


def with_window_columns(rows: Rows, alias: str) -> None:
    """Add the three columns of a window; `window_time` is hidden and computed."""
    rows.columns[alias, WINDOW_START] = plain(WINDOW_START)
    rows.columns[alias, WINDOW_END] = plain(WINDOW_END)
    rows.columns[alias, WINDOW_TIME] = window_time()


def window_time() -> exp.Expression:
    last = exp.Interval(this=exp.Literal.string("1"), unit=exp.Var(this="MILLISECOND"))
    return exp.Sub(this=plain(WINDOW_END), expression=last)


def window_times(windows: Windows) -> dict[str, int]:
    """How far the columns of a window are past the event time of a window's result."""
    times = {WINDOW_END: 1}
    if windows.size_ms is not None:
        times[WINDOW_START] = 1 - windows.size_ms
    return times


def check_event_time(node: exp.Expression, rows: Rows) -> None:
    """Windows go by event time, which the descriptor must name. Raises SqlFault."""
    name = node.name
    if not rows.timed:
        raise fault(node, "a window needs event time, which this table has not", "give its source an `event_time`")
    columns = {column: rows.physical((alias, column)) for alias, column in rows.columns}
    if name not in columns:
        if name in (ROWTIME, WINDOW_TIME):
            return
        raise fault(node, f"unknown column '{name}'", "DESCRIPTOR(rowtime) names the event time of any table")
    of_window = any(c[1] == name and e == window_time() for c, e in rows.columns.items())
    if rows.times.get(columns[name] or "") != 0 and not (of_window and rows.times.get(WINDOW_END) == 1):
        hint = "DESCRIPTOR(rowtime) names that of any table; after a join it is the later of both"
        raise fault(node, f"'{name}' is not the event time of this table", hint)


def interval_ms(node: exp.Expression) -> int:
    """`INTERVAL '10' SECOND` in milliseconds. Raises SqlFault."""
    negative = isinstance(node, exp.Neg)
    node = node.this if isinstance(node, exp.Neg) else node
    if isinstance(node, exp.Interval) and isinstance(node.args.get("unit"), exp.Var) and node.this is not None:
        unit = _UNIT_MS.get(node.args["unit"].name.lower().removesuffix("s"))
        try:
            ms = Decimal(node.this.name) * (unit or 0)
        except InvalidOperation:
            ms = Decimal(0)
        if unit is not None and ms == int(ms):
            return -int(ms) if negative else int(ms)
    raise fault(node, "an interval of a fixed length is expected", "for example INTERVAL '10' SECOND")


def _assign(name: str, sizes: list[int], node: WindowedTable) -> tuple[dict[str, Any], int | None]:
    needed = 2 if name in ("HOP", "CUMULATE") else 1
    if len(sizes) < needed or len(sizes) > needed + (name != "SESSION"):
        raise fault(node, f"{name} is given {len(sizes)} intervals", _USAGE[name])
    for part, size in zip(node.expressions[:needed], sizes, strict=False):
        if size <= 0:
            raise fault(part, "the length must be more than zero")
    lengths = [duration_text(size) for size in sizes[:needed]]
    assign: dict[str, Any]
    if name == "TUMBLE":
        assign, every = {"tumble": lengths[0]}, sizes[0]
    elif name == "SESSION":
        assign, every = {"session": lengths[0]}, sizes[0]
    else:
        assign, every = {name.lower(): {"size": lengths[1], "every": lengths[0]}}, sizes[0]
    if len(sizes) > needed and (offset := sizes[needed] % every):
        assign["offset"] = duration_text(offset)
    fixed = {"TUMBLE": sizes[0], "HOP": sizes[-1] if needed == 1 else sizes[needed - 1]}
    return assign, fixed.get(name)


def _partition_column(node: exp.Expression, rows: Rows) -> str:
    for column in rows.columns:
        if column[1] == node.name and (physical := rows.physical(column)) is not None:
            return physical
    raise fault(node, f"unknown column '{node.name}'")
