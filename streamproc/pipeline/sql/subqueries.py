"""[NOT] EXISTS and [NOT] IN in WHERE → a side to be joined, by a semi or an anti join.

A subquery may compare with the tables around it: its own names hide theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from sqlglot import exp

from streamproc.pipeline.spec import JoinKind
from streamproc.pipeline.sql.fault import fault
from streamproc.pipeline.sql.rows import Reference, Rows, Scope, conjuncts
from streamproc.pipeline.sql.steps import Steps, part_of_name

Tables = Mapping[str, Callable[[], Rows]]
_PLAIN: Final = ("kind", "hint", "expressions", "from_", "where")  # what a subquery over one table consists of


class Source(Protocol):
    """Gives the rows of what stands in FROM."""

    steps: Steps

    def table(self, node: exp.Expression, name: str, tables: Tables) -> tuple[str, Rows]:
        """The alias and the rows of a table."""

    def rows(self, query: exp.Expression, name: str, tables: Tables) -> Rows:
        """The rows of a query."""

    def settled(self, rows: Rows) -> Rows:
        """Rows that have no ranking without a limit."""


@dataclass(frozen=True, slots=True)
class Side:
    """A table to be joined."""

    alias: str
    rows: Rows
    kind: JoinKind
    conditions: list[exp.Expression]  # resolved
    as_of: exp.Expression | None = None
    at: exp.Expression | None = None

    @property
    def read(self) -> list[exp.Expression]:
        """What the join itself reads."""
        return [*self.conditions, *([self.as_of] if self.as_of is not None else [])]


def subquery_of(condition: exp.Expression) -> exp.Expression | None:
    """The [NOT] EXISTS or [NOT] IN (SELECT …) that a condition is."""
    inner = condition
    while isinstance(inner, exp.Not | exp.Paren):
        inner = inner.this
    if isinstance(inner, exp.Exists) or (isinstance(inner, exp.In) and inner.args.get("query") is not None):
        return inner
    if condition.find(exp.Exists, exp.Select) is not None:
        raise fault(condition, "a subquery can only be [NOT] EXISTS or [NOT] IN, joined with AND", "write a join")
    return None


def half_join(
    source: Source, condition: exp.Expression, inner: exp.Expression, scope: Scope, name: str, reach: Tables
) -> tuple[Side, list[exp.Expression]]:
    """A semi or anti join, and the conditions on the rows before it."""
    negated = bool(inner.args.get("negate"))
    at = condition
    while at is not inner:
        negated ^= isinstance(at, exp.Not)
        at = at.this
    kind: JoinKind = "anti" if negated else "semi"
    if isinstance(inner, exp.Exists):
        return _exists(source, inner, kind, scope, name, reach), []
    if _is_correlated(inner.args["query"], scope):
        return _correlated_in(source, inner, kind, scope, name, reach), []
    name = f"{name}.{part_of_name(_first_table(inner.args['query']))}"
    rows = source.settled(source.rows(inner.args["query"], name, reach)).called(name)
    rows.name = name
    given = inner.this.expressions if isinstance(inner.this, exp.Tuple) else [inner.this]
    columns = [column for column in rows.columns if column not in rows.hidden]
    if len(given) != len(columns):
        raise fault(inner, f"the subquery of IN has {len(columns)} columns, not {len(given)}")
    values = [scope.resolved(node) for node in given]
    equal = [
        exp.EQ(this=value.copy(), expression=Reference(alias=alias, name=column, fields=""))
        for value, (alias, column) in zip(values, columns, strict=True)
    ]
    if not negated:
        return Side(name, rows, kind, list(equal), at=inner), []
    if not _excludes_nulls(inner.args["query"]):
        hint = "add WHERE … IS NOT NULL to the subquery, or write NOT EXISTS"
        raise fault(inner, "NOT IN is never true once the subquery has given a null", hint)
    known = [exp.Not(this=exp.Is(this=value.copy(), expression=exp.Null())) for value in values]
    return Side(name, rows, kind, list(equal), at=inner), list(known)


def _first_table(query: exp.Expression) -> str:
    table = query.find(exp.Table)
    return table.name if table is not None else "in"


def _exists(source: Source, node: exp.Expression, kind: JoinKind, scope: Scope, name: str, reach: Tables) -> Side:
    side, _ = _of_one_table(source, node, node.this, kind, scope, name, reach)
    return side


def _correlated_in(
    source: Source, node: exp.Expression, kind: JoinKind, scope: Scope, name: str, reach: Tables
) -> Side:
    """`x IN (SELECT y FROM t WHERE …)` is an EXISTS with `x = y`; for NOT IN a null on either side is a match, too."""
    query = node.args["query"]
    query = query.this if isinstance(query, exp.Subquery) else query
    side, inside = _of_one_table(source, node, query, kind, scope, name, reach)
    given = node.this.expressions if isinstance(node.this, exp.Tuple) else [node.this]
    found = [item.this if isinstance(item, exp.Alias) else item for item in query.expressions]
    if len(given) != len(found):
        raise fault(node, f"the subquery of IN has {len(found)} columns, not {len(given)}")
    for value, item in zip(given, found, strict=True):
        x, y = scope.resolved(value), _correlated(item, inside, scope)
        equal: exp.Expression = exp.EQ(this=x.copy(), expression=y.copy())
        if kind == "anti":
            equal = exp.Paren(this=exp.or_(equal, *(exp.Is(this=v.copy(), expression=exp.Null()) for v in (x, y))))
        side.conditions.append(equal)
    return side


def _is_correlated(query: exp.Expression, outside: Scope) -> bool:
    """Whether the WHERE of a subquery names a table around it."""
    select = query.this if isinstance(query, exp.Subquery) else query
    where = select.args.get("where")
    if where is None or select.args.get("from_") is None:
        return False
    tables = [select.args["from_"].this, *(join.this for join in select.args.get("joins") or [])]
    outer = {alias for alias, _ in outside.columns} - {table.alias_or_name for table in tables}
    return any(column.table in outer for column in where.find_all(exp.Column))


def _of_one_table(
    source: Source,
    node: exp.Expression,
    query: exp.Expression,
    kind: JoinKind,
    scope: Scope,
    name: str,
    reach: Tables,
) -> tuple[Side, Scope]:
    """A subquery over one table, and what its own names mean."""
    odd = next((v for k, v in query.args.items() if v and k not in _PLAIN), None)
    if not isinstance(query, exp.Select) or odd is not None or query.args.get("from_") is None:
        what = "EXISTS" if isinstance(node, exp.Exists) else "IN, where it names a table around it,"
        raise fault(
            node, f"the subquery of {what} is SELECT … FROM one table WHERE …", "put more into a subquery of FROM"
        )
    alias, rows = source.table(query.args["from_"].this, name, reach)
    rows = source.settled(rows)
    if any(alias == outer for outer, _ in scope.columns):
        raise fault(query.args["from_"].this, f"two tables are called '{alias}'", "give the inner one an alias")
    inside = Scope({alias: rows})
    where = query.args.get("where")
    conditions = [_correlated(c, inside, scope) for c in conjuncts(where.this if where is not None else None)]
    return Side(alias, rows, kind, conditions, at=node), inside


def _correlated(condition: exp.Expression, inside: Scope, outside: Scope) -> exp.Expression:
    """A condition of a subquery: its own names hide those of the query around it."""
    holder = exp.Paren(this=condition.copy())
    for column in list(holder.find_all(exp.Column)):
        column.replace(inside.find(column) if inside.has(column) or not outside.has(column) else outside.find(column))
    return holder.this  # type: ignore[no-any-return]


def resolved_condition(condition: exp.Expression, scope: Scope) -> exp.Expression:
    resolved = scope.resolved(condition)
    return resolved.this if isinstance(resolved, exp.Paren) and not isinstance(resolved.this, exp.Or) else resolved


def _excludes_nulls(query: exp.Expression) -> bool:
    select = query.this if isinstance(query, exp.Subquery) else query
    where = select.args.get("where")
    values = [item.this if isinstance(item, exp.Alias) else item for item in select.expressions]
    kept = [
        c.this.this
        for c in conjuncts(where.this if where is not None else None)
        if isinstance(c, exp.Not) and isinstance(c.this, exp.Is) and isinstance(c.this.expression, exp.Null)
    ]
    return all(value in kept for value in values)
