"""How the command line shows what the service says: tables and lines, off a terminal as plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from streamproc.diagnosis.phrases import span
from streamproc.service.views import (
    CheckpointView,
    ErrorList,
    GraphView,
    LedgerView,
    NodeView,
    PipelineDetail,
    PipelineSummary,
    PlanView,
    StepChange,
    WhyView,
)

_COLOURS: Final = {
    "running": "green",
    "finished": "green",
    "stopped": "dim",
    "drained": "dim",
    "failed": "bold red",
    "restarting": "yellow",
    "waiting": "yellow",
    "dropped": "bold red",
    "rebuilt": "bold red",
    "migrated": "yellow",
    "kept": "green",
}
_CHECKPOINT: Final = "check-\npoint"
# Columns that hold words, not figures, and how narrow they may become.
_WORDS: Final = {
    "node": 6,
    "change": 8,
    "state": 9,
    "what and why": 20,
    "pipeline": 8,
    "watermark": 10,  # a date
    _CHECKPOINT: 6,
    "at (UTC)": 10,
    "where": 8,
    "error": 20,
}
_NOT_SHOWN: Final = "none"  # the state of a node that has none


def lost_names(plan: PlanView) -> list[str]:
    """Nodes whose state would go."""
    return [each.name for each in plan.changes if each.state in ("rebuilt", "dropped")]


def plan_view(plan: PlanView) -> RenderableType:
    """The difference, then one line that says what applying it would do."""
    parts: list[RenderableType] = []
    shown = [each for each in plan.changes if each.change != "unchanged" or each.says]
    if plan.action != "nothing" and shown:
        table = _table("node", "change", "state", "what and why")
        for each in shown:
            table.add_row(
                f"{each.kind} {each.name}",
                f"renamed, was {each.was}" if each.change == "renamed" else each.change,
                "" if each.state == _NOT_SHOWN else _coloured(each.state),
                "\n".join(map(escape, each.says)),
            )
        parts.append(table)
    parts += [Text(each) for each in plan.job_changes]
    parts += [Text(f"warning: {each}", style="yellow") for each in plan.warnings]
    parts.append(Text(conclusion(plan), style="bold"))
    return Group(*parts)


def conclusion(plan: PlanView) -> str:
    """One line."""
    if plan.action == "nothing":
        return f"{plan.pipeline} is as the file says: there is nothing to do."
    done = "upgraded" if plan.action == "upgrade" else _created(plan)
    if lost := lost_names(plan):
        return (
            f"{plan.pipeline} would be {done}, and lose the state of {', '.join(lost)}: `apply` refuses that without "
            "--drop-state."
        )
    if plan.action == "create":
        return f"{plan.pipeline} would be {done}."
    if all(each.state == _NOT_SHOWN for each in plan.changes):
        return f"{plan.pipeline} would be upgraded; it has no state yet."
    begins = "a savepoint" if plan.checkpoint is None else f"checkpoint {plan.checkpoint}"
    return f"{plan.pipeline} would be upgraded from {begins}; no state is lost{_spread(plan.changes)}."


def _created(plan: PlanView) -> str:
    nodes = _count(sum(each.change != "removed" for each in plan.changes), "node")
    if plan.checkpoint is None:
        return f"created, with {nodes}"
    return f"created, with {nodes}, from checkpoint {plan.checkpoint} of an earlier {plan.pipeline}"


def _spread(changes: Sequence[StepChange]) -> str:
    migrated = [each.name for each in changes if each.state == "migrated"]
    return f", that of {', '.join(migrated)} is moved" if migrated else ""


def list_view(pipelines: Sequence[PipelineSummary]) -> RenderableType:
    """A line a pipeline, then a line for each that has something to say."""
    if not pipelines:
        return Text("There are no pipelines. `streamproc apply FILE` makes one.")
    table = _table("pipeline", "state", "rows\nin", "/s", "rows\nout", "late", "bad", "lag", "watermark", _CHECKPOINT)
    for each in pipelines:
        table.add_row(
            each.name,
            _as_wanted(each),
            f"{each.records_in:,}",
            f"{each.records_in_per_second:,.0f}",
            f"{each.records_out:,}",
            f"{each.late_records:,}",
            f"{each.error_records:,}",
            "" if each.source_lag_records is None else f"{each.source_lag_records:,}",
            _time(each.watermark),
            _checkpoint(each),
        )
    return Group(table, *(Text(f"{each.name}: {each.message}") for each in pipelines if each.message))


def status_view(detail: PipelineDetail, graph: GraphView | None) -> RenderableType:
    """Everything of one pipeline: its state, each node live, checkpoints, the ledger, what failed."""
    head = Table.grid(padding=(0, 2))
    head.add_row("pipeline", f"{detail.name}, revision {detail.revision}, parallelism {detail.parallelism}")
    head.add_row("state", _state(detail))
    rates = f"{detail.records_in_per_second:,.0f} a second in, {detail.records_out_per_second:,.0f} out"
    head.add_row("rows", f"{detail.records_in:,} in, {detail.records_out:,} out; {rates}")
    head.add_row("late, bad", f"{detail.late_records:,} late, {detail.error_records:,} bad")
    if detail.source_lag_records is not None:
        head.add_row("lag", _count(detail.source_lag_records, "record"))
    head.add_row("watermark", _time(detail.watermark) or "none")
    head.add_row("checkpoint", _checkpoint(detail) or "none")
    if detail.savepoints:
        head.add_row("savepoints", ", ".join(map(str, detail.savepoints)))
    if detail.restarts:
        head.add_row("restarts", str(detail.restarts))
    for warning in detail.warnings:
        head.add_row("warning", escape(warning))
    parts: list[RenderableType] = [head]
    if graph is not None and graph.live:
        parts.append(_nodes_table(graph.nodes))
    if detail.ledger:
        parts.append(_ledger_table(detail.ledger, detail.ledger_checkpoint))
    parts += [Text(f"{_time(each.at)}  {each.type}: {each.message}", style="red") for each in detail.failures]
    return Group(*parts)


def status_line(detail: PipelineDetail, graph: GraphView | None) -> str:
    """One line, for a log."""
    parts = [
        f"{detail.name} {detail.state}",
        f"{detail.records_in:,} in ({detail.records_in_per_second:,.0f}/s)",
        f"{detail.records_out:,} out ({detail.records_out_per_second:,.0f}/s)",
        f"{detail.late_records:,} late",
        f"{detail.error_records:,} bad",
    ]
    if detail.source_lag_records is not None:
        parts.append(f"lag {detail.source_lag_records:,}")
    if detail.watermark is not None:
        parts.append(f"watermark {_time(detail.watermark)}")
    if checkpoint := _checkpoint(detail):
        parts.append(f"checkpoint {checkpoint}")
    held = [each.name for each in graph.nodes if each.backpressured > 0.5] if graph is not None else []
    if held:
        parts.append(f"backpressured {', '.join(held)}")
    if detail.message:
        parts.append(detail.message)
    return " · ".join(parts)


def why_view(why: WhyView) -> RenderableType:
    """The summary, each cause, and what another `out_of_order` would cost."""
    lines = [Text(why.summary, style="bold")]
    lines += [Text(f"- {each.says}") for each in why.findings if each.says != why.summary]
    for source in why.advice:
        lines.append(Text(source.says))
        for option in source.advice:
            now = ", as now" if option.current else ""
            late = f"{option.late_rows:,} of {source.rows:,} rows late ({option.late_share:.2%})"
            lines.append(Text(f"  out_of_order: {option.out_of_order}{now}: {late}"))
    return Group(*lines)


def errors_view(errors: ErrorList) -> RenderableType:
    """Newest first."""
    if not errors.errors:
        return Text("There are no errors.")
    table = _table("at (UTC)", "where", "records", "error")
    for each in errors.errors:
        where = [each.node or "the pipeline"]
        if each.split is not None:
            where.append(each.split if each.offset is None else f"{each.split} at {each.offset}")
        table.add_row(_time(each.at), " ".join(where), f"{each.records:,}", escape(each.error))
    return Group(table, Text(f"{_count(errors.total, 'bad record')} left out since the service started"))


def checkpoint_line(checkpoint: CheckpointView) -> str:
    """What a savepoint has become."""
    size = "" if checkpoint.size_bytes is None else f", {_bytes(checkpoint.size_bytes)}"
    return f"{checkpoint.kind} {checkpoint.id}{size}"


def _nodes_table(nodes: Iterable[NodeView]) -> Table:
    table = _table(
        "node", "×", "in/s", "out/s", "busy", "back-\npres-\nsured", "idle", "watermark", "behind", "state\nsize"
    )
    for each in nodes:
        behind = "" if each.watermark_lag_seconds is None else span(each.watermark_lag_seconds)
        table.add_row(
            f"{each.kind} {each.name}",
            str(each.parallelism),
            f"{each.records_in_per_second:,.0f}",
            f"{each.records_out_per_second:,.0f}",
            f"{each.busy:.0%}",
            f"{each.backpressured:.0%}",
            f"{each.idle:.0%}",
            _time(each.watermark),
            behind,
            "" if each.state_bytes is None else _bytes(each.state_bytes),
        )
    return table


def _ledger_table(ledger: Iterable[LedgerView], checkpoint: int | None) -> Table:
    table = _table("node", "in", "out", "filtered", "late", "bad", "held", "unaccounted")
    table.title = f"every row since the pipeline began, as of checkpoint {checkpoint}"
    table.title_justify = "left"
    for each in ledger:
        counts = (each.in_, each.out, each.filtered, each.late, each.errors, each.held)
        missing = f"[bold red]{each.unaccounted:,}[/]" if each.unaccounted else "0"
        table.add_row(each.node, *(f"{count:,}" for count in counts), missing)
    return table


def _table(*columns: str) -> Table:
    """Where a terminal is narrow words wrap, and a figure that still has no room ends in an ellipsis: cut short it
    would be another figure."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        if column in _WORDS:
            table.add_column(column, overflow="fold", min_width=_WORDS[column])
        else:
            table.add_column(column, justify="right", overflow="ellipsis", no_wrap=True)
    return table


def _state(summary: PipelineSummary) -> str:
    return _as_wanted(summary) + (f": {escape(summary.message)}" if summary.message else "")


def _as_wanted(summary: PipelineSummary) -> str:
    return _coloured(summary.state) + ("" if summary.ready else f", wanted {summary.wanted}")


def _coloured(word: str) -> str:
    colour = _COLOURS.get(word)
    return f"[{colour}]{word}[/]" if colour else word


def _checkpoint(summary: PipelineSummary) -> str:
    if summary.checkpoint is None:
        return ""
    if summary.checkpoint_at is None:
        return str(summary.checkpoint)
    seconds = max(0.0, (datetime.now(UTC) - summary.checkpoint_at).total_seconds())
    return f"{summary.checkpoint}, {_age(seconds)} ago"


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _time(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
