"""Nexmark's queries and others over the kept input give Flink's rows: as SQL in three subtasks, as steps in one."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from streamproc.observability.metrics import MetricRegistry, PipelineMetrics
from streamproc.observability.status import JobObserver, JobStatus
from streamproc.pipeline.planner import load_pipeline
from streamproc.runners.embedded import RunOptions, run_pipeline
from tests.oracle.kept import FOLDER
from tests.oracle.pipelines import Query, file_pipeline, known_queries
from tests.oracle.rows import Result, cell, difference, from_csv

QUERIES = [(query, 3) for form in ("sql", "extra") for query in known_queries(form)]
QUERIES += [(query, 1) for query in known_queries("steps")]


@pytest.mark.parametrize(("query", "parallelism"), QUERIES, ids=lambda value: getattr(value, "name", value))
def test_flinks_rows(
    query: Query, parallelism: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    job = {"parallelism": parallelism, "restart": {"strategy": "none"}}
    file = tmp_path / "pipeline.yaml"
    file.write_text(file_pipeline(query, data=FOLDER, job=job))
    graph = load_pipeline(file)
    observer = JobObserver(PipelineMetrics(MetricRegistry(), graph.pipeline), JobStatus(graph.pipeline))
    asyncio.run(run_pipeline(graph, RunOptions(work_directory=Path("state")), observer))
    flink = from_csv(FOLDER / f"{query.name}.csv")
    assert flink.rows, "a query without rows shows nothing"
    assert difference(flink, printed(capsys.readouterr().out, flink.columns)) is None


def printed(out: str, columns: tuple[str, ...]) -> Result:
    """What is left of the printed rows once all changes are applied."""
    rows: Counter[tuple[str, ...]] = Counter()
    for line in out.splitlines():
        row = json.loads(line)
        change = -1 if row.get("op") in ("-U", "-D") else 1
        rows[tuple(cell(row.get(name, "<no such column>")) for name in columns)] += change
    assert min(rows.values(), default=0) >= 0, "a row was taken back that was not there"
    return Result(columns, +rows)
