"""`python` as written → its operator: a user function that adds columns, in batches, row by row, or awaited."""

from __future__ import annotations

from streamproc.functions.async_step import AsyncFunctionSpec
from streamproc.functions.calls import CallLimits
from streamproc.functions.columns import Fields
from streamproc.functions.loading import UserCode
from streamproc.functions.python_step import BatchFunctionSpec, RowFunctionSpec
from streamproc.pipeline.columns import AnyColumns
from streamproc.pipeline.verbs.user_code import declared, loaded
from streamproc.pipeline.verbs.verb import PlannedStep, VerbContext

_NEED_ASYNC = ("in_flight", "timeout", "retries")


_Spec = BatchFunctionSpec | RowFunctionSpec | AsyncFunctionSpec


def plan(context: VerbContext, planned: PlannedStep) -> None:
    """Fill in a python step."""
    part, log, path = context.part, context.log, (*context.path, "python")
    [facts] = context.inputs
    context.refuse_changelog(facts, path, "a python step", "read the stream before it is aggregated or joined")
    planned.changelog, planned.timed = None, facts.timed
    planned.schema = AnyColumns()
    written = part.written["python"]
    if not isinstance(written, dict):
        return
    columns, fields = declared(written.get("columns"), (*path, "columns"), log)
    planned.schema = type(facts.schema)({**facts.schema, **columns})
    planned.event_time = None if facts.event_time in columns else facts.event_time
    mode = written.get("mode", "batch")
    if mode in ("batch", "row"):
        for name in _NEED_ASYNC:
            if name in written:
                log.error((*path, name), f"'{name}' is for `mode: async`", "leave it out", at_key=True)
    if part.is_wrong("python", "mode"):
        return

    def check(code: UserCode) -> _Spec:
        operator = _operator(context, code, fields or ())
        operator.load()
        return operator

    operator = loaded(context, written.get("call"), (*path, "call"), check)
    if operator is not None and not log.failed:
        planned.operators.append(operator)


def _operator(context: VerbContext, code: UserCode, fields: Fields) -> _Spec:
    spec = context.spec.python
    schema = dict(context.inputs[0].schema)
    if spec is None or spec.mode == "batch":
        return BatchFunctionSpec(code, fields, schema, context.errors)
    if spec.mode == "row":
        return RowFunctionSpec(code, fields, schema, context.errors)
    limits = CallLimits(spec.in_flight, spec.timeout, spec.retries)
    return AsyncFunctionSpec(code, fields, schema, context.errors, limits=limits)
