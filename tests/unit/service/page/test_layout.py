"""Whatever the graph: nothing on top of anything else, every edge forward."""

from __future__ import annotations

import re
from itertools import combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.service.page.layout import Box, Shape, lay_out


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Graphs as a planner makes them: what is in a chain reads the one before it and nothing else."""
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=7))
    nodes: list[tuple[str, str, bool]] = []
    edges: list[tuple[str, str]] = []
    for chain, length in enumerate(lengths):
        earlier = [name for name, *_ in nodes]
        head = f"c{chain}n0"
        if earlier:
            edges += [(up, head) for up in draw(st.lists(st.sampled_from(earlier), max_size=4))]
        for at in range(length):
            if at:
                edges.append((f"c{chain}n{at - 1}", f"c{chain}n{at}"))
            nodes.append((f"c{chain}n{at}", head, False))
    reading = {up for up, _ in edges}
    return Shape(
        tuple((name, head, name not in reading and any(down == name for _, down in edges)) for name, head, _ in nodes),
        tuple(edges),
    )


def apart(one: Box, other: Box) -> bool:
    return one.right < other.x or other.right < one.x or one.bottom < other.y or other.bottom < one.y


@settings(max_examples=60, deadline=None)
@given(shapes())
def test_nothing_overlaps_and_edges_go_forward(shape: Shape) -> None:
    drawn = lay_out(shape)
    assert set(drawn.nodes) == {name for name, *_ in shape.nodes}
    assert all(apart(one, other) for one, other in combinations(drawn.nodes.values(), 2))
    assert all(box.x >= 0 and box.right <= drawn.width for box in drawn.nodes.values())
    assert all(box.y >= 0 and box.bottom <= drawn.height for box in drawn.nodes.values())
    chain_of = {name: chain for name, chain, _ in shape.nodes}
    for chain, box in drawn.chains.items():
        strangers = [drawn.nodes[name] for name in drawn.nodes if chain_of[name] != chain]
        assert all(apart(box, stranger) for stranger in strangers)
    for (up, down), route in zip(shape.edges, drawn.routes, strict=True):
        assert route.start[0] == drawn.nodes[up].right
        assert route.end[0] == drawn.nodes[down].x
        assert route.start[0] < route.end[0]
        assert drawn.nodes[up].y < route.start[1] < drawn.nodes[up].bottom
        assert drawn.nodes[down].y < route.end[1] < drawn.nodes[down].bottom
    leaving = [route.start for route in drawn.routes]
    assert len(set(leaving)) == len(leaving), "texts of edges would be on top of each other"


@settings(max_examples=60, deadline=None)
@given(shapes())
def test_no_line_runs_behind_a_node(shape: Shape) -> None:
    drawn = lay_out(shape)
    for route in drawn.routes:
        x, y = route.start
        for step in re.findall(r"H\d+|C[-\d ]+", route.path):
            numbers = [int(number) for number in re.findall(r"-?\d+", step)]
            to_x, to_y = (numbers[0], y) if step[0] == "H" else (numbers[4], numbers[5])
            if y == to_y:
                assert all(
                    not (box.y < y < box.bottom) or box.right <= x or to_x <= box.x for box in drawn.nodes.values()
                )
            else:
                assert all(box.right <= x or to_x <= box.x for box in drawn.nodes.values()), "it bends between columns"
            x, y = to_x, to_y


def test_a_chain_is_a_row_and_sinks_are_on_the_right() -> None:
    shape = Shape(
        (("orders", "orders", False), ("good", "orders", False), ("sums", "sums", False), ("dead", "dead", True)),
        (("orders", "good"), ("good", "sums"), ("orders", "dead")),
    )
    drawn = lay_out(shape)
    boxes = drawn.nodes
    assert boxes["orders"].y == boxes["good"].y
    assert boxes["orders"].x < boxes["good"].x < boxes["sums"].x == boxes["dead"].x
    assert list(drawn.chains) == ["orders"]
    assert lay_out(Shape((), ())).nodes == {}


def test_a_node_that_many_read_has_room_for_each() -> None:
    names = [f"reader-{turn}" for turn in range(12)]
    shape = Shape(
        (("all", "all", False), *((name, name, True) for name in names)), tuple(("all", name) for name in names)
    )
    starts = sorted(route.start[1] for route in lay_out(shape).routes)
    assert min(b - a for a, b in pairwise(starts)) >= 20
