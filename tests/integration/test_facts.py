"""What a running pipeline says of itself in situations that are known: facts, status and metrics agree with them."""

from __future__ import annotations

import asyncio
import json
import math
import re
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from operators.connector import Committable
from operators.element import WATERMARK_MIN
from streamproc.dataflow import compute
from streamproc.observability.facts import JobFacts, StepFacts, SubtaskFacts
from streamproc.observability.metrics import MetricRegistry, PipelineMetrics
from streamproc.observability.status import JobObserver, JobStatus
from streamproc.pipeline.logical import LogicalGraph, SuppliedSink
from streamproc.pipeline.planner import load_pipeline
from streamproc.runners.embedded import JobResult, RunOptions, run_pipeline
from tests.eventually import eventually

CLICKS = """\
version: 1
pipeline: clicks
job: {checkpoint: {every: 300ms, storage: "file:checkpoints"}, batch: {max_rows: 100}}
sources:
  clicks:
    type: file
    path: input/*.jsonl
    follow: true
    errors: skip
    schema: {id: int64, at: timestamp_ms}
    event_time: {column: at, out_of_order: 1s}
"""
MINUTES = """\
steps:
  minutes: {input: clicks, window: {tumble: 1m}, aggregate: {clicks: count(*)}}
sinks:
  out: {type: blackhole, input: minutes}
"""
NOON = 1_767_268_800_000


