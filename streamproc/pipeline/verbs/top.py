"""`top` as written → its operator: in windows, or continuous as a changelog."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from operators.element import Schema
from operators.expression import Scalar
from operators.expression.value import UNORDERED, type_name
from operators.ranking import Order, Ranking
from operators.stateless import ProjectSpec
from operators.top import RANK_TYPE, TopSpec
from operators.window import WINDOW_TYPE
from operators.windowed_top import WindowedTopSpec
from streamproc.pipeline import expressions
from streamproc.pipeline.columns import AnyColumns, GuessedColumns, check_column_name, named_columns
from streamproc.pipeline.logical import Changelog
from streamproc.pipeline.spec import FOREVER, WindowSpec
from streamproc.pipeline.spec import TopSpec as Written
from streamproc.pipeline.verbs.keys import check_key
from streamproc.pipeline.verbs.verb import InputFacts, PlannedStep, VerbContext
from streamproc.pipeline.verbs.windows import WINDOW_COLUMNS, aligned_window, check_window

_DIRECTION: Final = re.compile(r"(?is)^(?P<text>.*\S)\s+(?P<direction>asc|desc)$")
_OTHER_WORD: Final = re.compile(  # in place of a direction: any behind a column, the usual ones behind an expression
    r"(?is)^(?:(?P<column>(?!not\b)[a-z_][\w.]*)\s+(?P<word>[a-z_]+)|(?P<text>.*\S)\s+(?P<usual>(?:a|de)scending|down|up))$"
)
_NULLS: Final = re.compile(r"(?i)\snulls\s+(first|last)$")


def plan(context: VerbContext, planned: PlannedStep) -> None:
    """Fill in a top step."""
    part, log = context.part, context.log
    [facts] = context.inputs
    path = (*part.path, "top")
    wanted = context.spec.top
    written: Any = part.written["top"]
    written = written if isinstance(written, dict) else {}
    windowed = written.get("window") is not None
    adds_windows = windowed and written["window"] != "input"
    key = named_columns(written.get("key") or []) or []
    check_key(key, facts.schema, (*path, "key"), log, windowed=adds_windows)
    names = tuple(name for _, name in key)
    order = _order(context, facts.schema)
    _check_rank(context, written.get("rank"), facts.schema, adds_windows=adds_windows)
    if windowed:
        _check_window(context, facts, written["window"])
    else:
        _check_continuous(context, facts)
    rank = written.get("rank") if isinstance(written.get("rank"), str) else None
    planned.inputs[0].key = names
    planned.schema = _columns(facts.schema, rank, adds_windows=adds_windows)
    planned.side_outputs["late"] = facts.schema
    planned.timed = windowed or facts.timed
    planned.event_time = None
    planned.changelog = None if windowed else Changelog(_update_key(names, written))
    if wanted is not None and order is not None and not log.failed:
        _plan_operator(context, wanted, names, order, planned)


def _plan_operator(
    context: VerbContext, wanted: Written, key: tuple[str, ...], order: list[tuple[Scalar, bool]], planned: PlannedStep
) -> None:
    """The operator of a top without a fault; what it ranks by is computed ahead of the exchange."""
    [facts] = context.inputs
    schema = dict(facts.schema)
    computed: dict[str, Scalar] = {}
    orders: list[Order] = []
    for scalar, descending in order:
        name = scalar.text
        if name not in facts.schema:
            name = f"__by{len(computed)}"
            computed[name] = scalar
            schema[name] = scalar.dtype
        orders.append(Order(name, descending))
    if computed:
        columns = {name: expressions.column(name, facts.schema) for name in facts.schema}
        planned.inputs[0].before.append(ProjectSpec(columns | computed, schema, context.errors))
    ranking = Ranking(wanted.n, tuple(orders), wanted.ties)
    visible = tuple(facts.schema)
    if wanted.window is not None:
        window = None if wanted.window == "input" else aligned_window(wanted.window)
        late_output = context.spec.late.then == "side_output"
        planned.operators.append(WindowedTopSpec(ranking, key, window, schema, visible, wanted.rank, late_output))
        return
    ttl_ms = None if wanted.ttl is None or wanted.ttl == FOREVER else wanted.ttl
    retracting = facts.changelog is not None
    planned.operators.append(TopSpec(ranking, key, schema, visible, facts.timed, wanted.rank, retracting, ttl_ms))


def _order(context: VerbContext, schema: Schema) -> list[tuple[Scalar, bool]] | None:
    """What to rank by, and whether descending; None where some of it has a fault."""
    wanted, log = context.spec.top, context.log
    if wanted is None or context.part.is_wrong("top", "by"):
        return None
    found: list[tuple[Scalar, bool]] = []
    for index, text in enumerate(wanted.by):
        at = (*context.path, "top", "by", index)
        if (nulls := _NULLS.search(text)) is not None:
            hint = "nulls are the lowest values: first ascending, last descending"
            log.error(at, f"'{nulls[0].strip()}' cannot be chosen", hint)
            continue
        match = _DIRECTION.match(text.strip())
        expression = match["text"] if match else text.strip()
        if (other := _OTHER_WORD.match(expression)) is not None:
            said, by = other["word"] or other["usual"], other["column"] or other["text"]
            log.error(at, f"'{said}' is no direction", f"write `{by} desc`, or `asc`")
            continue
        scalar = expressions.scalar(expression, schema, at, log)
        if scalar is not None and isinstance(scalar.dtype, UNORDERED):
            log.error(at, f"rows cannot be ranked by a {type_name(scalar.dtype)}")
        elif scalar is not None:
            found.append((scalar, match is not None and match["direction"].lower() == "desc"))
    return found if len(found) == len(wanted.by) else None


def _check_rank(context: VerbContext, rank: Any, schema: Schema, *, adds_windows: bool) -> None:
    at = (*context.path, "top", "rank")
    if not isinstance(rank, str) or not check_column_name(rank, at, context.log):
        return
    taken = not isinstance(schema, GuessedColumns) and rank in schema
    if taken or (adds_windows and rank in WINDOW_COLUMNS):
        what = "a column of the input" if taken else "a column of the window"
        context.log.error(at, f"'{rank}' is {what} already: give the rank another name")


def _check_window(context: VerbContext, facts: InputFacts, window: Any) -> None:
    path, log, part = (*context.path, "top"), context.log, context.part
    wanted = context.spec.top
    at = (*path, "window")
    context.need_event_time(facts, at, "a window")
    context.refuse_changelog(facts, at, "a window", "rank it without a window")
    if wanted is not None and wanted.window is not None and not part.is_wrong("top", "window"):
        check_window(wanted.window, facts.schema, at, log)
        if isinstance(wanted.window, WindowSpec) and wanted.window.session is not None:
            hint = "aggregate the sessions in a step before, and rank its rows with `window: input`"
            log.error((*at, "session"), "top knows no sessions of its own", hint, at_key=True)
    if window != "input" and not isinstance(facts.schema, GuessedColumns):
        for name in WINDOW_COLUMNS:
            if name in facts.schema:
                hint = "`window: input` takes the windows that rows carry; or rename it in a step before"
                log.error(at, f"a window gives a column '{name}' of its own", hint, at_key=True)
    if wanted is not None and wanted.ttl is not None:
        message = "a window forgets its rows when it closes: there is no 'ttl' beside it"
        log.error((*path, "ttl"), message, at_key=True)
    if context.spec.late.accept_for:
        message = "top gives each window once, when it closes: late rows cannot change it"
        hint = "leave 'accept_for' out, or allow more disorder with `out_of_order` at the source"
        log.error((*part.path, "late", "accept_for"), message, hint)


def _check_continuous(context: VerbContext, facts: InputFacts) -> None:
    part, log = context.part, context.log
    wanted = context.spec.top
    path = (*part.path, "top")
    if part.has("late"):
        message = "without a window no row is late"
        log.error((*part.path, "late"), message, "add a `window` to 'top', or leave 'late' out", at_key=True)
    said = part.is_wrong("top", "ttl") or part.is_wrong("top", "window") or part.has("ttl") or part.has("window")
    if wanted is not None and wanted.ttl is None and not facts.bounded and not said:
        message = "keeps the best rows of every key of input that never ends: its state would grow for ever"
        hint = "bound it with a window (`window: {tumble: 1m}`) or a time to live (`ttl: 1h`, or `ttl: forever`)"
        if context.in_query:
            hint = "rank in the windows of a table function, or write `ttl: 1h` (or `ttl: forever`) beside 'sql'"
        log.error(path, message, hint, at_key=True)


def _update_key(key: tuple[str, ...], written: Mapping[str, Any]) -> tuple[str, ...] | None:
    """What tells the rows of a continuous top apart, where something beside their values does."""
    if written.get("ties"):
        return None
    if written.get("n") == 1:
        return key
    rank = written.get("rank")
    return (*key, rank) if isinstance(rank, str) else None


def _columns(schema: Schema, rank: str | None, *, adds_windows: bool) -> Schema:
    """The columns of the result as far as they are known."""
    if isinstance(schema, AnyColumns):
        return schema
    added: Schema = dict.fromkeys(WINDOW_COLUMNS, WINDOW_TYPE) if adds_windows else {}
    if rank is not None:
        added[rank] = RANK_TYPE
    columns = {**schema, **added}
    return GuessedColumns(columns) if isinstance(schema, GuessedColumns) else columns
