"""Reads one file forward from a position, in pieces of whole records; every call here may block.

A position counts bytes of content (after decompression) and lines, or row groups and rows. What a
position stands behind has been handed out; what follows it will be.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, ClassVar, Final, NamedTuple, Protocol

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet
from fsspec.utils import infer_compression

from operators.connector import Position
from state.failure import Actor, Failure
from streamproc.connectors.file_system import FileSystem
from streamproc.formats.debezium import DebeziumJsonDecoder
from streamproc.formats.parquet import ParquetDecoder
from streamproc.formats.protocol import BadRecord, DecodeError, RecordDecoder, Rows

LINE_BYTES_MAX: Final = 64 << 20
_CHUNK_BYTES: Final = 1 << 20
_CHUNK_BYTES_MAX: Final = 8 << 20
_ROWS_OVER: Final = 1.25  # a piece this much larger than asked is not cut
_BOM: Final = b"\xef\xbb\xbf"
_NEWLINE: Final = 10


class FileFailure(Failure):
    """A file is not what it was, or cannot be read as declared."""

    acts: ClassVar[Actor] = "user"


class FileChanged(FileFailure):
    """A file that was read in part has shrunk or is gone."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A refused record: where it is in the file (line or row, from 1), what it says, and why it is refused."""

    at: int
    value: bytes
    message: str


