"""`process` as written → its operator: a user's keyed function with state, timers and side outputs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from operators.types import UNKNOWN
from streamproc.functions.columns import Fields
from streamproc.functions.loading import LoadingFault, UserCode
from streamproc.functions.process import states_of
from streamproc.functions.process_step import ProcessFunctionSpec, check_process_function
from streamproc.pipeline.columns import AnyColumns, as_certain, is_column_name, named_columns
from streamproc.pipeline.spec import NAME
from streamproc.pipeline.verbs.keys import check_key
from streamproc.pipeline.verbs.user_code import declared, loaded
from streamproc.pipeline.verbs.verb import PlannedStep, VerbContext

_TAKEN: Final = ("main", "late", "errors")


def plan(context: VerbContext, planned: PlannedStep) -> None:
    """Fill in a process step."""
    part, log, path = context.part, context.log, (*context.path, "process")
    [facts] = context.inputs
    context.refuse_changelog(facts, path, "a process function", "read the stream before it is aggregated or joined")
    planned.changelog, planned.timed, planned.schema = None, facts.timed, AnyColumns()
    written = part.written["process"]
    if not isinstance(written, dict):
        return
    columns, fields = declared(written.get("columns"), (*path, "columns"), log)
    planned.schema = as_certain(columns, certain=all(map(is_column_name, columns))) if columns else AnyColumns()
    outputs = _side_outputs(context, planned, written.get("outputs"))
    key = named_columns(written.get("key") or [])
    check_key(key or (), facts.schema, (*path, "key"), log, windowed=False)
    names = tuple(name for _, name in key or ())
    planned.inputs[0].key = names
    known = all(name in facts.schema and facts.schema[name] != UNKNOWN for name in names)

    def check(code: UserCode) -> UserCode:
        function = check_process_function(code.load(), code)
        if not facts.bounded:
            for name, state in states_of(function).items():
                if state.ttl_ms is None:
                    raise LoadingFault(
                        f"state '{name}' of '{code}' would grow for ever over input that never ends",
                        "give it a `ttl='1h'`, or `ttl='forever'` where the function clears it itself",
                    )
        return code

    code = loaded(context, written.get("call"), (*path, "call"), check)
    if code is None or fields is None or outputs is None or not names or not known or log.failed:
        return
    schema = dict(facts.schema)
    planned.operators.append(ProcessFunctionSpec(code, names, fields, outputs, schema, facts.timed, context.errors))


def _side_outputs(context: VerbContext, planned: PlannedStep, written: object) -> tuple[tuple[str, Fields], ...] | None:
    """The declared side outputs; None where something is wrong with one."""
    if written is None:
        return ()
    if not isinstance(written, Mapping):
        return None
    log, path = context.log, (*context.path, "process", "outputs")
    outputs: list[tuple[str, Fields]] = []
    for name, columns in written.items():
        if not re.fullmatch(NAME, str(name)):
            message = f"'{name}' cannot be a name: lower-case letters, digits, _ and -, beginning with a letter"
            log.error((*path, name), message, at_key=True)
        if name in _TAKEN:
            message = f"every step has an output '{name}' of its own" if name != "late" else "'late' is for late rows"
            log.error((*path, name), message, "give the side output another name", at_key=True)
            continue
        schema, fields = declared(columns, (*path, name), log)
        if not schema and isinstance(columns, Mapping):
            log.error((*path, name), "a side output needs at least one column", "for example {id: int64}", at_key=True)
        planned.side_outputs[str(name)] = schema
        if fields is not None:
            outputs.append((str(name), fields))
    return tuple(outputs) if len(outputs) == len(written) else None
