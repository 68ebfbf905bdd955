"""Rows as JSON objects in schema order: nulls written, timestamps ISO-8601 or epoch ms, decimals as
strings, bytes as base64. JSON has no NaN or infinity: they are written as null.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Literal

import polars as pl

from operators.element import Schema
from streamproc.formats.iso import iso_texts
from streamproc.formats.nested import map_items, map_members

Timestamps = Literal["iso", "epoch_ms"]


class JsonEncoder:
    """Encodes frames that have at least the schema's columns; others (hidden ones) are left out."""

    def __init__(self, schema: Schema, timestamps: Timestamps = "iso") -> None:
        self._columns = list(schema)
        self._timestamps: Timestamps = timestamps

    def encode_lines(self, frame: pl.DataFrame) -> bytes:
        """Newline-terminated JSON objects, one for each row."""
        buffer = BytesIO()
        self._wire(frame, self._columns).write_ndjson(buffer)
        return buffer.getvalue()

    def encode_column(self, frame: pl.DataFrame) -> pl.Series:
        """A String series: each row as one JSON object."""
        return self._objects(frame, self._columns)

    def encode_key(self, frame: pl.DataFrame, key: Sequence[str]) -> pl.Series:
        """A String series: of one column its plain text (null stays null), of several a JSON object."""
        if len(key) > 1:
            return self._objects(frame, key)
        column = _encoded(frame[key[0]], self._timestamps)
        if isinstance(column.dtype, pl.List | pl.Struct | pl.Array):
            return self._objects(frame, key)
        return column.cast(pl.String).alias(key[0])

    def _objects(self, frame: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
        return self._wire(frame, columns).to_struct("json").struct.json_encode()

    def _wire(self, frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        return pl.DataFrame([_encoded(frame[name], self._timestamps) for name in columns])


def _encoded(series: pl.Series, timestamps: Timestamps) -> pl.Series:
    """The series with every value in a type that polars writes as the contract says."""
    dtype = series.dtype
    if isinstance(dtype, pl.Datetime):
        if timestamps == "iso":
            return iso_texts(series)
        return series.dt.cast_time_unit("ms").to_physical()
    if isinstance(dtype, pl.Binary):
        return series.bin.encode("base64")
    if isinstance(dtype, pl.List) and _is_rewritten(dtype):
        return map_items(series, lambda items: _encoded(items, timestamps))
    if isinstance(dtype, pl.Struct) and _is_rewritten(dtype):
        return map_members(series, lambda _, member: _encoded(member, timestamps))
    return series


def _is_rewritten(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List):
        return _is_rewritten(dtype.inner)  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return any(_is_rewritten(field.dtype) for field in dtype.fields)  # type: ignore[arg-type]
    return isinstance(dtype, pl.Datetime | pl.Binary)
