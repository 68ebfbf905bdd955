"""Reads the files a path or glob names, each a split: to their ends, or with `follow` for ever.

Files are read side by side, a piece of each in turn, so that the watermark follows the file that is
furthest behind and not the order of names.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import polars as pl

from operators.connector import ERRORS_SCHEMA, Decoded, Fetched, Position, SplitId
from operators.types import FieldType
from state.failure import Actor, Failure
from streamproc.connectors.file_split import (
    BadRow,
    Content,
    FileChanged,
    LineFile,
    ParquetSplitFile,
    Piece,
    SplitFile,
)
from streamproc.connectors.file_system import Files, FileSystemError, shown, subtask_of
from streamproc.formats.csv import CsvDecoder, read_header
from streamproc.formats.debezium import DebeziumJsonDecoder
from streamproc.formats.json import JsonDecoder
from streamproc.formats.parquet import ParquetDecoder
from streamproc.formats.protocol import FormatError, RecordDecoder
from streamproc.pipeline.format_spec import CsvFormat, DebeziumJsonFormat, ParquetFormat
from streamproc.pipeline.spec import FileSourceSpec

_OPEN_FILES_MAX: Final = 64
_RESCAN_S: Final = 1.0  # how often `follow` looks for new files
_POLL_S: Final = 0.1  # how often `follow` looks for new lines


class NoFiles(Failure):
    """Nothing matches the path of a bounded source."""

    acts: ClassVar[Actor] = "user"


class FileSource:
    """A `file` source as configured."""

    def __init__(
        self, name: str, config: FileSourceSpec, fields: Mapping[str, FieldType], required: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.config = config
        self._fields = dict(fields)
        self._required = tuple(required)
        if isinstance(config.format, CsvFormat):
            CsvDecoder(fields)  # a schema that CSV cannot carry is found here, not at the first file

    @property
    def bounded(self) -> bool:
        """Whether input ends by itself."""
        return not self.config.follow

    def reader(self, subtask: int, parallelism: int) -> FileReader:
        """The reader of one subtask."""
        return FileReader(self, Files.at(self.config.path), subtask, parallelism)

    def open_file(self, files: Files, split: SplitId, path: str, position: Position | None) -> SplitFile:
        """Open one file at a position; blocks."""
        name = f"source {self.name}: {split}"
        if isinstance(self.config.format, ParquetFormat):
            return ParquetSplitFile(files.fs, path, name, position, ParquetDecoder(self._fields, self._required))
        header = isinstance(self.config.format, CsvFormat) and self.config.format.header
        return LineFile(
            Content(files.fs, path), name, position, self.line_decoder, header=header, follow=self.config.follow
        )

    def line_decoder(self, header: bytes) -> RecordDecoder:
        """The decoder of one file's lines."""
        form = self.config.format
        if isinstance(form, DebeziumJsonFormat):
            return DebeziumJsonDecoder(self._fields, self._required)
        if not isinstance(form, CsvFormat):
            return JsonDecoder(self._fields, self._required)
        columns = read_header(header, form.delimiter) if form.header else None
        return CsvDecoder(self._fields, self._required, form.delimiter, columns)


