"""The physical graph: which operators share a subtask, how many subtasks, and what runs between them.

A node is chained to the one it reads when it is that stream's only reader, reads nothing else,
needs no exchange, and has the same parallelism: then batches pass by reference on one thread.
Everything else is a vertex of its own behind an edge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from operators.element import OutputTag
from operators.operator import OperatorSpec
from streamproc.pipeline.logical import Exchange, LogicalGraph, LogicalSink, LogicalSource, LogicalStep, StreamRef

Reader = LogicalStep | LogicalSink
Node = LogicalSource | Reader
_TAGS: Final[tuple[OutputTag, ...]] = ("main", "late", "errors")


@dataclass(frozen=True, slots=True)
class Stage:
    """One operator of a chain and the step whose rows, errors and state it accounts for."""

    step: str
    spec: OperatorSpec


@dataclass(frozen=True, slots=True)
class Edge:
    """Rows of `stream` go to `downstream`, after `before` has run on the sender's side."""

    stream: StreamRef
    before: tuple[Stage, ...]
    exchange: Exchange
    key: tuple[str, ...]
    downstream: str


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


def plan_physical(graph: LogicalGraph) -> PhysicalGraph:
    """Chain what can be chained; everything reachable is in exactly one vertex."""
    readers: dict[StreamRef, list[Reader]] = {}
    reading: list[Reader] = [*graph.steps.values(), *graph.sinks.values()]
    for node in reading:
        for ref in node.inputs:
            readers.setdefault(ref, []).append(node)

    def chainable(ref: StreamRef, parallelism: int) -> Reader | None:
        if ref.tag != "main" or len(readers.get(ref, [])) != 1:
            return None
        reader = readers[ref][0]
        keyed = isinstance(reader, LogicalStep) and reader.key is not None
        if len(reader.inputs) != 1 or keyed or reader.parallelism != parallelism:
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
        for node in chain:
            for tag in _TAGS:
                ref = StreamRef(node.name, tag)
                for reader in readers.get(ref, []):
                    if reader.name in members and tag == "main":
                        continue  # chained: passed by reference
                    yield _edge(ref, reader, vertex_of[reader.name], chain[0].parallelism, parallelism_of)

    vertices = []
    for chain in chains:
        steps = [node for node in chain if isinstance(node, LogicalStep)]
        stages: list[Stage] = []
        for step in steps:
            if step.key is None:
                stages += [Stage(step.name, spec) for spec in step.before]
            stages += [Stage(step.name, spec) for spec in step.operators]
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


def _edge(ref: StreamRef, reader: Reader, downstream: str, here: int, parallelism_of: dict[str, int]) -> Edge:
    if isinstance(reader, LogicalStep) and reader.key is not None:
        before = tuple(Stage(reader.name, spec) for spec in reader.before)
        return Edge(ref, before, "hash", reader.key, downstream)
    exchange: Exchange = "forward" if parallelism_of[downstream] == here else "rebalance"
    return Edge(ref, (), exchange, (), downstream)


def _in_order(graph: LogicalGraph) -> Iterator[LogicalStep]:
    """Steps so that each comes after those it reads (the planner has ruled out cycles)."""
    done = set(graph.sources)
    waiting = dict(graph.steps)
    while waiting:
        ready = [s for s in waiting.values() if all(ref.node in done for ref in s.inputs)]
        assert ready, "the planner lets no cycle through"
        for step in ready:
            done.add(step.name)
            del waiting[step.name]
            yield step
