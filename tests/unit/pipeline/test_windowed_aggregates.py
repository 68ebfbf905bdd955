"""Aggregates over windows as planned: which operator, what it reads, what leaves it, and what is wrong with one."""
# ruff: noqa: E501 — a message stands on one line, as a user reads it

from __future__ import annotations

from inline_snapshot import snapshot

from operators.operator import OperatorSpec
from operators.session import SessionAggregateSpec
from operators.slices import Window
from operators.window import CARRIED, WindowAggregateSpec
from streamproc.pipeline.logical import Changelog, LogicalGraph
from tests.unit.pipeline.files import faults, graph_of, of_steps


def only_operator(graph: LogicalGraph, step: str) -> OperatorSpec:
    [operator] = graph.steps[step].operators
    return operator


def test_a_session_that_emits_by_period_is_a_changelog_of_key_and_window() -> None:
    graph = graph_of(
        of_steps("""
        result: {input: orders, key: [country], window: {session: 30s}, aggregate: {n: count(*)}, emit: {every: 10s}}
    """)
    )
    operator = only_operator(graph, "result")
    assert isinstance(operator, SessionAggregateSpec)
    assert (operator.gap_ms, operator.update_every_ms) == (30_000, 10_000)
    assert graph.steps["result"].changelog == Changelog(("country", "window_start", "window_end"))


def test_cumulating_windows_and_the_windows_they_give() -> None:
    graph = graph_of(
        of_steps("""
        growing: {input: orders, key: [country], window: {cumulate: {size: 1h, every: 1m}, offset: 30s}, aggregate: {n: count(*), s: sum(amount)}, late: {accept_for: 5m}}
        result: {input: growing, window: input, aggregate: {n: max(n)}, emit: on_update}
    """)
    )
    growing, result = only_operator(graph, "growing"), only_operator(graph, "result")
    assert isinstance(growing, WindowAggregateSpec)
    assert growing.window == Window(3_600_000, 60_000, 30_000, cumulates=True)
    assert (growing.accept_for_ms, growing.update_every_ms) == (300_000, None)
    assert graph.steps["growing"].changelog is None
    assert isinstance(result, WindowAggregateSpec)
    assert result.carried
    assert (result.window, result.update_every_ms) == (CARRIED, 0)
    assert list(result.input_schema) == ["window_start", "window_end", "n"]
    assert graph.steps["result"].changelog == Changelog(("window_start", "window_end"))


def test_late_rows_leave_with_all_their_columns() -> None:
    graph = graph_of(
        of_steps("""
        lengths: {input: orders, key: [country], window: {session: 30s}, aggregate: {n: count(*)}, late: {then: side_output}}
        result: {input: lengths.late}
    """)
    )
    assert list(graph.steps["result"].schema) == ["id", "country", "amount", "tags", "at"]


def test_faults_of_windows() -> None:
    text = of_steps("""
        a: {input: orders, window: {session: 0s}, aggregate: {n: count(*)}}
        b: {input: orders, window: {session: 10s, offset: 1s}, aggregate: {n: count(*)}}
        c: {input: orders, window: {cumulate: {size: 1h, every: 7m}}, aggregate: {n: count(*)}}
        d: {input: orders, window: {cumulate: {size: 1m, every: 2m}}, aggregate: {n: count(*)}}
        e: {input: orders, window: {session: 10s, tumble: 1m}, aggregate: {n: count(*)}}
        f: {input: orders, window: input, aggregate: {n: count(*)}}
        g: {input: orders, window: inputs, aggregate: {n: count(*)}}
        h: {input: orders, window: {cumulate: {size: 1h}}, aggregate: {n: count(*)}}
        i: {input: orders, window: {tumble: 1m}, aggregate: {n: count(*)}, emit: {every: 0s}}
        j: {input: orders, window: {tumble: 1m}, aggregate: {n: count(*)}, emit: on_updates}
        result: {input: [a, b, c, d, e, f, g, h, i, j]}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:10:40: steps.a.window.session: '0s': this duration must be more than zero",
            "shop.yaml:11:53: steps.b.window.offset: a session begins with its first row: it has no offset",
            "shop.yaml:12:59: steps.c.window.cumulate.every: the size (1h) is not a whole number of 7m",
            "shop.yaml:13:59: steps.d.window.cumulate.every: 2m is more than the size (1m): there would be no window",
            "shop.yaml:14:22: steps.e.window: has both 'tumble' and 'session': give one",
            "shop.yaml:15:30: steps.f.window: the input carries no windows: it has no column 'window_start' and 'window_end'; they come from a step with a window; keep both columns in its `select`",
            "shop.yaml:16:30: steps.g.window: must be input or a mapping {tumble: …, hop: …, …}, not the text 'inputs'; did you mean 'input'?",
            "shop.yaml:17:31: steps.h.window.cumulate: 'every' is missing",
            "shop.yaml:18:84: steps.i.emit.every: '0s': this duration must be more than zero",
            "shop.yaml:19:76: steps.j.emit: must be on_close, on_update or a mapping {every: …}, not the text 'on_updates'; did you mean 'on_update'?",
        ]
    )


def test_a_window_does_not_take_rows_that_are_taken_back() -> None:
    text = of_steps("""
        often: {input: orders, key: [country], window: {hop: {size: 1h, every: 1m}}, aggregate: {n: count(*)}, emit: on_update}
        result: {input: often, window: input, aggregate: {n: max(n)}}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:11:26: steps.result.window: a window cannot read 'often': its rows are updated and taken back; aggregate it without a window"
        ]
    )


def test_windows_that_were_renamed_away_are_not_carried() -> None:
    text = of_steps("""
        counts: {input: orders, key: [country], window: {tumble: 1m}, aggregate: {n: count(*)}, select: {country: country, window_start: "country", n: n}}
        result: {input: counts, window: input, aggregate: {n: max(n)}}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:11:35: steps.result.window: the input carries no windows: it has no column 'window_end'; they come from a step with a window; keep both columns in its `select`"
        ]
    )
