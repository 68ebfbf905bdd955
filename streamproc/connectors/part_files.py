"""Part files of a sink: written under a hidden name, made durable, and renamed once when committed.

    .<pipeline>.<sink>.<part>.inprogress   →   part-<subtask>-<checkpoint>-<n>-<token>.<extension>

The token is new with every writer, so a name is never used twice and a rename never meets a file. A
folder's `.committed` files name what was committed lately: a part that is missing but named there was
finished and taken away by its reader; one that is named nowhere is lost.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, ClassVar, Final, Protocol

import polars as pl
import pyarrow.parquet
from fsspec.implementations.local import LocalFileSystem

from state.failure import Actor, Failure
from streamproc.connectors.file_system import FileSystem
from streamproc.formats.csv import CsvEncoder
from streamproc.formats.parquet import ParquetEncoder
from streamproc.formats.protocol import LineEncoder

_IN_PROGRESS: Final = ".inprogress"
_COMMITTED: Final = ".committed"
_NOTED_MAX: Final = 1000  # names a `.committed` file keeps: enough for any checkpoint that is still stored


class PartLost(Failure):
    """A part file that a completed checkpoint counts on is neither there nor known to have been."""

    acts: ClassVar[Actor] = "world"


class Part(Protocol):
    """One open part file."""

    def write(self, frame: pl.DataFrame) -> int:
        """Append rows; returns the bytes in the file so far, about."""

    def finish(self) -> None:
        """Write what the format needs at the end; the file itself stays open."""

    def abandon(self) -> None:
        """Nothing more will be written, and what was will be thrown away."""


class LinePart:
    """A part of encoded lines."""

    def __init__(self, file: IO[bytes], encoder: LineEncoder) -> None:
        self._file = file
        self._encoder = encoder
        self._bytes = file.write(encoder.header) if isinstance(encoder, CsvEncoder) else 0

    def write(self, frame: pl.DataFrame) -> int:
        self._bytes += self._file.write(self._encoder.encode_lines(frame))
        return self._bytes

    def finish(self) -> None:
        self._file.flush()

    def abandon(self) -> None:
        pass


class ParquetPart:
    """A Parquet part: rows are gathered into row groups of a useful size."""

    _ROW_GROUP_BYTES: ClassVar[int] = 16 << 20

    def __init__(self, file: IO[bytes], encoder: ParquetEncoder) -> None:
        self._file = file
        self._encoder = encoder
        self._writer = pyarrow.parquet.ParquetWriter(file, encoder.schema, compression="zstd")
        self._gathered: list[pl.DataFrame] = []
        self._gathered_bytes = 0

    def write(self, frame: pl.DataFrame) -> int:
        self._gathered.append(frame)
        self._gathered_bytes += int(frame.estimated_size())
        if self._gathered_bytes >= self._ROW_GROUP_BYTES:
            self._write_row_group()
        return self._file.tell() + self._gathered_bytes

    def finish(self) -> None:
        self._write_row_group()
        self._writer.close()

    def abandon(self) -> None:
        with suppress(OSError):  # otherwise pyarrow does it when the writer is collected, into a closed file
            self._writer.close()

    def _write_row_group(self) -> None:
        if self._gathered:
            self._writer.write_table(self._encoder.encode(pl.concat(self._gathered)))
            self._gathered, self._gathered_bytes = [], 0


class PartFolder:
    """The folder of one sink. Every method may block."""

    def __init__(self, fs: FileSystem, folder: str, pipeline: str, sink: str) -> None:
        self._fs = fs
        self._local = isinstance(fs, LocalFileSystem)
        self.folder = folder
        self._prefix = f".{pipeline}.{sink}."

    def pending_name(self, part: str) -> str:
        """The hidden name of a part until it is committed."""
        return f"{self._prefix}{part}{_IN_PROGRESS}"

    def create(self, pending: str) -> IO[bytes]:
        """A new file to write a part to."""
        path = self._path(pending)
        return Path(path).open("xb") if self._local else self._fs.open(path, "wb")

    def seal(self, file: IO[bytes]) -> None:
        """Close a part so that it survives a crash of the machine."""
        if self._local:
            file.flush()
            os.fsync(file.fileno())
        file.close()
        self._sync_folder(self.folder)

    def commit(self, parts: Iterable[Mapping[str, Any]], marker: str) -> None:
        """Give the parts their final names, then note them as committed. Harmless when repeated."""
        committed: list[str] = []
        for part in parts:
            self._rename(str(part["folder"]), str(part["pending"]), str(part["final"]), int(part["bytes"]))
            committed.append(str(part["final"]))
        if committed:
            name = f"{self._prefix}{marker}{_COMMITTED}"
            self._note(name, [*self._noted(self._path(name)), *committed][-_NOTED_MAX:])

    def recover(self, parts: Iterable[Mapping[str, Any]]) -> None:
        """Finish the commits of a restored checkpoint and remove every other unfinished part of this sink."""
        self._fs.makedirs(self.folder, exist_ok=True)
        self._fs.invalidate_cache()
        parts = list(parts)
        folders = self._folders(parts)
        taken_away = {
            name
            for folder in folders
            for marker in self._ours(folder, _COMMITTED)
            for name in self._noted(f"{folder}/{marker}")
        }
        self.commit([part for part in parts if not self._is_finished(part, taken_away)], "recovered")
        for folder in folders:
            for name in self._ours(folder, _IN_PROGRESS):
                with suppress(FileNotFoundError):
                    self._fs.rm_file(f"{folder}/{name}")

    def _is_finished(self, part: Mapping[str, Any], taken_away: set[str]) -> bool:
        """Nothing to rename and no loss either: the reader took it, or the folder was moved as a whole."""
        there = self._fs.exists(f"{part['folder']}/{part['pending']}")
        return not there and (part["final"] in taken_away or self._fs.exists(self._path(part["final"])))

    def _folders(self, parts: Iterable[Mapping[str, Any]]) -> list[str]:
        folders = sorted({self.folder, *(str(part["folder"]) for part in parts)})
        return [folder for folder in folders if self._fs.isdir(folder)]

    def _noted(self, marker: str) -> list[str]:
        try:
            names: list[str] = json.loads(self._fs.cat_file(marker))
        except (FileNotFoundError, ValueError):  # none yet, or torn: then the parts are still where they were
            return []
        return names

    def _ours(self, folder: str, suffix: str) -> list[str]:
        names = [PurePosixPath(path).name for path in self._fs.ls(folder, detail=False)]
        return [name for name in names if name.startswith(self._prefix) and name.endswith(suffix)]

    def _rename(self, folder: str, pending: str, final: str, size: int) -> None:
        source, target = f"{folder}/{pending}", f"{folder}/{final}"
        if self._local:
            try:
                Path(source).rename(target)
            except FileNotFoundError:
                if not Path(target).exists():
                    raise PartLost(_lost(source)) from None
            self._sync_folder(folder)
            return
        if self._fs.exists(source):
            if self._fs.exists(target):
                if self._fs.size(target) == size:  # a copy that was not followed by its delete
                    self._fs.rm_file(source)
                    return
                self._fs.rm_file(target)  # `mv` onto an existing file does nothing on some file systems
            self._fs.mv(source, target)
        if not self._fs.exists(target):
            raise PartLost(_lost(source))

    def _note(self, name: str, committed: list[str]) -> None:
        content = json.dumps(committed).encode()
        if not self._local:
            self._fs.pipe_file(self._path(name), content)
            return
        new = Path(self._path(name + ".new"))
        new.write_bytes(content)
        new.replace(self._path(name))

    def _path(self, name: object) -> str:
        return f"{self.folder}/{name}"

    def _sync_folder(self, folder: str) -> None:
        if self._local:
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _lost(path: str) -> str:
    return (
        f"{path} was prepared by a completed checkpoint and is gone without having been committed: "
        "its rows are lost unless the job goes back to an older checkpoint"
    )
