"""Frames as record batches by partition: CPU work for a worker thread, whole columns at a time.

Records are stamped with the time they are written: with event times of the past, a topic's retention
would delete them at once. Without a key, rows are spread in runs over the partitions in turn; with one,
they go where Kafka's own clients would send them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from operators.element import Schema
from streamproc.connectors.kafka.partitioner import partitions_of
from streamproc.connectors.kafka.record_batch import (
    CODEC_NONE,
    HEADER_SIZE,
    OutgoingBatch,
    compress,
    estimate_sizes,
    frame_records,
)
from streamproc.formats.csv import CsvEncoder
from streamproc.formats.iso import iso_texts
from streamproc.formats.json_encoder import JsonEncoder
from streamproc.formats.protocol import EncodeError, FormatError
from streamproc.pipeline.spec import CsvFormat, JsonFormat, KafkaSinkSpec

DEFAULT_BATCH_BYTES_MAX: Final = 1_048_588  # Kafka's default max.message.bytes
_BATCH_BYTES: Final = 2_000_000  # uncompressed, to begin with: each batch costs a request to its partition
_RUN_ROWS: Final = 1_024  # rows in a row that go to one partition when there is no key

_Partitions = Sequence[int]
_Indices = npt.NDArray[np.int64]
Batches = list[tuple[int, OutgoingBatch]]


class BatchEncoder(Protocol):
    """Turns frames into batches for partitions."""

    def encode(self, frame: pl.DataFrame, partitions: _Partitions) -> Batches:
        """Batches by partition; of one partition in order of the rows."""


class RowEncoder:
    """Rows in the sink's format; columns beyond the schema (hidden ones) are left out."""

    def __init__(
        self, config: KafkaSinkSpec, schema: Schema, *, transactional: bool, batch_bytes_max: int, first_turn: int = 0
    ) -> None:
        timestamps = config.format.timestamps if isinstance(config.format, JsonFormat) else "iso"
        self._json = JsonEncoder(schema, timestamps)
        self._csv = (
            CsvEncoder(schema, config.format.delimiter, header=False) if isinstance(config.format, CsvFormat) else None
        )
        if not isinstance(config.format, JsonFormat | CsvFormat):
            raise FormatError(f"records of a Kafka topic cannot be {config.format.type}: use json or csv")
        self._key = config.key
        self._transactional = transactional
        self._limit = batch_bytes_max - HEADER_SIZE
        self._turn = first_turn

    def encode(self, frame: pl.DataFrame, partitions: _Partitions) -> Batches:
        """Batches by partition; of one partition in order of the rows."""
        values = self._values(frame)
        keys = self._json.encode_key(frame, self._key) if self._key else None
        stamp = int(time.time() * 1000)
        batches: Batches = []
        for partition, rows in self._spread(frame.height, keys, partitions):
            some_values = values if rows is None else values.gather(rows)
            some_keys = keys if keys is None or rows is None else keys.gather(rows)
            for start, size in _cut(estimate_sizes(some_values, some_keys), _BATCH_BYTES):
                part = None if some_keys is None else some_keys.slice(start, size)
                batches += [(partition, batch) for batch in self._framed(some_values.slice(start, size), part, stamp)]
        return batches

    def _framed(self, values: pl.Series, keys: pl.Series | None, stamp: int) -> Iterator[OutgoingBatch]:
        """One batch, or more where it is too large for the topic once it is compressed."""
        payload, codec = compress(frame_records(values, keys))
        if len(payload) <= self._limit or len(values) == 1:
            yield OutgoingBatch(payload, len(values), codec, stamp, transactional=self._transactional)
            return
        half = len(values) // 2
        for start, size in ((0, half), (half, len(values) - half)):
            part = None if keys is None else keys.slice(start, size)
            yield from self._framed(values.slice(start, size), part, stamp)

    def _values(self, frame: pl.DataFrame) -> pl.Series:
        if self._csv is None:
            return self._json.encode_column(frame)
        lines = self._csv.encode_lines(frame).decode().removesuffix("\n").split("\n")
        if len(lines) != frame.height:
            raise EncodeError("a value with a line break cannot be written as a CSV record")
        return pl.Series(lines, dtype=pl.String)

    def _spread(
        self, count: int, keys: pl.Series | None, partitions: _Partitions
    ) -> Iterator[tuple[int, _Indices | None]]:
        """Partitions and the rows that go there, ascending; None: all rows."""
        if keys is None and (count <= _RUN_ROWS or len(partitions) == 1):
            yield partitions[self._next_turns(1) % len(partitions)], None
            return
        target = self._turns(count, len(partitions))
        if keys is not None:
            keyed = partitions_of(keys.fill_null(""), len(partitions))
            target = np.where(keys.is_null().to_numpy(), target, keyed) if keys.null_count() else keyed
        order = np.argsort(target, kind="stable")
        bounds = np.searchsorted(target[order], np.arange(len(partitions) + 1))
        for index, partition in enumerate(partitions):
            if bounds[index] < bounds[index + 1]:
                yield partition, order[bounds[index] : bounds[index + 1]]

    def _turns(self, count: int, partitions: int) -> _Indices:
        """For each row the partition whose turn it is: as many runs as there are partitions, none too short."""
        runs = max(1, min(partitions, count // _RUN_ROWS))
        return (self._next_turns(runs) + np.arange(count, dtype=np.int64) * runs // max(count, 1)) % partitions

    def _next_turns(self, runs: int) -> int:
        turn = self._turn
        self._turn += runs
        return turn


class ErrorRecordEncoder:
    """Rows of `ERRORS_SCHEMA` as the original records, unchanged, with the rest as headers.

    The exceptional path: records are appended one by one.
    """

    def __init__(self, *, transactional: bool, batch_bytes_max: int, first_turn: int = 0) -> None:
        self._transactional = transactional
        self._limit = max(1, min(_BATCH_BYTES, batch_bytes_max))
        self._turn = first_turn

    def encode(self, frame: pl.DataFrame, partitions: _Partitions) -> Batches:
        """Batches by partition; of one partition in order of the rows."""
        stamp = int(time.time() * 1000)
        hashed = partitions_of(frame["key"].fill_null(b""), len(partitions))
        target = np.where(frame["key"].is_null().to_numpy(), self._turn % len(partitions), hashed)
        self._turn += 1
        frame = frame.with_columns(time=iso_texts(frame["time"]))
        batches: Batches = []
        for index in np.unique(target).tolist():
            for records, count in self._framed(frame.filter(pl.Series(target == index)), stamp):
                payload, codec = compress(records)
                batch = OutgoingBatch(payload, count, codec, stamp, transactional=self._transactional)
                batches.append((partitions[index], batch))
        return batches

    def _framed(self, frame: pl.DataFrame, stamp: int) -> Iterator[tuple[bytearray, int]]:
        """Records of one batch after the other, uncompressed, and how many they are."""
        builder, count = self._builder(), 0
        for row in frame.iter_rows(named=True):
            record = (stamp, row["key"], row["value"], _error_headers(row))
            if builder.append(count, *record) is None:  # full
                yield builder.build()[HEADER_SIZE:], count
                builder, count = self._builder(), 0
                builder.append(count, *record)
            count += 1
        if count:
            yield builder.build()[HEADER_SIZE:], count

    def _builder(self) -> Any:
        return DefaultRecordBatchBuilder(2, CODEC_NONE, 0, -1, -1, -1, self._limit)


def _error_headers(row: dict[str, Any]) -> list[tuple[str, bytes | None]]:
    """The row's other columns as headers, text in UTF-8; what is null is left out."""
    names = ("time", "source", "split", "offset", "step", "error")
    return [(name, str(row[name]).encode()) for name in names if row[name] is not None]


def _cut(sizes: _Indices, limit: int) -> Iterator[tuple[int, int]]:
    """(start, count) of runs of rows of at most `limit` bytes each, about equally many; a larger row comes alone."""
    ends = np.cumsum(sizes)
    even = -(-int(ends[-1]) // max(1, -(-int(ends[-1]) // limit))) + int(sizes.max()) if len(ends) else 0
    limit = min(limit, even)
    start, done = 0, 0
    while start < len(ends):
        end = max(start + 1, int(np.searchsorted(ends, done + limit, side="right")))
        yield start, end - start
        start, done = end, int(ends[end - 1])
