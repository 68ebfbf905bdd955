"""`join` as written → its operator: by interval, by window, as of a time, or regular.

Each side is narrowed to what is read later and its columns are called `left.x` or `right.x` ahead of the exchange,
which goes by the equalities of `match`. Look-ups are planned in `lookup`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from operators.element import Schema
from operators.explanation import duration_text
from operators.expression import ExpressionError, Scalar, TypeNotKnown, compile_scalar
from operators.join.as_of import AsOfJoinSpec
from operators.join.condition import SIDES, Condition, qualified, side_of, take_apart
from operators.join.interval import IntervalJoinSpec
from operators.join.regular import RegularJoinSpec
from operators.join.shape import JoinShape, Side
from operators.join.window import WindowJoinSpec
from operators.stateless import ProjectSpec
from operators.window import WINDOW_TYPE
from streamproc.pipeline import expressions
from streamproc.pipeline.columns import AnyColumns, GuessedColumns, named_columns
from streamproc.pipeline.logical import Changelog
from streamproc.pipeline.spec import FOREVER, JoinSpec, WindowSpec
from streamproc.pipeline.verbs import lookup
from streamproc.pipeline.verbs.verb import InputFacts, PlannedInput, PlannedStep, VerbContext
from streamproc.pipeline.verbs.windows import WINDOW_COLUMNS, aligned_window, check_window


class _AnyLeft(AnyColumns):
    """The columns of a pair of whose left side nothing is known."""

    side = "left"

    def __contains__(self, name: object) -> bool:
        return dict.__contains__(self, name) or (isinstance(name, str) and side_of(name) == self.side)


class _AnyRight(_AnyLeft):
    """The columns of a pair of whose right side nothing is known."""

    side = "right"


_ANY_OF: Final = {"left": _AnyLeft, "right": _AnyRight}
_FORMS: Final = ("within", "window", "as_of", "lookup")
_WORDS: Final = {"within": "an interval join", "window": "a window join", "as_of": "an as-of join"}
_REMEDIES: Final = (
    "`within: [-5m, 5m]`, `window: {tumble: 1m}`, `as_of: true`, `lookup: …`, `ttl: 1h`, "
    "or in full knowledge `ttl: forever`"
)


def plan(context: VerbContext, planned: PlannedStep) -> None:
    """Fill in a join step."""
    join = context.spec.join
    planned.schema, planned.changelog = AnyColumns(), None
    if join is None:
        return
    if _given(context, "lookup"):
        lookup.plan(context, planned)
        return
    if len(context.inputs) < len(SIDES):
        if "join" not in context.part.broken and join.right is None:
            context.log.error((*context.path, "join"), "'right' is missing", at_key=True)
        return
    _check_form(context, join)
    columns = _columns(context.inputs)
    carried = _form(context) == "window"
    result = _of_kind(join, columns, carried=carried)
    planned.schema = result
    path = (*context.path, "join", "match")
    compiled = expressions.predicate(join.match, columns, path, context.log) if _readable(context, "match") else None
    condition = None if compiled is None else take_apart(join.match, columns)
    if condition is not None and not condition.equalities and join.window is None:
        message = "needs an equality between the sides: by it partners are found"
        context.log.error(path, message, "for example left.id = right.order_id")
    planned.timed = _timed(context, join)
    planned.changelog = Changelog(None) if _gives_changes(context, join) else None
    if condition is None or context.log.failed:
        planned.shared_names = frozenset() if condition is None else _shared(join, condition)
        return
    _plan_operator(context, join, columns, result, condition, planned)


def _plan_operator(
    context: VerbContext, join: JoinSpec, columns: Schema, result: Schema, condition: Condition, planned: PlannedStep
) -> None:
    """The operators of a join without a fault."""
    read = _read_later(context, result)
    output = [name for name in result if name in read and name not in WINDOW_COLUMNS]
    output = output or [name for name in result if side_of(name) == "left"][:1]
    stored = {*output, *(condition.residual.columns if condition.residual is not None else ())}
    carried = [tuple(f"{side}.{name}" for name in WINDOW_COLUMNS) if join.window == "input" else () for side in SIDES]
    sides = []
    for index, (name, facts, to) in enumerate(zip(SIDES, context.inputs, planned.inputs, strict=True)):
        keys = [equality.left if name == "left" else equality.right for equality in condition.equalities]
        wanted = [c for c in columns if side_of(c) == name and (c in stored or c in carried[index])]
        side = _plan_side(context, name, facts, wanted, keys, carried[index], to)
        sides.append(side)
    shape = JoinShape(
        join.kind, sides[0], sides[1], tuple(output), condition.residual, " ".join(join.match.split()), context.errors
    )
    operator = _operator(context, join, shape, carried)
    planned.operators.append(operator)
    planned.schema = operator.schema
    planned.shared_names = _shared(join, condition)
    if isinstance(operator, RegularJoinSpec):
        planned.timed = shape.timed
    if planned.changelog is not None:
        planned.changelog = Changelog(_update_key(context, join, condition))


def _plan_side(
    context: VerbContext,
    name: str,
    facts: InputFacts,
    wanted: Sequence[str],
    keys: Sequence[Scalar],
    carried: Sequence[str],
    to: PlannedInput,
) -> Side:
    """What happens to a side ahead of the exchange: its columns renamed, those nothing reads left out, and keys that
    are more than a column computed."""
    columns = qualified(name, facts.schema)
    computed = {f"__{name}_key{i}": key for i, key in enumerate(keys) if not _is_column(key, columns)}
    plain = [key.text for key in keys if _is_column(key, columns)]
    reads = {*wanted, *plain, *(column for key in computed.values() for column in key.columns)}
    first = {column: columns[column] for column in columns if column in reads}
    renamed = {column: expressions.column(column.partition(".")[2], facts.schema) for column in first}
    to.before.append(ProjectSpec(renamed, first, context.errors))
    arrives = {column: dtype for column, dtype in first.items() if column in wanted or column in plain}
    if computed:
        kept = {column: expressions.column(column, first) for column in arrives}
        arrives |= {column: key.dtype for column, key in computed.items()}
        to.before.append(ProjectSpec(kept | computed, arrives, context.errors))
    numbered = [key.text if _is_column(key, columns) else f"__{name}_key{i}" for i, key in enumerate(keys)]
    to.key = (*carried, *(key for key in numbered if key not in carried))
    timed = facts.timed and context.spec.join is not None and context.spec.join.window is None
    return Side(arrives, to.key, timed=timed, changelog=facts.changelog is not None)


def _operator(
    context: VerbContext, join: JoinSpec, shape: JoinShape, carried: Sequence[tuple[str, ...]]
) -> IntervalJoinSpec | WindowJoinSpec | AsOfJoinSpec | RegularJoinSpec:
    if join.within is not None:
        return IntervalJoinSpec(shape, join.within[0], join.within[1])
    if join.window == "input":
        [left, right] = [(start, end) for start, end in carried]
        return WindowJoinSpec(shape, None, (left, right))
    if join.window is not None:
        return WindowJoinSpec(shape, aligned_window(join.window))
    if join.as_of:
        return AsOfJoinSpec(shape)
    return RegularJoinSpec(shape, None if join.ttl is None or join.ttl == FOREVER else join.ttl)


def _check_form(context: VerbContext, join: JoinSpec) -> None:
    """Which rows may meet at all: one form, and what it asks of the inputs."""
    log, path = context.log, (*context.path, "join")
    forms = [form for form in _FORMS if _given(context, form)]
    for extra in forms[1:]:
        log.error((*path, extra), f"'{forms[0]}' is here already: a join has one of them", at_key=True)
    if forms and _given(context, "ttl"):
        log.error((*path, "ttl"), f"'ttl' is for a regular join: '{forms[0]}' says how long rows are kept", at_key=True)
    if not forms:
        said = _given(context, "ttl") or context.part.has("ttl") or context.part.has("window")
        if not said and not all(facts.bounded for facts in context.inputs):
            message = "a join without 'within', 'window', 'as_of', 'lookup' or 'ttl' keeps every row for ever"
            hint = f"add {_REMEDIES}"
            if context.in_query:
                message = "this join keeps every row for ever"
                hint = "bound the times of its sides in ON, join in windows, or write `ttl: 1h` beside 'sql'"
            log.error(path, message, hint, at_key=True)
        return
    form = forms[0]
    what, at = _WORDS[form], (*path, form)
    for side, facts in zip(SIDES, context.inputs, strict=True):
        context.need_event_time(facts, at, what)
        if form != "as_of" or side == "left":
            context.refuse_changelog(facts, at, what, "join it with `ttl` instead: a regular join takes updates")
    if join.within is not None and join.within[0] > join.within[1]:
        low, high = map(duration_text, join.within)
        log.error(at, f"no time is both at least {low} and at most {high}", f"write [{high}, {low}]")
    if form == "window" and join.window is not None and not context.part.is_wrong("join", "window"):
        _check_window(context, join, at)
    if form == "as_of" and join.kind not in ("inner", "left"):
        hint = "inner leaves out left rows without a version, left keeps them"
        log.error((*path, "kind"), f"an as-of join is inner or left, not {join.kind}", hint)


def _check_window(context: VerbContext, join: JoinSpec, at: tuple[str | int, ...]) -> None:
    assert join.window is not None
    if isinstance(join.window, WindowSpec) and join.window.session is not None:
        message = "sessions of two streams do not end together: a join has no session windows"
        context.log.error((*at, "session"), message, "join with `within`, or aggregate each side in sessions first")
        return
    for facts in context.inputs if join.window == "input" else context.inputs[:1]:
        check_window(join.window, facts.schema, at, context.log)


def _given(context: VerbContext, field: str) -> bool:
    """Whether the file says something for a field of the join, be it right or wrong."""
    written = context.part.written.get("join")
    return isinstance(written, Mapping) and written.get(field) not in (None, False)


def _form(context: VerbContext) -> str | None:
    return next((form for form in _FORMS if _given(context, form)), None)


def _readable(context: VerbContext, field: str) -> bool:
    return not context.part.is_wrong("join", field)


def _columns(inputs: Sequence[InputFacts]) -> Schema:
    """The columns of a pair, as far as they are known."""
    both: Schema = {}
    for side, facts in zip(SIDES, inputs, strict=True):
        both |= qualified(side, facts.schema)
    unknown = [isinstance(facts.schema, AnyColumns) for facts in inputs]
    if any(unknown):
        return AnyColumns(both) if all(unknown) else _ANY_OF[SIDES[unknown.index(True)]](both)
    return GuessedColumns(both) if any(isinstance(facts.schema, GuessedColumns) for facts in inputs) else both


def _of_kind(join: JoinSpec, columns: Schema, *, carried: bool) -> Schema:
    """The columns of the result."""
    names = [name for name in columns if join.kind not in ("semi", "anti") or side_of(name) == "left"]
    result = {name: columns[name] for name in names} | (dict.fromkeys(WINDOW_COLUMNS, WINDOW_TYPE) if carried else {})
    return type(columns)(result)


def _read_later(context: VerbContext, result: Schema) -> set[str]:
    """Columns of the result that `where`, `having` and `select` read; all of them where there is no `select`, or a
    fault in it."""
    spec, everything = context.spec, set(result)
    if spec.select is None:
        return everything
    if isinstance(spec.select, list):
        named = named_columns(spec.select) or []
        texts, read = [], {name for _, name in named}
        if not read <= everything:
            return everything
    else:
        texts, read = list(spec.select.values()), set()
    for text in [*texts, *(text for text in (spec.where, spec.having) if text is not None)]:
        try:
            read |= compile_scalar(text, result).columns
        except (ExpressionError, TypeNotKnown):
            return everything
    return read


def _shared(join: JoinSpec, condition: Condition) -> frozenset[str]:
    """Names that both sides have and `match` holds equal, where the left side always has the value."""
    if join.kind in ("right", "full"):
        return frozenset()
    plain = [(side_of(e.left.text), e.left.text.partition(".")[2], e.right.text) for e in condition.equalities]
    shared = {name for _, name, right in plain if right == f"right.{name}"}
    return frozenset(shared | set(WINDOW_COLUMNS if join.window == "input" else ()))


def _timed(context: VerbContext, join: JoinSpec) -> bool:
    """Whether results have event time; for a regular join that is known with its shape."""
    return _form(context) is not None or all(facts.timed for facts in context.inputs)


def _gives_changes(context: VerbContext, join: JoinSpec) -> bool:
    """Whether results are taken back: of a regular join that pads rows, or reads changes."""
    reads = any(facts.changelog is not None for facts in context.inputs)
    return _form(context) is None and (reads or join.kind not in ("inner", "semi"))


def _is_column(key: Scalar, columns: Schema) -> bool:
    """Whether a key is a column as it is; a name in quotes or another type make it more than that."""
    return key.text in columns and columns[key.text] == key.dtype and key.columns == {key.text}


def _update_key(context: VerbContext, join: JoinSpec, condition: Condition) -> tuple[str, ...] | None:
    """The columns that tell which result a change is about; None where only the whole row does."""
    keys = []
    for side, facts in zip(SIDES, context.inputs, strict=True):
        key = facts.changelog.key if facts.changelog is not None else None
        keys.append(None if key is None else tuple(f"{side}.{name}" for name in key))
    left, right = keys
    if join.kind in ("semi", "anti"):
        return left
    matched = {equality.right.text for equality in condition.equalities}
    if join.kind in ("inner", "left") and right is not None and matched.issuperset(right):
        return left  # a left row has one partner at most
    return (*left, *right) if join.kind == "inner" and left is not None and right is not None else None
