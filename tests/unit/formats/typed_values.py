"""Random columns of every type the contract has, with nulls at every level, for the formats' round trips."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
from hypothesis import strategies as st

from operators.types import FieldType

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


def _times(unit_us: int) -> st.SearchStrategy[Any]:
    span = 4_000_000_000_000_000 // unit_us
    return st.integers(-span, span).map(lambda n: _EPOCH + timedelta(microseconds=n * unit_us))


_SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "int8": st.integers(-(2**7), 2**7 - 1),
    "int16": st.integers(-(2**15), 2**15 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float32": st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False),
    "float64": st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
    "string": _TEXT,
    "bytes": st.binary(max_size=12),
    "date": st.dates(date(1, 1, 1), date(9999, 12, 31)),
    "timestamp_s": _times(1_000_000),
    "timestamp_ms": _times(1_000),
    "timestamp_us": _times(1),
    "timestamp": _times(1),
}


def field_types(*, lists_of_lists: bool = True, nested: bool = True) -> st.SearchStrategy[FieldType]:
    """Any type, two levels of lists and structs deep."""
    scalars = st.sampled_from(sorted(_SCALARS)).map(FieldType) | st.builds(
        lambda precision, scale: FieldType("decimal", precision, min(precision, scale)),
        st.integers(1, 38),
        st.integers(0, 38),
    )

    def around(inner: st.SearchStrategy[FieldType]) -> st.SearchStrategy[FieldType]:
        items = inner if lists_of_lists else inner.filter(lambda field: field.name != "list")
        members = st.lists(inner, min_size=1, max_size=3)
        return items.map(lambda item: FieldType("list", item=item)) | members.map(
            lambda fields: FieldType("struct", fields=tuple((f"m{at}", field) for at, field in enumerate(fields)))
        )

    return scalars | around(scalars | around(scalars)) if nested else scalars


def values(field: FieldType, *, in_lists: bool = True, nullable: bool = True) -> st.SearchStrategy[Any]:
    """Values of a type, null among them. `in_lists`: lists may be null and hold nulls."""
    some: st.SearchStrategy[Any]
    if field.name == "list":
        assert field.item is not None
        some = st.lists(values(field.item, in_lists=in_lists, nullable=in_lists), max_size=3)
        nullable = nullable and in_lists
    elif field.name == "struct":
        some = st.fixed_dictionaries({name: values(inner, in_lists=in_lists) for name, inner in field.fields})
    elif field.name == "decimal":
        most = 10**field.precision - 1
        some = st.integers(-most, most).map(lambda n: Decimal(f"{n}e-{field.scale}"))
    else:
        some = _SCALARS[field.name]
    return st.none() | some if nullable else some


def column(field: FieldType, rows: list[Any]) -> pl.Series:
    """The values as a column of the declared type."""
    return pl.Series("x", rows, dtype=field.dtype)