@dataclass
class Running:
    """A pipeline at work."""

    observer: JobObserver
    registry: MetricRegistry
    job: asyncio.Task[JobResult]
    options: RunOptions

    @property
    def facts(self) -> JobFacts:
        assert self.observer.facts is not None, self.job
        return self.observer.facts()

    def subtask(self, vertex: str) -> SubtaskFacts:
        return next(each for each in self.facts.subtasks if each.vertex == vertex)

    def step(self, node: str) -> StepFacts:
        """Of the subtask that the node runs in."""
        return next(s for each in self.facts.subtasks if node in each.nodes for s in each.steps if s.node == node)

    async def metric(self, name: str, step: str = "") -> float:
        """As scraped now; NaN where it is absent."""
        text = (await self.registry.scrape()).decode()
        of = f'[^}}]*step="{step}"[^}}]*' if step else "[^}]*"
        found = re.search(rf"^streamproc_{name}{{{of}}} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else math.nan


@asynccontextmanager
async def running(
    text: str, change: Callable[[LogicalGraph], LogicalGraph] = lambda graph: graph
) -> AsyncIterator[Running]:
    write_text("pipeline.yaml", text)
    graph = change(load_pipeline(Path("pipeline.yaml")))
    registry = MetricRegistry()
    observer = JobObserver(PipelineMetrics(registry, graph.pipeline), JobStatus(graph.pipeline))
    options = RunOptions(work_directory=Path("state"))
    job = asyncio.create_task(run_pipeline(graph, options, observer))
    try:
        await eventually(lambda: observer.status.state != "starting", timeout_s=15)
        yield Running(observer, registry, job, options)
    finally:
        options.control.stop()
        await job
    assert observer.facts is None


def write_text(name: str, text: str) -> None:
    Path(name).write_text(text)


def write(name: str, *rows: Any) -> None:
    """One file of the input; a text is a line as it stands."""
    Path("input").mkdir(exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps({"id": 1, "at": row}) for row in rows]
    Path(f"input/{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def test_a_stalled_split_an_open_window_and_rows_that_came_late() -> None:
    write("going", NOON, NOON + 300_000, NOON + 298_500, "no json", NOON + 300_000)
    write("stalled", NOON + 10_000)
    async with running(CLICKS + MINUTES) as job:
        await eventually(lambda: job.step("minutes").held == 5 and job.subtask("minutes").watermark > 0)
        source = job.subtask("clicks").source
        assert source is not None
        assert (source.out_of_order_ms, source.idle_after_ms, source.listening, source.bounded) == (
            1000,
            None,
            True,
            False,
        )
        splits = {split.split: split for split in source.splits}
        assert {name: split.watermark - NOON for name, split in splits.items()} == {
            "going.jsonl": 299_000,
            "stalled.jsonl": 9_000,
        }
        assert not any(split.idle or split.finished for split in source.splits)
        assert source.lateness is not None
        late = dict(zip(source.lateness.bounds_ms, source.lateness.counts, strict=False))
        assert (source.lateness.rows, late[0], late[2_000]) == (5, 4, 1)

        await eventually(lambda: job.subtask("minutes").doing == "waiting for input")
        window = job.subtask("minutes")
        assert (window.toward, window.nodes) == (None, ("minutes", "out"))
        assert [(i.upstream, i.index, i.rows_waiting, i.held_back) for i in window.inputs] == [("clicks", 0, 0, False)]
        assert window.watermark == window.inputs[0].watermark == NOON + 9_000
        minutes = job.step("minutes")
        assert (minutes.rows_out, minutes.next_close) == (0, NOON + 59_999)
        clicks = job.step("clicks")
        assert (clicks.rows_in, clicks.rows_out, clicks.errors) == (6, 5, 1)
        assert job.subtask("clicks").edge_rows == {("clicks", "minutes"): 5}

        await eventually(lambda: job.observer.status.errors)
        [error] = job.observer.status.errors
        assert (error.node, error.split, error.records) == ("clicks", "going.jsonl", 1)
        assert error.error.startswith("not JSON")
        assert await job.metric("watermark_skew_seconds", "clicks") == 290
        assert await job.metric("split_silent_seconds", "clicks") > 0
        assert await job.metric("watermark_seconds", "out") == NOON / 1000 + 9
        assert await job.metric("error_records_total", "clicks") == 1
        assert await job.metric("source_reachable", "clicks") == 1

        write("stalled", NOON + 10_000, NOON + 130_000)
        await eventually(lambda: job.step("out").rows_in == 1)
        assert job.step("minutes").next_close == NOON + 179_999, "the next window with rows is that of minute 2"
        assert job.step("minutes").held == 6 - 1, "rows taken, less rows made of them"


@dataclass
class Stuck:
    """A sink that takes nothing until it is let go."""

    go_on: asyncio.Event

    async def recover(self, committables: Sequence[Committable], parallelism: int) -> None: ...

    def writer(self, subtask: int, parallelism: int) -> Stuck:
        return self

    async def open(self) -> None: ...

    async def write(self, frame: pl.DataFrame) -> None:
        await self.go_on.wait()

    async def prepare(self, checkpoint: int) -> Sequence[Committable]:
        return []

    async def commit(self, checkpoint: int) -> None: ...

    async def close(self) -> None: ...


async def test_a_slow_sink_shows_while_it_is_slow() -> None:
    write("many", *range(NOON, NOON + 2_000))
    sink = Stuck(asyncio.Event())

    def with_it(graph: LogicalGraph) -> LogicalGraph:
        return replace(graph, sinks={"out": replace(graph.sinks["out"], config=SuppliedSink(sink))})

    steps = "steps:\n  spread: {input: clicks, add: {twice: id * 2}, parallelism: 2}\n"
    sinks = "sinks:\n  out: {type: blackhole, input: spread, parallelism: 1}\n"
    async with running(CLICKS + steps + sinks, with_it) as job:
        await eventually(lambda: job.subtask("clicks").doing == "waiting for room")
        assert job.subtask("clicks").toward == "spread"
        assert {each.doing for each in job.facts.subtasks if each.vertex == "spread"} == {"waiting for room"}
        out = job.subtask("out")
        assert (out.doing, out.toward) == ("writing", "out")
        assert sum(each.rows_waiting for each in out.inputs) >= 200
        first = await job.metric("backpressured_seconds_total", "clicks")
        await eventually(lambda: job.subtask("clicks").backpressured > 0.5)
        assert await job.metric("backpressured_seconds_total", "clicks") > first, "it grows while it goes on"
        assert await job.metric("channel_rows", "out") >= 200
        await eventually(lambda: job.facts.checkpoint_pending_s is not None)
        assert ("out", 0) in job.facts.unacknowledged
        sink.go_on.set()
        await eventually(lambda: job.step("out").rows_out == 2_000)
        assert job.observer.status.watermark_ms != WATERMARK_MIN


ENDLESS = """
import time
from pathlib import Path
import polars as pl

go_on = Path("go_on").absolute()

def endless(frame: pl.DataFrame) -> pl.DataFrame:
    while not go_on.exists():
        time.sleep(0.01)
    return frame.with_columns(seen=True)
"""


async def test_a_function_that_never_returns_fails_its_pipeline_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "GIVE_UP_S", 0.2)
    write_text("endless.py", ENDLESS)
    write("a", NOON)
    steps = 'steps:\n  score: {input: clicks, python: {call: "endless.py:endless", columns: {seen: boolean}}}\n'
    checkpoint = "checkpoint: {every: 100ms, timeout: 200ms, tolerate_failures: 0,"
    text = (
        CLICKS.replace("checkpoint: {every: 300ms,", checkpoint)
        + steps
        + "sinks:\n  out: {type: blackhole, input: score}\n"
    )
    threads = set(threading.enumerate())
    async with running(text) as job:
        result = await job.job
        assert result.status == "failed"
        assert re.fullmatch(r"step score: its function has not returned for \d+ s", str(result.failure))
        assert result.failure is not None
        assert result.failure.acts == "user"
    [left] = [thread for thread in threading.enumerate() if thread not in threads and thread.name == "own-compute"]
    assert left.daemon, "it keeps no process from ending"
    write_text("go_on", "")
    await eventually(lambda: not left.is_alive())
