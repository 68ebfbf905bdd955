"""A job graph and its live figures as what the template draws: positions from `layout`, words from `wording`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from streamproc.service.page.layout import Box, Layout, Route, Shape, lay_out
from streamproc.service.page.wording import count, distance, moment, percent, rate, shortened
from streamproc.service.views import EdgeView, GraphView, NodeView

BAR_WIDTH: Final = 152
_NAME_CHARACTERS: Final = 16
_BUSY: Final = 0.8
_BACKPRESSURED: Final = 0.5

Load = Literal["still", "idle", "working", "busy", "backpressured"]
LOADS: Final[dict[Load, str]] = {
    "still": "not running",
    "idle": "idle",
    "working": "working",
    "busy": "busy",
    "backpressured": "backpressured",
}


@dataclass(frozen=True, slots=True)
class DrawnNode:
    """A node's card. `bars`: (class, x, width) of busy, backpressured and idle; `spoken`: all of it in a sentence."""

    node: NodeView
    box: Box
    label: str
    load: Load
    bars: tuple[tuple[str, int, int], ...]
    kind: str
    bad: str
    doing: str
    watermark: str
    spoken: str


@dataclass(frozen=True, slots=True)
class DrawnEdge:
    """An edge's line and its text."""

    edge: EdgeView
    route: Route
    text: str
    flows: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """A whole graph."""

    layout: Layout
    nodes: tuple[DrawnNode, ...]
    edges: tuple[DrawnEdge, ...]
    spoken: str  # the edges, in a sentence


def draw(graph: GraphView) -> Drawing:
    """What the template draws."""
    names = {node.name for node in graph.nodes}
    edges = [edge for edge in graph.edges if {edge.upstream, edge.downstream} <= names]
    shape = Shape(
        tuple((node.name, node.chain, node.kind == "sink") for node in graph.nodes),
        tuple((edge.upstream, edge.downstream) for edge in edges),
    )
    layout = lay_out(shape)
    return Drawing(
        layout,
        tuple(_node(node, layout.nodes[node.name], graph.live) for node in graph.nodes),
        tuple(_edge(edge, route, graph.live) for edge, route in zip(edges, layout.routes, strict=True)),
        "; ".join(f"{edge.stream} to {edge.downstream}" for edge in edges),
    )


def load(node: NodeView, live: bool) -> Load:
    """What its subtasks do most: one word."""
    if not live or not (node.busy or node.backpressured or node.idle):  # it has not begun: it connects, or restores
        return "still"
    if node.backpressured >= _BACKPRESSURED:
        return "backpressured"
    if node.busy >= _BUSY:
        return "busy"
    return "working" if node.records_in_per_second > 0 or node.records_out_per_second > 0 else "idle"


def _node(node: NodeView, box: Box, live: bool) -> DrawnNode:
    state = load(node, live)
    kind = node.kind if node.parallelism == 1 else f"{node.kind} ×{node.parallelism}"
    bad = [
        f"{count(number)} {what}"
        for number, what in ((node.error_records, "errors"), (node.late_records, "late"))
        if number
    ]
    spoken = f"{node.name}, {kind}, {LOADS[state]}"
    if live:
        shares = f"busy {percent(node.busy)}, backpressured {percent(node.backpressured)}, idle {percent(node.idle)}"
        spoken += f": {rate(node.records_in_per_second)} in, {rate(node.records_out_per_second)} out, {shares}"
    watermark = _watermark(node) if live else ""
    return DrawnNode(
        node,
        box,
        label=shortened(node.name, _NAME_CHARACTERS),
        load=state,
        bars=_bars(node) if live else (),
        kind=kind,
        bad=bad[0] if bad else "",
        doing=_doing(node, state),
        watermark=watermark,
        spoken=", ".join([spoken, *([watermark] if node.watermark_lag_seconds is not None and live else []), *bad])
        + ". Why?",
    )


def _doing(node: NodeView, state: Load) -> str:
    """The word, and its share where that is the point."""
    share = {"busy": node.busy, "backpressured": node.backpressured, "working": node.busy}.get(state)
    return LOADS[state] if share is None else f"{LOADS[state]} {percent(share)}"


def _watermark(node: NodeView) -> str:
    if node.watermark is None:
        return "no watermark"
    if node.watermark_lag_seconds is None:
        return f"watermark {moment(node.watermark)}"
    return f"watermark {distance(node.watermark_lag_seconds)}"


def _bars(node: NodeView) -> tuple[tuple[str, int, int], ...]:
    """Shares side by side, the whole bar at most."""
    bars, x = [], 0
    for kind, share in (("busy", node.busy), ("backpressured", node.backpressured), ("idle", node.idle)):
        width = min(BAR_WIDTH - x, round(max(0.0, share) * BAR_WIDTH))
        if width > 0:
            bars.append((kind, x, width))
            x += width
    return tuple(bars)


def _edge(edge: EdgeView, route: Route, live: bool) -> DrawnEdge:
    tag = edge.stream.removeprefix(f"{edge.upstream}").removeprefix(".")
    text = " ".join(part for part in (shortened(tag, 8), rate(edge.records_per_second) if live else "") if part)
    return DrawnEdge(edge, route, text, flows=live and edge.records_per_second > 0)
