"""FROM and WHERE: tables, their joins one after the other, and the filters that may run before them.

Which join it is, the conditions say: equal windows make a window join, event times within bounds an interval join,
FOR SYSTEM_TIME AS OF a join with versions, and everything else a regular join.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlglot import exp

from operators.explanation import duration_text
from operators.expression.syntax import offset_of
from streamproc.pipeline.spec import JoinKind
from streamproc.pipeline.sql.bounds import interval_of
from streamproc.pipeline.sql.expressions import over, written
from streamproc.pipeline.sql.fault import SqlFault, fault
from streamproc.pipeline.sql.grouping import aggregate_calls
from streamproc.pipeline.sql.ranking import Ranking, limited
from streamproc.pipeline.sql.rows import (
    Column,
    Reference,
    Rows,
    Scope,
    StepPath,
    column_name,
    conjuncts,
    plain,
    reference,
    tables,
    unique_name,
)
from streamproc.pipeline.sql.steps import Steps, part_of_name
from streamproc.pipeline.sql.subqueries import Side, Source, Tables, half_join, resolved_condition, subquery_of
from streamproc.pipeline.sql.windows import WINDOW_END, WINDOW_START, WINDOW_TIMES

_BEFORE_LEFT: Final = ("inner", "left", "semi", "anti")  # a filter of the left rows after the join may run before it
_ON_RIGHT: Final = ("inner", "left", "semi", "anti")  # a condition of the match on right rows alone may, too


@dataclass(frozen=True, slots=True)
class Joined:
    """The rows of a FROM after its WHERE, and what its names mean."""

    rows: Rows
    scope: Scope


def join_all(source: Source, query: exp.Select, name: str, reach: Tables) -> Joined:
    """The rows of a query's FROM, its joins and its WHERE. Raises SqlFault."""
    where = query.args.get("where")
    conditions = conjuncts(where.this if where is not None else None)
    found: dict[str, Rows] = {}
    joins = list(query.args.get("joins") or [])
    nodes = [query.args["from_"].this, *(join.this for join in joins)]
    for node in nodes:
        alias, rows = source.table(node, name, reach)
        if alias in found and isinstance(node, exp.Subquery) and not node.alias:
            alias = unique_name(alias, found)
            rows = replace(rows.called(alias), name=f"{name}.{alias}")
        if alias in found:
            raise fault(node, f"two tables are called '{alias}'", "give one an alias")
        if isinstance(rows, Ranking):
            rows, conditions = limited(rows, conditions, query, source.steps)
        found[alias] = source.steps.stored(rows) if joins and "aggregate" in rows.draft else rows
    aliases = list(found)
    scope = Scope(found, _common_columns(found, joins))
    sides = [_side(alias, found[alias], join, scope) for alias, join in zip(aliases[1:], joins, strict=True)]
    plain_conditions: list[exp.Expression] = []
    for condition in conditions:
        subquery = subquery_of(condition)
        if subquery is None:
            if calls := aggregate_calls(condition):
                raise fault(calls[0], "an aggregate cannot stand in WHERE", "write it in HAVING")
            plain_conditions.append(resolved_condition(condition, scope))
        else:
            side, more = half_join(source, condition, subquery, scope, name, reach)
            sides.append(side)
            plain_conditions += more
    builder = _Joins(source.steps, name, _needed(query, scope))
    rows = builder.all(found[aliases[0]], aliases[0], sides, plain_conditions)
    return Joined(rows, scope)


