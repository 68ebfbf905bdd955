"""Chains and exchanges: what shares a subtask, and what runs between subtasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from streamproc.pipeline.physical import PhysicalGraph, plan_physical
from streamproc.pipeline.planner import load_pipeline

HEAD = """
version: 1
pipeline: p
job: {parallelism: 2}
sources:
  a:
    type: datagen
    rows: 10
    columns: {k: {sequence: {start: 0}}, t: {time: {start: "2026-01-01T00:00:00Z", step: 1s}}}
    event_time: {column: t}
"""


Plan = Callable[[str], PhysicalGraph]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    def plan(text: str) -> PhysicalGraph:
        file = tmp_path / "p.yaml"
        file.write_text(HEAD + text)
        return plan_physical(load_pipeline(file))

    return plan


def shape(graph: PhysicalGraph) -> dict[str, list[tuple[str, str]]]:
    """Vertex (its nodes) → its edges (exchange, downstream)."""
    return {
        "+".join(vertex.nodes): [(edge.exchange, edge.downstream) for edge in vertex.edges] for vertex in graph.vertices
    }


def test_what_is_read_once_at_the_same_parallelism_is_chained(plan: Plan) -> None:
    graph = plan(
        """
steps:
  b: {input: a, where: k > 1}
  c: {input: b, add: {l: k + 1}}
sinks:
  out: {type: blackhole, input: c}
"""
    )
    assert shape(graph) == {"a+b+c+out": []}


def test_a_key_brings_an_exchange_and_what_narrows_rows_stays_with_the_sender(plan: Plan) -> None:
    graph = plan(
        """
steps:
  sums: {input: a, where: k > 1, key: [k], window: {tumble: 10s}, aggregate: {n: count(*)}}
sinks:
  out: {type: blackhole, input: sums}
"""
    )
    assert shape(graph) == {"a": [("hash", "sums")], "sums+out": []}
    [edge] = graph.vertex("a").edges
    assert edge.key == ("k",)
    assert edge.before
    assert not any(stage.spec.stateful for stage in edge.before)
    assert [stage.spec.stateful for stage in graph.vertex("sums").stages] == [True]


def test_two_readers_break_the_chain_and_other_parallelism_rebalances(plan: Plan) -> None:
    graph = plan(
        """
steps:
  b: {input: a, where: k > 1}
sinks:
  one: {type: blackhole, input: b}
  two: {type: blackhole, input: b, parallelism: 1}
"""
    )
    assert shape(graph) == {"a+b": [("forward", "one"), ("rebalance", "two")], "one": [], "two": []}


def test_side_outputs_and_unions_are_edges(plan: Plan) -> None:
    graph = plan(
        """
steps:
  sums: {input: a, key: [k], window: {tumble: 10s}, aggregate: {n: count(*)}, late: {then: side_output}}
  late: {input: sums.late, select: [k, t]}
  all: {input: [late, a], where: k > 0, select: [k, t]}
sinks:
  out: {type: blackhole, input: sums}
  rest: {type: blackhole, input: all}
"""
    )
    assert shape(graph) == {
        "a": [("hash", "sums"), ("forward", "all")],
        "sums+out": [("forward", "late")],
        "late": [("forward", "all")],
        "all+rest": [],
    }


def test_errors_of_what_runs_ahead_of_an_exchange_leave_from_there_too(plan: Plan) -> None:
    graph = plan(
        """
steps:
  b: {input: a, where: "cast(cast(k as string) as int64) > 1", deduplicate: {key: [k]}, errors: dlq}
sinks:
  out: {type: blackhole, input: b}
  dead: {type: blackhole, input: b.errors}
"""
    )
    assert shape(graph) == {"a": [("hash", "b"), ("forward", "dead")], "b+out": [("forward", "dead")], "dead": []}


@pytest.mark.parametrize(
    ("read", "meeting"),
    [
        ("s: {type: blackhole, input: [a, z]}", {"a": set(), "z": set()}),
        ("s: {type: blackhole, input: b}", {"a": {"a", "z"}, "z": {"a", "z"}}),
        ("s: {type: blackhole, input: c}", {"a": {"a"}, "z": set()}),
    ],
    ids=["a sink keeps nothing", "a join keeps rows of both", "one alone"],
)
def test_sources_meet_where_rows_are_kept(plan: Plan, read: str, meeting: dict[str, set[str]]) -> None:
    graph = plan(
        f"""
  z:
    type: datagen
    rows: 10
    columns: {{k: {{sequence: {{start: 0}}}}, t: {{time: {{start: "2026-01-01T00:00:00Z", step: 1s}}}}}}
    event_time: {{column: t}}
steps:
  b: {{join: {{left: a, right: z, match: left.k = right.k, within: [-1s, 1s]}}, select: {{k: left.k}}, errors: dlq}}
  c: {{input: a, deduplicate: {{key: [k]}}}}
sinks:
  {read}
  also: {{type: blackhole, input: z}}
  dead: {{type: blackhole, input: "*.errors"}}
"""
    )
    assert {name: graph.meeting_sources(name) for name in ("a", "z")} == meeting
