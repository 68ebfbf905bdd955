"""A step as written → a logical step: its operators in SQL's order, what runs before its exchange, its columns.

`input` → `where` → (narrow, exchange by key) → the verb → `having` → `select` → `add`. Checks of a step
whose input columns are not known stop at what can be said without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from operators.connector import ErrorPolicy
from operators.element import Schema
from operators.expression import Scalar
from operators.operator import OperatorSpec
from operators.slices import Window
from operators.stateless import FilterSpec, ProjectSpec
from operators.window import WindowAggregateSpec
from streamproc.pipeline import expressions
from streamproc.pipeline.columns import check_column_name
from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.shape import Part
from streamproc.pipeline.spec import StepSpec, duration_text
from streamproc.pipeline.suggest import did_you_mean

WINDOW_COLUMNS: Final = ("window_start", "window_end")
WINDOWS_PER_ROW_MAX: Final = 100_000
_SCHEMA_FIELDS: Final = frozenset({"input", "key", "window", "aggregate", "select", "add"})


@dataclass(slots=True)
class PlannedStep:
    """The operators of one step. `schema` is None where a fault hides it."""

    before: list[OperatorSpec] = field(default_factory=list)
    key: tuple[str, ...] | None = None
    operators: list[OperatorSpec] = field(default_factory=list)
    schema: Schema | None = None
    late_schema: Schema | None = None


def check_step_rules(part: Part[StepSpec], *, bounded: bool, log: FaultLog) -> None:
    """Which fields may stand together, whatever the columns are."""
    spec = part.spec
    if spec is None or part.opaque:
        return
    if "aggregate" not in part.broken and spec.aggregate is None:
        for name in ("key", "window", "late", "emit", "having"):
            if part.has(name) and name not in part.broken:
                hint = "conditions on rows go to `where`" if name == "having" else None
                log.error((*part.path, name), f"'{name}' needs 'aggregate' in the same step", hint, at_key=True)
        return
    if spec.aggregate is not None and spec.window is None and "window" not in part.broken:
        if bounded:
            message = "an aggregate without a window is not supported yet, even when all its inputs end"
        else:
            message = "an aggregate over input that never ends needs a window: its state would grow for ever"
        log.error((*part.path, "aggregate"), message, "for example `window: {tumble: 1m}`", at_key=True)
    if spec.window is not None:
        _check_window(part, log)


def _check_window(part: Part[StepSpec], log: FaultLog) -> None:
    assert part.spec is not None
    assert part.spec.window is not None
    window, path = part.spec.window, (*part.path, "window")
    if (window.tumble is None) == (window.hop is None):
        message = "needs 'tumble' or 'hop'" if window.tumble is None else "has both 'tumble' and 'hop': give one"
        hint = "for example {tumble: 1m} or {hop: {size: 10m, every: 1m}}"
        log.error(path, message, hint if window.tumble is None else None, at_key=True)
        return
    every = window.tumble or (window.hop.every if window.hop else 0)
    if window.hop is not None:
        size = window.hop.size
        if every > size:
            said = f"{duration_text(every)} is more than the size ({duration_text(size)})"
            message = f"{said}: rows between windows would be lost"
            log.error((*path, "hop", "every"), message)
        elif size // every > WINDOWS_PER_ROW_MAX:
            message = f"a row would belong to {size // every} windows; at most {WINDOWS_PER_ROW_MAX} are allowed"
            log.error((*path, "hop", "every"), message)
    if window.offset and window.offset >= every:
        message = f"{duration_text(window.offset)} is not less than the distance of windows ({duration_text(every)})"
        log.error((*path, "offset"), message)


def plan_step(
    part: Part[StepSpec], schema: Schema | None, errors: ErrorPolicy, *, reorder: bool, log: FaultLog
) -> PlannedStep:
    """Compile a step over input columns. `reorder`: inputs have the columns in different orders."""
    planned = PlannedStep()
    spec = part.spec
    if spec is None or schema is None:
        return planned
    rows: list[OperatorSpec] = []
    if reorder:
        rows.append(ProjectSpec({name: expressions.column(name, schema) for name in schema}, schema, errors))
    if spec.where is not None:
        predicate = expressions.predicate(spec.where, schema, (*part.path, "where"), log)
        if predicate is not None:
            rows.append(FilterSpec(predicate, schema, errors))
    if part.opaque or _SCHEMA_FIELDS & part.broken:
        return planned
    result: Schema | None = schema
    if spec.aggregate is None:
        planned.operators += rows
    else:
        planned.before += rows
        result = _plan_aggregate(part, schema, errors, planned, log)
    if result is not None and spec.having is not None and spec.aggregate is not None:
        predicate = expressions.predicate(spec.having, result, (*part.path, "having"), log)
        if predicate is not None:
            planned.operators.append(FilterSpec(predicate, result, errors))
    if result is not None and spec.select is not None:
        result = _plan_select(spec.select, result, (*part.path, "select"), errors, planned, log)
    if result is not None and spec.add is not None:
        kept = {name: expressions.column(name, result) for name in result}
        result = _project(spec.add, kept, result, (*part.path, "add"), errors, planned, log)
    planned.schema = result
    return planned


def _plan_aggregate(
    part: Part[StepSpec], schema: Schema, errors: ErrorPolicy, planned: PlannedStep, log: FaultLog
) -> Schema | None:
    spec = part.spec
    assert spec is not None
    assert spec.aggregate is not None
    key = tuple(spec.key or ())
    late_output = spec.late.then == "side_output"
    if late_output:
        planned.late_schema = schema
    legal = _check_key(key, schema, (*part.path, "key"), log)
    legal &= _check_aggregate_names(spec.aggregate, key, (*part.path, "aggregate"), log)
    known_key = tuple(name for name in key if name in schema)
    plan = expressions.aggregates(spec.aggregate, schema, known_key, (*part.path, "aggregate"), log)
    window = _window(spec)
    if plan is None or window is None or not legal:
        return None
    if not late_output:  # late rows leave with all their columns
        needed = [name for name in schema if name in key or name in plan.inputs]
        if len(needed) < len(schema):
            schema = {name: schema[name] for name in needed}
            planned.before.append(
                ProjectSpec({name: expressions.column(name, schema) for name in schema}, schema, errors)
            )
    planned.key = key
    aggregate = WindowAggregateSpec(key, window, plan, spec.late.accept_for, late_output, schema, errors)
    planned.operators.append(aggregate)
    return aggregate.schema


def _window(spec: StepSpec) -> Window | None:
    """The window as operators know it; None where it is missing or wrong (which has its fault already)."""
    written = spec.window
    if written is None or (written.tumble is None) == (written.hop is None):
        return None
    if written.tumble is not None:
        return Window(written.tumble, written.tumble, written.offset)
    assert written.hop is not None
    return Window(written.hop.size, written.hop.every, written.offset)


def _check_key(key: Sequence[str], schema: Schema, path: FieldPath, log: FaultLog) -> bool:
    legal = True
    for index, name in enumerate(key):
        at = (*path, index)
        if name not in schema:
            log.error(at, f"unknown column '{name}'", did_you_mean(name, schema))
        elif name in key[:index]:
            log.error(at, f"'{name}' is named twice")
        elif isinstance(schema[name], pl.List | pl.Struct):
            log.error(
                at, f"'{name}' is a {'list' if isinstance(schema[name], pl.List) else 'struct'}: it cannot be a key"
            )
        elif name in WINDOW_COLUMNS:
            hint = "rename it in a step before, with `select`"
            log.error(at, f"a window gives a column '{name}' of its own", hint)
        else:
            continue
        legal = False
    return legal


def _check_aggregate_names(aggregate: Mapping[str, str], key: Sequence[str], path: FieldPath, log: FaultLog) -> bool:
    legal = True
    for name in aggregate:
        at = (*path, name)
        if not check_column_name(name, at, log):
            legal = False
        elif name in key or name in WINDOW_COLUMNS:
            what = "a key column" if name in key else "a column of the window"
            log.error(at, f"'{name}' is {what} already: give the aggregate another name", at_key=True)
            legal = False
    return legal


def _plan_select(
    select: Mapping[str, str] | Sequence[str],
    schema: Schema,
    path: FieldPath,
    errors: ErrorPolicy,
    planned: PlannedStep,
    log: FaultLog,
) -> Schema | None:
    if isinstance(select, Mapping):
        return _project(select, {}, schema, path, errors, planned, log)
    legal = True
    for index, name in enumerate(select):
        if name not in schema:
            if name.isidentifier():
                hint = did_you_mean(name, schema)
            else:
                hint = "a list keeps columns by name; for expressions write a mapping {name: expression}"
            log.error((*path, index), f"unknown column '{name}'", hint)
            legal = False
        elif name in select[:index]:
            log.error((*path, index), f"'{name}' is named twice")
            legal = False
    if not legal:
        return None
    kept = {name: schema[name] for name in select}
    planned.operators.append(ProjectSpec({name: expressions.column(name, kept) for name in kept}, kept, errors))
    return kept


def _project(
    texts: Mapping[str, str],
    kept: Mapping[str, Scalar],
    schema: Schema,
    path: FieldPath,
    errors: ErrorPolicy,
    planned: PlannedStep,
    log: FaultLog,
) -> Schema | None:
    """`kept` columns, then the new ones; a new one may replace a kept one."""
    columns = dict(kept)
    legal = True
    for name, text in texts.items():
        named = check_column_name(name, (*path, name), log)
        compiled = expressions.scalar(text, schema, (*path, name), log)
        if compiled is None or not named:
            legal = False
        else:
            columns[name] = compiled
    if not legal:
        return None
    result = {name: compiled.dtype for name, compiled in columns.items()}
    planned.operators.append(ProjectSpec(columns, result, errors))
    return result


def untimed_fault(
    part: Part[StepSpec], untimed: Sequence[str], candidates: Mapping[str, Sequence[str]], log: FaultLog
) -> None:
    """A window over input without event time. `candidates`: timestamp columns of the sources concerned."""
    for name in untimed:
        if name.endswith(".errors"):
            log.error((*part.path, "window"), f"a window needs event time, which '{name}' does not have", at_key=True)
            continue
        columns = candidates.get(name, ())
        if columns:
            hint = f"add `event_time: {{column: {columns[0]}}}` to sources.{name}"
        else:
            hint = f"declare a timestamp column in sources.{name} and name it in `event_time: {{column: …}}`"
        message = f"a window needs event time, but the source '{name}' declares none"
        log.error((*part.path, "window"), message, hint, at_key=True)