class FileReader:
    """Reads the files whose names fall to this subtask."""

    def __init__(self, source: FileSource, files: Files, subtask: int, parallelism: int) -> None:
        self._source = source
        self._files = files
        self._subtask = subtask
        self._parallelism = parallelism
        self._paths: dict[SplitId, str] = {}
        self._positions: dict[SplitId, Position] = {}
        self._open: dict[SplitId, SplitFile] = {}
        self._reading: list[SplitId] = []  # unfinished splits, the one whose turn it is first
        self._finished: set[SplitId] = set()
        self._scanned_at = 0.0

    async def open(self, restored: Mapping[SplitId, Position] | None) -> None:
        """Find the files; continue those of the checkpoint where it left them."""
        for split, position in (restored or {}).items():
            if self._is_ours(split):
                self._positions[split] = position
                if position.get("done"):
                    self._finished.add(split)
        found = await self._scan()
        if not found and not restored and self._source.bounded:
            raise NoFiles(
                f"source {self._source.name}: no file matches {shown(self._source.config.path)}{self._hint()}"
            )
        for split, position in self._positions.items():
            if split not in self._paths and split not in self._finished:
                if _has_begun(position):
                    raise FileChanged(f"source {self._source.name}: {split}, read in part at the checkpoint, is gone")
                self._finished.add(split)

    def splits(self) -> Mapping[SplitId, Position]:
        """Our files, read or not, with the position behind what was handed out."""
        return dict(self._positions)

    async def fetch(self, max_rows: int, timeout_s: float) -> Sequence[Fetched]:
        """A piece of the next file that has something."""
        deadline = time.monotonic() + timeout_s
        while True:
            if self._source.config.follow and time.monotonic() - self._scanned_at > _RESCAN_S:
                await self._scan()
            found = await asyncio.to_thread(self._next, max_rows)
            if found is not None:
                return [self._fetched(*found)]
            left = deadline - time.monotonic()
            if left <= 0 or not self._source.config.follow:
                return []
            await asyncio.sleep(min(left, _POLL_S))

    def exhausted(self) -> bool:
        """All files are read and no new ones are looked for."""
        return self._source.bounded and not self._reading

    def lag_records(self) -> int | None:
        """Lines that were not read cannot be counted without reading them."""
        return None

    def listening(self) -> bool:
        """Files can always be read."""
        return True

    async def close(self) -> None:
        """Close the files."""
        while self._open:
            _, file = self._open.popitem()
            await asyncio.to_thread(file.close)

    def _hint(self) -> str:
        return ", which is a folder: name the files in it, as in /*" if self._files.is_folder() else ""

    def _is_ours(self, split: SplitId) -> bool:
        return subtask_of(split, self._parallelism) == self._subtask

    async def _scan(self) -> bool:
        with self._naming(shown(self._source.config.path)):
            found = await asyncio.to_thread(self._files.list)
        self._scanned_at = time.monotonic()
        for split, path in found.items():
            if self._is_ours(split) and split not in self._paths:
                self._paths[split] = path
                self._positions.setdefault(split, {})
                if split not in self._finished:
                    self._reading.append(split)
        return bool(found)

    def _next(self, max_rows: int) -> tuple[SplitId, Piece] | None:
        """A piece of the first file that has one; each in turn goes to the end of the round. Blocks."""
        round_length = len(self._reading) if self._source.config.follow else min(len(self._reading), _OPEN_FILES_MAX)
        for _ in range(round_length):
            split = self._reading.pop(0)
            self._reading.insert(round_length - 1, split)
            with self._naming(split):
                if split not in self._open:
                    position = self._positions[split]
                    self._open[split] = self._source.open_file(
                        self._files, split, self._paths[split], position if _has_begun(position) else None
                    )
                if (piece := self._open[split].next(max_rows)) is not None:
                    if piece.finished:
                        self._open.pop(split).close()
                    return split, piece
        return None

    def _fetched(self, split: SplitId, piece: Piece) -> Fetched:
        self._positions[split] = piece.position
        if piece.finished:
            self._reading.remove(split)
            self._finished.add(split)
        name, at = self._source.name, datetime.now(UTC)

        def decode() -> Decoded:
            records = piece.decode()
            errors = _errors(name, split, at, records.bad) if records.bad else None
            return Decoded(records.frame, errors, records.silent, records.seconds)

        return Fetched(split, piece.position, piece.rows, piece.bytes, decode, piece.finished)

    @contextmanager
    def _naming(self, what: str) -> Iterator[None]:
        """What the file system raises becomes a failure that names the source and the file."""
        where = f"source {self._source.name}: {what}"
        try:
            yield
        except FileNotFoundError as error:
            raise FileChanged(f"{where} is gone") from error
        except FormatError as error:
            raise FormatError(f"{where}: {error}") from error
        except (OSError, EOFError) as error:
            raise FileSystemError(f"{where}: {error}") from error


def _has_begun(position: Position) -> bool:
    return any(position.get(part) for part in ("offset", "row_group", "row"))


def _errors(source: str, split: SplitId, at: datetime, bad: Sequence[BadRow]) -> pl.DataFrame:
    """Refused records as rows of the `.errors` stream; `offset` is the line or row, counted from 1."""
    columns: dict[str, list[Any]] = {
        "time": [at] * len(bad),
        "source": [source] * len(bad),
        "split": [split] * len(bad),
        "offset": [row.at for row in bad],
        "key": [None] * len(bad),
        "value": [row.value for row in bad],
        "step": [source] * len(bad),
        "error": [row.message for row in bad],
    }
    return pl.DataFrame(columns, schema=ERRORS_SCHEMA)
