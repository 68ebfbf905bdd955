"""What a pipeline will do, in plain words: streams, operators in order, exchanges, state, delivery.

`explain_json` is the plan; `explain` is the same plan as text. Values that came from references are
shown as `***`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any

from operators.connector import ERRORS_SCHEMA
from operators.element import Schema
from operators.operator import OperatorSpec
from operators.session import SessionAggregateSpec
from operators.stateless import ProjectSpec
from operators.types import name_of
from operators.window import WindowAggregateSpec
from streamproc.pipeline.logical import LogicalGraph, LogicalSink, LogicalSource, LogicalStep
from streamproc.pipeline.physical import Edge, plan_physical
from streamproc.pipeline.references import Redaction
from streamproc.pipeline.spec import (
    BlackholeSinkSpec,
    DatagenSourceSpec,
    FileSinkSpec,
    FileSourceSpec,
    KafkaSinkSpec,
    KafkaSourceSpec,
    PrintSinkSpec,
    RestartSpec,
    StartTimestamp,
    duration_text,
)

_NO_BREAK = "\N{NO-BREAK SPACE}"
_WIDTH = 96  # of what stands behind the labels
_ERRORS = {"fail": "fail the job", "skip": "are skipped and counted", "dlq": "go to its errors stream"}


def explain_json(graph: LogicalGraph) -> dict[str, Any]:
    """The plan as JSON values."""
    physical = plan_physical(graph)
    checkpoint = graph.job.checkpoint
    plan = {
        "pipeline": graph.pipeline,
        "checkpoint": {
            "every": duration_text(checkpoint.every),
            "timeout": duration_text(checkpoint.timeout),
            "keep": checkpoint.keep,
            "storage": checkpoint.storage,
        },
        "restart": _restart(graph.job.restart),
        "max_parallelism": graph.job.max_parallelism,
        "sources": [_source(source) for source in graph.sources.values()],
        "steps": [_step(step, graph) for step in graph.steps.values()],
        "sinks": [_sink(sink) for sink in graph.sinks.values()],
        "chains": [
            {
                "name": vertex.name,
                "nodes": list(vertex.nodes),
                "parallelism": vertex.parallelism,
                "sends": [_edge(edge) for edge in vertex.edges],
            }
            for vertex in physical.vertices
        ],
        "warnings": list(graph.warnings),
    }
    redacted: dict[str, Any] = _redacted(plan, Redaction(dict.fromkeys(graph.secrets, "***"), short_alone=True))
    return redacted


def explain(graph: LogicalGraph) -> str:
    """The plan as text: first what runs where, then every part by itself."""
    plan = explain_json(graph)
    checkpoint = plan["checkpoint"]
    kept = f"the newest {checkpoint['keep']} are kept"
    lines = [f"pipeline {plan['pipeline']}"]
    lines += _rows(
        ("checkpoints", f"every {checkpoint['every']} to {checkpoint['storage']}, {kept}"),
        ("restart", plan["restart"]),
        ("key groups", plan["max_parallelism"]),
        ("subtasks", sum(chain["parallelism"] for chain in plan["chains"])),
    )
    lines += ["", *_flow(plan["chains"])]
    for source in plan["sources"]:
        lines += ["", f"source {source['name']}: {source['reads']}"]
        lines += _rows(
            ("format", source["format"]),
            ("columns", _columns_text(source["columns"])),
            ("event time", source["watermark"] or "none"),
            ("ends", "yes, it is bounded" if source["bounded"] else "never"),
            ("bad records", _ERRORS[source["errors"]]),
            ("parallelism", source["parallelism"]),
        )
    for step in plan["steps"]:
        lines += ["", f"step {step['name']}"]
        lines += _rows(
            ("reads", ", ".join(step["reads"])),
            ("before", _operators_text(step["before"])),
            ("exchange", step["exchange"]),
            ("does", _operators_text(step["operators"]) or "passes rows on"),
            ("late rows", step["late"]),
            ("state", step["state"] or "none"),
            ("columns", _columns_text(step["columns"])),
            ("bad records", _ERRORS[step["errors"]]),
            ("parallelism", step["parallelism"]),
        )
    for sink in plan["sinks"]:
        lines += ["", f"sink {sink['name']}: {sink['writes']}"]
        lines += _rows(
            ("reads", ", ".join(sink["reads"])),
            ("format", sink["format"]),
            ("key", ", ".join(sink["key"])),
            ("delivery", sink["delivery"]),
            ("parallelism", sink["parallelism"]),
        )
    if plan["warnings"]:
        lines += ["", *plan["warnings"]]
    return "\n".join(lines) + "\n"


def _flow(chains: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Chains, their subtasks, and where what leaves them goes, in columns."""
    yield "what runs (→ inside a subtask, ⇒ between subtasks)"
    names = [" → ".join(chain["nodes"]) for chain in chains]
    width = max(map(len, names), default=0)
    streams = max((len(edge["stream"]) for chain in chains for edge in chain["sends"]), default=0)
    for name, chain in zip(names, chains, strict=True):
        start = f"  {name:<{width}}  ×{chain['parallelism']:<3}"
        for edge in chain["sends"] or [None]:
            sends = "" if edge is None else f" {edge['stream']:<{streams}} ⇒ {edge['to']}, {edge['exchange']}"
            yield f"{start}{sends}".rstrip()
            start = " " * len(start)


