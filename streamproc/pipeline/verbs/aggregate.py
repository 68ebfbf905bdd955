"""`aggregate` as written → its operators: over windows here, without a window in `totals`."""

from __future__ import annotations

from operators.aggregates import AggregatePlan
from operators.connector import ErrorPolicy
from operators.element import Schema
from operators.operator import OperatorSpec
from operators.session import SessionAggregateSpec
from operators.stateless import ProjectSpec
from operators.types import UNKNOWN
from operators.window import CARRIED, WINDOW_TYPE, WindowAggregateSpec
from streamproc.pipeline import expressions
from streamproc.pipeline.columns import AnyColumns, as_certain, is_column_name, named_columns
from streamproc.pipeline.logical import Changelog
from streamproc.pipeline.spec import EmitEvery, StepSpec, WindowSpec
from streamproc.pipeline.suggest import near
from streamproc.pipeline.verbs import totals
from streamproc.pipeline.verbs.keys import check_key, check_result_names
from streamproc.pipeline.verbs.verb import PlannedStep, VerbContext
from streamproc.pipeline.verbs.windows import WINDOW_COLUMNS, aligned_window, check_window


def plan(context: VerbContext, planned: PlannedStep) -> None:
    """Fill in an aggregate step."""
    part, spec, log = context.part, context.spec, context.log
    [facts] = context.inputs
    schema, errors = facts.schema, context.errors
    at_window = (*part.path, "window")
    if spec.window is None and "window" not in part.broken:
        totals.plan(context, planned)
        return
    if spec.window is not None:
        if not part.is_wrong("window"):
            check_window(spec.window, schema, at_window, log)
        context.need_event_time(facts, at_window, "a window")
        context.refuse_changelog(facts, at_window, "a window", "aggregate it without a window")
    planned.side_outputs["late"] = schema
    planned.changelog, planned.timed = None, True
    written = part.written["aggregate"]
    texts = expressions.whole_texts(written, spec.aggregate)
    path = (*part.path, "aggregate")
    key = named_columns(part.written.get("key") or [])
    check_key(key or (), schema, (*part.path, "key"), log, windowed=True)
    planned.schema = AnyColumns()
    if not isinstance(written, dict) or not written:
        return
    if key is None:
        expressions.aggregates(texts, schema, tuple(schema), path, log)
        return
    names = [name for _, name in key]
    check_result_names(written, names, path, log, windowed=True)
    # what a misspelt key was meant to be is no fault elsewhere
    names += [meant for name in names if name not in schema and (meant := near(name, schema)) is not None]
    plan, types = expressions.aggregates(texts, schema, tuple(n for n in names if n in schema), path, log)
    columns = {name: schema.get(name, UNKNOWN) for name in names}
    columns |= dict.fromkeys(WINDOW_COLUMNS, WINDOW_TYPE) | {name: types.get(name, UNKNOWN) for name in written}
    planned.inputs[0].key = tuple(names)
    if spec.window is not None and spec.emit != "on_close":
        planned.changelog = Changelog((*names, *WINDOW_COLUMNS))
    if plan is None or spec.window is None or log.failed:
        certain = spec.window is not None and all(n in schema for n in names) and all(map(is_column_name, written))
        planned.schema = as_certain(columns, certain=certain)
        return
    late_output = spec.late.then == "side_output"
    if not late_output:  # late rows leave with all their columns
        reads = {*names, *plan.inputs, *(WINDOW_COLUMNS if spec.window == "input" else ())}
        needed = [name for name in schema if name in reads]
        if len(needed) < len(schema):
            schema = {name: schema[name] for name in needed}
            planned.inputs[0].before.append(
                ProjectSpec({name: expressions.column(name, schema) for name in schema}, schema, errors)
            )
    aggregate = _operator(spec, tuple(names), plan, schema, errors)
    planned.operators.append(aggregate)
    planned.schema = aggregate.schema


def _operator(
    spec: StepSpec, key: tuple[str, ...], plan: AggregatePlan, schema: Schema, errors: ErrorPolicy
) -> OperatorSpec:
    """The operator of a window without a fault."""
    late_output = spec.late.then == "side_output"
    every = spec.emit.every if isinstance(spec.emit, EmitEvery) else 0 if spec.emit == "on_update" else None
    if isinstance(spec.window, WindowSpec) and spec.window.session is not None:
        gap = spec.window.session
        return SessionAggregateSpec(key, gap, plan, spec.late.accept_for, late_output, schema, errors, every)
    carried = spec.window == "input"
    window = CARRIED if carried else aligned_window(spec.window)
    assert window is not None, "a wrong window has its fault already"
    return WindowAggregateSpec(key, window, plan, spec.late.accept_for, late_output, schema, errors, carried, every)