class _Joins:
    """Joins the tables of one FROM, from left to right."""

    def __init__(self, steps: Steps, name: str, needed: set[Column]) -> None:
        self._steps = steps
        self._name = name
        self._needed = needed

    def all(self, rows: Rows, alias: str, sides: Sequence[Side], where: list[exp.Expression]) -> Rows:
        """`rows` joined with every side; `where` holds for the result."""
        known, left_name = {alias}, alias
        for position, side in enumerate(sides):
            later = [other.kind for other in sides[position:]]
            before = [c for c in where if tables(c) <= known and all(kind in _BEFORE_LEFT for kind in later)]
            where = _without(where, before)
            rows = self.filtered(rows, before, left_name)
            conditions, right = list(side.conditions), side.rows
            if side.kind == "inner":
                joining = [c for c in where if tables(c) <= known | {side.alias} and tables(c) & known]
                conditions, where = conditions + joining, _without(where, joining)
            own = [c for c in conditions if tables(c) == {side.alias}] if side.kind in _ON_RIGHT else []
            conditions = _without(conditions, own)
            if side.kind in ("inner", "right"):
                after = [c for c in where if tables(c) == {side.alias}]
                # a filter ahead of versions would uncover older ones
                if side.as_of is None and all(kind in _BEFORE_LEFT for kind in later[1:]):
                    own, where = own + after, _without(where, after)
            if side.as_of is not None:
                conditions += own
                own = []
            right = self.filtered(right, own, side.alias)
            needed = self._needed | _read(where) | _read([c for other in sides[position + 1 :] for c in other.read])
            rows = self._join(rows, left_name, right, replace(side, conditions=conditions), needed)
            known.add(side.alias)
            left_name = f"{left_name}_{side.alias}"
        return self.filtered(rows, where, left_name)

    def filtered(self, rows: Rows, conditions: Sequence[exp.Expression], alias: str) -> Rows:
        """The rows for which all conditions hold."""
        if not conditions:
            return rows
        of_windows = [c for c in conditions if _reads_windows(c, rows)]
        if of_windows and rows.windows is not None and rows.windows.assign is not None:
            rows = self.filtered(rows, _without(list(conditions), of_windows), alias)
            rows, conditions = self._steps.stored(rows), of_windows
        words = [word for word in rows.draft if word not in ("input", "where", "join")]
        if "select" in words or "union" in words:
            rows = self._steps.stored(rows)
            words = []
        word = "having" if words else "where"
        texts = [_in_brackets(c, written(c, rows)) for c in conditions]
        if word in rows.draft:
            texts.insert(0, f"({rows.draft[word]})")
        places = {**rows.places, (word,): rows.places.get((word,), offset_of(conditions[0]) or 0)}
        return replace(rows, draft={**rows.draft, word: " and ".join(texts)}, places=places)

    def _join(self, left: Rows, left_name: str, right: Rows, side: Side, needed: set[Column]) -> Rows:
        """`needed`: the columns that are read after this join."""
        left, right, conditions = self._with_match_columns(left, right, side)
        needed = needed | _read([*conditions, *side.read])
        left = self._steps.stored(left, needed)
        right = self._steps.stored(right, needed)
        join: dict[str, Any] = {"left": left.stream, "right": right.stream, "kind": side.kind}
        columns = {c: _sided(e, "left") for c, e in left.columns.items()}
        right_columns = {c: _sided(e, "right") for c, e in right.columns.items()}
        schema = {f"left.{n}": t for n, t in left.schema.items()} | {f"right.{n}": t for n, t in right.schema.items()}
        both = Rows({}, columns | right_columns, schema, timed=left.timed and right.timed)
        both.name = f"{self._name}.{part_of_name(left_name)}_{part_of_name(side.alias)}"
        both.hidden = left.hidden | right.hidden
        both.changelog = left.changelog or right.changelog
        in_windows, others = _windows_equal(conditions, left, right)
        if side.as_of is not None:
            _check_as_of(side, left)
            join["as_of"] = True
        elif in_windows:
            join["window"] = "input"
            equalities = [c for c in others if _is_equality(c, left, right)]
            conditions = others if equalities else conditions
        elif left.timed and right.timed and (interval := interval_of(conditions, left, right)) is not None:
            join["within"] = [duration_text(interval.lowest_ms), duration_text(interval.highest_ms)]
            conditions = interval.rest
            if side.kind in ("inner", "semi", "anti"):  # the time of a pair is the later one
                both.times |= _times(left, "left", later=interval.highest_ms <= 0 or side.kind != "inner")
                both.times |= _times(right, "right", later=interval.lowest_ms >= 0 and side.kind == "inner")
        else:
            if self._steps.ttl is not None:
                join["ttl"] = self._steps.ttl
            both.changelog |= side.kind not in ("inner", "semi")
        if not any(_is_equality(c, left, right) for c in conditions):
            hint = "a join needs at least one left.column = right.column"
            raise fault(side.at or conditions[0], f"no equality joins '{side.alias}' with the tables before it", hint)
        conditions.sort(key=lambda c: not _is_equality(c, left, right))
        join["match"] = " and ".join(_in_brackets(c, written(c, both)) for c in conditions)
        places: dict[StepPath, int] = {("join",): offset_of(side.at) or 0 if side.at is not None else 0}
        places["join", "match"] = offset_of(conditions[0]) or places["join",]
        if in_windows and side.as_of is None:
            both.windows = left.windows
            _share_windows(both, side.kind)
            kept = [name for name in ("left", "right") if side.kind in ("inner", name)]
            both.times = {f"{name}.{column}": past for name in kept for column, past in WINDOW_TIMES.items()}
        if side.kind in ("semi", "anti"):
            both.columns = {column: expression for column, expression in both.columns.items() if column in columns}
        both.draft, both.places = {"join": join}, places
        return both

    def _with_match_columns(self, left: Rows, right: Rows, side: Side) -> tuple[Rows, Rows, list[exp.Expression]]:
        """An equality of expressions becomes one of columns, which are computed before the join."""
        conditions: list[exp.Expression] = []
        for condition in side.conditions:
            if isinstance(condition, exp.EQ) and not _is_time(condition, left, right):
                halves: list[exp.Expression] = []
                for half in (condition.this, condition.expression):
                    of_right = tables(half) == {side.alias}
                    mixed = tables(half) & {side.alias} and not of_right
                    if isinstance(half, Reference) or not tables(half) or mixed:
                        halves.append(half)
                        continue
                    rows = right if of_right else left
                    column = ("match", unique_name("match_key", [name for _, name in rows.columns]))
                    rows = replace(rows, columns={**rows.columns, column: over(half, rows)})
                    left, right = (left, rows) if of_right else (rows, right)
                    halves.append(Reference(alias=column[0], name=column[1], fields=""))
                condition = exp.EQ(this=halves[0].copy(), expression=halves[1].copy())
            conditions.append(condition)
        return left, right, conditions


