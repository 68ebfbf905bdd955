"""Whatever becomes of a row, it is counted once: in = out + filtered + late + errors + held, at every node."""

# ruff: noqa: E501 — a pipeline's line is a line

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from streamproc.observability.ledger import StepLedger
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


def run() -> tuple[dict[tuple[str, str], int], Mapping[str, StepLedger]]:
    """(step, what) → the metric, over all subtasks; the ledger of the last checkpoint, which balances."""
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
    ledger = observer.status.ledger
    assert ledger.keys() == {*graph.sources, *graph.steps, *graph.sinks}
    assert {node: account for node, account in ledger.items() if account.unaccounted} == {}
    for node, account in ledger.items():
        assert counts[node, "records_in"] == account.rows_in == account.sent, node
        assert counts[node, "records_out"] == account.rows_out, node
        assert counts[node, "filtered_records"] == account.filtered, node
        assert counts[node, "late_records"] == account.late, node
        assert counts[node, "error_records"] == account.errors, node
    return counts, ledger


def rows_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for part in Path(path).glob("part-*") for line in part.read_text().splitlines()]


@pytest.mark.parametrize("policy", ["skip", "dlq"])
def test_every_row_is_accounted_for(policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(policy)
    counts, ledger = run()
    wrong = {number for number in range(_COUNT) if bad(number)}
    filtered = {"rowed", "awaited", "projected"}  # leave out what ends in 3 before they look at it
    for step in _ALONE:
        left_out = {n for n in range(_COUNT) if n % 10 == 3} if step in filtered else set()
        assert counts[step, "records_in"] == _COUNT, step
        assert counts[step, "error_records"] == len(wrong - left_out), step
        assert counts[step, "late_records"] == 0, step
        assert ledger[step].filtered == len(left_out), step
        if step in ("summed", "session", "totals"):
            rows = rows_of(step)
            assert sum(row["n"] for row in rows) == _COUNT - len(wrong), step
            assert sum(row["cents"] for row in rows) == sum(n for n in range(_COUNT) if n not in wrong), step
        else:
            assert counts[step, "records_out"] == _COUNT - len(wrong | left_out), step
            assert ledger[step].held == 0, step
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


_KINDS = """
version: 1
pipeline: ledger
job: {parallelism: 2, checkpoint: {every: 100ms, storage: "file:checkpoints"}, batch: {max_rows: 37}, errors: skip}
sources:
  a: {type: file, path: a.jsonl, schema: {id: int64, item: int64, at: timestamp_ms}, event_time: {column: at}}
  b: {type: file, path: b.jsonl, schema: {id: int64, item: int64, at: timestamp_ms}, event_time: {column: at}}
  plain: {type: file, path: a.jsonl, schema: {id: int64, item: int64}}
  table: {type: file, path: table.jsonl, format: {type: debezium-json, key: [item]}, schema: {item: int64, name: string}}
steps:
  both: {input: [a, b]}
  assigned: {input: both, window: {hop: {size: 2s, every: 1s}}}
  hopped: {input: both, key: [item], window: {hop: {size: 2s, every: 1s}}, aggregate: {n: count(*)}}
  tumbled: {input: a, key: [item], window: {tumble: 1s}, aggregate: {n: count(*)}}
  patient: {input: a, key: [item], window: {tumble: 1s}, aggregate: {n: count(*)}, late: {accept_for: 10s}}
  updating: {input: a, key: [item], window: {tumble: 1s}, aggregate: {n: count(*)}, emit: on_update}
  sessions: {input: a, key: [item], window: {session: 500ms}, aggregate: {n: count(*)}}
  once: {input: a, deduplicate: {key: [item]}}
  once-plain: {input: plain, deduplicate: {key: [item]}}
  newest: {input: a, deduplicate: {key: [item], keep: last}}
  best: {input: a, top: {n: 3, by: [id desc], key: [item]}}
  named: {join: {left: plain, kind: inner, match: left.item = right.item, lookup: {file: names.jsonl, schema: {item: int64, name: string}}}, select: {id: left.id, name: right.name}}
  named-or-not: {join: {left: plain, kind: left, match: left.item = right.item, lookup: {file: names.jsonl, schema: {item: int64, name: string}}}, select: {id: left.id, name: right.name}}
  pairs: {join: {left: a, right: b, match: left.item = right.item, within: [-1s, 1s]}, select: {id: left.id}}
  in-window: {join: {left: a, right: b, match: left.item = right.item, window: {tumble: 1s}}, select: {id: left.id}}
  as-of: {join: {left: a, right: b, match: left.item = right.item, as_of: true}, select: {id: left.id}}
  never: {join: {left: a, right: b, kind: anti, match: left.item = right.item, within: [-1s, 1s]}}
  some: {join: {left: a, right: b, kind: semi, match: left.item = right.item, within: [-1s, 1s]}}
  of-table: {join: {left: plain, right: table, kind: full, match: left.item = right.item}, select: {id: left.id, name: right.name}}
  counted: {input: table, key: [name], aggregate: {n: count(*)}}
  watched: {input: a, process: {call: "watch.py:Watch", key: [item], columns: {id: int64}, outputs: {odd: {id: int64}}}}
sinks:
  odd: {type: file, input: watched.odd, path: odd}
SINKS
"""
_WATCH = """
from datetime import timedelta
from streamproc import ProcessFunction


class Watch(ProcessFunction):
    def process(self, row, ctx):
        ctx.timer(ctx.time + timedelta(seconds=1))
        if row["id"] % 2:
            ctx.side("odd", {"id": row["id"]})

    def on_timer(self, time, ctx):
        if ctx.key == 3:
            raise ValueError("three")
        yield {"id": ctx.key}
"""


def prepare_kinds() -> None:
    """Rows 100 ms apart, now and then one late, of items 0 to 6, now and then of none; the table: ten rows, one a
    tombstone, two updates."""
    sinks = re.findall(r"^  ([\w-]+): {(?:input|join)", _KINDS, re.MULTILINE)
    text = _KINDS.replace("SINKS", "\n".join(f"  s-{name}: {{type: blackhole, input: {name}}}" for name in sinks))
    Path("pipeline.yaml").write_text(text)
    Path("watch.py").write_text(_WATCH)
    base_ms = 1_767_225_600_000
    for name, step in (("a", 7), ("b", 5)):
        rows = [
            {"id": n, "item": None if n % 11 == 10 else n % step, "at": base_ms + 100 * n - 4000 * (n % 40 == 39)}
            for n in range(200)
        ]
        Path(f"{name}.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    names = [{"item": item, "name": name} for item in (1, 2) for name in "xy"]
    Path("names.jsonl").write_text("\n".join(map(json.dumps, names)))
    changes: list[Any] = [{"op": "c", "after": {"item": item, "name": "p"}} for item in range(6)]
    for item in (1, 2):
        changes.append({"op": "u", "before": {"item": item, "name": "p"}, "after": {"item": item, "name": "q"}})
    changes += [{"op": "d", "before": {"item": 3, "name": "p"}}, None]
    Path("table.jsonl").write_text("\n".join(map(json.dumps, changes)))


def test_every_kind_of_step_balances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare_kinds()
    _, ledger = run()
    items = [None if n % 11 == 10 else n % 7 for n in range(200)]
    blank, nowhere = 199, items.count(None)
    assert ledger["a"] == ledger["plain"] == StepLedger(399, 200, filtered=blank, sent=399)
    assert ledger["table"] == StepLedger(10, 11, filtered=1, held=-2, sent=10)
    assert ledger["both"] == StepLedger(400, 400, sent=400)
    assert ledger["assigned"] == StepLedger(400, 800, held=-400, sent=400)
    assert ledger["tumbled"].late == 5
    assert ledger["patient"].late == 0
    assert ledger["once-plain"] == StepLedger(200, 8, filtered=192, sent=200)
    assert (ledger["once"].rows_out, ledger["once"].held) == (8, 0)
    looked_up = items.count(1) + items.count(2)
    assert ledger["named"] == StepLedger(200, 2 * looked_up, filtered=200 - looked_up, held=-looked_up, sent=200)
    assert ledger["named-or-not"] == StepLedger(200, 200 + looked_up, held=-looked_up, sent=200)
    assert ledger["pairs"].filtered == 2 * nowhere
    assert ledger["never"].filtered == nowhere  # right ones: left ones without a key have no partner for sure
    watched = ledger["watched"]
    assert watched.errors == items.count(3)  # timers that fail
    assert watched.rows_out == 200 - items.count(3) + 100  # timers that do not, and what is odd
