"""Which format goes with which connector and which columns, and what stream it makes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import polars as pl

from operators.element import Schema
from operators.types import FieldType
from streamproc.pipeline.columns import nested_columns
from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.format_spec import (
    AvroFormat,
    CsvFormat,
    DebeziumJsonFormat,
    FormatName,
    FormatSpec,
    ParquetFormat,
    ProtobufFormat,
)
from streamproc.pipeline.logical import Changelog
from streamproc.pipeline.suggest import did_you_mean, listed

_SOURCES: Final[Mapping[str, tuple[FormatName, ...]]] = {
    "kafka": ("json", "csv", "avro", "protobuf", "debezium-json"),
    "file": ("json", "csv", "parquet", "debezium-json"),
    "lookup": ("json", "csv", "parquet"),
}
_SINKS: Final[Mapping[str, tuple[FormatName, ...]]] = {
    "kafka": ("json", "csv", "avro", "protobuf"),
    "file": ("json", "csv", "parquet"),
    "print": ("json", "csv"),
}
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_source_format(
    connector: str, form: FormatSpec, fields: Mapping[str, FieldType | None], path: FieldPath, log: FaultLog
) -> None:
    """Faults of a source's `format`; `path` is the source's, `fields` its schema (None: a faulty one)."""
    if connector == "kafka" and isinstance(form, ParquetFormat):
        log.error((*path, "format"), "parquet is a format of files: a Kafka record cannot hold it")
    else:
        _check_place(connector, form, _SOURCES[connector], path, log)
    if isinstance(form, CsvFormat):
        for name in nested_columns((name, field.dtype) for name, field in fields.items() if field is not None):
            log.error((*path, "schema", name), f"CSV cannot hold {fields[name]}", "use json, or declare it as string")
    if isinstance(form, ProtobufFormat):
        for name, field in fields.items():
            if field is not None and _has_nested_lists(field.dtype):
                log.error((*path, "schema", name), f"Protobuf cannot hold {field}: it has no lists of lists")
    if isinstance(form, AvroFormat | ProtobufFormat):
        _refuse_sink_words(form, path, log)
    if isinstance(form, DebeziumJsonFormat):
        for position, name in enumerate(form.key or ()):
            if name not in fields:
                at = (*path, "format", "key", position)
                log.error(at, f"unknown column '{name}'", did_you_mean(name, fields))


def check_sink_format(connector: str, form: FormatSpec, columns: Schema, path: FieldPath, log: FaultLog) -> None:
    """Faults of a sink's `format`; `path` is the sink's, `columns` what it writes."""
    _check_place(connector, form, _SINKS[connector], path, log)
    at = (*path, "format")
    if isinstance(form, CsvFormat) and (nested := nested_columns(columns.items())):
        message = f"CSV cannot hold lists and structs: {listed(nested)}"
        log.error(at, message, "use json, or leave them out with `select`")
    if isinstance(form, AvroFormat | ProtobufFormat):
        said = form.type.capitalize()
        if unnamable := [name for name in _all_names(columns) if _NAME.fullmatch(name) is None]:
            message = f"{said} names have only letters, digits and _: {listed(unnamable)}"
            log.error(at, message, "rename such columns with `select`")
    if isinstance(form, ProtobufFormat) and (lists := [n for n, dtype in columns.items() if _has_nested_lists(dtype)]):
        log.error(at, f"Protobuf cannot hold lists of lists: {listed(lists)}", "use avro or json")


def changelog_of(form: FormatSpec | None) -> Changelog | None:
    """What stream a source of this format is; None: append-only."""
    if isinstance(form, DebeziumJsonFormat):
        return Changelog(tuple(form.key) if form.key is not None else None)
    return None


def _check_place(
    connector: str, form: FormatSpec, taken: tuple[FormatName, ...], path: FieldPath, log: FaultLog
) -> None:
    if form.type in taken:
        return
    remedy: str | None = f"there are {listed(taken)}"
    if isinstance(form, ParquetFormat):
        message = "parquet is a format of files"
        message += f", not of {connector}"
        remedy = None
    elif isinstance(form, DebeziumJsonFormat) and "debezium-json" in _SOURCES.get(connector, ("debezium-json",)):
        message = "debezium-json is a format of sources"
    else:
        message = f"{form.type} is not a format of {connector}"
        remedy = f"{remedy}; a Kafka topic can hold it"
    log.error((*path, "format"), message, remedy)


def _refuse_sink_words(form: AvroFormat | ProtobufFormat, path: FieldPath, log: FaultLog) -> None:
    for word in ("subject", "auto_register"):
        if word in form.model_fields_set:
            message = f"'{word}' is for sinks: a source finds each record's schema by the id in it"
            log.error((*path, "format", word), message, "leave it out", at_key=True)


def _has_nested_lists(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List):
        return isinstance(dtype.inner, pl.List) or _has_nested_lists(dtype.inner)  # type: ignore[arg-type]
    return isinstance(dtype, pl.Struct) and any(_has_nested_lists(member.dtype) for member in dtype.fields)  # type: ignore[arg-type]


def _all_names(columns: Mapping[str, pl.DataType]) -> list[str]:
    """Names of the columns and of the members of structs in them."""
    names = list(columns)
    for dtype in columns.values():
        while isinstance(dtype, pl.List):
            dtype = dtype.inner  # type: ignore[assignment]
        if isinstance(dtype, pl.Struct):
            names += _all_names({member.name: member.dtype for member in dtype.fields})  # type: ignore[misc]
    return names
