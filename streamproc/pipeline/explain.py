"""What a pipeline will do, in plain words: streams, operators in order, exchanges, state, delivery.

`explain_json` is the plan; `explain` is the same plan as text. Values that came from references are
shown as `***`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from textwrap import wrap
from typing import Any

from operators.connector import ERRORS_SCHEMA
from operators.element import Schema
from operators.explanation import Late, duration_text
from operators.join.condition import SIDES
from operators.operator import OperatorSpec
from operators.stateless import ProjectSpec
from operators.types import name_of
from streamproc.pipeline.columns import SIDE_PREFIXES
from streamproc.pipeline.logical import Changelog, LogicalGraph, LogicalInput, LogicalSink, LogicalSource, LogicalStep
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
)

_NO_BREAK = "\N{NO-BREAK SPACE}"
_NOTHING: Mapping[str, str] = {}
_WIDTH = 96  # of what stands behind the labels
_UPDATES = {
    "kafka": "the newest row of each key, a tombstone where there is none any more",
    "print": "every row begins with what it does: op +I, -U, +U or -D",
}
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
            ("gives", _updates_text(source["updates"])),
            ("ends", "yes, it is bounded" if source["bounded"] else "never"),
            ("bad records", _ERRORS[source["errors"]]),
            ("parallelism", source["parallelism"]),
        )
    query = None
    for step in plan["steps"]:
        if step["query"] is not None and step["query"] != query:
            parts = [each["name"] for each in plan["steps"] if each["query"] == step["query"]]
            lines += ["", f"query {step['query']}", *_rows(("steps", ", ".join(parts)))]
        query = step["query"]
        lines += ["", f"step {step['name']}", *_step_text(step)]
    for sink in plan["sinks"]:
        lines += ["", f"sink {sink['name']}: {sink['writes']}"]
        lines += _rows(
            ("reads", ", ".join(sink["reads"])),
            ("format", sink["format"]),
            ("key", ", ".join(sink["key"])),
            ("updates", sink["updates"]),
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
        "updates": _updates(source.changelog),
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
    inputs = [
        _input(each, side, graph)
        for each, side in zip(step.inputs, SIDES if len(step.inputs) > 1 else ("",), strict=True)
    ]
    before = list(step.inputs[0].before[-1:])
    columns = list(before[0].schema if before else _columns_read(step.inputs[0], graph))
    hidden = hidden_columns(spec for each in step.inputs for spec in each.before)
    explanations = [spec.explained() for spec in step.operators]
    operators = [_operator(spec, columns, hidden) for spec in step.operators]
    return {
        "name": step.name,
        "query": step.query,
        "reads": [str(ref) for ref in step.streams],
        "inputs": inputs,
        "before": [operator for each in inputs for operator in each["before"]],
        "exchange": " and ".join(dict.fromkeys(each["exchange"] for each in inputs if each["exchange"])) or None,
        "operators": operators,
        "late": next((_late(each.late, step.name) for each in explanations if each.late is not None), None),
        "waits": any(getattr(spec, "waits", False) for spec in step.operators),
        "state": next((each.keeps for each in explanations if each.keeps), None),
        "updates": _updates(step.changelog),
        "columns": _columns(step.schema),
        "errors": step.errors,
        "parallelism": step.parallelism,
    }


def _input(each: LogicalInput, side: str, graph: LogicalGraph) -> dict[str, Any]:
    columns = list(_columns_read(each, graph))
    before = [_operator(spec, columns) for spec in each.before]
    return {
        "side": side or None,
        "reads": [str(ref) for ref in each.streams],
        "before": [operator for operator in before if operator["does"] != "add" or operator["computes"]],
        "exchange": None if each.key is None else _hash(each.key, hidden_columns(each.before)),
    }


def hidden_columns(operators: Iterable[OperatorSpec]) -> dict[str, str]:
    """Columns that only the step itself knows, and what they are made of."""
    found: dict[str, str] = {}
    for spec in operators:
        if isinstance(spec, ProjectSpec):
            computed = spec.explained().computes
            found |= {name: text for name, text in computed.items() if name.startswith("__") and text != name}
    return found


def _columns_read(each: LogicalInput, graph: LogicalGraph) -> Iterable[str]:
    first = each.streams[0]
    if first.tag == "errors":
        return ERRORS_SCHEMA
    if first.tag != "main":
        return graph.steps[first.node].side_outputs[first.tag]
    return (graph.sources.get(first.node) or graph.steps[first.node]).schema


def _operator(spec: OperatorSpec, columns: list[str], hidden: Mapping[str, str] = _NOTHING) -> dict[str, Any]:
    """What an operator `does`, and the columns it `computes`. `columns`: what it reads, then what it gives."""
    before = columns[:]
    columns[:] = spec.schema
    explained = spec.explained()
    if isinstance(spec, ProjectSpec):
        new = {name: text for name, text in explained.computes.items() if text not in (name, _plain(name))}
        if not new:
            return {"does": f"keep {', '.join(map(_plain, spec.columns)) or 'no column'}", "computes": {}}
        if columns[: len(before)] == before:
            return {"does": "add", "computes": {name: new[name] for name in new if not name.startswith("__")}}
    does = reduce(lambda text, name: text.replace(name, hidden[name]), hidden, explained.does)
    return {"does": does, "computes": dict(explained.computes)}


def _plain(name: str) -> str:
    """A column of a join's side as the side calls it."""
    side = next((side for side in SIDE_PREFIXES if name.startswith(side)), "")
    return name.removeprefix(side)


