"""A source as written → a logical source: its columns, its event time, where it begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from operators.element import Schema
from operators.types import FieldType, name_of
from streamproc.pipeline.columns import METADATA_TYPES, check_column_name, nested_columns, read_fields
from streamproc.pipeline.connections import resolve_connection
from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.job_rules import check_url
from streamproc.pipeline.logical import EventTime, LogicalSource
from streamproc.pipeline.shape import Part, Source
from streamproc.pipeline.spec import (
    CsvFormat,
    DatagenSourceSpec,
    EventTimeSpec,
    FileSourceSpec,
    JobSpec,
    KafkaConnectionSpec,
    KafkaSourceSpec,
    ParquetFormat,
    StartTimestamp,
)
from streamproc.pipeline.suggest import did_you_mean, listed
from streamproc.pipeline.wiring import error_policy


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What steps need to know of a source, as far as it is known."""

    schema: Schema | None
    has_event_time: bool
    bounded: bool
    logical: LogicalSource | None


def plan_source(
    name: str,
    part: Part[Source],
    job: Part[JobSpec],
    connections: Mapping[str, Part[KafkaConnectionSpec]],
    log: FaultLog,
) -> SourceFacts:
    """Check one source. What cannot be known because of a fault counts as right."""
    spec = part.spec
    if spec is None:
        return SourceFacts(None, True, True, None)
    schema: Schema | None
    fields: dict[str, FieldType] | None = {}
    connection = None
    match spec:
        case KafkaSourceSpec():
            connection = resolve_connection(spec, part.path, connections, part.broken, log)
            fields = read_fields(spec.schema_, (*part.path, "schema"), log)
            schema = _with_metadata(fields, spec.metadata, (*part.path, "metadata"), log)
            _check_start(spec, part.path, log)
            if isinstance(spec.format, ParquetFormat):
                log.error((*part.path, "format"), "parquet is a format of files: a Kafka record cannot hold it")
            bounded = spec.stop == "latest"
        case FileSourceSpec():
            check_url(spec.path, (*part.path, "path"), log)
            fields = read_fields(spec.schema_, (*part.path, "schema"), log)
            schema = _columns(fields)
            if spec.follow and isinstance(spec.format, ParquetFormat):
                log.error((*part.path, "follow"), "a Parquet file cannot be followed: its end says what is in it")
            bounded = not spec.follow
        case DatagenSourceSpec():
            schema = None if {"table", "columns"} & part.broken else _generated(spec, part.path, log)
            bounded = spec.rows is not None
    if isinstance(spec, KafkaSourceSpec | FileSourceSpec):
        _check_csv(spec, fields, part.path, log)
    if {"schema", "metadata", "table", "columns"} & part.broken:
        schema = None
    event_time = _event_time(spec.event_time, schema, (*part.path, "event_time"), log)
    policy = error_policy(part, job)
    logical = None
    if schema is not None and fields is not None and policy is not None:
        parallelism = spec.parallelism or (job.spec or JobSpec()).parallelism
        logical = LogicalSource(
            name=name,
            config=spec,
            connection=connection,
            fields=fields,
            schema=schema,
            event_time=event_time,
            errors=policy,
            parallelism=parallelism,
            bounded=bounded,
        )
    has_event_time = spec.event_time is not None or "event_time" in part.broken
    return SourceFacts(schema, has_event_time, bounded, logical)


def _columns(fields: Mapping[str, FieldType] | None) -> Schema | None:
    return None if fields is None else {name: field.dtype for name, field in fields.items()}


def _with_metadata(
    fields: Mapping[str, FieldType] | None, metadata: Mapping[str, Any], path: FieldPath, log: FaultLog
) -> Schema | None:
    columns = _columns(fields)
    legal = True
    for name, what in metadata.items():
        legal &= check_column_name(name, (*path, name), log)
        if columns is not None and name in columns:
            hint = f"give the {what} another name, for example kafka_{what}"
            log.error((*path, name), f"the schema has a column '{name}' already", hint, at_key=True)
            legal = False
        elif columns is not None:
            columns[name] = METADATA_TYPES[what]
    return columns if legal else None


def _check_csv(
    spec: KafkaSourceSpec | FileSourceSpec, fields: Mapping[str, FieldType] | None, path: FieldPath, log: FaultLog
) -> None:
    if isinstance(spec.format, CsvFormat) and fields is not None:
        for name in nested_columns((name, field.dtype) for name, field in fields.items()):
            log.error((*path, "schema", name), f"CSV cannot hold {fields[name]}", "use json, or declare it as string")


def _check_start(spec: KafkaSourceSpec, path: FieldPath, log: FaultLog) -> None:
    if not isinstance(spec.start, StartTimestamp):
        return
    at = (*path, "start", "timestamp")
    example = "write it like 2026-01-01T00:00:00Z"
    try:
        start = datetime.fromisoformat(spec.start.timestamp)
    except ValueError:
        log.error(at, f"'{spec.start.timestamp}' is not a timestamp", example)
        return
    if start.tzinfo is None:
        log.error(at, f"'{spec.start.timestamp}' has no time zone", f"{example}, with Z for UTC")


def _generated(spec: DatagenSourceSpec, path: FieldPath, log: FaultLog) -> Schema | None:
    if (spec.table is None) == (spec.columns is None):
        log.error(
            path,
            "needs 'table' or 'columns', and not both",
            "there are the tables bid, auction and person",
            at_key=True,
        )
        return None
    if spec.table is not None:
        return _generated_columns(spec, path, log)
    columns = spec.columns or {}
    if not columns:
        log.error((*path, "columns"), "must not be empty")
    schema: Schema = {}
    for name, declared in columns.items():  # one by one, so that every fault is told
        legal = check_column_name(name, (*path, "columns", name), log)
        column = _generated_columns(spec.model_copy(update={"columns": {name: declared}}), path, log)
        if legal and column is not None:
            schema |= column
    return schema if len(schema) == len(columns) and schema else None


def _generated_columns(spec: DatagenSourceSpec, path: FieldPath, log: FaultLog) -> Schema | None:
    from streamproc.connectors.datagen import DatagenConfigError, datagen_schema  # loaded where one is asked for

    try:
        return datagen_schema(spec)
    except DatagenConfigError as error:
        log.error((*path, *error.path), error.message)
        return None


def _event_time(spec: EventTimeSpec | None, schema: Schema | None, path: FieldPath, log: FaultLog) -> EventTime | None:
    if spec is None:
        return None
    if schema is not None:
        at = (*path, "column")
        dtype = schema.get(spec.column)
        if dtype is None:
            log.error(at, f"unknown column '{spec.column}'", did_you_mean(spec.column, schema))
        elif not isinstance(dtype, pl.Datetime):
            log.error(
                at, f"'{spec.column}' is {name_of(dtype)}, not a timestamp", _timestamp_hint(spec.column, dtype, schema)
            )
    return EventTime(spec.column, spec.out_of_order, spec.idle_after)


def _timestamp_hint(column: str, dtype: pl.DataType, schema: Schema) -> str:
    if dtype == pl.String():
        return f"where it is ISO-8601 text, declare `{column}: timestamp`"
    if dtype.is_integer():
        return (
            f"where it counts milliseconds since 1970, declare `{column}: timestamp_ms` (or timestamp_s, timestamp_us)"
        )
    timestamps = [name for name, known in schema.items() if isinstance(known, pl.Datetime)]
    return f"there is {listed(timestamps)}" if timestamps else "declare a column as timestamp"
