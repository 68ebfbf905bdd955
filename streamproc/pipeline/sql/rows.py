"""What a query has at hand at some point of its translation: a step as far as it is written, and what the
columns of the query are called there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlglot import exp

from operators.element import Schema
from operators.expression.error import near_name
from streamproc.pipeline.sql.fault import fault

Column = tuple[str, str]  # the table's alias in the query ("" for a result), and the column's name
StepPath = tuple[str, ...]  # inside a step, for example ("select", "price")
ROWTIME: Final = "rowtime"  # names the event time of a stream even where no column is called so
WINDOW_TIME: Final = "window_time"


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream that a query may read."""

    schema: Schema
    event_time: str | None = None  # the column that holds it, where one does
    timed: bool = True  # rows have event time
    changelog: bool = False


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows that rows are in, told by the columns `window_start` and `window_end`.

    `assign` is the `window:` that a step would still have to write; None: the rows carry the columns.
    """

    assign: Mapping[str, Any] | None
    size_ms: int | None  # None where windows differ in length
    partition: tuple[str, ...] = ()  # of a session: the columns within which rows belong together


@dataclass(slots=True)
class Rows:
    """`draft`: a step without its `select`. `columns`: what each column of the query is over the draft's columns."""

    draft: dict[str, Any]
    columns: dict[Column, exp.Expression]
    schema: Schema  # of the draft's columns, as far as known
    hidden: frozenset[Column] = frozenset()  # may be named, but `*` does not mean them
    windows: Windows | None = None
    times: dict[str, int] = field(default_factory=dict)  # columns of the draft: how many ms past the event time
    timed: bool = True
    changelog: bool = False
    places: dict[StepPath, int] = field(default_factory=dict)  # offsets of what the draft says
    name: str = ""  # what the draft's step will be called

    @property
    def stream(self) -> str | None:
        """The stream's name where the draft does nothing yet."""
        return self.draft["input"] if set(self.draft) == {"input"} and isinstance(self.draft["input"], str) else None

    def called(self, alias: str) -> Rows:
        """The same rows as a table of that name."""
        return replace(
            self,
            columns={(alias, name): expression for (_, name), expression in self.columns.items()},
            hidden=frozenset((alias, name) for _, name in self.hidden),
        )

    def physical(self, column: Column) -> str | None:
        """The draft's column that this one is; None where it is computed."""
        return column_name(self.columns[column])


class Reference(exp.Expression):
    """A column of the query, found: `alias` and `name`, and the `fields` of a struct below it."""

    arg_types = {"alias": True, "name": True, "fields": False}

    @property
    def column(self) -> Column:
        return self.args["alias"], self.args["name"]


def plain(name: str, side: str | None = None) -> exp.Expression:
    """The draft's column (`side`: of the left or the right input of a join)."""
    return exp.Column(this=identifier(name), table=exp.Identifier(this=side, quoted=False) if side else None)


def identifier(name: str) -> exp.Identifier:
    simple = name.isidentifier() and name.isascii() and name.lower() not in _QUOTED_WORDS.split()
    return exp.Identifier(this=name, quoted=not simple)


def column_name(expression: exp.Expression) -> str | None:
    """`left.x` or `x` for a column, None for anything else."""
    if isinstance(expression, exp.Column) and not expression.args.get("db"):
        return ".".join(part.name for part in expression.parts)
    return None


