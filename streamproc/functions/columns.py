"""The columns that user code declares: what it returns is checked against them and nothing else is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from operators.element import Schema
from operators.row_errors import RowRefused
from operators.types import FieldType, name_of
from streamproc.functions.values import ValueType, WrongValue, shown, value_type
from streamproc.pipeline.suggest import did_you_mean

Fields = tuple[tuple[str, FieldType], ...]  # hashable, so that specs are


@dataclass(frozen=True, slots=True)
class DeclaredColumns:
    """Columns by name, with the checks of their values."""

    types: Mapping[str, ValueType]

    @classmethod
    def of(cls, fields: Fields) -> DeclaredColumns:
        return cls({name: value_type(field) for name, field in fields})

    def values_of(self, returned: object, given: Mapping[str, Any] | None = None) -> list[Any]:
        """The checked values of one returned dict, in the order of the columns; what is missing is null. Columns
        of the `given` row may stand in it unchanged. Raises RowRefused."""
        if not isinstance(returned, Mapping):
            raise RowRefused(f"it gave {shown(returned)} where a dict with {self._listed()} is expected")
        values = []
        known = 0
        for name, kind in self.types.items():
            value = None
            if name in returned:
                known += 1
                value = returned[name]
            try:
                values.append(kind.check(value))
            except WrongValue as error:
                raise RowRefused(f"column '{name}' is {kind.field}: {error}") from None
        if known != len(returned):
            self._check_others(returned, given or {})
        return values

    def series(self, rows: Sequence[Sequence[Any]]) -> list[pl.Series]:
        """Rows that `values_of` has checked, as columns."""
        columns = zip(*rows, strict=True) if rows else ((),) * len(self.types)
        return [
            pl.Series(name, list(values), dtype=kind.field.dtype, strict=True)
            for (name, kind), values in zip(self.types.items(), columns, strict=True)
        ]

    def _check_others(self, returned: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        for name, value in returned.items():
            if name in self.types:
                continue
            if name not in given:
                hint = did_you_mean(str(name), self.types)
                raise RowRefused(f"column {name!r} is not declared in `columns`{f'; {hint}' if hint else ''}")
            before = given[name]
            if value is not before and value != before:
                raise RowRefused(
                    f"column '{name}' was changed to {shown(value)}: to replace it, declare it in `columns`"
                )

    def _listed(self) -> str:
        return ", ".join(self.types)


def extended(schema: Schema, fields: Fields) -> Schema:
    """Input columns with the declared ones in their place, or behind."""
    return schema | {name: field.dtype for name, field in fields}


def taken_as(series: pl.Series, name: str, declared: FieldType) -> pl.Series | None:
    """A column that user code returned, as the declared type: numbers of another width, timestamps of another
    unit, and nulls are taken. None: it is of another kind. Raises RowRefused where a value does not fit."""
    wanted, given = declared.dtype, series.dtype
    if given == wanted:
        return series.alias(name)
    numbers = (given.is_integer() and (wanted.is_integer() or wanted.is_float() or wanted.is_decimal())) or (
        given.is_float() and wanted.is_float()
    )
    times = isinstance(given, pl.Datetime) and isinstance(wanted, pl.Datetime) and given.time_zone is not None
    decimals = isinstance(given, pl.Decimal) and isinstance(wanted, pl.Decimal) and given.scale <= wanted.scale
    nested = isinstance(given, pl.List | pl.Struct) and type(given) is type(wanted) and _same_names(given, wanted)
    if not (given == pl.Null or numbers or times or decimals or nested):
        return None
    try:
        return series.cast(wanted, strict=True).alias(name)
    except pl.exceptions.PolarsError as error:
        reason = str(error).strip().partition("\n")[0]
        raise RowRefused(f"column '{name}' is {declared}: {reason}") from None


def unfit(series: pl.Series, name: str, declared: FieldType) -> str:
    """What to say of a column of another kind."""
    example = next((value for value in series if value is not None), None)
    return f"column '{name}' is {declared}, and it returned {name_of(series.dtype)}, for example {shown(example)}"


def _same_names(given: pl.DataType, wanted: pl.DataType) -> bool:
    if isinstance(given, pl.Struct) and isinstance(wanted, pl.Struct):
        return {field.name for field in given.fields} == {field.name for field in wanted.fields}
    return True
