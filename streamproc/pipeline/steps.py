"""A step as written → a logical step: its operators in SQL's order, what runs before its exchange, its columns.

`input` → `where` → (narrow, exchange by key) → the verb → `having` → `select` → `add`. A fault
hides no more than it must: a column with a fault keeps its name. What a verb does is planned in `verbs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, Literal

from operators.connector import ErrorPolicy
from operators.element import Schema
from operators.operator import OperatorSpec
from operators.stateless import FilterSpec, ProjectSpec
from operators.types import UNKNOWN
from streamproc.pipeline import expressions
from streamproc.pipeline.columns import (
    SIDE_PREFIXES,
    AnyColumns,
    GuessedColumns,
    as_certain,
    check_column_name,
    is_column_name,
    named_columns,
    side_hint,
)
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.logical import Changelog
from streamproc.pipeline.shape import Part
from streamproc.pipeline.spec import StepSpec
from streamproc.pipeline.suggest import did_you_mean, listed, near
from streamproc.pipeline.verbs.verb import InputFacts, PlannedInput, PlannedStep, VerbContext

Plan = Callable[[VerbContext, PlannedStep], None]


def _imported_when_used(verb: str) -> Plan:
    def plan(context: VerbContext, planned: PlannedStep) -> None:
        module = import_module(f"streamproc.pipeline.verbs.{verb}")
        module.plan(context, planned)

    return plan


_VERB_NAMES: Final = ("join", "aggregate", "deduplicate", "top", "python", "process")  # one with two inputs first
VERBS: Final[Mapping[str, Plan]] = {verb: _imported_when_used(verb) for verb in _VERB_NAMES}
_NEED: Final[Mapping[str, tuple[str, ...]]] = {  # fields, and the verbs that know them
    "key": ("aggregate",),
    "window": ("aggregate",),
    "late": ("aggregate", "top"),
    "emit": ("aggregate",),
    "ttl": ("aggregate", "sql"),
    "having": (*VERBS, "sql"),
}
_INSIDE: Final[Mapping[str, tuple[str, ...]]] = {  # fields that these verbs have inside
    "key": ("deduplicate", "top", "process"),
    "window": ("top", "join"),
    "ttl": ("deduplicate", "top", "join"),
}
_IN_A_QUERY: Final = ("where", "having", "select", "add", "late", "emit", "key", "window")


def verb_of(part: Part[StepSpec]) -> str | None:
    """The verb of a step: the first it names."""
    return next((verb for verb in VERBS if part.has(verb)), None)


def check_step_rules(part: Part[StepSpec], log: FaultLog) -> None:
    """Which fields may stand together, whatever the columns are."""
    spec = part.spec
    if spec is None:
        return
    verbs = [verb for verb in (*VERBS, "sql") if part.has(verb)]
    for extra in verbs[1:]:
        message = f"a step has one verb, and '{verbs[0]}' is here already"
        log.error((*part.path, extra), message, "put it into a further step that reads this one", at_key=True)
    for name in _IN_A_QUERY if verbs == ["sql"] else ():
        if part.has(name):
            log.error((*part.path, name), f"'{name}' has no place beside 'sql'", "write it in the query", at_key=True)
    for name, users in _NEED.items():
        if part.has(name) and name not in part.broken and verbs != ["sql"] and not any(map(part.has, users)):
            _refuse_field(name, users, verbs, part, log)
    if part.has("ttl") and part.has("window") and verbs == ["aggregate"]:
        message = "a window forgets its rows when it closes: there is no 'ttl' beside it"
        log.error((*part.path, "ttl"), message, at_key=True)
    if part.has("join") and part.has("input"):
        log.error((*part.path, "input"), "a join reads its 'left' and 'right': it has no 'input'", at_key=True)


def _refuse_field(name: str, users: Sequence[str], verbs: Sequence[str], part: Part[StepSpec], log: FaultLog) -> None:
    """A field that no verb of the step knows there."""
    verb = verbs[0] if verbs else None
    message, hint = f"'{name}' needs {listed(map(repr, users), 'or')} in the same step", None
    if verb in _INSIDE.get(name, ()):
        message, hint = f"'{name}' has no place beside '{verb}'", f"write it inside: `{verb}: {{{name}: …}}`"
    elif name == "window" and verb is None:
        return  # each row gets the windows it is in
    elif name == "having":
        message, hint = "'having' needs a verb in the same step", "conditions on rows go to `where`"
    elif verb is None and name in _INSIDE:
        hint = f"{listed(map(repr, _INSIDE[name]))} have it inside"
    elif verb is not None:
        known = (*users, *_INSIDE.get(name, ()))
        message, hint = f"'{name}' has no place beside '{verb}'", f"it belongs to {listed(map(repr, known))}"
    log.error((*part.path, name), message, hint, at_key=True)


def plan_step(
    part: Part[StepSpec],
    inputs: Sequence[InputFacts],
    reorder: Sequence[bool],
    errors: ErrorPolicy,
    folder: Path,
    log: FaultLog,
) -> PlannedStep:
    """Compile a step over its inputs. `reorder`: whether a union has its columns in different orders.

    Operators that a fault leaves without a meaning are not there: then the log has an error.
    """
    facts = list(inputs)
    planned = PlannedStep([PlannedInput() for _ in facts], timed=all(each.timed for each in facts))
    spec = part.spec
    if spec is None:
        return planned
    for each, to, mixed in zip(facts, planned.inputs, reorder, strict=True):
        if mixed:
            columns = {name: expressions.column(name, each.schema) for name in each.schema}
            to.before.append(ProjectSpec(columns, each.schema, errors))
    verb = verb_of(part)
    joins = verb == "join"
    planned.schema, planned.changelog = facts[0].schema, facts[0].changelog
    planned.event_time = facts[0].event_time if verb is None else None
    if spec.where is not None and not joins:
        _filter(spec.where, "where", part, facts[0].schema, errors, planned.inputs[0].before, log)
    context = VerbContext(part, spec, facts, errors, log, folder)
    if verb is not None:
        VERBS[verb](context, planned)
    elif part.has("window"):
        _imported_when_used("assign")(context, planned)
    if spec.where is not None and joins:
        _filter(spec.where, "where", part, planned.schema, errors, planned.operators, log)
    if spec.having is not None and verb is not None:
        _filter(spec.having, "having", part, planned.schema, errors, planned.operators, log)
    if part.has("select"):
        kept = _kept_names(spec.select or [], joins=joins)
        planned.event_time = kept.get(planned.event_time or "")
        planned.changelog = _select_changelog(planned.changelog, kept)
        planned.schema = _plan_select(part, spec, planned.schema, errors, planned, log)
    elif joins:
        _name_plainly(part, errors, planned, log)
    if part.has("add"):
        planned.changelog = _add_changelog(planned.changelog, spec)
        planned.schema = _plan_expressions(part, "add", spec.add, planned.schema, errors, planned, log)
    if len(planned.inputs) == 1 and planned.inputs[0].key is None:  # there is no exchange to run ahead of
        planned.operators[:0] = planned.inputs[0].before
        planned.inputs[0].before = []
    return planned


def _filter(
    text: str,
    word: Literal["where", "having"],
    part: Part[StepSpec],
    schema: Schema,
    errors: ErrorPolicy,
    to: list[OperatorSpec],
    log: FaultLog,
) -> None:
    predicate = expressions.predicate(text, schema, (*part.path, word), log)
    if predicate is not None:
        to.append(FilterSpec(predicate, schema, errors, word=word))


def _select_changelog(changelog: Changelog | None, kept: Mapping[str, str]) -> Changelog | None:
    """The changelog of what a select leaves: its key survives where every column of it is kept, by any name."""
    if changelog is None or changelog.key is None:
        return changelog
    return Changelog(tuple(kept[name] for name in changelog.key) if all(n in kept for n in changelog.key) else None)


def _kept_names(select: Mapping[str, str] | list[str], *, joins: bool) -> dict[str, str]:
    """Columns that a select keeps as they are, and what it calls them."""
    if isinstance(select, list):
        return {name: _own_name(name, joins=joins) for name in select}
    return {text: name for name, text in select.items()}


def _own_name(column: str, *, joins: bool) -> str:
    """What a column is called where a list keeps it: after a join without its side."""
    side = next((side for side in SIDE_PREFIXES if joins and column.startswith(side)), "")
    return column.removeprefix(side)


def _add_changelog(changelog: Changelog | None, spec: StepSpec) -> Changelog | None:
    """The changelog of what `add` leaves: its key is lost where a column of it is computed anew."""
    if changelog is None or changelog.key is None or not set(changelog.key) & set(spec.add or {}):
        return changelog
    return Changelog(None)


def _name_plainly(part: Part[StepSpec], errors: ErrorPolicy, planned: PlannedStep, log: FaultLog) -> None:
    """After a join without `select`: columns by their own names, left's first."""
    named: dict[str, str] = {}
    both: list[str] = []
    for column in planned.schema:
        _, _, name = column.partition(".")
        if not name:
            named[column] = column
        elif name not in named:
            named[name] = column
        elif name not in planned.shared_names:
            both.append(name)
    if both:
        message = f"both sides have a column {listed(map(repr, both))}"
        log.error((*part.path, "join"), message, "choose and name the columns with `select`", at_key=True)
    if isinstance(planned.schema, AnyColumns):
        planned.schema = AnyColumns()
        return
    schema = {name: planned.schema[column] for name, column in named.items()}
    if not log.failed:
        columns = {name: expressions.column(column, planned.schema) for name, column in named.items()}
        planned.operators.append(ProjectSpec(columns, schema, errors))
    planned.changelog = _select_changelog(planned.changelog, {column: name for name, column in named.items()})
    planned.schema = schema


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
    joins = part.has("join")
    kept: Schema = {}
    sources: dict[str, str] = {}
    for at, column in columns:
        name = _own_name(column, joins=joins)
        if column not in schema:
            hint = side_hint(column, schema) or did_you_mean(column, schema)
            if not name.isidentifier():
                hint = "a list keeps columns by name; for expressions write a mapping {name: expression}"
            log.error((*path, *at), f"unknown column '{column}'", hint)
            guesses = (column if name.isidentifier() else None, near(column, schema))
            kept |= {_own_name(guess, joins=joins): UNKNOWN for guess in guesses if guess is not None}
        elif column in sources.values():
            log.error((*path, *at), f"'{column}' is named twice")
        elif name in sources:
            hint = f"name one: `select: {{{name}: {sources[name]}, other_{name}: {column}}}`"
            log.error((*path, *at), f"'{sources[name]}' and '{column}' would both be called '{name}'", hint)
        else:
            kept[name], sources[name] = schema[column], column
    if not log.failed:
        taken = {name: expressions.column(column, schema) for name, column in sources.items()}
        planned.operators.append(ProjectSpec(taken, kept, errors))
    return as_certain(kept, certain=kept.keys() == sources.keys())


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
    texts = expressions.whole_texts(written, texts)
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
