"""A sink as written → a logical sink."""

from __future__ import annotations

from collections.abc import Mapping

from operators.connector import ERRORS_SCHEMA
from operators.element import Schema
from streamproc.pipeline.columns import named_columns, nested_columns
from streamproc.pipeline.connections import check_topic, resolve_connection
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.format_spec import CsvFormat, ParquetFormat
from streamproc.pipeline.job_rules import check_transaction_timeout, check_url
from streamproc.pipeline.logical import LogicalSink, StreamRef
from streamproc.pipeline.shape import Part, Sink
from streamproc.pipeline.spec import BlackholeSinkSpec, FileSinkSpec, JobSpec, KafkaConnectionSpec, KafkaSinkSpec
from streamproc.pipeline.suggest import did_you_mean, listed
from streamproc.pipeline.verbs.verb import InputFacts


def plan_sink(
    name: str,
    part: Part[Sink],
    inputs: tuple[StreamRef, ...],
    facts: InputFacts,
    job: JobSpec,
    connections: Mapping[str, Part[KafkaConnectionSpec]],
    log: FaultLog,
) -> LogicalSink | None:
    """Check one sink."""
    spec = part.spec
    if spec is None:
        return None
    connection = None
    schema = facts.schema
    carries_errors = bool(inputs) and all(ref.tag == "errors" for ref in inputs)
    if isinstance(spec, KafkaSinkSpec):
        connection = resolve_connection(spec, part, connections, log)
        check_topic(spec.topic, part, log)
        _check_key(spec, schema, carries_errors, part, log)
        if spec.delivery == "exactly_once" and "transaction_timeout" not in part.broken:
            check_transaction_timeout(part, spec.transaction_timeout, job, log)
        if carries_errors and part.has("format"):
            message = "errors streams go to Kafka as the original records: there is no format to choose"
            log.error((*part.path, "format"), message, at_key=True)
    if isinstance(spec, FileSinkSpec):
        check_url(spec.path, (*part.path, "path"), log)
    if not isinstance(spec, BlackholeSinkSpec):
        if isinstance(spec.format, ParquetFormat) and not isinstance(spec, FileSinkSpec):
            log.error((*part.path, "format"), f"parquet is a format of files, not of {spec.type}")
        if isinstance(spec.format, CsvFormat) and (nested := nested_columns(schema.items())):
            message = f"CSV cannot hold lists and structs: {listed(nested)}"
            log.error((*part.path, "format"), message, "use json, or leave them out with `select`")
    return LogicalSink(
        name=name,
        config=spec,
        connection=connection,
        streams=inputs,
        schema=dict(ERRORS_SCHEMA) if carries_errors else schema,
        parallelism=spec.parallelism or job.parallelism,
        changelog=facts.changelog,
        carries_errors=carries_errors,
    )


def _check_key(spec: KafkaSinkSpec, schema: Schema, carries_errors: bool, part: Part[Sink], log: FaultLog) -> None:
    path = part.path
    if spec.key is None and not part.is_wrong("key"):
        return
    if carries_errors:
        message = "errors streams go to Kafka with their original keys: there is no key to choose"
        log.error((*path, "key"), message, at_key=True)
        return
    key = named_columns(part.written["key"]) or []
    if not key and not part.is_wrong("key"):
        log.error((*path, "key"), "must name at least one column", "leave it out to spread records evenly")
    for position, (at, name) in enumerate(key):
        if name not in schema:
            log.error((*path, "key", *at), f"unknown column '{name}'", did_you_mean(name, schema))
        elif any(name == before for _, before in key[:position]):
            log.error((*path, "key", *at), f"'{name}' is named twice")
