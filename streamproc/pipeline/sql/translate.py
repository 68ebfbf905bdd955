"""One query → the steps that a file would have instead. Nothing here sees a record.

Every SELECT becomes one step where it can: FROM, WHERE, GROUP BY, HAVING, SELECT are a step's own order. Joins of
more than two tables, keys that are computed and filters that can run before a join get steps of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from sqlglot import exp

from operators.expression.error import near_name
from operators.expression.nodes import is_aggregate
from operators.expression.syntax import offset_of
from streamproc.pipeline.sql.dialect import WindowedTable, parse_query, stream_name
from streamproc.pipeline.sql.expressions import over, text_of, written
from streamproc.pipeline.sql.fault import fault
from streamproc.pipeline.sql.group_windows import without_group_window
from streamproc.pipeline.sql.grouping import Item, aggregate_calls, distinct, grouped
from streamproc.pipeline.sql.joins import join_all
from streamproc.pipeline.sql.ranking import Ranking, is_over, ranking, rows_limit
from streamproc.pipeline.sql.rows import (
    ROWTIME,
    Column,
    Reference,
    Rows,
    Scope,
    Stream,
    plain,
)
from streamproc.pipeline.sql.steps import Plan, Steps, assigned, part_of_name
from streamproc.pipeline.sql.windows import windowed

_REFUSED: Final = {
    "laterals": "LATERAL is not supported",
    "distribute": "DISTRIBUTE BY is not supported",
    "sort": "SORT BY is not supported",
    "windows": "WINDOW is not supported: write OVER (PARTITION BY … ORDER BY …)",
    "qualify": "QUALIFY is not supported: put the query into a subquery and write WHERE around it",
    "offset": "OFFSET is not supported on a stream",
    "into": "SELECT … INTO is not supported: sinks are declared in the file",
    "connect": "CONNECT BY is not supported",
    "match": "MATCH_RECOGNIZE is not supported: write a `process` step",
}
_NO_AGGREGATES: Final = ("listagg", "string_agg", "collect", "json_arrayagg", "json_objectagg", "percentile")
_THERE_ARE_AGGREGATES: Final = (
    "there are COUNT, SUM, MIN, MAX, AVG, STDDEV, VARIANCE, FIRST_VALUE, LAST_VALUE, ARRAY_AGG"
)
Tables = Mapping[str, Callable[[], Rows]]  # common table expressions in reach


def translate(text: str, name: str, streams: Mapping[str, Stream], plan: Plan, *, ttl: str | None = None) -> None:
    """Translate the query of the step `name` over `streams`, by name; `plan` is given each step in turn, the last
    of them called `name`, and gives back its columns. `ttl`: how long rows are kept where no window says so.

    Raises SqlFault with the place in `text`.
    """
    query = _Query(streams, Steps(plan, ttl))
    rows = query.rows(parse_query(text), name, {})
    query.steps.finish(query.settled(rows), name)


class _Query:
    def __init__(self, streams: Mapping[str, Stream], steps: Steps) -> None:
        self.steps = steps
        self._streams = streams

    def rows(self, query: exp.Expression, name: str, tables: Tables) -> Rows:
        """The result of a query, its last step not written yet. Columns have no table."""
        if isinstance(query, exp.Subquery):
            return self.rows(query.this, name, tables)
        tables = self._with_common(query, name, tables)
        if isinstance(query, exp.SetOperation):
            return self._union(query, name, tables)
        if isinstance(query, exp.Select):
            return self._select(query, name, tables)
        raise fault(query, f"{query.key.upper()} is not supported as a query")

    def settled(self, rows: Rows) -> Rows:
        """Rows without a ranking that still lacks its limit."""
        if isinstance(rows, Ranking):
            raise rows.without_limit()
        return rows

    def table(self, node: exp.Expression, name: str, tables: Tables) -> tuple[str, Rows]:
        """What stands in FROM: its alias and its rows."""
        alias = node.alias_or_name
        if isinstance(node, WindowedTable):
            alias = node.args["alias"].name if node.args.get("alias") else node.this.name
            _, inner = self.table(node.this, name, tables)
            inner = self.settled(inner)
            if inner.stream is None:
                inner = self.steps.stored(replace(inner, name=f"{name}.{part_of_name(alias)}"))
            rows = windowed(node, replace(inner.called(alias), windows=None), alias)
            rows.places["window",] = offset_of(node) or 0
        elif isinstance(node, exp.Table):
            rows = self._named(node, tables).called(alias)
        elif isinstance(node, exp.Subquery):
            alias = alias or "subquery"
            rows = _renamed(self.rows(node.this, f"{name}.{part_of_name(alias)}", tables), node).called(alias)
        else:
            raise fault(node, f"{node.key.upper()} is not supported in FROM")
        rows.name = f"{name}.{part_of_name(alias)}"
        return alias, rows

    def _named(self, node: exp.Table, tables: Tables) -> Rows:
        name = stream_name(node)
        if not isinstance(node.this, exp.Identifier):
            raise fault(node, "only the table functions TUMBLE, HOP, CUMULATE and SESSION can stand in FROM")
        if name in tables:
            return tables[name]()
        stream = self._streams.get(name)
        if stream is None:
            near = near_name(name, (*self._streams, *tables))
            raise fault(node, f"unknown table '{name}'", f"did you mean '{near}'?" if near else None)
        columns: dict[Column, exp.Expression] = {("", column): plain(column) for column in stream.schema}
        rows = Rows({"input": name}, columns, dict(stream.schema), timed=stream.timed, changelog=stream.changelog)
        if stream.event_time is not None:
            rows.times[stream.event_time] = 0
            if ROWTIME not in stream.schema:
                rows.columns["", ROWTIME] = plain(stream.event_time)
                rows.hidden = frozenset({("", ROWTIME)})
        elif stream.timed and ROWTIME in stream.schema:
            rows.times[ROWTIME] = 0
        return rows

    def _with_common(self, query: exp.Expression, name: str, tables: Tables) -> Tables:
        with_ = query.args.get("with_")
        if with_ is None:
            return tables
        if with_.args.get("recursive"):
            raise fault(with_, "WITH RECURSIVE is not supported")
        reach = dict(tables)
        for cte in with_.expressions:
            reach[cte.alias] = self._common(cte, f"{name}.{part_of_name(cte.alias)}", dict(reach))
        return reach

    def _common(self, cte: exp.Expression, name: str, tables: Tables) -> Callable[[], Rows]:
        return lambda: _renamed(self.rows(cte.this, name, tables), cte)

    def _union(self, query: exp.SetOperation, name: str, tables: Tables) -> Rows:
        if not isinstance(query, exp.Union):
            raise fault(query, f"{query.key.upper()} is not supported", "write a join, or WHERE [NOT] EXISTS (…)")
        branches: list[exp.Expression] = []
        left: exp.Expression = query
        while isinstance(left, exp.Union) and bool(left.args.get("distinct")) == bool(query.args.get("distinct")):
            branches.insert(0, left.expression)
            left = left.this
        _refuse_order(query)
        branches.insert(0, left)
        streams: list[str] = []
        first: Rows | None = None
        for index, branch in enumerate(branches, 1):
            rows = assigned(self.settled(self.rows(branch, f"{name}.{index}", tables)))
            visible = [column for column in rows.columns if column not in rows.hidden]
            names = [column[1] for column in (first.columns if first is not None else visible)]
            if len(names) != len(visible):
                raise fault(branch, f"the queries of a union have {len(names)} and {len(visible)} columns")
            draft = dict(rows.draft)
            draft["select"] = {
                new: text_of(rows.columns[old], rows.schema) for new, old in zip(names, visible, strict=True)
            }
            step = self.steps.name_for(f"{name}.{index}")
            schema = self.steps.write(step, draft, rows.places)
            streams.append(step)
            if first is None:
                first = Rows({}, {("", new): plain(new) for new in names}, schema, timed=rows.timed)
            times = {
                new for new, old in zip(names, visible, strict=True) if rows.times.get(rows.physical(old) or "") == 0
            }
            first.times = {new: 0 for new in times if len(streams) == 1 or new in first.times}
            first.timed &= rows.timed
            first.changelog |= rows.changelog
        assert first is not None
        first.draft = {"input": streams}
        return distinct(first, self.steps, name) if query.args.get("distinct") else first

    def _select(self, query: exp.Select, name: str, tables: Tables) -> Rows:
        _refuse(query)
        if query.args.get("from_") is None:
            raise fault(query, "FROM is missing")
        names = [_name(node, number) for number, node in enumerate(query.expressions)]
        query = without_group_window(query)
        joined = join_all(self, query, name, tables)
        rows = joined.rows
        scope = joined.scope
        items = _items(query, scope, names)
        for item in items:
            _refuse_aggregates(item.node)
        keys = [scope.resolved(key) for key in _group_keys(query)]
        having_node = query.args.get("having")
        having = scope.resolved(having_node.this) if having_node is not None else None
        carried = _carried(query, scope, names)
        ranked = [item for item in items if is_over(item.node)]
        if keys or having is not None or any(aggregate_calls(item.node) for item in items):
            if ranked:
                raise fault(ranked[0].node, "ROW_NUMBER beside GROUP BY", "aggregate in a subquery")
            rows, items, condition = grouped(rows, keys, items, having, self.steps)
            if condition is not None and having is not None:
                rows.draft["having"] = written(condition, rows)
                rows.places["having",] = offset_of(having) or 0
        if ranked:
            found = ranking(rows, [*items, *carried], query, self.steps)
            return replace(found, hidden=frozenset(("", item.name) for item in carried))
        result = self._projected(rows, [*items, *carried])
        result.hidden = frozenset(("", item.name) for item in carried)
        if query.args.get("distinct"):
            if query.args["distinct"].args.get("on"):
                raise fault(query, "DISTINCT ON is not supported", "write ROW_NUMBER() … WHERE rn = 1")
            result = distinct(result, self.steps, name)
        return rows_limit(query, result, self.steps, name)

    def _projected(self, rows: Rows, items: list[Item]) -> Rows:
        columns: dict[Column, exp.Expression] = {}
        for item in items:
            if ("", item.name) in columns:
                raise fault(item.node, f"two columns are called '{item.name}'", "give one another name with AS")
            columns["", item.name] = over(item.node, rows)
            rows.places["select", item.name] = item.offset
        return replace(rows, columns=columns, hidden=frozenset())


def _items(query: exp.Select, scope: Scope, names: Sequence[str]) -> list[Item]:
    items: list[Item] = []
    for node, called in zip(query.expressions, names, strict=True):
        star = node.this if isinstance(node, exp.Column) and isinstance(node.this, exp.Star) else node
        if isinstance(star, exp.Star):
            if any(star.args.get(word) for word in ("except_", "replace", "rename")):
                raise fault(node, "* EXCEPT and REPLACE are not supported", "name the columns")
            table = node.table or None if isinstance(node, exp.Column) else None
            columns = scope.visible(table)
            if not columns:
                raise fault(node, f"unknown table '{table}'")
            items += [Item(c, Reference(alias=a, name=c, fields=""), offset_of(node) or 0) for a, c in columns]
            continue
        value = node.this if isinstance(node, exp.Alias) else node
        items.append(Item(called, scope.resolved(value), offset_of(value) or offset_of(node) or 0))
    return items


def _carried(query: exp.Select, scope: Scope, names: Sequence[str]) -> list[Item]:
    """The event time that `*` brings along where no column of a table is called so: it may still be named."""
    if not any(node.find(exp.Star) and not aggregate_calls(node) for node in query.expressions) or ROWTIME in names:
        return []
    hidden = [column for column in scope.columns if column[1] == ROWTIME]
    if len(hidden) != 1 or hidden[0] in scope.visible():
        return []
    return [Item(ROWTIME, Reference(alias=hidden[0][0], name=ROWTIME, fields=""), 0)]


def _name(node: exp.Expression, number: int) -> str:
    """What a column of a result is called; without a name as Flink calls it, counting from 0."""
    if isinstance(node, exp.Alias):
        return node.alias
    return node.name if isinstance(node, exp.Column) else f"EXPR${number}"


def _group_keys(query: exp.Select) -> list[exp.Expression]:
    group = query.args.get("group")
    if group is None:
        return []
    for word in ("grouping_sets", "cube", "rollup", "totals", "all"):
        if group.args.get(word):
            raise fault(group, "GROUPING SETS, CUBE and ROLLUP are not supported", "write a UNION ALL of groupings")
    for key in group.expressions:
        if isinstance(key, exp.Cube | exp.Rollup | exp.GroupingSets):
            raise fault(key, "GROUPING SETS, CUBE and ROLLUP are not supported", "write a UNION ALL of groupings")
        if isinstance(key, exp.Literal) and not key.is_string:
            raise fault(key, "GROUP BY takes columns and expressions, not positions")
        if is_aggregate(key):
            raise fault(key, "an aggregate cannot be a key of GROUP BY")
    return list(group.expressions)


def _refuse(query: exp.Select) -> None:
    for word, message in _REFUSED.items():
        if node := query.args.get(word):
            raise fault(node[0] if isinstance(node, list) else node, message)


def _refuse_aggregates(node: exp.Expression) -> None:
    for call in node.find_all(exp.Anonymous):
        if str(call.this).lower() in _NO_AGGREGATES:
            raise fault(call, f"the aggregate {str(call.this).upper()} is not supported", _THERE_ARE_AGGREGATES)


def _refuse_order(query: exp.Expression) -> None:
    for word in ("order", "limit", "offset"):
        if node := query.args.get(word):
            raise fault(node, f"{word.upper()} after a union is not supported", "write it in a query around it")


def _renamed(rows: Rows, node: exp.Expression) -> Rows:
    """The rows with the names after an alias: `AS t(x, y)`. Raises SqlFault."""
    alias = node.args.get("alias")
    names = [column.name for column in alias.args.get("columns") or []] if alias is not None else []
    if alias is None or not names:
        return rows
    visible = [column for column in rows.columns if column not in rows.hidden]
    if len(names) != len(visible) or len(set(names)) != len(names) or isinstance(rows, Ranking):
        raise fault(alias, f"{len(names)} names for {len(visible)} columns", "name columns with AS")
    columns = {("", new): rows.columns[old] for new, old in zip(names, visible, strict=True)}
    return replace(rows, columns=columns, hidden=frozenset())
