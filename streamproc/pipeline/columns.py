"""Columns that a file declares or creates: legal names, and the types of a source's schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import polars as pl

from operators.element import Schema
from operators.types import TYPE_NAMES, FieldType, UnknownType, name_of, parse_type
from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.spec import MetadataColumn
from streamproc.pipeline.suggest import near, shown

METADATA_TYPES: Final[Mapping[MetadataColumn, pl.DataType]] = {
    "key": pl.Binary(),
    "partition": pl.Int32(),
    "offset": pl.Int64(),
    "timestamp": pl.Datetime("ms", "UTC"),
    "topic": pl.String(),
    "headers": pl.List(pl.Struct({"key": pl.String(), "value": pl.Binary()})),
}
_OTHER_WORDS: Final = {  # how other systems call a type
    "array": "list[T]",
    "bigint": "int64",
    "binary": "bytes",
    "blob": "bytes",
    "bool": "boolean",
    "byte": "int8",
    "char": "string",
    "datetime": "timestamp",
    "decimal": "decimal(p,s)",
    "double": "float64",
    "float": "float64",
    "int": "int64",
    "integer": "int64",
    "list": "list[T]",
    "long": "int64",
    "number": "float64",
    "numeric": "decimal(p,s)",
    "object": "a nested mapping",
    "real": "float32",
    "short": "int16",
    "smallint": "int16",
    "str": "string",
    "struct": "a nested mapping",
    "text": "string",
    "time": "timestamp",
    "tinyint": "int8",
    "uuid": "string",
    "varchar": "string",
}


def check_column_name(name: str, path: FieldPath, log: FaultLog) -> bool:
    """Whether a column may be called so; a fault where not."""
    if name.startswith("__"):
        log.error(path, f"a column cannot be called '{name}': names that begin with __ are reserved", at_key=True)
    elif not name or name == "*" or name.startswith("^"):
        log.error(path, f"a column cannot be called '{name}'", at_key=True)
    else:
        return True
    return False


def read_fields(declared: Mapping[str, Any], path: FieldPath, log: FaultLog) -> dict[str, FieldType] | None:
    """The types of a source's `schema`; None when any is wrong."""
    fields: dict[str, FieldType] = {}
    for name, written in declared.items():
        legal = check_column_name(name, (*path, name), log)
        field = _read_type(written, (*path, name), log)
        if legal and field is not None:
            fields[name] = field
    return fields if len(fields) == len(declared) else None


def _read_type(written: Any, path: FieldPath, log: FaultLog) -> FieldType | None:
    if isinstance(written, dict) and written:
        inner = {name: _read_type(part, (*path, name), log) for name, part in written.items()}
        known = tuple((name, field) for name, field in inner.items() if field is not None)
        return FieldType("struct", fields=known) if len(known) == len(inner) else None
    if not isinstance(written, str | dict):
        said = "nothing is written here" if written is None else f"{shown(written)} is not a type"
        log.error(path, said, _type_hint(""), at_key=written is None)
        return None
    try:
        return parse_type(written)
    except (UnknownType, RecursionError) as error:
        if log.document.from_reference(path):
            log.error(path, f"'{log.document.as_written[path]}' does not give a type", _type_hint(""))
        else:
            log.error(path, str(error), _type_hint(written) if isinstance(written, str) else None)
        return None


def _type_hint(written: str) -> str | None:
    text = written.strip().lower()
    if text.startswith("decimal(") and text.endswith(")"):
        return "for example decimal(10,2)"
    if text.startswith("list[") and text.endswith("]"):
        return _type_hint(text[5:-1])
    other = _OTHER_WORDS.get(text.partition("(")[0].partition("<")[0].partition("[")[0])
    suggestion = other or near(text, TYPE_NAMES)
    return f"did you mean {suggestion}?" if suggestion else f"types are {', '.join(TYPE_NAMES)} and nested mappings"


def nested_columns(columns: Iterable[tuple[str, pl.DataType]]) -> list[str]:
    """Columns that are lists or structs: CSV has no place for them."""
    return [name for name, dtype in columns if isinstance(dtype, pl.List | pl.Struct | pl.Array)]


def differences(first: Schema, other: Schema) -> list[str]:
    """How `other` differs from `first` in names and types; the order of columns is no difference."""
    found = [f"has no column '{name}'" for name in first if name not in other]
    found += [f"has a column '{name}' more" for name in other if name not in first]
    found += [
        f"column '{name}' is {name_of(other[name])}, not {name_of(dtype)}"
        for name, dtype in first.items()
        if name in other and other[name] != dtype
    ]
    return found
