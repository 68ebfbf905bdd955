"""Rates out of facts that are taken now and then: rows a second, and how fast event time moves.

A `RateWindow` belongs to one pipeline; whoever looks at that gives it facts every second or so. Counts that
shrink (a new attempt counts from zero) begin a new window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar, get_args

from operators.element import WATERMARK_MAX, WATERMARK_MIN
from streamproc.observability.facts import JobFacts

WINDOW_S: Final = 10.0
_SPAN_S_MIN: Final = 0.2  # two looks closer together than this say nothing of a rate
_Count = Literal["rows_in", "rows_out", "late", "errors", "filtered"]
_COUNTS: Final[tuple[_Count, ...]] = get_args(_Count)
_Name = TypeVar("_Name", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Rates:
    """Over the last `span_s` seconds (0: nothing is known yet). Rows a second in and out, late, bad and left out by
    node, and by (stream, downstream vertex); `pace`: ms of event time a second, by vertex, of its slowest subtask."""

    span_s: float = 0.0
    rows_in: Mapping[str, float] = field(default_factory=dict)
    rows_out: Mapping[str, float] = field(default_factory=dict)
    late: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    filtered: Mapping[str, float] = field(default_factory=dict)
    edges: Mapping[tuple[str, str], float] = field(default_factory=dict)
    pace: Mapping[str, float] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether there is a rate at all."""
        return self.span_s > 0


@dataclass(frozen=True, slots=True)
class _Look:
    """Totals at one moment."""

    taken_ms: int
    nodes: Mapping[_Count, Mapping[str, int]]
    edges: Mapping[tuple[str, str], int]
    watermarks: Mapping[str, int]


class RateWindow:
    """Looks of the last ten seconds or so."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_ms = window_s * 1000
        self._looks: deque[_Look] = deque()

    def sample(self, facts: JobFacts | None) -> None:
        """Another look; None (the job does not run) forgets what was before."""
        if facts is None:
            self._looks.clear()
            return
        look = _look(facts)
        if self._looks and not _follows(look, self._looks[-1]):
            self._looks.clear()
        self._looks.append(look)
        # The oldest is kept until the next one is as old as the window: so rare looks give rates, too.
        while len(self._looks) > 2 and look.taken_ms - self._looks[1].taken_ms >= self._window_ms:
            self._looks.popleft()

    def rates(self) -> Rates:
        """From the oldest look to the newest."""
        if len(self._looks) < 2:
            return Rates()
        old, new = self._looks[0], self._looks[-1]
        span_s = (new.taken_ms - old.taken_ms) / 1000
        if span_s < _SPAN_S_MIN:
            return Rates()
        nodes = {name: _per_second(old.nodes[name], new.nodes[name], span_s) for name in _COUNTS}
        return Rates(
            span_s,
            **nodes,
            edges=_per_second(old.edges, new.edges, span_s),
            pace={
                vertex: (watermark - old.watermarks[vertex]) / span_s
                for vertex, watermark in new.watermarks.items()
                if vertex in old.watermarks
            },
        )


def _look(facts: JobFacts) -> _Look:
    nodes: dict[_Count, dict[str, int]] = {name: {} for name in _COUNTS}
    edges: dict[tuple[str, str], int] = {}
    watermarks: dict[str, int] = {}
    for subtask in facts.subtasks:
        for step in subtask.steps:
            for name, counted in nodes.items():
                counted[step.node] = counted.get(step.node, 0) + getattr(step, name)
        for edge, rows in subtask.edge_rows.items():
            edges[edge] = edges.get(edge, 0) + rows
        watermarks[subtask.vertex] = min(watermarks.get(subtask.vertex, subtask.watermark), subtask.watermark)
    moving = {vertex: time for vertex, time in watermarks.items() if WATERMARK_MIN < time < WATERMARK_MAX}
    return _Look(facts.taken_ms, nodes, edges, moving)


def _follows(look: _Look, before: _Look) -> bool:
    return look.taken_ms >= before.taken_ms and all(
        look.nodes[name].get(node, 0) >= count for name in _COUNTS for node, count in before.nodes[name].items()
    )


def _per_second(old: Mapping[_Name, int], new: Mapping[_Name, int], span_s: float) -> dict[_Name, float]:
    return {name: (count - old.get(name, 0)) / span_s for name, count in new.items()}
