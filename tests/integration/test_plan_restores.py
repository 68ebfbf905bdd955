"""What a plan says is what a restore does: state it keeps is taken over, and what it says is lost must be allowed.

Files are edited at random, a job is stopped with a checkpoint and goes on with the edited file. The reference is
the restore itself.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.store import CheckpointStore
from streamproc.checkpoint.compatibility import IncompatibleCheckpoint, fitted
from streamproc.checkpoint.manifest import Manifest
from streamproc.checkpoint.recovery import list_checkpoints, read_manifest
from streamproc.pipeline.logical import LogicalGraph
from streamproc.pipeline.physical import plan_physical
from streamproc.pipeline.planner import load_pipeline
from streamproc.service.plan import dropped_names, make_plan
from streamproc.service.views import PlanView
from tests.faults.running import running

_BASE_MS: Final = 1_767_225_600_000
_PIPELINE: Final = """
version: 1
pipeline: shop
job: {checkpoint: {every: 1h, storage: "file:DIRECTORY/checkpoints"}, parallelism: 1}
sources:
  orders:
    type: file
    path: DIRECTORY/orders.jsonl
    follow: true
    schema: {id: int64, item: string, n: int64, at: timestamp_ms}
    event_time: {column: at}
  visits:
    type: file
    path: DIRECTORY/visits.jsonl
    follow: true
    schema: {id: int64, page: string, at: timestamp_ms}
    event_time: {column: at}
steps:
  some: {input: orders, where: n > 0}
  sums: {input: some, key: [item], window: {tumble: 10s}, aggregate: {n: sum(n), rows: count(*)}}
  seen:
    join: {left: some, right: visits, match: left.id = right.id, within: [0s, 1h]}
    select: {id: left.id, page: right.page}
  first: {input: orders, deduplicate: {key: [id], ttl: 1h}}
sinks:
  out1: {type: blackhole, input: sums}
  out2: {type: blackhole, input: seen}
  out3: {type: blackhole, input: first}
"""
_FILE: Final = """\
    type: file
    path: DIRECTORY/visits.jsonl
    follow: true
    schema: {id: int64, page: string, at: timestamp_ms}"""
_GENERATED: Final = """\
    type: datagen
    rate: 1
    columns: {id: {sequence: {start: 0}}, page: {choice: [a, b]}, at: {time: {start: 2026-01-01T00:00:00Z}}}"""
_EDITS: Final = {  # each is texts of the file and what comes in their places
    "another condition": [("n > 0", "n > 1")],
    "a step more": [
        ("steps:\n", "steps:\n  more: {input: orders, add: {m: n + 1}}\n"),
        ("input: some, key", "input: more, key"),
    ],
    "another aggregate": [("rows: count(*)", "rows: count(n)")],
    "another window": [("tumble: 10s", "tumble: 20s")],
    "having": [("rows: count(*)}", "rows: count(*)}, having: n > 3")],
    "renamed": [("  sums: {", "  totals: {was: sums, "), ("input: sums", "input: totals")],
    "renamed, unsaid": [("  first: {", "  once: {"), ("input: first", "input: once")],
    "more subtasks": [("parallelism: 1", "parallelism: 3")],
    "more subtasks of one": [("  seen:\n", "  seen:\n    parallelism: 2\n")],
    "other columns joined": [("page: right.page}", "page: right.page, item: left.item}")],
    "a wider interval": [("within: [0s, 1h]", "within: [0s, 2h]")],
    "another kind of join": [("match: left", "kind: left, match: left")],
    "a column more": [("page: string", "page: string, device: string")],
    "keep the last": [("deduplicate: {key: [id], ttl: 1h}", "deduplicate: {key: [id], keep: last, ttl: 1h}")],
    "another lifetime": [("ttl: 1h", "ttl: 2h")],
    "a branch less": [("  out2: {type: blackhole, input: seen}\n", "")],
    "key groups": [("parallelism: 1", "max_parallelism: 64, parallelism: 1")],
    "a path that names it no more": [("visits.jsonl", "*.visits")],
    "another type": [(_FILE, _GENERATED)],
}


def _edited(text: str, names: list[str]) -> str:
    for name in names:
        for old, new in _EDITS[name]:
            text = text.replace(old, new)
    return text


def _write(directory: Path, first: int) -> None:
    for name, rest in (("orders", {"item": "a", "n": 2}), ("visits", {"page": "p", "device": "d"})):
        with (directory / f"{name}.jsonl").open("a") as file:
            for number in range(first, first + 5):
                file.write(json.dumps({"id": number, **rest, "at": _BASE_MS + number * 3000}) + "\n")


async def _checkpoint(file: Path) -> Manifest:
    """Run until everything is read, and stop."""
    async with running(file) as run:
        await run.until(lambda: run.status.records_in >= 10)
        await run.stop()
    store = CheckpointStore.open(f"file:{file.parent}/checkpoints", "shop")
    return read_manifest(store, list_checkpoints(store)[-1])


def _plan(old: LogicalGraph, new: LogicalGraph, stored: Manifest | None, *, runs: bool) -> PlanView:
    return make_plan(pipeline="shop", revision=1, old=old, new=new, stored=stored, running=runs)


async def _goes_on(file: Path, dropped: frozenset[str]) -> None:
    """It runs, reads more, and completes a checkpoint of what it has now."""
    _write(file.parent, 5)
    async with running(file, dropped=dropped) as run:
        await run.until(lambda: run.status.records_in >= 5)
        savepoint = await run.control.savepoint()
        assert savepoint > 0
        result = await run.stop()
    assert result.status == "stopped", result.failure


@given(names=st.lists(st.sampled_from(sorted(_EDITS)), min_size=1, max_size=3, unique=True))
@settings(max_examples=8, deadline=None)
def test_what_is_kept_is_taken_over_and_what_is_lost_must_be_allowed(names: list[str]) -> None:
    asyncio.run(_scenario(names))


@pytest.mark.parametrize("name", sorted(_EDITS))
async def test_one_edit(name: str) -> None:
    await _scenario([name])


async def _scenario(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        file = directory / "shop.yaml"
        file.write_text(_PIPELINE.replace("DIRECTORY", folder))
        _write(directory, 0)
        old = load_pipeline(file)
        stored = await _checkpoint(file)

        file.write_text(_edited(_PIPELINE, names).replace("DIRECTORY", folder))
        new = load_pipeline(file)
        plan = _plan(old, new, stored, runs=False)
        asked_before = _plan(old, new, stored, runs=True)
        assert plan.changes == asked_before.changes, "a running pipeline was promised the same"

        dropped, physical = dropped_names(plan), plan_physical(new)
        for name in dropped:
            with pytest.raises(IncompatibleCheckpoint):
                fitted(physical, stored, committed=True, dropped=dropped - {name})
        taken = fitted(physical, stored, committed=True, dropped=dropped)
        kept = {each.name for each in plan.changes if each.state in ("kept", "migrated")}
        assert kept == taken.sources.keys() | taken.steps.keys()
        await _goes_on(file, dropped)
