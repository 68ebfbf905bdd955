"""Raw record batches of one split as rows: payload decoded in one piece, metadata beside it, bad records apart.

Runs on worker threads and touches nothing shared but decoders' caches. With a schema registry it may wait for
that: which schemas are needed stands in the records (see `formats.registry`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from operators.connector import ERRORS_SCHEMA, Decoded, SplitId
from operators.types import FieldType
from streamproc.connectors.kafka.failure import UnreadableBatch
from streamproc.connectors.kafka.record_batch import RawBatch, Record
from streamproc.formats.avro import avro_reader
from streamproc.formats.confluent import ConfluentDecoder
from streamproc.formats.csv import CsvDecoder
from streamproc.formats.debezium import DebeziumJsonDecoder
from streamproc.formats.json import JsonDecoder
from streamproc.formats.protobuf import ProtobufReader
from streamproc.formats.protocol import BadRecord, DecodeError, FormatError, RecordDecoder, Rows
from streamproc.formats.registry import SchemaRegistry
from streamproc.pipeline.columns import METADATA_TYPES
from streamproc.pipeline.format_spec import (
    AvroFormat,
    CsvFormat,
    DebeziumJsonFormat,
    FormatSpec,
    JsonFormat,
    ProtobufFormat,
)
from streamproc.pipeline.spec import MetadataColumn

OFFSET_MAX: Final = 2**63 - 1
_PER_RECORD: Final[Set[MetadataColumn]] = frozenset({"key", "timestamp", "headers"})
_Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RowFormat:
    """How a source's records become rows."""

    source: str
    topic: str
    decoder: RecordDecoder | ConfluentDecoder | DebeziumJsonDecoder
    one_line: bool  # a line break inside a record may be read as a space
    metadata: Mapping[str, MetadataColumn]


def row_format(
    source: str,
    topic: str,
    form: FormatSpec,
    fields: Mapping[str, FieldType],
    metadata: Mapping[str, MetadataColumn],
    required: Sequence[str] = (),
) -> RowFormat:
    """The decoder a pipeline file asks for; `FormatError` for one that single records cannot have."""
    if isinstance(form, JsonFormat):
        return RowFormat(source, topic, JsonDecoder(fields, required), True, metadata)
    if isinstance(form, CsvFormat):
        return RowFormat(source, topic, CsvDecoder(fields, required, form.delimiter), False, metadata)
    if isinstance(form, DebeziumJsonFormat):
        return RowFormat(source, topic, DebeziumJsonDecoder(fields, required), False, metadata)
    if isinstance(form, AvroFormat | ProtobufFormat):
        return RowFormat(source, topic, _with_registry(f"source {source}", form, fields, required), False, metadata)
    raise FormatError(f"sources.{source}: records of a Kafka topic cannot be {form.type}: it is a format of files")


def _with_registry(
    why: str, form: AvroFormat | ProtobufFormat, fields: Mapping[str, FieldType], required: Sequence[str]
) -> ConfluentDecoder:
    registry = SchemaRegistry(form.registry, why)
    if isinstance(form, AvroFormat):
        return ConfluentDecoder(registry, "AVRO", fields, required, avro_reader)
    return ConfluentDecoder(registry, "PROTOBUF", fields, required, partial(ProtobufReader, message=form.message))


