"""Where the nodes and edges of a job graph are drawn: sources left, sinks right, every edge forward, nothing
on top of anything else. Pure; the same graph always comes out the same.

Columns are longest paths. A chain lies in one row across its columns; an edge that passes columns by gets a track of
its own there, so no line runs behind a node. Rows are found by placing chains and tracks from the top in
some order, each as high as it goes: whatever the order, nothing overlaps. The order is then improved.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

NODE_WIDTH: Final = 178
NODE_HEIGHT: Final = 104
COLUMN_GAP: Final = 62
ROW_GAP: Final = 26
CHAIN_PADDING: Final = 9
MARGIN: Final = 12
PORT_GAP: Final = 22  # room for the text on an edge
_TRACK_HEIGHT: Final = 14
_ROUNDS: Final = 10

_COLUMN: Final = NODE_WIDTH + COLUMN_GAP


@dataclass(frozen=True, slots=True)
class Shape:
    """What the layout needs to know of a graph: (name, chain, whether a sink) of its nodes, in an order where rows
    flow forward; (upstream, downstream) of its edges."""

    nodes: tuple[tuple[str, str, bool], ...]
    edges: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; y grows downwards."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def bottom(self) -> int:
        return self.y + self.height

    @property
    def middle(self) -> int:
        return self.y + self.height // 2


@dataclass(frozen=True, slots=True)
class Route:
    """How an edge is drawn: an SVG path, its ends, and where its text begins (on the line's upper side)."""

    path: str
    start: tuple[int, int]
    end: tuple[int, int]
    text: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Layout:
    """Boxes by node; boxes of the chains of several nodes; routes in the order of the shape's edges."""

    width: int
    height: int
    nodes: Mapping[str, Box]
    chains: Mapping[str, Box]
    routes: tuple[Route, ...]


@dataclass(slots=True)
class _Strip:
    """A chain, or a track of an edge that passes columns by: what takes up [first, last] columns at one height."""

    first: int
    last: int
    height: int
    members: tuple[str, ...] = ()
    y: int = 0

    @property
    def middle(self) -> int:
        return self.y + self.height // 2

    def shares_columns(self, other: _Strip) -> bool:
        return self.first <= other.last and other.first <= self.last


@lru_cache(maxsize=256)
def lay_out(shape: Shape) -> Layout:
    """The drawing of one graph, in pixels."""
    return _Drawing(shape).layout()


class _Drawing:
    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._chains = _chains(shape)
        self._chain_of = {name: chain for chain, members in self._chains.items() for name in members}
        self._column = self._columns()
        self._outgoing: dict[str, list[int]] = defaultdict(list)  # edges that leave their chain
        self._incoming: dict[str, list[int]] = defaultdict(list)
        for at, (upstream, downstream) in enumerate(shape.edges):
            if not self._within_chain(at):
                self._outgoing[upstream].append(at)
                self._incoming[downstream].append(at)
        self._strips: dict[str, _Strip] = {}
        self._tracks: dict[int, _Strip] = {}
        self._make_strips()

    def layout(self) -> Layout:
        strips = [*self._strips.values(), *self._tracks.values()]
        _arrange(strips, self._links())
        nodes, chains = {}, {}
        for chain, strip in self._strips.items():
            padding = CHAIN_PADDING if len(strip.members) > 1 else 0
            for name in strip.members:
                x = MARGIN + self._column[name] * _COLUMN
                nodes[name] = Box(x, MARGIN + strip.y + padding, NODE_WIDTH, strip.height - 2 * padding)
            if padding:
                first, last = nodes[strip.members[0]], nodes[strip.members[-1]]
                width = last.right - first.x + 2 * padding
                chains[chain] = Box(first.x - padding, first.y - padding, width, strip.height)
        routes = self._routes(nodes)
        width = max((box.right for box in nodes.values()), default=0) + MARGIN
        height = max((MARGIN + strip.y + strip.height for strip in strips), default=0) + MARGIN
        return Layout(width, height, nodes, chains, routes)

    def _within_chain(self, edge: int) -> bool:
        """Whether the edge joins neighbours of one chain."""
        upstream, downstream = self._shape.edges[edge]
        members = self._chains[self._chain_of[upstream]]
        return (upstream, downstream) in set(pairwise(members))

    def _columns(self) -> dict[str, int]:
        """Longest paths: behind everything it reads. Lone sinks share the last column."""
        place = {name: at for members in self._chains.values() for at, name in enumerate(members)}
        starts: dict[str, int] = {}
        for chain in self._chain_order():
            edges = [
                starts[self._chain_of[up]] + place[up] + 1 - place[down]
                for up, down in self._shape.edges
                if self._chain_of[down] == chain and self._chain_of[up] in starts
            ]
            starts[chain] = max([0, *edges])
        columns = {name: starts[self._chain_of[name]] + at for name, at in place.items()}
        last = max(columns.values(), default=0)
        for name, chain, is_sink in self._shape.nodes:
            if is_sink and len(self._chains[chain]) == 1:
                columns[name] = last
        return columns

    def _chain_order(self) -> list[str]:
        """Chains, each behind those it reads."""
        reads: dict[str, set[str]] = {chain: set() for chain in self._chains}
        for up, down in self._shape.edges:
            if self._chain_of[up] != self._chain_of[down]:
                reads[self._chain_of[down]].add(self._chain_of[up])
        order: list[str] = []
        waiting = list(reads)
        while waiting:
            ready = next((chain for chain in waiting if reads[chain] <= set(order)), waiting[0])
            waiting.remove(ready)
            order.append(ready)
        return order

    def _make_strips(self) -> None:
        for chain, members in self._chains.items():
            ports = max(max(len(self._outgoing[name]) + 1, len(self._incoming[name])) for name in members)
            height = max(NODE_HEIGHT, (ports + 1) * PORT_GAP)
            height += 2 * CHAIN_PADDING if len(members) > 1 else 0
            self._strips[chain] = _Strip(self._column[members[0]], self._column[members[-1]], height, members)
        for at, (up, down) in enumerate(self._shape.edges):
            first, last = self._column[up] + 1, self._column[down] - 1
            if first <= last:
                self._tracks[at] = _Strip(first, last, _TRACK_HEIGHT)

    def _links(self) -> list[tuple[_Strip, _Strip]]:
        """Strips that want to be at one height."""
        links: list[tuple[_Strip, _Strip]] = []
        for at, (up, down) in enumerate(self._shape.edges):
            if self._within_chain(at):
                continue
            ends = [self._strips[self._chain_of[up]], self._strips[self._chain_of[down]]]
            through = [ends[0], *([self._tracks[at]] if at in self._tracks else []), ends[1]]
            links += pairwise(through)
        return links

    def _routes(self, nodes: Mapping[str, Box]) -> tuple[Route, ...]:
        leaves, enters = self._ports(nodes)
        return tuple(self._route(at, leaves[at], enters[at]) for at in range(len(self._shape.edges)))

    def _ports(self, nodes: Mapping[str, Box]) -> tuple[dict[int, tuple[int, int]], dict[int, tuple[int, int]]]:
        """Where each edge leaves its node and enters the next; in the order of where they go, so as not to cross."""
        leaves: dict[int, tuple[int, int]] = {}
        enters: dict[int, tuple[int, int]] = {}

        def toward(edge: int, end: int) -> int:
            track = self._tracks.get(edge)
            return MARGIN + track.middle if track else nodes[self._shape.edges[edge][end]].middle

        for name, box in nodes.items():
            out = sorted(self._outgoing[name], key=lambda edge: toward(edge, 1))
            inner = [at for at, edge in enumerate(self._shape.edges) if edge[0] == name and self._within_chain(at)]
            top = box.bottom - len(out) * PORT_GAP if inner else box.middle - (len(out) - 1) * PORT_GAP // 2
            for at in inner:  # straight on; the others leave below
                line = min(box.middle, top - PORT_GAP) if out else box.middle
                leaves[at], enters[at] = (box.right, line), (box.right + COLUMN_GAP, line)
            for turn, edge in enumerate(out):
                leaves[edge] = (box.right, top + turn * PORT_GAP)
            into = sorted(self._incoming[name], key=lambda edge: toward(edge, 0))
            step = min(PORT_GAP, box.height // (len(into) + 1))
            for turn, edge in enumerate(into):
                enters[edge] = (box.x, box.middle - (len(into) - 1) * step // 2 + turn * step)
        return leaves, enters

    def _route(self, edge: int, start: tuple[int, int], end: tuple[int, int]) -> Route:
        points = [start]
        if (track := self._tracks.get(edge)) is not None:
            y = MARGIN + track.middle
            points.append((MARGIN + track.first * _COLUMN, y))
            points.append((MARGIN + track.last * _COLUMN + NODE_WIDTH, y))
        points.append(end)
        path = f"M{start[0]} {start[1]}"
        for (x0, y0), (x1, y1) in pairwise(points):
            bend = (x1 - x0) * 3 // 5
            path += f" H{x1}" if y0 == y1 else f" C{x0 + bend} {y0} {x1 - bend} {y1} {x1} {y1}"
        return Route(path, start, end, (start[0] + 8, start[1] - 5))


def _chains(shape: Shape) -> dict[str, tuple[str, ...]]:
    """Nodes of each chain in the order of their edges."""
    members: dict[str, list[str]] = defaultdict(list)
    for name, chain, _ in shape.nodes:
        members[chain].append(name)
    ordered: dict[str, tuple[str, ...]] = {}
    for chain, names in members.items():
        inside = {down for up, down in shape.edges if up in names and down in names}
        heads = [name for name in names if name not in inside] or names[:1]
        line = heads[:]
        for name in line:  # grows as it is walked
            line += [down for up, down in shape.edges if up == name and down in names and down not in line]
        ordered[chain] = tuple(line + [name for name in names if name not in line])
    return ordered


def _arrange(strips: Sequence[_Strip], links: Sequence[tuple[_Strip, _Strip]]) -> None:
    """Give each strip its y: the best of some orders, then each as near to its neighbours as its room allows."""
    neighbours: dict[int, list[_Strip]] = defaultdict(list)
    for one, other in links:
        neighbours[id(one)].append(other)
        neighbours[id(other)].append(one)

    def wanted(strip: _Strip) -> float:
        near = neighbours[id(strip)]
        return sum(each.middle for each in near) / len(near) - strip.height / 2 if near else strip.y

    def length() -> int:
        return sum(abs(one.middle - other.middle) for one, other in links)

    best: list[int] = []
    best_length = 0
    for order in (list(strips), _along_the_flow(strips, links)):
        for _ in range(_ROUNDS):
            _stack(order)
            _relax(order, wanted)
            if not best or length() < best_length:
                best, best_length = [strip.y for strip in strips], length()
            order.sort(key=wanted)
    for strip, y in zip(strips, best, strict=True):
        strip.y = y
    _relax(sorted(strips, key=lambda strip: strip.y), wanted)
    top = min((strip.y for strip in strips), default=0)
    for strip in strips:
        strip.y -= top


def _along_the_flow(strips: Sequence[_Strip], links: Sequence[tuple[_Strip, _Strip]]) -> list[_Strip]:
    """Each followed by what reads it, and so on."""
    readers: dict[int, list[_Strip]] = defaultdict(list)
    for one, other in links:
        readers[id(one)].append(other)
    read = {id(other) for _, other in links}
    order: list[_Strip] = []
    reading = [strip for strip in strips if id(strip) in read]
    waiting = [
        *reversed(reading),
        *(strip for strip in reversed(strips) if id(strip) not in read),
    ]  # taken from the end
    seen: set[int] = set()
    while waiting:
        strip = waiting.pop()
        if id(strip) not in seen:
            seen.add(id(strip))
            order.append(strip)
            waiting += reversed(readers[id(strip)])
    return order


def _stack(order: Sequence[_Strip]) -> None:
    """Each as high as it goes below those before it."""
    reached: dict[int, int] = defaultdict(int)
    for strip in order:
        columns = range(strip.first, strip.last + 1)
        strip.y = max(reached[column] for column in columns)
        for column in columns:
            reached[column] = strip.y + strip.height + ROW_GAP


def _relax(order: Sequence[_Strip], wanted: Callable[[_Strip], float]) -> None:
    """Move strips toward where they want to be, never past a neighbour."""
    by_height = sorted(order, key=lambda strip: strip.y)
    for each_way in (reversed(by_height), by_height, reversed(by_height)):
        for strip in each_way:
            others = [other for other in by_height if other is not strip and other.shares_columns(strip)]
            low = [other.y - ROW_GAP - strip.height for other in others if other.y > strip.y]
            high = [other.y + other.height + ROW_GAP for other in others if other.y < strip.y]
            y = round(wanted(strip))
            if high:
                y = max(y, max(high))
            if low:
                y = min(y, min(low))
            strip.y = y
