"""`aggregate` without a window as written → its operator."""

from __future__ import annotations

from operators.totals import TotalsSpec
from streamproc.pipeline.columns import AnyColumns, as_certain, named_columns
from streamproc.pipeline.logical import Changelog
from streamproc.pipeline.spec import FOREVER, EmitEvery
from streamproc.pipeline.verbs.grouped import grouped, narrow
from streamproc.pipeline.verbs.verb import InputFacts, PlannedStep, VerbContext


def plan(context: VerbContext, planned: PlannedStep) -> None:
    """Fill in an aggregate step that has no window."""
    part, spec, log = context.part, context.spec, context.log
    [facts] = context.inputs
    schema = facts.schema
    _check_form(context, facts)
    every = _update_every_ms(context)
    unsure = part.is_wrong("emit") or (every is None and not facts.bounded)  # has its fault: nobody knows what comes
    planned.side_outputs["late"] = schema
    planned.schema = AnyColumns()
    planned.timed = facts.timed and (every is not None or unsure)
    planned.event_time = None
    key = named_columns(part.written.get("key") or [])
    planned.changelog = None if every is None else Changelog(tuple(name for _, name in key or ()))
    group = grouped(context, schema, windowed=False)
    if group is None:
        return
    planned.inputs[0].key = group.names
    if group.plan is None or log.failed:
        planned.schema = as_certain({**group.keys, **group.results}, certain=group.certain)
        return
    reads = {*group.names, *group.plan.inputs} or set(schema)  # rows without any column cannot be counted
    schema = narrow(planned, schema, reads, context)
    totals = TotalsSpec(
        key=group.names,
        plan=group.plan,
        input_schema=schema,
        timed=facts.timed,
        update_every_ms=every,
        retracting=facts.changelog is not None,
        ttl_ms=None if spec.ttl in (None, FOREVER) else spec.ttl,
        errors=context.errors,
    )
    planned.operators.append(totals)
    planned.schema = totals.schema


def _update_every_ms(context: VerbContext) -> int | None:
    """When changes are given: 0 at once; None: the results at the end of input."""
    emit = context.spec.emit
    if isinstance(emit, EmitEvery):
        return emit.every
    return None if emit == "on_close" and context.spec.ttl is None else 0


def _check_form(context: VerbContext, facts: InputFacts) -> None:
    part, spec, log = context.part, context.spec, context.log
    if part.has("late"):
        message = "without a window no row is late"
        log.error((*part.path, "late"), message, "add a `window`, or leave 'late' out", at_key=True)
    if spec.ttl is None and not facts.bounded and not {"ttl", "window"} & part.broken:
        message = "an aggregate over input that never ends needs a window: its state would grow for ever"
        hint = "for example `window: {tumble: 1m}`; or say for how long a key counts: `ttl: 1h`, or `ttl: forever`"
        if context.in_query:
            hint = "group by the window of a table function, or write `ttl: 1h` (or `ttl: forever`) beside 'sql'"
        log.error((*part.path, "aggregate"), message, hint, at_key=True)
    elif spec.ttl is not None and part.has("emit") and spec.emit == "on_close":
        message = "without a window a group with a 'ttl' never closes"
        log.error((*part.path, "emit"), message, "write `emit: on_update`, or `emit: {every: 10s}`")
