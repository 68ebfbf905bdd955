"""Damage in the checkpoint store is found by checksum, told, and the checkpoint before is used."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from operators.element import CheckpointId
from state.failure import CorruptCheckpoint
from streamproc.checkpoint.manifest import manifest_name
from streamproc.checkpoint.recovery import read_manifest, survey
from tests.faults.file_orders import FileOrders
from tests.faults.running import Run, running

Damage = Callable[[Path], None]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def tear(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def lose(path: Path) -> None:
    path.unlink()


async def two_halves(orders: FileOrders) -> tuple[CheckpointId, CheckpointId]:
    """100 orders, then 100 more, all committed; a crash. The newest checkpoint with the first half only, and the
    newest of all."""
    async with running(orders.file) as run:
        orders.append(100)
        await run.until(lambda: len(orders.copies()) == 100)
        await run.checkpoints(1)  # sinks commit a moment before the checkpoint counts as complete
        half = run.status.checkpoint
        orders.append(100)
        await run.until(lambda: len(orders.copies()) == 200)
        await run.checkpoints(2)
    assert half is not None
    return CheckpointId(half), max(survey(orders.store).manifests)


def restored(orders: FileOrders, run: Run) -> int:
    """The checkpoint it went on from, which it must have recorded."""
    (entry,) = run.told("going on from a checkpoint")
    record = orders.stored(f"attempts/{entry['attempt']:08d}-restored")
    assert json.loads(record.read_text()) == {"restored_from": entry["checkpoint"]}
    checkpoint: int = entry["checkpoint"]
    return checkpoint


@pytest.mark.parametrize("damage", [flip, tear, lose])
async def test_damaged_manifests(tmp_path: Path, damage: Damage) -> None:
    """Everything since the last whole checkpoint is done again: its results are there twice, and that is told."""
    orders = FileOrders(tmp_path)
    half, newest = await two_halves(orders)
    for checkpoint in range(half + 1, newest + 1):
        damage(orders.stored(manifest_name(checkpoint)))
    async with running(orders.file) as run:
        await run.until(lambda: orders.copies()[199] == 2)
        assert restored(orders, run) == half
        assert "going on from an older one" in str(run.status.failures[0].failure)
        alarms = run.told("checkpoint damaged")
        assert {entry["log_level"] for entry in alarms} == {"error"}
        assert any(manifest_name(newest) in entry["reason"] for entry in alarms)
        assert run.status.checkpoint is not None
        assert run.status.checkpoint > newest, "a number is never used again"
        assert orders.copies() == Counter({number: 1 if number < 100 else 2 for number in range(200)})
        await orders.finish(run)


@pytest.mark.parametrize("parallelism", [1, 2], ids=["in-place", "rescaled"])
@pytest.mark.parametrize("damage", [flip, tear, lose])
async def test_damaged_state_file(tmp_path: Path, damage: Damage, parallelism: int) -> None:
    """A file of the newest checkpoint: the newest of those that do not share it is used."""
    orders = FileOrders(tmp_path)
    half, newest = await two_halves(orders)
    files = {file.name for file in read_manifest(orders.store, newest).files()}
    before = {file.name for file in read_manifest(orders.store, half).files()}
    victim = sorted(files - before)[0]
    damage(orders.stored(victim))
    whole = [c for c, m in survey(orders.store).manifests.items() if victim not in {f.name for f in m.files()}]
    async with running(FileOrders(tmp_path, parallelism=parallelism).file) as run:
        await run.until(lambda: run.status.state == "running")
        assert restored(orders, run) == max(whole) < newest
        (alarm,) = run.told("checkpoint damaged")[-1:]
        assert victim in alarm["reason"]
        assert f"checkpoint {newest}:" in alarm["reason"]
        await orders.finish(run)
    async with running(orders.file) as run:  # and it never goes back to what it passed over
        await run.until(lambda: run.status.state == "running")
        assert restored(orders, run) > newest
        assert not run.told("checkpoint damaged")


async def test_no_whole_checkpoint_is_a_failure_not_a_new_beginning(tmp_path: Path) -> None:
    orders = FileOrders(tmp_path)
    _, newest = await two_halves(orders)
    for path in orders.stored("files").rglob("*"):
        if path.is_file():
            flip(path)
    async with running(orders.file) as run:
        result = await run.result()
        assert isinstance(result.failure, CorruptCheckpoint)
        assert f"checkpoint {newest}: " in str(result.failure)
        assert "To begin anew, which writes all results again" in str(result.failure)
    assert orders.copies() == Counter(range(200))
    async with running(orders.file, restore_from=newest) as run:
        assert isinstance((await run.result()).failure, CorruptCheckpoint)


async def test_an_empty_store_is_a_new_beginning(tmp_path: Path) -> None:
    orders = FileOrders(tmp_path)
    async with running(orders.file) as run:
        orders.append(200)
        await run.until(lambda: len(orders.copies()) == 200)
        await orders.finish(run)
