"""Writes files that appear finished, and only when the checkpoint that holds their rows completes.

The path is always a folder. A part is closed at every checkpoint and when it grows large; see
`part_files` for names and commits.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import IO, Any, Final

import polars as pl

from operators.connector import Committable
from operators.element import Schema
from streamproc.connectors.file_system import FileSystemError, folder_at, shown
from streamproc.connectors.part_files import LinePart, ParquetPart, Part, PartFolder
from streamproc.formats.csv import CsvEncoder
from streamproc.formats.json_encoder import JsonEncoder
from streamproc.formats.parquet import ParquetEncoder
from streamproc.formats.protocol import FormatError
from streamproc.pipeline.format_spec import CsvFormat, JsonFormat, ParquetFormat
from streamproc.pipeline.spec import FileSinkSpec

PART_BYTES_MAX: Final = 128 << 20
_EXTENSIONS: Final = {"json": "jsonl", "csv": "csv", "parquet": "parquet"}


class FileSink:
    """A `file` sink as configured."""

    def __init__(self, pipeline: str, name: str, config: FileSinkSpec, schema: Schema) -> None:
        self.name = name
        self.where = shown(config.path)
        fs, folder = folder_at(config.path)
        self.folder = PartFolder(fs, folder, pipeline, name)
        self.open_part = _part_maker(config, schema)
        self.extension = _EXTENSIONS[config.format.type]

    async def recover(self, committables: Sequence[Committable], parallelism: int) -> None:
        """Finish the commits of the restored checkpoint; remove what else an earlier attempt left."""
        await self.io(self.folder.recover, committables)

    def writer(self, subtask: int, parallelism: int) -> FileWriter:
        """The writer of one subtask."""
        return FileWriter(self, subtask)

    async def close(self) -> None:
        """Nothing is held open."""

    async def io(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Run on a worker thread; what the file system raises becomes a failure that names the sink."""
        try:
            return await asyncio.to_thread(call, *arguments)
        except OSError as error:
            raise FileSystemError(f"sink {self.name}: {self.where}: {error}") from error


def _part_maker(config: FileSinkSpec, schema: Schema) -> Callable[[IO[bytes]], Part]:
    match config.format:
        case ParquetFormat():
            table_encoder = ParquetEncoder(schema)
            return lambda file: ParquetPart(file, table_encoder)
        case CsvFormat(delimiter=delimiter, header=header):
            csv_encoder = CsvEncoder(schema, delimiter, header)
            return lambda file: LinePart(file, csv_encoder)
        case JsonFormat(timestamps=timestamps):
            json_encoder = JsonEncoder(schema, timestamps)
            return lambda file: LinePart(file, json_encoder)
    raise FormatError(f"files cannot be written as {config.format.type}")


class FileWriter:
    """One subtask's part files: at most one open, sealed ones waiting for their checkpoint."""

    def __init__(self, sink: FileSink, subtask: int) -> None:
        self._sink = sink
        self._folder = sink.folder
        self._subtask = subtask
        self._token = secrets.token_hex(4)
        self._number = 0
        self._file: IO[bytes] | None = None
        self._part: Part | None = None
        self._pending = ""
        self._sealed: list[dict[str, Any]] = []  # not yet part of a checkpoint
        self._prepared: list[tuple[int, dict[str, Any]]] = []  # by the checkpoint that first held them
        self._broken: BaseException | None = None

    async def open(self) -> None:
        """The folder exists since `recover`; a part is created with its first row."""

    async def write(self, frame: pl.DataFrame) -> None:
        """Append rows to the open part; start another when it is full."""
        if frame.height:
            await self._run(self._append, frame)

    async def prepare(self, checkpoint: int) -> Sequence[Committable]:
        """Seal the open part; returns every part that no completed checkpoint holds."""
        await self._run(self._seal)
        for number, part in enumerate(self._sealed):
            final = f"part-{self._subtask}-{checkpoint}-{number}-{self._token}.{self._sink.extension}"
            self._prepared.append((checkpoint, {**part, "final": final}))
        self._sealed = []
        return [part for _, part in self._prepared]

    async def commit(self, checkpoint: int) -> None:
        """Give the parts prepared up to this checkpoint their names."""
        parts = [part for prepared, part in self._prepared if prepared <= checkpoint]
        await self._run(self._folder.commit, parts, str(self._subtask))
        self._prepared = [(prepared, part) for prepared, part in self._prepared if prepared > checkpoint]

    async def close(self) -> None:
        """Let go of the open part; nothing of it becomes visible."""
        if self._part is not None and self._file is not None:
            part, file, self._part, self._file = self._part, self._file, None, None
            part.abandon()
            await self._sink.io(file.close)

    async def _run(self, call: Callable[..., None], *arguments: Any) -> None:
        # After an error nobody knows what reached the disk: only a new attempt may go on.
        if self._broken is not None:
            raise self._broken
        try:
            await self._sink.io(call, *arguments)
        except Exception as error:
            self._broken = error
            raise

    def _append(self, frame: pl.DataFrame) -> None:
        if self._part is None:
            self._pending = self._folder.pending_name(f"{self._subtask}-{self._token}-{self._number}")
            self._number += 1
            self._file = self._folder.create(self._pending)
            self._part = self._sink.open_part(self._file)
        if self._part.write(frame) >= PART_BYTES_MAX:
            self._seal()

    def _seal(self) -> None:
        if self._part is None or self._file is None:
            return
        self._part.finish()
        size = self._file.tell()
        self._folder.seal(self._file)
        self._sealed.append({"folder": self._folder.folder, "pending": self._pending, "bytes": size})
        self._file = self._part = None