def operators_text(operators: Sequence[Mapping[str, Any]]) -> list[str]:
    lines: list[str] = []
    for operator in operators:
        computed = [name if text == name else f"{name} = {text}" for name, text in operator["computes"].items()]
        if operator["does"] in ("add", "select"):
            lines.append(f"{operator['does']} {', '.join(computed)}")
        else:
            lines += [operator["does"], *(f"  {line}" for line in computed)]
    return lines


def _step_text(step: Mapping[str, Any]) -> Iterable[str]:
    inputs = step["inputs"]
    if len(inputs) == 1:
        yield from _rows(("reads", ", ".join(step["reads"])))
        yield from _rows(("before", operators_text(step["before"])), ("exchange", step["exchange"]))
    for each in inputs if len(inputs) > 1 else ():
        then = [f"{line.strip()}" for line in operators_text(each["before"])]
        yield from _rows((each["side"], [", ".join(each["reads"]), *then, each["exchange"] or ""]))
    yield from _rows(
        ("does", operators_text(step["operators"]) or "passes rows on"),
        ("waits", "for answers from outside, on a thread of its own" if step["waits"] else None),
        ("late rows", step["late"]),
        ("state", step["state"] or "none"),
        ("gives", _updates_text(step["updates"])),
        ("columns", _columns_text(step["columns"])),
        ("bad records", _ERRORS[step["errors"]]),
        ("parallelism", step["parallelism"]),
    )


def _updates(changelog: Changelog | None) -> dict[str, Any] | None:
    """Of a stream whose rows are taken back: the columns that tell which row a change is about."""
    if changelog is None:
        return None
    return {"key": None if changelog.key is None else list(changelog.key)}


def _updates_text(updates: Mapping[str, Any] | None) -> str | None:
    if updates is None:
        return None
    if updates["key"] is None:
        return "updates; only the whole row tells which one is meant"
    return f"updates by {', '.join(updates['key'])}" if updates["key"] else "updates of a single row"


def _late(late: Late, name: str) -> str:
    accepted = f"accepted for {duration_text(late.accept_for_ms)}, then " if late.accept_for_ms else ""
    return f"{accepted}{f'sent to {name}.late' if late.side_output else 'dropped'}, counted"


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
        "updates": None if sink.changelog is None else _UPDATES.get(sink.config.type),
        "delivery": delivery,
        "parallelism": sink.parallelism,
    }


def _edge(edge: Edge) -> dict[str, Any]:
    computed = hidden_columns(stage.spec for stage in edge.before)
    exchange = _hash(edge.key, computed) if edge.exchange == "hash" else edge.exchange
    return {"stream": str(edge.stream), "to": edge.downstream, "exchange": exchange}


def _hash(key: tuple[str, ...], hidden: Mapping[str, str]) -> str:
    return f"hash by {', '.join(hidden.get(name, name) for name in key)}" if key else "all rows to one subtask"


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
