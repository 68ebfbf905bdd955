"""The rows of a look-up file: read whole, and again every `refresh`. The newest that could be read counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import polars as pl
import structlog

from operators.types import FieldType
from state.failure import Actor, Failure
from streamproc.connectors.file_source import FileSource
from streamproc.connectors.file_system import Files, shown
from streamproc.pipeline.spec import FileSourceSpec

log = structlog.get_logger("streamproc.lookup")

_PIECE_ROWS: Final = 65_536


class LookupFileUnreadable(Failure):
    """The file is not there, or holds what its schema refuses."""

    acts: ClassVar[Actor] = "user"


@dataclass(frozen=True, slots=True)
class TableFile:
    """A look-up file as configured. `config.path` is whole: a URL, or from the root."""

    config: FileSourceSpec
    fields: Mapping[str, FieldType]
    refresh_ms: int | None

    def read(self, step: str) -> pl.DataFrame:
        """All rows; blocks. Raises `LookupFileUnreadable`."""
        where = f"step {step}: look-up file {shown(self.config.path)}"
        source = FileSource(step, self.config, self.fields)
        frames = [pl.DataFrame(schema={name: field.dtype for name, field in self.fields.items()})]
        try:
            files = Files.at(self.config.path)
            found = files.list()
            if not found:
                raise LookupFileUnreadable(f"{where} is not there")
            for split, path in found.items():
                opened = source.open_file(files, split, path, None)
                try:
                    while (piece := opened.next(_PIECE_ROWS)) is not None:
                        if piece.rows:
                            records = piece.decode()
                            for bad in records.bad:
                                raise LookupFileUnreadable(f"{where}: {split}:{bad.at}: {bad.message}")
                            frames.append(records.frame)
                        if piece.finished:
                            break
                finally:
                    opened.close()
        except (OSError, EOFError) as error:
            raise LookupFileUnreadable(f"{where}: {error}") from error
        return pl.concat(frames).rechunk()


class FileTable:
    """The table of one subtask. All times are ms since the epoch."""

    def __init__(self, file: TableFile, step: str) -> None:
        self._file = file
        self._step = step
        self._rows: pl.DataFrame | None = None
        self._read_ms = 0
        self.failed_refreshes = 0

    def rows(self, now_ms: int) -> pl.DataFrame:
        """The rows as of the last reading; the first one happens here."""
        if self._rows is None:
            self._rows, self._read_ms = self._file.read(self._step), now_ms
        return self._rows

    def refresh(self, now_ms: int) -> None:
        """Read again when it is time. What cannot be read leaves everything as it is."""
        every = self._file.refresh_ms
        if self._rows is None or every is None or now_ms - self._read_ms < every:
            return
        self._read_ms = now_ms
        try:
            self._rows = self._file.read(self._step)
        except Failure as failure:
            self.failed_refreshes += 1
            log.warning(
                "look-up file could not be read again, its old rows stay",
                step=self._step,
                reason=str(failure),
                failures=self.failed_refreshes,
            )