def _side(alias: str, rows: Rows, join: exp.Expression, scope: Scope) -> Side:
    """One JOIN as written."""
    if join.args.get("method") or join.args.get("match_condition"):
        raise fault(join, "NATURAL joins are not supported", "write ON a.x = b.x or USING (x)")
    side, how = str(join.args.get("side") or "").lower(), str(join.args.get("kind") or "").lower()
    kinds: dict[str, JoinKind] = {"": "inner", "left": "left", "right": "right", "full": "full"}
    if how in ("semi", "anti") or side not in kinds:
        raise fault(join, f"{how.upper()} JOIN is not SQL of Flink", "write WHERE [NOT] EXISTS (…)")
    on = join.args.get("on")
    for condition in conjuncts(on):
        if subquery_of(condition) is not None:
            raise fault(condition, "a subquery cannot stand in ON", "write it in WHERE")
    conditions = [resolved_condition(condition, scope) for condition in conjuncts(on)]
    for part in join.args.get("using") or []:
        own, others = (alias, part.name), [c for c in scope.columns if c[1] == part.name and c[0] != alias]
        conditions.append(exp.EQ(this=reference(others[0], part), expression=reference(own, part)))
    version = join.this.args.get("version") if isinstance(join.this, exp.Table) else None
    as_of = scope.resolved(version.expression) if version is not None else None
    if as_of is not None and kinds[side] not in ("inner", "left"):
        raise fault(join, f"FOR SYSTEM_TIME AS OF goes with INNER and LEFT JOIN, not {side.upper()}")
    return Side(alias, rows, kinds[side], conditions, as_of, join)


def _common_columns(found: Mapping[str, Rows], joins: Sequence[exp.Expression]) -> dict[str, Column]:
    """The columns of USING, and whose they are: those of the side that is always there. Raises SqlFault."""
    common: dict[str, Column] = {}
    aliases = list(found)
    for position, join in enumerate(joins, 1):
        for part in join.args.get("using") or []:
            holders = [alias for alias in aliases[: position + 1] if (alias, part.name) in found[alias].columns]
            if aliases[position] not in holders or len(holders) < 2:
                raise fault(part, f"column '{part.name}' of USING is not in both tables", "write ON a.x = b.y")
            side = str(join.args.get("side") or "").lower()
            if side == "full" or len(holders) > 2:
                raise fault(part, "USING is for two tables and not for a FULL JOIN", "write ON a.x = b.x")
            common[part.name] = (holders[1] if side == "right" else holders[0], part.name)
    return common