class Scope:
    """The tables of one FROM. Finds what names mean."""

    def __init__(self, tables: Mapping[str, Rows], common: Mapping[str, Column] | None = None) -> None:
        """`common`: columns of USING by name, each the one of several that the name alone means."""
        self._common = common or {}
        self.columns = [column for rows in tables.values() for column in rows.columns]
        self._hidden = frozenset[Column]().union(*(rows.hidden for rows in tables.values()))
        self._tables = tables

    def visible(self, alias: str | None = None) -> list[Column]:
        """What `*` or `alias.*` means."""
        found = [c for c in self.columns if c not in self._hidden and alias in (None, c[0])]
        if alias is None and self._common:
            found = [*self._common.values(), *(c for c in found if c[1] not in self._common)]
        return found

    def has(self, node: exp.Column) -> bool:
        """Whether a name means a column here."""
        parts = [part.name for part in node.parts]
        return any((len(parts) > 1 and (parts[0], parts[1]) == c) or parts[0] == c[1] for c in self.columns)

    def find(self, node: exp.Column) -> Reference:
        """Raises SqlFault for an unknown or ambiguous name."""
        parts = [part.name for part in node.parts]
        if len(parts) > 1 and parts[0] in self._tables:
            column, fields = (parts[0], parts[1]), parts[2:]
            if column in self.columns:
                return self._reference(column, fields, node)
            names = [name for alias, name in self.visible(parts[0])]
            raise fault(node, f"unknown column '{parts[0]}.{parts[1]}'", _did_you_mean(parts[1], names))
        matches = [column for column in self.columns if column[1] == parts[0]]
        if parts[0] in self._common:
            matches = [self._common[parts[0]]]
        if len(matches) > 1:
            said = " and ".join(f"{alias}.{name}" for alias, name in matches)
            raise fault(node, f"column '{parts[0]}' is ambiguous: {said}", "write the table's alias before it")
        if matches:
            return self._reference(matches[0], parts[1:], node)
        if len(parts) > 1:
            raise fault(node, f"unknown table '{parts[0]}'", _did_you_mean(parts[0], self._tables))
        raise fault(node, f"unknown column '{parts[0]}'", _did_you_mean(parts[0], [n for _, n in self.visible()]))

    def resolved(self, node: exp.Expression) -> exp.Expression:
        """The expression with every name found. Raises SqlFault."""
        holder = exp.Paren(this=node.copy())
        for column in list(holder.find_all(exp.Column)):
            if not isinstance(column.this, exp.Star):
                column.replace(self.find(column))
        return holder.this  # type: ignore[no-any-return]

    def _reference(self, column: Column, fields: list[str], node: exp.Expression) -> Reference:
        return reference(column, node, fields)


def reference(column: Column, at: exp.Expression, fields: Iterable[str] = ()) -> Reference:
    """A column of the query, found under the name that stands at `at`."""
    found = Reference(alias=column[0], name=column[1], fields=".".join(fields))
    found.update_positions(at.find(exp.Identifier))
    return found


def references(node: exp.Expression) -> list[Reference]:
    return list(node.find_all(Reference))


def tables(node: exp.Expression) -> set[str]:
    """Aliases of the tables an expression reads."""
    return {reference.column[0] for reference in references(node)}


def conjuncts(node: exp.Expression | None) -> list[exp.Expression]:
    """The parts of a condition that must all be true."""
    if node is None:
        return []
    if isinstance(node, exp.Paren):
        inner = conjuncts(node.this)
        return inner if len(inner) > 1 else [node]
    if isinstance(node, exp.And):
        return [*conjuncts(node.this), *conjuncts(node.expression)]
    return [node]


def unique_name(wanted: str, taken: Iterable[str]) -> str:
    taken = set(taken)
    if wanted not in taken:
        return wanted
    return next(name for n in range(2, len(taken) + 3) if (name := f"{wanted}_{n}") not in taken)


def _did_you_mean(name: str, names: Iterable[str]) -> str | None:
    near = near_name(name, names)
    return f"did you mean '{near}'?" if near else None


_QUOTED_WORDS: Final = """
    all and any as asc between by case cast cross current_date current_time current_timestamp default desc
    distinct else end escape except exists extract false filter for from full group having if in inner intersect
    interval into is join left like limit natural not null offset on or order outer over partition position right
    row rows select session set some substring table then to trim true try_cast union unique unnest using values
    when where window with date timestamp time
"""