def _source(source: LogicalSource) -> dict[str, Any]:
    form: str = ""
    match source.config:
        case KafkaSourceSpec() as kafka:
            start = f"timestamp {kafka.start.timestamp}" if isinstance(kafka.start, StartTimestamp) else kafka.start
            end = ", to what is there at the start" if kafka.stop == "latest" else ""
            reads, form = f"Kafka topic {kafka.topic} from {start}{end}", kafka.format.type
        case FileSourceSpec() as file:
            reads, form = f"files {file.path}{', followed' if file.follow else ''}", file.format.type
        case DatagenSourceSpec() as datagen:
            what = f"{datagen.table} events" if datagen.table else "generated rows"
            count = "" if datagen.rows is None else f"{datagen.rows} "
            rate = "" if datagen.rate is None else f", {datagen.rate} a second"
            reads = f"{count}{what}{rate}, seed {datagen.seed}"
    return {
        "name": source.name,
        "type": source.config.type,
        "reads": reads,
        "format": form,
        "columns": _columns(source.schema),
        "watermark": _watermark(source),
        "bounded": source.bounded,
        "errors": source.errors,
        "parallelism": source.parallelism,
    }


def _watermark(source: LogicalSource) -> str | None:
    time = source.event_time
    if time is None:
        return None
    minus = f" − {duration_text(time.out_of_order_ms)}" if time.out_of_order_ms else ""
    split = {"kafka": "partition", "file": "file"}.get(source.config.type, "split")
    idle = ""
    if time.idle_after_ms is not None:
        idle = f"; a {split} silent for {duration_text(time.idle_after_ms)} does not count"
    return f"{time.column}; the watermark is max({time.column}){minus} of each {split}, the least counts{idle}"


def _restart(restart: RestartSpec) -> str:
    match restart.strategy:
        case "backoff":
            first, longest = duration_text(restart.initial), duration_text(restart.max)
            return f"after a failure, in {first} at first, then ever later, up to {longest}"
        case "fixed":
            return f"after a failure, {restart.attempts} times, {duration_text(restart.delay)} apart"
        case "none":
            return "never: a failure ends the job"


def _step(step: LogicalStep, graph: LogicalGraph) -> dict[str, Any]:
    windows = [spec for spec in step.operators if isinstance(spec, WindowAggregateSpec | SessionAggregateSpec)]
    columns = list(_columns_read(step, graph))
    before = [_operator(spec, columns) for each in step.inputs for spec in each.before]
    exchanges = [_hash(each.key) for each in step.inputs if each.key is not None]
    return {
        "name": step.name,
        "reads": [str(ref) for ref in step.streams],
        "before": before,
        "exchange": " and ".join(dict.fromkeys(exchanges)) or None,
        "operators": [_operator(spec, columns) for spec in step.operators],
        "late": _late(windows[0], step.name) if windows else None,
        "state": _state(windows[0]) if windows else None,
        "columns": _columns(step.schema),
        "errors": step.errors,
        "parallelism": step.parallelism,
    }


def _columns_read(step: LogicalStep, graph: LogicalGraph) -> Iterable[str]:
    first = step.streams[0]
    if first.tag == "errors":
        return ERRORS_SCHEMA
    if first.tag != "main":
        return graph.steps[first.node].side_outputs[first.tag]
    return (graph.sources.get(first.node) or graph.steps[first.node]).schema


def _operator(spec: OperatorSpec, columns: list[str]) -> dict[str, Any]:
    """What an operator `does`, and the columns it `computes`. `columns`: what it reads, then what it gives."""
    before = columns[:]
    columns[:] = spec.schema
    if isinstance(spec, WindowAggregateSpec | SessionAggregateSpec):
        by = f" by {', '.join(spec.key)}" if spec.key else ""
        results = {name: output.text for name, output in zip(spec.plan.names, spec.plan.outputs, strict=True)}
        return {"does": f"window {_shape(spec)}{by}{_updates(spec.update_every_ms)}", "computes": results}
    if isinstance(spec, ProjectSpec):
        new = {name: scalar.text for name, scalar in spec.columns.items() if scalar.text != name}
        if not new:
            return {"does": f"keep {', '.join(spec.columns)}", "computes": {}}
        if columns[: len(before)] == before:
            return {"does": "add", "computes": new}
        return {"does": "select", "computes": {name: scalar.text for name, scalar in spec.columns.items()}}
    return {"does": spec.describe(), "computes": {}}