def _check_as_of(side: Side, left: Rows) -> None:
    node = side.as_of
    assert node is not None
    name = left.physical(node.column) if isinstance(node, Reference) and node.column in left.columns else None
    if name is None or left.times.get(name) != 0:
        raise fault(node, "FOR SYSTEM_TIME AS OF takes the event time of the left table", "for example o.rowtime")


def _read(nodes: Sequence[exp.Expression]) -> set[Column]:
    return {reference.column for node in nodes for reference in node.find_all(Reference)}


def _needed(query: exp.Select, scope: Scope) -> set[Column]:
    """The columns that a query reads after its FROM and WHERE."""
    needed: set[Column] = set()
    for node in query.expressions:
        if isinstance(node, exp.Star):
            needed |= set(scope.visible())
        elif isinstance(node, exp.Column) and isinstance(node.this, exp.Star):
            needed |= set(scope.visible(node.table))
    parts = [query.args.get(word) for word in ("group", "having", "order")]
    for part in (*query.expressions, *(part for part in parts if part is not None)):
        for column in part.find_all(exp.Column):
            try:
                needed.add(scope.find(column).column)
            except SqlFault:
                continue  # of a subquery, or told where it is resolved
    return needed


def _windows_equal(conditions: Sequence[exp.Expression], left: Rows, right: Rows) -> tuple[bool, list[exp.Expression]]:
    """Whether both ends of the windows of both sides are equal, and the conditions beside that."""
    if left.windows is None or right.windows is None:
        return False, list(conditions)
    ends: set[str] = set()
    others: list[exp.Expression] = []
    for condition in conditions:
        names = _equal_columns(condition, left, right)
        if names is not None and names[0] == names[1] and names[0] in (WINDOW_START, WINDOW_END):
            ends.add(names[0])
        else:
            others.append(condition)
    return ends == {WINDOW_START, WINDOW_END}, others


def _equal_columns(condition: exp.Expression, left: Rows, right: Rows) -> tuple[str, str] | None:
    """The left and the right column that an equality compares."""
    if not isinstance(condition, exp.EQ):
        return None
    a, b = condition.this, condition.expression
    if not (isinstance(a, Reference) and isinstance(b, Reference)):
        return None
    if a.column in right.columns:
        a, b = b, a
    if a.column not in left.columns or b.column not in right.columns or a.args["fields"] or b.args["fields"]:
        return None
    names = left.physical(a.column), right.physical(b.column)
    return (names[0], names[1]) if names[0] is not None and names[1] is not None else None


def _is_equality(condition: exp.Expression, left: Rows, right: Rows) -> bool:
    return _equal_columns(condition, left, right) is not None


def _is_time(condition: exp.Expression, left: Rows, right: Rows) -> bool:
    return interval_of([condition], left, right) is not None or interval_of([condition], right, left) is not None


def _reads_windows(condition: exp.Expression, rows: Rows) -> bool:
    return any(r.column in rows.columns and r.column[1].startswith("window_") for r in condition.find_all(Reference))


def _share_windows(rows: Rows, kind: JoinKind) -> None:
    """Name the window of a row by the side that is always there; where both are, they have one window."""
    if kind == "full":
        rows.windows = None
        return
    kept = "right" if kind == "right" else "left"
    for column, expression in rows.columns.items():
        if kind == "inner" and (column_name(expression) or "").partition(".")[2] in (WINDOW_START, WINDOW_END):
            rows.columns[column] = _sided(expression, kept)
    # names are given in this order: that of the window goes to the side that is kept
    of_side = {c: e for c, e in rows.columns.items() if (column_name(e) or "").startswith(f"{kept}.")}
    rows.columns = of_side | rows.columns


def _times(rows: Rows, side: str, *, later: bool) -> dict[str, int]:
    """The columns of a side that tell the event time of a pair, where that side is the later one."""
    return {f"{side}.{name}": past for name, past in rows.times.items()} if later else {}


def _sided(expression: exp.Expression, side: str) -> exp.Expression:
    name = column_name(expression)
    assert name is not None, "a stored column is computed"
    return plain(name.rpartition(".")[2], side)


def _without(conditions: Sequence[exp.Expression], gone: Sequence[exp.Expression]) -> list[exp.Expression]:
    return [c for c in conditions if all(c is not other for other in gone)]


def _in_brackets(condition: exp.Expression, text: str) -> str:
    return f"({text})" if isinstance(condition, exp.Or) else text
