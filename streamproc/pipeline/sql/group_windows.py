"""`GROUP BY TUMBLE(rowtime, INTERVAL '10' SECOND)`, Flink's older way to say windows, as a window table function.

The function moves from GROUP BY to FROM, and TUMBLE_START, TUMBLE_END and TUMBLE_ROWTIME become the columns
of the window.
"""

from __future__ import annotations

from typing import Final

from sqlglot import exp

from operators.expression.syntax import offset_of
from streamproc.pipeline.sql.dialect import WindowedTable
from streamproc.pipeline.sql.fault import fault
from streamproc.pipeline.sql.rows import WINDOW_TIME
from streamproc.pipeline.sql.windows import WINDOW_END, WINDOW_START

_FUNCTIONS: Final = ("tumble", "hop", "session")
_COLUMNS: Final = {"start": WINDOW_START, "end": WINDOW_END, "rowtime": WINDOW_TIME}


def without_group_window(query: exp.Select) -> exp.Select:
    """The query with its group window in FROM; itself where it has none. Raises SqlFault."""
    group = query.args.get("group")
    if group is None or not any(_is_window(key) for key in group.expressions):
        return query
    query = query.copy()
    group = query.args["group"]
    windows = [key for key in group.expressions if _is_window(key)]
    window, keys = windows[0], [key for key in group.expressions if not _is_window(key)]
    if len(windows) > 1:
        raise fault(windows[1], "a second window in GROUP BY")
    table = query.args["from_"].this if query.args.get("from_") is not None else None
    if query.args.get("joins") or not isinstance(table, exp.Table | exp.Subquery):
        raise fault(window, "a window in GROUP BY is over one table", "write the join in a subquery of FROM")
    name, (time, *sizes) = str(window.this).lower(), window.expressions
    if not isinstance(time, exp.Column):
        raise fault(window, f"{name.upper()} takes the event time", f"{name.upper()}(rowtime, INTERVAL '10' SECOND)")
    alias = table.alias_or_name or "subquery"
    partition = [_partition_key(key) for key in keys] if name == "session" else []
    function = exp.Identifier(this=name.upper())
    function.meta["start"] = offset_of(window) or 0
    time = time.copy()
    time.set("table", None)
    query.args["from_"].set(
        "this",
        WindowedTable(
            this=table.copy(),
            function=function,
            partition=partition,
            time=time,
            expressions=[size.copy() for size in sizes],
            alias=exp.TableAlias(this=exp.to_identifier(alias)),
        ),
    )
    ends = [_column(column, alias, window) for column in (WINDOW_START, WINDOW_END)]
    group.set("expressions", [*keys, *ends])
    for call in list(query.find_all(exp.Anonymous)):
        column = _column_of(call, name)
        if column is not None:
            call.replace(_column(column, alias, call))
    return query


def _is_window(key: exp.Expression) -> bool:
    return isinstance(key, exp.Anonymous) and str(key.this).lower() in _FUNCTIONS and len(key.expressions) > 1


def _column_of(call: exp.Anonymous, window: str) -> str | None:
    """The column that TUMBLE_START(…) and its like are."""
    function, _, end = str(call.this).lower().rpartition("_")
    if function not in _FUNCTIONS or end not in _COLUMNS:
        return None
    if function != window:
        raise fault(call, f"{function.upper()}_{end.upper()} of a {window.upper()} window")
    return _COLUMNS[end]


def _column(name: str, table: str, at: exp.Expression) -> exp.Expression:
    column = exp.column(name, table=table)
    column.this.meta["start"] = offset_of(at) or 0
    return column


def _partition_key(key: exp.Expression) -> exp.Expression:
    if not isinstance(key, exp.Column):
        raise fault(key, "the groups of a session are columns", "compute the key in a subquery of FROM")
    column = key.copy()
    column.set("table", None)
    return column
