"""Where rows fail in user code, conditions and expressions, each is counted once: in = out + filtered + late + errors."""

# ruff: noqa: E501 — a pipeline's line is a line

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from streamproc.observability.metrics import MetricRegistry, PipelineMetrics
from streamproc.observability.status import JobObserver, JobStatus
from streamproc.pipeline.planner import load_pipeline
from streamproc.runners.embedded import RunOptions, run_pipeline

_PIPELINE = """
version: 1
pipeline: ledger
job: {parallelism: 2, checkpoint: {every: 100ms, storage: "file:checkpoints"}, batch: {max_rows: 37}, errors: POLICY}
sources:
  orders:
    type: file
    path: orders.jsonl
    schema: {id: int64, item: int64, amount: string, at: timestamp_ms}
    event_time: {column: at, out_of_order: 100ms}
  rates:
    type: file
    path: rates.jsonl
    schema: {rid: int64, item: int64, rate: string, at: timestamp_ms}
    event_time: {column: at, out_of_order: 100ms}
steps:
  batched: {input: orders, python: {call: "shop.py:batched", columns: {cents: int64}}}
  rowed: {input: orders, python: {call: "shop.py:rowed", mode: row, columns: {cents: int64}}}
  awaited: {input: orders, python: {call: "shop.py:awaited", mode: async, columns: {cents: int64}}}
  kept: {input: orders, process: {call: "shop.py:Kept", key: [item], columns: {id: int64, cents: int64}}}
  projected: {input: orders, where: "id % 10 <> 3", add: {cents: "cast(amount as int64) * 100"}}
  summed: {input: orders, key: [item], window: {tumble: 1s}, aggregate: {n: count(*), cents: sum(cast(amount as int64))}}
  session: {input: orders, key: [item], window: {session: 200ms}, aggregate: {n: count(*), cents: sum(cast(amount as int64))}}
  totals: {input: orders, key: [item], aggregate: {n: count(*), cents: sum(cast(amount as int64))}}
  once: {input: orders, where: "cast(amount as int64) >= 0", deduplicate: {key: [id, item]}}
  top: {input: orders, top: {n: 100000, by: [cast(amount as int64) desc], key: [item]}}
  top-left: {input: top, key: [id], aggregate: {n: count(*)}}
  windowed-top: {input: orders, top: {n: 100000, by: [cast(amount as int64) desc], key: [item], window: {tumble: 1s}}}
  near: {join: {left: orders, right: rates, kind: left, match: left.item = right.item and cast(left.amount as int64) > 20, within: [-1s, 1s]}, select: {id: left.id, rid: right.rid}}
  together: {join: {left: orders, right: rates, kind: left, match: left.item = right.item and cast(left.amount as int64) > 20, window: {tumble: 1s}}, select: {id: left.id, rid: right.rid}}
  ever: {join: {left: orders, right: rates, match: left.item = right.item and cast(left.amount as int64) > 20}, select: {id: left.id, rid: right.rid}}
  as-of: {join: {left: orders, right: rates, kind: left, match: left.item = right.item and cast(left.amount as int64) > 20, as_of: true}, select: {id: left.id, rid: right.rid}}
sinks:
SINKS
"""
_SHOP = """
import polars as pl
from streamproc import ProcessFunction, ValueState


def batched(frame):
    if frame.height and frame["amount"].str.contains("x").any():
        raise ValueError("a bad amount")
    return frame.with_columns(cents=pl.col("amount").cast(pl.Int64) * 100)


def rowed(row):
    return {"cents": int(row["amount"]) * 100} if row["id"] % 10 != 3 else None


async def awaited(row):
    return {"cents": int(row["amount"]) * 100} if row["id"] % 10 != 3 else None


class Kept(ProcessFunction):
    cents = ValueState("int64", default=0)

    def process(self, row, ctx):
        self.cents.set(self.cents.get() + 1000)
        yield {"id": row["id"], "cents": self.cents.get()}
        self.cents.set(self.cents.get() - 1000 + int(row["amount"]))
"""
_ALONE = [
    "batched",
    "rowed",
    "awaited",
    "kept",
    "projected",
    "summed",
    "session",
    "totals",
    "once",
    "top",
    "windowed-top",
]
_JOINS = ["near", "together", "ever", "as-of"]
_COUNT = 400


