"""A step as written → a logical step: its operators in SQL's order, what runs before its exchange, its columns.

`input` → `where` → (narrow, exchange by key) → the verb → `having` → `select` → `add`. A fault
hides no more than it must: a column with a fault keeps its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import polars as pl

from operators.connector import ErrorPolicy
from operators.element import Schema
from operators.operator import OperatorSpec
from operators.slices import Window
from operators.stateless import FilterSpec, ProjectSpec
from operators.types import UNKNOWN
from operators.window import WINDOW_TYPE, WindowAggregateSpec
from streamproc.pipeline import expressions
from streamproc.pipeline.columns import (
    AnyColumns,
    GuessedColumns,
    as_certain,
    check_column_name,
    is_column_name,
    named_columns,
)
from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.shape import Part
from streamproc.pipeline.spec import StepSpec, WindowSpec, duration_text
from streamproc.pipeline.suggest import did_you_mean, near

WINDOW_COLUMNS: Final = ("window_start", "window_end")
WINDOWS_PER_ROW_MAX: Final = 100_000
_NEED_AGGREGATE: Final = ("key", "window", "late", "emit", "having")


@dataclass(slots=True)
class PlannedStep:
    """The operators of one step, and the columns of what leaves it."""

    before: list[OperatorSpec] = field(default_factory=list)
    key: tuple[str, ...] | None = None
    operators: list[OperatorSpec] = field(default_factory=list)
    schema: Schema = field(default_factory=AnyColumns)
    late_schema: Schema = field(default_factory=AnyColumns)


def check_step_rules(part: Part[StepSpec], *, bounded: bool, log: FaultLog) -> None:
    """Which fields may stand together, whatever the columns are."""
    spec = part.spec
    if spec is None or part.opaque:
        return
    if "aggregate" not in part.broken and spec.aggregate is None:
        for name in _NEED_AGGREGATE:
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
    if spec.window is not None and not part.is_wrong("window", "tumble") and not part.is_wrong("window", "hop"):
        _check_window(part, spec.window, log)


def _check_window(part: Part[StepSpec], window: WindowSpec, log: FaultLog) -> None:
    path = (*part.path, "window")
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
    part: Part[StepSpec], schema: Schema, errors: ErrorPolicy, *, reorder: bool, log: FaultLog
) -> PlannedStep:
    """Compile a step over input columns. `reorder`: inputs have the columns in different orders.

    Operators that a fault leaves without a meaning are not there: then the log has an error.
    """
    planned = PlannedStep(late_schema=schema)
    spec = part.spec
    if spec is None:
        return planned
    rows: list[OperatorSpec] = []
    if reorder:
        rows.append(ProjectSpec({name: expressions.column(name, schema) for name in schema}, schema, errors))
    if part.has("join"):
        schema = AnyColumns()  # left.… and right.…
    if spec.where is not None:
        predicate = expressions.predicate(spec.where, schema, (*part.path, "where"), log)
        if predicate is not None:
            rows.append(FilterSpec(predicate, schema, errors))
    result = schema
    if part.opaque or (not part.has("aggregate") and any(map(part.has, _NEED_AGGREGATE))):
        result = AnyColumns()  # its aggregate is missing
    if not part.has("aggregate"):
        planned.operators += rows
    else:
        planned.before += rows
        result = _plan_aggregate(part, spec, schema, errors, planned, log)
        if spec.having is not None:
            predicate = expressions.predicate(spec.having, result, (*part.path, "having"), log)
            if predicate is not None:
                planned.operators.append(FilterSpec(predicate, result, errors, word="having"))
    if part.has("select"):
        result = _plan_select(part, spec, result, errors, planned, log)
    if part.has("add"):
        result = _plan_expressions(part, "add", spec.add, result, errors, planned, log)
    planned.schema = result
    return planned


def _plan_aggregate(
    part: Part[StepSpec], spec: StepSpec, schema: Schema, errors: ErrorPolicy, planned: PlannedStep, log: FaultLog
) -> Schema:
    written, texts = part.written["aggregate"], _whole_texts(part.written["aggregate"], spec.aggregate)
    path = (*part.path, "aggregate")
    key = named_columns(part.written.get("key") or [])
    _check_key(key or (), schema, (*part.path, "key"), log)
    if not isinstance(written, dict) or not written:
        return AnyColumns()
    if key is None:
        expressions.aggregates(texts, schema, tuple(schema), path, log)
        return AnyColumns()
    names = [name for _, name in key]
    _check_aggregate_names(written, names, path, log)
    # what a misspelt key was meant to be is no fault elsewhere
    names += [meant for name in names if name not in schema and (meant := near(name, schema)) is not None]
    plan, types = expressions.aggregates(texts, schema, tuple(n for n in names if n in schema), path, log)
    columns = {name: schema.get(name, UNKNOWN) for name in names}
    columns |= dict.fromkeys(WINDOW_COLUMNS, WINDOW_TYPE) | {name: types.get(name, UNKNOWN) for name in written}
    planned.key = tuple(names)
    window = _window(spec)
    if plan is None or window is None or log.failed:
        certain = all(name in schema for name in names) and all(map(is_column_name, written))
        return as_certain(columns, certain=certain)
    late_output = spec.late.then == "side_output"
    if not late_output:  # late rows leave with all their columns
        needed = [name for name in schema if name in names or name in plan.inputs]
        if len(needed) < len(schema):
            schema = {name: schema[name] for name in needed}
            planned.before.append(
                ProjectSpec({name: expressions.column(name, schema) for name in schema}, schema, errors)
            )
    aggregate = WindowAggregateSpec(planned.key, window, plan, spec.late.accept_for, late_output, schema, errors)
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


def _check_key(key: Sequence[tuple[FieldPath, str]], schema: Schema, path: FieldPath, log: FaultLog) -> None:
    for index, (place, name) in enumerate(key):
        at = (*path, *place)
        dtype = schema.get(name)
        if name not in schema:
            log.error(at, f"unknown column '{name}'", did_you_mean(name, schema))
        elif any(name == before for _, before in key[:index]):
            log.error(at, f"'{name}' is named twice")
        elif isinstance(dtype, pl.List | pl.Struct):
            log.error(at, f"'{name}' is a {'list' if isinstance(dtype, pl.List) else 'struct'}: it cannot be a key")
        elif name in WINDOW_COLUMNS:
            hint = "rename it in a step before, with `select`"
            log.error(at, f"a window gives a column '{name}' of its own", hint)


def _check_aggregate_names(names: Iterable[str], key: Sequence[str], path: FieldPath, log: FaultLog) -> None:
    for name in names:
        at = (*path, name)
        if check_column_name(name, at, log) and (name in key or name in WINDOW_COLUMNS):
            what = "a key column" if name in key else "a column of the window"
            log.error(at, f"'{name}' is {what} already: give the aggregate another name", at_key=True)


def _plan_select(
    part: Part[StepSpec], spec: StepSpec, schema: Schema, errors: ErrorPolicy, planned: PlannedStep, log: FaultLog
) -> Schema:
    written, path = part.written["select"], (*part.path, "select")
    if not written:
        return AnyColumns()
    if isinstance(written, dict):
        texts = spec.select if isinstance(spec.select, Mapping) else None
        return _plan_expressions(part, "select", texts, {}, errors, planned, log, over=schema)
    columns = named_columns(written)
    if columns is None:
        return AnyColumns()
    kept: Schema = {}
    for index, (at, name) in enumerate(columns):
        if name not in schema:
            hint = did_you_mean(name, schema)
            if not name.isidentifier():
                hint = "a list keeps columns by name; for expressions write a mapping {name: expression}"
            log.error((*path, *at), f"unknown column '{name}'", hint)
            guesses = (name if name.isidentifier() else None, near(name, schema))
            kept |= {guess: UNKNOWN for guess in guesses if guess is not None}
        elif any(name == before for _, before in columns[:index]):
            log.error((*path, *at), f"'{name}' is named twice")
        else:
            kept[name] = schema[name]
    if not log.failed:
        planned.operators.append(ProjectSpec({name: expressions.column(name, kept) for name in kept}, kept, errors))
    return as_certain(kept, certain=all(name in schema for name in kept))


def _plan_expressions(
    part: Part[StepSpec],
    field: Literal["select", "add"],
    texts: Mapping[str, str] | None,
    kept: Schema,
    errors: ErrorPolicy,
    planned: PlannedStep,
    log: FaultLog,
    *,
    over: Schema | None = None,
) -> Schema:
    """`kept` columns, then the new ones, computed `over` columns (the kept ones unless given); a new one may
    replace a kept one."""
    written, path = part.written[field], (*part.path, field)
    if not isinstance(written, dict):
        return AnyColumns()
    texts = _whole_texts(written, texts)
    over = kept if over is None else over
    columns = {name: expressions.column(name, kept) for name in kept}
    certain = not isinstance(kept, GuessedColumns) and all(map(is_column_name, written))
    result = AnyColumns(kept) if isinstance(kept, AnyColumns) else dict(kept)
    for name in written:
        check_column_name(name, (*path, name), log)
        compiled = expressions.scalar(texts[name], over, (*path, name), log, beside=written) if name in texts else None
        result[name] = UNKNOWN if compiled is None else compiled.dtype
        if compiled is not None:
            columns[name] = compiled
    if not log.failed:
        planned.operators.append(ProjectSpec(columns, result, errors))
    return as_certain(result, certain=certain or isinstance(result, AnyColumns))


def _whole_texts(written: Any, texts: Mapping[str, str] | None) -> dict[str, str]:
    """The expressions that could be read, but for those that YAML has cut at a comma: their rest is a name
    without a value, and is told about."""
    cut = isinstance(written, dict) and None in written.values()
    return {name: text for name, text in (texts or {}).items() if not (cut and text.count("(") > text.count(")"))}


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
