"""A checkpoint store in a folder: a name appears with its whole content on disk, or not at all.

Content is written to a `.tmp-…` file in the store's root, synced, and then given its name in one step.
A process that is killed leaves at most such files behind; they are never listed and can be swept.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_TEMPORARY = ".tmp-"


class LocalFolder:
    """Raises plain OSErrors; `state.store.CheckpointStore` says what they mean."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return (self._root / name).read_bytes()

    def create(self, name: str, content: bytes) -> None:
        """Write a file; FileExistsError when the name is taken. Of several racing, exactly one wins."""
        with self._temporary() as (temporary, file):
            file.write(content)
            _sync(file)
            # Unlike a rename, a link never replaces what is there.
            self._publish(name, lambda target: os.link(temporary, target))

    def put(self, name: str, source: Path) -> None:
        """Copy `source` to `name`, replacing what is there in one step."""
        with self._temporary() as (temporary, file):
            with source.open("rb") as original:
                shutil.copyfileobj(original, file, 1 << 20)
            _sync(file)
            self._publish(name, lambda target: temporary.replace(target))

    def get(self, name: str, target: Path) -> None:
        """Copy a file to `target`."""
        shutil.copyfile(self._root / name, target)

    def size(self, name: str) -> int | None:
        """Bytes of a file; None when there is none."""
        try:
            found = (self._root / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Names that start with `prefix` and their bytes, in no order."""
        parent, _, start = prefix.rpartition("/")
        yield from self._walk(parent, start)

    def delete(self, name: str) -> None:
        """Remove a file, and the folders that become empty by it."""
        path = self._root / name
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == self._root:
                return
            try:
                folder.rmdir()
            except OSError:
                return

    def sweep(self, age_seconds_min: float) -> int:
        """Remove what killed writers left behind and nobody has touched for that long; how many."""
        newest = time.time() - age_seconds_min
        swept = 0
        for path in self._root.glob(f"{_TEMPORARY}*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime <= newest:
                    path.unlink()
                    swept += 1
        return swept

    def _walk(self, folder: str, start: str) -> Iterator[tuple[str, int]]:
        try:
            entries = list(os.scandir(self._root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if not entry.name.startswith(start) or entry.name.startswith(_TEMPORARY):
                continue
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(name, "")
            else:
                # A file deleted since the folder was read is not there.
                with contextlib.suppress(FileNotFoundError):
                    yield name, entry.stat().st_size

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[tuple[Path, BinaryIO]]:
        _make_folder(self._root)
        path = self._root / f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}"
        try:
            with path.open("xb") as file:
                yield path, file
        finally:
            path.unlink(missing_ok=True)

    def _publish(self, name: str, give_name: Callable[[Path], object]) -> None:
        target = self._root / name
        try:
            _make_folder(target.parent)
            give_name(target)
        except FileNotFoundError:
            # Somebody deleted the last file in that folder, and the folder with it, just between the two.
            _make_folder(target.parent)
            give_name(target)
        _sync_folder(target.parent)


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    if folder.parent != folder:
        _make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file is where a folder should be", str(folder)) from None
    _sync_folder(folder.parent)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """A new name survives a power cut only once its folder is on disk too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
