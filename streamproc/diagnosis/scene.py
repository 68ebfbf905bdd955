"""Facts and graph, arranged around the node that is asked about: what flows to it, and what it flows to.

Everything is counted over all subtasks of a node; a step whose filter runs on the sender's side of an exchange is
counted there too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from operators.element import WATERMARK_MAX, WATERMARK_MIN
from streamproc.diagnosis.phrases import moment
from streamproc.observability.facts import JobFacts, SourceFacts, SplitFacts, StepFacts, SubtaskFacts
from streamproc.observability.rates import Rates
from streamproc.observability.status import JobStatus
from streamproc.pipeline.logical import LogicalGraph, LogicalSink, LogicalSource, LogicalStep, StreamRef
from streamproc.pipeline.physical import PhysicalGraph, Vertex
from streamproc.service.views import Finding

# What makes one cause likelier than another, highest first. A cause that explains silence altogether goes before one
# that merely costs rows; what comes after FLOWING is worth knowing all the same.
NOT_RUNNING, ENDED, UNREACHABLE, STUCK, HELD_BACK, SWALLOWED, NO_INPUT = 100, 95, 90, 85, 80, 75, 70
UNCOMMITTED, OPEN, SLOWED, FLOWING, NOTE, ASIDE = 65, 60, 55, 50, 40, 30


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A finding and how likely it is the cause."""

    weight: int
    finding: Finding


@dataclass(frozen=True, slots=True)
class Totals:
    """One node over all its subtasks, since they started."""

    rows_in: int = 0
    rows_out: int = 0
    filtered: int = 0
    late: int = 0
    errors: int = 0
    held: int = 0


@dataclass(frozen=True)
class Scene:
    """What there is to look at."""

    facts: JobFacts
    graph: PhysicalGraph
    status: JobStatus
    node: str
    rates: Rates

    @property
    def logical(self) -> LogicalGraph:
        """The graph as the file has it."""
        return self.graph.logical

    @cached_property
    def _vertices(self) -> dict[str, Vertex]:
        return {node: vertex for vertex in self.graph.vertices for node in vertex.nodes}

    def vertex_of(self, node: str) -> Vertex:
        """The chain that a node runs in."""
        return self._vertices[node]

    def reader(self, node: str) -> LogicalSource | LogicalStep | LogicalSink:
        """The node as planned."""
        graph = self.logical
        return graph.sources.get(node) or graph.steps.get(node) or graph.sinks[node]

    def reads(self, node: str) -> tuple[StreamRef, ...]:
        """The streams a node reads; a source reads none."""
        reader = self.reader(node)
        return () if isinstance(reader, LogicalSource) else tuple(dict.fromkeys(reader.streams))

    def subtasks(self, vertex: str) -> list[SubtaskFacts]:
        """Of a vertex."""
        return [subtask for subtask in self.facts.subtasks if subtask.vertex == vertex]

    def steps(self, node: str) -> Iterator[StepFacts]:
        """A node's facts, of every subtask that has some."""
        return (step for subtask in self.facts.subtasks for step in subtask.steps if step.node == node)

    def totals(self, node: str) -> Totals:
        """Counts of a node."""
        steps = list(self.steps(node))
        return Totals(
            rows_in=sum(step.rows_in for step in steps),
            rows_out=sum(step.rows_out for step in steps),
            filtered=sum(step.filtered for step in steps),
            late=sum(step.late for step in steps),
            errors=sum(step.errors for step in steps),
            held=sum(step.held for step in steps),
        )

    def flows(self, node: str) -> bool:
        """Rows leave it now; where no rate is known, whether any have left."""
        if self.rates.known:
            return self.rates.rows_out.get(node, 0.0) > 0
        return self.totals(node).rows_out > 0

    def gave(self, node: str, amount: str) -> str:
        """`orders has read 500 rows`, in the word for a source, a step or a sink."""
        graph = self.logical
        verb = "has read" if node in graph.sources else "has given" if node in graph.steps else "has taken"
        return f"{node} {verb} {amount}"

    @cached_property
    def upstream(self) -> list[str]:
        """The node, then every node its rows come from, nearest first."""
        return self._upstream_of(self.node)

    def _upstream_of(self, node: str) -> list[str]:
        found = [node]
        for each in found:
            found += [ref.node for ref in self.reads(each) if ref.node not in found]
        return list(dict.fromkeys(found))

    def sources_of(self, node: str) -> set[str]:
        """Sources that rows of a node come from."""
        return {each for each in self._upstream_of(node) if each in self.logical.sources}

    @cached_property
    def upstream_vertices(self) -> list[Vertex]:
        """The chains of `upstream`, nearest first."""
        return list({self.vertex_of(node).name: self.vertex_of(node) for node in self.upstream}.values())

    @cached_property
    def readers(self) -> list[SourceFacts]:
        """Source subtasks that rows of the node come from."""
        sources = set(self.upstream)
        return [s.source for s in self.facts.subtasks if s.source is not None and s.source.source in sources]

    def timed_sources(self, node: str) -> list[str]:
        """Sources with event time whose watermark reaches a node. Streams of errors carry none."""
        found = [node]
        for each in found:
            found += [ref.node for ref in self.reads(each) if ref.tag != "errors" and ref.node not in found]
        sources = self.logical.sources
        return [each for each in dict.fromkeys(found) if each in sources and sources[each].event_time is not None]

    def live_splits(self, sources: Iterable[str]) -> list[tuple[SourceFacts, SplitFacts]]:
        """Splits that hold the watermark of these sources."""
        names = set(sources)
        return [
            (subtask.source, split)
            for subtask in self.facts.subtasks
            if subtask.source is not None and subtask.source.source in names
            for split in subtask.source.splits
            if not split.idle and not split.finished
        ]

    def watermark_in(self, vertex: str) -> int:
        """What a vertex has been promised: least over its subtasks and their inputs that count."""
        return min((input_watermark(subtask) for subtask in self.subtasks(vertex)), default=WATERMARK_MIN)

    def field_of(self, node: str) -> str:
        """Where the file speaks of a node: `steps.revenue`; a part of a query is its step's."""
        if node in self.logical.sources:
            return f"sources.{node}"
        step = self.logical.steps.get(node)
        return f"sinks.{node}" if step is None else f"steps.{step.query or node}"

    def moment(self, time_ms: int) -> str:
        """A time of day; a window's last millisecond is told as the end of the window."""
        end = time_ms + 1 if known(time_ms) and time_ms % 1000 == 999 else time_ms
        return moment(end, self.facts.taken_ms)

    def split_word(self, source: str) -> str:
        """What the outside calls a split."""
        return {"kafka": "partition", "file": "file"}.get(self.logical.sources[source].config.type, "split")


def input_watermark(subtask: SubtaskFacts) -> int:
    """The watermark at the way in of a subtask: least over its live inputs, or of its source."""
    if subtask.source is not None:
        return subtask.watermark
    live = [each.watermark for each in subtask.inputs if not each.idle]
    return min(live, default=subtask.watermark)


def known(watermark: int) -> bool:
    """Whether it is a moment at all: neither before the first row, nor the end of input."""
    return WATERMARK_MIN < watermark < WATERMARK_MAX
