"""Parquet tables: columns are found by name, and a type may differ where values keep their meaning
(see `typed`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl
import pyarrow as pa

from operators.element import Schema
from operators.types import FieldType, name_of
from streamproc.formats.protocol import BadRecord, FormatError, RefusedRows
from streamproc.formats.typed import conform, fits
from streamproc.formats.wire import UnfitNested, to_frame


class ParquetDecoder:
    """Turns tables read from Parquet into the declared columns."""

    def __init__(self, fields: Mapping[str, FieldType], required: Sequence[str] = ()) -> None:
        self._fields = dict(fields)
        self._required = frozenset(required)

    @property
    def columns(self) -> list[str]:
        """The columns to read from a file."""
        return list(self._fields)

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Columns of a decoded frame."""
        return {name: field.dtype for name, field in self._fields.items()}

    def check(self, schema: pa.Schema) -> None:
        """Raise `FormatError` naming the first column that a file's schema lacks or has in another type."""
        found = pl.DataFrame(schema.empty_table()).schema
        for name, field in self._fields.items():
            if name not in found:
                raise FormatError(f"column {name} is missing; the file has {', '.join(found)}")
            if not fits(found[name], field):
                raise FormatError(f"column {name} is {name_of(found[name])}, declared {field}")

    def decode(self, table: pa.Table) -> tuple[pl.DataFrame, list[BadRecord]]:
        """The rows that fit, and the others by index (an integer out of range, an event time that is null)."""
        stored = pl.DataFrame(table.select(self.columns))
        bad: list[BadRecord] = []
        frames = self._fitting(stored, 0, bad)
        return (pl.concat(frames) if frames else pl.DataFrame(schema=self.schema)), sorted(bad)

    def _fitting(self, stored: pl.DataFrame, first: int, bad: list[BadRecord]) -> list[pl.DataFrame]:
        """Frames of the rows that fit; halves the rows to find one that does not fit inside a list or struct."""
        try:
            return [self._declared(stored)]
        except RefusedRows as refused:
            bad += [BadRecord(first + at, message) for at, message in refused.bad]
            keep = pl.repeat(True, stored.height, eager=True).scatter([at for at, _ in refused.bad], False)
            return [self._declared(stored.filter(keep))]
        except UnfitNested as error:
            if stored.height == 1:
                bad.append(BadRecord(first, str(error)))
                return []
        half = stored.height // 2
        return self._fitting(stored[:half], first, bad) + self._fitting(stored[half:], first + half, bad)

    def _declared(self, stored: pl.DataFrame) -> pl.DataFrame:
        columns = (conform(series, self._fields[series.name]) for series in stored)
        return to_frame(columns, self._fields, self._required)


class ParquetEncoder:
    """Rows as an Arrow table in schema order."""

    def __init__(self, schema: Schema) -> None:
        self._columns = list(schema)
        self.schema: pa.Schema = pl.DataFrame(schema=schema).to_arrow(compat_level=_COMPATIBLE).schema

    def encode(self, frame: pl.DataFrame) -> pa.Table:
        """A table of `schema`; columns beyond it (hidden ones) are left out."""
        return frame.select(self._columns).to_arrow(compat_level=_COMPATIBLE).cast(self.schema)


_COMPATIBLE: Final = pl.CompatLevel.oldest()
