"""GROUP BY, aggregates and DISTINCT → the `key`, `window` and `aggregate` of a step.

Every aggregate call becomes a column; what is computed from several of them is left to the `select`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlglot import exp

from operators.aggregates import AggregateErrors, compile_aggregates
from operators.element import Schema
from operators.expression.nodes import is_aggregate
from operators.expression.syntax import offset_of
from operators.expression.value import TIMESTAMP_MS
from streamproc.pipeline.sql.expressions import over, written
from streamproc.pipeline.sql.fault import fault
from streamproc.pipeline.sql.rows import WINDOW_TIME, Column, Reference, Rows, Windows, plain, unique_name
from streamproc.pipeline.sql.steps import Steps
from streamproc.pipeline.sql.windows import (
    WINDOW_END,
    WINDOW_START,
    window_time,
    window_times,
    with_window_columns,
)

_WINDOW_COLUMNS = (WINDOW_START, WINDOW_END, WINDOW_TIME)


@dataclass(frozen=True, slots=True)
class Item:
    """One column of a SELECT: a resolved expression and what it is called."""

    name: str
    node: exp.Expression
    offset: int


def aggregate_calls(node: exp.Expression) -> list[exp.Expression]:
    """The aggregates in an expression, each with its FILTER, from the outside in."""
    if is_aggregate(node):
        return [node]
    return [call for child in node.iter_expressions() for call in aggregate_calls(child)]


def grouped(
    rows: Rows,
    keys: Sequence[exp.Expression],
    items: Sequence[Item],
    having: exp.Expression | None,
    steps: Steps,
) -> tuple[Rows, list[Item], exp.Expression | None]:
    """The rows of the groups, with the items and the HAVING condition in terms of them. Raises SqlFault."""
    nodes = [*(item.node for item in items), *([having] if having is not None else [])]
    windowed = _by_window(rows, keys)
    if rows.windows is not None and rows.windows.assign is not None and not windowed:
        rows = steps.stored(rows, needed=_read(keys, nodes))
    if windowed:
        keys = [key for key in keys if _window_column(key, rows) is None]
    with_windows = rows
    rows, key_names = _with_key_columns(rows, keys, items, nodes, steps)
    windows = rows.windows if windowed else None
    if windows is not None and "session" in (windows.assign or {}) and set(windows.partition) != set(key_names):
        said = ", ".join(windows.partition) or "no columns"
        raise fault(
            items[0].node, f"sessions are partitioned by {said}, but the groups are not", "GROUP BY the same columns"
        )
    draft = dict(rows.draft)
    places = dict(rows.places)
    if key_names:
        draft["key"] = list(dict.fromkeys(key_names))
    if windows is not None:
        draft["window"] = dict(windows.assign) if windows.assign is not None else "input"
    elif steps.ttl is not None:
        draft["ttl"] = steps.ttl
    names = _aggregates(items, nodes, [*key_names, *(_WINDOW_COLUMNS if windows else ())])
    texts = {column: written(call, rows) for call, column in names}
    draft["aggregate"] = texts
    for call, column in names:
        places["aggregate", column] = offset_of(call) or 0
    columns = {("aggregate", column): plain(column) for column in texts}
    columns |= {("key", key): plain(key) for key in key_names}
    schema = _schema(rows, texts, key_names, windowed=windows is not None)
    result = Rows(draft, columns, schema, timed=rows.timed, changelog=windows is None, places=places, name=rows.name)
    if windows is not None:
        result.windows = Windows(None, windows.size_ms)
        result.times = window_times(windows)
        with_window_columns(result, "key")
    replacements = [(call, "aggregate", column) for call, column in names]
    replacements += [(key, "key", key_name) for key, key_name in zip(keys, key_names, strict=True)]
    over_groups = [_over_groups(node, replacements, with_windows, windowed=windows is not None) for node in nodes]
    new_items = [replace(item, node=node) for item, node in zip(items, over_groups, strict=False)]
    return result, new_items, over_groups[-1] if having is not None else None


def distinct(rows: Rows, steps: Steps, name: str) -> Rows:
    """Each row once: per window where the rows are in windows and tell them, else for as long as `ttl` says."""
    visible = {column: e for column, e in rows.columns.items() if column not in rows.hidden}
    items = [Item(column[1], Reference(alias=column[0], name=column[1], fields=""), 0) for column in visible]
    if rows.changelog or (rows.windows is not None and _by_window(rows, [item.node for item in items])):
        result, new_items, _ = grouped(rows, [item.node for item in items], items, None, steps)
        return replace(result, columns={("", i.name): over(i.node, result) for i in new_items}, hidden=frozenset())
    stored = steps.stored(replace(rows, columns=visible, hidden=frozenset(), name=f"{name}.rows"))
    keys = list(dict.fromkeys(str(stored.physical(column)) for column in stored.columns))
    ttl = {"ttl": steps.ttl} if steps.ttl is not None else {}
    return replace(stored, draft={**stored.draft, "deduplicate": {"key": keys, "keep": "first", **ttl}})


def _by_window(rows: Rows, keys: Sequence[exp.Expression]) -> bool:
    """Whether groups are within windows: both ends of the window are keys, or one where that tells the other."""
    found = {_window_column(key, rows) for key in keys} & {WINDOW_START, WINDOW_END}
    if rows.windows is None or not found:
        return False
    if len(found) < 2 and rows.windows.size_ms is None:
        missing = ({WINDOW_START, WINDOW_END} - found).pop()
        raise fault(keys[0], f"{missing} is missing in GROUP BY", "groups of a window need window_start and window_end")
    return True


def _window_column(node: exp.Expression, rows: Rows) -> str | None:
    """Which of the windows' columns an expression is."""
    if not isinstance(node, Reference) or rows.windows is None or node.column not in rows.columns:
        return None
    expression = rows.columns[node.column]
    if expression == window_time():
        return WINDOW_TIME
    name = rows.physical(node.column)
    return name if name in (WINDOW_START, WINDOW_END) else None


