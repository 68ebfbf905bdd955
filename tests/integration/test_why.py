"""Real pipelines out of which nothing comes: the first finding of `why` names the cause and the place."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from operators.connector import Committable
from streamproc.diagnosis.why import why
from streamproc.observability.metrics import MetricRegistry, PipelineMetrics
from streamproc.observability.rates import RateWindow
from streamproc.observability.status import JobObserver, JobStatus
from streamproc.pipeline.logical import LogicalGraph, SuppliedSink
from streamproc.pipeline.physical import plan_physical
from streamproc.pipeline.planner import load_pipeline
from streamproc.runners.embedded import RunOptions, run_pipeline
from streamproc.service.graph_view import graph_view
from streamproc.service.views import Finding, GraphView, WhyView
from tests.eventually import eventually

CLICKS = """\
version: 1
pipeline: clicks
job: {checkpoint: {every: 500ms}}
sources:
  clicks:
    type: file
    path: input/*.jsonl
    follow: true
    errors: skip
    schema: {id: int64, at: timestamp}
    event_time: {column: at}
"""
MINUTES = """\
steps:
  minutes: {input: clicks, window: {tumble: 1m}, aggregate: {clicks: count(*)}}
sinks:
  out: {type: blackhole, input: minutes}
"""


@dataclass
class Running:
    """A pipeline at work."""

    graph: LogicalGraph
    observer: JobObserver
    window: RateWindow = field(default_factory=RateWindow)

    def why(self, node: str) -> WhyView:
        """As the service asks."""
        facts = self.observer.facts() if self.observer.facts is not None else None
        self.window.sample(facts)
        return why(facts, plan_physical(self.graph), self.observer.status, node, rates=self.window.rates())

    def view(self) -> GraphView:
        """The picture."""
        facts = self.observer.facts() if self.observer.facts is not None else None
        self.window.sample(facts)
        return graph_view(plan_physical(self.graph), facts, self.window.rates())

    async def until_first(self, node: str, cause: str, says: str = "") -> Finding:
        """The first finding once it is of this cause, and says this."""

        def told() -> bool:
            first = self.why(node).findings[0]
            return first.cause == cause and says in first.says

        try:
            await eventually(told, timeout_s=15)
        except TimeoutError:
            raise AssertionError("\n".join(f"{f.cause}: {f.says}" for f in self.why(node).findings)) from None
        return self.why(node).findings[0]


@asynccontextmanager
async def running(folder: Path, text: str, sinks: Mapping[str, SuppliedSink] | None = None) -> AsyncIterator[Running]:
    """Run a pipeline while the block runs, then stop it."""
    (folder / "pipeline.yaml").write_text(text.replace("input/", f"{folder}/input/"))
    graph = load_pipeline(folder / "pipeline.yaml")
    for name, supplied in (sinks or {}).items():
        graph = replace(graph, sinks={**graph.sinks, name: replace(graph.sinks[name], config=supplied)})
    observer = JobObserver(PipelineMetrics(MetricRegistry(), graph.pipeline), JobStatus(graph.pipeline))
    options = RunOptions(checkpoints=f"file:{folder}/checkpoints", work_directory=folder / "state")
    job = asyncio.create_task(run_pipeline(graph, options, observer))
    try:
        await eventually(lambda: observer.status.state == "running" or job.done(), timeout_s=15)
        yield Running(graph, observer)
    finally:
        options.control.stop()
        result = await job
    assert result.status == "stopped", result.failure


def write(folder: Path, name: str, rows: Iterable[Any]) -> None:
    """One file of the input; a text is a line as it stands."""
    (folder / "input").mkdir(exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "input" / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))


def click(number: int, time: str) -> dict[str, Any]:
    return {"id": number, "at": f"2026-01-01T{time}Z"}


async def test_a_split_that_has_stalled(tmp_path: Path) -> None:
    write(tmp_path, "going", [click(1, "12:00:00"), click(2, "12:05:00")])
    write(tmp_path, "stalled", [click(3, "12:00:10")])
    async with running(tmp_path, CLICKS + MINUTES) as job:
        found = await job.until_first("out", "watermark_held_back", "silent for")
        assert (found.node, found.split) == ("clicks", "stalled.jsonl")
        assert "sources.clicks.event_time.idle_after" in found.says
        assert "4 min 50 s behind" in found.says
        assert "minutes waits for 2026-01-01 12:01:00 UTC" in found.says


async def test_a_condition_that_nothing_meets(tmp_path: Path) -> None:
    write(tmp_path, "a", [click(n, "12:00:00") for n in range(100)])
    steps = "steps:\n  big: {input: clicks, where: id > 1000}\nsinks:\n  out: {type: blackhole, input: big}\n"
    async with running(tmp_path, CLICKS + steps) as job:
        found = await job.until_first("out", "filtered")
        assert found.node == "big"
        assert found.says == "big leaves out 100 rows of 100 (100 %): `where id > 1000` lets no row through"


async def test_rows_that_all_come_too_late(tmp_path: Path) -> None:
    write(tmp_path, "a", [click(0, "13:00:00"), *(click(n, "12:00:00") for n in range(50))])
    async with running(tmp_path, CLICKS + MINUTES) as job:
        found = await job.until_first("out", "late_rows")
        assert found.node == "minutes"
        assert found.says.startswith("50 rows of 51 (98 %) came to minutes too late")
        (advice,) = job.why("out").advice
        assert [each.late_rows for each in advice.advice if each.current] == [50]


async def test_records_that_are_all_bad(tmp_path: Path) -> None:
    write(tmp_path, "a", ["{broken" for _ in range(20)])
    async with running(tmp_path, CLICKS + MINUTES) as job:
        await eventually(lambda: job.observer.status.errors)
        found = await job.until_first("out", "errors")
        assert (found.node, found.split) == ("clicks", "a.jsonl")
        assert "20 records of 20 (100 %) could not be decoded by clicks and are skipped" in found.says


async def test_a_source_that_has_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    async with running(tmp_path, CLICKS + MINUTES) as job:
        found = await job.until_first("out", "no_input")
        assert "no file matches" in found.says


@dataclass
class BlockedSink:
    """Takes nothing until it is let go."""

    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def recover(self, committables: Sequence[Committable], parallelism: int) -> None:
        """Nothing to recover."""

    def writer(self, subtask: int, parallelism: int) -> BlockedSink:
        return self

    async def open(self) -> None:
        """Nothing to open."""

    async def write(self, frame: pl.DataFrame) -> None:
        await self.let_go.wait()

    async def prepare(self, checkpoint: int) -> Sequence[Committable]:
        return ()

    async def commit(self, checkpoint: int) -> None:
        """Nothing to commit."""

    async def close(self) -> None:
        """Nothing to close."""


BUSY = """\
version: 1
pipeline: busy
job: {checkpoint: {every: 500ms}, batch: {max_rows: 100}}
sources:
  numbers: {type: datagen, columns: {id: {sequence: {}}}}
"""


async def test_a_sink_that_takes_nothing(tmp_path: Path) -> None:
    sink = BlockedSink()
    text = BUSY + "sinks:\n  out: {type: blackhole, input: numbers, parallelism: 2}\n"
    async with running(tmp_path, text, {"out": SuppliedSink(sink)}) as job:
        for node in ("numbers", "out"):
            found = await job.until_first(node, "slow_sink")
            assert found.node == "out"
        assert found.says.startswith("sink out")
        sink.let_go.set()


SLOW = """
import time
import polars as pl

def slowly(frame: pl.DataFrame) -> pl.DataFrame:
    time.sleep(0.2)
    return frame.with_columns(seen=True)
"""


async def test_a_slow_step(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    text = BUSY + (
        "steps:\n"
        '  slowly: {input: numbers, parallelism: 2, python: {call: "slow.py:slowly", columns: {seen: boolean}}}\n'
        "sinks:\n  out: {type: blackhole, input: slowly}\n"
    )
    async with running(tmp_path, text) as job:
        for node in ("numbers", "slowly", "out"):
            found = await job.until_first(node, "backpressure", "slowly")
            assert found.node == "slowly"
        assert "numbers waits for room" in found.says
        shares = {node.name: (node.busy, node.backpressured) for node in job.view().nodes}
        assert shares["slowly"][0] > 0.5
        assert shares["numbers"][1] > 0.5
