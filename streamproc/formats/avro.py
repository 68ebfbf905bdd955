"""Avro values of a topic, decoded and encoded as whole batches by polars.

Decoding joins the values to one block of an Avro object container in memory, whose schema is the writer's with
two fields more: before each record the wire format's prefix, after it a marker of random bytes. A record that
is shorter or longer than its schema says pushes a marker out of its place, and the batch is refused; so no value
is ever read from another record's bytes. Encoding is the way back: polars writes a container whose last column
is a marker, and its block is cut there.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from operators.element import Schema
from operators.types import FieldType
from streamproc.formats.avro_schema import Json, Node, read_schema, schema_of
from streamproc.formats.confluent import PREFIX_BYTES, SchemaMismatch, SchemaReader, prefix
from streamproc.formats.isolate import short_reason
from streamproc.formats.nested import map_items, map_members
from streamproc.formats.protocol import BadRecord, DecodeError, EncodeError, FormatError, RefusedRows
from streamproc.formats.registry import RegisteredSchema
from streamproc.formats.typed import conform, fits
from streamproc.formats.wire import UnfitNested, to_frame

_MARKER_BYTES: Final = 16
_SYNC: Final = bytes(16)
_HEAD: Final = "__head"
_END: Final = "__end"
_REFUSED: Final = (pl.exceptions.PolarsError, pl.exceptions.PanicException, UnfitNested)


def avro_reader(schema: RegisteredSchema, fields: Mapping[str, FieldType], required: Sequence[str]) -> SchemaReader:
    """The reader of one writer's schema; `SchemaMismatch` where a declared field has another type there."""
    try:
        written, node = read_schema(schema.text, schema.references)
    except FormatError as error:
        raise SchemaMismatch(str(error)) from error
    there = dict(node.fields)
    for name in fields:
        if name in there and there[name].plain is None:
            raise SchemaMismatch(f"field {name} is {there[name].why}, which streamproc does not read from Avro")
    columns = _Columns({name: there[name] for name in fields if name in there}, fields, required)
    if node.plain is not None:
        return _BatchReader(node.plain["fields"], columns)
    return _ProjectingReader(written, schema.references, columns)


class _Columns:
    """From what polars read of a writer's fields to the declared columns; what the writer lacks is null."""

    def __init__(self, nodes: Mapping[str, Node], fields: Mapping[str, FieldType], required: Sequence[str]) -> None:
        self._nodes = nodes
        self._fields = fields
        self._required = frozenset(required)
        empty = pl.read_avro(BytesIO(_container_header(self.plain))) if nodes else pl.DataFrame()
        for name, stored in empty.schema.items():
            dtype = _symbolic(stored, nodes[name])
            if not fits(dtype, fields[name], lacking=True):
                raise SchemaMismatch(f"field {name} is {json.dumps(nodes[name].plain)}, declared {fields[name]}")

    @property
    def names(self) -> list[str]:
        """The declared fields that the writer has."""
        return list(self._nodes)

    @property
    def plain(self) -> list[Json]:
        """Those fields as a schema for polars."""
        return [{"name": name, "type": node.plain} for name, node in self._nodes.items()]

    def declared(self, read: pl.DataFrame) -> pl.DataFrame:
        """The declared columns; `DecodeError` when a value does not fit."""
        columns = []
        for name, field in self._fields.items():
            if (node := self._nodes.get(name)) is None:
                column = pl.repeat(None, read.height, dtype=field.dtype, eager=True).alias(name)
            else:
                column = read[name]
                column = conform(_with_symbols(column, node) if node.has_enums else column, field)
            columns.append(column)
        return to_frame(columns, self._fields, self._required)


