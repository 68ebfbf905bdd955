"""Running jobs as a few words: a pipeline file, and facts of its subtasks that are as quiet as nothing else is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from operators.connector import SplitId
from operators.element import WATERMARK_MIN, EventTimeMs
from streamproc.diagnosis.why import why
from streamproc.observability.facts import (
    Doing,
    InputFacts,
    JobFacts,
    Lateness,
    SourceFacts,
    SplitFacts,
    StepFacts,
    SubtaskFacts,
)
from streamproc.observability.rates import Rates
from streamproc.observability.status import JobStatus
from streamproc.pipeline.physical import PhysicalGraph, plan_physical
from streamproc.service.views import WhyView
from tests.unit.pipeline.files import graph_of

SHOP = """\
version: 1
pipeline: shop
sources:
  orders:
    type: kafka
    brokers: ["kafka:9092"]
    topic: orders
    errors: skip
    schema: {id: int64, country: string, amount: float64, at: timestamp_ms}
    event_time: {column: at, out_of_order: 10s}
steps:
  big: {input: orders, where: amount > 100}
  revenue:
    input: big
    key: [country]
    window: {tumble: 1m}
    aggregate: {eur: sum(amount)}
sinks:
  out: {type: blackhole, input: revenue}
"""


def at(text: str) -> EventTimeMs:
    """`12:00:05` of the first day of 2026."""
    return EventTimeMs(int(datetime.fromisoformat(f"2026-01-01T{text}+00:00").timestamp() * 1000))


NOW = at("12:05:00")


@lru_cache
def plan(text: str = SHOP) -> PhysicalGraph:
    """The graph of a file."""
    return plan_physical(graph_of(text))


def split(name: str, watermark: str | None = "12:00:00", silent_s: float = 0.0, **more: Any) -> SplitFacts:
    """One split; None: it has brought no row yet."""
    time = WATERMARK_MIN if watermark is None else at(watermark)
    given: dict[str, Any] = {"idle": False, "finished": False, "position": {}, **more}
    return SplitFacts(split=SplitId(name), watermark=time, silent_s=silent_s, **given)


def source(name: str, *splits: SplitFacts, **more: Any) -> SourceFacts:
    """A reader that has caught up."""
    given: dict[str, Any] = {
        "out_of_order_ms": 10_000,
        "idle_after_ms": None,
        "lag_records": 0,
        "listening": True,
        "bounded": False,
        "lateness": None,
        **more,
    }
    return SourceFacts(source=name, splits=splits, **given)


def step(node: str, rows_in: int = 0, rows_out: int = 0, **more: Any) -> StepFacts:
    """What went through a node."""
    given: dict[str, Any] = {"filtered": 0, "late": 0, "errors": 0, "held": 0, **more}
    return StepFacts(node=node, rows_in=rows_in, rows_out=rows_out, **given)


def inlet(upstream: str, watermark: str | None = "12:00:00", index: int = 0, **more: Any) -> InputFacts:
    """An input channel that is empty."""
    given: dict[str, Any] = {"port": 0, "idle": False, "rows_waiting": 0, "held_back": False, **more}
    time = WATERMARK_MIN if watermark is None else at(watermark)
    return InputFacts(upstream=upstream, index=index, watermark=time, **given)


def subtask(
    vertex: str,
    *steps: StepFacts,
    watermark: EventTimeMs | None = None,
    doing: Doing = "waiting for input",
    doing_s: float = 0.1,
    **more: Any,
) -> SubtaskFacts:
    """A subtask that waits for input."""
    given: dict[str, Any] = {
        "index": 0,
        "nodes": tuple(s.node for s in steps) or (vertex,),
        "toward": None,
        "busy": 0.1,
        "backpressured": 0.0,
        "idle": 0.9,
        "source": None,
        "inputs": (),
        "edge_rows": {},
        **more,
    }
    reader: SourceFacts | None = given["source"]
    if watermark is None and reader is not None:
        live = [s.watermark for s in reader.splits if not s.idle and not s.finished]
        watermark = min(live, default=WATERMARK_MIN)
    if watermark is None:
        watermark = min((i.watermark for i in given["inputs"] if not i.idle), default=WATERMARK_MIN)
    return SubtaskFacts(vertex=vertex, steps=steps, watermark=watermark, doing=doing, doing_s=doing_s, **given)


def job(*subtasks: SubtaskFacts, **more: Any) -> JobFacts:
    """At five past twelve."""
    return JobFacts("shop", NOW, subtasks, **more)


def running(**more: Any) -> JobStatus:
    """A status of a job that runs; its last checkpoint was completed three seconds ago."""
    return JobStatus("shop", **{"state": "running", "checkpoint": 7, "checkpoint_at": NOW / 1000 - 3, **more})


def rates(rows_out: Mapping[str, float] | None = None, **more: Any) -> Rates:
    """Over ten seconds."""
    return Rates(10.0, rows_out=rows_out or {}, **more)


def ask(
    facts: JobFacts | None,
    node: str,
    *,
    file: str = SHOP,
    status: JobStatus | None = None,
    flow: Rates | None = None,
) -> WhyView:
    """Why nothing comes out of `node`."""
    return why(facts, plan(file), status or running(), node, rates=flow)


def told(view: WhyView) -> str:
    """The findings, one a line, as `cause (node): words`."""
    return "\n".join(f"{f.cause} ({f.split or f.node or 'job'}): {f.says}" for f in view.findings)


def orders_quiet(*splits: SplitFacts, rows: int = 500, **more: Any) -> SubtaskFacts:
    """The chain orders → big of the shop, having brought `rows` rows of which half are big."""
    given = {"edge_rows": {("big", "revenue"): rows // 2}, "source": source("orders", *splits), **more}
    return subtask(
        "orders", step("orders", rows, rows), step("big", rows, rows // 2, filtered=rows - rows // 2), **given
    )


def revenue(watermark: str | None = "12:00:00", **more: Any) -> SubtaskFacts:
    """The chain revenue → out of the shop with a window open that ends at 12:01."""
    counted = {"held": 250, "next_close": EventTimeMs(at("12:01:00") - 1)} | more.pop("counted", {})
    given = {"inputs": (inlet("orders", watermark),), **more}
    return subtask("revenue", step("revenue", 250, **counted), step("out"), **given)


def with_lateness(subtask_facts: SubtaskFacts, lateness: Lateness) -> SubtaskFacts:
    """The same, with a histogram."""
    assert subtask_facts.source is not None
    return replace(subtask_facts, source=replace(subtask_facts.source, lateness=lateness))
