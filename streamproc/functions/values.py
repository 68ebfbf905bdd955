"""Python values of declared types: what user code may return or keep, and how it is written down.

A `ValueType` checks strictly, so that a wrong value is told of where it arises: an int is a float64, and
nothing else turns into anything. Kept values are JSON: readable, and reading them executes nothing.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import polars as pl

from operators.types import FieldType, UnknownType, parse_type

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SHOWN_CHARACTERS: Final = 80
_PYTHON_TYPES: Final[dict[object, str]] = {
    bool: "boolean",
    int: "int64",
    float: "float64",
    str: "string",
    bytes: "bytes",
    date: "date",
    datetime: "timestamp",
}

Convert = Callable[[Any], Any]


class WrongValue(ValueError):
    """Not a value of the declared type; the message names both."""


@dataclass(frozen=True, slots=True)
class ValueType:
    """One declared type. `check` returns the value as polars takes it, or raises WrongValue; null goes with all.
    `plain` and `meant` are to and from what JSON has."""

    field: FieldType
    check: Convert
    plain: Convert
    meant: Convert

    def encode(self, value: Any) -> bytes:
        """The value as bytes without a zero byte; raises WrongValue."""
        try:
            return json.dumps(self.plain(self.check(value)), ensure_ascii=False, separators=(",", ":")).encode()
        except UnicodeEncodeError:
            raise WrongValue(f"{shown(value)} is not valid text") from None

    def decode(self, encoded: bytes) -> Any:
        """Inverse of `encode`."""
        return self.meant(json.loads(encoded))


def declared_type(declared: object) -> ValueType:
    """Of `int64`, `list[string]`, a mapping for a struct, or Python's `int`, `str`, …; raises UnknownType."""
    if isinstance(declared, type) and declared in _PYTHON_TYPES:
        return value_type(parse_type(_PYTHON_TYPES[declared]))
    if isinstance(declared, str | Mapping):
        return value_type(parse_type(declared))
    raise UnknownType(
        f"{declared!r} is not a type: write for example 'int64', 'list[string]' or a mapping for a struct"
    )


def value_type(field: FieldType) -> ValueType:
    """How values of a declared type are checked and written."""
    check, plain, meant = _conversions(field)
    return ValueType(field, _or_null(check), _or_null(plain), _or_null(meant))


def type_of_column(dtype: pl.DataType) -> ValueType:
    """As `value_type`, of a key column's type."""
    if isinstance(dtype, pl.Decimal):
        return value_type(FieldType("decimal", dtype.precision or 38, dtype.scale))
    if isinstance(dtype, pl.Datetime):
        return value_type(FieldType("timestamp"))
    for name, same in (("boolean", pl.Boolean), ("bytes", pl.Binary), ("date", pl.Date), ("string", pl.String)):
        if dtype == same:
            return value_type(FieldType(name))
    if dtype.is_integer():
        return value_type(FieldType("uint64" if dtype == pl.UInt64 else "int64"))
    if dtype.is_float():
        return ValueType(FieldType("float64"), _or_null(_float), _or_null(_canonical_float), _or_null(float))
    raise TypeError(f"a column of type {dtype} cannot be a key of a process function")


def shown(value: object) -> str:
    """A value in a message."""
    text = repr(value)
    text = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return f"{text} ({type(value).__name__})"


def to_milliseconds(time: object) -> int:
    """An aware datetime as ms since the epoch, rounded up: nothing is due early. Raises WrongValue."""
    return -(-_microseconds(_datetime(time)) // 1000)


def from_milliseconds(time: int) -> datetime:
    """Inverse of `to_milliseconds`; what no datetime can say becomes the nearest that can."""
    if time >= _LATEST_MS:
        return datetime.max.replace(tzinfo=UTC)
    if time <= _EARLIEST_MS:
        return datetime.min.replace(tzinfo=UTC)
    return _EPOCH + timedelta(milliseconds=time)


def _same(value: Any) -> Any:
    return value


def _or_null(convert: Convert) -> Convert:
    if convert is _same:
        return _same
    return lambda value: None if value is None else convert(value)


def _conversions(field: FieldType) -> tuple[Convert, Convert, Convert]:
    """check, plain and meant of values that are not null."""
    if field.name in _INTEGER_BOUNDS:
        return _integer(field.name), _same, _same
    match field.name:
        case "boolean":
            return _boolean, _same, _same
        case "float32" | "float64":
            return _float, _same, float
        case "string":
            return _text, _same, _same
        case "bytes":
            return _bytes, lambda value: base64.b64encode(value).decode(), base64.b64decode
        case "date":
            return _date, date.toordinal, date.fromordinal
        case "decimal":
            return _decimal(field), str, Decimal
        case "list":
            assert field.item is not None
            return _list_of(value_type(field.item))
        case "struct":
            return _struct_of(field)
        case _:
            return _datetime, _microseconds, lambda value: _EPOCH + value * _MICROSECOND


_INTEGER_BOUNDS: Final = {f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)} | {
    "uint64": (0, 2**64 - 1)
}


