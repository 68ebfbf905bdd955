"""The job graph as people look at it: what each node does, and what flows where at this moment.

A pure function of the graph, the facts and the rates; without facts the same picture stands still.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from operators.element import WATERMARK_MAX, WATERMARK_MIN
from streamproc.observability.facts import JobFacts, StepFacts, SubtaskFacts
from streamproc.observability.rates import Rates
from streamproc.pipeline.explain import hidden_columns
from streamproc.pipeline.node_words import node_words
from streamproc.pipeline.physical import Edge, PhysicalGraph, Vertex
from streamproc.service.views import EdgeView, GraphView, NodeView

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_RATES: Final = Rates()


def graph_view(graph: PhysicalGraph, facts: JobFacts | None, rates: Rates = _NO_RATES) -> GraphView:
    """`facts`: None where the pipeline does not run; then rates count for nothing."""
    if facts is None:
        rates = _NO_RATES
    words = node_words(graph.logical)
    nodes = [
        _node(graph, vertex, name, words.get(name, ()), facts, rates)
        for vertex in graph.vertices
        for name in vertex.nodes
    ]
    order = {"source": 0, "step": 1, "sink": 2}
    return GraphView(
        pipeline=graph.logical.pipeline,
        live=facts is not None,
        nodes=tuple(sorted(nodes, key=lambda node: order[node.kind])),
        edges=tuple(_edges(graph, rates)),
    )


def event_moment(watermark: int) -> datetime | None:
    """A watermark as a moment; None: none yet, the end of input, or beyond what a date can say."""
    if not WATERMARK_MIN < watermark < WATERMARK_MAX:
        return None
    try:
        return _EPOCH + timedelta(milliseconds=watermark)
    except OverflowError:
        return None


def _node(
    graph: PhysicalGraph, vertex: Vertex, name: str, does: Sequence[str], facts: JobFacts | None, rates: Rates
) -> NodeView:
    everywhere = facts.subtasks if facts is not None else ()
    subtasks = [subtask for subtask in everywhere if subtask.vertex == vertex.name]
    steps = [step for subtask in everywhere for step in subtask.steps if step.node == name]
    watermark = min((subtask.watermark for subtask in subtasks), default=WATERMARK_MIN)
    at = event_moment(watermark)
    lag_s = None if at is None or facts is None else (facts.taken_ms - watermark) / 1000
    first = vertex.nodes[0] == name
    return NodeView(
        name=name,
        kind=_kind(graph, name),
        does=tuple(does),
        chain=vertex.name,
        parallelism=vertex.parallelism,
        records_in=sum(step.rows_in for step in steps),
        records_out=sum(step.rows_out for step in steps),
        records_in_per_second=rates.rows_in.get(name, 0.0),
        records_out_per_second=rates.rows_out.get(name, 0.0),
        late_records=sum(step.late for step in steps),
        error_records=sum(step.errors for step in steps),
        busy=_mean([subtask.busy for subtask in subtasks]),
        backpressured=_mean([subtask.backpressured for subtask in subtasks]),
        idle=_mean([subtask.idle for subtask in subtasks]),
        watermark=at,
        watermark_lag_seconds=lag_s,
        source_lag_records=_source_lag(subtasks, name),
        state_bytes=_state_bytes(steps),
        input_rows_waiting=_rows_waiting(subtasks) if first and vertex.source is None else None,
    )


def _kind(graph: PhysicalGraph, name: str) -> Literal["source", "step", "sink"]:
    if name in graph.logical.sources:
        return "source"
    return "step" if name in graph.logical.steps else "sink"


def _mean(shares: Sequence[float]) -> float:
    return sum(shares) / len(shares) if shares else 0.0


def _source_lag(subtasks: Sequence[SubtaskFacts], name: str) -> int | None:
    """Over all readers; None as long as none knows."""
    readers = [subtask.source for subtask in subtasks if subtask.source is not None and subtask.source.source == name]
    known = [reader.lag_records for reader in readers if reader.lag_records is not None]
    return sum(known) if known else None


def _state_bytes(steps: Sequence[StepFacts]) -> int | None:
    known = [step.state_bytes for step in steps if step.state_bytes is not None]
    return sum(known) if known else None


def _rows_waiting(subtasks: Sequence[SubtaskFacts]) -> int | None:
    return sum(each.rows_waiting for subtask in subtasks for each in subtask.inputs) if subtasks else None


def _key(edge: Edge) -> tuple[str, ...]:
    """As the file says it: a computed column is its expression."""
    computed = hidden_columns(stage.spec for stage in edge.before)
    return tuple(computed.get(name, name) for name in edge.key)


def _edges(graph: PhysicalGraph, rates: Rates) -> Iterator[EdgeView]:
    """Inside each chain, then what leaves it; a stream that a step reads twice is one edge."""
    for vertex in graph.vertices:
        for upstream, downstream in zip(vertex.nodes, vertex.nodes[1:], strict=False):
            flow = rates.rows_out.get(upstream, 0.0)
            yield EdgeView(
                upstream=upstream, stream=upstream, downstream=downstream, exchange=None, records_per_second=flow
            )
        for (stream, downstream), edge in {(str(e.stream), e.downstream): e for e in vertex.edges}.items():
            yield EdgeView(
                upstream=edge.stream.node,
                stream=stream,
                downstream=downstream,
                exchange=edge.exchange,
                key=_key(edge),
                records_per_second=rates.edges.get((stream, downstream), 0.0),
            )
