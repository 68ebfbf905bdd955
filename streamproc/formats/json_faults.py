"""Says what is wrong with one JSON record, in the contract's words.

It names only faults for which the batch decoder refuses the record too; it may miss some. So a record's
fate is the same whether it was looked at here or not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from operators.types import FieldType

_INT_RANGES: Final = {
    "int8": 2**7,
    "int16": 2**15,
    "int32": 2**31,
    "int64": 2**63,
    "timestamp_s": 2**63,
    "timestamp_ms": 2**63,
    "timestamp_us": 2**63,
}
_TEXTS: Final = frozenset({"string", "bytes", "date", "timestamp"})


class _NotJson(ValueError):
    pass


def _constant(name: str) -> NoReturn:
    raise _NotJson(f"not JSON: {name}")


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _NotJson(f"not JSON: {text[:40]} is no number")
    return number


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


_DECODER: Final = json.JSONDecoder(parse_constant=_constant, parse_float=_float, object_pairs_hook=_first_wins)


def fault_of(record: bytes, fields: Mapping[str, FieldType]) -> str | None:
    """The first fault of the record, or None when none is seen here."""
    try:
        text = record.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"not UTF-8: byte {error.start} is 0x{record[error.start]:02x}"
    try:
        value = _DECODER.decode(text)
    except _NotJson as error:
        return str(error)
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at character {error.pos}"
    except (RecursionError, ValueError):
        return None  # nested deeply, or a number of thousands of digits: limits differ, the decoder decides
    if not isinstance(value, dict):
        return f"not a JSON object but {_kind(value)}"
    return _struct_fault(value, fields, "")


def _struct_fault(value: Mapping[str, Any], fields: Mapping[str, FieldType], prefix: str) -> str | None:
    for name, field in fields.items():
        member = value.get(name)
        if member is not None and (fault := _fault(member, field, prefix + name)):
            return fault
    return None


def _fault(value: Any, field: FieldType, path: str) -> str | None:
    wanted = f"{path}: expected {field.name}, found {_kind(value)}"
    if field.name == "boolean":
        return None if isinstance(value, bool) else wanted
    if limit := _INT_RANGES.get(field.name):
        if not isinstance(value, int) or isinstance(value, bool):
            return wanted
        return None if -limit <= value < limit else f"{path}: {value} is out of range for {field.name}"
    if field.name in ("float32", "float64"):
        return None if isinstance(value, int | float) and not isinstance(value, bool) else wanted
    if field.name == "decimal":
        return None if isinstance(value, str | int | float) and not isinstance(value, bool) else wanted
    if field.name in _TEXTS:
        return None if isinstance(value, str) else wanted
    if field.name == "list":
        assert field.item is not None
        if not isinstance(value, list):
            return wanted
        faults = (_fault(item, field.item, f"{path}[{i}]") for i, item in enumerate(value) if item is not None)
        return next((fault for fault in faults if fault), None)
    if not isinstance(value, dict):
        return wanted
    return _struct_fault(value, dict(field.fields), path + ".")


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number with a fraction"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
