"""What a pipeline will do, in plain words: streams, operators in order, exchanges, state, delivery.

`explain_json` is the plan; `explain` is the same plan as text. Values that came from references are
shown as `***`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from operators.element import Schema
from operators.operator import OperatorSpec
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
    StartTimestamp,
    duration_text,
)

_ERRORS = {"fail": "fail the job", "skip": "are skipped and counted", "dlq": "go to its errors stream"}


def explain_json(graph: LogicalGraph) -> dict[str, Any]:
    """The plan as JSON values."""
    physical = plan_physical(graph)
    checkpoint, restart = graph.job.checkpoint, graph.job.restart
    plan = {
        "pipeline": graph.pipeline,
        "checkpoint": {
            "every": duration_text(checkpoint.every),
            "timeout": duration_text(checkpoint.timeout),
            "keep": checkpoint.keep,
            "storage": checkpoint.storage,
        },
        "restart": restart.strategy,
        "max_parallelism": graph.job.max_parallelism,
        "sources": [_source(source) for source in graph.sources.values()],
        "steps": [_step(step) for step in graph.steps.values()],
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
    """The plan as text."""
    plan = explain_json(graph)
    checkpoint = plan["checkpoint"]
    kept = f"the newest {checkpoint['keep']} are kept"
    lines = [f"pipeline {plan['pipeline']}"]
    lines += _rows(
        ("checkpoints", f"every {checkpoint['every']} to {checkpoint['storage']}, {kept}"),
        ("restart", plan["restart"]),
        ("key groups", plan["max_parallelism"]),
    )
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
            ("before", step["before"]),
            ("exchange", step["exchange"]),
            ("does", step["operators"] or ["passes rows on"]),
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
    lines += ["", "chains (what shares a subtask)"]
    for chain in plan["chains"]:
        lines.append(f"  {' → '.join(chain['nodes'])}  ×{chain['parallelism']}")
        lines += [f"    {edge['stream']} ⇒ {edge['to']} ({edge['exchange']})" for edge in chain["sends"]]
    if plan["warnings"]:
        lines += ["", *plan["warnings"]]
    return "\n".join(lines) + "\n"


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
    idle = (
        ""
        if time.idle_after_ms is None
        else f", a split silent for {duration_text(time.idle_after_ms)} does not hold it back"
    )
    return f"{time.column}; watermark: max({time.column}){minus} of each split, the least counts{idle}"


def _step(step: LogicalStep) -> dict[str, Any]:
    windows = [spec for spec in step.operators if isinstance(spec, WindowAggregateSpec)]
    return {
        "name": step.name,
        "reads": [str(ref) for ref in step.inputs],
        "before": [_operator(spec) for spec in step.before],
        "exchange": None if step.key is None else _hash(step.key),
        "operators": [_operator(spec) for spec in step.operators],
        "late": _late(windows[0], step.name) if windows else None,
        "state": "partial aggregates per key and window, until the window is out of reach" if windows else None,
        "columns": _columns(step.schema),
        "errors": step.errors,
        "parallelism": step.parallelism,
    }


def _operator(spec: OperatorSpec) -> str:
    if not isinstance(spec, WindowAggregateSpec):
        return spec.describe()
    window = spec.window
    size, every = duration_text(window.size_ms), duration_text(window.slide_ms)
    shape = f"tumble {size}" if window.tumbles else f"hop {size} every {every}"
    offset = f", offset {duration_text(window.offset_ms)}" if window.offset_ms else ""
    by = f" by {', '.join(spec.key)}" if spec.key else ""
    results = (f"{output.text} as {name}" for name, output in zip(spec.plan.names, spec.plan.outputs, strict=True))
    return f"window {shape}{offset}{by}: {', '.join(results)}"


def _late(spec: WindowAggregateSpec, name: str) -> str:
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
        "reads": [str(ref) for ref in sink.inputs],
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
    return ", ".join(f"{name} {dtype}" for name, dtype in columns.items())


def _rows(*rows: tuple[str, str | int | Sequence[str] | None]) -> Iterable[str]:
    """Labelled lines; what has nothing to say is left out, a list takes one line an item."""
    for label, value in rows:
        items = [str(value)] if isinstance(value, str | int) else list(value or ())
        for index, item in enumerate(item for item in items if item):
            yield f"  {label if index == 0 else '':<14} {item}"


def _redacted(value: Any, redact: Redaction) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: _redacted(inner, redact) for name, inner in value.items()}
    return [_redacted(inner, redact) for inner in value] if isinstance(value, list) else value
