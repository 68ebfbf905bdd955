"""`deduplicate` as written → its operator."""

from __future__ import annotations

from typing import Any

from operators.deduplicate import KeepFirstSpec, KeepLastSpec
from streamproc.pipeline.columns import named_columns
from streamproc.pipeline.logical import Changelog
from streamproc.pipeline.spec import FOREVER
from streamproc.pipeline.verbs.keys import check_key
from streamproc.pipeline.verbs.verb import PlannedStep, VerbContext


def plan(context: VerbContext, planned: PlannedStep) -> None:
    """Fill in a deduplicate step."""
    part, log = context.part, context.log
    [facts] = context.inputs
    path = (*part.path, "deduplicate")
    wanted = context.spec.deduplicate
    written: Any = part.written["deduplicate"]
    written = written if isinstance(written, dict) else {}
    hint = "its rows may be unique already: read it without `deduplicate`"
    context.refuse_changelog(facts, path, "deduplicate", hint)
    key = named_columns(written.get("key") or []) or []
    check_key(key, facts.schema, (*path, "key"), log, windowed=False)
    said = part.is_wrong("deduplicate", "ttl") or part.has("ttl")
    if wanted is not None and wanted.ttl is None and not facts.bounded and not said:
        message = "remembers every key of input that never ends: its state would grow for ever"
        beside = " beside 'sql'" if context.in_query else ""
        hint = f"say for how long a key counts, for example `ttl: 1h`{beside}, or `ttl: forever`"
        log.error(path, message, hint, at_key=True)
    names = tuple(name for _, name in key)
    last = written.get("keep") == "last"
    planned.inputs[0].key = names
    planned.schema = facts.schema
    planned.timed = facts.timed
    planned.changelog = Changelog(names) if last else None
    planned.event_time = None if last else facts.event_time
    if wanted is None or log.failed:
        return
    ttl_ms = None if wanted.ttl is None or wanted.ttl == FOREVER else wanted.ttl
    make = KeepLastSpec if last else KeepFirstSpec
    planned.operators.append(make(names, facts.schema, facts.timed, ttl_ms))