class _BatchReader:
    """Decodes all values at once."""

    def __init__(self, fields: Sequence[Json], columns: _Columns) -> None:
        self._columns = columns
        self._marker = secrets.token_bytes(_MARKER_BYTES)
        head = {"name": _HEAD, "type": {"type": "fixed", "name": _HEAD, "size": PREFIX_BYTES}}
        end = {"name": _END, "type": {"type": "fixed", "name": _END, "size": _MARKER_BYTES}}
        self._header = _container_header([head, *fields, end])
        self._expected = pl.Series([self._marker], dtype=pl.Binary)

    def decode(self, values: Sequence[bytes]) -> pl.DataFrame:
        marker, count = self._marker, len(values)
        payload = marker.join(values)
        size = _zigzag(len(payload) + len(marker))
        container = b"".join((self._header, _zigzag(count), size, payload, marker, _SYNC))
        try:
            read = pl.read_avro(BytesIO(container))
            if read.height != count or not (read[_END] == self._expected).all():
                raise DecodeError("longer or shorter than its schema says")
            return self._columns.declared(read)
        except _REFUSED as error:
            raise DecodeError(f"not what its schema says: {short_reason(error)}") from error


class _ProjectingReader:
    """Where the writer's schema has types that polars does not read: each record is first written again with
    nothing but the declared fields."""

    def __init__(self, schema: Json, references: Mapping[str, str], columns: _Columns) -> None:
        try:
            import fastavro
        except ImportError as error:
            message = "a writer's schema with maps or unions of several types needs: pip install 'streamproc[avro]'"
            raise FormatError(message) from error

        names = columns.names
        self._read, self._write = fastavro.schemaless_reader, fastavro.schemaless_writer
        named: dict[str, Json] = {}
        for referred in references.values():
            fastavro.parse_schema(json.loads(referred), named_schemas=named)
        parsed: Json = fastavro.parse_schema(schema, named_schemas=named)
        self._schema = parsed
        types = {field["name"]: field["type"] for field in parsed["fields"]}
        self._kept = [(name, fastavro.parse_schema(types[name], named_schemas=named)) for name in names]
        self._reader = _BatchReader(columns.plain, columns)

    def decode(self, values: Sequence[bytes]) -> pl.DataFrame:
        bad: list[BadRecord] = []
        projected: list[bytes] = []
        for at, value in enumerate(values):
            stream = BytesIO(value)
            stream.seek(PREFIX_BYTES)
            kept = BytesIO()
            kept.write(value[:PREFIX_BYTES])
            try:
                row: Json = self._read(stream, self._schema, None)
                for name, schema in self._kept:
                    self._write(kept, schema, row[name])
            except Exception as error:  # whatever broken bytes make of it
                bad.append(BadRecord(at, f"not what its schema says: {short_reason(error)}"))
                continue
            if stream.tell() != len(value):
                bad.append(BadRecord(at, "longer or shorter than its schema says"))
            projected.append(kept.getvalue())
        if bad:
            raise RefusedRows(bad)
        return self._reader.decode(projected)


def _container_header(fields: Sequence[Json]) -> bytes:
    """An object container's header; without a block behind it, polars says the columns' types."""
    schema = json.dumps({"type": "record", "name": "record", "fields": list(fields)}).encode()
    return b"".join((b"Obj\x01", _zigzag(1), _zigzag(11), b"avro.schema", _zigzag(len(schema)), schema, b"\0", _SYNC))


def _zigzag(count: int) -> bytes:
    """A number that is not negative as Avro's `long`."""
    left, encoded = count << 1, bytearray()
    while left > 0x7F:
        encoded.append(left & 0x7F | 0x80)
        left >>= 7
    encoded.append(left)
    return bytes(encoded)


def _symbolic(dtype: pl.DataType, node: Node) -> pl.DataType:
    """The type once numbers of enums are their symbols."""
    if not node.has_enums:
        return dtype
    if isinstance(dtype, pl.List) and node.item is not None:
        return pl.List(_symbolic(dtype.inner, node.item))  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        inner = dict(node.fields)
        return pl.Struct([pl.Field(f.name, _symbolic(f.dtype, inner[f.name])) for f in dtype.fields])  # type: ignore[arg-type]
    return pl.String()


