"""A checkpoint store on any fsspec file system: object stores, HDFS, or `memory://` in tests.

Create-if-absent is as exclusive as the file system makes `pipe_file(mode="create")`: a conditional write
on S3 and GCS; elsewhere possibly a look before a write, which two writers at the same instant can pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec


class FsspecFolder:
    """Raises what the file system raises; `state.store.CheckpointStore` says what it means."""

    def __init__(self, filesystem: fsspec.AbstractFileSystem, root: str) -> None:
        self._fs: Any = filesystem  # untyped
        self._root = root.rstrip("/")

    def read(self, name: str) -> bytes:
        """The content of a file."""
        content: bytes = self._fs.cat_file(self._path(name))
        return content

    def create(self, name: str, content: bytes) -> None:
        """Write a file; FileExistsError when the name is taken."""
        # Looking first: file systems that do not know the mode ignore it and would overwrite.
        if self.size(name) is not None:
            raise FileExistsError(name)
        path = self._path(name)
        try:
            self._fs.pipe_file(path, content, mode="create")
        except FileNotFoundError:
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(path, content, mode="create")

    def put(self, name: str, source: Path) -> None:
        """Copy `source` to `name`."""
        self._fs.put_file(str(source), self._path(name))

    def get(self, name: str, target: Path) -> None:
        """Copy a file to `target`."""
        self._fs.get_file(self._path(name), str(target))

    def size(self, name: str) -> int | None:
        """Bytes of a file; None when there is none."""
        self._fs.invalidate_cache()
        try:
            info = self._fs.info(self._path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Names that start with `prefix` and their bytes, in no order."""
        self._fs.invalidate_cache()
        parent, _, start = prefix.rpartition("/")
        folder = self._path(parent) if parent else self._root
        try:
            entries = self._fs.ls(folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if not entry["name"].rstrip("/").rpartition("/")[2].startswith(start):
                continue
            found = self._fs.find(entry["name"], detail=True) if entry["type"] == "directory" else {0: entry}
            for file in found.values():
                yield file["name"].removeprefix(self._root).lstrip("/"), int(file["size"])

    def delete(self, name: str) -> None:
        """Remove a file."""
        try:
            self._fs.rm_file(self._path(name))
        except FileNotFoundError:
            return

    def sweep(self, age_seconds_min: float) -> int:
        """Object stores show no half-written files: nothing to do."""
        return 0

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
