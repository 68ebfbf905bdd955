"""Joins of which one side has no rows, or ends long before the other."""

# ruff: noqa: E501 — a pipeline's line is a line

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from streamproc.observability.metrics import MetricRegistry, PipelineMetrics
from streamproc.observability.status import JobObserver, JobStatus
from streamproc.pipeline.planner import load_pipeline
from streamproc.runners.embedded import RunOptions, run_pipeline

_PIPELINE = """
version: 1
pipeline: lopsided
job: {parallelism: PARALLELISM, checkpoint: {every: 50ms, storage: "file:checkpoints"}, batch: {max_rows: 20}}
sources:
  a: {type: file, path: a.jsonl, schema: {k: int64, at: timestamp_ms}, event_time: {column: at}}
  b: {type: file, path: b.jsonl, schema: {j: int64, at: timestamp_ms}, event_time: {column: at}}
steps:
  near: {join: {left: a, right: b, kind: full, match: left.k = right.j, within: [-1s, 1s]}, select: {k: left.k, j: right.j}}
  together: {join: {left: a, right: b, kind: full, match: left.k = right.j, window: {tumble: 10s}}, select: {k: left.k, j: right.j}}
  as-of: {join: {left: a, right: b, kind: left, match: left.k = right.j, as_of: true}, select: {k: left.k, j: right.j}}
  ever: {join: {left: a, right: b, kind: full, match: left.k = right.j}, select: {k: left.k, j: right.j}}
  ever-left: {input: ever, key: [k, j], aggregate: {rows: count(*)}, select: [k, j]}
  counted: {input: near, window: {tumble: 10s}, aggregate: {rows: count(*)}}  # nothing comes late
sinks:
  s1: {type: file, input: near, path: near}
  s2: {type: file, input: together, path: together}
  s3: {type: file, input: as-of, path: as-of}
  s4: {type: file, input: ever-left, path: ever}
  s5: {type: file, input: counted, path: counted}
"""
_ROWS = 300


def rows_of(path: str) -> list[dict[str, int | None]]:
    return [json.loads(line) for part in Path(path).glob("part-*") for line in part.read_text().splitlines()]


@pytest.mark.parametrize("parallelism", [1, 2])
@pytest.mark.parametrize(("left", "right"), [(_ROWS, 0), (0, _ROWS), (_ROWS, 10), (10, _ROWS), (0, 0)])
def test_joins(left: int, right: int, parallelism: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pipeline.yaml").write_text(_PIPELINE.replace("PARALLELISM", str(parallelism)))
    for side, column, count in (("a", "k", left), ("b", "j", right)):
        rows = ({column: n, "at": 1_767_225_600_000 + 500 * n} for n in range(count))
        Path(f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    graph = load_pipeline(Path("pipeline.yaml"))
    status = JobStatus(graph.pipeline)
    observer = JobObserver(PipelineMetrics(MetricRegistry(), graph.pipeline), status)
    result = asyncio.run(run_pipeline(graph, RunOptions(work_directory=Path("state")), observer))
    assert result.status == "finished", result.failure
    assert status.late_records == 0
    expected = {(n if n < left else None, n if n < right else None) for n in range(max(left, right))}
    for path in ("near", "together", "ever"):
        found = [(row["k"], row["j"]) for row in rows_of(path)]
        assert len(found) == len(expected), path
        assert set(found) == expected, path
    assert {(row["k"], row["j"]) for row in rows_of("as-of")} == {pair for pair in expected if pair[0] is not None}
    assert sum(row["rows"] or 0 for row in rows_of("counted")) == len(expected)
