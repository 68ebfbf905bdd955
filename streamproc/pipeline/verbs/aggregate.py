"""`aggregate` as written → its operators: over windows here, without a window in `totals`."""

from __future__ import annotations

from operators.stateless import ProjectSpec
from operators.types import UNKNOWN
from operators.window import WINDOW_TYPE, WindowAggregateSpec
from streamproc.pipeline import expressions
from streamproc.pipeline.columns import AnyColumns, as_certain, is_column_name, named_columns
from streamproc.pipeline.suggest import near
from streamproc.pipeline.verbs.keys import check_key, check_result_names
from streamproc.pipeline.verbs.verb import PlannedStep, VerbContext
from streamproc.pipeline.verbs.windows import WINDOW_COLUMNS, aligned_window, check_window


def plan(context: VerbContext, planned: PlannedStep) -> None:
    """Fill in an aggregate step."""
    part, spec, log = context.part, context.spec, context.log
    [facts] = context.inputs
    schema, errors = facts.schema, context.errors
    at_window = (*part.path, "window")
    if spec.window is None:
        if "window" not in part.broken:
            message = "an aggregate over input that never ends needs a window: its state would grow for ever"
            log.error((*part.path, "aggregate"), message, "for example `window: {tumble: 1m}`", at_key=True)
    else:
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
    window = aligned_window(spec.window)
    if plan is None or window is None or log.failed:
        certain = all(name in schema for name in names) and all(map(is_column_name, written))
        planned.schema = as_certain(columns, certain=certain)
        return
    late_output = spec.late.then == "side_output"
    if not late_output:  # late rows leave with all their columns
        needed = [name for name in schema if name in names or name in plan.inputs]
        if len(needed) < len(schema):
            schema = {name: schema[name] for name in needed}
            planned.inputs[0].before.append(
                ProjectSpec({name: expressions.column(name, schema) for name in schema}, schema, errors)
            )
    aggregate = WindowAggregateSpec(tuple(names), window, plan, spec.late.accept_for, late_output, schema, errors)
    planned.operators.append(aggregate)
    planned.schema = aggregate.schema
