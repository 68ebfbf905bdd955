"""Verified local copies of a checkpoint's state files, fetched before anything is built on the checkpoint.

As long as not every byte is here and matches its checksum, another checkpoint can still be chosen. Each file is
fetched once, however many checkpoints tried or subtasks to be restored refer to it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from state.failure import CorruptCheckpoint, NotInStore, state_error
from state.snapshot import IMMUTABLE, StoredFile, verify
from state.store import CheckpointStore

_LOCAL_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class RestoredFiles:
    """Copies below `directory`, which is made when needed. Not from two threads at once."""

    def __init__(self, store: CheckpointStore, directory: Path) -> None:
        self._store = store
        self._directory = directory

    def fetch(self, files: Iterable[StoredFile]) -> None:
        """Have all of them here; CorruptCheckpoint, naming the first that is missing or not what was stored."""
        for stored in files:
            if not _SHA256.fullmatch(stored.sha256):
                raise CorruptCheckpoint(f"a checkpoint in {self._store.shown} names the sha256 {stored.sha256!r}")
            if not (self._directory / stored.sha256).exists():
                self._fetch(stored)

    def place(self, files: Mapping[str, StoredFile], directory: Path) -> None:
        """Put fetched files into a new directory under their local names, for a database to be opened there."""
        for local_name in files:
            if not _LOCAL_NAME.fullmatch(local_name):
                raise CorruptCheckpoint(f"a checkpoint in {self._store.shown} names a local file {local_name!r}")
        try:
            directory.mkdir(parents=True)
            for local_name, stored in files.items():
                _place(self._directory / stored.sha256, directory / local_name)
        except OSError as error:
            raise state_error(f"cannot restore state to {directory}", error) from error

    def remove(self) -> None:
        """Forget the copies; what was placed stays."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _fetch(self, stored: StoredFile) -> None:
        target = self._directory / stored.sha256
        arriving = self._directory / "arriving"
        try:
            self._store.get(stored.name, arriving)
            try:
                verify(self._store, stored, arriving)
            except CorruptCheckpoint:
                # Torn on its way, or in the store? Only the second is damage.
                self._store.get(stored.name, arriving)
                verify(self._store, stored, arriving)
        except NotInStore as error:
            raise CorruptCheckpoint(f"{stored.name} is missing from {self._store.shown}") from error
        arriving.rename(target)


def _place(source: Path, target: Path) -> None:
    """A link where a database never writes to the file again."""
    if target.suffix in IMMUTABLE:
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # a file system without links
    shutil.copyfile(source, target)