def _with_key_columns(
    rows: Rows,
    keys: Sequence[exp.Expression],
    items: Sequence[Item],
    nodes: Sequence[exp.Expression],
    steps: Steps,
) -> tuple[Rows, list[str]]:
    """The rows with every key as a column, in a draft that may still be given an aggregate."""
    computed = [key for key in keys if not isinstance(key, Reference) or rows.physical(key.column) is None]
    if computed or not set(rows.draft) <= {"input", "where"}:
        columns, taken = dict(rows.columns), {column[1] for column in rows.columns}
        for key in computed:
            wanted = next((item.name for item in items if item.node == key), "key")
            columns["key", unique_name(wanted, taken)] = over(key, rows)
            taken.add(wanted)
        found = dict(zip(computed, [c for c in columns if c[0] == "key"], strict=False))
        pending = rows.windows
        if pending is not None and pending.assign is not None:
            rows = replace(rows, windows=None)  # the rows get them in the aggregate's own step
            columns = {c: e for c, e in columns.items() if c[1] not in _WINDOW_COLUMNS}
        rows = steps.stored(replace(rows, columns=columns), needed={*_read(keys, nodes), *found.values()})
        rows = replace(rows, windows=pending)
        names = [str(rows.physical(found[k] if k in found else _column(k))) for k in keys]
        return rows, names
    return rows, [str(rows.physical(_column(key))) for key in keys]


def _column(node: exp.Expression) -> Column:
    assert isinstance(node, Reference)
    return node.column


def _read(*groups: Sequence[exp.Expression]) -> set[Column]:
    return {r.column for nodes in groups for node in nodes for r in node.find_all(Reference)}


def _aggregates(
    items: Sequence[Item], nodes: Sequence[exp.Expression], taken: Sequence[str]
) -> list[tuple[exp.Expression, str]]:
    """A column for every different aggregate call, called as the item that it is."""
    names: list[tuple[exp.Expression, str]] = []
    for node in nodes:
        for call in aggregate_calls(node):
            if any(call == other for other, _ in names):
                continue
            wanted = next((item.name for item in items if item.node == call), f"aggregate_{len(names) + 1}")
            names.append((call, unique_name(wanted, [*taken, *(name for _, name in names)])))
    if not names:  # groups without any aggregate
        counted = exp.Anonymous(this="count", expressions=[exp.Star()])
        names.append((counted, unique_name("rows_in_group", taken)))
    return names


def _over_groups(
    node: exp.Expression, replacements: Sequence[tuple[exp.Expression, str, str]], rows: Rows, *, windowed: bool
) -> exp.Expression:
    """The expression with the groups' columns in place of aggregates and keys."""
    for wanted, alias, name in replacements:
        if node == wanted:
            return _reference(alias, name, node)
    if windowed and (column := _window_column(node, rows)) is not None:
        return _reference("key", column, node)
    copied = node.copy()
    for child, original in zip(list(copied.iter_expressions()), list(node.iter_expressions()), strict=True):
        replaced = _over_groups(original, replacements, rows, windowed=windowed)
        child.replace(replaced)
    return copied


def _reference(alias: str, name: str, at: exp.Expression) -> Reference:
    found = Reference(alias=alias, name=name, fields="")
    found.meta.update({"start": offset_of(at)} if offset_of(at) is not None else {})
    return found


def _schema(rows: Rows, texts: Mapping[str, str], keys: Sequence[str], *, windowed: bool) -> Schema:
    """Types of the groups' columns; aggregates whose type cannot be told yet are left out."""
    schema: Schema = {name: rows.schema[name] for name in keys if name in rows.schema}
    if windowed:
        schema |= {WINDOW_START: TIMESTAMP_MS, WINDOW_END: TIMESTAMP_MS}
    try:
        plan = compile_aggregates(texts, rows.schema, [name for name in keys if name in rows.schema])
    except AggregateErrors:
        return schema
    return schema | dict(zip(plan.names, (output.dtype for output in plan.outputs), strict=True))