@dataclass(frozen=True, slots=True)
class Piece:
    """Batches of one partition, of which the records with offsets in [first, stop) are wanted."""

    partition: int
    first: int
    stop: int
    batches: Sequence[RawBatch]

    def split(self, topic: str) -> SplitId:
        """The split's name."""
        return split_id(topic, self.partition)

    def decode(self, form: RowFormat) -> Decoded:
        """Rows of the good records and `ERRORS_SCHEMA` rows of the others. `UnreadableBatch` when torn."""
        try:
            return self._decode(form)
        except UnreadableBatch as error:
            raise UnreadableBatch(f"source {form.source}: {self.split(form.topic)}: {error}") from error

    def _decode(self, form: RowFormat) -> Decoded:
        values = [value for batch in self.batches for value in batch.values(self.first, self.stop)]
        frame, bad, origin, silent, seconds = _rows(values, form)
        if not bad and not form.metadata:
            return Decoded(frame, None, silent, seconds)
        gapless = all(batch.is_gapless for batch in self.batches)
        records: Sequence[Record] = ()
        if bad or not gapless or _PER_RECORD & set(form.metadata.values()):
            records = [record for batch in self.batches for record in batch.records(self.first, self.stop)]
        if form.metadata:
            offsets = self._consecutive_offsets() if gapless else [record.offset for record in records]
            columns = {n: self._metadata(kind, offsets, records, form.topic) for n, kind in form.metadata.items()}
            beside = pl.DataFrame(columns)
            if bad:
                beside = beside.filter(_good(len(values), bad))
            if origin is not None:
                beside = beside[pl.Series(origin)]
            frame = frame.hstack(beside)
        return Decoded(frame, self._errors(records, bad, form) if bad else None, silent, seconds)

    def _metadata(
        self, kind: MetadataColumn, offsets: Sequence[int] | _Int64s, records: Sequence[Record], topic: str
    ) -> pl.Series:
        dtype = METADATA_TYPES[kind]
        if kind == "partition":
            return pl.repeat(self.partition, len(offsets), dtype=dtype, eager=True)
        if kind == "topic":
            return pl.repeat(topic, len(offsets), dtype=dtype, eager=True)
        if kind == "offset":
            return pl.Series(offsets, dtype=dtype)
        if kind == "timestamp":
            return pl.Series([record.timestamp for record in records], dtype=pl.Int64).cast(dtype)
        if kind == "key":
            return pl.Series([record.key for record in records], dtype=dtype)
        headers = [[{"key": key, "value": value} for key, value in record.headers] for record in records]
        return pl.Series(headers, dtype=dtype)

    def _consecutive_offsets(self) -> _Int64s:
        ranges = [
            np.arange(max(batch.base_offset, self.first), min(batch.next_offset, self.stop)) for batch in self.batches
        ]
        return np.concatenate(ranges) if ranges else np.empty(0, np.int64)

    def _errors(self, records: Sequence[Record], bad: Sequence[BadRecord], form: RowFormat) -> pl.DataFrame:
        now = datetime.now(UTC)
        split = self.split(form.topic)
        rows = [
            (now, form.source, split, record.offset, record.key, record.value, form.source, message)
            for record, message in ((records[at], message) for at, message in bad)
        ]
        return pl.DataFrame(rows, schema=ERRORS_SCHEMA, orient="row")


def split_id(topic: str, partition: int) -> SplitId:
    """`orders-3`."""
    return SplitId(f"{topic}-{partition}")


def _rows(values: list[bytes | None], form: RowFormat) -> Rows:
    """In one piece where every record is good; one by one where not."""
    if isinstance(form.decoder, ConfluentDecoder | DebeziumJsonDecoder):
        return form.decoder.decode_values(values)
    try:
        lines = b"\n".join(values)  # type: ignore[arg-type]  # a null value raises
        try:
            return Rows(form.decoder.decode_lines(lines, len(values)), [])
        except DecodeError:
            # Perhaps only because records span lines: looked for now, since it costs every byte.
            if form.one_line and lines.count(b"\n") != len(values) - 1:
                lines = b"\n".join([value.replace(b"\n", b" ") for value in values if value is not None])
                return Rows(form.decoder.decode_lines(lines, len(values)), [])
    except (TypeError, DecodeError):
        pass
    return Rows(*form.decoder.decode_each(values))


def _good(count: int, bad: Sequence[BadRecord]) -> pl.Series:
    good = np.ones(count, np.bool_)
    good[[at for at, _ in bad]] = False
    return pl.Series(good)
