"""The same input gives the same rows however it is cut into batches and spread over subtasks, late rows too."""

# ruff: noqa: E501 — a pipeline's line is a line

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from streamproc.observability.metrics import MetricRegistry, PipelineMetrics
from streamproc.observability.status import JobObserver, JobStatus
from streamproc.pipeline.planner import load_pipeline
from streamproc.runners.embedded import RunOptions, run_pipeline

_PIPELINE = """
version: 1
pipeline: same
job: {parallelism: PARALLELISM, checkpoint: {every: 300ms, storage: "file:checkpoints"}, batch: {max_rows: ROWS}}
sources:
  bids:
    type: file
    path: bids.jsonl
    schema: {id: int64, item: int64, user: int64, price: int64, at: timestamp_ms}
    event_time: {column: at, out_of_order: 300ms}
steps:
  tumbled: {input: bids, key: [item], window: {tumble: 1s}, aggregate: {n: count(*), money: sum(price)}, late: {then: side_output}}
  hopped: {input: bids, key: [item], window: {hop: {size: 2s, every: 700ms}}, aggregate: {n: count(*), first: first_value(id), last: last_value(id)}, late: {then: side_output}}
  cumulated: {input: bids, key: [user], window: {cumulate: {size: 3s, every: 1s}}, aggregate: {n: count(*), users: count(distinct item)}}
  sessions: {input: bids, key: [item], window: {session: 150ms}, aggregate: {n: count(*), money: sum(price)}, late: {then: side_output}}
  best: {input: bids, top: {n: 2, by: [price desc], key: [item], window: {tumble: 1s}, rank: place}, late: {then: side_output}}
  chained: {input: tumbled, top: {n: 1, by: [n desc, item], window: input}}
  firsts: {input: bids, deduplicate: {key: [item, user]}}
  firsts-ttl: {input: bids, deduplicate: {key: [item], ttl: 500ms}}
  spans: {input: bids, process: {call: "spans.py:Spans", key: [item], columns: {item: int64, n: int64, late: int64}}}
  # changelogs: what they come to
  updated: {input: bids, key: [item], window: {hop: {size: 2s, every: 1s}}, aggregate: {n: count(*)}, emit: on_update, late: {accept_for: 400ms}}
  updated-left: {input: updated, key: [item, window_start, n], aggregate: {rows: count(*)}}
  refined: {input: bids, key: [item], window: {session: 150ms}, aggregate: {n: count(*)}, emit: on_update, late: {accept_for: 400ms}}
  refined-left: {input: refined, key: [item, window_start, window_end, n], aggregate: {rows: count(*)}}
  newest: {input: bids, deduplicate: {key: [item], keep: last, ttl: 400ms}}
  newest-left: {input: newest, key: [item, id], aggregate: {rows: count(*)}}
  top: {input: bids, top: {n: 2, by: [price desc], key: [item], rank: place, ttl: 400ms}}
  top-left: {input: top, key: [item, id, place], aggregate: {rows: count(*)}}
  totals: {input: bids, key: [item, user], aggregate: {n: count(*), middle: median(price), kinds: count(distinct price)}, ttl: 400ms}
  totals-left: {input: totals, key: [item, user, n, middle, kinds], aggregate: {rows: count(*)}}
  # of changelogs
  users: {input: newest, key: [user], aggregate: {n: count(*), least: min(price), money: sum(price)}, emit: on_update}
  users-left: {input: users, key: [user, n, least, money], aggregate: {rows: count(*)}}
  anti: {join: {left: newest, right: updated, kind: anti, match: left.item = right.item and left.price % 5 = right.n % 5}}
  anti-left: {input: anti, key: [item, id], aggregate: {rows: count(*)}}
  full: {join: {left: newest, right: users, kind: full, match: left.user = right.user and left.price > right.least}, select: {id: left.id, user: right.user, n: right.n}}
  full-left: {input: full, key: [id, user, n], aggregate: {rows: count(*)}}
sinks:
SINKS
"""
_SPANS = """
from datetime import timedelta
from streamproc import ProcessFunction, ValueState

class Spans(ProcessFunction):
    n = ValueState("int64", default=0)
    late = ValueState("int64", default=0)

    def process(self, row, ctx):
        if ctx.late:
            self.late.set(self.late.get() + 1)
        else:
            self.n.set(self.n.get() + 1)
        ctx.timer(ctx.time.replace(year=2100, microsecond=0, second=0, minute=0, hour=0))

    def on_timer(self, time, ctx):
        yield {"item": ctx.key, "n": self.n.get(), "late": self.late.get()}
"""
_STREAMS = [
    "tumbled",
    "hopped",
    "cumulated",
    "sessions",
    "best",
    "chained",
    "firsts",
    "firsts-ttl",
    "spans",
    "tumbled.late",
    "hopped.late",
    "sessions.late",
    "best.late",
    "updated-left",
    "refined-left",
    "newest-left",
    "top-left",
    "totals-left",
    "users-left",
    "anti-left",
    "full-left",
]


def bids(chance: random.Random) -> Iterator[dict[str, int]]:
    """Ten milliseconds apart; within the bound, and every tenth up to two seconds behind."""
    for number in range(1500):
        behind = chance.randrange(2000) if number % 10 == 0 else chance.randrange(300)
        at = 1_767_225_600_000 + 10 * number - behind
        yield {
            "id": number,
            "item": chance.randrange(12),
            "user": chance.randrange(4),
            "price": chance.randrange(30),
            "at": at,
        }


def run(parallelism: int, rows: int) -> tuple[Mapping[str, Counter[str]], int]:
    sinks = (f"  s{i}: {{type: file, input: {stream}, path: {i}-{rows}}}" for i, stream in enumerate(_STREAMS))
    text = (
        _PIPELINE.replace("PARALLELISM", str(parallelism)).replace("ROWS", str(rows)).replace("SINKS", "\n".join(sinks))
    )
    text = text.replace("checkpoints", f"checkpoints-{rows}")
    Path("pipeline.yaml").write_text(text)
    graph = load_pipeline(Path("pipeline.yaml"))
    status = JobStatus(graph.pipeline)
    observer = JobObserver(PipelineMetrics(MetricRegistry(), graph.pipeline), status)
    result = asyncio.run(run_pipeline(graph, RunOptions(work_directory=Path("state")), observer))
    assert result.status == "finished", result.failure
    found = {
        stream: Counter(line for part in Path(f"{i}-{rows}").glob("part-*") for line in part.read_text().splitlines())
        for i, stream in enumerate(_STREAMS)
    }
    return found, status.late_records


def test_batches_and_subtasks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    Path("bids.jsonl").write_text("\n".join(map(json.dumps, bids(random.Random(seed)))))
    Path("spans.py").write_text(_SPANS)
    expected, expected_late = run(1, 5_000)
    assert expected_late
    empty = {stream for stream, rows in expected.items() if not rows}
    assert empty <= {"anti-left"}, empty  # which a few seeds leave empty
    for parallelism, rows in ((1, 100), (3, 211)):
        found, late = run(parallelism, rows)
        for stream in _STREAMS:
            missing, surplus = expected[stream] - found[stream], found[stream] - expected[stream]
            assert not missing, (stream, parallelism, rows, list(missing)[:3], list(surplus)[:3])
            assert not surplus, (stream, parallelism, rows, list(surplus)[:3])
        assert late == expected_late
