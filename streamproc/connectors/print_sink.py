"""Prints rows as lines on standard output, each batch as soon as it comes: at least once.

Rows of a changelog begin with what happens to them, in the column `op`: `+I` inserted, `-U` and `+U` a row before
and after an update, `-D` deleted.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Sequence
from typing import ClassVar, Final

import polars as pl

from operators.connector import Committable
from operators.element import DELETE, INSERT, KIND, UPDATE_AFTER, UPDATE_BEFORE, Schema
from state.failure import Actor, Failure
from streamproc.formats.csv import CsvEncoder
from streamproc.formats.json_encoder import JsonEncoder
from streamproc.formats.protocol import FormatError, LineEncoder
from streamproc.pipeline.format_spec import CsvFormat, JsonFormat
from streamproc.pipeline.spec import PrintSinkSpec

OPERATION: Final = "op"
_OPERATIONS: Final = {INSERT: "+I", UPDATE_BEFORE: "-U", UPDATE_AFTER: "+U", DELETE: "-D"}
_stdout_lock = threading.Lock()  # lines of different subtasks never mix


class OutputClosed(Failure):
    """Whoever read our standard output has gone (`| head`)."""

    acts: ClassVar[Actor] = "user"


class PrintSink:
    """A `print` sink as configured."""

    def __init__(self, name: str, config: PrintSinkSpec, schema: Schema, *, changelog: bool = False) -> None:
        self.encoder: LineEncoder
        if changelog:
            schema = {OPERATION: pl.String(), **schema}
        match config.format:
            case CsvFormat(delimiter=delimiter, header=header):
                self.encoder = CsvEncoder(schema, delimiter, header)
            case JsonFormat(timestamps=timestamps):
                self.encoder = JsonEncoder(schema, timestamps)
            case other:
                raise FormatError(f"sink {name}: {other.type} cannot be printed; json and csv can")

    async def recover(self, committables: Sequence[Committable], parallelism: int) -> None:
        """What was printed stays printed."""

    def writer(self, subtask: int, parallelism: int) -> PrintWriter:
        """The writer of one subtask; the first prints the header, if the format has one."""
        header = self.encoder.header if isinstance(self.encoder, CsvEncoder) and subtask == 0 else b""
        return PrintWriter(self.encoder, header)

    async def close(self) -> None:
        """Standard output is not ours to close."""


class PrintWriter:
    """Prints one subtask's rows."""

    def __init__(self, encoder: LineEncoder, header: bytes) -> None:
        self._encoder = encoder
        self._header = header

    async def open(self) -> None:
        """Nothing to connect to."""

    async def write(self, frame: pl.DataFrame) -> None:
        """Print a batch; `OutputClosed` when nobody reads any more."""
        await asyncio.to_thread(self._print, frame)

    async def prepare(self, checkpoint: int) -> Sequence[Committable]:
        """All is printed already."""
        return ()

    async def commit(self, checkpoint: int) -> None:
        """Nothing was held back."""

    async def close(self) -> None:
        """Standard output is not ours to close."""

    def _print(self, frame: pl.DataFrame) -> None:
        if KIND in frame.columns:
            operation = pl.col(KIND).replace_strict(_OPERATIONS, return_dtype=pl.String())
            frame = frame.with_columns(operation.alias(OPERATION))
        lines = self._header + self._encoder.encode_lines(frame)
        self._header = b""
        with _stdout_lock:
            try:
                sys.stdout.flush()
                sys.stdout.buffer.write(lines)
                sys.stdout.buffer.flush()
            except BrokenPipeError as error:
                _silence_stdout()
                raise OutputClosed("standard output was closed by its reader") from error


def _silence_stdout() -> None:
    """Keep the interpreter from failing again when it flushes standard output at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    finally:
        os.close(nowhere)
