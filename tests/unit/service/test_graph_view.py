"""The job graph as people look at it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from inline_snapshot import snapshot

from operators.element import WATERMARK_MAX, WATERMARK_MIN, EventTimeMs
from streamproc.service.graph_view import event_moment, graph_view
from tests.unit.diagnosis.situations import SHOP, inlet, job, orders_quiet, plan, rates, source, split, step, subtask

LATE = SHOP.replace("aggregate: {eur: sum(amount)}", "aggregate: {eur: sum(amount)}\n    late: {then: side_output}")
LATE += "  late: {type: blackhole, input: revenue.late}\n"


def test_nodes_and_edges_of_a_pipeline_that_does_not_run() -> None:
    view = graph_view(plan(LATE), None)
    assert not view.live
    assert [(n.kind, n.name, n.chain, n.does) for n in view.nodes] == snapshot(
        [
            (
                "source",
                "orders",
                "orders",
                (
                    "Kafka topic orders from earliest",
                    "event time at; the watermark is max(at) − 10s of each partition, the least counts",
                ),
            ),
            ("step", "big", "orders", ("where amount > 100",)),
            ("step", "revenue", "revenue", ("window tumble 1m by country", "eur = sum(amount)")),
            ("sink", "out", "revenue", ("writes nowhere",)),
            ("sink", "late", "late", ("writes nowhere",)),
        ]
    )
    assert [(e.upstream, e.stream, e.downstream, e.exchange, e.key) for e in view.edges] == snapshot(
        [
            ("orders", "orders", "big", None, ()),
            ("big", "big", "revenue", "hash", ("country",)),
            ("revenue", "revenue", "out", None, ()),
            ("revenue", "revenue.late", "late", "forward", ()),
        ]
    )


def test_a_pipeline_that_runs() -> None:
    orders = orders_quiet(source=source("orders", split("orders-0", "12:04:00"), lag_records=70), busy=0.5, idle=0.5)
    also = orders_quiet(source=source("orders", split("orders-1", "12:03:00"), lag_records=30), busy=0.1, idle=0.9)
    down = subtask(
        "revenue",
        step("revenue", 500, 40, late=3, state_bytes=4096),
        step("out", 40, 40),
        inputs=(inlet("orders", "12:03:00", rows_waiting=12),),
    )
    flow = rates({"orders": 100.0, "out": 4.0}, rows_in={"orders": 100.0}, edges={("big", "revenue"): 50.0})
    view = graph_view(plan(), job(orders, also, down), flow)
    assert view.live
    nodes = {node.name: node for node in view.nodes}
    first, second, out = nodes["orders"], nodes["revenue"], nodes["out"]
    assert (first.records_in, first.records_in_per_second, first.source_lag_records) == (1000, 100.0, 100)
    assert (round(first.busy, 6), round(first.idle, 6), first.input_rows_waiting) == (0.3, 0.7, None)
    assert (second.late_records, second.state_bytes, second.input_rows_waiting) == (3, 4096, 12)
    assert (second.watermark, second.watermark_lag_seconds) == (datetime(2026, 1, 1, 12, 3, tzinfo=UTC), 120.0)
    assert (out.chain, out.records_in, out.records_out_per_second, out.input_rows_waiting) == ("revenue", 40, 4.0, None)
    assert {(e.upstream, e.downstream): e.records_per_second for e in view.edges} == {
        ("orders", "big"): 100.0,
        ("big", "revenue"): 50.0,
        ("revenue", "out"): 0.0,
    }


def test_rates_of_before_count_for_nothing_when_the_pipeline_has_stopped() -> None:
    view = graph_view(plan(), None, rates({"orders": 100.0}))
    assert {node.records_out_per_second for node in view.nodes} == {0.0}


def test_a_computed_key_is_told_as_the_file_says_it() -> None:
    view = graph_view(plan(SHOP.replace("key: [country]", "key: []")), None)
    assert [e.key for e in view.edges if e.exchange == "hash"] == [()]


@pytest.mark.parametrize("time", [WATERMARK_MIN, WATERMARK_MAX, EventTimeMs(10**15)])
def test_a_watermark_that_is_no_moment(time: EventTimeMs) -> None:
    assert event_moment(time) is None
