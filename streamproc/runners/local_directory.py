"""Where a running job keeps local state: a directory that lives as long as its process.

Local state is never a source of truth, checkpoints are: what a killed process left is removed by the
next one. A lock held by the living process tells the two apart; a directory gets another name before it is removed,
so what a process that was killed meanwhile leaves is known for what it is. Removing takes as long as there is state,
so it is done on worker threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TextIO

from state.failure import state_error

_GONE: Final = "gone-"


@asynccontextmanager
async def local_directory(root: Path, pipeline: str) -> AsyncIterator[Path]:
    """A new directory below `root`/`pipeline`, removed on leaving. Raises StateError."""
    directory, lock = await asyncio.to_thread(_make, root / pipeline)
    try:
        yield directory
    finally:
        await asyncio.to_thread(_remove, directory, lock)


def _make(parent: Path) -> tuple[Path, TextIO]:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent)
        directory = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
        lock = (directory / "lock").open("w")
    except OSError as error:
        raise state_error(f"cannot make a folder for local state in {parent}", error) from error
    fcntl.flock(lock, fcntl.LOCK_EX)
    return directory, lock


def _remove(directory: Path, lock: TextIO) -> None:
    gone = directory.with_name(f"{_GONE}{directory.name}")
    with contextlib.suppress(OSError):
        directory.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
    lock.close()


def _remove_abandoned(parent: Path) -> None:
    for gone in parent.glob(f"{_GONE}*"):
        shutil.rmtree(gone, ignore_errors=True)
    for directory in parent.glob("run-*"):
        try:
            with (directory / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(directory, lock)
        except BlockingIOError:
            continue  # its process is alive
        except OSError:
            continue  # just being made, or just being removed
