"""Each folder is a pipeline, its input and its expected output: run clean, and crashed and restored elsewhere.

A crash comes right after the manifest of checkpoint n is there and before any sink has committed it;
the job is then run again, with other parallelism. The rows must be the same.

    python -m tests.golden.test_golden NAME      runs one clean and prints what it gives, to be reviewed
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from operators.connector import Fetched
from operators.element import CheckpointId
from state.failure import Failure
from state.store import CheckpointStore
from streamproc.checkpoint.compatibility import IncompatibleCheckpoint
from streamproc.checkpoint.driver import CheckpointDriver
from streamproc.checkpoint.recovery import list_checkpoints, read_manifest
from streamproc.dataflow.source_subtask import SourceSubtask
from streamproc.observability.metrics import MetricRegistry, PipelineMetrics
from streamproc.observability.status import JobObserver, JobStatus
from streamproc.pipeline.logical import LogicalGraph
from streamproc.pipeline.planner import load_pipeline
from streamproc.runners.embedded import JobResult, RunOptions, run_pipeline

FOLDER = Path(__file__).parent
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/pipeline.yaml"))


class Crash(Failure):
    """What the test makes happen."""


def with_parallelism(graph: LogicalGraph, parallelism: int) -> LogicalGraph:
    """The same pipeline with every node at `parallelism`."""

    def all_at(nodes: Mapping[str, Any]) -> dict[str, Any]:
        return {name: replace(node, parallelism=parallelism) for name, node in nodes.items()}

    return replace(graph, sources=all_at(graph.sources), steps=all_at(graph.steps), sinks=all_at(graph.sinks))


def run(graph: LogicalGraph, registry: MetricRegistry | None = None) -> JobResult:
    metrics = PipelineMetrics(registry or MetricRegistry(), graph.pipeline)
    observer = JobObserver(metrics, JobStatus(graph.pipeline))
    result = asyncio.run(run_pipeline(graph, RunOptions(work_directory=Path("state")), observer))
    check_ledgers(graph, observer.status, finished=result.status == "finished")
    return result


def check_ledgers(graph: LogicalGraph, status: JobStatus, *, finished: bool) -> None:
    """As of every checkpoint that is stored, each node has an account, which balances; in the end a sink's rows out
    are the rows that are there."""
    store = CheckpointStore.open(graph.job.checkpoint.storage, graph.pipeline)
    renamed = {step.was: step.name for step in graph.steps.values() if step.was}  # in those of before
    for checkpoint in list_checkpoints(store):
        ledger = read_manifest(store, checkpoint).ledger
        assert {renamed.get(node, node) for node in ledger} == {*graph.sources, *graph.steps, *graph.sinks}
        assert {node: account for node, account in ledger.items() if account.unaccounted} == {}
    if finished:
        written = {sink: len(rows) for sink, rows in outputs(graph).items()}
        assert {sink: status.ledger[sink].rows_out for sink in graph.sinks} == written


def outputs(graph: LogicalGraph) -> dict[str, list[str]]:
    """Sink → its finished files' rows, sorted."""
    found = {}
    for sink in graph.sinks:
        directory = Path(graph.sinks[sink].config.path)  # type: ignore[union-attr]
        rows = [line for file in sorted(directory.glob("part-*")) for line in file.read_text().splitlines()]
        found[sink] = sorted(canonical(row) for row in rows)
    return found


def canonical(row: str) -> str:
    """Floats to ten digits: partial sums are added in another order after a restore."""
    parsed = {k: float(f"{v:.10g}") if isinstance(v, float) else v for k, v in json.loads(row).items()}
    parsed.pop("time", None)  # of an error: when it was met
    return json.dumps(parsed)