def _integer(name: str) -> Convert:
    least, most = _INTEGER_BOUNDS[name]

    def check(value: Any) -> int:
        if type(value) is not int:
            if isinstance(value, bool) or not hasattr(value, "__index__"):
                raise WrongValue(f"{shown(value)} is not {name}")
            value = value.__index__()  # numpy's
        if not least <= value <= most:
            raise WrongValue(f"{shown(value)} is out of the range of {name}")
        return int(value)

    return check


def _boolean(value: Any) -> bool:
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):  # numpy's, too
        return bool(value)
    raise WrongValue(f"{shown(value)} is not boolean")


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if isinstance(value, bool | str | bytes | Decimal) or not (hasattr(value, "__float__") or isinstance(value, int)):
        raise WrongValue(f"{shown(value)} is not a float")
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError):
        raise WrongValue(f"{shown(value)} is not a float") from None


def _canonical_float(value: float) -> float | str:
    """Equal keys are written alike: −0.0 is 0.0, and every NaN is one."""
    return "nan" if math.isnan(value) else value + 0.0


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise WrongValue(f"{shown(value)} is not string")


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise WrongValue(f"{shown(value)} is not bytes")


def _date(value: Any) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise WrongValue(f"{shown(value)} is not date")


def _datetime(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise WrongValue(f"{shown(value)} is not a datetime")
    if value.tzinfo is None:
        raise WrongValue(f"{shown(value)} has no time zone: write datetime(…, tzinfo=UTC)")
    return value.astimezone(UTC)


def _microseconds(value: datetime) -> int:
    return (value - _EPOCH) // _MICROSECOND


_EARLIEST_MS: Final = _microseconds(datetime.min.replace(tzinfo=UTC)) // 1000
_LATEST_MS: Final = _microseconds(datetime.max.replace(tzinfo=UTC)) // 1000


def _decimal(field: FieldType) -> Convert:
    unit = Decimal(1).scaleb(-field.scale)
    limit = Decimal(10) ** (field.precision - field.scale)

    def check(value: Any) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, Decimal | int):
            raise WrongValue(f"{shown(value)} is not a Decimal")
        given = Decimal(value)
        try:
            exact = given.quantize(unit)
        except InvalidOperation:
            exact = None
        if exact is None or exact != given or abs(exact) >= limit:
            raise WrongValue(f"{shown(value)} does not fit {field}")
        return exact

    return check


def _list_of(item: ValueType) -> tuple[Convert, Convert, Convert]:
    def check(value: Any) -> list[Any]:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
            raise WrongValue(f"{shown(value)} is not a list")
        return [item.check(element) for element in value]

    return (
        check,
        lambda value: [item.plain(element) for element in value],
        lambda value: [item.meant(element) for element in value],
    )


def _struct_of(field: FieldType) -> tuple[Convert, Convert, Convert]:
    fields = {name: value_type(inner) for name, inner in field.fields}

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise WrongValue(f"{shown(value)} is not a dict with the fields {', '.join(fields)}")
        for name in value:
            if name not in fields:
                raise WrongValue(f"{shown(value)} has a field {name!r} that {field} does not have")
        return {name: inner.check(value.get(name)) for name, inner in fields.items()}

    return (
        check,
        lambda value: {name: inner.plain(value[name]) for name, inner in fields.items()},
        lambda value: {name: inner.meant(value.get(name)) for name, inner in fields.items()},
    )
