"""A running job is asked: for a savepoint, to drain, to go on from an older checkpoint, to lose a step's state."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from state.store import CheckpointStore
from streamproc.checkpoint.compatibility import IncompatibleCheckpoint
from streamproc.checkpoint.recovery import list_checkpoints, list_savepoints, release_savepoint
from tests.faults.running import running

_PIPELINE = """
version: 1
pipeline: sums
job: {checkpoint: {every: 100ms, keep: 1, storage: "file:DIRECTORY/checkpoints"}}
sources:
  orders:
    type: file
    path: DIRECTORY/orders.jsonl
    follow: true
    schema: {item: string, n: int64, at: timestamp_ms}
    event_time: {column: at}
steps:
  sums: {input: orders, key: [item], window: {tumble: 10s}, aggregate: {n: sum(n)}}
sinks:
  out: {type: file, input: sums, path: DIRECTORY/out}
"""
_BASE_MS = 1_767_225_600_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.yaml").write_text(_PIPELINE.replace("DIRECTORY", str(tmp_path)))
    return tmp_path / "pipeline.yaml"


def write(file: Path, *rows: tuple[str, int, int]) -> None:
    """`(item, n, seconds)`."""
    with (file.parent / "orders.jsonl").open("a") as orders:
        for item, n, at_s in rows:
            orders.write(json.dumps({"item": item, "n": n, "at": _BASE_MS + at_s * 1000}) + "\n")


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def results(file: Path) -> list[tuple[Any, ...]]:
    """`(item, n, start of the window in seconds)`."""
    rows = [json.loads(line) for part in (file.parent / "out").glob("part-*") for line in part.read_text().splitlines()]
    return sorted((row["window_start"][17:19], row["item"], row["n"]) for row in rows)


def store(file: Path) -> CheckpointStore:
    return CheckpointStore.open(f"file:{file.parent}/checkpoints", "sums")


async def test_a_savepoint_outlives_the_checkpoints_after_it_until_it_is_released(file: Path) -> None:
    write(file, ("a", 1, 1))
    async with running(file) as run:
        await run.until(lambda: run.status.records_in == 1)
        savepoint = await run.control.savepoint()
        await run.until(lambda: (run.status.checkpoint or 0) >= savepoint + 4)
        assert list_savepoints(store(file)) == [savepoint]
        kept = list_checkpoints(store(file))
        assert kept[0] == savepoint
        assert len(kept) <= 3, "the periodic ones go, whatever is kept beside them"
        release_savepoint(store(file), savepoint)
        await run.until(lambda: savepoint not in list_checkpoints(store(file)))
        assert list_savepoints(store(file)) == []


async def test_one_can_go_back_to_a_savepoint(file: Path) -> None:
    write(file, ("a", 1, 1))
    async with running(file) as run:
        await run.until(lambda: run.status.records_in == 1)
        savepoint = await run.control.savepoint()
        write(file, ("a", 2, 2), ("a", 0, 30))
        await run.until(lambda: results(file) == [("00", "a", 3)])
        assert (await run.stop()).status == "stopped"
    async with running(file, restore_from=savepoint) as run:
        await run.until(lambda: run.status.records_in == 2)
        await run.until(lambda: results(file) == [("00", "a", 3)] * 2)
        assert (await run.stop()).status == "stopped"
    async with running(file) as run:  # from what came after, not from the savepoint once more
        await run.until(lambda: run.status.state == "running")
        assert (await run.stop()).status == "stopped"
        assert run.status.records_in == 0
    assert results(file) == [("00", "a", 3)] * 2


async def test_a_savepoint_that_a_user_asked_for_is_theirs_whoever_else_did(file: Path) -> None:
    write(file, ("a", 1, 1))
    async with running(file) as run:
        await run.until(lambda: run.status.records_in == 1)
        for_upgrade = await run.control.savepoint("upgrade")
        at_once = await asyncio.gather(run.control.savepoint("upgrade"), run.control.savepoint())
        assert at_once[0] == at_once[1]
        assert list_savepoints(store(file), by="upgrade") == [for_upgrade]
        assert list_savepoints(store(file)) == [for_upgrade, at_once[0]]


async def test_a_savepoint_asked_of_a_job_that_ends_is_refused(file: Path) -> None:
    write(file, ("a", 1, 1))
    async with running(file) as run:
        await run.until(lambda: run.status.records_in == 1)
        run.control.stop()
        asked = run.control.savepoint()
        assert (await run.result()).status == "stopped"
        if asked.exception() is None:  # it came between: then it is there
            assert asked.result() in list_savepoints(store(file))


async def test_draining_closes_every_window_and_what_comes_later_counts_from_there(file: Path) -> None:
    write(file, ("a", 1, 1), ("b", 2, 12))
    async with running(file) as run:
        await run.until(lambda: run.status.records_in == 2)
        run.control.stop(drain=True)
        assert (await run.result()).status == "drained"
    assert results(file) == [("00", "a", 1), ("10", "b", 2)]
    write(file, ("a", 5, 21), ("a", 0, 40))
    async with running(file) as run:
        await run.until(lambda: len(results(file)) == 3)
        assert run.status.late_records == 0
    assert results(file) == [("00", "a", 1), ("10", "b", 2), ("20", "a", 5)]


@pytest.mark.parametrize("asked", ["stop", "savepoint"])
async def test_a_checkpoint_in_the_midst_of_draining_knows_that_event_time_has_ended(file: Path, asked: str) -> None:
    write(file, ("a", 1, 1))
    async with running(file) as run:
        await run.until(lambda: run.status.records_in == 1)
        await run.checkpoints()
        run.control.stop(drain=True)
        while run.status.state != "stopping":  # noqa: ASYNC110  the very next step of the loop counts
            await asyncio.sleep(0)
        if asked == "stop":
            run.control.stop()
            assert (await run.result()).status == "drained"
            restore_from = None
        else:
            restore_from = await run.control.savepoint()
            await run.crash()
    write(file, ("a", 5, 2), ("a", 0, 30))
    async with running(file, restore_from=restore_from) as run:
        await run.until(lambda: len(results(file)) == 2)
        assert run.status.late_records == 0
    assert results(file) == [("00", "a", 1), ("00", "a", 5)]


async def test_state_that_does_not_fit_is_lost_only_where_that_was_allowed(file: Path) -> None:
    write(file, ("a", 1, 1), ("a", 2, 2))
    async with running(file) as run:
        await run.until(lambda: run.status.records_in == 2)
        assert (await run.stop()).status == "stopped"
    edit(file, "{n: sum(n)}", "{n: max(n)}")
    write(file, ("a", 1, 3), ("a", 0, 30))
    async with running(file) as run:
        assert isinstance((await run.result()).failure, IncompatibleCheckpoint)
    async with running(file, dropped=frozenset({"another"})) as run:
        assert isinstance((await run.result()).failure, IncompatibleCheckpoint)
    async with running(file, dropped=frozenset({"sums"})) as run:
        await run.until(lambda: results(file) == [("00", "a", 1)])
        assert (await run.stop()).status == "stopped"


async def test_going_back_to_what_does_not_fit_changes_nothing(file: Path) -> None:
    write(file, ("a", 1, 1))
    async with running(file) as run:
        await run.until(lambda: run.status.records_in == 1)
        savepoint = await run.control.savepoint()
        assert (await run.stop()).status == "stopped"
    edit(file, "{n: sum(n)}", "{n: max(n)}")
    write(file, ("a", 3, 2))
    async with running(file, dropped=frozenset({"sums"})) as run:
        await run.until(lambda: run.status.records_in == 1)
        assert (await run.stop()).status == "stopped"
    async with running(file, restore_from=savepoint) as run:
        assert isinstance((await run.result()).failure, IncompatibleCheckpoint)
    write(file, ("a", 2, 3), ("a", 0, 30))
    async with running(file) as run:
        await run.until(lambda: results(file) == [("00", "a", 3)])
        assert (await run.stop()).status == "stopped"


async def test_a_rename_that_is_done_may_stay_in_the_file(file: Path) -> None:
    write(file, ("a", 1, 1))
    async with running(file) as run:
        await run.until(lambda: run.status.records_in == 1)
        assert (await run.stop()).status == "stopped"
    edit(file, "  sums: {input: orders,", "  totals: {was: sums, input: orders,")
    edit(file, "input: sums", "input: totals")
    for n in (2, 3):
        write(file, ("a", n, n))
        async with running(file) as run:
            await run.until(lambda: run.status.records_in == 1)
            run.control.stop()
            assert (await run.result()).status == "stopped"
    write(file, ("a", 0, 30))
    async with running(file) as run:
        await run.until(lambda: results(file) == [("00", "a", 6)])
        assert (await run.stop()).status == "stopped"
