"""Columns that a file declares or creates: legal names, the types of a source's schema, and what is left of
them where the file is at fault.

A column whose declaration or expression is faulty keeps its name and has the type `UNKNOWN`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import polars as pl

from operators.element import Schema
from operators.types import TYPE_NAMES, UNKNOWN, FieldType, UnknownType, name_of, parse_type
from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.spec import MetadataColumn
from streamproc.pipeline.suggest import listed, near, shown

METADATA_TYPES: Final[Mapping[MetadataColumn, pl.DataType]] = {
    "key": pl.Binary(),
    "partition": pl.Int32(),
    "offset": pl.Int64(),
    "timestamp": pl.Datetime("ms", "UTC"),
    "topic": pl.String(),
    "headers": pl.List(pl.Struct({"key": pl.String(), "value": pl.Binary()})),
}
SIDE_PREFIXES: Final = ("left.", "right.")
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


class GuessedColumns(Schema):
    """Columns whose names are not certain: a misspelt one stands beside what it probably means. Enough to see
    what is certainly wrong with a reader, not to compare with the columns of another stream."""


class AnyColumns(GuessedColumns):
    """The columns of a stream of which nothing is known: every name may be one."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> pl.DataType:
        return UNKNOWN


def is_column_name(name: str) -> bool:
    """Whether a column may be called so."""
    return bool(name) and name != "*" and not name.startswith(("__", "^"))


def check_column_name(name: str, path: FieldPath, log: FaultLog) -> bool:
    """Whether a column may be called so; a fault where not."""
    if is_column_name(name):
        return True
    if name.startswith("__"):
        log.error(path, f"a column cannot be called '{name}': names that begin with __ are reserved", at_key=True)
    else:
        log.error(path, f"a column cannot be called '{name}'", at_key=True)
    return False


def read_fields(declared: Mapping[str, Any], path: FieldPath, log: FaultLog) -> dict[str, FieldType | None]:
    """The types of a source's `schema`; None for one that is wrong."""
    fields: dict[str, FieldType | None] = {}
    cut = any(written is None and is_cut_off(name) for name, written in declared.items())
    for name, written in declared.items():
        if cut and written is None and is_cut_off(name):
            continue  # the rest of a type that YAML has cut at a comma
        if cut and isinstance(written, str) and written.count("(") > written.count(")"):
            log.error((*path, name), f"{written!r} is not a type", 'inside { } a comma needs quotes: "decimal(10,2)"')
            fields[name] = None
            continue
        check_column_name(name, (*path, name), log)
        fields[name] = _read_type(written, (*path, name), log)
    return fields


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


def is_cut_off(name: str) -> bool:
    """Whether a name looks like the end of a text that YAML has cut at a comma."""
    return name.count(")") > name.count("(")


def named_columns(written: Any) -> list[tuple[FieldPath, str]] | None:
    """The columns that a list names, each with its place in it; also where it lacks its brackets, or holds
    what is no name. None for what names no columns at all."""
    if isinstance(written, list):
        return [((index,), name) for index, name in enumerate(written) if isinstance(name, str)]
    if isinstance(written, str):
        names = [name.strip() for name in written.split(",")]
        return [((), name) for name in names] if all(name.isidentifier() for name in names) else None
    return None


def nested_columns(columns: Iterable[tuple[str, pl.DataType]]) -> list[str]:
    """Columns that are lists or structs: CSV has no place for them."""
    return [name for name, dtype in columns if isinstance(dtype, pl.List | pl.Struct | pl.Array)]


def side_hint(name: str, columns: Iterable[str]) -> str | None:
    """The column of a join that was meant by a name without its side, or with the wrong one. None where `columns`
    are not those of a join, or nothing is known."""
    known = [column for column in columns if column.startswith(SIDE_PREFIXES)]
    bare = name.rpartition(".")[2]
    meant = [repr(column) for column in known if column.partition(".")[2] == bare]
    if meant:
        return f"did you mean {listed(meant, 'or')}?"
    if known and not name.startswith(SIDE_PREFIXES) and near(name, known) is None:
        return "columns of a join are called left.… and right.…"
    return None


def as_certain(columns: Schema, *, certain: bool) -> Schema:
    """The columns, marked as guessed where their names are not certain."""
    return columns if certain else GuessedColumns(columns)


def unlike(dtype: pl.DataType, other: pl.DataType) -> bool:
    """Whether two types are known to differ."""
    return dtype != other and UNKNOWN not in (dtype, other)


def together(first: Schema, other: Schema) -> Schema:
    """What is known of the columns of a union: all names, and the types that both sides agree on."""
    merged = {name: dtype if other.get(name) == dtype else UNKNOWN for name, dtype in first.items()}
    more = {name: UNKNOWN for name in other if name not in first}
    certain = first.keys() == other.keys() and not isinstance(first, GuessedColumns)
    return merged if certain else GuessedColumns(merged | more)


def differences(first: Schema, other: Schema) -> list[str]:
    """How `other` differs from `first` in names and types; the order of columns is no difference."""
    found = [f"has no column '{name}'" for name in first if name not in other]
    found += [f"has a column '{name}' more" for name in other if name not in first]
    found += [
        f"column '{name}' is {name_of(other[name])}, not {name_of(dtype)}"
        for name, dtype in first.items()
        if name in other and unlike(dtype, other[name])
    ]
    return found
