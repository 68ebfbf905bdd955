"""Frames as record batches by partition: CPU work for a worker thread, whole columns at a time.

Records are stamped with the time they are written: with event times of the past, a topic's retention
would delete them at once. Without a key, rows are spread in runs over the partitions in turn; with one,
they go where Kafka's own clients would send them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from operators.element import DELETE, KIND, UPDATE_BEFORE, Schema
from streamproc.connectors.kafka.partitioner import partitions_of
from streamproc.connectors.kafka.record_batch import (
    CODEC_NONE,
    HEADER_SIZE,
    OutgoingBatch,
    compress,
    estimate_sizes,
    frame_records,
)
from streamproc.formats.avro import AvroEncoder
from streamproc.formats.csv import CsvEncoder
from streamproc.formats.iso import iso_texts
from streamproc.formats.json_encoder import JsonEncoder
from streamproc.formats.protobuf import ProtobufEncoder
from streamproc.formats.protocol import EncodeError, FormatError
from streamproc.formats.registry import SchemaRegistry, SchemaType
from streamproc.pipeline.format_spec import AvroFormat, CsvFormat, FormatSpec, JsonFormat, ProtobufFormat
from streamproc.pipeline.spec import KafkaSinkSpec
from streamproc.pipeline.suggest import listed

DEFAULT_BATCH_BYTES_MAX: Final = 1_048_588  # Kafka's default max.message.bytes
_BATCH_BYTES: Final = 2_000_000  # uncompressed, to begin with: each batch costs a request to its partition
_RUN_ROWS: Final = 1_024  # rows in a row that go to one partition when there is no key

_Partitions = Sequence[int]
_Indices = npt.NDArray[np.int64]
Batches = list[tuple[int, OutgoingBatch]]
ValueEncoder = Callable[[pl.DataFrame], pl.Series]


class BatchEncoder(Protocol):
    """Turns frames into batches for partitions."""

    def encode(self, frame: pl.DataFrame, partitions: _Partitions) -> Batches:
        """Batches by partition; of one partition in order of the rows."""


def value_encoder(why: str, topic: str, form: FormatSpec, schema: Schema) -> ValueEncoder:
    """What turns rows into values, String or Binary. With a schema registry it blocks: the sink's schema is
    registered (or looked up) there."""
    match form:
        case JsonFormat(timestamps=timestamps):
            return JsonEncoder(schema, timestamps).encode_column
        case CsvFormat(delimiter=delimiter):
            return partial(_csv_values, CsvEncoder(schema, delimiter, header=False))
        case AvroFormat():
            avro = AvroEncoder(schema)
            return partial(avro.encode_column, schema_id=_schema_id(why, topic, form, "AVRO", avro.schema))
        case ProtobufFormat():
            protobuf = ProtobufEncoder(schema, form.message)
            return partial(protobuf.encode_column, schema_id=_schema_id(why, topic, form, "PROTOBUF", protobuf.schema))
    raise FormatError(f"{why}: records of a Kafka topic cannot be written as {form.type}")


def _schema_id(why: str, topic: str, form: AvroFormat | ProtobufFormat, schema_type: SchemaType, text: str) -> int:
    registry = SchemaRegistry(form.registry, why)
    known = registry.register if form.auto_register else registry.look_up
    return known(form.subject or f"{topic}-value", schema_type, text)


def _csv_values(encoder: CsvEncoder, frame: pl.DataFrame) -> pl.Series:
    lines = encoder.encode_lines(frame).decode().removesuffix("\n").split("\n")
    if len(lines) != frame.height:
        raise EncodeError("a value with a line break cannot be written as a CSV record")
    return pl.Series(lines, dtype=pl.String)


class RowEncoder:
    """Rows in the sink's format; columns beyond the schema (hidden ones) are left out. Of a changelog a record for
    each key that changed: its newest row, or a tombstone. Making one may block, see `value_encoder`; `why` begins
    its messages."""

    def __init__(
        self,
        config: KafkaSinkSpec,
        schema: Schema,
        *,
        transactional: bool,
        batch_bytes_max: int,
        first_turn: int = 0,
        why: str = "sink",
    ) -> None:
        form = config.format
        self._values = value_encoder(why, config.topic, form, schema)
        self._keys = JsonEncoder(schema, form.timestamps if isinstance(form, JsonFormat) else "iso")
        self._key = config.key
        self._why = why
        self._transactional = transactional
        self._limit = batch_bytes_max - HEADER_SIZE
        self._turn = first_turn

    def encode(self, frame: pl.DataFrame, partitions: _Partitions) -> Batches:
        """Batches by partition; of one partition in order of the rows."""
        keys = self._keys.encode_key(frame, self._key) if self._key else None
        if KIND in frame.columns:
            frame, keys = self._last_changes(frame, keys)
            gone = frame.get_column(KIND).is_in([UPDATE_BEFORE, DELETE])
            values = self._values(frame)
            values = values.zip_with(~gone, pl.Series([None], dtype=values.dtype)) if gone.any() else values
        else:
            values = self._values(frame)
        stamp = int(time.time() * 1000)
        batches: Batches = []
        for partition, rows in self._spread(frame.height, keys, partitions):
            some_values = values if rows is None else values.gather(rows)
            some_keys = keys if keys is None or rows is None else keys.gather(rows)
            for start, size in _cut(estimate_sizes(some_values, some_keys), _BATCH_BYTES):
                part = None if some_keys is None else some_keys.slice(start, size)
                batches += [(partition, batch) for batch in self._framed(some_values.slice(start, size), part, stamp)]
        return batches

    def _last_changes(self, frame: pl.DataFrame, keys: pl.Series | None) -> tuple[pl.DataFrame, pl.Series]:
        """The last row of each key, in order: it says what becomes of the key, whatever came before."""
        if keys is None or keys.null_count():
            missing = "has no key" if keys is None else f"has null for its key '{listed(self._key or ())}'"
            raise EncodeError(f"{self._why}: a row that {missing} cannot be updated or taken back in a topic")
        rows = pl.DataFrame({"key": keys, "row": pl.int_range(len(keys), eager=True)})
        last = rows.unique("key", keep="last", maintain_order=True).get_column("row")
        return frame[last], keys.gather(last)

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
