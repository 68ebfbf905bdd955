"""The record ledger over crashes, renames and losses: its totals are exact, and a row that is lost or doubled shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import structlog

from operators.operator import Output
from operators.totals import Totals
from state.store import CheckpointStore
from streamproc.checkpoint.manifest import Manifest
from streamproc.checkpoint.recovery import list_checkpoints, read_manifest
from streamproc.dataflow.chain import Chain, Routed
from streamproc.dataflow.partitioner import HashByKey
from streamproc.observability.ledger import StepLedger
from streamproc.observability.metrics import MetricRegistry, PipelineMetrics
from streamproc.observability.status import JobObserver, JobStatus
from streamproc.pipeline.planner import load_pipeline
from streamproc.runners.embedded import RunOptions, run_pipeline
from tests.integration.job import Job

_PIPELINE = """
version: 1
pipeline: books
job: {parallelism: 2, checkpoint: {every: 100ms, storage: "file:checkpoints"}, batch: {max_rows: 500}}
sources:
  bids: {type: datagen, table: bid, rows: ROWS, rate: RATE, event_time: {column: dateTime}}
steps:
  dear: {input: bids, where: "price > 1000", select: [auction, price, dateTime]}
  totals: {input: dear, key: [auction], aggregate: {n: count(*), price: sum(price)}}
  kept: {input: totals, key: [n], aggregate: {auctions: count(*)}, emit: on_close}
  windows: {input: dear, key: [auction], window: {tumble: 1s}, aggregate: {n: count(*)}}
sinks:
  out: {type: file, input: windows, path: out}
  all: {type: file, input: dear, path: all}
  held: {type: blackhole, input: kept}
