"""The steps that a query becomes, each planned as soon as it is written, in an order in which they can run.

A step's name is the identity of its state. It is built from the names in the query (`step.alias`), not from
places, so it changes only with the part of the query that it stands for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlglot import exp

from operators.element import Schema
from streamproc.pipeline.sql.expressions import text_of
from streamproc.pipeline.sql.fault import SqlFault
from streamproc.pipeline.sql.rows import Column, Rows, StepPath, column_name, plain, unique_name
from streamproc.pipeline.sql.windows import WINDOW_END, window_time


@dataclass(frozen=True, slots=True)
class Step:
    """One step as a file would have it. `places`: the offset in the query of what stands at a path in it."""

    name: str
    mapping: Mapping[str, Any]
    places: Mapping[StepPath, int]


Plan = Callable[[Step], Schema]


def assigned(rows: Rows) -> Rows:
    """The rows with their windows given to them by the draft."""
    if rows.windows is None or rows.windows.assign is None:
        return rows
    if "session" in rows.windows.assign:
        raise SqlFault(
            "the sessions of a SESSION table function are known only once their rows are aggregated",
            offset=rows.places.get(("window",), 0),
            hint="GROUP BY its PARTITION BY columns, window_start and window_end",
        )
    return replace(
        rows, draft={**rows.draft, "window": dict(rows.windows.assign)}, windows=replace(rows.windows, assign=None)
    )


def part_of_name(alias: str) -> str:
    """An alias as a part of a step's name."""
    return "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in alias.lower())


def _tells_window(rows: Rows, expression: exp.Expression) -> bool:
    name = (column_name(expression) or "").rpartition(".")[2]
    return rows.windows is not None and name in ("window_start", "window_end")


class Steps:
    """Writes steps down and plans them. `ttl` goes to every step that keeps rows without a window."""

    def __init__(self, plan: Plan, ttl: str | None) -> None:
        self.ttl = ttl
        self.written: dict[str, Step] = {}
        self._plan = plan
        self._schemas: dict[str, tuple[str, Schema]] = {}  # a mapping's text → its step

    def stored(self, rows: Rows, needed: Collection[Column] | None = None) -> Rows:
        """The same rows as a stream of its own, with the columns `needed` (None: all). A draft that does nothing
        is that already; a step that is written twice is run once, under the name of the first."""
        rows = assigned(rows)
        if rows.stream is not None and all(column_name(e) for e in rows.columns.values()):
            return rows
        kept = {c: e for c, e in rows.columns.items() if needed is None or c in needed or _tells_window(rows, e)}
        draft, names = dict(rows.draft), dict[str, exp.Expression]()
        if "join" in draft or any(column_name(expression) is None for expression in kept.values()):
            kept = kept or dict([next(iter(rows.columns.items()))])  # of COUNT(*) nothing is needed but the rows
            result: dict[Column, exp.Expression] = {}
            for column, expression in kept.items():
                wanted = (column_name(expression) or column[1]).rpartition(".")[2]
                new = next((n for n, e in names.items() if e == expression), None) or unique_name(wanted, names)
                names[new] = expression
                result[column] = plain(new)
            draft["select"] = {new: text_of(expression, rows.schema) for new, expression in names.items()}
            kept = result
        else:
            kept = {c: e for c, e in rows.columns.items() if column_name(e) is not None}
            names = {str(column_name(expression)): expression for expression in kept.values()}
        stream, schema = self._planned(draft, rows.places, rows.name)
        times = {n: rows.times[old] for n, e in names.items() if (old := column_name(e)) in rows.times}
        if rows.times.get(WINDOW_END) == 1:
            times |= {n: 0 for n, e in names.items() if e == window_time()}
        return replace(
            rows,
            draft={"input": stream},
            columns=kept,
            schema=schema,
            times=times,
            places={},
            hidden=frozenset(c for c in rows.hidden if c in kept),
        )

    def finish(self, rows: Rows, name: str) -> None:
        """The result of the query, under the query's own name."""
        rows = assigned(rows)
        draft = dict(rows.draft)
        columns = {column[1]: e for column, e in rows.columns.items() if column not in rows.hidden}
        names = [column_name(expression) for expression in columns.values()]
        if names != list(columns) or "join" in draft:
            draft["select"] = {new: text_of(expression, rows.schema) for new, expression in columns.items()}
        elif rows.stream is None or names != list(rows.schema):
            draft["select"] = names
        self._write(Step(name, draft, rows.places))

    def name_for(self, wanted: str) -> str:
        return unique_name(wanted, self.written)

    def write(self, name: str, mapping: Mapping[str, Any], places: Mapping[StepPath, int] | None = None) -> Schema:
        return self._write(Step(name, mapping, places or {}))

    def _planned(self, draft: Mapping[str, Any], places: Mapping[StepPath, int], name: str) -> tuple[str, Schema]:
        text = json.dumps(draft, sort_keys=True)
        if text not in self._schemas:
            name = self.name_for(name)
            self._schemas[text] = (name, self._write(Step(name, draft, places)))
        return self._schemas[text]

    def _write(self, step: Step) -> Schema:
        assert step.name not in self.written, step.name
        self.written[step.name] = step
        return self._plan(step)