def _with_symbols(series: pl.Series, node: Node) -> pl.Series:
    """The numbers of enums as their symbols; `UnfitNested` where an enum has no such symbol."""
    if not node.has_enums:
        return series
    if node.item is not None:
        item = node.item
        return map_items(series, lambda items: _with_symbols(items, item))
    if node.fields:
        inner = dict(node.fields)
        return map_members(series, lambda name, member: _with_symbols(member, inner[name]))
    symbols = series.replace_strict(
        list(range(len(node.symbols))), list(node.symbols), default=None, return_dtype=pl.String
    )
    if symbols.null_count() != series.null_count():
        raise UnfitNested("an enum has no such symbol")
    return symbols


class AvroEncoder:
    """Encodes frames that have at least the schema's columns; others (hidden ones) are left out."""

    def __init__(self, schema: Schema, name: str = "Row") -> None:
        self._columns = dict(schema)
        self.schema: str = json.dumps(schema_of(schema, name), separators=(",", ":"))

    def encode_column(self, frame: pl.DataFrame, schema_id: int) -> pl.Series:
        """A Binary series: each row in the Confluent wire format under this id."""
        marker = secrets.token_bytes(_MARKER_BYTES)
        buffer = BytesIO()
        wire = [_written(frame[name]) for name in self._columns]
        end = pl.Series(_END, [marker], dtype=pl.Binary).new_from_index(0, frame.height)
        try:
            pl.DataFrame([*wire, end]).rechunk().write_avro(buffer)
        except _REFUSED as error:
            raise EncodeError(f"cannot be written as Avro: {short_reason(error)}") from error
        head = prefix(schema_id)
        # The marker's column may be null, too: a branch number and a length come before its bytes.
        records = _blocks(buffer.getvalue()).split(b"\x02" + _zigzag(_MARKER_BYTES) + marker)
        if len(records) != frame.height + 1:
            raise EncodeError("polars wrote another number of Avro records than there are rows")
        return pl.Series("avro", [head + record for record in records[:-1]], dtype=pl.Binary)


def _written(series: pl.Series) -> pl.Series:
    """The series in types that polars writes as `schema_of` says: small integers are ints, timestamps longs.
    Decimals are given as the bytes they are, since polars drops the sign's byte of some."""
    dtype = series.dtype
    if isinstance(dtype, pl.Int8 | pl.Int16):
        return series.cast(pl.Int32)
    if isinstance(dtype, pl.Datetime):
        return (series.dt.cast_time_unit("us") if dtype.time_unit == "ns" else series).to_physical()
    if isinstance(dtype, pl.Decimal):
        return _decimal_bytes(series)
    if isinstance(dtype, pl.List):
        return map_items(series, _written)
    if isinstance(dtype, pl.Struct):
        return map_members(series, lambda _, member: _written(member))
    return series


def _decimal_bytes(series: pl.Series) -> pl.Series:
    """Unscaled values as 16 bytes each, two's complement, the highest byte first."""
    array = series.rechunk().to_arrow()
    little = np.frombuffer(array.buffers()[1], np.uint8)[array.offset * 16 : (array.offset + len(array)) * 16]
    big = np.ascontiguousarray(little.reshape(-1, 16)[:, ::-1])
    offsets = np.arange(0, len(array) * 16 + 1, 16, dtype=np.int64)
    values = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(array), [None, pa.py_buffer(offsets), pa.py_buffer(big)]
    )
    encoded = pl.Series(series.name, values, dtype=pl.Binary)
    return encoded.set(series.is_null(), None) if series.null_count() else encoded


def _blocks(container: bytes) -> bytes:
    """The records of an object container that was not compressed, without what is around them."""
    sync = container[-16:]
    at = container.index(sync) + len(sync)
    blocks = []
    while at < len(container):
        _, at = _read_zigzag(container, at)
        size, at = _read_zigzag(container, at)
        blocks.append(container[at : at + size])
        at += size + len(sync)
    return b"".join(blocks)


def _read_zigzag(content: bytes, at: int) -> tuple[int, int]:
    """A number that is not negative, and where it ends."""
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value >> 1, at
