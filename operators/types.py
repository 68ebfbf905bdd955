"""The contract's column types: how a field is written on the wire, and the polars type it becomes.

`timestamp_s/ms/us` are numbers since the epoch and `timestamp` is ISO-8601 text on the wire; all four
are UTC datetimes as columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl


@dataclass(frozen=True, slots=True)
class FieldType:
    """One field as declared in a pipeline file."""

    name: str  # "int64", "decimal", "list", "struct", …
    precision: int = 0
    scale: int = 0
    item: FieldType | None = None
    fields: tuple[tuple[str, FieldType], ...] = ()

    @property
    def dtype(self) -> pl.DataType:
        """The column's type once decoded."""
        if self.name == "decimal":
            return pl.Decimal(self.precision, self.scale)
        if self.name == "list":
            assert self.item is not None
            return pl.List(self.item.dtype)
        if self.name == "struct":
            return pl.Struct([pl.Field(name, field.dtype) for name, field in self.fields])
        return _PLAIN[self.name]

    def __str__(self) -> str:
        if self.name == "decimal":
            return f"decimal({self.precision},{self.scale})"
        if self.name == "list":
            return f"list[{self.item}]"
        if self.name == "struct":
            return "{" + ", ".join(f"{name}: {field}" for name, field in self.fields) + "}"
        return self.name


_PLAIN: Final[dict[str, pl.DataType]] = {
    "boolean": pl.Boolean(),
    "int8": pl.Int8(),
    "int16": pl.Int16(),
    "int32": pl.Int32(),
    "int64": pl.Int64(),
    "float32": pl.Float32(),
    "float64": pl.Float64(),
    "string": pl.String(),
    "bytes": pl.Binary(),
    "date": pl.Date(),
    "timestamp_s": pl.Datetime("ms", "UTC"),
    "timestamp_ms": pl.Datetime("ms", "UTC"),
    "timestamp_us": pl.Datetime("us", "UTC"),
    "timestamp": pl.Datetime("us", "UTC"),
}
UNKNOWN: Final = pl.Unknown()  # of a column that a fault in the file leaves without a type: known by name only
TYPE_NAMES: Final = (*_PLAIN, "decimal(p,s)", "list[T]")

_DECIMAL = re.compile(r"decimal\(\s*(\d+)\s*,\s*(\d+)\s*\)")
_LIST = re.compile(r"list\[(.*)\]")


class UnknownType(ValueError):
    """Not a type of the contract; the message names it."""


def parse_type(declared: str | Mapping[str, Any]) -> FieldType:
    """Read a declared type: `int64`, `decimal(10,2)`, `list[string]`, or a mapping for a struct."""
    if isinstance(declared, Mapping):
        if not declared:
            raise UnknownType("a struct needs at least one field")
        return FieldType("struct", fields=tuple((str(k), parse_type(v)) for k, v in declared.items()))
    if not isinstance(declared, str):
        raise UnknownType(f"{declared!r} is not a type")
    text = declared.strip()
    if text in _PLAIN:
        return FieldType(text)
    if match := _DECIMAL.fullmatch(text):
        precision, scale = int(match[1]), int(match[2])
        if not (1 <= precision <= 38 and scale <= precision):
            raise UnknownType(f"{text}: precision is 1 to 38, scale at most the precision")
        return FieldType("decimal", precision, scale)
    if match := _LIST.fullmatch(text):
        return FieldType("list", item=parse_type(match[1]))
    raise UnknownType(f"{text!r} is not a type")


def name_of(dtype: pl.DataType) -> str:
    """A column's type in the contract's words, for messages and `explain`."""
    if isinstance(dtype, pl.Datetime):
        return "timestamp"
    if isinstance(dtype, pl.Decimal):
        return f"decimal({dtype.precision},{dtype.scale})"
    if isinstance(dtype, pl.List):
        return f"list[{name_of(dtype.inner)}]"  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return "{" + ", ".join(f"{f.name}: {name_of(f.dtype)}" for f in dtype.fields) + "}"  # type: ignore[arg-type]
    for name, plain in _PLAIN.items():
        if plain == dtype:
            return name
    return str(dtype).lower()


def columns_text(schema: Mapping[str, pl.DataType]) -> str:
    """Columns with their types: `id int64, country string`."""
    return ", ".join(f"{name} {name_of(dtype)}" for name, dtype in schema.items())