def _operators_text(operators: Sequence[Mapping[str, Any]]) -> list[str]:
    lines: list[str] = []
    for operator in operators:
        computed = [name if text == name else f"{name} = {text}" for name, text in operator["computes"].items()]
        if operator["does"] in ("add", "select"):
            lines.append(f"{operator['does']} {', '.join(computed)}")
        else:
            lines += [operator["does"], *(f"  {line}" for line in computed)]
    return lines


def _shape(spec: WindowAggregateSpec | SessionAggregateSpec) -> str:
    if isinstance(spec, SessionAggregateSpec):
        return f"session {duration_text(spec.gap_ms)}"
    if spec.carried:
        return "of the input"
    window = spec.window
    size, every = duration_text(window.size_ms), duration_text(window.slide_ms)
    offset = f", offset {duration_text(window.offset_ms)}" if window.offset_ms else ""
    if window.cumulates:
        return f"cumulate {size} every {every}{offset}"
    return (f"tumble {size}" if window.tumbles else f"hop {size} every {every}") + offset


def _updates(every_ms: int | None) -> str:
    if every_ms is None:
        return ""
    return f", changes every {duration_text(every_ms)}" if every_ms else ", each change"


def _state(spec: WindowAggregateSpec | SessionAggregateSpec) -> str:
    late = spec.accept_for_ms
    what = "session" if isinstance(spec, SessionAggregateSpec) else "window"
    per = f"key and {what}" if spec.key else what
    if isinstance(spec, WindowAggregateSpec) and not spec.window.tumbles:
        window, piece = spec.window, duration_text(spec.window.slice_ms)
        to_a_window = f"{'up to ' if window.cumulates else ''}{window.size_ms // window.slice_ms} to a window"
        per = f"{per.replace('window', 'slice')} of {piece} ({to_a_window})"
    longer = f", kept {duration_text(late)} longer for late rows" if late else ""
    return f"partial aggregates per {per}{longer}"


def _late(spec: WindowAggregateSpec | SessionAggregateSpec, name: str) -> str:
    accepted = f"accepted for {duration_text(spec.accept_for_ms)}, then " if spec.accept_for_ms else ""
    return f"{accepted}{f'sent to {name}.late' if spec.late_output else 'dropped'}, counted"


def _sink(sink: LogicalSink) -> dict[str, Any]:
    form: str = ""
    key: list[str] = []
    delivery = "exactly once"
    match sink.config:
        case KafkaSinkSpec() as kafka:
            writes, form, key = f"Kafka topic {kafka.topic}", kafka.format.type, kafka.key or []
            delivery = kafka.delivery.replace("_", " ")
            if sink.carries_errors:
                form = "the original records, unchanged"
        case FileSinkSpec() as file:
            writes, form = f"files {file.path}", file.format.type
            delivery = "exactly once: a finished file appears when its checkpoint completes"
        case PrintSinkSpec() as printed:
            writes, form, delivery = "the terminal", printed.format.type, "at least once"
        case BlackholeSinkSpec():
            writes, delivery = "nowhere", "none"
    return {
        "name": sink.name,
        "type": sink.config.type,
        "writes": writes,
        "reads": [str(ref) for ref in sink.streams],
        "format": form,
        "key": key,
        "delivery": delivery,
        "parallelism": sink.parallelism,
    }


def _edge(edge: Edge) -> dict[str, Any]:
    exchange = _hash(edge.key) if edge.exchange == "hash" else edge.exchange
    return {"stream": str(edge.stream), "to": edge.downstream, "exchange": exchange}


def _hash(key: tuple[str, ...]) -> str:
    return f"hash by {', '.join(key)}" if key else "all rows to one subtask"


def _columns(schema: Schema) -> dict[str, str]:
    return {name: name_of(dtype) for name, dtype in schema.items()}


def _columns_text(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name}{_NO_BREAK}{dtype}" for name, dtype in columns.items())


def _rows(*rows: tuple[str, str | int | Sequence[str] | None]) -> Iterable[str]:
    """Labelled lines; what has nothing to say is left out, an item of a list begins a line, a long one goes on
    in the next."""
    for label, value in rows:
        items = [str(value)] if isinstance(value, str | int) else list(value or ())
        for index, item in enumerate(item for item in items if item):
            indent = " " * (len(item) - len(item.lstrip()) + 2)
            wrapped = wrap(item, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
            for number, line in enumerate(wrapped):
                yield f"  {label if index == number == 0 else '':<14} {line}".replace(_NO_BREAK, " ")


def _redacted(value: Any, redact: Redaction) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: _redacted(inner, redact) for name, inner in value.items()}
    return [_redacted(inner, redact) for inner in value] if isinstance(value, list) else value
