"""The physical graph: which operators share a subtask, how many subtasks, and what runs between them.

A node is chained to the one it reads when it is that stream's only reader, reads nothing else,
needs no exchange, and has the same parallelism: then batches pass by reference on one thread.
Everything else is a vertex of its own behind an edge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from operators.operator import OperatorSpec
from operators.stateless import PassSpec
from streamproc.pipeline.logical import Exchange, LogicalGraph, LogicalSink, LogicalSource, LogicalStep, StreamRef
from streamproc.pipeline.spec import KafkaSinkSpec

Reader = LogicalStep | LogicalSink
Node = LogicalSource | Reader


@dataclass(frozen=True, slots=True)
class Stage:
    """One operator of a chain and the step whose rows, errors and state it accounts for."""

    step: str
    spec: OperatorSpec


@dataclass(frozen=True, slots=True)
class Edge:
    """Rows of `stream` go to input `port` of `downstream`, after `before` has run on the sender's side."""

    stream: StreamRef
    before: tuple[Stage, ...]
    exchange: Exchange
    key: tuple[str, ...]
    downstream: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class Vertex:
    """A chain: a source or a gate, operators, then edges or a sink."""

    name: str
    nodes: tuple[str, ...]  # logical nodes in order: what the chain is made of
    parallelism: int
    source: LogicalSource | None
    stages: tuple[Stage, ...]
    output: StreamRef  # what leaves after the last stage
    sink: LogicalSink | None
    edges: tuple[Edge, ...]


@dataclass(frozen=True, slots=True)
class PhysicalGraph:
    """Vertices in an order where every edge points forward."""

    logical: LogicalGraph
    vertices: tuple[Vertex, ...]

    def vertex(self, name: str) -> Vertex:
        """The vertex of that name."""
        return next(v for v in self.vertices if v.name == name)

    def upstreams(self, name: str) -> Iterator[tuple[Vertex, Edge]]:
        """Every edge that ends at vertex `name`, with the vertex it starts at."""
        for vertex in self.vertices:
            for edge in vertex.edges:
                if edge.downstream == name:
                    yield vertex, edge

    def meeting_sources(self, name: str) -> frozenset[str]:
        """Sources with event time whose rows come together with those of source vertex `name` where rows are kept;
        itself included."""
        reached = {v.name: self._reached_from(v.name) for v in self.vertices if v.source and v.source.event_time}
        own = reached.get(name, frozenset())
        return frozenset(other for other, places in reached.items() if places & own)

    def _reached_from(self, name: str) -> frozenset[str]:
        found: set[str] = set()
        waiting = [name]
        while waiting:
            for edge in self.vertex(waiting.pop()).edges:
                if edge.downstream not in found and edge.stream.tag != "errors":  # those have no event time
                    found.add(edge.downstream)
                    waiting.append(edge.downstream)
        return frozenset(v.name for v in self.vertices if v.name in found and any(s.spec.stateful for s in v.stages))


