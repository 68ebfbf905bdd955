"""`aggregate` without a window as written → its operator."""

from __future__ import annotations

from operators.element import Schema
from operators.stateless import ProjectSpec
from operators.totals import TotalsSpec
from operators.types import UNKNOWN
from streamproc.pipeline import expressions
from streamproc.pipeline.columns import AnyColumns, as_certain, is_column_name, named_columns
from streamproc.pipeline.logical import Changelog
from streamproc.pipeline.spec import FOREVER, EmitEvery
from streamproc.pipeline.suggest import near
from streamproc.pipeline.verbs.keys import check_key, check_result_names
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
    written = part.written["aggregate"]
    texts = expressions.whole_texts(written, spec.aggregate)
    path = (*part.path, "aggregate")
    key = named_columns(part.written.get("key") or [])
    check_key(key or (), schema, (*part.path, "key"), log, windowed=False)
    planned.changelog = None if every is None else Changelog(tuple(name for _, name in key or ()))
    if not isinstance(written, dict) or not written:
        return
    if key is None:
        expressions.aggregates(texts, schema, tuple(schema), path, log)
        return
    names = [name for _, name in key]
    check_result_names(written, names, path, log, windowed=False)
    # what a misspelt key was meant to be is no fault elsewhere
    names += [meant for name in names if name not in schema and (meant := near(name, schema)) is not None]
    compiled, types = expressions.aggregates(texts, schema, tuple(n for n in names if n in schema), path, log)
    columns: Schema = {name: schema.get(name, UNKNOWN) for name in names}
    columns |= {name: types.get(name, UNKNOWN) for name in written}
    planned.inputs[0].key = tuple(names)
    if compiled is None or log.failed:
        certain = all(name in schema for name in names) and all(map(is_column_name, written))
        planned.schema = as_certain(columns, certain=certain)
        return
    needed = {name: schema[name] for name in schema if name in names or name in compiled.inputs}
    if needed and len(needed) < len(schema):
        schema = needed
        read = {name: expressions.column(name, schema) for name in schema}
        planned.inputs[0].before.append(ProjectSpec(read, schema, context.errors))
    totals = TotalsSpec(
        key=tuple(names),
        plan=compiled,
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
