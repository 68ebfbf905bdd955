"""A source that cannot send does not take its own waiting for the silence of a split."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from streamproc.observability.metrics import MetricRegistry, PipelineMetrics
from streamproc.observability.status import JobObserver, JobStatus
from streamproc.pipeline.planner import load_pipeline
from streamproc.runners.embedded import RunOptions, run_pipeline

PIPELINE = """
version: 1
pipeline: slow
job: {checkpoint: {storage: "file:checkpoints"}, batch: {max_rows: 10}}
sources:
  clicks:
    type: file
    path: input/*.jsonl
    schema: {id: int64, at: timestamp_ms}
    event_time: {column: at, idle_after: 300ms}
steps:
  slowly: {input: clicks, python: {call: "slow.py:slowly", columns: {seen: boolean}}}
  counts: {input: slowly, window: {tumble: 1s}, aggregate: {clicks: count(*)}}
sinks:
  out: {type: file, input: counts, path: output}
"""
SLOW = """
import time
import polars as pl

def slowly(frame: pl.DataFrame) -> pl.DataFrame:
    time.sleep(0.2)
    return frame.with_columns(seen=True)
"""


def test_a_split_is_not_idle_while_the_rows_of_another_are_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pipeline.yaml").write_text(PIPELINE)
    Path("slow.py").write_text(SLOW)
    Path("input").mkdir()
    for file, at in (("early", 1_767_225_600_000), ("later", 1_767_229_200_000)):
        rows = [json.dumps({"id": number, "at": at + number}) for number in range(30)]
        Path(f"input/{file}.jsonl").write_text("\n".join(rows))
    graph = load_pipeline(Path("pipeline.yaml"))
    status = JobStatus(graph.pipeline)
    observer = JobObserver(PipelineMetrics(MetricRegistry(), graph.pipeline), status)
    result = asyncio.run(run_pipeline(graph, RunOptions(work_directory=Path("state")), observer))
    assert result.status == "finished", result.failure
    assert status.late_records == 0, "each file waits its turn while the rows of the other are worked on"
    windows = [json.loads(line) for part in Path("output").glob("part-*") for line in part.read_text().splitlines()]
    assert sorted(window["clicks"] for window in windows) == [30, 30]
