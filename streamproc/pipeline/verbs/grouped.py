"""What `aggregate` means whether or not it has a window: the key, the compiled aggregates, the columns they need."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from operators.aggregates import AggregatePlan
from operators.element import Schema
from operators.stateless import ProjectSpec
from operators.types import UNKNOWN
from streamproc.pipeline import expressions
from streamproc.pipeline.columns import is_column_name, named_columns
from streamproc.pipeline.suggest import near
from streamproc.pipeline.verbs.keys import check_key, check_result_names
from streamproc.pipeline.verbs.verb import PlannedStep, VerbContext


@dataclass(frozen=True, slots=True)
class Grouped:
    """`keys` and `results` are the columns that come out, as far as known; `certain`: no others can. `plan` is None
    where there is a fault."""

    keys: Schema
    results: Schema
    plan: AggregatePlan | None
    certain: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Of the key's columns."""
        return tuple(self.keys)


def grouped(context: VerbContext, schema: Schema, *, windowed: bool) -> Grouped | None:
    """Check and compile; None: there is nothing to go on with, and the faults are recorded."""
    part, log = context.part, context.log
    written = part.written["aggregate"]
    texts = expressions.whole_texts(written, context.spec.aggregate)
    path = (*part.path, "aggregate")
    key = named_columns(part.written.get("key") or [])
    check_key(key or (), schema, (*part.path, "key"), log, windowed=windowed)
    if not isinstance(written, dict) or not written:
        return None
    if key is None:
        expressions.aggregates(texts, schema, tuple(schema), path, log)
        return None
    names = [name for _, name in key]
    check_result_names(written, names, path, log, windowed=windowed)
    # what a misspelt key was meant to be is no fault elsewhere
    names += [meant for name in names if name not in schema and (meant := near(name, schema)) is not None]
    plan, types = expressions.aggregates(texts, schema, tuple(n for n in names if n in schema), path, log)
    return Grouped(
        keys={name: schema.get(name, UNKNOWN) for name in names},
        results={name: types.get(name, UNKNOWN) for name in written},
        plan=plan,
        certain=all(name in schema for name in names) and all(map(is_column_name, written)),
    )


def narrow(planned: PlannedStep, schema: Schema, reads: Collection[str], context: VerbContext) -> Schema:
    """Have only the columns in `reads` sent on, where there are others; what is sent."""
    needed = {name: schema[name] for name in schema if name in reads}
    if len(needed) == len(schema):
        return schema
    read = {name: expressions.column(name, needed) for name in needed}
    planned.inputs[0].before.append(ProjectSpec(read, needed, context.errors))
    return needed
