"""Moves snapshots from local disk to the checkpoint store: only new files, each with its checksum.

A stored file is written by one upload under `files/<attempt>-<checkpoint>/<sha256>` and never changed;
later checkpoints refer to it. The upload in the name is what makes collecting garbage safe: files of an
upload that may still be going on are known by their name, whatever is or is not yet acknowledged.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from state.backend import LocalSnapshot
from state.failure import CorruptCheckpoint, state_error
from state.store import CheckpointStore

_FILES = "files/"
_STORED_NAME = re.compile(r"files/(\d+)-(\d+)/[0-9a-f]{64}")
IMMUTABLE: Final = (".sst", ".blob")  # written once under a number that one database never uses twice


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file in the checkpoint store; `size` in bytes, `sha256` in hex."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, order=True)
class UploadId:
    """Which checkpoint of which attempt uploads; ordered as they follow each other."""

    attempt: int
    checkpoint: int


def upload(
    store: CheckpointStore, snapshot: LocalSnapshot, known: Mapping[str, StoredFile], upload_id: UploadId
) -> dict[str, StoredFile]:
    """Store the files of a snapshot; returns where each is: local file name → stored file.

    `known` is what this returned for the last *completed* checkpoint of the same database, or what the
    database was restored from in place; empty for a database made anew (created, or clipped at a rescale).
    Its table files are not read again, and nothing unchanged is sent again.
    """
    return {name: _upload_file(store, snapshot.directory / name, known.get(name), upload_id) for name in snapshot.files}


def _upload_file(store: CheckpointStore, path: Path, known: StoredFile | None, upload_id: UploadId) -> StoredFile:
    try:
        size = path.stat().st_size
        if known is not None and path.suffix in IMMUTABLE and known.size == size:
            return known
        digest = sha256_of(path)
    except OSError as error:
        raise state_error(f"cannot read {path} to upload it", error) from error
    if known is not None and known.sha256 == digest:
        return known
    stored = StoredFile(f"{_FILES}{upload_id.attempt}-{upload_id.checkpoint}/{digest}", digest, size)
    store.put(stored.name, path)
    return stored


def verify(store: CheckpointStore, stored: StoredFile, path: Path) -> None:
    """Raise CorruptCheckpoint unless the local copy at `path` has the stored file's size and sha256."""
    size = path.stat().st_size
    if size != stored.size:
        raise CorruptCheckpoint(f"{stored.name} in {store.shown} has {size} bytes instead of {stored.size}")
    if sha256_of(path) != stored.sha256:
        raise CorruptCheckpoint(f"{stored.name} in {store.shown} does not match its sha256")


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unreferenced(all_files: Iterable[str], live: Set[str], completed: UploadId) -> list[str]:
    """Stored files nobody needs: not in `live`, and of uploads that were over when `completed` completed."""
    return [name for name in all_files if name not in live and _was_over(name, completed)]


def _was_over(name: str, completed: UploadId) -> bool:
    match = _STORED_NAME.fullmatch(name)
    return match is not None and UploadId(int(match[1]), int(match[2])) <= completed


def collect(store: CheckpointStore, live: Callable[[], Set[str]], completed: UploadId) -> int:
    """Delete unreferenced files; returns how many.

    `live` names the files of every checkpoint that is kept; it is asked after the files were listed, and
    may raise to call the collection off (an attempt that finds it was superseded). `completed` is the
    newest completed checkpoint: uploads after it, also those of a newer attempt, are left alone.
    """
    listed = [name for name, _ in store.list(_FILES)]
    dead = unreferenced(listed, live(), completed)
    for name in dead:
        store.delete(name)
    return len(dead)