class Records(NamedTuple):
    """What became of the records of a piece. `silent`, `seconds`: see `operators.connector.Decoded`."""

    frame: pl.DataFrame
    bad: list[BadRow]
    silent: int = 0
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole records and the position after them. `finished`: the file ends here."""

    position: Position
    rows: int
    bytes: int
    decode: Callable[[], Records]
    finished: bool


class SplitFile(Protocol):
    """One file being read."""

    def next(self, max_rows: int) -> Piece | None:
        """The next records, about `max_rows` at most; None when there is nothing (yet)."""

    def close(self) -> None:
        """Let go of the file."""


class Content:
    """Bytes of a file by offset: a plain file by range, a compressed one forward only."""

    def __init__(self, fs: FileSystem, path: str) -> None:
        self._fs = fs
        self._path = path
        self.compression: str | None = infer_compression(path)
        self._stream: IO[bytes] | None = None
        self._start = 0
        self._held = b""  # the end of what was read of a compressed file

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file."""
        if self.compression is None:
            return self._fs.cat_file(self._path, start=offset, end=offset + size)
        if self._stream is None or offset < self._start:
            self.close()
            self._stream = self._fs.open(self._path, "rb", compression=self.compression)
            self._start, self._held = 0, b""
        while (end := self._start + len(self._held)) < offset + size:
            more = self._stream.read(offset + size - end if end >= offset else min(offset - end, _CHUNK_BYTES_MAX))
            if not more:
                break
            keep = self._held[max(0, offset - self._start) :] if end > offset else b""
            self._held, self._start = keep + more, end - len(keep)
        begin = offset - self._start
        return self._held[begin : begin + size] if begin >= 0 else b""

    def reaches(self, offset: int) -> bool:
        """Whether the file has at least `offset` bytes."""
        return offset == 0 or self.read(offset - 1, 1) != b""

    def close(self) -> None:
        """Close a compressed file's stream."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class LineFile:
    """A file of one record a line. The last line counts without a line break only when `follow` is off."""

    def __init__(
        self,
        content: Content,
        name: str,
        position: Position | None,
        decoder: Callable[[bytes], RecordDecoder],
        *,
        header: bool,
        follow: bool,
    ) -> None:
        self._content = content
        self._name = name
        self._offset = int(position["offset"]) if position else 0
        self._line = int(position["line"]) if position else 0
        self._make_decoder = decoder
        self._decoder: RecordDecoder | None = None
        self._header = header
        self._follow = follow
        self._chunk_bytes = _CHUNK_BYTES
        self._expect_content()

    def next(self, max_rows: int) -> Piece | None:
        if self._decoder is None and not self._begin():
            return None if self._follow else self._piece(b"", 0, finished=True)
        chunk, at_end = self._lines(self._offset, self._chunk_bytes)
        if not chunk:
            self._expect_content()
            return None if self._follow else self._piece(b"", 0, finished=True)
        rows = chunk.count(b"\n")
        self._chunk_bytes = min(_CHUNK_BYTES_MAX, max(1 << 16, len(chunk) * max_rows // rows))
        if rows > max_rows * _ROWS_OVER:
            breaks = np.flatnonzero(np.frombuffer(chunk, np.uint8) == _NEWLINE)
            rows, at_end = max_rows, False
            chunk = chunk[: int(breaks[rows - 1]) + 1]
        return self._piece(chunk, rows, finished=at_end and not self._follow)

    def close(self) -> None:
        self._content.close()

    def _expect_content(self) -> None:
        if not self._content.reaches(self._offset):
            raise FileChanged(f"{self._name} is shorter than the {self._offset} bytes read of it before")

    def _begin(self) -> bool:
        """Read the header, if the file has one, and step over what is no record. False: not there yet."""
        first = b""
        if self._header:
            first, _ = self._lines(0, 1 << 16)
            if not first:
                return False
            first = first[: first.index(b"\n") + 1]
        if self._offset == 0:
            self._offset = len(first) or (len(_BOM) if self._content.read(0, len(_BOM)) == _BOM else 0)
            self._line = 1 if first else 0
        self._decoder = self._make_decoder(first)
        return True

    def _lines(self, offset: int, size: int) -> tuple[bytes, bool]:
        """Whole lines from `offset`, at least one when there is one; and whether the file ends with them."""
        while True:
            chunk = self._content.read(offset, size)
            at_end = len(chunk) < size
            cut = chunk.rfind(b"\n") + 1
            if at_end and not self._follow and cut < len(chunk):
                return chunk + b"\n", True  # the file's last line has no line break
            if cut or at_end:
                return chunk[:cut], at_end and cut == len(chunk)
            if size >= LINE_BYTES_MAX:
                raise FileFailure(f"{self._name}: line {self._line + 1} is longer than {LINE_BYTES_MAX >> 20} MB")
            size = min(size * 4, LINE_BYTES_MAX)

    def _piece(self, chunk: bytes, rows: int, *, finished: bool) -> Piece:
        first_line = self._line + 1
        self._offset += len(chunk)
        self._line += rows
        position: dict[str, Any] = {"offset": self._offset, "line": self._line}
        if finished:
            position["done"] = True
        decoder = self._decoder

        def decode() -> Records:
            assert decoder is not None
            return decode_lines(decoder, chunk, rows, first_line)

        return Piece(position, rows, len(chunk), decode, finished)


def decode_lines(decoder: RecordDecoder, chunk: bytes, rows: int, first_line: int) -> Records:
    """All lines at once, or when one is refused what can be decoded; blank lines are no records."""
    each = decoder if isinstance(decoder, DebeziumJsonDecoder) else None
    if each is None:
        with suppress(DecodeError):
            return Records(decoder.decode_lines(chunk, rows), [])
    read = chunk.split(b"\n")[:rows]
    lines = [(i, line) for i, line in enumerate(read) if line.strip()]
    values = [line for _, line in lines]
    decoded = Rows(*decoder.decode_each(values)) if each is None else each.decode_values(values)
    bad = [BadRow(first_line + lines[b.at][0], lines[b.at][1].rstrip(b"\r"), b.message) for b in decoded.bad]
    return Records(decoded.frame, bad, decoded.silent + len(read) - len(lines), decoded.seconds)


class ParquetSplitFile:
    """A Parquet file, one row group in memory at a time."""

    def __init__(
        self, fs: FileSystem, path: str, name: str, position: Position | None, decoder: ParquetDecoder
    ) -> None:
        self._stream = fs.open(path, "rb")
        try:
            self._file = pyarrow.parquet.ParquetFile(self._stream)
        except pa.ArrowInvalid as error:
            self._stream.close()
            raise FileFailure(f"{name}: {str(error).splitlines()[0]}") from error
        decoder.check(self._file.schema_arrow)
        self._decoder = decoder
        self._group = int(position["row_group"]) if position else 0
        self._row = int(position["row"]) if position else 0
        self._before = sum(self._file.metadata.row_group(i).num_rows for i in range(min(self._group, self._groups)))
        self._table: pa.Table | None = None
        if self._group > self._groups:
            raise FileChanged(f"{name}: has {self._groups} row groups, the checkpoint is at {self._group}")

    @property
    def _groups(self) -> int:
        return int(self._file.metadata.num_row_groups)

    def next(self, max_rows: int) -> Piece | None:
        if self._group >= self._groups:
            return self._piece(None, self._before)
        if self._table is None:
            self._table = self._file.read_row_group(self._group, columns=self._decoder.columns)
        rows = self._table.slice(self._row, max_rows)
        first_row = self._before + self._row
        self._row += rows.num_rows
        if self._row >= self._table.num_rows:
            self._before += self._table.num_rows
            self._group, self._row, self._table = self._group + 1, 0, None
        return self._piece(rows, first_row)

    def close(self) -> None:
        self._stream.close()

    def _piece(self, rows: pa.Table | None, first_row: int) -> Piece:
        finished = self._group >= self._groups
        position: dict[str, Any] = {"row_group": self._group, "row": self._row}
        if finished:
            position["done"] = True

        def decode() -> Records:
            assert rows is not None
            frame, bad = self._decoder.decode(rows)
            return Records(frame, [_bad_row(rows, row, first_row) for row in bad])

        return Piece(position, rows.num_rows if rows else 0, rows.nbytes if rows else 0, decode, finished)


def _bad_row(rows: pa.Table, bad: BadRecord, first_row: int) -> BadRow:
    shown = str(rows.slice(bad.at, 1).to_pylist()[0])
    return BadRow(first_row + bad.at + 1, shown.encode(), bad.message)