def prepare(policy: str) -> None:
    files = ["top-left" if name == "top" else name for name in (*_ALONE, *_JOINS)]
    sinks = [f"  s-{name}: {{type: file, input: {name}, path: {name}}}" for name in files]
    if policy == "dlq":
        sinks += [
            f"  e-{name}: {{type: file, input: {name}.errors, path: errors-{name}}}" for name in (*_ALONE, *_JOINS)
        ]
        sinks += ["  others: {type: blackhole, input: [orders.errors, rates.errors, top-left.errors]}"]
    Path("pipeline.yaml").write_text(_PIPELINE.replace("POLICY", policy).replace("SINKS", "\n".join(sinks)))
    Path("shop.py").write_text(_SHOP)
    base_ms = 1_767_225_600_000
    orders = [
        {"id": n, "item": n % 7, "amount": f"{n}x" if bad(n) else str(n), "at": base_ms + 20 * n} for n in range(_COUNT)
    ]
    rates = [{"rid": n, "item": n % 7, "rate": "1", "at": base_ms + 40 * n} for n in range(_COUNT // 2)]
    for name, rows in (("orders", orders), ("rates", rates)):
        Path(f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def bad(number: int) -> bool:
    return number % 9 == 4


def run() -> dict[tuple[str, str], int]:
    """(step, what) → the metric, over all subtasks."""
    graph = load_pipeline(Path("pipeline.yaml"))
    registry = MetricRegistry()
    observer = JobObserver(PipelineMetrics(registry, graph.pipeline), JobStatus(graph.pipeline))
    result = asyncio.run(run_pipeline(graph, RunOptions(work_directory=Path("state")), observer))
    assert result.status == "finished", result.failure
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for name, step, value in re.findall(
        r'streamproc_(\w+_records|records_in|records_out)_total{pipeline="ledger",step="([\w-]+)",.*} ([\d.e+]+)',
        registry.render().decode(),
    ):
        counts[step, name] += int(float(value))
    return counts


def rows_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for part in Path(path).glob("part-*") for line in part.read_text().splitlines()]


@pytest.mark.parametrize("policy", ["skip", "dlq"])
def test_every_row_is_accounted_for(policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(policy)
    counts = run()
    wrong = {number for number in range(_COUNT) if bad(number)}
    filtered = {"rowed", "awaited", "projected"}  # leave out what ends in 3 before they look at it
    for step in _ALONE:
        left_out = {n for n in range(_COUNT) if n % 10 == 3} if step in filtered else set()
        assert counts[step, "records_in"] == _COUNT, step
        assert counts[step, "error_records"] == len(wrong - left_out), step
        assert counts[step, "late_records"] == 0, step
        if step in ("summed", "session", "totals"):
            rows = rows_of(step)
            assert sum(row["n"] for row in rows) == _COUNT - len(wrong), step
            assert sum(row["cents"] for row in rows) == sum(n for n in range(_COUNT) if n not in wrong), step
        else:
            assert counts[step, "records_out"] == _COUNT - len(wrong | left_out), step
            ids = sorted(row["id"] for row in rows_of("top-left" if step == "top" else step))
            assert ids == [n for n in range(_COUNT) if n not in wrong | left_out], step
        if policy == "dlq":
            dead = {json.loads(base64.b64decode(row["value"]))["amount"] for row in rows_of(f"errors-{step}")}
            assert dead == {f"{number}x" for number in wrong - left_out}, step
    for step in _JOINS:
        assert counts[step, "records_in"] == _COUNT + _COUNT // 2, step
        pairs = [(row["id"], row["rid"]) for row in rows_of(step)]
        assert counts[step, "records_out"] == len(pairs) == len(set(pairs)), step
        assert not any(left in wrong and right is not None for left, right in pairs), step
        assert counts[step, "error_records"] > 0, step
        if policy == "dlq":  # a pair that cannot be judged is one error
            assert len(rows_of(f"errors-{step}")) == counts[step, "error_records"], step


def test_state_is_as_if_a_row_that_failed_had_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare("skip")
    run()
    sums: dict[int, int] = defaultdict(int)
    expected = {}
    for number in (n for n in range(_COUNT) if not bad(n)):
        expected[number] = sums[number % 7] + 1000
        sums[number % 7] += number
    assert {row["id"]: row["cents"] for row in rows_of("kept")} == expected