"""


def prepare(rows: int, rate: str = "null") -> Path:
    file = Path("pipeline.yaml")
    file.write_text(_PIPELINE.replace("ROWS", str(rows)).replace("RATE", rate).replace(", rate: null", ""))
    return file


def hurry(file: Path) -> None:
    """What is left comes as fast as it can."""
    file.write_text(file.read_text().replace(", rate: 300", ""))


def run(file: Path) -> tuple[JobStatus, str, list[Any]]:
    """How it ended, the metrics, what was logged as errors."""
    graph = load_pipeline(file)
    registry = MetricRegistry()
    status = JobStatus(graph.pipeline)
    with structlog.testing.capture_logs() as logs:
        observer = JobObserver(PipelineMetrics(registry, graph.pipeline), status)
        result = asyncio.run(run_pipeline(graph, RunOptions(work_directory=Path("state")), observer))
    assert result.status == "finished", result.failure
    return status, registry.render().decode(), [entry for entry in logs if entry["log_level"] == "error"]


def newest() -> Manifest:
    store = CheckpointStore.open("file:checkpoints", "books")
    return read_manifest(store, list_checkpoints(store)[-1])


def lines(directory: str) -> int:
    return sum(len(part.read_text().splitlines()) for part in Path(directory).glob("part-*"))


def check(ledger: dict[str, StepLedger], rows: int) -> None:
    assert ledger["bids"] == StepLedger(rows, rows, sent=rows)
    dear = ledger["dear"]
    assert (dear.rows_in, dear.rows_out + dear.filtered) == (rows, rows)
    assert 0 < dear.filtered < rows
    assert ledger["totals"].rows_in == ledger["windows"].rows_in == dear.rows_out
    assert ledger["all"] == StepLedger(dear.rows_out, lines("all"), sent=dear.rows_out)
    assert ledger["out"].rows_out == ledger["windows"].rows_out == lines("out")
    assert {node: account for node, account in ledger.items() if account.unaccounted} == {}


def test_totals_are_exact_over_kill_9(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = prepare(6000, "300").absolute()  # there is much left when it is killed, however slow the machine
    for point, passage in (("after-manifest", 3), ("before-manifest", 4)):
        code, _ = Job(tmp_path, file, crash=(point, passage)).wait_any()
        assert code == -9
    manifest = newest()
    assert manifest.kind == "periodic"
    assert 0 < manifest.ledger["bids"].rows_in < 6000
    hurry(file)
    Job(tmp_path, file).wait()
    assert newest().kind == "finished"
    check(dict(newest().ledger), 6000)


def test_a_renamed_step_carries_its_account_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = prepare(6000, "300").absolute()  # there is much left when it is killed, however slow the machine
    code, _ = Job(tmp_path, file, crash=("after-manifest", 4)).wait_any()
    assert code == -9
    was = newest().ledger
    renamed = file.read_text().replace("  dear: {", "  costly: {was: dear, ").replace("input: dear", "input: costly")
    file.write_text(renamed.replace("  held: {type: blackhole, input: kept}", "  gone: {type: blackhole, input: kept}"))
    hurry(file)
    status, _, errors = run(file)
    assert not errors
    ledger = dict(status.ledger)
    assert 0 < was["dear"].rows_in < 6000
    assert "dear" not in ledger
    assert "held" not in ledger
    check({**ledger, "dear": ledger["costly"]}, 6000)


def once(fault: Callable[..., Any], otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """`fault` the third time, where something has come before and will come."""
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return (fault if calls == 3 else otherwise)(*args, **kwargs)

    return counted


def lose_state(patched: pytest.MonkeyPatch) -> str:
    """A batch is taken by an operator and never gets into its state."""

    def forgotten(self: Totals, frame: pl.DataFrame, partials: Sequence[pl.DataFrame]) -> Iterator[Output]:
        return iter(())

    patched.setattr(Totals, "_merge", once(forgotten, Totals._merge))
    return "totals"


def lose_result(patched: pytest.MonkeyPatch) -> str:
    """What an operator gives out does not leave its step."""
    after = Chain._after

    def dropped(self: Chain, index: int, tag: str, frame: pl.DataFrame) -> Iterator[Routed]:
        if self.operators[index].step != "windows":
            yield from after(self, index, tag, frame)

    patched.setattr(Chain, "_after", dropped)
    return "windows"


def lose_on_the_way(patched: pytest.MonkeyPatch) -> str:
    """The rows for one of a step's subtasks do not get there."""
    put = HashByKey.partition

    def halved(self: HashByKey, frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
        for receiver, part in put(self, frame):
            if self._key != ("n",) or receiver == 0:
                yield receiver, part

    patched.setattr(HashByKey, "partition", halved)
    return "kept"


def double_on_the_way(patched: pytest.MonkeyPatch) -> str:
    """Rows for a step come twice."""
    put = HashByKey.partition

    def twice(self: HashByKey, frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
        for receiver, part in put(self, frame):
            yield from [(receiver, part)] * (2 if self._key == ("n",) else 1)

    patched.setattr(HashByKey, "partition", twice)
    return "kept"


@pytest.mark.parametrize("harm", [lose_state, lose_result, lose_on_the_way, double_on_the_way])
def test_what_is_lost_or_doubled_shows(
    harm: Callable[[pytest.MonkeyPatch], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = prepare(4000)
    with monkeypatch.context() as patched:
        node = harm(patched)
        status, metrics, errors = run(file)
    wrong = {name: account.unaccounted for name, account in status.ledger.items() if account.unaccounted}
    assert wrong.keys() == {node}
    assert (wrong[node] > 0) == (harm is not double_on_the_way)
    assert f'streamproc_ledger_unaccounted_records{{pipeline="books",step="{node}"}} {float(wrong[node])}' in metrics
    assert (errors[-1]["node"], errors[-1]["unaccounted"]) == (node, wrong[node])
    assert errors[-1]["rows_in"] == status.ledger[node].rows_in


def test_what_was_lost_before_a_restart_is_still_missing_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = prepare(4000)
    with monkeypatch.context() as patched:
        lose_state(patched)
        lost = run(file)[0].ledger["totals"].unaccounted
    assert lost > 0
    assert newest().ledger["totals"].unaccounted == lost
    assert run(file)[0].ledger["totals"].unaccounted == lost
