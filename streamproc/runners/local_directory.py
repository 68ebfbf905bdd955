"""Where a running job keeps local state: a directory that lives as long as its process.

Local state is never a source of truth, checkpoints are: what a killed process left is removed by the
next one. A lock held by the living process tells the two apart.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def local_directory(root: Path, pipeline: str) -> Iterator[Path]:
    """A new directory below `root`/`pipeline`, removed on leaving."""
    parent = root / pipeline
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent)
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    for directory in parent.glob("run-*"):
        try:
            with (directory / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
        except BlockingIOError:
            continue  # its process is alive
        except OSError:
            continue  # just being made, or just being removed
