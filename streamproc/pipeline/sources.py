"""A source as written → a logical source: its columns, its event time, where it begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from operators.element import Schema
from operators.types import UNKNOWN, FieldType, name_of
from streamproc.pipeline.columns import (
    METADATA_TYPES,
    AnyColumns,
    GuessedColumns,
    as_certain,
    check_column_name,
    is_column_name,
    read_fields,
)
from streamproc.pipeline.connections import check_topic, resolve_connection
from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.format_rules import changelog_of, check_source_format
from streamproc.pipeline.format_spec import ParquetFormat
from streamproc.pipeline.job_rules import check_url
from streamproc.pipeline.logical import Changelog, EventTime, LogicalSource
from streamproc.pipeline.shape import Part, Source
from streamproc.pipeline.spec import (
    DatagenSourceSpec,
    EventTimeSpec,
    FileSourceSpec,
    JobSpec,
    KafkaConnectionSpec,
    KafkaSourceSpec,
    MetadataColumn,
    StartTimestamp,
)
from streamproc.pipeline.suggest import did_you_mean, listed
from streamproc.pipeline.wiring import error_policy


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What steps need to know of a source, as far as it is known."""

    schema: Schema
    has_event_time: bool
    bounded: bool
    logical: LogicalSource | None
    changelog: Changelog | None = None
    event_time: str | None = None  # its column


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
        return SourceFacts(AnyColumns(), True, True, None)
    schema: Schema
    fields: dict[str, FieldType | None] = {}
    connection = None
    changelog = None
    match spec:
        case KafkaSourceSpec():
            connection = resolve_connection(spec, part, connections, log)
            fields = _fields(part, spec.schema_, log)
            schema = _with_metadata(_columns(fields, part), part, spec.metadata, log)
            check_topic(spec.topic, part, log)
            _check_start(spec, part.path, log)
            bounded = spec.stop == "latest"
        case FileSourceSpec():
            check_url(spec.path, (*part.path, "path"), log)
            fields = _fields(part, spec.schema_, log)
            schema = _columns(fields, part)
            if spec.follow and isinstance(spec.format, ParquetFormat):
                log.error((*part.path, "follow"), "a Parquet file cannot be followed: its end says what is in it")
            bounded = not spec.follow
        case DatagenSourceSpec():
            schema = AnyColumns() if {"table", "columns"} & part.broken else _generated(spec, part.path, log)
            bounded = spec.rows is not None
    if isinstance(spec, KafkaSourceSpec | FileSourceSpec):
        check_source_format(spec.type, spec.format, fields, part.path, log)
        changelog = changelog_of(spec.format)
    event_time = _event_time(spec.event_time, schema, (*part.path, "event_time"), log)
    policy = error_policy(part, job)
    logical = None
    known = {name: field for name, field in fields.items() if field is not None}
    if len(known) == len(fields) and policy is not None:
        parallelism = spec.parallelism or (job.spec or JobSpec()).parallelism
        logical = LogicalSource(
            name=name,
            config=spec,
            connection=connection,
            fields=known,
            schema=schema,
            event_time=event_time,
            errors=policy,
            parallelism=parallelism,
            bounded=bounded,
            changelog=changelog,
        )
    has_event_time = spec.event_time is not None or "event_time" in part.broken
    column = event_time.column if event_time is not None else None
    return SourceFacts(schema, has_event_time, bounded, logical, changelog, column)


def _fields(part: Part[Source], declared: Mapping[str, Any], log: FaultLog) -> dict[str, FieldType | None]:
    return {} if part.is_wrong("schema") else read_fields(declared, (*part.path, "schema"), log)


def _columns(fields: Mapping[str, FieldType | None], part: Part[Source]) -> Schema:
    if part.is_wrong("schema"):
        return AnyColumns()
    columns = {name: UNKNOWN if field is None else field.dtype for name, field in fields.items()}
    return as_certain(columns, certain=all(map(is_column_name, columns)))


def _with_metadata(
    columns: Schema, part: Part[Source], metadata: Mapping[str, MetadataColumn], log: FaultLog
) -> Schema:
    """The columns and those that metadata adds; one that asks for what there is not keeps its name."""
    written = part.written.get("metadata", {})
    if isinstance(columns, AnyColumns) or not isinstance(written, dict):
        return AnyColumns()
    path = (*part.path, "metadata")
    added: Schema = {}
    for name in written:
        what = metadata.get(name)
        check_column_name(name, (*path, name), log)
        if name in columns:
            hint = f"give the {what} another name, for example kafka_{what}" if what is not None else None
            log.error((*path, name), f"the schema has a column '{name}' already", hint, at_key=True)
        else:
            added[name] = UNKNOWN if what is None else METADATA_TYPES[what]
    return as_certain(columns | added, certain=not isinstance(columns, GuessedColumns) and len(added) == len(written))


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


def _generated(spec: DatagenSourceSpec, path: FieldPath, log: FaultLog) -> Schema:
    if (spec.table is None) == (spec.columns is None):
        log.error(
            path,
            "needs 'table' or 'columns', and not both",
            "there are the tables bid, auction and person",
            at_key=True,
        )
        return AnyColumns()
    if spec.table is not None:
        return _generated_columns(spec, path, log) or AnyColumns()
    columns = spec.columns or {}
    if not columns:
        log.error((*path, "columns"), "must not be empty")
    schema: Schema = {}
    for name, declared in columns.items():  # one by one, so that every fault is told
        check_column_name(name, (*path, "columns", name), log)
        column = _generated_columns(spec.model_copy(update={"columns": {name: declared}}), path, log)
        schema |= column or {name: UNKNOWN}
    return as_certain(schema, certain=all(map(is_column_name, schema))) if schema else AnyColumns()


def _generated_columns(spec: DatagenSourceSpec, path: FieldPath, log: FaultLog) -> Schema | None:
    from streamproc.connectors.datagen import DatagenConfigError, datagen_schema  # loaded where one is asked for

    try:
        return datagen_schema(spec)
    except DatagenConfigError as error:
        log.error((*path, *error.path), error.message)
        return None


def _event_time(spec: EventTimeSpec | None, schema: Schema, path: FieldPath, log: FaultLog) -> EventTime | None:
    if spec is None:
        return None
    at, column = (*path, "column"), spec.column
    if column not in schema:
        log.error(at, f"unknown column '{column}'", did_you_mean(column, schema))
    elif not isinstance(dtype := schema[column], pl.Datetime) and dtype != UNKNOWN:
        log.error(at, f"'{column}' is {name_of(dtype)}, not a timestamp", _timestamp_hint(column, dtype, schema))
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
