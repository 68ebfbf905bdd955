"""ROW_NUMBER with a limit around it → `deduplicate` or `top`; ORDER BY with LIMIT → `top`.

SELECT … FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY x DESC) AS n FROM t) WHERE n <= 10
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlglot import exp

from operators.expression.syntax import offset_of
from streamproc.pipeline.sql.expressions import over
from streamproc.pipeline.sql.fault import SqlFault, fault
from streamproc.pipeline.sql.grouping import Item
from streamproc.pipeline.sql.rows import Column, Rows, Windows, column_name, plain, unique_name
from streamproc.pipeline.sql.steps import Steps, assigned
from streamproc.pipeline.sql.windows import WINDOW_END, WINDOW_START

_MIRRORED: Final[dict[type[Any], type[Any]]] = {
    exp.EQ: exp.EQ,
    exp.LT: exp.GT,
    exp.GT: exp.LT,
    exp.LTE: exp.GTE,
    exp.GTE: exp.LTE,
}


@dataclass(slots=True)
class Ranking(Rows):
    """Rows with a number whose limit is still to be found in the query around them."""

    rank: str = ""
    offset: int = 0
    key: tuple[str, ...] = ()
    by: tuple[tuple[str, bool], ...] = field(default=())  # columns of the draft, and whether descending

    def without_limit(self) -> SqlFault:
        """The fault of using the number for anything but a limit."""
        hint = f"write WHERE {self.rank} <= 10 in the query around it"
        return SqlFault("ROW_NUMBER is only for the first rows of each group", offset=self.offset, hint=hint)


def is_over(node: exp.Expression) -> bool:
    """Whether an item is computed over a window of rows. Raises SqlFault where it is more than ROW_NUMBER alone."""
    found = node.find(exp.Window)
    if found is None:
        return False
    if found is not node or node.this.name.lower() != "row_number":
        name = found.this.name.upper() if isinstance(found.this, exp.Anonymous) else found.this.key.upper()
        if found.find(exp.Anonymous) is not None and name == "ROW_NUMBER":
            raise fault(found, "ROW_NUMBER stands for itself", "compute with it in the query around it")
        raise fault(found, f"{name} … OVER is not supported", "there is ROW_NUMBER() OVER (PARTITION BY … ORDER BY …)")
    return True


def ranking(rows: Rows, items: Sequence[Item], query: exp.Select, steps: Steps) -> Ranking:
    """The rows of a SELECT with a ROW_NUMBER, by the columns that it is over."""
    ranked = [item for item in items if is_over(item.node)]
    if len(ranked) > 1:
        raise fault(ranked[1].node, "a second ROW_NUMBER in one query")
    for word in ("distinct", "limit"):
        if query.args.get(word):
            raise fault(ranked[0].node, f"{word.upper()} beside ROW_NUMBER is not supported", "use a query around it")
    window = ranked[0].node
    partition: list[exp.Expression] = list(window.args.get("partition_by") or [])
    order = window.args["order"].expressions if window.args.get("order") else []
    if not order:
        raise fault(window, "ROW_NUMBER needs ORDER BY")
    if window.args.get("spec"):
        raise fault(window, "ROW_NUMBER takes no frame")
    for part in order:
        _refuse_null_order(part)
    rows = assigned(rows)
    columns = {("", item.name): over(item.node, rows) for item in items if item is not ranked[0]}
    keys: list[Column] = []
    by: list[tuple[Column, bool]] = []
    everything = dict(columns)
    for node in (*partition, *(part.this for part in order)):
        expression = over(node, rows)
        column = next((c for c, e in everything.items() if e == expression), None)
        if column is None:
            column = ("over", unique_name(column_name(expression) or "key", [c[1] for c in everything]))
            everything[column] = expression
        if len(keys) < len(partition):
            keys.append(column)
        else:
            by.append((column, bool(order[len(by)].args.get("desc"))))
    rows = replace(rows, columns=everything, hidden=frozenset())
    columns_needed = [*keys, *(column for column, _ in by)]
    computed = any(column_name(everything[column]) is None for column in columns_needed)
    if computed or not set(rows.draft) <= {"input", "where"}:
        rows = steps.stored(rows)
    result = {column: rows.columns[column] for column in columns}
    order_of_items = [item.name for item in items]
    result["", ranked[0].name] = plain(ranked[0].name)  # until the limit says what it is
    result = {("", item): result["", item] for item in order_of_items}
    return Ranking(
        rows.draft,
        result,
        rows.schema,
        windows=rows.windows,
        times=rows.times,
        timed=rows.timed,
        changelog=rows.changelog,
        places=rows.places,
        name=rows.name,
        rank=ranked[0].name,
        offset=ranked[0].offset,
        key=tuple(str(rows.physical(column)) for column in keys),
        by=tuple((str(rows.physical(column)), down) for column, down in by),
    )


def limited(
    rows: Ranking, conditions: list[exp.Expression], query: exp.Select, steps: Steps
) -> tuple[Rows, list[exp.Expression]]:
    """The first rows of each group, and the conditions that are left."""
    alias = next(iter(rows.columns))[0]
    found = [(c, limit) for c in conditions if (limit := _limit(c, alias, rows.rank)) is not None]
    if not found:
        raise rows.without_limit()
    condition, (lowest, n) = found[0]
    rest = [c for c in conditions if c is not condition]
    if n < 1:
        raise fault(condition, "no row has such a number")
    used = _uses(query, rows.rank, condition)
    column = (alias, rows.rank)
    by_time = len(rows.by) == 1 and rows.times.get(rows.by[0][0]) == 0
    in_windows = rows.windows is not None and {WINDOW_START, WINDOW_END} <= set(rows.key)
    ttl = {"ttl": steps.ttl} if steps.ttl is not None else {}
    columns = dict(rows.columns)
    draft: dict[str, Any] = dict(rows.draft)
    windows: Windows | None = None
    if n == 1:
        columns[column] = exp.Literal.number(1)
    elif used or lowest > 1:
        columns[column] = plain(unique_name(rows.rank, rows.schema))
    else:
        del columns[column]
    if n == 1 and by_time and rows.key and not in_windows and not rows.changelog:
        keep = "last" if rows.by[0][1] else "first"
        draft["deduplicate"] = {"key": list(rows.key), "keep": keep, **ttl}
    else:
        top: dict[str, Any] = {"n": n, "by": [f"{name} {'desc' if down else 'asc'}" for name, down in rows.by]}
        key = [name for name in rows.key if not (in_windows and name in (WINDOW_START, WINDOW_END))]
        if key:
            top["key"] = key
        if n > 1 and column in columns:
            top["rank"] = column_name(columns[column])
        if in_windows:
            top["window"], windows = "input", rows.windows
        else:
            top |= ttl
        draft["top"] = top
    changelog = windows is None and draft.get("deduplicate", {}).get("keep") != "first"
    if lowest > 1:
        draft["having"] = f"{top['rank']} >= {lowest}"
    schema = dict(rows.schema)
    verb = "top" if "top" in draft else "deduplicate"
    result = Rows(
        draft,
        columns,
        schema,
        windows=windows,
        timed=rows.timed,
        changelog=changelog,
        times=dict(rows.times) if not changelog else {},
        places={**rows.places, (verb,): rows.offset},
        name=rows.name,
        hidden=rows.hidden,
    )
    return result, rest


def rows_limit(query: exp.Select, rows: Rows, steps: Steps, name: str) -> Rows:
    """ORDER BY … LIMIT of the whole result."""
    order, limit = query.args.get("order"), query.args.get("limit")
    if order is None and limit is None:
        return rows
    if order is None or limit is None:
        missing = "ORDER BY without LIMIT" if limit is None else "LIMIT without ORDER BY"
        raise fault(order or limit, f"{missing} has no meaning on a stream", "give both: the first n rows so far")  # type: ignore[arg-type]
    count = limit.args.get("expression") or limit.args.get("count")
    if not isinstance(count, exp.Literal) or not count.name.isdigit() or int(count.name) < 1:
        raise fault(limit, "LIMIT takes a number that is more than zero")
    rows = steps.stored(replace(rows, name=f"{name}.rows"))
    by: list[str] = []
    for part in order.expressions:
        _refuse_null_order(part)
        column = ("", part.this.name)
        if not isinstance(part.this, exp.Column) or column not in rows.columns:
            raise fault(part, "ORDER BY takes columns of the result", "name it in SELECT")
        by.append(f"{rows.physical(column)} {'desc' if part.args.get('desc') else 'asc'}")
    ttl = {"ttl": steps.ttl} if steps.ttl is not None else {}
    top = {"n": int(count.name), "by": by, **ttl}
    return replace(
        rows, draft={**rows.draft, "top": top}, changelog=True, windows=None, places={("top",): offset_of(order) or 0}
    )


def _refuse_null_order(part: exp.Expression) -> None:
    """Flink has nulls first when ascending and last when descending, as `top` has."""
    if part.args.get("nulls_first") is not None and bool(part.args["nulls_first"]) == bool(part.args.get("desc")):
        raise fault(part, "this order of nulls is not supported", "nulls are the lowest values")


def _limit(node: exp.Expression, alias: str, rank: str) -> tuple[int, int] | None:
    """The lowest and the highest number that a condition lets pass."""
    if isinstance(node, exp.Paren):
        return _limit(node.this, alias, rank)
    if isinstance(node, exp.Between) and not node.args.get("negate"):
        low, high = (_limit(exp.LTE(this=node.this, expression=node.args[end]), alias, rank) for end in ("low", "high"))
        return (max(1, low[1]), high[1]) if low is not None and high is not None else None
    kind: type[Any] = type(node)
    if kind not in _MIRRORED:
        return None
    left, right = node.this, node.expression
    if isinstance(left, exp.Literal):
        left, right, kind = right, left, _MIRRORED[kind]
    named = isinstance(left, exp.Column) and left.name == rank and left.table in ("", alias)
    if not named or not isinstance(right, exp.Literal) or not right.name.isdigit():
        return None
    n = int(right.name)
    if kind is exp.EQ:
        return n, n
    return {exp.LTE: (1, n), exp.LT: (1, n - 1)}.get(kind)


def _uses(query: exp.Select, rank: str, limit: exp.Expression) -> bool:
    """Whether the query around reads the number beside limiting it."""
    own = {id(column) for column in limit.find_all(exp.Column)}
    for node in query.expressions:
        if isinstance(node, exp.Star) or (isinstance(node, exp.Column) and isinstance(node.this, exp.Star)):
            return True
    parts = [query.args.get(word) for word in ("where", "group", "having", "order")]
    parts += [join.args.get("on") for join in query.args.get("joins") or []]
    nodes = [*query.expressions, *(part for part in parts if part is not None)]
    return any(c.name == rank and id(c) not in own for node in nodes for c in node.find_all(exp.Column))
