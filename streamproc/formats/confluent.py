"""Values in the Confluent wire format: a zero byte, a schema id of four bytes, then what that schema wrote.

A batch may mix schemas: each one's values are decoded together. A value of an unknown schema, or of one that
does not have the declared types, is a bad record; a registry that does not answer is not the records' fault.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import polars as pl

from operators.types import FieldType
from streamproc.formats.isolate import Records, isolate
from streamproc.formats.protocol import BadRecord, DecodeError, Rows
from streamproc.formats.registry import RegisteredSchema, SchemaRegistry, SchemaType

MAGIC: Final = b"\0"
PREFIX_BYTES: Final = 5
_READERS_MAX: Final = 256


def prefix(schema_id: int) -> bytes:
    """What a value begins with."""
    return MAGIC + schema_id.to_bytes(4, "big")


class SchemaMismatch(DecodeError):
    """A writer's schema cannot be read as the declared columns: all its records are refused."""


class SchemaReader(Protocol):
    """Reads the values that one schema wrote."""

    def decode(self, values: Sequence[bytes]) -> pl.DataFrame:
        """The declared columns, a row for each value (prefix included); `DecodeError` when any is refused."""


ReaderOf = Callable[[RegisteredSchema, Mapping[str, FieldType], Sequence[str]], SchemaReader]


class ConfluentDecoder:
    """A `ValuesDecoder`. `reader_of` makes the reader of a schema, or raises `SchemaMismatch`."""

    def __init__(
        self,
        registry: SchemaRegistry,
        schema_type: SchemaType,
        fields: Mapping[str, FieldType],
        required: Sequence[str],
        reader_of: ReaderOf,
    ) -> None:
        self._registry = registry
        self._type = schema_type
        self._fields = dict(fields)
        self._required = tuple(required)
        self._reader_of = reader_of
        self._readers: OrderedDict[bytes, SchemaReader | SchemaMismatch] = OrderedDict()

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Columns of a decoded frame."""
        return {name: field.dtype for name, field in self._fields.items()}

    def decode_values(self, values: Sequence[bytes | None]) -> Rows:
        """See `ValuesDecoder`. May wait for the registry; `RegistryUnavailable` after its deadline."""
        heads = {value[:PREFIX_BYTES] for value in values if value is not None}
        if len(heads) == 1 and None not in values:
            try:
                return Rows(self._reader(heads.pop()).decode(values), [])  # type: ignore[arg-type]
            except DecodeError:
                pass
        return self._decode_apart(values)

    def _decode_apart(self, values: Sequence[bytes | None]) -> Rows:
        bad: list[BadRecord] = []
        by_head: dict[bytes, Records] = {}
        for at, value in enumerate(values):
            if value is None:
                bad.append(BadRecord(at, "null value"))
            else:
                by_head.setdefault(value[:PREFIX_BYTES], []).append((at, value))
        frames: list[pl.DataFrame] = []
        order: list[int] = []
        for head, records in by_head.items():
            refused: list[BadRecord] = []
            try:
                reader = self._reader(head)
            except DecodeError as error:
                refused = [BadRecord(at, str(error)) for at, _ in records]
            else:
                frames += isolate(records, lambda some, reader=reader: _decode(reader, some), refused)  # type: ignore[misc]
            unfit = {record.at for record in refused}
            order += [at for at, _ in records if at not in unfit]
            bad += refused
        bad.sort()
        if not frames:
            return Rows(pl.DataFrame(schema=self.schema), bad)
        frame = pl.concat(frames)
        if len(by_head) > 1:
            frame = frame[pl.Series(order, dtype=pl.Int64).arg_sort()]
        return Rows(frame, bad)

    def _reader(self, head: bytes) -> SchemaReader:
        found = self._readers.get(head)
        if found is None:
            found = self._make_reader(head)
            self._readers[head] = found
            while len(self._readers) > _READERS_MAX:
                self._readers.popitem(last=False)
        if isinstance(found, SchemaMismatch):
            raise found
        return found

    def _make_reader(self, head: bytes) -> SchemaReader | SchemaMismatch:
        if len(head) < PREFIX_BYTES or not head.startswith(MAGIC):
            raise DecodeError("does not begin with a zero byte and a schema id: not written with a schema registry")
        schema_id = int.from_bytes(head[1:], "big")
        schema = self._registry.schema(schema_id)
        if schema is None:
            raise DecodeError(f"schema {schema_id} is not in the registry {self._registry.url}")
        if schema.type != self._type:
            return SchemaMismatch(f"schema {schema_id} is {schema.type.capitalize()}, not {self._type.capitalize()}")
        try:
            return self._reader_of(schema, self._fields, self._required)
        except SchemaMismatch as mismatch:
            return SchemaMismatch(f"schema {schema_id}: {mismatch}")


def _decode(reader: SchemaReader, records: Records) -> pl.DataFrame:
    return reader.decode([value for _, value in records])