def expected(name: str) -> dict[str, list[str]]:
    return {path.stem: path.read_text().splitlines() for path in sorted((FOLDER / name / "expected").glob("*.jsonl"))}


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(FOLDER / request.param, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return FOLDER / str(request.param)


@pytest.mark.parametrize("folder", NAMES, indirect=True)
@pytest.mark.parametrize("parallelism", [1, 3])
def test_clean(folder: Path, parallelism: int) -> None:
    graph = with_parallelism(load_pipeline(Path("pipeline.yaml")), parallelism)
    assert run(graph).status == "finished"
    assert outputs(graph) == expected(folder.name)


@pytest.mark.parametrize("folder", NAMES, indirect=True)
@pytest.mark.parametrize(("crash_after", "before", "after"), [(1, 1, 2), (2, 2, 3), (3, 3, 1)])
def test_crash_and_restore(
    folder: Path, crash_after: int, before: int, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = load_pipeline(Path("pipeline.yaml"))
    crash(with_parallelism(graph, before), crash_after, monkeypatch)
    assert run(with_parallelism(graph, after)).status == "finished"
    assert outputs(graph) == expected(folder.name)


@pytest.mark.parametrize("folder", ["tumble"], indirect=True)
def test_a_renamed_step_keeps_its_state(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path("pipeline.yaml")
    crash(load_pipeline(file), 2, monkeypatch)
    renamed = file.read_text().replace("  revenue:\n", "  income:\n    was: revenue\n")
    file.write_text(renamed.replace("input: revenue,", "input: income,"))
    graph = load_pipeline(file)
    assert run(graph).status == "finished"
    assert outputs(graph) == expected(folder.name)


@pytest.mark.parametrize("folder", ["tumble"], indirect=True)
def test_state_of_a_step_that_means_something_else_now_is_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path("pipeline.yaml")
    crash(load_pipeline(file), 2, monkeypatch)
    file.write_text(file.read_text().replace("cents: sum(cents)", "cents: max(cents)"))
    failure = run(load_pipeline(file)).failure
    assert isinstance(failure, IncompatibleCheckpoint)
    assert "step revenue has changed since checkpoint 2" in str(failure)


@pytest.mark.parametrize("folder", ["tumble"], indirect=True)
@pytest.mark.parametrize("parallelism", [1, 2])
def test_every_row_is_counted_once_at_each_step(folder: Path, parallelism: int) -> None:
    registry = MetricRegistry()
    run(with_parallelism(load_pipeline(Path("pipeline.yaml")), parallelism), registry)
    rows: dict[tuple[str, str], int] = defaultdict(int)
    for name, step, value in re.findall(
        r'streamproc_records_(in|out)_total{pipeline="tumble",step="(\w+)",.*} ([\d.e+]+)', registry.render().decode()
    ):
        rows[step, name] += int(float(value))
    read = sum(len(path.read_text().splitlines()) for path in Path("input").iterdir())
    assert rows["orders", "in"] == rows["orders", "out"] == rows["paid", "in"] == read
    assert rows["revenue", "in"] == rows["paid", "out"] < read
    assert rows["revenue", "out"] == rows["out", "in"] == rows["out", "out"] == len(expected("tumble")["out"])


def crash(graph: LogicalGraph, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until the manifest of checkpoint `after` is there, and no further."""
    complete, fetch = CheckpointDriver._complete, SourceSubtask._fetch
    completed = fetches = 0

    async def crashing(driver: CheckpointDriver, checkpoint: CheckpointId) -> None:
        nonlocal completed
        if checkpoint == after:
            raise Crash(f"after checkpoint {checkpoint}")
        await complete(driver, checkpoint)
        completed = checkpoint

    async def paced(source: SourceSubtask) -> list[Fetched]:
        """Ten batches more for each checkpoint, so that the input lasts until the crash."""
        nonlocal fetches
        while fetches >= 10 * (completed + 1):  # noqa: ASYNC110  what it waits for is in another place
            await asyncio.sleep(0.001)
        fetches += 1
        return await fetch(source)

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointDriver, "_complete", crashing)
        patched.setattr(SourceSubtask, "_fetch", paced)
        assert isinstance(run(graph).failure, Crash)


if __name__ == "__main__":
    import os
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(FOLDER / sys.argv[1], scratch, dirs_exist_ok=True)
        os.chdir(scratch)
        pipeline = load_pipeline(Path("pipeline.yaml"))
        print(run(pipeline))
        for name, rows in outputs(pipeline).items():
            target = FOLDER / sys.argv[1] / "expected" / f"{name}.jsonl"
            target.parent.mkdir(exist_ok=True)
            target.write_text("".join(row + "\n" for row in rows))
            print(f"{len(rows)} rows → {target.relative_to(FOLDER)}")
