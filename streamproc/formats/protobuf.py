"""Protobuf values of a topic: parsed by upb (C), then read and written a column at a time.

On the wire decimals and dates are texts, timestamps `google.protobuf.Timestamp`. A scalar without presence (plain
proto3) is never null; a repeated field never is, either: a null list is written as an empty one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from operators.element import Schema
from operators.types import FieldType
from streamproc.formats.confluent import PREFIX_BYTES, SchemaMismatch, prefix
from streamproc.formats.isolate import short_reason
from streamproc.formats.proto_schema import compile_schema, message_at, schema_text
from streamproc.formats.protocol import BadRecord, DecodeError, EncodeError, FormatError, RefusedRows
from streamproc.formats.registry import RegisteredSchema
from streamproc.formats.typed import conform, fits
from streamproc.formats.wire import UnfitNested, to_frame

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

_TIMESTAMP: Final = "google.protobuf.Timestamp"
_UTC_US: Final = pl.Datetime("us", "UTC")
_FIRST_MESSAGE: Final = b"\0"
_INDEXES_MAX: Final = 64
_REFUSED: Final = (pl.exceptions.PolarsError, UnfitNested, TypeError, OverflowError)

Values = list[Any]
_Read = Callable[[Values], Values]  # a field's value of each message, None for null


class ProtobufReader:
    """Reads what one schema wrote, whichever of its messages."""

    def __init__(
        self,
        schema: RegisteredSchema,
        fields: Mapping[str, FieldType],
        required: Sequence[str],
        message: str | None = None,
    ) -> None:
        try:
            self._file: FileDescriptor = compile_schema(schema.text, schema.references)
        except FormatError as error:
            raise SchemaMismatch(str(error)) from error
        self._fields = fields
        self._required = frozenset(required)
        self._message = message
        self._messages: dict[bytes, _MessageReader] = {}

    def decode(self, values: Sequence[bytes]) -> pl.DataFrame:
        """The declared columns; `DecodeError` when any value is refused."""
        bad: list[BadRecord] = []
        parsed: Values = []
        indexes, reader, parse = b"", None, None
        for at, value in enumerate(values):
            start = PREFIX_BYTES + 1
            here = value[PREFIX_BYTES:start]
            try:
                if here != _FIRST_MESSAGE:
                    start = _indexes_end(value)
                    here = value[PREFIX_BYTES:start]
                if reader is None:
                    indexes, reader = here, self._reader(here)
                    parse = reader.parse
                elif here != indexes:
                    raise DecodeError("another message than the records before it")  # apart it can be read
                parsed.append(parse(value[start:]))  # type: ignore[misc]
            except DecodeError as error:
                if len(values) > 1:
                    raise
                bad.append(BadRecord(at, str(error)))
            except Exception as error:  # upb's own, of a module that differs between its builds
                bad.append(BadRecord(at, f"not what its schema says: {short_reason(error)}"))
        if bad:
            raise RefusedRows(bad)
        if reader is None:
            return pl.DataFrame(schema={name: field.dtype for name, field in self._fields.items()})
        try:
            return to_frame(reader.columns(parsed), self._fields, self._required)
        except _REFUSED as error:
            raise DecodeError(f"does not fit its columns: {short_reason(error)}") from error

    def _reader(self, indexes: bytes) -> _MessageReader:
        if (found := self._messages.get(indexes)) is None:
            try:
                message = message_at(self._file, _indexes_of(indexes))
            except FormatError as error:
                raise DecodeError(str(error)) from error
            if self._message is not None and self._message not in (message.name, message.full_name):
                raise DecodeError(f"is a message {message.full_name}, not {self._message}")
            found = self._messages[indexes] = _MessageReader(message, self._fields)
        return found


class _MessageReader:
    """From parsed messages of one type to the declared fields."""

    def __init__(self, message: Descriptor, fields: Mapping[str, FieldType]) -> None:
        from google.protobuf.message_factory import GetMessageClass

        self.parse = GetMessageClass(message).FromString
        self._readers: list[tuple[str, FieldType, tuple[pl.DataType, _Read] | None]] = []
        for name, field in fields.items():
            there = message.fields_by_name.get(name)
            read = None if there is None else _reading(there, field)
            if read is not None and not fits(read[0], field, lacking=True):
                raise SchemaMismatch(f"field {name} is {_type_name(there)}, declared {field}")
            self._readers.append((name, field, read))

    def columns(self, messages: Values) -> list[pl.Series]:
        columns = []
        for name, field, read in self._readers:
            if read is None:
                columns.append(pl.repeat(None, len(messages), dtype=field.dtype, eager=True).alias(name))
            else:
                dtype, values = read
                columns.append(conform(pl.Series(name, values(messages), dtype=dtype), field))
        return columns


def _reading(there: FieldDescriptor, field: FieldType) -> tuple[pl.DataType, _Read]:
    """The natural type of a field, and how its values are read; only what is declared of a message inside."""
    name = there.name
    if there.is_repeated:
        if there.message_type is not None and there.message_type.GetOptions().map_entry:
            raise SchemaMismatch(f"field {name} is a map, which streamproc does not read from Protobuf")
        dtype, convert = _item(there, field.item or field)
        if convert is None:
            return pl.List(dtype), lambda messages: [list(getattr(message, name)) for message in messages]
        return pl.List(dtype), lambda messages: [convert(list(getattr(message, name))) for message in messages]
    dtype, convert = _item(there, field)
    if convert is None and not there.has_presence:
        return dtype, lambda messages: [getattr(message, name) for message in messages]

    def present(messages: Values) -> Values:
        return [getattr(message, name) if message.HasField(name) else None for message in messages]

    if convert is None:
        return dtype, present
    if not there.has_presence:
        return dtype, lambda messages: convert([getattr(message, name) for message in messages])
    return dtype, lambda messages: convert(present(messages))


def _item(there: FieldDescriptor, field: FieldType) -> tuple[pl.DataType, _Read | None]:
    """Type of one value, and what makes Python values of upb's (None: they are)."""
    from google.protobuf.descriptor import FieldDescriptor as Kinds

    message = there.message_type
    if message is not None and message.full_name == _TIMESTAMP:
        return _UTC_US, lambda values: [None if v is None else v.seconds * 1_000_000 + v.nanos // 1_000 for v in values]
    if message is not None:
        members: list[tuple[str, pl.DataType, _Read]] = []
        for name, inner in field.fields:
            if (member := message.fields_by_name.get(name)) is not None:
                members.append((name, *_reading(member, inner)))
        return pl.Struct({name: dtype for name, dtype, _ in members}), lambda values: _structs(values, members)
    if there.enum_type is not None:
        symbols = {number: value.name for number, value in there.enum_type.values_by_number.items()}
        return pl.String(), lambda values: [None if v is None else symbols.get(v, str(v)) for v in values]
    kinds: dict[int, pl.DataType] = {
        Kinds.CPPTYPE_INT32: pl.Int32(),
        Kinds.CPPTYPE_INT64: pl.Int64(),
        Kinds.CPPTYPE_UINT32: pl.UInt32(),
        Kinds.CPPTYPE_UINT64: pl.UInt64(),
        Kinds.CPPTYPE_FLOAT: pl.Float32(),
        Kinds.CPPTYPE_DOUBLE: pl.Float64(),
        Kinds.CPPTYPE_BOOL: pl.Boolean(),
    }
    if there.cpp_type in kinds:
        return kinds[there.cpp_type], None
    return (pl.Binary() if there.type == Kinds.TYPE_BYTES else pl.String()), None


def _structs(values: Values, members: Sequence[tuple[str, pl.DataType, _Read]]) -> Values:
    there = [value for value in values if value is not None]
    names = [name for name, _, _ in members]
    read = zip(*(values_of(there) for _, _, values_of in members), strict=True) if members else ((),) * len(there)
    rows = iter([dict(zip(names, row, strict=True)) for row in read])
    return [None if value is None else next(rows) for value in values]


def _type_name(there: FieldDescriptor | None) -> str:
    assert there is not None
    kind = there.message_type or there.enum_type
    said = kind.full_name if kind is not None else str(there.type).lower()
    return f"repeated {said}" if there.is_repeated else f"Protobuf type {said}"


def _indexes_end(value: bytes) -> int:
    """Where the message itself begins: behind a count and so many indexes, zigzag varints all."""
    count, at = _varint(value, PREFIX_BYTES)
    if not 0 <= count <= _INDEXES_MAX:
        raise DecodeError("does not say which message it is")
    for _ in range(count):
        _, at = _varint(value, at)
    return at


def _indexes_of(encoded: bytes) -> list[int]:
    count, at = _varint(encoded, 0)
    indexes = []
    for _ in range(count):
        index, at = _varint(encoded, at)
        if index < 0:
            raise DecodeError("does not say which message it is")
        indexes.append(index)
    return indexes or [0]


def _varint(value: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(value) or shift > 63:
            raise DecodeError("ends before it says which message it is")
        byte = value[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at


class ProtobufEncoder:
    """Encodes frames that have at least the schema's columns; others (hidden ones) are left out."""

    def __init__(self, schema: Schema, message: str | None = None) -> None:
        self._columns = list(schema)
        self.schema: str = schema_text(schema, message or "Row")
        descriptor = message_at(compile_schema(self.schema, {}), [0])
        from google.protobuf.message_factory import GetMessageClass  # `compile_schema` says how to install it

        self._make = GetMessageClass(descriptor)

    def encode_column(self, frame: pl.DataFrame, schema_id: int) -> pl.Series:
        """A Binary series: each row in the Confluent wire format under this id."""
        head = prefix(schema_id) + _FIRST_MESSAGE
        wire = [_written(frame[name]) for name in self._columns]
        make = self._make
        try:
            # An argument that is None is a field not set.
            encoded = [
                head + make(**dict(zip(self._columns, row, strict=True))).SerializeToString()
                for row in zip(*wire, strict=True)
            ]
        except (TypeError, ValueError) as error:
            raise EncodeError(f"cannot be written as Protobuf: {short_reason(error)}") from error
        return pl.Series("protobuf", encoded, dtype=pl.Binary)


def _written(series: pl.Series) -> Values:
    """Values as upb takes them."""
    dtype = series.dtype
    if isinstance(dtype, pl.Datetime):
        us = series.dt.cast_time_unit("us").to_physical().to_list()
        return [None if t is None else {"seconds": t // 1_000_000, "nanos": t % 1_000_000 * 1_000} for t in us]
    if isinstance(dtype, pl.Decimal | pl.Date):
        return series.cast(pl.String).to_list()
    if isinstance(dtype, pl.Struct):
        names = [field.name for field in dtype.fields]
        members = [_written(series.struct.field(name)) for name in names]
        rows = zip(*members, strict=True)
        absent = series.is_null().to_list()
        return [
            None if null else {n: v for n, v in zip(names, row, strict=True) if v is not None}
            for null, row in zip(absent, rows, strict=True)
        ]
    if isinstance(dtype, pl.List):
        return _written_lists(series)
    return series.to_list()


def _written_lists(series: pl.Series) -> Values:
    """Items of all lists at once, cut into lists again."""
    items = series.explode(empty_as_null=False, keep_nulls=False)
    if items.null_count():
        raise EncodeError(f"{series.name}: Protobuf has no null inside a list")
    written = _written(items)
    lists, at = [], 0
    for length in series.list.len().fill_null(0).to_list():
        lists.append(written[at : at + length])
        at += length
    return lists