def plan_physical(graph: LogicalGraph) -> PhysicalGraph:
    """Chain what can be chained; everything reachable is in exactly one vertex."""
    readings = _readings(graph)

    def chainable(ref: StreamRef, parallelism: int) -> Reader | None:
        if len(readings.get(ref, [])) != 1:
            return None
        reader = readings[ref][0].reader
        keyed = isinstance(reader, LogicalStep) and reader.exchanges
        if len(reader.streams) != 1 or keyed or reader.parallelism != parallelism:
            return None
        return reader

    chains: list[list[Node]] = []
    chained: set[str] = set()
    heads: list[Node] = [*graph.sources.values(), *_in_order(graph), *graph.sinks.values()]
    for head in heads:
        if head.name in chained:
            continue
        chain: list[Node] = [head]
        while not isinstance(chain[-1], LogicalSink):
            reader = chainable(StreamRef(chain[-1].name), head.parallelism)
            if reader is None:
                break
            chain.append(reader)
        chained.update(node.name for node in chain)
        chains.append(chain)

    vertex_of = {node.name: chain[0].name for chain in chains for node in chain}
    parallelism_of = {chain[0].name: chain[0].parallelism for chain in chains}

    def edges_of(chain: list[Node]) -> Iterator[Edge]:
        members = {node.name for node in chain}
        streams = [(ref, node) for node in chain for ref in sorted(readings, key=_main_first) if ref.node == node.name]
        seen = {ref for ref, _ in streams}
        for ref, node in streams:
            for reading in readings[ref]:
                reader = reading.reader
                if reader.name in members and ref.tag == "main":
                    continue  # chained: passed by reference
                downstream = vertex_of[reader.name]
                same = parallelism_of[downstream] == chain[0].parallelism
                edge = _edge(ref, node, reading, downstream, same_parallelism=same)
                yield edge
                errors = StreamRef(reader.name, "errors")
                if edge.before and errors in readings and errors not in seen:  # what fails ahead of the exchange
                    seen.add(errors)
                    streams.append((errors, reader))

    vertices = []
    for chain in chains:
        steps = [node for node in chain if isinstance(node, LogicalStep)]
        stages: list[Stage] = []
        for step in steps:
            stages += [Stage(step.name, spec) for spec in step.operators or (PassSpec(step.schema),)]
        last = [node for node in chain if not isinstance(node, LogicalSink)]
        sink = chain[-1] if isinstance(chain[-1], LogicalSink) else None
        vertices.append(
            Vertex(
                name=chain[0].name,
                nodes=tuple(node.name for node in chain),
                parallelism=chain[0].parallelism,
                source=chain[0] if isinstance(chain[0], LogicalSource) else None,
                stages=tuple(stages),
                output=StreamRef(last[-1].name) if last else StreamRef(chain[0].name),
                sink=sink,
                edges=tuple(edges_of(chain)),
            )
        )
    return PhysicalGraph(graph, tuple(vertices))


@dataclass(frozen=True, slots=True)
class _Reading:
    """One stream as read by one input of a node."""

    reader: Reader
    port: int


def _readings(graph: LogicalGraph) -> dict[StreamRef, list[_Reading]]:
    """Who reads each stream; a join of a stream with itself does so twice."""
    readings: dict[StreamRef, list[_Reading]] = {}
    for step in graph.steps.values():
        for port, each in enumerate(step.inputs):
            for ref in each.streams:
                readings.setdefault(ref, []).append(_Reading(step, port))
    for sink in graph.sinks.values():
        for ref in sink.streams:
            readings.setdefault(ref, []).append(_Reading(sink, 0))
    return readings


def _main_first(ref: StreamRef) -> tuple[bool, bool, str]:
    return ref.tag != "main", ref.tag != "late", ref.tag


def _edge(ref: StreamRef, sender: Node, reading: _Reading, downstream: str, *, same_parallelism: bool) -> Edge:
    reader = reading.reader
    if isinstance(reader, LogicalStep) and reader.exchanges:
        read = reader.inputs[reading.port]
        assert read.key is not None, "both inputs of a keyed step come by key"
        before = tuple(Stage(reader.name, spec) for spec in read.before)
        return Edge(ref, before, "hash", read.key, downstream, reading.port)
    if same_parallelism:
        return Edge(ref, (), "forward", (), downstream)
    key = _order_key(ref, sender, reader)
    return Edge(ref, (), "rebalance" if key is None else "hash", key or (), downstream)


def _order_key(ref: StreamRef, sender: Node, reader: Reader) -> tuple[str, ...] | None:
    """The columns by which rows have to keep their order: those of a Kafka sink's key, and of a changelog those that
    tell which row a change is about. None: in whatever order."""
    if isinstance(reader, LogicalSink) and isinstance(reader.config, KafkaSinkSpec) and reader.config.key:
        key = tuple(reader.config.key)
        if not any(isinstance(reader.schema.get(name), pl.List | pl.Struct) for name in key):
            return key
    if ref.tag != "main" or isinstance(sender, LogicalSink) or sender.changelog is None:
        return None
    return tuple(sender.schema) if sender.changelog.key is None else sender.changelog.key


def _in_order(graph: LogicalGraph) -> Iterator[LogicalStep]:
    """Steps so that each comes after those it reads (the planner has ruled out cycles)."""
    done = set(graph.sources)
    waiting = dict(graph.steps)
    while waiting:
        ready = [s for s in waiting.values() if all(ref.node in done for ref in s.streams)]
        assert ready, "the planner lets no cycle through"
        for step in ready:
            done.add(step.name)
            del waiting[step.name]
            yield step
