"""`aggregate` as written → its operators: over windows here, without a window in `totals`."""

from __future__ import annotations

from operators.aggregates import AggregatePlan
from operators.connector import ErrorPolicy
from operators.element import Schema
from operators.operator import OperatorSpec
from operators.session import SessionAggregateSpec
from operators.window import CARRIED, WINDOW_TYPE, WindowAggregateSpec
from streamproc.pipeline.columns import AnyColumns, as_certain
from streamproc.pipeline.logical import Changelog
from streamproc.pipeline.spec import EmitEvery, StepSpec, WindowSpec
from streamproc.pipeline.verbs import totals
from streamproc.pipeline.verbs.grouped import grouped, narrow
from streamproc.pipeline.verbs.verb import PlannedStep, VerbContext
from streamproc.pipeline.verbs.windows import WINDOW_COLUMNS, aligned_window, check_window


def plan(context: VerbContext, planned: PlannedStep) -> None:
    """Fill in an aggregate step."""
    part, spec, log = context.part, context.spec, context.log
    [facts] = context.inputs
    schema = facts.schema
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
    planned.schema = AnyColumns()
    group = grouped(context, schema, windowed=True)
    if group is None:
        return
    planned.inputs[0].key = group.names
    if spec.window is not None and spec.emit != "on_close":
        planned.changelog = Changelog((*group.names, *WINDOW_COLUMNS))
    if group.plan is None or spec.window is None or log.failed:
        columns = {**group.keys, **dict.fromkeys(WINDOW_COLUMNS, WINDOW_TYPE), **group.results}
        planned.schema = as_certain(columns, certain=spec.window is not None and group.certain)
        return
    if spec.late.then != "side_output":  # late rows leave with all their columns
        carried = WINDOW_COLUMNS if spec.window == "input" else ()
        schema = narrow(planned, schema, {*group.names, *group.plan.inputs, *carried}, context)
    aggregate = _operator(spec, group.names, group.plan, schema, context.errors)
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
